//! The engine as a whole, on simulated hosts.

mod never_pinned;
mod never_too_often;
mod under_terms;

use std::path::Path;

use vcpu_policies::BuiltIn;
use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::{CpuIx, Index};
use vcpu_policy_api::snapshot::{Cpu, Snapshot};

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

/// Pins every vCPU, movable or not, to each CPU by itself and to all that are there.
struct Wild;

impl Decide for Wild {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        let all: CpuSet = snapshot.cpus().map(Cpu::ix).collect();
        for vcpu in snapshot.vcpus() {
            plan.pin(vcpu.ix(), all.as_ref(), "wild", 0.0);
            let first = vcpu.ix().index() + usize::try_from(snapshot.tick()).unwrap_or(0);
            for step in 0..snapshot.cpus().len() {
                let cpu = CpuIx::from_index((first + step) % snapshot.cpus().len()).expect("a row");
                let one: CpuSet = [cpu].into_iter().collect();
                plan.pin(vcpu.ix(), one.as_ref(), "wild", 0.0);
            }
        }
        Ok(())
    }
}

fn make_wild() -> MakePolicy {
    Box::new(|| Ok(Box::new(Wild) as Box<dyn Decide>))
}
