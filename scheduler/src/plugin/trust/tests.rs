//! Each refusal, by a file that is refused for it. None needs root, and all hold for root too, except where said.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::ftruncate;
use rustix::io::pwrite;

use super::sealed::hash;
use super::*;

/// A folder of one's own, closed to others, with a plugin `p.so` in it that is in order.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.mode("", 0o700);
        std::fs::write(place.path("p.so"), "content").expect("written");
        place.mode("p.so", 0o644);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).expect("permitted");
    }

    /// The refusal of a file, with the folder's path as PLACE.
    fn refusal(&self, name: &str) -> String {
        let error = seal(&self.path(name), None).expect_err("refused");
        let folder = self.0.path().canonicalize().expect("there");
        crate::engine::daemon::chain(&error).replace(folder.to_str().expect("ASCII"), "PLACE")
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Of the content `content`.
const HASH: &str = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";

#[test]
fn a_file_in_order_is_sealed() {
    let place = Place::new();
    let library = seal(&place.path("p.so"), Some(HASH.parse().expect("a hash"))).expect("in order");
    assert_eq!(library.sha256().to_string(), HASH);
    assert_eq!(library.file_name(), "p.so");
    let memory = library.descriptor().expect("a descriptor");
    assert_eq!(pwrite(&memory, b"x", 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&memory, 0), Err(Errno::PERM));
    std::fs::write(place.path("p.so"), "other").expect("written");
    assert_eq!(hash(memory.as_fd()).expect("readable").to_string(), HASH);
}

#[test]
fn a_wrong_hash_is_refused() {
    let place = Place::new();
    let expected = "0".repeat(64).parse().expect("a hash");
    let error = seal(&place.path("p.so"), Some(expected)).expect_err("refused");
    assert!(
        error.to_string().ends_with(&format!(
            "p.so has the SHA-256 hash {HASH}, not {}",
            "0".repeat(64)
        )),
        "{error}"
    );
    assert_eq!(
        "12".parse::<Sha256>(),
        Err("\"12\" is not a SHA-256 hash; expected 64 hexadecimal digits".to_owned())
    );
    assert!("é".repeat(32).parse::<Sha256>().is_err());
}

#[test]
fn what_others_may_write_is_refused() {
    let place = Place::new();
    place.mode("p.so", 0o664);
    assert_eq!(
        place.refusal("p.so"),
        "the plugin PLACE/p.so may be written by its group (mode 0664); chmod go-w takes that right away"
    );
    place.mode("p.so", 0o646);
    assert_eq!(
        place.refusal("p.so"),
        "the plugin PLACE/p.so may be written by anyone (mode 0646); chmod go-w takes that right away"
    );
}

#[test]
fn a_folder_that_others_may_write_is_refused_unless_it_is_sticky() {
    let place = Place::new();
    place.mode("", 0o777);
    assert_eq!(
        place.refusal("p.so"),
        "the plugin's folder PLACE may be written by anyone (mode 0777); chmod go-w takes that right away"
    );
    place.mode("", 0o1777);
    assert!(seal(&place.path("p.so"), None).is_ok());
}

#[test]
fn a_folder_further_up_counts_as_well() {
    let place = Place::new();
    std::fs::create_dir(place.path("inner")).expect("created");
    place.mode("inner", 0o755);
    std::fs::rename(place.path("p.so"), place.path("inner/p.so")).expect("moved");
    place.mode("", 0o770);
    assert_eq!(
        place.refusal("inner/p.so"),
        "the plugin's folder PLACE may be written by its group (mode 0770); chmod go-w takes that right away"
    );
}

#[test]
fn a_symbolic_link_is_refused_but_one_to_the_folder_is_followed() {
    let place = Place::new();
    symlink("p.so", place.path("link.so")).expect("linked");
    assert_eq!(
        place.refusal("link.so"),
        "the plugin PLACE/link.so is a symbolic link; name the file that it leads to"
    );
    symlink(".", place.path("folder")).expect("linked");
    let library = seal(&place.path("folder/p.so"), None).expect("in order");
    assert!(
        !library.path().to_string_lossy().contains("folder"),
        "{library:?}"
    );
}

/// Who may write the folder of a link may lead it elsewhere, though where it leads now is in order.
#[test]
fn a_link_that_others_could_have_made_is_refused() {
    let (place, way) = (Place::new(), Place::new());
    symlink(place.path(""), way.path("link")).expect("linked");
    assert!(seal(&way.path("link/p.so"), None).is_ok());
    way.mode("", 0o777);
    let said = way.refusal("link/p.so");
    assert_eq!(
        said,
        "the plugin's folder PLACE may be written by anyone (mode 0777); chmod go-w takes that right away"
    );
    way.mode("", 0o1777);
    assert!(seal(&way.path("link/p.so"), None).is_ok());
    if is_root() {
        // Giving a link away takes root. In a sticky folder, this is what a stranger could put there.
        std::os::unix::fs::lchown(way.path("link"), Some(54_321), None).expect("root may");
        assert_eq!(
            way.refusal("link/p.so"),
            "the symbolic link to the plugin's folder PLACE/link belongs to user 54321; it must belong to root or to \
             user 0, whom the scheduler runs as"
        );
    }
}

#[test]
fn a_way_through_links_ends_where_the_kernels_would() {
    let place = Place::new();
    std::fs::create_dir(place.path("inner")).expect("created");
    place.mode("inner", 0o755);
    symlink("inner/../inner", place.path("relative")).expect("linked");
    symlink(place.path("relative"), place.path("absolute")).expect("linked");
    std::fs::rename(place.path("p.so"), place.path("inner/p.so")).expect("moved");
    let folder = place.path("inner").canonicalize().expect("there");
    for way in ["relative/p.so", "absolute/p.so", "absolute/../relative/./p.so"] {
        let library = seal(&place.path(way), None).expect("in order");
        assert_eq!(library.path(), folder.join("p.so"), "{way}");
    }
    symlink("round", place.path("round")).expect("linked");
    let said = place.refusal("round/p.so");
    assert!(
        said.starts_with("cannot read the plugin's folder PLACE/round: Too many levels"),
        "{said}"
    );
    let said = place.refusal("inner/p.so/p.so");
    assert!(
        said.starts_with("cannot read the plugin's folder PLACE/inner/p.so: Not a directory"),
        "{said}"
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder.so")).expect("created");
    assert_eq!(
        place.refusal("folder.so"),
        "the plugin PLACE/folder.so is a folder, not a file"
    );
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe.so"),
        FileType::Fifo,
        Mode::RUSR,
        0,
    )
    .expect("created");
    assert_eq!(
        place.refusal("pipe.so"),
        "the plugin PLACE/pipe.so is a named pipe, not a file"
    );
    let _listener = UnixListener::bind(place.path("socket.so")).expect("bound");
    assert_eq!(
        place.refusal("socket.so"),
        "the plugin PLACE/socket.so is a socket, not a file"
    );
    assert_eq!(
        seal(Path::new("/dev/null"), None)
            .expect_err("refused")
            .to_string(),
        "the plugin /dev/null is a device, not a file"
    );
    for folder in ["/", "..", "."] {
        let error = seal(Path::new(folder), None).expect_err("refused");
        assert!(
            matches!(error, TrustError::NotAFile { kind: "a folder", .. }),
            "{folder}: {error}"
        );
    }
}

#[test]
fn an_empty_and_a_huge_file_are_refused() {
    let place = Place::new();
    let file = std::fs::File::create(place.path("p.so")).expect("created");
    assert_eq!(place.refusal("p.so"), "the plugin PLACE/p.so is empty");
    file.set_len(MAX_BYTES + 1).expect("resized");
    assert_eq!(
        place.refusal("p.so"),
        "the plugin PLACE/p.so is larger than 64 MiB"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let place = Place::new();
    assert!(
        place
            .refusal("none.so")
            .starts_with("cannot read the plugin PLACE/none.so: No such file")
    );
    assert!(place.refusal("none/p.so").contains("No such file"));
    if !is_root() {
        // Root reads it all the same.
        place.mode("p.so", 0);
        assert!(
            place
                .refusal("p.so")
                .starts_with("cannot read the plugin PLACE/p.so: Permission denied")
        );
    }
}

/// This process' memory is a file in order, but for its beginning, where nothing is.
#[test]
fn a_file_that_cannot_be_copied_is_refused() {
    let error = seal(Path::new("/proc/self/mem"), None).expect_err("refused");
    let said = crate::engine::daemon::chain(&error);
    let pid = std::process::id();
    assert!(
        said.starts_with(&format!(
            "cannot copy the plugin /proc/{pid}/mem into memory: Input/output error"
        )),
        "{said}"
    );
}

/// Giving a file away takes root; without it, a file of another user that everyone has stands in: there is none that
/// is not root's, so the rule itself is asked.
#[test]
fn what_belongs_to_someone_else_is_refused() {
    let place = Place::new();
    let stranger = 54_321;
    let refused = if is_root() {
        std::os::unix::fs::chown(place.path("p.so"), Some(stranger), None).expect("root may");
        place.refusal("p.so")
    } else {
        let mut stat = fstat(std::fs::File::open(place.path("p.so")).expect("open")).expect("stat");
        stat.st_uid = stranger;
        check_owner(&stat, Path::new("PLACE/p.so"), What::Plugin)
            .expect_err("refused")
            .to_string()
    };
    let user = rustix::process::geteuid().as_raw();
    assert_eq!(
        refused,
        format!(
            "the plugin PLACE/p.so belongs to user 54321; it must belong to root or to user {user}, whom the scheduler runs as"
        )
    );
    if is_root() {
        std::os::unix::fs::chown(place.path("p.so"), Some(0), None).expect("root may");
        std::os::unix::fs::chown(place.path(""), Some(stranger), None).expect("root may");
        assert!(
            place
                .refusal("p.so")
                .starts_with("the plugin's folder PLACE belongs to user 54321;")
        );
    }
}

#[test]
fn the_configuration_wants_an_absolute_path() {
    assert_eq!(
        seal_configured(Path::new("p.so"), None)
            .expect_err("refused")
            .to_string(),
        "the plugin p.so is not an absolute path"
    );
    let place = Place::new();
    assert!(seal_configured(&place.path("p.so"), None).is_ok());
}

#[test]
fn a_folder_of_plugins_is_listed_by_name() {
    let place = Place::new();
    std::fs::write(place.path("a.so"), "").expect("written");
    std::fs::write(place.path("notes.txt"), "").expect("written");
    let names: Vec<String> = list(&place.path(""))
        .expect("readable")
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(names, ["a.so", "p.so"]);
    assert!(list(&place.path("none")).is_err());
}
