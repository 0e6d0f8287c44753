//! One line of the journal: all there is to say about one vCPU, behind a checksum.
//!
//! ```text
//! 7f1c0a92 {"vcpu":{"domain":"…","name":"web","token":"…","run":"…","vcpu":0,"original":"0-3","expected":"2","asked":[]}}
//! 03d1be77 {"forget":{"domain":"…","token":"…","vcpu":0}}
//! ```
//!
//! A line that was written in part, or damaged, does not check out and counts as not written. One that does check out and is
//! not understood is something else: another version wrote it, and it may hold the only record of an original.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vcpu_policy_api::cpuset::OsCpuSet;

use crate::engine::ledger::{Custody, Hold};
use crate::host::{DomainUuid, Incarnation, Original, Token};

/// The format's number.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// The first line of a journal.
    Journal {
        /// [`FORMAT`].
        format: u32,
        /// The kernel's identity of this run of the host; `None` if the host is not this machine.
        boot: Option<String>,
    },
    /// A vCPU as it stands now.
    Vcpu(Entry),
    /// A vCPU of which nothing is to be remembered.
    Forget(Subject),
}

/// Which vCPU a line is about. The token, given once, tells the run of the domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The domain.
    #[serde(with = "uuid_text")]
    pub domain: DomainUuid,
    /// The run of it.
    pub token: String,
    /// The vCPU's number.
    pub vcpu: u32,
}

/// What is remembered of a vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The domain.
    #[serde(with = "uuid_text")]
    pub domain: DomainUuid,
    /// Its name, for people.
    pub name: String,
    /// The run of it.
    pub token: String,
    /// What else tells the run, where the host says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The vCPU's number.
    pub vcpu: u32,
    /// What it is given back.
    pub original: Original,
    /// What is known to hold.
    pub expected: OsCpuSet,
    /// What may come to hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<OsCpuSet>,
    /// What someone else pinned it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<OsCpuSet>,
}

impl Entry {
    /// Whom it is about.
    pub fn subject(&self) -> Subject {
        Subject {
            domain: self.domain,
            token: self.token.clone(),
            vcpu: self.vcpu,
        }
    }

    /// What it says about a vCPU of this run of a domain.
    pub(crate) fn new(
        (domain, name): (DomainUuid, &str),
        token: &Token,
        run: Option<&Incarnation>,
        vcpu: u32,
        custody: &Custody,
    ) -> Self {
        Self {
            domain,
            name: name.to_owned(),
            token: token.0.to_string(),
            run: run.map(|run| run.0.to_string()),
            vcpu,
            original: custody.original.clone(),
            expected: custody.expected.clone(),
            asked: custody.asked.iter().chain(&custody.intended).cloned().collect(),
            manual: match &custody.hold {
                Some(Hold::Manual(cpus)) => Some(cpus.clone()),
                Some(Hold::Initial(_)) | None => None,
            },
        }
    }

    /// What is known of the vCPU.
    pub(crate) fn custody(&self) -> Custody {
        Custody {
            original: self.original.clone(),
            expected: self.expected.clone(),
            asked: self.asked.clone(),
            intended: None,
            hold: self.manual.clone().map(Hold::Manual),
            touched: true,
        }
    }

    /// The run of the domain, as a token.
    pub(crate) fn token(&self) -> Token {
        Token(Arc::from(&*self.token))
    }
}

impl Line {
    /// Appends the line with its checksum and a line feed.
    pub(super) fn write(&self, text: &mut String) {
        let json = serde_json::to_string(self).expect("a line has no map with keys that are no text");
        let sum = crc32fast::hash(json.as_bytes());
        writeln!(text, "{sum:08x} {json}").expect("writing to a string does not fail");
    }

    /// Reads a line without its line feed.
    pub(super) fn read(text: &[u8]) -> Read {
        let Some(json) = checked(text) else {
            return Read::Damaged;
        };
        serde_json::from_str(json).map_or_else(|_| Read::Foreign(format_in(json)), Read::Line)
    }
}

/// What a line of a journal turned out to be.
#[derive(Debug)]
pub(super) enum Read {
    /// A line.
    Line(Line),
    /// It does not check out.
    Damaged,
    /// It checks out and is not understood; the format that it states, if it states one.
    Foreign(Option<u32>),
}

/// What stands behind the checksum, if it checks out.
fn checked(text: &[u8]) -> Option<&str> {
    let (sum, json) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let checks_out = sum.len() == 8 && u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(json.as_bytes()));
    checks_out.then_some(json)
}

/// The format that the first line of a journal states, whatever else it says.
fn format_in(json: &str) -> Option<u32> {
    let line: serde_json::Value = serde_json::from_str(json).ok()?;
    let format = line.get("journal")?.get("format")?.as_u64()?;
    u32::try_from(format).ok()
}

/// UUIDs in their usual form.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::host::DomainUuid;

    pub(super) fn serialize<S: Serializer>(uuid: &DomainUuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(uuid)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DomainUuid, D::Error> {
        uuid::Uuid::deserialize(deserializer).map(|uuid| DomainUuid(uuid.into_bytes()))
    }
}
