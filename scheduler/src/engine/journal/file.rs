//! The journal on disk: a log that is appended to, and written anew when most of it is history.
//!
//! Lines that belong together are appended in one write and brought to disk before anything is done that rests on them. A
//! new version of the whole log takes the old one's place in one step. So whenever the process ends, the file holds the last
//! state of each vCPU, and perhaps a last line that was not written in full and does not check out.
//!
//! Where a new version cannot be written, as on a disk without space, the log that there is goes on.
//!
//! A journal that this version does not understand is left as it is: to write it anew would be to lose what it holds.
//! A journal of an earlier boot of this machine is of no use: the guests of then are gone, or carry what they need.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::line::{FORMAT, Line, Read};
use super::{Entry, Journal, JournalError, Subject};

/// The log's name in its folder.
const NAME: &str = "journal";
/// The name under which a new version is written.
const NEW_NAME: &str = "journal.new";
/// The log is written anew when it has more lines than this, and more than [`HISTORY`] times what holds.
const FEW_LINES: usize = 1024;
/// See [`FEW_LINES`].
const HISTORY: usize = 4;

/// A journal in a file. See the [module](self).
#[derive(Debug)]
pub struct FileJournal {
    folder: PathBuf,
    file: File,
    boot: Option<String>,
    holds: BTreeMap<Subject, Entry>,
    lines: usize,
    /// Whether the last write may have ended within a line.
    torn: bool,
}

impl FileJournal {
    /// Opens the journal in a folder, or begins one; `boot` is the kernel's identity of this run of the host, if the host is
    /// this machine. Whoever calls this holds the folder's [lock](super::lock).
    ///
    /// # Errors
    /// If it cannot be read or written, or is of another format.
    pub fn open(folder: &Path, boot: Option<String>) -> Result<Self, JournalError> {
        let holds: BTreeMap<Subject, Entry> = read(folder, boot.as_deref())?
            .into_iter()
            .map(|entry| (entry.subject(), entry))
            .collect();
        let (file, lines, torn) = match write_anew(folder, boot.as_deref(), &holds) {
            Ok((file, lines)) => (file, lines, false),
            // What it holds is to be given back, also where nothing can be added to it.
            Err(error) if !holds.is_empty() => {
                warn!(
                    "{}; the log goes on as it is",
                    crate::engine::daemon::chain(&error)
                );
                (go_on(folder)?, holds.len(), true)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            folder: folder.to_owned(),
            file,
            boot,
            holds,
            lines,
            torn,
        })
    }

    /// What was in it when it was opened, and has come since.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.holds.values()
    }

    fn error(&self, operation: &'static str, source: io::Error) -> JournalError {
        failed(operation, self.folder.join(NAME))(source)
    }

    fn compact(&mut self) {
        if self.lines <= FEW_LINES.max(HISTORY * self.holds.len()) {
            return;
        }
        match write_anew(&self.folder, self.boot.as_deref(), &self.holds) {
            Ok((file, lines)) => (self.file, self.lines, self.torn) = (file, lines, false),
            // The long log is as good as the short one.
            Err(error) => {
                warn!("{}", crate::engine::daemon::chain(&error));
                self.lines = 0;
            }
        }
    }
}

impl Journal for FileJournal {
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        if lines.is_empty() {
            return Ok(());
        }
        self.compact();
        let mut text = String::new();
        if self.torn {
            text.push('\n');
        }
        for line in lines {
            line.write(&mut text);
        }
        self.torn = true;
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| self.error("write", source))?;
        self.torn = false;
        self.lines += lines.len();
        for line in lines {
            take_in(&mut self.holds, line.clone());
        }
        Ok(())
    }
}

/// What the journal in a folder holds; nothing if there is none, or if it is of another boot. Writes nothing.
///
/// # Errors
/// If it cannot be read, or is of another format.
pub fn read(folder: &Path, boot: Option<&str>) -> Result<Vec<Entry>, JournalError> {
    let path = folder.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut holds = BTreeMap::new();
    let mut damaged = 0;
    // What follows the last line feed was not written in full.
    let whole = text.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
    for (line, number) in text[..whole].split(|&byte| byte == b'\n').zip(1..) {
        match Line::read(line) {
            Read::Line(Line::Journal { format: found, .. }) | Read::Foreign(Some(found))
                if found != FORMAT =>
            {
                let expected = FORMAT;
                return Err(JournalError::Format {
                    path,
                    found,
                    expected,
                });
            }
            Read::Line(Line::Journal { boot: written, .. })
                if boot.is_some() && written.as_deref() != boot =>
            {
                return Ok(Vec::new());
            }
            Read::Line(line) => take_in(&mut holds, line),
            Read::Foreign(_) => return Err(JournalError::Foreign { path, number }),
            Read::Damaged if line.is_empty() => {}
            Read::Damaged => damaged += 1,
        }
    }
    if damaged > 0 {
        warn!(path = %path.display(), lines = damaged, "damaged lines of the journal are left out");
    }
    Ok(holds.into_values().collect())
}

fn take_in(holds: &mut BTreeMap<Subject, Entry>, line: Line) {
    match line {
        Line::Journal { .. } => {}
        Line::Vcpu(entry) => {
            holds.insert(entry.subject(), entry);
        }
        Line::Forget(subject) => {
            holds.remove(&subject);
        }
    }
}

/// Has a log of what holds take the place of the one there is; gives it, opened for appending, and its lines.
fn write_anew(
    folder: &Path,
    boot: Option<&str>,
    holds: &BTreeMap<Subject, Entry>,
) -> Result<(File, usize), JournalError> {
    let (path, new) = (folder.join(NAME), folder.join(NEW_NAME));
    let mut text = String::new();
    Line::Journal {
        format: FORMAT,
        boot: boot.map(str::to_owned),
    }
    .write(&mut text);
    for entry in holds.values() {
        Line::Vcpu(entry.clone()).write(&mut text);
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", new)(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed("create", new.clone()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_data())
        .map_err(failed("write", new.clone()))?;
    fs::rename(&new, &path).map_err(failed("rename", new))?;
    // It has the other's place now, whatever becomes of this: what is added to the other one would be lost. Only with the
    // power may the other one come back, and that holds the same.
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_data()) {
        debug!(folder = %folder.display(), "cannot be brought to disk: {error}");
    }
    Ok((file, holds.len() + 1))
}

/// The log that there is, opened for appending.
fn go_on(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(NAME);
    let mut options = OpenOptions::new();
    options.append(true).open(&path).map_err(failed("open", path))
}

fn failed(operation: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
