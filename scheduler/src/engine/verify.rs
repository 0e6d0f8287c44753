//! The check between every policy and the host: no plan is trusted, a built-in's no more than a plugin's.
//!
//! In go a snapshot and the plan made of it; out comes, for each action, that it may be carried out or why not. The
//! verifier never changes an action and never adds one.

use std::fmt;

use thiserror::Error;
use vcpu_policy_api::ids::Index;
use vcpu_policy_api::plan::{Action, NamedAction, Plan};
use vcpu_policy_api::snapshot::Snapshot;

/// What became of a plan's actions, each in the plan's order.
#[derive(Debug, Clone, Default)]
pub struct Verdict<'p> {
    /// May be carried out.
    pub accepted: Vec<Action<'p>>,
    /// Must not be carried out.
    pub rejected: Vec<Rejected<'p>>,
}

/// An action that must not be carried out.
#[derive(Debug, Clone)]
pub struct Rejected<'p> {
    /// The action.
    pub action: Action<'p>,
    /// The first rule it breaks.
    pub why: Rejection,
}

/// The rules, by how they are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Rejection {
    /// The vCPU's index has no row.
    #[error("the snapshot has no such vCPU")]
    NoSuchVcpu,
    /// The set has a CPU whose index has no row.
    #[error("the snapshot has no such pCPU")]
    NoSuchCpu,
    /// The set is empty.
    #[error("the CPU set is empty")]
    NoCpus,
    /// The gain is infinite or not a number.
    #[error("the gain is not a number")]
    GainNotFinite,
    /// The vCPU may not be moved in this tick.
    #[error("the vCPU may not be moved in this tick")]
    NotMovable,
    /// The set reaches beyond what the vCPU is allowed.
    #[error("the vCPU is not allowed on all of these CPUs")]
    NotAllowed,
    /// An earlier action pins the same vCPU.
    #[error("an earlier action of the plan pins the same vCPU")]
    Duplicate,
    /// The vCPU has just this affinity.
    #[error("the vCPU has this affinity already")]
    NoChange,
    /// The tick's pins are used up.
    #[error("the budget of pins for this tick is used up")]
    OverBudget,
}

/// Checks a plan against the snapshot it was made of.
pub fn verify<'p>(snapshot: &Snapshot<'_>, plan: &'p Plan) -> Verdict<'p> {
    let mut verdict = Verdict::default();
    let mut pinned = std::collections::BTreeSet::new();
    let budget = snapshot.budget().map_or(usize::MAX, |budget| budget as usize);
    for action in plan.actions() {
        let why = broken_rule(snapshot, &action)
            .or_else(|| pinned.contains(&action.vcpu).then_some(Rejection::Duplicate))
            .or_else(|| (verdict.accepted.len() >= budget).then_some(Rejection::OverBudget));
        if let Some(why) = why {
            verdict.rejected.push(Rejected { action, why });
        } else {
            pinned.insert(action.vcpu);
            verdict.accepted.push(action);
        }
    }
    verdict
}

/// The first rule that an action breaks by itself, whatever the rest of the plan is.
fn broken_rule(snapshot: &Snapshot<'_>, action: &Action<'_>) -> Option<Rejection> {
    let (cpus, _, vcpus) = snapshot.counts();
    if action.vcpu.index() >= vcpus {
        return Some(Rejection::NoSuchVcpu);
    }
    if action.cpus.is_empty() {
        return Some(Rejection::NoCpus);
    }
    if action.cpus.iter().any(|cpu| cpu.index() >= cpus) {
        return Some(Rejection::NoSuchCpu);
    }
    let vcpu = snapshot.vcpu(action.vcpu);
    let rules = [
        (!action.gain.is_finite(), Rejection::GainNotFinite),
        (!vcpu.is_movable(), Rejection::NotMovable),
        (!action.cpus.is_subset(vcpu.allowed()), Rejection::NotAllowed),
        (action.cpus == vcpu.affinity(), Rejection::NoChange),
    ];
    rules.iter().find(|(broken, _)| *broken).map(|&(_, why)| why)
}

/// A rejected action in words and names, as far as it has any: what files and people get to see.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NamedRejection {
    /// The domain's name, if the vCPU exists.
    pub domain: Option<String>,
    /// The vCPU's number in it, if it exists.
    pub vcpu: Option<u32>,
    /// The CPUs asked for, if they exist.
    pub cpus: Option<String>,
    /// The rule that was broken.
    pub why: String,
}

impl NamedRejection {
    /// Looks up what names there are.
    pub fn new(snapshot: &Snapshot<'_>, rejected: &Rejected<'_>) -> Self {
        let Rejected { action, why } = rejected;
        let (cpus, _, vcpus) = snapshot.counts();
        let vcpu = (action.vcpu.index() < vcpus).then(|| snapshot.vcpu(action.vcpu));
        let known = action.cpus.iter().all(|cpu| cpu.index() < cpus);
        Self {
            domain: vcpu.map(|vcpu| vcpu.domain().name().to_owned()),
            vcpu: vcpu.map(|vcpu| vcpu.number()),
            cpus: known.then(|| snapshot.os_ids(action.cpus).to_string()),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for NamedRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.domain, self.vcpu) {
            (Some(domain), Some(vcpu)) => write!(f, "{domain}/{vcpu}")?,
            _ => write!(f, "unknown vCPU")?,
        }
        write!(
            f,
            " -> {}: {}",
            self.cpus.as_deref().unwrap_or("unknown CPUs"),
            self.why
        )
    }
}

