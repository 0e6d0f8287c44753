//! The host's side of a library: from the table it returned to policies that can be made.
//!
//! In goes a pointer to a table; out comes a [`Library`] of [`PluginPolicy`]s, of which each text is checked and
//! copied, or a [`LibraryError`] that says what is wrong with it.

use std::collections::BTreeSet;
use std::fmt;
use std::mem::MaybeUninit;

use thiserror::Error;

use super::instance::{Calls, Instance, LogSink};
use super::types::{
    ABI_MAJOR, LIBRARY_MAGIC, MAX_DEFAULTS, MAX_LINE, MAX_NAME, MAX_POLICIES, PolicyLibrary, PolicyTable,
    Text, first_size,
};
use crate::options::{self, OptionsError};
use crate::policy::{Decide, LONGEST_NAME, is_name};

const _: () = assert!(LONGEST_NAME as u64 == MAX_NAME);

/// Why what a library returned is not a table of policies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LibraryError {
    /// It returned a null pointer.
    #[error("the library has no table of policies: it returned a null pointer")]
    NoTable,
    /// A pointer does not point to where a table can be.
    #[error("the pointer to {what} is null or not aligned")]
    Pointer {
        /// To what.
        what: &'static str,
    },
    /// It is something else.
    #[error("what the library returned is not a table of policies (its magic number is wrong)")]
    Magic,
    /// It was compiled for a version of the interface that does not work with this one.
    #[error(
        "the library speaks version {found} of the plugin interface, this program speaks version {ABI_MAJOR}"
    )]
    Major {
        /// The version.
        found: u32,
    },
    /// A struct is smaller than in the first version.
    #[error("{what} has {found} bytes, less than the {needed} of version {ABI_MAJOR}")]
    TooSmall {
        /// The struct.
        what: &'static str,
        /// The size it states.
        found: u32,
        /// The size it has at least.
        needed: u32,
    },
    /// Its table is empty.
    #[error("the library has no policies")]
    NoPolicies,
    /// Its table is too long to be meant.
    #[error("the library states {count} policies; at most {MAX_POLICIES} are supported")]
    TooManyPolicies {
        /// How many.
        count: u32,
    },
    /// A policy of it is not as it should be.
    #[error("policy {number} of the library: {problem}")]
    Policy {
        /// Which one, the first is 1.
        number: usize,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// The policies of a loaded library.
#[derive(Debug, Clone)]
pub struct Library {
    policies: Vec<PluginPolicy>,
}

impl Library {
    /// Checks and copies a library's table.
    ///
    /// # Errors
    /// If it is not one of this version; see [`LibraryError`].
    ///
    /// # Safety
    /// `table` is what the entry point of a library returned that is never unloaded. What its pointers point to cannot
    /// be checked: this trusts that a pointer that is neither null nor misaligned is good, that as much can be read
    /// there as is stated, and that the functions are what [`super::types`] says.
    pub unsafe fn new(table: *const PolicyLibrary) -> Result<Self, LibraryError> {
        if table.is_null() {
            return Err(LibraryError::NoTable);
        }
        // SAFETY: the caller vouches for the pointer.
        let table: PolicyLibrary = unsafe {
            read_table(
                table,
                "the library's table",
                first_size::POLICY_LIBRARY,
                |first| {
                    let [_, major, low, high] = first;
                    if u64::from(low) | u64::from(high) << 32 != LIBRARY_MAGIC {
                        Err(LibraryError::Magic)
                    } else if major != ABI_MAJOR {
                        Err(LibraryError::Major { found: major })
                    } else {
                        Ok(())
                    }
                },
            )?
        };
        match table.policy_count {
            0 => return Err(LibraryError::NoPolicies),
            count if count > MAX_POLICIES => return Err(LibraryError::TooManyPolicies { count }),
            _ => {}
        }
        if table.policies.is_null() || !table.policies.is_aligned() {
            return Err(LibraryError::Pointer {
                what: "the library's policies",
            });
        }
        // SAFETY: not null, aligned, and the caller vouches for as many pointers as the table states.
        let pointers = unsafe { std::slice::from_raw_parts(table.policies, table.policy_count as usize) };
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for (at, &pointer) in pointers.iter().enumerate() {
            let wrong = |problem| LibraryError::Policy {
                number: at + 1,
                problem,
            };
            // SAFETY: the caller vouches for what the table points to.
            let policy = unsafe { PluginPolicy::read(pointer) }.map_err(wrong)?;
            if !names.insert(policy.name.clone()) {
                return Err(wrong(format!(
                    "its name is \"{}\", as that of an earlier one",
                    policy.name
                )));
            }
            policies.push(policy);
        }
        Ok(Self { policies })
    }

    /// The policies, in the library's order; at least one.
    pub fn policies(&self) -> &[PluginPolicy] {
        &self.policies
    }
}

/// A policy of a loaded library. It can be made as often as one likes, on any thread.
#[derive(Clone)]
pub struct PluginPolicy {
    name: String,
    version: String,
    summary: String,
    defaults: String,
    calls: Calls,
}

impl PluginPolicy {
    /// What the operator writes to choose it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of its behaviour.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it does to guests, in a sentence.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Its default options, a YAML mapping; empty if it has none.
    pub fn defaults(&self) -> &str {
        &self.defaults
    }

    /// Makes one from the YAML text of its options; empty text means its defaults. Its log lines go to `log`.
    ///
    /// # Errors
    /// If the text is no mapping, a key is unknown, or the policy refuses.
    pub fn make(&self, options: &str, log: LogSink) -> Result<Box<dyn Decide>, OptionsError> {
        let options = options::complete(&self.name, &self.defaults, options)?;
        let instance = Instance::new(self.calls, &options, log).map_err(|source| OptionsError::Refused {
            policy: self.name.clone(),
            source,
        })?;
        Ok(Box::new(instance))
    }

    /// # Safety
    /// As for [`Library::new`].
    unsafe fn read(pointer: *const PolicyTable) -> Result<Self, String> {
        let what = "its table";
        // SAFETY: the caller vouches for the pointer.
        let table = unsafe { read_table(pointer, what, first_size::POLICY_TABLE, |_| Ok(())) };
        let table: PolicyTable = table.map_err(|error| error.to_string())?;
        let [name, version, summary, defaults] = [
            ("name", table.name, MAX_NAME),
            ("version", table.version, MAX_NAME),
            ("summary", table.summary, MAX_LINE),
            ("defaults", table.defaults, MAX_DEFAULTS),
        ]
        // SAFETY: the caller vouches for the table's texts.
        .map(|(field, text, most)| unsafe { read_text(field, text, most) });
        let (name, version, summary, defaults) = (name?, version?, summary?, defaults?);
        if !is_name(&name) {
            return Err(format!(
                "its name is \"{}\"; expected lower-case letters, digits and dashes, first a letter",
                name.escape_debug()
            ));
        }
        for (field, text) in [("version", &version), ("summary", &summary)] {
            if text.is_empty() || text.contains(char::is_control) {
                return Err(format!(
                    "its {field} is empty or has control characters; expected one line of text"
                ));
            }
        }
        options::check_defaults(&name, &defaults).map_err(|problem| format!("its defaults: {problem}"))?;
        let missing = |function: &str| format!("its function {function} is a null pointer");
        let calls = Calls {
            create: table.create.ok_or_else(|| missing("create"))?,
            decide: table.decide.ok_or_else(|| missing("decide"))?,
            destroy: table.destroy.ok_or_else(|| missing("destroy"))?,
        };
        Ok(Self {
            name,
            version,
            summary,
            defaults,
            calls,
        })
    }
}

impl fmt::Debug for PluginPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// # Safety
/// The caller vouches for as many bytes as the text states, up to `most`.
unsafe fn read_text(field: &str, text: Text, most: u64) -> Result<String, String> {
    // SAFETY: as this function's.
    let bytes = unsafe { text.read(most) }
        .ok_or_else(|| format!("its {field} is a null pointer or longer than {most} bytes"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("its {field} is not UTF-8"))
}

/// Reads a struct of the other side: as much of it as both sides know, the rest zero. `first` gets to see the first
/// four words before the size (the first of them) is judged.
///
/// # Safety
/// If the pointer is neither null nor misaligned, 16 bytes can be read from it, and if those make sense as many as the
/// struct's size states. All-zero bytes are a valid `T`.
pub(super) unsafe fn read_table<T: Copy>(
    pointer: *const T,
    what: &'static str,
    needed: u32,
    first: impl FnOnce([u32; 4]) -> Result<(), LibraryError>,
) -> Result<T, LibraryError> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(LibraryError::Pointer { what });
    }
    // SAFETY: the caller vouches for 16 bytes; the alignment of T is at least that of u32.
    let words = unsafe { pointer.cast::<[u32; 4]>().read() };
    first(words)?;
    let found = words[0];
    if found < needed {
        return Err(LibraryError::TooSmall { what, found, needed });
    }
    let known = size_of::<T>().min(found as usize);
    let mut table = MaybeUninit::<T>::zeroed();
    // SAFETY: the caller vouches for `found` bytes and for zero as a value of each field; the copy is within both.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), table.as_mut_ptr().cast::<u8>(), known);
        Ok(table.assume_init())
    }
}
