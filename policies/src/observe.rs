//! A policy that decides nothing: it says what it sees.
//!
//! For whoever wants the measurements and not the pins, and what takes over when another policy has failed too often.
//!
//! Promise: its plans hold one note and no action.

use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Policy, PolicyError};
use vcpu_policy_api::snapshot::Snapshot;
use vcpu_policy_api::statistics::population_stddev;

/// The policy. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Observe {
    /// The load of each pCPU; kept for its memory.
    loads: Vec<f64>,
    /// Those of the managed ones.
    managed: Vec<f64>,
}

/// It has no options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {}

impl Policy for Observe {
    const NAME: &'static str = "observe";
    const VERSION: &'static str = "1.0.0";
    const SUMMARY: &'static str = "watches and reports; never moves a vCPU";
    type Options = Options;

    fn new(Options {}: Options) -> Result<Self, PolicyError> {
        Ok(Self::default())
    }

    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        snapshot.cpu_loads(&mut self.loads);
        let managed = snapshot.cpus().zip(&self.loads);
        let managed = managed.filter(|(cpu, _)| cpu.is_managed()).map(|(_, &load)| load);
        self.managed.clear();
        self.managed.extend(managed);
        plan.note(format_args!(
            "stddev {:.2}; this policy only watches",
            population_stddev(self.managed.iter().copied())
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reports_the_managed_cpus_alone() {
        let block = vcpu_policy_api::document::read(
            "{interval: 5s, topology: {cpus: 3}, reserved: '0', domains: [{name: vm, vcpus: [
               {load: 90.0, affinity: '0'}, {load: 30.0, affinity: '1'}, {load: 10.0, affinity: '2'}]}]}",
        )
        .expect("a snapshot");
        let mut plan = Plan::new();
        let mut observe = Observe::new(Options {}).expect("no options");
        Policy::decide(&mut observe, &block.view(), &mut plan).expect("it always decides");
        assert_eq!(
            plan.notes().collect::<Vec<_>>(),
            ["stddev 10.00; this policy only watches"]
        );
    }
}
