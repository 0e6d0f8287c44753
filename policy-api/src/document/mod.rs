//! A snapshot as a file that people can read and write.
//!
//! ```yaml
//! interval: 5s
//! topology: {cpus: 2}
//! domains:
//!   - name: web1
//!     vcpus:
//!       - {cpu: 0, load: 80.0}
//! ```
//!
//! All CPU numbers are the kernel's. What is absent has a default, and what has its default is not written, so that a
//! file says only what is special about its case. Promise: writing a snapshot and reading the file again gives the same
//! snapshot, to the bit.
//!
//! A mistake in the form or in a single value is located by line and column; one that only shows in the light of the
//! whole file (a CPU that the host does not have) by the path of its key.

mod form;
mod host;
mod read;
mod scalar;
mod write;

pub use host::HostShape;
pub use read::read;
pub use scalar::{AllowedCpus, Interval, Percent};
use thiserror::Error;
pub use write::write;

use crate::snapshot::SnapshotError;
use crate::topology::TopologyError;
use crate::yaml::YamlError;

/// Why a text is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// It is not of the form of a snapshot file.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Its host is impossible.
    #[error("topology")]
    Topology(#[from] TopologyError),
    /// A value that does not fit the rest of the file.
    #[error("{path}: {problem}")]
    Value {
        /// The path of the key, as `domains[3].vcpus[0].cpu`.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// What came together is not a snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The UUID of a domain whose file states none: derived from its name, so that it is the same every time.
pub fn uuid_from_name(name: &str) -> [u8; 16] {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).into_bytes()
}
