//! What every policy has promised, held against one policy.
//!
//! In goes a way to make the policy; out come the promises it breaks, if any. The policy is made anew for each
//! [case](cases) and decides tick by tick, its pins being carried out in between as the engine would. What is looked at:
//!
//! - **It is deterministic.** A second one, made the same way and a little later, decides the same to the bit on the same
//!   snapshots: what depends on the seconds of a clock, on randomness or on where things lie in memory is seen.
//! - **It leaves the snapshot alone.**
//! - **It asks for nothing that cannot be.** The verifier refuses none of its pins, but for those beyond the budget.
//! - **It survives** a host without guests or without managed CPUs, guests without loads, loads beyond all measure, and
//!   a huge host. It may say that it cannot decide; it may not panic or lose its state.
//! - **It explains itself.** Where nothing moves, a note says why.
//!
//! That cannot prove a policy good. It finds what is wrong with it before a guest does. (A clock of which a policy looks at
//! the hour alone, for one, is not found.)

mod cases;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use cases::{Case, Guests};
use thiserror::Error;
use vcpu_policy_api::ids::VcpuIx;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::SnapshotBlock;

use crate::engine::verify::{NamedRejection, Rejection, verify};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// On which host.
    pub case: &'static str,
    /// In which tick; the first one is 1.
    pub tick: u64,
    /// What happened.
    pub problem: Problem,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, tick {}: {}", self.case, self.tick, self.problem)
    }
}

/// How a promise is broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// Two of the same policy decide differently.
    #[error("not deterministic: on the same snapshots, one decides {one:?}, the other {other:?}")]
    NotDeterministic {
        /// The first difference, as one has it.
        one: String,
        /// And the other.
        other: String,
    },
    /// The snapshot is not what it was.
    #[error("it writes into the snapshot")]
    WritesSnapshot,
    /// A pin that the verifier refuses.
    #[error("it asks for a pin that cannot be: {0}")]
    Refused(String),
    /// It panicked, or gave its state up.
    #[error("it does not survive: {0}")]
    Lost(String),
    /// A plan without pins and without notes.
    #[error("it neither moves anything nor says why")]
    Silent,
}

/// How much later the second one decides: more than a clock's second.
const LATER: Duration = Duration::from_millis(1100);

/// Runs a policy through all cases, twice. `make` makes a new one each time.
///
/// The first violation ends a case, so there is at most one for each.
pub fn check(make: impl Fn() -> Box<dyn Decide>) -> Vec<Violation> {
    let cases = cases::all();
    let first: Vec<_> = cases.iter().map(|case| run(case, make(), None)).collect();
    if first.iter().any(Result::is_ok) {
        std::thread::sleep(LATER);
    }
    cases
        .iter()
        .zip(first)
        .filter_map(|(case, first)| first.and_then(|first| run(case, make(), Some(&first))).err())
        .collect()
}

/// Lets a policy decide on each tick of a case, and gives the transcripts, which are to be those of an earlier one.
fn run(
    case: &Case,
    mut policy: Box<dyn Decide>,
    earlier: Option<&[Vec<String>]>,
) -> Result<Vec<Vec<String>>, Violation> {
    let mut guests = Guests::new(case);
    let mut transcripts = Vec::new();
    for tick in 1..=case.ticks {
        let violation = |problem| Violation {
            case: case.name,
            tick,
            problem,
        };
        let block = guests.snapshot(tick);
        let plan = decide(&mut *policy, &block).map_err(violation)?;
        let transcript = transcript(&plan);
        let before = earlier.and_then(|earlier| earlier.get(transcripts.len()));
        if let Some((one, other)) = before.and_then(|before| first_difference(before, &transcript)) {
            return Err(violation(Problem::NotDeterministic { one, other }));
        }
        transcripts.push(transcript);
        let Ok(plan) = plan else { continue };
        let snapshot = block.view();
        let verdict = verify(&snapshot, &plan);
        let refused = verdict
            .rejected
            .iter()
            .find(|rejected| rejected.why != Rejection::OverBudget);
        if let Some(rejected) = refused {
            let said = NamedRejection::new(&snapshot, rejected).to_string();
            return Err(violation(Problem::Refused(said)));
        }
        if plan.actions().len() == 0 && plan.notes().len() == 0 {
            return Err(violation(Problem::Silent));
        }
        let pins: Vec<(VcpuIx, _)> = verdict
            .accepted
            .iter()
            .map(|action| (action.vcpu, snapshot.os_ids(action.cpus)))
            .collect();
        guests.pin(&pins);
    }
    Ok(transcripts)
}

/// One decision; an error is one too, as long as the policy can go on.
fn decide(policy: &mut dyn Decide, block: &SnapshotBlock) -> Result<Result<Plan, PolicyError>, Problem> {
    let before = block.clone();
    let mut plan = Plan::new();
    let decided = catch_unwind(AssertUnwindSafe(|| policy.decide(&block.view(), &mut plan)));
    if *block != before {
        return Err(Problem::WritesSnapshot);
    }
    match decided {
        Err(payload) => Err(Problem::Lost(crate::engine::panic_message(payload.as_ref()))),
        // A plugin's process that ended says so by what comes next: a policy without a past.
        Ok(Err(error)) if error.is_lost() || policy.is_fresh() => Err(Problem::Lost(error.to_string())),
        Ok(result) => Ok(result.map(|()| plan)),
    }
}

/// All that a decision says, a line each, numbers to the bit.
fn transcript(decided: &Result<Plan, PolicyError>) -> Vec<String> {
    match decided {
        Err(error) => vec![format!("error: {error}")],
        Ok(plan) => {
            let pins = plan.actions().map(|action| {
                let gain = action.gain.to_bits();
                format!(
                    "pin: {:?} to {:?}, gain {gain:x}, {}",
                    action.vcpu, action.cpus, action.reason
                )
            });
            pins.chain(plan.notes().map(|note| format!("note: {note}")))
                .collect()
        }
    }
}

fn first_difference(one: &[String], other: &[String]) -> Option<(String, String)> {
    let line = |lines: &[String], at: usize| {
        lines
            .get(at)
            .cloned()
            .unwrap_or_else(|| "nothing more".to_owned())
    };
    (0..one.len().max(other.len()))
        .map(|at| (line(one, at), line(other, at)))
        .find(|(one, other)| one != other)
}

#[cfg(test)]
mod tests;
