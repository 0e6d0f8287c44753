//! The running domains that the live host knows, and how little is asked to keep that knowledge true.
//!
//! - **Which domains run** is seen from their ids, of which libvirt gives a list in one cheap call: each start of a domain
//!   has an id of its own. The domains themselves are listed only when that list is another one than last time, and once
//!   a minute whatever the ids say.
//! - **What a domain's XML states** is read when the domain is met, when libvirt tells that its definition or metadata
//!   changed, when the definition's file on this machine was replaced, and once a minute whatever is told (the domains
//!   take turns, so that no sample reads them all).
//!
//! An event that has not arrived yet therefore never makes a sample show a domain that is gone or a run that is over; it
//! can make a change of metadata show one sample later.
//!
//! An id may repeat if the daemon behind a connection is another one than before. Where a domain's process can be seen,
//! another process is another run, whatever the id.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;
use std::time::{Duration, Instant};

use tracing::debug;

use super::counters::{Counters, Source};
use super::error::LibvirtError;
use super::ffi::{self, Changes, Connection};
use super::guest::Guest;
use super::omissions::Omissions;
use super::stored::StoredDefinitions;
use crate::host::{DomainKey, DomainUuid, HostError, Instance};

/// After this time everything has been read anew, whatever was told meanwhile.
const SAFETY_NET: Duration = Duration::from_secs(60);

/// The running domains that are known.
pub(super) struct Guests {
    kept: BTreeMap<DomainUuid, Guest>,
    omissions: Omissions,
    /// The ids that were listed, ascending, without those of domains that could not be read.
    listed: Vec<u32>,
    listed_at: Option<Instant>,
    changes: Changes,
    stored: StoredDefinitions,
    turns: Turns,
}

/// Whose turn it is to be read anew.
#[derive(Debug)]
struct Turns {
    last: Option<DomainUuid>,
    counted_at: Instant,
    /// Milliseconds times domains that did not come to a whole turn.
    rest: u128,
}

/// What the guests are read through.
#[derive(Clone, Copy)]
pub(super) struct Through<'a> {
    pub(super) connection: &'a Connection,
    pub(super) uri: &'a str,
    pub(super) counters: &'a Counters,
}

impl Guests {
    /// Those of the daemon at `uri`, none of which is known yet. What libvirt tells is noted in `changes`.
    pub(super) fn new(uri: &str, changes: Changes) -> Self {
        Self {
            kept: BTreeMap::new(),
            omissions: Omissions::default(),
            listed: Vec::new(),
            listed_at: None,
            changes,
            stored: StoredDefinitions::of(uri),
            turns: Turns::new(Instant::now()),
        }
    }

    /// Brings them up to date.
    pub(super) fn refresh(&mut self, through: Through<'_>) -> Result<(), HostError> {
        self.omissions.begin();
        self.read_changed(through)?;
        let ids = ffi::running_ids(through.connection, self.listed.len())
            .map_err(|error| through.failed("list the domains of", error.into()))?;
        let stale = self.listed_at.is_none_or(|listed| listed.elapsed() >= SAFETY_NET);
        if stale || ids != self.listed || self.has_impostor(through.counters) {
            self.list(through)?;
        }
        Ok(())
    }

    /// Does something with each of them, by UUID; those of which it fails are left out.
    pub(super) fn for_each(
        &mut self,
        through: (&Connection, &str),
        mut act: impl FnMut(&mut Guest) -> Result<(), LibvirtError>,
    ) -> Result<(), HostError> {
        for guest in self.kept.values_mut() {
            if let Err(error) = act(guest) {
                let (run, name) = (guest.run(), &guest.name);
                self.omissions
                    .leave_out(run, name, error.into(), through.0, through.1)?;
            }
        }
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.kept.values()
    }

    /// Those that run but could not be read.
    pub(super) fn unread(&self) -> Vec<DomainKey> {
        self.omissions.unread()
    }

    pub(super) fn get(&self, domain: DomainUuid) -> Option<&Guest> {
        self.kept.get(&domain)
    }

    pub(super) fn get_mut(&mut self, domain: DomainUuid) -> Option<&mut Guest> {
        self.kept.get_mut(&domain)
    }