/// The accepted actions with names instead of indexes.
pub fn named(snapshot: &Snapshot<'_>, actions: &[Action<'_>]) -> Vec<NamedAction> {
    actions
        .iter()
        .map(|action| NamedAction::new(snapshot, action))
        .collect()
}

/// Whether two lists of actions ask for the same masks of the same vCPUs, whatever their reasons.
pub fn same_request(left: &[NamedAction], right: &[NamedAction]) -> bool {
    let asked = |actions: &[NamedAction]| -> Vec<_> {
        actions
            .iter()
            .map(|action| (action.domain.clone(), action.vcpu, action.cpus.clone()))
            .collect()
    };
    asked(left) == asked(right)
}

#[cfg(test)]
mod tests {
    use vcpu_policy_api::cpuset::CpuSet;
    use vcpu_policy_api::document;
    use vcpu_policy_api::ids::{CpuIx, VcpuIx};

    use super::*;

    const HOST: &str = "
        interval: 1s
        topology: {cpus: 4}
        reserved: 3
        budget: 2
        domains:
          - name: a
            vcpus:
              - {load: 50, affinity: 0}
              - {load: 40, affinity: 0, allowed: 0-1}
              - {load: 30, affinity: 1}
              - {load: 20, affinity: 1}
              - {affinity: 2}
    ";

    fn cpus(members: &[u32]) -> CpuSet {
        members.iter().copied().map(CpuIx).collect()
    }

    /// What becomes of one action alone.
    fn check(vcpu: u32, members: &[u32], gain: f64, expected: Option<Rejection>) {
        let mut plan = Plan::new();
        plan.pin(VcpuIx(vcpu), cpus(members).as_ref(), "test", gain);
        let block = document::read(HOST).expect("valid");
        let verdict = verify(&block.view(), &plan);
        assert_eq!(verdict.rejected.first().map(|rejected| rejected.why), expected);
        assert_eq!(verdict.accepted.len(), usize::from(expected.is_none()));
    }

    #[test]
    fn each_rule_is_named_by_what_breaks_it() {
        check(0, &[1, 2], 1.0, None);
        check(5, &[1], 1.0, Some(Rejection::NoSuchVcpu));
        check(u32::MAX, &[1], 1.0, Some(Rejection::NoSuchVcpu));
        check(0, &[1, 4], 1.0, Some(Rejection::NoSuchCpu));
        check(0, &[], 1.0, Some(Rejection::NoCpus));
        check(0, &[1], f64::NAN, Some(Rejection::GainNotFinite));
        check(0, &[1], f64::INFINITY, Some(Rejection::GainNotFinite));
        check(4, &[1], 1.0, Some(Rejection::NotMovable));
        check(0, &[3], 1.0, Some(Rejection::NotAllowed));
        check(1, &[0, 2], 1.0, Some(Rejection::NotAllowed));
        check(0, &[0], 1.0, Some(Rejection::NoChange));
    }

    #[test]
    fn the_rest_of_the_plan_counts_for_duplicates_and_budget() {
        let mut plan = Plan::new();
        for (vcpu, cpu) in [(0, 1), (0, 2), (2, 0), (3, 0)] {
            plan.pin(VcpuIx(vcpu), cpus(&[cpu]).as_ref(), "test", 1.0);
        }
        let block = document::read(HOST).expect("valid");
        let verdict = verify(&block.view(), &plan);
        let accepted: Vec<u32> = verdict.accepted.iter().map(|action| action.vcpu.0).collect();
        assert_eq!(accepted, [0, 2]);
        let rejected: Vec<Rejection> = verdict.rejected.iter().map(|rejected| rejected.why).collect();
        assert_eq!(rejected, [Rejection::Duplicate, Rejection::OverBudget]);
    }

    #[test]
    fn a_rejection_is_put_in_words_even_where_names_are_missing() {
        let mut plan = Plan::new();
        plan.pin(VcpuIx(9), cpus(&[77]).as_ref(), "test", 1.0);
        plan.pin(VcpuIx(1), cpus(&[0, 2]).as_ref(), "test", 1.0);
        let block = document::read(HOST).expect("valid");
        let snapshot = block.view();
        let words: Vec<String> = verify(&snapshot, &plan)
            .rejected
            .iter()
            .map(|rejected| NamedRejection::new(&snapshot, rejected).to_string())
            .collect();
        assert_eq!(
            words,
            [
                "unknown vCPU -> unknown CPUs: the snapshot has no such vCPU",
                "a/1 -> 0,2: the vCPU is not allowed on all of these CPUs",
            ]
        );
    }
}
