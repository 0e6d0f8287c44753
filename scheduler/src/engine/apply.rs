//! Carrying out what the verifier let pass.
//!
//! In go the accepted actions of a tick; out comes what happened to each. Before the first pin, all of them are recorded in
//! the ledger: in the journal, and in what the domains carry. What cannot be recorded is not pinned. Then they are carried
//! out in plan order, one call a pin. Just before its pin a vCPU's affinity is read once more: what someone else has set
//! meanwhile stays. A pin that fails costs itself alone, unless the failure says that no other can succeed: then the rest
//! is left undone.

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
        for (key, action) in &pins {
            ledger.retract(key, &action.cpus);
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
            refusal => _ = refusals.insert(domain, Refusal::new(refusal)),
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
                ledger.retract(&key, &action.cpus);
                applied.taken.push(Taken { key, action, found });
            }
            Outcome::Failed(error) => {
                // Without an answer it may come about yet.
                if !matches!(error, PinError::Host(_)) {
                    ledger.retract(&key, &action.cpus);
                }
                let hopeless = matches!(error, PinError::Host(_) | PinError::Forbidden { .. });
                applied.failed.push(Failed { key, action, error });
                if hopeless {
                    break;
                }
            }
        }
    }
    for (key, action) in pins {
        ledger.retract(&key, &action.cpus);
        applied.untried += 1;
    }
    applied.unrecorded = ledger.write().err();
    applied
}

/// That a domain did not take what it is to carry.
struct Refusal {
    /// The host's own words, for the first vCPU of the domain.
    words: Option<PinError>,
    /// Whether it may take it when it is tried again: its pins wait for that.
    passes: bool,
}

impl Refusal {
    fn new(words: PinError) -> Self {
        Self {
            passes: words.passes(),
            words: Some(words),
        }
    }

    /// What a pin of the domain fails with.
    fn error(&mut self) -> PinError {
        match self.words.take() {
            Some(words) if self.passes => words,
            None if self.passes => PinError::Busy {
                source: "it does not yet carry its original affinities".into(),
            },
            words => PinError::Unrecorded {
                source: words.map(Into::into),
            },
        }
    }
}

/// What became of one pin.
enum Outcome {
    Pinned,
    /// It has this affinity, from a pin that was asked for earlier.
    Had,
    Taken(OsCpuSet),
    Failed(PinError),
}

fn attempt(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    key: &VcpuKey,
    action: &NamedAction,
    refusals: &mut BTreeMap<DomainKey, Refusal>,
) -> Outcome {
    let domain = key.domain_key();
    let refusal = refusals.get_mut(&domain);
    if !ledger.is_findable(&domain) || refusal.as_ref().is_some_and(|refusal| refusal.passes) {
        return Outcome::Failed(refusal.map_or(PinError::Unrecorded { source: None }, Refusal::error));
    }
    let found = match host.affinity(key) {
        Ok(found) => found,
        Err(error) => return Outcome::Failed(error),
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
        Err(error) => Outcome::Failed(error),
    }
}
