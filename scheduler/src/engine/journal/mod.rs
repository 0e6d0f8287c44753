//! What has to outlive the process: the affinities to give back, and which of those found later are ours.
//!
//! A [`Journal`] takes [`Line`]s in order. Each says all there is to say about one vCPU, so the last line about a vCPU is
//! what holds, however many before it are lost. What is in it when the process ends, whatever way it ends, is what the next
//! one goes on from.
//!
//! - [`mod@line`]: one line as text, with a checksum
//! - [`mod@file`]: the log on disk: appended to, compacted, read again
//! - [`folder`]: where it lies
//! - [`lock`]: who may write it

pub mod file;
pub mod folder;
pub mod line;
pub mod lock;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use self::line::{Entry, Line, Subject};

/// Keeps lines.
pub trait Journal: Send {
    /// Adds lines; when this returns, they are kept whatever becomes of this process.
    ///
    /// # Errors
    /// If they are not kept; some of them may be all the same.
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError>;
}

/// Keeps nothing: for hosts that nothing outlives, and where nothing is pinned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unkept;

impl Journal for Unkept {
    fn append(&mut self, _: &[Line]) -> Result<(), JournalError> {
        Ok(())
    }
}

/// Why the journal could not be read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is a journal that this version cannot read.
    #[error(
        "{} is a journal of format {found}; this version reads format {expected}: `restore` of the version that wrote it \
         gives back what it holds", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// Another version wrote into it.
    #[error(
        "line {number} of {} is sound but not understood: `restore` of the version that wrote it gives back what it holds",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        number: usize,
    },
    /// Another process writes it.
    #[error("{holder} holds {}: one scheduler a host; unless on-exit is keep, it gives everything back when it stops", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// Who holds it, as far as is known.
        holder: String,
    },
    /// Others may write where it lies.
    #[error("{} {problem}; expected a folder that belongs to the scheduler's user (on the way there: or to root) and that nobody else may write", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no place for it.
    #[error("there is no folder to keep the journal in: {reason}; --state-dir names one")]
    Nowhere {
        /// Why not.
        reason: &'static str,
    },
}
