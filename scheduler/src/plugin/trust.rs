//! Whether a file may be loaded as a plugin, and a copy of it that nobody can change.
//!
//! A plugin runs with whatever rights it is not denied, so nobody may be able to choose its content but root and the
//! user whom the scheduler runs as. The path is walked folder by folder, each opened relative to the one before and
//! looked at through its descriptor, so that what was checked is what is used. Symbolic links on the way are followed if
//! nobody else could have made them, and the folders that they lead through are looked at like all others. The file is opened once. What is loaded
//! is a sealed copy in memory, made and hashed before anything is decided: a change of the file on disk, at whatever
//! moment, changes nothing.
//!
//! A folder or a file passes if it belongs to root or to the scheduler's user, and nobody else may write to it; a
//! folder that others may write to passes if it is sticky, since then they cannot replace what is not theirs.

mod folders;
mod sealed;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

pub(crate) use folders::walk;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
pub use sealed::{MAX_BYTES, SealedLibrary, Sha256};
use thiserror::Error;

/// Why a file is not loaded.
#[derive(Debug, Error)]
pub enum TrustError {
    /// It is not there, or may not be read.
    #[error("cannot read the plugin {}", path.display())]
    Unreadable {
        /// The plugin.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A folder on the way to it is not there, or may not be read.
    #[error("cannot read the plugin's folder {}", path.display())]
    UnreadableFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A path of the configuration that means something else in each working directory.
    #[error("the plugin {} is not an absolute path", path.display())]
    NotAbsolute {
        /// The plugin.
        path: PathBuf,
    },
    /// The last component is a symbolic link.
    #[error("the plugin {} is a symbolic link; name the file that it leads to", path.display())]
    SymbolicLink {
        /// The plugin.
        path: PathBuf,
    },
    /// Not a regular file.
    #[error("the plugin {} is {kind}, not a file", path.display())]
    NotAFile {
        /// The plugin.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Someone else could have written it.
    #[error("the {what} {} belongs to user {owner}; it must belong to root or to user {user}, whom the scheduler runs as", path.display())]
    Owner {
        /// The plugin or the folder.
        what: What,
        /// Its path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// The scheduler's user.
        user: u32,
    },
    /// Someone else can write it.
    #[error("the {what} {} may be written by {whom} (mode {mode:04o}); chmod go-w takes that right away", path.display())]
    Writable {
        /// The plugin or the folder.
        what: What,
        /// Its path.
        path: PathBuf,
        /// The group or everyone.
        whom: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("the plugin {} is empty", path.display())]
    Empty {
        /// The plugin.
        path: PathBuf,
    },
    /// More than any plugin needs.
    #[error("the plugin {} is larger than {} MiB", path.display(), MAX_BYTES >> 20)]
    TooLarge {
        /// The plugin.
        path: PathBuf,
    },
    /// Not the file that was meant.
    #[error("the plugin {} has the SHA-256 hash {found}, not {expected}", path.display())]
    WrongHash {
        /// The plugin.
        path: PathBuf,
        /// What was expected.
        expected: Sha256,
        /// What was found.
        found: Sha256,
    },
    /// The copy could not be made.
    #[error("cannot copy the plugin {} into memory", path.display())]
    Copy {
        /// The plugin.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What is wrong: the plugin, or a folder on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The file itself.
    Plugin,
    /// A folder above it.
    Folder,
    /// A symbolic link on the way to it.
    Link,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plugin => "plugin",
            Self::Folder => "plugin's folder",
            Self::Link => "symbolic link to the plugin's folder",
        })
    }
}

/// Checks a file and takes a sealed copy of it; a relative path starts at the working directory.
///
/// # Errors
/// If the file may not be loaded; each reason has a text of its own.
pub fn seal(path: &Path, expected: Option<Sha256>) -> Result<SealedLibrary, TrustError> {
    let unreadable = |source: io::Error| TrustError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let (Some(folder), Some(Component::Normal(name))) =
        (absolute.parent(), absolute.components().next_back())
    else {
        return Err(TrustError::NotAFile {
            path: absolute,
            kind: kind(FileType::Directory),
        });
    };
    let (folder, path) = walk(folder)?;
    let path = path.join(name);
    let file = open_file(folder.as_fd(), name, &path)?;
    let library = SealedLibrary::new(file.as_fd(), path)?;
    match expected {
        Some(expected) if expected != library.sha256() => Err(TrustError::WrongHash {
            path: library.path().to_owned(),
            expected,
            found: library.sha256(),
        }),
        _ => Ok(library),
    }
}

/// The same for a path of the configuration, which must not depend on the working directory.
///
/// # Errors
/// See [`seal`].
pub fn seal_configured(path: &Path, expected: Option<Sha256>) -> Result<SealedLibrary, TrustError> {
    if path.is_absolute() {
        seal(path, expected)
    } else {
        Err(TrustError::NotAbsolute {
            path: path.to_owned(),
        })
    }
}

/// The shared objects (`*.so`) of a folder of plugins, by name. Each is checked when it is sealed.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let unreadable = |source| TrustError::UnreadableFolder {
        path: folder.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.retain(|path| path.extension() == Some(OsStr::new("so")));
    paths.sort();
    Ok(paths)
}

fn check_owner(stat: &Stat, path: &Path, what: What) -> Result<(), TrustError> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid == 0 || stat.st_uid == user {
        return Ok(());
    }
    Err(TrustError::Owner {
        what,
        path: path.to_owned(),
        owner: stat.st_uid,
        user,
    })
}

fn check_mode(stat: &Stat, path: &Path, what: What) -> Result<(), TrustError> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let whom = if mode.contains(Mode::WOTH) {
        "anyone"
    } else if mode.contains(Mode::WGRP) {
        "its group"
    } else {
        return Ok(());
    };
    Err(TrustError::Writable {
        what,
        path: path.to_owned(),
        whom,
        mode: mode.as_raw_mode(),
    })
}

/// Opens the file itself, once, and checks it through its descriptor.
fn open_file(folder: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, TrustError> {
    // A named pipe without a writer must not keep the scheduler waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = || path.to_owned();
    let file = openat(folder, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => TrustError::SymbolicLink { path: path() },
        Errno::NXIO => TrustError::NotAFile {
            path: path(),
            kind: kind(FileType::Socket),
        },
        error => TrustError::Unreadable {
            path: path(),
            source: error.into(),
        },
    })?;
    let stat = fstat(&file).map_err(|error| copying(&path(), error))?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    if file_type != FileType::RegularFile {
        return Err(TrustError::NotAFile {
            path: path(),
            kind: kind(file_type),
        });
    }
    check_owner(&stat, &path(), What::Plugin)?;
    check_mode(&stat, &path(), What::Plugin)?;
    Ok(file)
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "a folder",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

fn copying(path: &Path, error: Errno) -> TrustError {
    TrustError::Copy {
        path: path.to_owned(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests;
