//! Where the journal of a host lies.
//!
//! A host's folder is named after the host, in a place that lasts as long as what the journal is about: for guests on this
//! machine until it reboots (`/run`), for guests on another one beyond that (`/var/lib`). Users other than root have such
//! places of their own.
//!
//! Nobody else can write the folder of a host. Where root keeps it, and where the operator has named a place, nobody else
//! can put another folder or a link in its place either.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::JournalError;
use crate::plugin::trust::{TrustError, walk};

/// The folder's name in a place that other programs use too.
const OURS: &str = "vcpu-scheduler";

/// What decides where a journal lies.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder that the operator named.
    pub stated: Option<PathBuf>,
    /// Whether the host is this machine.
    pub local: bool,
    /// The host's name among hosts: its UUID, or what stands for it.
    pub host: String,
}

/// The user's part in it.
#[derive(Debug, Clone)]
pub struct User {
    /// The user's number.
    pub id: u32,
    /// `$XDG_RUNTIME_DIR`, if set.
    pub runtime: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, or what it means where it is not set.
    pub state: Option<PathBuf>,
}

impl User {
    /// Whoever runs this process.
    pub fn current() -> Self {
        let folder = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            id: rustix::process::geteuid().as_raw(),
            runtime: folder("XDG_RUNTIME_DIR"),
            state: folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state"))),
        }
    }
}

impl Place {
    /// The path of the host's folder.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn path(&self, user: &User) -> Result<PathBuf, JournalError> {
        let nowhere = |reason| JournalError::Nowhere { reason };
        let base = match (&self.stated, user.id, self.local) {
            (Some(stated), ..) => stated.clone(),
            (None, 0, true) => Path::new("/run").join(OURS),
            (None, 0, false) => Path::new("/var/lib").join(OURS),
            (None, _, true) => user
                .runtime
                .as_ref()
                .ok_or(nowhere("XDG_RUNTIME_DIR is not set"))?
                .join(OURS),
            (None, _, false) => user
                .state
                .as_ref()
                .ok_or(nowhere("neither XDG_STATE_HOME nor HOME is set"))?
                .join(OURS),
        };
        Ok(base.join(&self.host))
    }

    /// Makes the folder if it is not there, and checks that nobody else may write it.
    ///
    /// # Errors
    /// If there is no such folder in the end.
    pub fn prepare(&self, user: &User) -> Result<PathBuf, JournalError> {
        let path = self.path(user)?;
        // What others may do in a user's own default places is the user's business.
        let guarded = user.id == 0 || self.stated.is_some();
        if guarded {
            let mut there = path.ancestors();
            there
                .find(|folder| fs::symlink_metadata(folder).is_ok())
                .map_or(Ok(()), check_way)?;
        }
        let failed = |operation| {
            let path = path.clone();
            move |source: io::Error| JournalError::Io {
                operation,
                path,
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed("create"))?;
        // Where others may add things, they may have been faster.
        if guarded {
            check_way(&path)?;
        }
        let found = fs::metadata(&path).map_err(failed("read"))?;
        match unsafe_because(&found, user.id) {
            None => Ok(path),
            Some(problem) => Err(JournalError::Folder { path, problem }),
        }
    }
}

/// Makes sure that nobody but root and the scheduler's user decides where a path leads.
fn check_way(path: &Path) -> Result<(), JournalError> {
    let Err(error) = walk(path) else {
        return Ok(());
    };
    Err(match error {
        TrustError::Owner { path, owner, .. } => JournalError::Folder {
            path,
            problem: format!("belongs to user {owner}"),
        },
        TrustError::Writable { path, mode, .. } => JournalError::Folder {
            path,
            problem: format!("has mode {mode:o}"),
        },
        TrustError::UnreadableFolder { path, source } => JournalError::Io {
            operation: "go to",
            path,
            source,
        },
        error => JournalError::Io {
            operation: "go to",
            path: path.to_owned(),
            source: io::Error::other(error),
        },
    })
}

