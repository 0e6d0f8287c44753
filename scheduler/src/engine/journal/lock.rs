//! One writer: who holds the folder of a host's journal is the only scheduler of that host.
//!
//! The lock is the kernel's (`flock`), so it ends with the process, whatever way that ends. The file's text is for people:
//! it names who holds the lock.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::JournalError;

/// The lock's name in its folder.
const NAME: &str = "lock";
/// No holder says more of itself than this.
const LONGEST_TEXT: u64 = 200;

/// The right to write a folder's journal, for as long as this lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for the sake of being closed")] File);

impl Lock {
    /// Takes the lock of a folder; `command` says to others what holds it.
    ///
    /// # Errors
    /// [`JournalError::Locked`] if another process has it.
    pub fn take(folder: &Path, command: &str) -> Result<Self, JournalError> {
        let path = folder.join(NAME);
        let failed = |source| JournalError::Io {
            operation: "lock",
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(JournalError::Locked {
                    holder: holder(&mut file),
                    path,
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {} (vcpu-scheduler {command})", std::process::id()))
            .map_err(failed)?;
        Ok(Self(file))
    }
}

/// What the holder says of itself; it may not have written it yet.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(LONGEST_TEXT).read_to_string(&mut text);
    let line = text.lines().next().unwrap_or_default();
    match read {
        Ok(_) if !line.is_empty() => line.to_owned(),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Lock::take(folder.path(), "run").expect("free");
        let refused = Lock::take(folder.path(), "restore").expect_err("held");
        let expected = format!(
            "process {} (vcpu-scheduler run) holds {}: one scheduler a host; unless on-exit is keep, it gives everything back when it stops",
            std::process::id(),
            folder.path().join(NAME).display()
        );
        assert_eq!(refused.to_string(), expected);
        drop(first);
        Lock::take(folder.path(), "restore").expect("free again");
    }
}
