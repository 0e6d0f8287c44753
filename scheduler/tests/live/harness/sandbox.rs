//! A fresh folder, an ordinary user to run programs as, and the certain end of both.
//!
//! libvirt decides by two things whether a client reaches the system's daemon or a private one: by the user
//! (root always gets the system's) and by the environment (`XDG_RUNTIME_DIR` and its relatives). A sandbox
//! settles both: what it runs is run as `nobody` if we are root and as ourselves if not, in an environment
//! that holds nothing but folders of the sandbox. The folder's path is short because unix socket names are
//! limited to 108 bytes.
//!
//! A guest outlives the daemon that started it, by design, and a test can be killed before it cleans up. So
//! the clean-up is done by a process of its own (`reaper.sh`), which starts first and acts when the sandbox
//! is dropped or when the test process is gone. Promised: after either, no process and no file of the sandbox
//! is left.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// No program that the harness runs for an answer may take longer.
const TOOL_LIMIT_SECONDS: &str = "60";
const REAPER_LIMIT: Duration = Duration::from_secs(20);

/// The programs that the live tests need, and the Debian packages that have them.
const NEEDED: [(&str, &str); 5] = [
    ("libvirtd", "libvirt-daemon"),
    ("virsh", "libvirt-clients"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("as", "binutils"),
    ("ld", "binutils"),
];

/// A folder and a user for programs that must not touch anything else.
#[derive(Debug)]
pub(crate) struct Sandbox {
    folder: TempDir,
    account: Option<Account>,
    path: String,
    reaper: Child,
    copying: Mutex<()>,
}

/// The user that root becomes.
#[derive(Clone, Copy, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Sandbox {
    /// Creates the folder and starts the reaper. Panics if a program is not installed that the live tests
    /// need.
    pub(crate) fn new() -> Self {
        let path = search_path();
        for (program, package) in NEEDED {
            assert!(
                find(&path, program).is_some(),
                "the live tests need the program `{program}`: install the package {package} (its name in \
                 Debian)"
            );
        }
        let folder = TempDir::with_prefix_in("vs-", "/tmp").expect("create a folder in /tmp");
        // A new file belongs to the effective user: this asks who that is.
        let owner = fs::metadata(folder.path())
            .expect("read the new folder's owner")
            .uid();
        let account = (owner == 0).then(nobody);

        let mut reaper = Command::new("sh");
        restrict(&mut reaper, folder.path(), &path, account);
        // In a process group of its own, or Ctrl-C would end it with the tests.
        reaper
            .args(["-c", include_str!("reaper.sh")])
            .stdin(Stdio::piped())
            .process_group(0);
        let reaper = reaper
            .env("FOLDER", folder.path())
            .spawn()
            .expect("start the reaper");

        let sandbox = Self {
            folder,
            account,
            path,
            reaper,
            copying: Mutex::new(()),
        };
        sandbox.give_away(sandbox.folder());
        for name in ["home", "run", "config", "cache", "bin"] {
            sandbox.create_folder(name);
        }
        sandbox
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Creates a folder in the sandbox, named by its path in it.
    pub(crate) fn create_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder().join(name);
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("create {}: {error}", folder.display()));
        self.give_away(&folder);
        folder
    }

    /// Writes a file in the sandbox, named by its path in it, that the sandbox's user can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder().join(name);
        fs::write(&file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
        self.give_away(&file);
        file
    }

    /// Where an installed program is. Panics if it is not.
    pub(crate) fn place_of(&self, program: &str) -> PathBuf {
        find(&self.path, program).unwrap_or_else(|| panic!("the program `{program}` is not installed"))
    }

    /// An installed program, to be run as the sandbox's user.
    pub(crate) fn installed(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        restrict(&mut command, self.folder(), &self.path, self.account);
        command
    }

    /// A program of ours, to be run as the sandbox's user. It is copied into the sandbox first, once for each
    /// file name: that user may be unable to reach the folder where it was built, and the reaper knows it by
    /// its place.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let name = program
            .file_name()
            .unwrap_or_else(|| panic!("{} has no file name", program.display()));
        let copy = self.folder().join("bin").join(name);
        let copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        if !copy.exists() {
            // Not fs::copy: a child that another thread starts meanwhile would inherit the file open for
            // writing, and for as long as it has it the kernel refuses to run the copy ("text file busy").
            let status = Command::new("cp")
                .arg(program)
                .arg(&copy)
                .status()
                .expect("run cp");
            assert!(
                status.success(),
                "cannot copy {} into the sandbox",
                program.display()
            );
            self.give_away(&copy);
        }
        drop(copying);
        self.installed(copy)
    }

    /// Runs an installed program and returns what it wrote to stdout, or its stderr if it failed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, program: &str, args: &[A]) -> Result<String, String> {
        let mut command = self.installed("timeout");
        command
            .args(["--kill-after=1", TOOL_LIMIT_SECONDS, program])
            .args(args)
            .stdin(Stdio::null());
        let output = command.output().expect("run timeout(1)");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!(
                "{program}: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ))
        }
    }

    fn give_away(&self, path: &Path) {
        if let Some(Account { uid, gid }) = self.account {
            chown(path, Some(uid), Some(gid))
                .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        let begin = Instant::now();
        let mut status = self.reaper.try_wait();
        while matches!(status, Ok(None)) && begin.elapsed() < REAPER_LIMIT {
            thread::sleep(Duration::from_millis(5));
            status = self.reaper.try_wait();
        }
        let reaped = matches!(status, Ok(Some(status)) if status.success());
        // A second panic while one is under way would hide the first.
        if !thread::panicking() {
            assert!(
                reaped,
                "the reaper of {} failed: {status:?}",
                self.folder().display()
            );
        }
    }
}

/// Makes `command` run as `account` in `folder`, with an environment that leads nowhere else.
fn restrict(command: &mut Command, folder: &Path, path: &str, account: Option<Account>) {
    command
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", folder.join("home"))
        .env("XDG_RUNTIME_DIR", folder.join("run"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        // A client that finds no daemon must say so, not start another one.
        .env("LIBVIRT_AUTOSTART", "0")
        .current_dir(folder);
    if let Some(Account { uid, gid }) = account {
        // The standard library drops root's supplementary groups with the uid.
        command.uid(uid).gid(gid);
    }
}

/// Ours, and where Debian has daemons, which is often missing from an ordinary user's.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
}

fn find(path: &str, program: &str) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn nobody() -> Account {
    let accounts = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let account = accounts.lines().find_map(|line| {
        let mut fields = line.strip_prefix("nobody:")?.split(':').skip(1);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { uid, gid })
    });
    account.expect("as root the live tests use the account `nobody`, which /etc/passwd does not have")
}