fn unsafe_because(folder: &Metadata, user: u32) -> Option<String> {
    /// Writable by group or by others.
    const WRITABLE: u32 = 0o022;
    if folder.uid() != user {
        Some(format!("belongs to user {}", folder.uid()))
    } else if folder.mode() & WRITABLE != 0 {
        Some(format!("has mode {:o}", folder.mode() & 0o7777))
    } else {
        None
    }
}

/// The kernel's identity of this machine's run: another one after each boot.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[track_caller]
    fn check(stated: Option<&str>, local: bool, (id, runtime, state): (u32, bool, bool), expect: &str) {
        let place = Place {
            stated: stated.map(PathBuf::from),
            local,
            host: "h".to_owned(),
        };
        let user = User {
            id,
            runtime: runtime.then(|| "/run/user/7".into()),
            state: state.then(|| "/home/u/.local/state".into()),
        };
        let found = place.path(&user);
        let found = found.map_or_else(|error| error.to_string(), |path| path.display().to_string());
        assert_eq!(found, expect);
    }

    #[test]
    fn the_place_lasts_as_long_as_the_guests() {
        check(None, true, (0, true, true), "/run/vcpu-scheduler/h");
        check(None, false, (0, true, true), "/var/lib/vcpu-scheduler/h");
        check(None, true, (7, true, true), "/run/user/7/vcpu-scheduler/h");
        check(
            None,
            false,
            (7, true, true),
            "/home/u/.local/state/vcpu-scheduler/h",
        );
        check(Some("/a"), false, (7, false, false), "/a/h");
        check(
            None,
            true,
            (7, false, true),
            "there is no folder to keep the journal in: XDG_RUNTIME_DIR is not set; --state-dir names one",
        );
        check(
            None,
            false,
            (7, true, false),
            "there is no folder to keep the journal in: neither XDG_STATE_HOME nor HOME is set; --state-dir names one",
        );
    }

    #[test]
    fn nobody_else_may_write_it() {
        let base = tempfile::tempdir().expect("a folder");
        let user = User {
            id: rustix::process::geteuid().as_raw(),
            runtime: None,
            state: None,
        };
        let place = Place {
            stated: Some(base.path().join("deeper")),
            local: true,
            host: "h".to_owned(),
        };
        let path = place.prepare(&user).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).expect("set");
        let refused = place.prepare(&user).expect_err("refused").to_string();
        assert!(
            refused.contains("has mode 770; expected a folder that belongs"),
            "{refused}"
        );
    }

    #[test]
    fn a_way_that_leads_nowhere_is_told_as_what_it_is() {
        let base = tempfile::tempdir().expect("a folder");
        let file = base.path().join("file");
        fs::write(&file, "").expect("written");
        let place = Place {
            stated: Some(file.clone()),
            local: true,
            host: "h".to_owned(),
        };
        let refused = place.prepare(&User::current()).expect_err("refused");
        let said = crate::engine::daemon::chain(&refused);
        let expect = format!("cannot go to {}: Not a directory", file.display());
        assert!(said.contains(&expect) && !said.contains("plugin"), "{said}");
    }

    #[test]
    fn nobody_else_may_lead_the_way_to_it() {
        let base = tempfile::tempdir().expect("a folder");
        let mode = |mode| {
            let shared = base.path().join("shared");
            fs::set_permissions(shared, fs::Permissions::from_mode(mode)).expect("set");
        };
        let user = User {
            id: rustix::process::geteuid().as_raw(),
            runtime: None,
            state: None,
        };
        let place = Place {
            stated: Some(base.path().join("shared/deeper")),
            local: true,
            host: "h".to_owned(),
        };
        fs::create_dir(base.path().join("shared")).expect("made");
        mode(0o777);
        let refused = place.prepare(&user).expect_err("refused").to_string();
        assert!(refused.contains("shared has mode 777; expected"), "{refused}");
        assert!(!base.path().join("shared/deeper").exists(), "made all the same");
        // There, nobody can take away what is not theirs.
        mode(0o1777);
        place.prepare(&user).expect("made");
        mode(0o777);
        place.prepare(&user).expect_err("refused though it is there");
    }
}
