//! A policy in a process of its own, which may fail as often as it likes.
//!
//! A fault (a crash, an exit, a late or senseless answer) costs the tick it happens in. The process is started again
//! for the next one, and then, if it goes on failing, after pauses of 1, 2, 4 ... ticks. What the policy had learnt is
//! lost with its process, and the next snapshot says so. A policy that fails [`IN_A_ROW`] times in a row, or
//! [`OF_LATE`] times within [`LATELY`] ticks, is not started again: the fallback decides from then on.
//!
//! A policy that says by itself that it cannot decide is no fault: that costs its tick and nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};
use vcpu_policies::BuiltIn;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::Snapshot;

use super::fault::Fault;
use super::process::{Loaded, Patience, PluginProcess};
use super::trust::SealedLibrary;
use crate::engine::daemon::chain;
use crate::stop::Stop;

/// So many faults in a row, and the policy is not started again.
pub const IN_A_ROW: u32 = 5;
/// The same for so many faults within [`LATELY`] ticks, decisions between them or not.
pub const OF_LATE: usize = 10;
/// In ticks; see [`OF_LATE`].
pub const LATELY: u64 = 100;
/// How long a process has to start and to load its library, and again to make its policy.
pub const START_DEADLINE: Duration = Duration::from_secs(5);

/// How plugins are run.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The program that hosts them; see [`super::program::find`].
    pub program: PathBuf,
    /// How long a decision may take.
    pub deadline: Duration,
    /// Ends every wait for a plugin.
    pub stop: Option<Stop>,
    /// Who decides in place of a policy that is not started again.
    pub fallback: &'static BuiltIn,
}

/// A policy of a plugin, and its options.
#[derive(Debug, Clone)]
pub struct Order {
    /// The plugin.
    pub library: SealedLibrary,
    /// The policy's name.
    pub policy: String,
    /// Its options, in YAML.
    pub options: String,
}

/// Says of which policy an error speaks.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "policy {} of the plugin {}",
            self.policy,
            self.library.file_name()
        )
    }
}

/// The policy; see the [module](self).
#[derive(Debug)]
pub struct Supervised {
    order: Order,
    terms: Arc<Terms>,
    /// Made in time, so that nothing can go wrong when it is needed.
    fallback: Fallback,
    state: State,
    faults: Faults,
}

struct Fallback(Box<dyn Decide>);

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy")
    }
}

#[derive(Debug)]
enum State {
    /// At work. Whether it has decided yet.
    Running { process: PluginProcess, fresh: bool },
    /// To be started again after so many ticks.
    Paused { ticks: u32 },
    /// Given up for the fallback. Whether that has decided yet.
    Replaced { fresh: bool },
}

impl Supervised {
    /// Starts the process and makes the policy, so that options that are not accepted are seen now.
    ///
    /// # Errors
    /// If that fails.
    pub fn new(order: Order, terms: Arc<Terms>) -> Result<Self, PolicyError> {
        let fallback = (terms.fallback.build)("").map_err(|error| PolicyError::new(chain(&error)))?;
        let process = start(&order, &terms).map_err(|fault| told(&order, &fault))?;
        Ok(Self {
            order,
            terms,
            fallback: Fallback(fallback),
            state: State::Running { process, fresh: true },
            faults: Faults::default(),
        })
    }

    /// Takes note of a fault: what comes next is a new process, a pause, or the fallback.
    fn fail(&mut self, fault: &Fault) {
        self.state = match self.faults.count() {
            Consequence::Pause(ticks) => State::Paused { ticks },
            Consequence::GiveUp(why) => {
                error!(
                    last = chain(fault),
                    "{} is not started again: {why}; from now on the policy {} decides",
                    self.order,
                    self.terms.fallback.name
                );
                State::Replaced { fresh: true }
            }
        };
    }

    /// The process, started if need be.
    fn running(&mut self) -> Result<&mut PluginProcess, Fault> {
        if let State::Paused { .. } = self.state {
            let process = start(&self.order, &self.terms)?;
            info!("{} was started again; what it had learnt is lost", self.order);
            self.state = State::Running { process, fresh: true };
        }
        match &mut self.state {
            State::Running { process, .. } => Ok(process),
            _ => Err(Fault::Stopping),
        }
    }
}

