//! Giving back: each vCPU that was pinned gets the affinity that it had before.
//!
//! In goes what the ledger has recorded; what happens to each vCPU comes out. A domain is done when all its vCPUs have their
//! originals, and then, in this order, it carries nothing of ours any more and the journal forgets it. Whatever stops that
//! in between, the next attempt goes on from there.
//!
//! - Every affinity is read just before it is replaced; one that is somebody else's decision stays. One that has changed
//!   since the sample is judged by the next one, which also shows which CPUs are online by then.
//! - A domain that is gone needs nothing. For a vCPU that is not plugged in, what libvirt would set when it is plugged in again
//!   is set back. One that could not be read, that is busy or that refuses is tried again until time is up, and stays in the
//!   journal if that did not help.
//! - A lost connection is opened again while there is time.
//! - When time is up, no other domain is begun. (A single call is bounded by the host: see
//!   [`Watched`](crate::host::watched::Watched).)

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use vcpu_policy_api::cpuset::OsCpuSet;

use super::journal::JournalError;
use super::ledger::Ledger;
use super::terms::Terms;
use crate::host::{DomainKey, Host, HostError, PinError, VcpuKey};
use crate::stop::Stop;

/// How long to wait before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// What giving back came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// vCPUs that have their original affinity now and had another one before.
    pub given_back: Vec<Returned>,
    /// vCPUs that someone else has pinned, and that were left so.
    pub left_alone: Vec<Returned>,
    /// What could not be given back, and is still in the journal.
    pub remaining: Vec<Remaining>,
}

/// A vCPU and an affinity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// The domain's name.
    pub domain: Arc<str>,
    /// The vCPU's number.
    pub vcpu: u32,
    /// The affinity that it has now.
    pub cpus: OsCpuSet,
}

/// Something that is left to do.
#[derive(Debug)]
pub struct Remaining {
    /// The domain's name; `None`: all domains.
    pub domain: Option<Arc<str>>,
    /// Why it is not done.
    pub why: Obstacle,
}

/// What keeps affinities from being given back.
#[derive(Debug, Error)]
pub enum Obstacle {
    /// The host could not be read.
    #[error(transparent)]
    Host(HostError),
    /// The host did not do it.
    #[error(transparent)]
    Pin(PinError),
    /// It had another affinity just now than a moment before: the next reading shows whose that is.
    #[error("a vCPU's affinity was changed just now")]
    Changed,
    /// The domain runs, but could not be read.
    #[error("the domain runs but cannot be read")]
    Unread,
    /// It was not come to.
    #[error("time is up")]
    Time,
    /// It is given back, but the journal does not know.
    #[error("the journal cannot be brought up to date")]
    Journal(#[source] JournalError),
}

/// Gives back what is recorded, until that is done, `deadline` has come, or a stop is wished for.
pub fn restore(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    terms: &Terms,
    deadline: Instant,
    stop: &Stop,
) -> Restored {
    let mut restored = Restored::default();
    loop {
        restored.remaining.clear();
        restored.pass(host, ledger, terms, deadline);
        let again = Instant::now() + PAUSE;
        if restored.remaining.is_empty() || again > deadline || stop.wait_until(again) {
            return restored;
        }
    }
}

impl Restored {
    fn pass(&mut self, host: &mut dyn Host, ledger: &mut Ledger, terms: &Terms, deadline: Instant) {
        if ledger.has_nothing_to_give_back() {
            return;
        }
        let sample = match host.sample() {
            Ok(sample) => sample,
            Err(error) => return self.remains(None, Obstacle::Host(error)),
        };
        ledger.observe(&sample, terms);
        for name in ledger.forget_the_ended(&sample.unread) {
            self.remains(Some(name.into()), Obstacle::Unread);
        }
        for domain in ledger.recorded() {
            if sample.unread.contains(&domain) {
                let name = ledger.name(&domain).cloned();
                self.remains(name, Obstacle::Unread);
                continue;
            }
            if Instant::now() > deadline {
                self.remains(None, Obstacle::Time);
                break;
            }
            match self.domain(host, ledger, &domain) {
                Ok(()) => {}
                Err(Obstacle::Pin(PinError::Host(error))) => {
                    return self.remains(None, Obstacle::Host(error));
                }
                Err(obstacle) => {
                    let name = ledger.name(&domain).cloned();
                    self.remains(name, obstacle);
                }
            }
        }
        if let Err(error) = ledger.write() {
            self.remains(None, Obstacle::Journal(error));
        }
    }

