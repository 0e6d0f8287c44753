//! Carrying out what the verifier let pass.
//!
//! In go the accepted actions of a tick; out comes what happened to each. Before the first pin, all of them are recorded in
//! the ledger: in the journal, and in what the domains carry. What cannot be recorded in both is not pinned (in the journal
//! alone on a host of which no domain can carry anything). Then they are carried
//! out in plan order, one call a pin. Just before its pin a vCPU's affinity is read once more: what someone else has set
//! meanwhile stays. A pin that fails costs itself alone, unless the failure says that no other can succeed: then the rest
//! is left undone. One that fails may be in force all the same (libvirt fails too where it cannot write down what it has
//! done), so the vCPU is looked at once more: what has come about is ours.

use std::collections::{BTreeMap, BTreeSet};

use tracing::trace;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::Index;
use vcpu_policy_api::plan::{Action, NamedAction};

use super::collect::Collected;
use super::journal::JournalError;
use super::ledger::Ledger;
use crate::host::{DomainKey, Host, HostError, PinError, VcpuKey};

/// What became of the actions of a tick.
#[derive(Debug, Default)]
pub struct Applied {
    /// Carried out.
    pub pinned: Vec<Pinned>,
    /// Tried without success.
    pub failed: Vec<Failed>,
    /// Not tried, because the vCPU had another affinity by then than the one known.
    pub taken: Vec<Taken>,
    /// Not even tried, because of the last failure, or because nothing could be recorded.
    pub untried: usize,
    /// Why the host could not be asked for any pin, where that is so.
    pub lost: Option<HostError>,
    /// Why the journal could not be written. Where that was before the pins, none was made.
    pub unrecorded: Option<JournalError>,
}

/// A pin that came about.
#[derive(Debug)]
pub struct Pinned {
    /// Whom it concerns.
    pub key: VcpuKey,
    /// What was done.
    pub action: NamedAction,
}

/// A pin that did not come about.
#[derive(Debug)]
pub struct Failed {
    /// Whom it concerns.
    pub key: VcpuKey,
    /// What was to be done.
    pub action: NamedAction,
    /// Why it was not.
    pub error: PinError,
}

/// A pin that was left, because someone else was faster.
#[derive(Debug)]
pub struct Taken {
    /// Whom it concerns.
    pub key: VcpuKey,
    /// What was to be done.
    pub action: NamedAction,
    /// The affinity that it was found to have.
    pub found: OsCpuSet,
}

