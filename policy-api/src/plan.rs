//! What a policy decides: an ordered list of pins, each with its reason, and notes on why nothing more moved.
//!
//! A plan is complete: it names the vCPU and the exact set of CPUs. Whoever carries it out may refuse an action but
//! never chooses one. A plan is also plain data without any promise of sense: the scheduler's verifier is what stands
//! between it and a guest.
//!
//! All texts and sets lie in arenas that [`Plan::clear`] keeps, so a plan that is used again does not allocate.

use std::fmt;

use crate::cpuset::{CpuSetRef, OsCpuSet};
use crate::ids::{Index, VcpuIx};
use crate::snapshot::Snapshot;

/// Longest reason or note, in bytes; the rest is cut off at a character.
pub const MAX_TEXT: usize = 1024;

/// The decision of one tick. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Plan {
    actions: Vec<StoredAction>,
    notes: Vec<Span>,
    words: Vec<u64>,
    text: String,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy)]
struct StoredAction {
    vcpu: VcpuIx,
    cpus: Span,
    reason: Span,
    gain: f64,
}

/// One pin of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// The vCPU to pin.
    pub vcpu: VcpuIx,
    /// The CPUs it shall be pinned to.
    pub cpus: CpuSetRef<'a>,
    /// Why, in words an operator understands.
    pub reason: &'a str,
    /// By how much the policy expects its own objective to fall; comparable within one policy only.
    pub gain: f64,
}

impl Plan {
    /// A plan that does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.actions.clear();
        self.notes.clear();
        self.words.clear();
        self.text.clear();
    }

    /// Adds a pin behind those added before: they are carried out, and counted against the budget, in this order.
    ///
    /// `reason` is for the operator; `gain` says by how much the policy expects its objective to fall. Both take part
    /// in nothing else. Write the reason with `format_args!`, which allocates nothing.
    pub fn pin(&mut self, vcpu: VcpuIx, cpus: CpuSetRef<'_>, reason: impl fmt::Display, gain: f64) {
        let start = self.words.len();
        self.words.extend_from_slice(cpus.words());
        let cpus = Span {
            start,
            end: self.words.len(),
        };
        let reason = self.write(reason);
        self.actions.push(StoredAction {
            vcpu,
            cpus,
            reason,
            gain,
        });
    }

    /// Says something about the decision as a whole: above all why nothing, or nothing more, moves.
    pub fn note(&mut self, note: impl fmt::Display) {
        let note = self.write(note);
        self.notes.push(note);
    }

    /// The pins, in order.
    pub fn actions(&self) -> impl ExactSizeIterator<Item = Action<'_>> {
        self.actions.iter().map(|stored| Action {
            vcpu: stored.vcpu,
            cpus: CpuSetRef::from_words(&self.words[stored.cpus.start..stored.cpus.end]),
            reason: &self.text[stored.reason.start..stored.reason.end],
            gain: stored.gain,
        })
    }

    /// The notes, in order.
    pub fn notes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.notes.iter().map(|span| &self.text[span.start..span.end])
    }

    fn write(&mut self, text: impl fmt::Display) -> Span {
        let start = self.text.len();
        let mut bounded = Bounded {
            text: &mut self.text,
            left: MAX_TEXT,
        };
        // An error means that the bound was reached, or that the author's Display failed: what is there stays.
        let _ = fmt::Write::write_fmt(&mut bounded, format_args!("{text}"));
        Span {
            start,
            end: self.text.len(),
        }
    }
}

/// Writes up to a number of bytes.
struct Bounded<'a> {
    text: &'a mut String,
    left: usize,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let cut = piece.floor_char_boundary_at(self.left);
        self.text.push_str(&piece[..cut]);
        self.left -= cut;
        if cut < piece.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    /// The end of the last whole character within the first `at` bytes.
    fn floor_char_boundary_at(&self, at: usize) -> usize {
        if at >= self.len() {
            return self.len();
        }
        (0..=at).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}

