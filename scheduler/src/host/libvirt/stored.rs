//! The files that hold domains' stored definitions, where they are on this machine.
//!
//! libvirt tells of a definition that is replaced or removed, but not of one that is edited in place (`virsh vcpupin
//! --config`). On disk it replaces the definition's file each time, so a look at the file tells both, at the cost of one
//! `stat`. Only whether the file is another one is read off it: what it says is asked of libvirt.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The stored definitions of one daemon.
#[derive(Debug)]
pub(super) struct StoredDefinitions {
    folder: Option<PathBuf>,
}

/// A domain's stored definition as it was on disk at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, i64, i64, u64)>);

/// What of the environment says where a user's configuration is.
struct Homes {
    config: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl StoredDefinitions {
    /// Those of the daemon at `uri`.
    pub(super) fn of(uri: &str) -> Self {
        let folder = |name| std::env::var_os(name).map(PathBuf::from);
        let homes = Homes {
            config: folder("XDG_CONFIG_HOME"),
            home: folder("HOME"),
        };
        Self {
            folder: super::process::local_daemon(uri).and_then(|daemon| folder_of(daemon.system, homes)),
        }
    }

    /// The definition's file as it is now; the same for any two domains without a file that can be seen.
    pub(super) fn stamp(&self, name: &str) -> Stamp {
        Stamp(
            self.folder
                .as_deref()
                .and_then(|folder| stamp(&folder.join(format!("{name}.xml")))),
        )
    }
}

fn folder_of(system: bool, homes: Homes) -> Option<PathBuf> {
    let configuration = if system {
        PathBuf::from("/etc")
    } else {
        homes.config.or_else(|| Some(homes.home?.join(".config")))?
    };
    Some(configuration.join("libvirt/qemu"))
}

fn stamp(file: &Path) -> Option<(u64, u64, i64, i64, u64)> {
    let found = fs::metadata(file).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.mtime(),
        found.mtime_nsec(),
        found.size(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_where_libvirt_keeps_them() {
        for (system, config, home, folder) in [
            (true, Some("/c"), Some("/h"), Some("/etc/libvirt/qemu")),
            (false, Some("/c"), Some("/h"), Some("/c/libvirt/qemu")),
            (false, None, Some("/h"), Some("/h/.config/libvirt/qemu")),
            (false, None, None, None),
        ] {
            let homes = Homes {
                config: config.map(PathBuf::from),
                home: home.map(PathBuf::from),
            };
            assert_eq!(folder_of(system, homes).as_deref(), folder.map(Path::new));
        }
    }

    #[test]
    fn a_file_that_is_replaced_by_an_equal_one_is_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let stored = StoredDefinitions {
            folder: Some(folder.path().to_owned()),
        };
        let absent = stored.stamp("a");
        let file = folder.path().join("a.xml");
        fs::write(&file, "<domain/>").expect("written");
        let first = stored.stamp("a");
        assert_ne!(first, absent);
        assert_eq!(stored.stamp("a"), first);
        fs::write(folder.path().join("a.xml.new"), "<domain/>").expect("written");
        fs::rename(folder.path().join("a.xml.new"), &file).expect("replaced");
        assert_ne!(stored.stamp("a"), first);
        fs::remove_file(&file).expect("removed");
        assert_eq!(stored.stamp("a"), absent);
    }
}
