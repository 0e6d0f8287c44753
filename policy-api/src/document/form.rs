//! The keys of a snapshot file, their defaults, and when they are left out.

use serde::{Deserialize, Serialize};

use super::{AllowedCpus, HostShape, Interval, Percent};
use crate::cpuset::OsCpuSet;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a snapshot")]
pub(super) struct Document {
    pub(super) interval: Interval,
    pub(super) topology: HostShape,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reserved: Option<OsCpuSet>,
    #[serde(default = "first_tick", skip_serializing_if = "is_first_tick")]
    pub(super) tick: u64,
    #[serde(default, skip_serializing_if = "Interval::is_zero")]
    pub(super) now: Interval,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<u32>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub(super) fresh: bool,
    pub(super) domains: Vec<DomainDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a domain such as {name: web1, vcpus: [{cpu: 0, load: 80.0}]}"
)]
pub(super) struct DomainDocument {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uuid: Option<uuid::Uuid>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub(super) managed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory_node: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<Percent>,
    pub(super) vcpus: Vec<VcpuDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a vCPU such as {cpu: 0, load: 80.0}"
)]
pub(super) struct VcpuDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cpu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wait: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) affinity: Option<OsCpuSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) allowed: Option<AllowedCpus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) movable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) born: u64,
}

fn first_tick() -> u64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_first_tick(tick: &u64) -> bool {
    *tick == first_tick()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
pub(super) fn is_yes(flag: &bool) -> bool {
    *flag
}
