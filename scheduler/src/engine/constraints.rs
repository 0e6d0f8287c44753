//! What binds a vCPU's placement, and which of it comes from whom.
//!
//! In go the host's CPUs, what the domain's stored definition and metadata say, and the operator's configuration; out
//! comes, for each vCPU, the set of CPUs that it may be pinned to, with the reason for every restriction. Pure.

use globset::GlobMatcher;
use vcpu_policy_api::cpuset::OsCpuSet;

use crate::host::{DomainUuid, Wish};

/// What the operator's configuration binds.
#[derive(Debug, Clone, Default)]
pub struct Constraints {
    /// CPUs that no guest is placed on.
    pub reserved: OsCpuSet,
    /// Whether CPUs that the kernel isolates are used all the same.
    pub use_isolated: bool,
    /// Rules for domains, of which the first that matches holds.
    pub rules: Vec<DomainRule>,
}

/// What is asked for the domains that match.
#[derive(Debug, Clone)]
pub struct DomainRule {
    /// As the operator wrote it.
    pub text: String,
    /// Which domains.
    pub matches: DomainMatch,
    /// What is asked for them.
    pub wish: Wish,
}

/// Which domains a rule is about.
#[derive(Debug, Clone)]
pub enum DomainMatch {
    /// Those whose name matches a glob.
    Name(GlobMatcher),
    /// The one with this UUID.
    Uuid(DomainUuid),
}
