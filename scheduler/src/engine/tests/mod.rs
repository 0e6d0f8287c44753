//! The engine as a whole, on simulated hosts.

mod never_pinned;
mod under_terms;

use std::path::Path;

use vcpu_policies::BuiltIn;

use super::*;
use crate::host::simulated::{Scenario, SimulatedHost};

/// A built-in policy with its default options, made anew each time it is lost.
fn make(policy: &'static BuiltIn) -> MakePolicy {
    Box::new(|| Ok((policy.build)("").expect("a policy accepts its defaults")))
}

/// The folder of the scenarios that come with the project.
fn scenarios() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/scenarios"))
}
