//! One tick: from a sample to verified pins.
//!
//! ```text
//! host.sample() -> collect -> policy.decide -> verify -> apply
//! ```
//!
//! Each arrow is a plain function on plain data; only the two ends touch the world. An [`Engine`] joins the middle: it
//! holds what has to be remembered from tick to tick, which is the collector's counters and the policy's state.

pub mod apply;
pub mod collect;
pub mod constraints;
pub mod daemon;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod restore;
pub mod terms;
pub mod verify;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use collect::{Collected, Collector};
use ledger::Ledger;
use terms::Terms;
use thiserror::Error;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::SnapshotError;
use verify::Verdict;

use crate::host::{HostError, PinError, Sample, VcpuKey};

/// Makes the policy anew: at the start, and after it panicked or lost its state.
pub type MakePolicy = Box<dyn Fn() -> Result<Box<dyn Decide>, PolicyError> + Send>;

/// A policy that was made, and how to make it anew.
pub struct MadePolicy {
    policy: Box<dyn Decide>,
    make: MakePolicy,
}

impl MadePolicy {
    /// Makes it.
    ///
    /// # Errors
    /// If the policy could not be made.
    pub fn new(make: MakePolicy) -> Result<Self, PolicyError> {
        Ok(Self {
            policy: make()?,
            make,
        })
    }
}

/// A policy at work. See the [module](self).
pub struct Engine {
    collector: Collector,
    make_policy: MakePolicy,
    /// `None` after a panic, or an error that cost its state, until the next tick.
    policy: Option<Box<dyn Decide>>,
    /// Whether the policy has not decided yet.
    fresh: bool,
    plan: Plan,
}

/// What a tick came to.
#[derive(Debug)]
pub struct Decision<'a> {
    /// What was seen.
    pub collected: Collected<'a>,
    /// What the policy wants.
    pub plan: &'a Plan,
    /// What of it may be done.
    pub verdict: Verdict<'a>,
}

/// Why a tick came to nothing.
#[derive(Debug, Error)]
pub enum TickError {
    /// The host said something impossible of itself.
    #[error("the host's statistics make no sense")]
    Snapshot(#[from] SnapshotError),
    /// The policy gave up, or could not be made anew.
    #[error("the policy could not decide")]
    Policy(#[from] PolicyError),
    /// The policy panicked; it is made anew in the next tick.
    #[error("the policy panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
}

impl Engine {
    /// An engine with a policy that `make_policy` makes.
    ///
    /// # Errors
    /// If the policy could not be made.
    pub fn new(make_policy: MakePolicy, terms: Terms) -> Result<Self, PolicyError> {
        let MadePolicy { policy, make } = MadePolicy::new(make_policy)?;
        Ok(Self {
            collector: Collector::new(terms),
            make_policy: make,
            policy: Some(policy),
            fresh: true,
            plan: Plan::new(),
        })
    }

    /// What the operator laid down.
    pub fn terms(&self) -> &Terms {
        self.collector.terms()
    }

    /// Lays down other terms, and another policy if there is one; what is known of the host stays.
    pub fn renew(&mut self, terms: Terms, policy: Option<MadePolicy>) {
        if let Some(MadePolicy { policy, make }) = policy {
            self.policy = Some(policy);
            self.make_policy = make;
            self.fresh = true;
        }
        self.collector.set_terms(terms);
    }

    /// Tells the engine that samples are missing: the next one is a baseline again.
    pub fn interrupt(&mut self) {
        self.collector.interrupt();
    }

    /// Learns from what became of the pins of a tick: all that were tried count for the limits, a vCPU that the host does
    /// not let be pinned is left alone for a while, and a lost connection makes the next sample a baseline.
    ///
    /// Gives the vCPUs that are set aside because they go on failing, each once in a row of failures.
    pub fn learn(&mut self, applied: &apply::Applied) -> BTreeSet<VcpuKey> {
        let mut set_aside = BTreeSet::new();
        if matches!(applied.lost, Some(HostError::Lost { .. })) {
            self.collector.void_counters();
        }
        for pinned in &applied.pinned {
            self.collector.tried(&pinned.key);
            self.collector.forgive(&pinned.key);
        }
        for failed in &applied.failed {
            self.collector.tried(&failed.key);
            match failed.error {
                PinError::Refused { .. } | PinError::Unrecorded { .. } => {
                    let is_first = self.collector.refused(&failed.key);
                    set_aside.extend(is_first.then_some(failed.key));
                }
                PinError::Busy { .. } => {
                    let is_first = self.collector.busy(&failed.key);
                    set_aside.extend(is_first.then_some(failed.key));
                }
                PinError::Host(HostError::Lost { .. }) => self.collector.void_counters(),
                _ => {}
            }
        }
        set_aside
    }

    /// Decides on the time between the sample before and this one; `None` for a baseline. What the ledger holds is not
    /// moved.
    ///
    /// # Errors
    /// If there is no decision. The next tick may be tried all the same.
    pub fn decide(&mut self, sample: &Sample, ledger: &Ledger) -> Result<Option<Decision<'_>>, TickError> {
        let fresh = self.fresh || self.policy.as_mut().is_some_and(|policy| policy.is_fresh());
        let Some(collected) = self
            .collector
            .collect(sample, fresh, &|vcpu: &VcpuKey| ledger.holds(vcpu))?
        else {
            return Ok(None);
        };
        self.plan.clear();
        let mut policy = match self.policy.take() {
            Some(policy) => policy,
            None => (self.make_policy)()?,
        };
        let plan = &mut self.plan;
        // A panic may leave the policy half-way through a change, so it is dropped with its state, and the plan with it.
        let decided = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let result = policy.decide(&collected.snapshot, plan);
            (policy, result)
        }));
        let (policy, result) = decided.map_err(|payload| {
            self.fresh = true;
            TickError::Panicked {
                message: panic_message(payload.as_ref()),
            }
        })?;
        self.fresh = result.as_ref().is_err_and(PolicyError::is_lost);
        self.policy = (!self.fresh).then_some(policy);
        result?;
        let plan = &self.plan;
        Ok(Some(Decision {
            verdict: verify::verify(&collected.snapshot, plan),
            collected,
            plan,
        }))
    }
}

pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
