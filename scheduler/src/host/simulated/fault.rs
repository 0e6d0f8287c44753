//! Calls that fail, or take long, for some ticks.

use std::time::Duration;

use super::scenario::{Fault, FaultKind, PinFailure};
use crate::host::{HostError, PinError};

/// The faults of a host.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Active>);

#[derive(Debug)]
struct Active {
    /// The first tick without it.
    until: u64,
    kind: FaultKind,
}

impl Faults {
    /// Begins a fault in a tick.
    pub(super) fn begin(&mut self, tick: u64, fault: &Fault) {
        self.0.push(Active {
            until: tick + u64::from(fault.ticks),
            kind: fault.kind.clone(),
        });
    }

    /// Ends the faults that are over in a tick.
    pub(super) fn end(&mut self, tick: u64) {
        self.0.retain(|fault| fault.until > tick);
    }

    /// How long each call takes.
    pub(super) fn duration_of_a_call(&self) -> Duration {
        let slow = self.0.iter().filter_map(|fault| match fault.kind {
            FaultKind::Slow(duration) => Some(duration),
            _ => None,
        });
        slow.max().unwrap_or(Duration::ZERO)
    }

    /// Whether the host can be read.
    pub(super) fn check_sample(&self) -> Result<(), HostError> {
        let operation = || "cannot read the simulated host".to_owned();
        if self.has(|kind| matches!(kind, FaultKind::Disconnect)) {
            return Err(HostError::Lost {
                operation: operation(),
                source: "the scenario has cut the connection".into(),
            });
        }
        if self.has(|kind| matches!(kind, FaultKind::Sample)) {
            return Err(HostError::Failed {
                operation: operation(),
                source: "the scenario lets this fail".into(),
            });
        }
        Ok(())
    }

    /// Whether any vCPU can be pinned.
    pub(super) fn check_connection(&self) -> Result<(), PinError> {
        if self.has(|kind| matches!(kind, FaultKind::Disconnect)) {
            return Err(PinError::Host(HostError::Lost {
                operation: "cannot pin on the simulated host".to_owned(),
                source: "the scenario has cut the connection".into(),
            }));
        }
        Ok(())
    }

    /// Whether vCPUs of this domain can be pinned.
    pub(super) fn check_pin(&self, name: &str) -> Result<(), PinError> {
        let failure = self.0.iter().find_map(|fault| match &fault.kind {
            FaultKind::Pin { domain, error } if domain.as_ref().is_none_or(|domain| domain.matches(name)) => {
                Some(*error)
            }
            _ => None,
        });
        match failure {
            None => Ok(()),
            Some(PinFailure::Busy) => Err(PinError::Busy {
                source: "the scenario keeps the domain busy".into(),
            }),
            Some(PinFailure::Refused) => Err(PinError::Refused {
                source: "the scenario refuses pins of the domain".into(),
            }),
        }
    }

    fn has(&self, is: impl Fn(&FaultKind) -> bool) -> bool {
        self.0.iter().any(|fault| is(&fault.kind))
    }
}
