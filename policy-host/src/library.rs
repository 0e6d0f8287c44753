//! From an open file to the policies in it.
//!
//! In goes a file that is open and has been checked; out comes a [`LoadedLibrary`], or a [`LoadError`] that says what
//! the file lacks. The file is loaded through its descriptor, so that what was checked is what is loaded, whatever
//! happens to its name meanwhile.
//!
//! Two things stay for as long as the process does. The library: its code may be referred to from anywhere (a thread
//! it started, a table it handed out), so unloading could never be made safe. And the descriptor: the dynamic loader
//! takes a library whose name it knows for the one it has, and the name is `/proc/self/fd/N`.
//!
//! Loading runs the library's constructors: foreign code. Whether to trust it is decided before.

#![expect(
    unsafe_code,
    reason = "loading a library and believing its one symbol; everything else goes through vcpu_policy_api::abi"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use thiserror::Error;
use vcpu_policy_api::abi::types::{ABI_MAJOR, ENTRY_POINT, EntryPoint};
use vcpu_policy_api::abi::{self, LibraryError, LogSink};
use vcpu_policy_api::log::Level;
use vcpu_policy_api::options::OptionsError;
use vcpu_policy_api::policy::Decide;

use crate::elf::{self, Form};

/// The entry points of other versions that are looked for, so that the error can name the version.
const OTHER_MAJORS: std::ops::RangeInclusive<u32> = 1..=9;

/// Why a file is not a plugin.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("cannot read {name}")]
    Read {
        /// The file, as its user calls it.
        name: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{name} is not a shared object (64-bit ELF)")]
    NotElf {
        /// The file.
        name: PathBuf,
    },
    /// It was built for something else.
    #[error(
        "{name} is a shared object for another kind of machine; this one is {}",
        std::env::consts::ARCH
    )]
    OtherMachine {
        /// The file.
        name: PathBuf,
    },
    /// A part is missing.
    #[error("{name} is truncated: the file ends before the shared object does")]
    Truncated {
        /// The file.
        name: PathBuf,
    },
    /// The dynamic loader refused it.
    #[error("{name} cannot be loaded")]
    Refused {
        /// The file.
        name: PathBuf,
        /// What the dynamic loader says.
        #[source]
        source: libloading::Error,
    },
    /// It is a shared object, but not a plugin.
    #[error("{name} is not a policy plugin: it does not export {ENTRY_POINT}")]
    NoEntryPoint {
        /// The file.
        name: PathBuf,
    },
    /// It is a plugin for a version of the interface that does not work with this one.
    #[error("{name} speaks version {found} of the plugin interface, this program speaks version {ABI_MAJOR}")]
    OtherMajor {
        /// The file.
        name: PathBuf,
        /// The version.
        found: u32,
    },
    /// What it says of itself is wrong.
    #[error("{name} is not a usable policy plugin")]
    Table {
        /// The file.
        name: PathBuf,
        /// What is wrong.
        #[source]
        source: LibraryError,
    },
}

/// A library that was loaded, for good.
#[derive(Debug, Clone)]
pub struct LoadedLibrary {
    name: PathBuf,
    library: abi::Library,
}

/// Loads the library in an open file. `name` is what the file is called in errors.
///
/// # Errors
/// If it is not a plugin of this version; see [`LoadError`].
pub fn load(file: OwnedFd, name: &Path) -> Result<LoadedLibrary, LoadError> {
    let file = File::from(file);
    let named = || name.to_owned();
    match elf::form(&file) {
        Err(source) => {
            return Err(LoadError::Read {
                name: named(),
                source,
            });
        }
        Ok(Form::NotElf) => return Err(LoadError::NotElf { name: named() }),
        Ok(Form::OtherMachine) => return Err(LoadError::OtherMachine { name: named() }),
        Ok(Form::Truncated) => return Err(LoadError::Truncated { name: named() }),
        Ok(Form::Whole) => {}
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the library's constructors are foreign code, which the caller decided to run; the file is whole, and its
    // descriptor is open.
    let handle = unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
    let handle = handle.map_err(|source| LoadError::Refused {
        name: named(),
        source,
    })?;
    // SAFETY: the symbol's type is part of its name; that the library means the same by it is what being a plugin is.
    let entry_point = unsafe { handle.get::<EntryPoint>(ENTRY_POINT.as_bytes()) }.map(|symbol| *symbol);
    let other_major = OTHER_MAJORS.filter(|&major| major != ABI_MAJOR).find(|major| {
        let symbol = format!("vcpu_policy_library_v{major}");
        // SAFETY: only looked for, never called.
        unsafe { handle.get::<EntryPoint>(symbol.as_bytes()) }.is_ok()
    });
    // Never unloaded, never closed: see the module.
    std::mem::forget(handle);
    let _ = file.into_raw_fd();
    let entry_point = entry_point.map_err(|_| match other_major {
        Some(found) => LoadError::OtherMajor { name: named(), found },
        None => LoadError::NoEntryPoint { name: named() },
    })?;
    // SAFETY: the entry point of a library that stays loaded, and the table it returns.
    let library = unsafe { abi::Library::new(entry_point()) };
    let library = library.map_err(|source| LoadError::Table {
        name: named(),
        source,
    })?;
    Ok(LoadedLibrary {
        name: named(),
        library,
    })
}

impl LoadedLibrary {
    /// The file, as its user calls it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The policies in it; at least one.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = PluginPolicy> + '_ {
        self.library.policies().iter().cloned().map(PluginPolicy)
    }
}

/// A policy of a loaded library.
#[derive(Debug, Clone)]
pub struct PluginPolicy(abi::PluginPolicy);

impl PluginPolicy {
    /// What the operator writes to choose it.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The version of its behaviour.
    pub fn version(&self) -> &str {
        self.0.version()
    }

    /// What it does to guests, in a sentence.
    pub fn summary(&self) -> &str {
        self.0.summary()
    }

    /// Its default options, a YAML mapping; empty if it has none.
    pub fn defaults(&self) -> &str {
        self.0.defaults()
    }

    /// Makes one from the YAML text of its options. Its log lines go into this program's log.
    ///
    /// # Errors
    /// If the text is no mapping, a key is unknown, or the policy refuses.
    pub fn make(&self, options: &str) -> Result<Box<dyn Decide>, OptionsError> {
        let policy = self.name().to_owned();
        self.make_logging_to(
            options,
            Arc::new(move |level, line: &str| trace_line(&policy, level, line)),
        )
    }

    /// Makes one whose log lines go to `log`.
    ///
    /// # Errors
    /// As for [`Self::make`].
    pub fn make_logging_to(&self, options: &str, log: LogSink) -> Result<Box<dyn Decide>, OptionsError> {
        self.0.make(options, log)
    }
}

/// Writes a plugin's line into this program's log.
fn trace_line(policy: &str, level: Level, line: &str) {
    match level {
        Level::Error => tracing::error!(policy, "{line}"),
        Level::Warn => tracing::warn!(policy, "{line}"),
        Level::Info => tracing::info!(policy, "{line}"),
        Level::Debug => tracing::debug!(policy, "{line}"),
        Level::Trace => tracing::trace!(policy, "{line}"),
    }
}
