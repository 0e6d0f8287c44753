//! Where the QEMU process of a guest is, if it is on this machine.
//!
//! libvirt's QEMU driver keeps a file with the process id of each running guest, named after the guest, in a folder
//! that depends on the daemon: the system's, a user's, or one reached by a socket in a place of its own. Whether the
//! id still means that guest is seen from the process's command line, which holds the guest's UUID.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::DomainUuid;
use crate::host::procfs::was_started_with;

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

    /// The folder in `/proc` of a guest's process.
    pub(super) fn process(&self, name: &str, uuid: DomainUuid) -> Option<PathBuf> {
        let file = self.pid_folder.as_ref()?.join(format!("{name}.pid"));
        let pid: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let process = Path::new("/proc").join(pid.to_string());
        let is_guest = was_started_with(&process, &["-uuid", &uuid.to_string()]);
        is_guest.unwrap_or(false).then_some(process)
    }
}

/// Where the daemon at `uri` keeps its guests' process ids. `runtime` is the user's `$XDG_RUNTIME_DIR`.
fn pid_folder(uri: &str, runtime: Option<PathBuf>) -> Option<PathBuf> {
    let (scheme, rest) = uri.split_once(':')?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !matches!(scheme, "qemu" | "qemu+unix") {
        return None;
    }
    let socket = query.split('&').find_map(|option| option.strip_prefix("socket="));
    let beside_socket = socket.and_then(|socket| Path::new(socket).parent());
    // Three slashes: no host is named.
    match path {
        "///system" => {
            let daemon = beside_socket.unwrap_or(Path::new("/run/libvirt"));
            Some(daemon.join("qemu"))
        }
        "///session" => {
            let own = || runtime.map(|runtime| runtime.join("libvirt"));
            let daemon = beside_socket.map(Path::to_path_buf).or_else(own)?;
            Some(daemon.join("qemu/run"))
        }
        _ => None,
    }
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
}
