//! What a running domain carries of ours: the affinities that its vCPUs had before the scheduler pinned them.
//!
//! The journal on this machine holds the same and more, but a domain can leave it behind: through a managed save, a
//! migration, or because the journal's machine is not the host's. A keepsake is part of the running domain and goes where
//! that goes. It ends with the run, so that a domain started anew never gets what a former run of it had.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vcpu_policy_api::cpuset::{CpuListError, OsCpuSet};

/// What a running domain carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepsake {
    /// Given once to each run of a domain, and never to two.
    pub token: Token,
    /// Its vCPUs that were pinned, or that someone else pinned, by number.
    pub vcpus: BTreeMap<u32, Kept>,
}

/// A random name of one run of a domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub Arc<str>);

/// What is kept of a vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The affinity to give back.
    pub original: Original,
    /// Whether someone else has pinned it since, so that it is to be left alone.
    pub hands_off: bool,
}

/// The affinity that a vCPU had before the scheduler pinned it.
///
/// As text: `inherit`, or a list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Original {
    /// Nothing of its own: the `cpuset` of the definition, or all CPUs that are online when it is given back.
    Inherit,
    /// These CPUs.
    Cpus(OsCpuSet),
}

/// Why a text is no [`Original`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeepsakeError {
    /// It is no list of CPUs.
    #[error("expected \"inherit\" or a list of CPUs")]
    List(#[from] CpuListError),
    /// It is a list of no CPUs, on which nothing can run.
    #[error("expected at least one CPU")]
    Empty,
}

const INHERIT: &str = "inherit";

impl fmt::Display for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str(INHERIT),
            Self::Cpus(cpus) => cpus.fmt(f),
        }
    }
}

impl From<Original> for String {
    fn from(original: Original) -> Self {
        original.to_string()
    }
}

impl TryFrom<String> for Original {
    type Error = KeepsakeError;

    fn try_from(text: String) -> Result<Self, KeepsakeError> {
        text.parse()
    }
}

impl FromStr for Original {
    type Err = KeepsakeError;

    fn from_str(text: &str) -> Result<Self, KeepsakeError> {
        if text == INHERIT {
            return Ok(Self::Inherit);
        }
        let cpus: OsCpuSet = text.parse()?;
        if cpus.is_empty() {
            return Err(KeepsakeError::Empty);
        }
        Ok(Self::Cpus(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_original_reads_as_it_is_written() {
        for text in ["inherit", "0", "0-3,8"] {
            assert_eq!(
                text.parse::<Original>().map(|read| read.to_string()).as_deref(),
                Ok(text)
            );
        }
        for wrong in ["", "all", "Inherit", "3-", "-1"] {
            assert!(wrong.parse::<Original>().is_err(), "{wrong:?}");
        }
    }
}