    #[cfg(test)]
    pub(super) fn first_mut(&mut self) -> Option<&mut Guest> {
        self.kept.values_mut().next()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Reads anew what may have changed of those that are known.
    fn read_changed(&mut self, through: Through<'_>) -> Result<(), HostError> {
        let changed = self.changes.take();
        let due = self.turns.due(&self.kept, Instant::now());
        let mut lost = Vec::new();
        for (uuid, guest) in &mut self.kept {
            let wanted = changed.includes(*uuid) || due.contains(uuid) || guest.changed_on_disk(&self.stored);
            if wanted && let Err(error) = guest.read_again(&self.stored) {
                lost.push((*uuid, error));
            }
        }
        for (uuid, error) in lost {
            let Some(guest) = self.kept.remove(&uuid) else {
                continue;
            };
            self.forget_id(guest.instance);
            self.omissions
                .leave_out(guest.run(), &guest.name, error, through.connection, through.uri)?;
        }
        Ok(())
    }

    /// Whether a domain's source was lost and its process is now another one than that of the run that is known.
    fn has_impostor(&self, counters: &Counters) -> bool {
        self.kept
            .values()
            .any(|guest| matches!(guest.source, Source::Undecided) && is_impostor(guest, counters))
    }

    /// Asks which domains run, and meets those that are new.
    fn list(&mut self, through: Through<'_>) -> Result<(), HostError> {
        let listed = through
            .connection
            .list_all_domains(virt_sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            .map_err(|error| through.failed("list the domains of", error.into()))?;
        let mut known = mem::take(&mut self.kept);
        self.listed.clear();
        self.listed_at = Some(Instant::now());
        for domain in listed {
            // Without an id it stopped after it was listed.
            let (Ok(uuid), Some(id), Ok(name)) = (domain.uuid(), domain.id(), domain.name()) else {
                continue;
            };
            let run = (DomainUuid(uuid.into_bytes()), Instance(u64::from(id)));
            self.listed.push(id);
            let same = |guest: &Guest| {
                guest.run() == run && *guest.name == *name && !is_impostor(guest, through.counters)
            };
            let met = match known.remove(&run.0).filter(same) {
                Some(guest) => Ok(guest),
                None => Guest::meet(domain, run, &name, &self.stored),
            };
            match met {
                Ok(guest) => {
                    self.kept.insert(run.0, guest);
                }
                Err(error) => {
                    self.forget_id(run.1);
                    self.omissions
                        .leave_out(run, &name, error, through.connection, through.uri)?;
                }
            }
        }
        self.listed.sort_unstable();
        debug!(domains = self.kept.len(), "listed the running domains");
        Ok(())
    }

    /// Sees to it that the domains are listed again in the next sample.
    fn forget_id(&mut self, instance: Instance) {
        self.listed.retain(|&id| Instance(u64::from(id)) != instance);
    }
}

/// Whether the domain's process is another one than that of the run that is known.
fn is_impostor(guest: &Guest, counters: &Counters) -> bool {
    let Some(known) = &guest.incarnation else {
        return false;
    };
    // Threads are followed by open files, which do not pass to another process.
    !matches!(guest.source, Source::Threads(_))
        && counters
            .incarnation(&guest.name, guest.uuid)
            .is_some_and(|now| now != *known)
}

impl Through<'_> {
    fn failed(&self, operation: &str, error: LibvirtError) -> HostError {
        error.while_doing(format!("cannot {operation} {}", self.uri), self.connection)
    }
}

impl Turns {
    fn new(now: Instant) -> Self {
        Self {
            last: None,
            counted_at: now,
            rest: 0,
        }
    }

    /// Those whose turn came since the last time: in [`SAFETY_NET`] each has one.
    fn due<T>(&mut self, of: &BTreeMap<DomainUuid, T>, now: Instant) -> Vec<DomainUuid> {
        let passed = now.saturating_duration_since(self.counted_at);
        self.counted_at = now;
        let owed = self.rest + passed.as_millis() * of.len() as u128;
        let turns = usize::try_from(owed / SAFETY_NET.as_millis()).unwrap_or(usize::MAX);
        self.rest = owed % SAFETY_NET.as_millis();
        let turns = turns.min(of.len());
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let later = of.range((after, Bound::Unbounded)).map(|(uuid, _)| *uuid);
        let due: Vec<DomainUuid> = later.chain(of.keys().copied()).take(turns).collect();
        self.last = due.last().copied().or(self.last);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn_in_a_minute() {
        let domains: BTreeMap<DomainUuid, u8> =
            (0..7).map(|number| (DomainUuid([number; 16]), number)).collect();
        let begin = Instant::now();
        let mut turns = Turns::new(begin);
        let mut read = BTreeMap::new();
        for second in (5..=600).step_by(5) {
            let due = turns.due(&domains, begin + Duration::from_secs(second));
            assert!(due.len() <= 1, "they take turns");
            for uuid in due {
                *read.entry(uuid).or_insert(0) += 1;
            }
        }
        assert_eq!(read.len(), 7);
        assert!(read.values().all(|&times| times == 10), "{read:?}");
        let much_later = begin + Duration::from_secs(6000);
        assert_eq!(turns.due(&domains, much_later).len(), 7, "nobody twice at once");
        assert_eq!(
            turns.due(&BTreeMap::<DomainUuid, u8>::new(), much_later + SAFETY_NET),
            []
        );
    }
}
