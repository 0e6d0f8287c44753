//! What the operator lays down for the whole of a run, or until the configuration is read again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::constraints::Constraints;

/// What holds for every tick.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The only randomness that a policy gets.
    pub seed: u64,
    /// How much may be moved.
    pub limits: Limits,
    /// Where guests may be placed.
    pub constraints: Arc<Constraints>,
    /// What an affinity means that someone else sets while the scheduler runs.
    pub manual_pins: ManualPins,
    /// What an affinity means that a vCPU has when it is first seen.
    pub initial_pins: InitialPins,
}

/// How much may be moved. Attempts count, whatever became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many pins a tick may ask for; `None`: any number.
    pub moves_per_tick: Option<u32>,
    /// How many pins any 60 seconds may ask for; `None`: any number.
    pub moves_per_minute: Option<NonZeroU32>,
    /// For how long a vCPU is not moved again after a pin was asked for.
    pub cooldown: Duration,
}

/// What an affinity means that someone else sets while the scheduler runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManualPins {
    /// Their decision: the vCPU is left alone until it is released.
    #[default]
    Respect,
    /// A place like any other, from which the vCPU may be moved.
    Override,
}

/// What an affinity means that a vCPU has when it is first seen, where the definition does not say the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InitialPins {
    /// A place to start from, given back at the end.
    #[default]
    Take,
    /// Someone's decision: the vCPU is left alone until it is released.
    Respect,
}