impl Decide for Supervised {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        self.faults.tick += 1;
        if let State::Running { process, .. } = &mut self.state
            && let Some(fault) = process.ended_between()
        {
            warn!("{}", told(&self.order, &fault));
            self.fail(&fault);
        }
        match &mut self.state {
            State::Replaced { fresh } => {
                *fresh = false;
                return self.fallback.0.decide(snapshot, plan);
            }
            State::Paused { ticks } if *ticks > 0 => {
                let when = match *ticks {
                    1 => "in the next tick".to_owned(),
                    ticks => format!("in {ticks} ticks"),
                };
                *ticks -= 1;
                return Err(PolicyError::new(format_args!(
                    "{} failed {} times in a row and is started again {when}",
                    self.order, self.faults.in_a_row
                )));
            }
            _ => {}
        }
        let patience = Patience {
            deadline: self.terms.deadline,
            stop: self.terms.stop.clone(),
        };
        let decided = self
            .running()
            .and_then(|process| process.decide(snapshot, plan, &patience));
        let fault = match decided {
            Ok(()) => None,
            Err(fault @ (Fault::Undecided { .. } | Fault::Stopping)) => Some(fault),
            Err(fault) => {
                self.fail(&fault);
                return Err(told(&self.order, &fault));
            }
        };
        self.faults.in_a_row = 0;
        if let State::Running { fresh, .. } = &mut self.state {
            *fresh = false;
        }
        fault.map_or(Ok(()), |fault| Err(told(&self.order, &fault)))
    }

    fn is_fresh(&mut self) -> bool {
        match &mut self.state {
            State::Running { process, fresh } => *fresh || process.ended_between().is_some(),
            State::Paused { .. } => true,
            State::Replaced { fresh } => *fresh,
        }
    }
}

/// Loads the library in a process of its own and asks what it offers; the process ends with that.
///
/// # Errors
/// If it cannot be loaded, or fails while that is done.
pub fn inspect(library: &SealedLibrary, terms: &Terms) -> Result<Loaded, Fault> {
    PluginProcess::start(&terms.program, library)?.load(&start_patience(terms))
}

fn start(order: &Order, terms: &Terms) -> Result<PluginProcess, Fault> {
    let mut process = PluginProcess::start(&terms.program, &order.library)?;
    let patience = start_patience(terms);
    process.load(&patience)?;
    process.make(&order.policy, &order.options, &patience)?;
    Ok(process)
}

fn start_patience(terms: &Terms) -> Patience {
    Patience {
        deadline: START_DEADLINE,
        stop: terms.stop.clone(),
    }
}

fn told(order: &Order, fault: &Fault) -> PolicyError {
    PolicyError::new(format_args!("{order} {}", chain(fault)))
}

/// How often it failed.
#[derive(Debug, Default)]
struct Faults {
    /// Of the tick that is being decided.
    tick: u64,
    in_a_row: u32,
    /// The ticks of the last faults.
    recent: VecDeque<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Consequence {
    /// Start it again after so many ticks.
    Pause(u32),
    /// Do not, for this reason.
    GiveUp(String),
}

impl Faults {
    fn count(&mut self) -> Consequence {
        self.in_a_row += 1;
        self.recent.push_back(self.tick);
        let oldest = self.tick.saturating_sub(LATELY);
        self.recent.retain(|&tick| tick > oldest);
        if self.in_a_row >= IN_A_ROW {
            Consequence::GiveUp(format!("it failed {IN_A_ROW} times in a row"))
        } else if self.recent.len() >= OF_LATE {
            Consequence::GiveUp(format!("it failed {OF_LATE} times within {LATELY} ticks"))
        } else {
            Consequence::Pause(1 << self.in_a_row >> 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_it_is_given_up() {
        let mut faults = Faults::default();
        let consequences: Vec<Consequence> = (0..IN_A_ROW).map(|_| faults.count()).collect();
        let [first, second, third, fourth, last] = consequences.try_into().expect("five");
        assert_eq!(
            [first, second, third, fourth],
            [0, 1, 2, 4].map(Consequence::Pause)
        );
        assert_eq!(last, Consequence::GiveUp("it failed 5 times in a row".to_owned()));
    }

    #[test]
    fn faults_between_decisions_add_up_within_a_hundred_ticks() {
        for (distance, given_up) in [(10, true), (11, true), (12, false)] {
            let mut faults = Faults::default();
            let mut last = None;
            for _ in 0..50 {
                faults.tick += distance;
                faults.in_a_row = 0;
                last = Some(faults.count());
            }
            assert_eq!(
                matches!(last, Some(Consequence::GiveUp(_))),
                given_up,
                "{distance}"
            );
        }
    }
}
