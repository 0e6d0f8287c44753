//! What the live host remembers of a running domain, so as not to ask for it again.

use std::sync::Arc;

use tracing::warn;
use virt::domain::Domain;

use super::counters::{Source, Subject};
use super::error::LibvirtError;
use super::metadata::MetadataError;
use super::omissions::GuestError;
use super::stated::{self, Stated};
use super::stored::{Stamp, StoredDefinitions};
use crate::host::{Definition, DomainUuid, Incarnation, Instance, Keepsake};

/// What is kept of a running domain from sample to sample.
pub(super) struct Guest {
    pub(super) uuid: DomainUuid,
    pub(super) instance: Instance,
    /// Known from the first reading of its counters on, if at all.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) domain: Domain,
    pub(super) name: Arc<str>,
    pub(super) definition: Arc<Definition>,
    pub(super) keepsake: Result<Option<Arc<Keepsake>>, MetadataError>,
    /// It has no more vCPUs than this, however many are plugged in.
    pub(super) most_vcpus: u32,
    pub(super) source: Source,
    /// The file of its definition when that was read.
    stamp: Stamp,
    /// What was said about it.
    complaints: Vec<String>,
}

impl Guest {
    /// Reads what is kept of a domain that was not known to run.
    pub(super) fn meet(
        domain: Domain,
        (uuid, instance): (DomainUuid, Instance),
        name: &str,
        stored: &StoredDefinitions,
    ) -> Result<Self, GuestError> {
        let most_vcpus = domain.max_vcpus().map_err(LibvirtError::from)?;
        let mut guest = Self {
            uuid,
            instance,
            incarnation: None,
            domain,
            name: name.into(),
            definition: Arc::default(),
            keepsake: Ok(None),
            most_vcpus: u32::try_from(most_vcpus).unwrap_or(u32::MAX),
            source: Source::Undecided,
            stamp: stored.stamp(name),
            complaints: Vec::new(),
        };
        guest.read_again(stored)?;
        Ok(guest)
    }

    /// Reads anew what its XML states. What did not change stays the same value.
    pub(super) fn read_again(&mut self, stored: &StoredDefinitions) -> Result<(), GuestError> {
        // Before the question: a change after it shows in the next look at the file.
        let stamp = stored.stamp(&self.name);
        let Stated {
            definition,
            keepsake,
            complaints,
        } = stated::read(&self.domain)?;
        self.stamp = stamp;
        if *self.definition != definition {
            self.definition = Arc::new(definition);
        }
        let carried = self.keepsake.as_ref().map(Option::as_deref);
        if carried != keepsake.as_ref().map(Option::as_ref) {
            self.keepsake = keepsake.map(|keepsake| keepsake.map(Arc::new));
        }
        for complaint in complaints.iter().filter(|said| !self.complaints.contains(said)) {
            warn!(domain = &*self.name, "{complaint}");
        }
        self.complaints = complaints;
        Ok(())
    }

    /// Whether its stored definition is another one on disk than when it was read.
    pub(super) fn changed_on_disk(&self, stored: &StoredDefinitions) -> bool {
        stored.stamp(&self.name) != self.stamp
    }

    /// Which run it is.
    pub(super) fn run(&self) -> (DomainUuid, Instance) {
        (self.uuid, self.instance)
    }

    /// It, as one whose counters are to be read.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            domain: &self.domain,
            uuid: self.uuid,
            name: &self.name,
            most_vcpus: self.most_vcpus,
        }
    }
}
