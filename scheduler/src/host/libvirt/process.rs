//! Where the QEMU process of a guest is, if it is on this machine.
//!
//! libvirt's QEMU driver keeps a file with the process id of each running guest, named after the guest, in a folder
//! that depends on the daemon: the system's, a user's, or one reached by a socket in a place of its own. Whether the
//! id still means that guest is seen from the process's command line, which holds the guest's UUID. Process ids are used
//! again; with the time at which it was started, one names a process for good.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::procfs::{started_ticks, was_started_with};
use crate::host::{DomainUuid, Incarnation};

/// A guest's QEMU process.
#[derive(Debug)]
pub(super) struct Process {
    /// Its folder in `/proc`.
    pub(super) folder: PathBuf,
    pid: u32,
    /// When it was started, in clock ticks since this machine was.
    started_ticks: u64,
}

/// The QEMU processes of one daemon's guests.
#[derive(Debug)]
pub(super) struct Processes {
    /// Where the daemon keeps their ids; `None` if it is, or may be, on another machine.
    pid_folder: Option<PathBuf>,
}

impl Processes {
    /// Those of the daemon at `uri`.
    pub(super) fn of(uri: &str) -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self {
            pid_folder: pid_folder(uri, runtime),
        }
    }

    /// Whether they can be on this machine at all.
    pub(super) fn are_here(&self) -> bool {
        self.pid_folder.is_some()
    }

    /// A guest's process.
    pub(super) fn process(&self, name: &str, uuid: DomainUuid) -> Option<Process> {
        let file = self.pid_folder.as_ref()?.join(format!("{name}.pid"));
        let pid: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let folder = Path::new("/proc").join(pid.to_string());
        // Before the look at whose process it is: should the id pass to another one in between, that one is refused.
        let started_ticks = started_ticks(&folder).ok()?;
        let is_guest = was_started_with(&folder, &["-uuid", &uuid.to_string()]);
        is_guest.unwrap_or(false).then_some(Process {
            folder,
            pid,
            started_ticks,
        })
    }

    /// What tells a guest's process from all others; `None` if it cannot be seen.
    pub(super) fn incarnation(&self, name: &str, uuid: DomainUuid) -> Option<Incarnation> {
        let Process {
            pid, started_ticks, ..
        } = self.process(name, uuid)?;
        Some(Incarnation(format!("qemu:{pid}:{started_ticks}").into()))
    }
}

/// A daemon of the QEMU driver on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LocalDaemon {
    /// Whether it is the system's; else it is a user's.
    pub(super) system: bool,
    /// The folder that its socket is in, if that is said.
    beside_socket: Option<PathBuf>,
}

/// Whether a connection to `uri` ends on this machine, as far as the URI says: it names no host, and no way to one. (A
/// socket may be the near end of a tunnel; that cannot be seen.)
pub fn is_local(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let transport = scheme.split_once('+').map(|(_, transport)| transport);
    // Three slashes: no host is named.
    matches!(transport, None | Some("unix")) && rest.starts_with("///")
}

/// The daemon at `uri`, if it is the QEMU driver's and on this machine.
pub(super) fn local_daemon(uri: &str) -> Option<LocalDaemon> {
    let (scheme, rest) = uri.split_once(':')?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !is_local(uri) || !matches!(scheme, "qemu" | "qemu+unix") {
        return None;
    }
    let system = match path {
        "///system" => true,
        "///session" => false,
        _ => return None,
    };
    let socket = query.split('&').find_map(|option| option.strip_prefix("socket="));
    Some(LocalDaemon {
        system,
        beside_socket: socket.and_then(|socket| Some(Path::new(socket).parent()?.to_path_buf())),
    })
}

/// Where the daemon at `uri` keeps its guests' process ids. `runtime` is the user's `$XDG_RUNTIME_DIR`.
fn pid_folder(uri: &str, runtime: Option<PathBuf>) -> Option<PathBuf> {
    let daemon = local_daemon(uri)?;
    if daemon.system {
        let folder = daemon
            .beside_socket
            .unwrap_or_else(|| PathBuf::from("/run/libvirt"));
        return Some(folder.join("qemu"));
    }
    let own = || runtime.map(|runtime| runtime.join("libvirt"));
    Some(daemon.beside_socket.or_else(own)?.join("qemu/run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_are_looked_for_where_the_daemon_is_local() {
        for (uri, folder) in [
            ("qemu:///system", Some("/run/libvirt/qemu")),
            ("qemu+unix:///system", Some("/run/libvirt/qemu")),
            ("qemu:///session", Some("/run/user/7/libvirt/qemu/run")),
            (
                "qemu+unix:///session?socket=/tmp/a/libvirt/libvirt-sock",
                Some("/tmp/a/libvirt/qemu/run"),
            ),
            (
                "qemu+unix:///system?mode=legacy&socket=/tmp/a/sock",
                Some("/tmp/a/qemu"),
            ),
            ("qemu:///embed?root=/tmp/a", None),
            ("qemu://far.example/system", None),
            ("qemu+ssh://far.example/system", None),
            ("qemu+ssh:///system", None),
            ("test:///default", None),
            ("xen:///system", None),
            ("", None),
        ] {
            let found = pid_folder(uri, Some(PathBuf::from("/run/user/7")));
            assert_eq!(found.as_deref(), folder.map(Path::new), "{uri}");
        }
        assert_eq!(pid_folder("qemu:///session", None), None);
    }

    #[test]
    fn a_uri_that_names_no_host_is_local() {
        for (uri, local) in [
            ("qemu:///system", true),
            ("qemu+unix:///session?socket=/tmp/a", true),
            ("test:///default", true),
            ("xen:///system", true),
            ("qemu://localhost/system", false),
            ("qemu+ssh:///system", false),
            ("qemu+ssh://far.example/system", false),
            ("test+tcp://far.example/default", false),
            ("", false),
        ] {
            assert_eq!(is_local(uri), local, "{uri}");
        }
    }

    #[test]
    fn a_guest_is_told_from_a_process_that_has_its_id_by_chance() {
        let folder = tempfile::tempdir().expect("a folder");
        let processes = Processes {
            pid_folder: Some(folder.path().to_owned()),
        };
        let uuid = DomainUuid([7; 16]);
        assert_eq!(processes.incarnation("a", uuid), None, "no such file");
        let start = |words: &[&str]| {
            let child = std::process::Command::new("sh")
                .args(["-c", "read end", "sh"])
                .args(words)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("sh(1)");
            // For a moment a process that is being started has no command line.
            let line = Path::new("/proc").join(child.id().to_string()).join("cmdline");
            while fs::read(&line).expect("our child").is_empty() {
                std::thread::yield_now();
            }
            fs::write(folder.path().join("a.pid"), format!("{}\n", child.id())).expect("written");
            child
        };
        let mut stranger = start(&["-uuid", "00000000-0000-4000-8000-000000000000"]);
        assert_eq!(processes.incarnation("a", uuid), None);
        let mut guest = start(&["-uuid", &uuid.to_string()]);
        let first = processes.incarnation("a", uuid).expect("its process");
        assert!(first.0.starts_with(&format!("qemu:{}:", guest.id())), "{first:?}");
        assert_eq!(processes.incarnation("a", uuid), Some(first));
        for child in [&mut stranger, &mut guest] {
            child.kill().expect("ours");
            child.wait().expect("ours");
        }
        assert_eq!(processes.incarnation("a", uuid), None, "it ended");
    }
}