    fn remains(&mut self, domain: Option<Arc<str>>, why: Obstacle) {
        self.remaining.push(Remaining { domain, why });
    }

    /// Gives a domain back what it had; all of it, or the last error.
    fn domain(
        &mut self,
        host: &mut dyn Host,
        ledger: &mut Ledger,
        domain: &DomainKey,
    ) -> Result<(), Obstacle> {
        let mut trouble = None;
        let mut left = Vec::new();
        for vcpu in ledger.touched(domain) {
            match give_back(host, ledger, &vcpu) {
                Ok(Some(Given::Back(cpus))) => self.given_back.push(returned(ledger, &vcpu, cpus)),
                Ok(Some(Given::Left(cpus))) => left.push(returned(ledger, &vcpu, cpus)),
                Ok(Some(Given::Unclear)) => trouble = Some(Obstacle::Changed),
                Ok(None) | Err(PinError::Gone) => {}
                Err(error @ PinError::Host(_)) => return Err(Obstacle::Pin(error)),
                Err(error) => trouble = Some(Obstacle::Pin(error)),
            }
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        if ledger.is_carrying(domain) {
            match host.keep(domain, None) {
                Ok(()) | Err(PinError::Gone | PinError::Unsupported { .. }) => {}
                Err(error) => return Err(Obstacle::Pin(error)),
            }
        }
        self.left_alone.append(&mut left);
        ledger.forget(domain);
        Ok(())
    }
}

fn returned(ledger: &Ledger, vcpu: &VcpuKey, cpus: OsCpuSet) -> Returned {
    let domain = ledger.name(&vcpu.domain_key()).cloned().unwrap_or_default();
    Returned {
        domain,
        vcpu: vcpu.number,
        cpus,
    }
}

/// What became of one vCPU whose affinity was not its original.
enum Given {
    Back(OsCpuSet),
    Left(OsCpuSet),
    /// It is not what the sample showed.
    Unclear,
}

fn give_back(host: &mut dyn Host, ledger: &mut Ledger, vcpu: &VcpuKey) -> Result<Option<Given>, PinError> {
    let Some(original) = ledger.original(vcpu) else {
        return Ok(None);
    };
    let found = match host.affinity(vcpu) {
        Err(PinError::Gone) => return give_back_unplugged(host, ledger, vcpu, &original),
        found => found?,
    };
    // What is still on its way does not get past a pin that is asked for after it.
    if found == original && !ledger.is_pending(vcpu) {
        return Ok(None);
    }
    if found != original && !ledger.is_ours(vcpu, &found) {
        let given = if ledger.holds(vcpu) {
            Given::Left(found)
        } else {
            Given::Unclear
        };
        return Ok(Some(given));
    }
    let mut given = original;
    let outcome = match host.pin(vcpu, &given) {
        Err(PinError::Refused { .. }) if !given.as_ref().is_subset(ledger.online().as_ref()) => {
            // A CPU that the original names may be gone for good.
            given.intersect(ledger.online().as_ref());
            host.pin(vcpu, &given)
        }
        outcome => outcome,
    };
    outcome?;
    ledger.confirm(vcpu, &given);
    Ok(Some(Given::Back(given)))
}

/// A vCPU that is not there has no affinity; but libvirt sets the last one it was told when the vCPU is plugged in again.
fn give_back_unplugged(
    host: &mut dyn Host,
    ledger: &Ledger,
    vcpu: &VcpuKey,
    original: &OsCpuSet,
) -> Result<Option<Given>, PinError> {
    if ledger.holds(vcpu) {
        return Ok(None);
    }
    match host.pin(vcpu, original) {
        Err(error @ (PinError::Busy { .. } | PinError::Host(_))) => Err(error),
        // It is gone with its domain, or this host has nothing of the kind.
        Ok(()) | Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
