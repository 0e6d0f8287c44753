//! A decision as a table that people can read, and that tests compare.
//!
//! In go a snapshot and the plan a policy made of it; out comes text: the loads now and as foretold, the pins with
//! their reasons, and the notes. The text depends on nothing else, so it serves as a golden file.

use std::fmt;

use crate::ids::Index;
use crate::plan::{Action, Plan, managed_stddev, projected_loads};
use crate::snapshot::{Cpu, Snapshot};

/// Up to how many pCPUs are listed one by one.
const LISTED_CPUS: usize = 16;

/// The table of one decision; see the [module](self).
#[derive(Debug, Clone, Copy)]
pub struct Explanation<'a> {
    snapshot: &'a Snapshot<'a>,
    plan: &'a Plan,
}

impl<'a> Explanation<'a> {
    /// The table of `plan`, made of `snapshot`.
    pub fn new(snapshot: &'a Snapshot<'a>, plan: &'a Plan) -> Self {
        Self { snapshot, plan }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut now = Vec::new();
        self.snapshot.cpu_loads(&mut now);
        let then = projected_loads(self.snapshot, self.plan.actions());
        let (stddev, projected) = (
            managed_stddev(self.snapshot, &now),
            managed_stddev(self.snapshot, &then),
        );
        let (cpus, domains, vcpus) = self.snapshot.counts();
        let counted =
            |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        writeln!(
            f,
            "host    {}, {}, {}",
            counted(cpus, "pCPU"),
            counted(domains, "domain"),
            counted(vcpus, "vCPU")
        )?;
        write!(f, "stddev  {stddev:.2}")?;
        if self.plan.actions().len() > 0 {
            writeln!(f, " -> {projected:.2}")?;
        } else {
            writeln!(f)?;
        }
        self.write_loads(f, &now, &then)?;
        for action in self.plan.actions() {
            self.write_action(f, &action)?;
        }
        for note in self.plan.notes() {
            writeln!(f, "note    {note}")?;
        }
        Ok(())
    }
}

impl Explanation<'_> {
    fn write_loads(&self, f: &mut fmt::Formatter<'_>, now: &[f64], then: &[f64]) -> fmt::Result {
        let listed = self.listed(now, then);
        for cpu in self
            .snapshot
            .cpus()
            .filter(|cpu| listed.contains(&cpu.ix().index()))
        {
            let at = cpu.ix().index();
            let name = format!("cpu {}", cpu.os_id());
            write!(f, "{name:<8}{:>6.1}", now[at])?;
            if changes(now[at], then[at]) {
                write!(f, " -> {:>5.1}", then[at])?;
            }
            writeln!(f, "{}", if cpu.is_managed() { "" } else { "  (reserved)" })?;
        }
        let left_out = now.len() - listed.len();
        if left_out > 0 {
            writeln!(f, "        ... and {left_out} more pCPUs, none of them changed")?;
        }
        Ok(())
    }

    /// The pCPUs that get a line: all of a small host; of a large one those that change, the most and the least loaded.
    fn listed(&self, now: &[f64], then: &[f64]) -> Vec<usize> {
        if now.len() <= LISTED_CPUS {
            return (0..now.len()).collect();
        }
        let managed = || {
            self.snapshot
                .cpus()
                .filter(|cpu| cpu.is_managed())
                .map(Cpu::ix)
                .map(Index::index)
        };
        let most = managed().reduce(|most, at| if now[at] > now[most] { at } else { most });
        let least = managed().reduce(|least, at| if now[at] < now[least] { at } else { least });
        let changed = (0..now.len()).filter(|&at| changes(now[at], then[at]));
        let mut listed: Vec<usize> = changed.chain(most).chain(least).collect();
        listed.sort_unstable();
        listed.dedup();
        listed
    }

    fn write_action(&self, f: &mut fmt::Formatter<'_>, action: &Action<'_>) -> fmt::Result {
        let (cpus, _, vcpus) = self.snapshot.counts();
        if action.vcpu.index() >= vcpus || action.cpus.iter().any(|cpu| cpu.index() >= cpus) {
            return writeln!(
                f,
                "pin     {:?} to {:?}, of which this host knows nothing",
                action.vcpu, action.cpus
            );
        }
        let vcpu = self.snapshot.vcpu(action.vcpu);
        let from = vcpu.cpu().map_or_else(
            || "-".to_owned(),
            |cpu| self.snapshot.cpu(cpu).os_id().to_string(),
        );
        let to = self.snapshot.os_ids(action.cpus);
        writeln!(
            f,
            "pin     {vcpu}  {from} -> {to}  gain {:.2}  {}",
            action.gain, action.reason
        )
    }
}

fn changes(now: f64, then: f64) -> bool {
    (now - then).abs() > 1e-9
}
