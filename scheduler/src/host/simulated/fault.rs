//! Calls that fail, or take long, for some ticks.

use std::time::Duration;

use super::scenario::{DomainCall, DomainFault, Failure, Fault, FaultKind};
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

    /// Whether the host can be asked about a domain at all.
    pub(super) fn check_connection(&self, call: DomainCall) -> Result<(), PinError> {
        if self.has(|kind| matches!(kind, FaultKind::Disconnect)) {
            return Err(PinError::Host(HostError::Lost {
                operation: format!("cannot {} on the simulated host", in_words(call)),
                source: "the scenario has cut the connection".into(),
            }));
        }
        Ok(())
    }

    /// Whether a call about this domain works.
    pub(super) fn check(&self, call: DomainCall, name: &str) -> Result<(), PinError> {
        let failure = self.0.iter().find_map(|fault| match &fault.kind {
            FaultKind::OfDomain(DomainFault {
                call: failing,
                domain,
                error,
            }) if *failing == call && domain.as_ref().is_none_or(|domain| domain.matches(name)) => {
                Some(*error)
            }
            _ => None,
        });
        match failure {
            None => Ok(()),
            Some(Failure::Busy) => Err(PinError::Busy {
                source: "the scenario keeps the domain busy".into(),
            }),
            Some(Failure::Refused) => Err(PinError::Refused {
                source: match call {
                    DomainCall::Pin => "the scenario refuses pins of the domain",
                    DomainCall::Affinity => "the scenario does not give affinities of the domain away",
                    DomainCall::Keep => "the scenario has the domain take no keepsake",
                }
                .into(),
            }),
        }
    }

    fn has(&self, is: impl Fn(&FaultKind) -> bool) -> bool {
        self.0.iter().any(|fault| is(&fault.kind))
    }
}

fn in_words(call: DomainCall) -> &'static str {
    match call {
        DomainCall::Pin => "pin",
        DomainCall::Affinity => "read affinities",
        DomainCall::Keep => "hand over keepsakes",
    }
}