/// Pins, in order, what `actions` ask for.
pub fn apply(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    collected: &Collected<'_>,
    actions: &[Action<'_>],
) -> Applied {
    let mut applied = Applied::default();
    let pins: Vec<(VcpuKey, NamedAction)> = actions
        .iter()
        .map(|action| {
            let key = collected.keys[action.vcpu.index()];
            (key, NamedAction::new(&collected.snapshot, action))
        })
        .collect();
    if let Err(error) = ledger.intend(pins.iter().map(|(key, action)| (key, &action.cpus))) {
        for (key, _) in &pins {
            ledger.withdraw(key);
        }
        applied.unrecorded = Some(error);
        applied.untried = pins.len();
        return applied;
    }
    let mut domains: BTreeSet<DomainKey> = pins.iter().map(|(key, _)| key.domain_key()).collect();
    domains.extend(ledger.stale());
    let mut refusals = BTreeMap::new();
    for (domain, refusal) in ledger.keep(host, &domains) {
        match refusal {
            PinError::Host(error) => applied.lost = Some(error),
            refusal => drop(refusals.insert(domain, refusal)),
        }
    }
    let mut pins = pins.into_iter();
    while applied.lost.is_none()
        && let Some((key, action)) = pins.next()
    {
        let outcome = attempt(host, ledger, &key, &action, &mut refusals);
        match outcome {
            Outcome::Pinned => applied.pinned.push(Pinned { key, action }),
            Outcome::Had => ledger.confirm(&key, &action.cpus),
            Outcome::Taken(found) => {
                ledger.withdraw(&key);
                applied.taken.push(Taken { key, action, found });
            }
            Outcome::Failed { error, lost } => {
                ledger.withdraw(&key);
                applied.lost = lost;
                let hopeless = matches!(error, PinError::Host(_) | PinError::Forbidden { .. });
                applied.failed.push(Failed { key, action, error });
                if hopeless {
                    break;
                }
            }
        }
    }
    for (key, _) in pins {
        ledger.withdraw(&key);
        applied.untried += 1;
    }
    applied.unrecorded = ledger.write().err();
    applied
}

/// What became of one pin.
enum Outcome {
    Pinned,
    /// It has this affinity, from a pin that was asked for earlier.
    Had,
    Taken(OsCpuSet),
    Failed {
        error: PinError,
        /// The connection was lost after that.
        lost: Option<HostError>,
    },
}

impl Outcome {
    fn failed(error: PinError) -> Self {
        Self::Failed { error, lost: None }
    }
}

fn attempt(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    key: &VcpuKey,
    action: &NamedAction,
    refusals: &mut BTreeMap<DomainKey, PinError>,
) -> Outcome {
    let domain = key.domain_key();
    if !ledger.is_safe(key) {
        return Outcome::failed(unrecorded(&domain, refusals));
    }
    let found = match host.affinity(key) {
        Ok(found) => found,
        Err(error) => return Outcome::failed(error),
    };
    if !ledger.is_ours(key, &found) {
        return Outcome::Taken(found);
    }
    if found == action.cpus {
        return Outcome::Had;
    }
    ledger.ask(key);
    trace!(domain = action.domain, vcpu = action.vcpu, cpus = %action.cpus, "calling pin");
    match host.pin(key, &action.cpus) {
        Ok(()) => {
            ledger.confirm(key, &action.cpus);
            Outcome::Pinned
        }
        // Without an answer it may come about yet.
        Err(error @ PinError::Host(_)) => Outcome::failed(error),
        Err(error) => Outcome::Failed {
            error,
            lost: see_whether_it_came_about(host, ledger, key, (&found, &action.cpus)).err(),
        },
    }
}

/// Looks at a vCPU whose pin the host says has failed. What cannot be looked at stays in question.
fn see_whether_it_came_about(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    key: &VcpuKey,
    (before, asked): (&OsCpuSet, &OsCpuSet),
) -> Result<(), HostError> {
    match host.affinity(key) {
        // The kernel may have left out what is offline by now.
        Ok(now) if now != *before && now.as_ref().is_subset(asked.as_ref()) && ledger.is_ours(key, &now) => {
            ledger.confirm(key, &now);
        }
        Ok(_) => ledger.retract(key, asked),
        Err(PinError::Host(error)) => return Err(error),
        Err(_) => {}
    }
    Ok(())
}

/// Why a vCPU is not pinned whose domain does not carry its original. What is wrong with the domain's metadata the first vCPU
/// says, in the host's own words; what is wrong with the domain all of them do.
fn unrecorded(domain: &DomainKey, refusals: &mut BTreeMap<DomainKey, PinError>) -> PinError {
    let (now, next) = match refusals.remove(domain) {
        Some(PinError::Gone) => (PinError::Gone, Some(PinError::Gone)),
        Some(PinError::Busy { source }) => {
            let again = PinError::Busy {
                source: source.to_string().into(),
            };
            (PinError::Busy { source }, Some(again))
        }
        // Neither will anything else be permitted.
        Some(every @ (PinError::Host(_) | PinError::Forbidden { .. })) => (every, None),
        // No pin was asked for yet.
        Some(PinError::Refused { source }) => {
            let source = Some(source);
            (PinError::Unrecorded { source }, None)
        }
        Some(error) => {
            let source = Some(Box::new(error) as _);
            (PinError::Unrecorded { source }, None)
        }
        None => (PinError::Unrecorded { source: None }, None),
    };
    refusals.extend(next.map(|next| (*domain, next)));
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{DomainUuid, Instance};

    /// What the first and the second vCPU of a domain are told.
    #[track_caller]
    fn check(refusal: Option<PinError>, expect: [&str; 2]) {
        let domain = DomainKey {
            uuid: DomainUuid([1; 16]),
            instance: Instance(1),
        };
        let mut refusals: BTreeMap<_, _> = refusal.map(|refusal| (domain, refusal)).into_iter().collect();
        let told = [(); 2].map(|()| crate::engine::daemon::chain(&unrecorded(&domain, &mut refusals)));
        assert_eq!(told, expect);
    }

    #[test]
    fn every_vcpu_of_a_busy_domain_is_busy_and_a_refusal_is_said_once() {
        let source = || "in the host's words".into();
        let busy = "the domain is busy: in the host's words";
        let not_recorded = "the original affinity cannot be recorded in the domain";
        check(Some(PinError::Busy { source: source() }), [busy, busy]);
        check(Some(PinError::Gone), ["the vCPU is gone", "the vCPU is gone"]);
        let refused = format!("{not_recorded}: in the host's words");
        check(
            Some(PinError::Refused { source: source() }),
            [&refused, not_recorded],
        );
        check(None, [not_recorded, not_recorded]);
    }
}
