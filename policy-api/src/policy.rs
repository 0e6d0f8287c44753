//! The contract between a policy and whoever runs it.
//!
//! A policy is a type: its name, version and summary are constants, its options a serde struct whose `Default` is what
//! the operator gets without saying anything. The type behind the name may keep state from tick to tick; nothing else
//! may influence a decision.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::plan::Plan;
use crate::snapshot::Snapshot;

/// A policy.
///
/// It may be made on one thread and called on another, but never on two at once.
pub trait Policy: Sized + Send + 'static {
    /// What the operator writes behind `--policy`; see [`is_name`].
    const NAME: &'static str;
    /// The version of the policy's behaviour, `major.minor.patch`.
    const VERSION: &'static str;
    /// One sentence, shown in lists and said once at the start of the daemon: what this policy does to guests.
    const SUMMARY: &'static str;
    /// What the operator may set: a struct with named fields, or `()`. Its default is listed; keys it does not have are
    /// refused before they reach it.
    type Options: Serialize + DeserializeOwned + Default;

    /// Makes the policy.
    ///
    /// # Errors
    /// If an option's value makes no sense; the text names the option and what was expected.
    fn new(options: Self::Options) -> Result<Self, PolicyError>;

    /// Decides one tick: adds pins and notes to `plan`, which is empty.
    ///
    /// # Errors
    /// If no decision is possible. Whatever the plan then holds is thrown away.
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError>;
}

/// The longest name of a policy, in bytes.
pub(crate) const LONGEST_NAME: usize = 64;

/// Whether a policy can be called so: lower-case letters, digits and dashes, first a letter, 64 characters at most. (What
/// begins with a dash could not be told from a flag.)
pub const fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST_NAME || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut at = 1;
    while at < bytes.len() {
        if !(bytes[at].is_ascii_lowercase() || bytes[at].is_ascii_digit() || bytes[at] == b'-') {
            return false;
        }
        at += 1;
    }
    true
}

/// A [`Policy`] whose type is not known: what the scheduler holds.
pub trait Decide: Send {
    /// See [`Policy::decide`].
    ///
    /// # Errors
    /// See [`Policy::decide`].
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError>;

    /// Whether what was learnt in earlier decisions has been lost since: the process it ran in had to be started again,
    /// say. It is asked before each decision, whose snapshot then says so ([`Snapshot::is_fresh`]). A policy that runs
    /// where it was made loses nothing.
    fn is_fresh(&mut self) -> bool {
        false
    }
}

impl<P: Policy> Decide for P {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        Policy::decide(self, snapshot, plan)
    }
}

/// Why a policy could not be made, or could not decide. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PolicyError {
    message: String,
    lost: bool,
}

impl PolicyError {
    /// An error with this text.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            lost: false,
        }
    }

    /// An error after which the policy cannot decide any more: it has to be made anew.
    pub fn lost(message: impl fmt::Display) -> Self {
        Self {
            lost: true,
            ..Self::new(message)
        }
    }

    /// Whether the policy has to be made anew before it can decide again.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_written_behind_a_flag() {
        for name in ["a", "night", "keep-free", "v2", &"a".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "-",
            "-rf",
            "2nd",
            "Night",
            "a b",
            "a_b",
            "nächt",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
