//! The way to a plugin, folder by folder.
//!
//! In goes an absolute path, as someone wrote it; out comes the folder, open, and its path without links. Each folder on
//! the way, by whatever link the way goes on, belongs to root or to the scheduler's user and cannot be written by others,
//! unless it is sticky; each link belongs to one of the two.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat, readlinkat};
use rustix::io::Errno;

use super::{TrustError, What, check_mode, check_owner};

/// As many symbolic links as the kernel follows.
const MOST_LINKS: u32 = 40;
const FLAGS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder, if nobody but root and the scheduler's user can lead the way to another one.
pub(crate) fn walk(folder: &Path) -> Result<(OwnedFd, PathBuf), TrustError> {
    let mut path = PathBuf::from("/");
    let mut current = root()?;
    let mut ahead = names(folder);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        let reached = if name == ".." {
            path.parent().unwrap_or(&path).to_owned()
        } else {
            path.join(&name)
        };
        let failed = |error: Errno| unreadable(&reached, error);
        let next = openat(&current, &name, FLAGS, Mode::empty()).map_err(failed)?;
        let stat = fstat(&next).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                check_folder(next.as_fd(), &reached)?;
                (current, path) = (next, reached);
            }
            FileType::Symlink => {
                check_owner(&stat, &reached, What::Link)?;
                links += 1;
                if links > MOST_LINKS {
                    return Err(failed(Errno::LOOP));
                }
                let target = readlinkat(&next, "", Vec::new()).map_err(failed)?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    (current, path) = (root()?, PathBuf::from("/"));
                }
                let mut rest = std::mem::replace(&mut ahead, names(&target));
                ahead.append(&mut rest);
            }
            _ => return Err(failed(Errno::NOTDIR)),
        }
    }
    Ok((current, path))
}

/// The names that a path consists of; `..` is one.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    });
    names.map(OsStr::to_owned).collect()
}

fn root() -> Result<OwnedFd, TrustError> {
    let path = Path::new("/");
    let root = open(path, FLAGS | OFlags::DIRECTORY, Mode::empty());
    let root = root.map_err(|error| unreadable(path, error))?;
    check_folder(root.as_fd(), path)?;
    Ok(root)
}

fn check_folder(folder: BorrowedFd<'_>, path: &Path) -> Result<(), TrustError> {
    let stat = fstat(folder).map_err(|error| unreadable(path, error))?;
    check_owner(&stat, path, What::Folder)?;
    if Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX) {
        Ok(())
    } else {
        check_mode(&stat, path, What::Folder)
    }
}

fn unreadable(path: &Path, error: Errno) -> TrustError {
    TrustError::UnreadableFolder {
        path: path.to_owned(),
        source: error.into(),
    }
}
