//! The records of runs that are not there (any more).
//!
//! A run that ends may come back, from a managed save or from another host, and a run that an earlier process has recorded
//! may not have been met yet. Their records wait here until the run is met, or until it was missing for many samples.

use std::collections::BTreeSet;

use crate::engine::journal::{Entry, Subject};
use crate::host::DomainKey;

/// For how many samples the record of a run that ended is kept.
pub(super) const SAMPLES_ENDED: u32 = 64;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Ended(Vec<Record>);

#[derive(Debug)]
struct Record {
    entry: Entry,
    /// For how many samples its run was not there.
    samples: u32,
}

impl Ended {
    /// What an earlier process has left.
    pub(super) fn left(entries: Vec<Entry>) -> Self {
        let mut ended = Self(Vec::new());
        ended.extend(entries);
        ended
    }

    /// Runs end that have these records.
    pub(super) fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let records = entries.into_iter().map(|entry| Record { entry, samples: 0 });
        self.0.extend(records);
    }

    /// Hands out the records that are of a run.
    pub(super) fn take(&mut self, is_of: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let records = self.0.extract_if(.., |record| is_of(&record.entry));
        records.map(|record| record.entry).collect()
    }

    /// Another sample, which could not show the runs of some domains. Gives what has been waiting for too long.
    pub(super) fn wait(&mut self, unread: &[DomainKey]) -> Vec<Subject> {
        for record in self
            .0
            .iter_mut()
            .filter(|record| !is_among(&record.entry, unread))
        {
            record.samples += 1;
        }
        let over = self.0.extract_if(.., |record| record.samples > SAMPLES_ENDED);
        over.map(|record| record.entry.subject()).collect()
    }

    /// Nobody comes back any more, except who could not be read. Gives whom that concerns.
    pub(super) fn give_up(&mut self, unread: &[DomainKey]) -> Vec<Subject> {
        let gone = self.0.extract_if(.., |record| !is_among(&record.entry, unread));
        gone.map(|record| record.entry.subject()).collect()
    }

    /// The names of the domains.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|record| record.entry.name.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_among(entry: &Entry, domains: &[DomainKey]) -> bool {
    domains.iter().any(|key| key.uuid == entry.domain)
}
