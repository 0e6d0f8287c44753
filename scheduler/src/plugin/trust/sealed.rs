//! A copy in memory that nobody can change, and its hash.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, pread, pwrite, read};
use sha2::Digest;

use super::{TrustError, copying};

/// The largest plugin that is loaded, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;

/// A plugin's content, as it was when it was checked, and for good.
#[derive(Debug, Clone)]
pub struct SealedLibrary {
    path: PathBuf,
    memory: Arc<OwnedFd>,
    sha256: Sha256,
}

impl SealedLibrary {
    /// Copies an open file, which was at this path.
    pub(super) fn new(file: BorrowedFd<'_>, path: PathBuf) -> Result<Self, TrustError> {
        let memory = copy(file, &path)?;
        let sha256 = hash(memory.as_fd()).map_err(|error| copying(&path, error))?;
        Ok(Self {
            path,
            memory: Arc::new(memory),
            sha256,
        })
    }

    /// Where the file was, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the file alone, for messages.
    pub fn file_name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The hash of the content.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// Another descriptor of the sealed copy.
    ///
    /// # Errors
    /// If there are too many descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.memory.try_clone()
    }
}

/// A SHA-256 hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads 64 hexadecimal digits, as `sha256sum` prints them.
impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a SHA-256 hash; expected 64 hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

/// What the file holds, in memory that can neither be written nor resized any more.
fn copy(file: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, TrustError> {
    let failed = |error| copying(path, error);
    let memory = executable_memory(path).map_err(failed)?;
    let mut chunk = vec![0; 1 << 16];
    let mut length = 0_u64;
    loop {
        let count = read(file, &mut chunk[..]).map_err(failed)?;
        if count == 0 {
            break;
        }
        let mut rest = &chunk[..count];
        while !rest.is_empty() {
            let written = pwrite(&memory, rest, length).map_err(failed)?;
            rest = &rest[written..];
            length += written as u64;
        }
        if length > MAX_BYTES {
            return Err(TrustError::TooLarge {
                path: path.to_owned(),
            });
        }
    }
    if length == 0 {
        return Err(TrustError::Empty {
            path: path.to_owned(),
        });
    }
    ftruncate(&memory, length).map_err(failed)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&memory, seals).map_err(failed)?;
    Ok(memory)
}

/// An anonymous file whose content may be run: newer kernels want that said, older ones do not know the flag.
fn executable_memory(path: &Path) -> Result<OwnedFd, Errno> {
    // The kernel takes 249 bytes at most for the name, which is there for people who look at a process.
    let name: String = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .take(60)
        .collect();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    memfd_create(name.as_str(), flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name.as_str(), flags))
}

pub(super) fn hash(memory: BorrowedFd<'_>) -> Result<Sha256, Errno> {
    let mut hasher = sha2::Sha256::new();
    let mut chunk = vec![0; 1 << 16];
    let mut offset = 0;
    loop {
        let count = pread(memory, &mut chunk[..], offset)?;
        if count == 0 {
            return Ok(Sha256(hasher.finalize().into()));
        }
        hasher.update(&chunk[..count]);
        offset += count as u64;
    }
}
