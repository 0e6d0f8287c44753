//! What the journal is to say of a run.

use super::{Custody, NewToken, Run, Tracked};
use crate::engine::journal::{Entry, Line, Subject};
use crate::host::{DomainSample, DomainUuid, Token};

impl Run {
    /// What the journal is to say of a vCPU; `None` without a token.
    fn entry(&self, number: u32) -> Option<Entry> {
        let (token, custody) = (self.token.as_ref()?, self.custody(number)?);
        let run = self.incarnation.as_ref();
        Some(Entry::new((self.uuid, &self.name), token, run, number, custody))
    }

    /// What the journal is to be told of a vCPU, if anything. What is known only by what the domain carries it has no say in.
    pub(in super::super) fn line(&mut self, number: u32, new_token: &mut NewToken) -> Option<Line> {
        if self.custody(number).is_some_and(Custody::is_unseen) {
            return None;
        }
        if self.is_on_record(number) {
            self.ensure_token(new_token);
            self.vcpus.get_mut(&number)?.journalled = true;
            return self.entry(number).map(Line::Vcpu);
        }
        let token = self.token.as_ref()?;
        let journalled = self.vcpus.get(&number)?.journalled;
        journalled.then(|| Line::Forget(subject(self.uuid, token, number)))
    }

    /// The journal was told of a vCPU.
    pub(in super::super) fn told(&mut self, number: u32) {
        if let Some(tracked) = self.vcpus.get_mut(&number) {
            tracked.journalled = tracked.custody.is_on_record() && !tracked.custody.is_unseen();
        }
    }

    /// What the journal is to say of all that is recorded.
    pub(in super::super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let seen = |number: &u32| self.custody(*number).is_some_and(|custody| !custody.is_unseen());
        let numbers = self.on_record().filter(seen);
        numbers.filter_map(|number| self.entry(number))
    }

    /// What the journal holds of it though nothing is recorded any more.
    pub(in super::super) fn off_record(&self) -> impl Iterator<Item = Subject> {
        let off = |tracked: &Tracked| tracked.journalled && !tracked.custody.is_on_record();
        let numbers = self.vcpus.iter().filter(move |(_, tracked)| off(tracked));
        let token = self.token.iter();
        token.flat_map(move |token| {
            let numbers = numbers.clone();
            numbers.map(|(&number, _)| subject(self.uuid, token, number))
        })
    }
}

/// A vCPU of a run, as the journal names it.
pub(super) fn subject(domain: DomainUuid, token: &Token, vcpu: u32) -> Subject {
    Subject {
        domain,
        token: token.0.to_string(),
        vcpu,
    }
}

/// Whether a record is of the very process that a sample shows.
pub(super) fn has_incarnation(domain: &DomainSample, entry: &Entry) -> bool {
    match (&domain.incarnation, &entry.run) {
        (Some(incarnation), Some(run)) => *incarnation.0 == **run,
        _ => false,
    }
}