/// What a snapshot's pCPU loads would be after `plan`, as far as that can be foretold: the load of a vCPU that is
/// pinned to one CPU counts there; of one that is given several, where it counts now if that is among them, else in
/// equal parts on all of them. Never below 0, whatever rounding does. Indexed by [`crate::ids::CpuIx`]; percent of a pCPU.
///
/// Actions whose vCPU or CPUs do not exist are left out; of several for one vCPU, the last one holds.
pub fn projected_loads<'p>(snapshot: &Snapshot<'_>, actions: impl Iterator<Item = Action<'p>>) -> Vec<f64> {
    let (cpus, _, vcpus) = snapshot.counts();
    let mut loads = Vec::new();
    snapshot.cpu_loads(&mut loads);
    let mut last: Vec<Action<'p>> = Vec::new();
    for action in actions {
        if action.vcpu.index() < vcpus
            && action.cpus.iter().all(|cpu| cpu.index() < cpus)
            && !action.cpus.is_empty()
        {
            last.retain(|earlier| earlier.vcpu != action.vcpu);
            last.push(action);
        }
    }
    for action in last {
        let vcpu = snapshot.vcpu(action.vcpu);
        let Some(load) = vcpu.load() else { continue };
        if vcpu.cpu().is_some_and(|cpu| action.cpus.contains(cpu)) {
            continue;
        }
        if let Some(cpu) = vcpu.cpu() {
            loads[cpu.index()] = (loads[cpu.index()] - load).max(0.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "a host has far fewer than 2^52 pCPUs")]
        let share = load / action.cpus.len() as f64;
        for cpu in action.cpus.iter() {
            loads[cpu.index()] += share;
        }
    }
    loads
}

/// The standard deviation of the loads of the managed pCPUs, of all the loads by [`crate::ids::CpuIx`].
pub fn managed_stddev(snapshot: &Snapshot<'_>, loads: &[f64]) -> f64 {
    let managed: Vec<f64> = snapshot
        .cpus()
        .zip(loads)
        .filter(|(cpu, _)| cpu.is_managed())
        .map(|(_, &load)| load)
        .collect();
    crate::statistics::population_stddev(managed.iter().copied())
}

/// An action with names instead of indexes: what files and people get to see.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NamedAction {
    /// The domain's name.
    pub domain: String,
    /// The vCPU's number in it.
    pub vcpu: u32,
    /// The kernel's number of the CPU that its load counts on; `None` if it never ran.
    pub from: Option<u32>,
    /// The CPUs it shall be pinned to.
    pub cpus: OsCpuSet,
    /// Why.
    pub reason: String,
    /// By how much the policy expects its objective to fall.
    pub gain: f64,
}

impl NamedAction {
    /// Looks up the names of an action.
    ///
    /// # Panics
    /// If the action's vCPU or CPUs are not of this snapshot: verify it first.
    pub fn new(snapshot: &Snapshot<'_>, action: &Action<'_>) -> Self {
        let vcpu = snapshot.vcpu(action.vcpu);
        Self {
            domain: vcpu.domain().name().to_owned(),
            vcpu: vcpu.number(),
            from: vcpu.cpu().map(|cpu| snapshot.cpu(cpu).os_id().0),
            cpus: snapshot.os_ids(action.cpus),
            reason: action.reason.to_owned(),
            gain: action.gain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpuset::CpuSet;

    #[test]
    fn a_plan_gives_back_what_it_was_told() {
        let cpus = CpuSet::first(3);
        let mut plan = Plan::new();
        for _ in 0..2 {
            plan.clear();
            plan.pin(VcpuIx(7), cpus.as_ref(), format_args!("because of {}", 42), 1.5);
            plan.note("nothing more");
            let action = plan.actions().next().expect("one action");
            assert_eq!(
                (action.vcpu, action.cpus, action.reason),
                (VcpuIx(7), cpus.as_ref(), "because of 42")
            );
            assert_eq!(plan.notes().collect::<Vec<_>>(), ["nothing more"]);
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut plan = Plan::new();
        plan.note("x".repeat(MAX_TEXT - 1) + "é" + "y");
        assert_eq!(plan.notes().next().map(str::len), Some(MAX_TEXT - 1));
    }
}
