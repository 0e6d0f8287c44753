//! Who decided where each vCPU may run, and what each is to be given back.
//!
//! The ledger sees every sample before it is decided on, and is told of every pin before it is made. From that it knows, for
//! each vCPU, the affinity it had before us and whether the one it has now is ours ([`Custody`]). What has to outlive the
//! process is written twice: to the [`Journal`], and into the running domain itself, as a [`Keepsake`](crate::host::Keepsake).
//!
//! ```text
//! observe(sample)             whose are the affinities?       before each decision
//! intend(pins), keep(host)    recorded, in both places        before the first pin of a tick
//! confirm, retract, withdraw  what became of each             after each pin
//! ```
//!
//! **Runs.** What is recorded belongs to one run of a domain. It is found again, after a crash or a new connection, by what
//! tells the run ([`Incarnation`](crate::host::Incarnation)) or by the token that the domain carries; a domain that was started anew has neither, and
//! gets nothing of what a former run had. A run that comes back under another incarnation but with its token (after a managed
//! save, or from another host) has the affinities it left with.
//!
//! **Absence.** A vCPU that a sample does not show may only not have been read, so it counts as unplugged after a few samples.
//! libvirt keeps what was set for it, also by us, and sets that again when it is plugged in: so its record is kept. If it comes
//! back with another affinity than the one known, it is a new one. The record of a run that ended is kept for a while, in
//! case it comes back.

mod custody;
mod ended;
mod giving_back;
mod luggage;
mod run;

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

use vcpu_policy_api::cpuset::OsCpuSet;

pub use self::custody::{Custody, Finding, Hold, Scene};
use self::ended::Ended;
use self::run::Run;
use super::journal::{Entry, Journal, JournalError, Line, Subject, Unkept};
use super::terms::Terms;
use crate::host::{DomainKey, DomainSample, DomainUuid, Sample, Token, VcpuKey};

/// Makes a token that was never made before.
pub type NewToken = Box<dyn FnMut() -> Token + Send>;

/// For how many samples in a row a vCPU may be missing before it counts as unplugged.
const SAMPLES_MISSING: u32 = 3;

/// See the [module](self).
pub struct Ledger {
    journal: Box<dyn Journal>,
    new_token: NewToken,
    runs: BTreeMap<DomainKey, Run>,
    ended: Ended,
    online: OsCpuSet,
    /// Over which connection, and when, the sample was read that was taken in last.
    observed: Option<(u64, u64)>,
    /// vCPUs whose line in the journal is not what holds.
    unwritten: BTreeSet<VcpuKey>,
    /// What the journal is still to forget.
    forgotten: Vec<Subject>,
}

/// Something about one vCPU that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whom it concerns.
    pub key: VcpuKey,
    /// The domain's name.
    pub domain: Arc<str>,
    /// What was found.
    pub finding: Finding,
    /// The affinity that was expected.
    pub expected: OsCpuSet,
    /// The affinity that was found.
    pub found: OsCpuSet,
}

/// What a sample told the ledger.
#[derive(Debug, Default)]
pub struct Observed {
    /// What changed hands.
    pub notices: Vec<Notice>,
    /// How many vCPUs are known from an earlier process or an earlier life of their domain.
    pub adopted: usize,
}

impl Ledger {
    /// A ledger that goes on from what an earlier process has left in the journal.
    pub fn new(journal: Box<dyn Journal>, left: Vec<Entry>, new_token: NewToken) -> Self {
        Self {
            journal,
            new_token,
            runs: BTreeMap::new(),
            ended: Ended::left(left),
            online: OsCpuSet::new(),
            observed: None,
            unwritten: BTreeSet::new(),
            forgotten: Vec::new(),
        }
    }

    /// A ledger for a host that nothing outlives.
    pub fn unkept() -> Self {
        let mut tokens = 0_u64;
        let new_token = move || {
            tokens += 1;
            Token(tokens.to_string().into())
        };
        Self::new(Box::new(Unkept), Vec::new(), Box::new(new_token))
    }

    /// Takes in what a sample shows. The same sample again shows nothing: what was pinned since is not in it.
    pub fn observe(&mut self, sample: &Sample, terms: &Terms) -> Observed {
        let this = (sample.connection, sample.read_at_ns);
        if self.observed.replace(this) == Some(this) {
            return Observed::default();
        }
        let online = sample.topology.online();
        let online_before = if self.online.is_empty() {
            online.clone()
        } else {
            std::mem::take(&mut self.online)
        };
        self.part_with_the_ended(sample);
        let mut observed = Observed::default();
        for domain in &sample.domains {
            let key = domain.key();
            let (name, uuid, definition) = (&domain.name, domain.uuid, &domain.definition);
            let is_managed = || {
                let standing = terms.constraints.of_domain(name, uuid, definition);
                standing.management().is_managed()
            };
            let run = self.run_of(key, domain, sample.connection);
            let scene = run::Surroundings {
                connection: sample.connection,
                online: &online,
                online_before: &online_before,
                manual: terms.manual_pins,
                initial: terms.initial_pins,
                is_managed: &is_managed,
            };
            for change in run.observe(domain, scene) {
                let vcpu = key.vcpu(change.number);
                observed.adopted += usize::from(change.adopted);
                self.forgotten.extend(change.forgotten);
                self.unwritten.insert(vcpu);
                if let Some((finding, expected, found)) = change.finding {
                    observed.notices.push(Notice {
                        key: vcpu,
                        domain: Arc::clone(&domain.name),
                        finding,
                        expected,
                        found,
                    });
                }
            }
        }
        self.online = online;
        observed
    }

    /// The run that a sample shows, which may be another one than was known by its key.
    fn run_of(&mut self, key: DomainKey, domain: &DomainSample, connection: u64) -> &mut Run {
        let known = self.runs.get(&key);
        if known.is_some_and(|run| run.is_other_than(domain, connection)) {
            self.part_with(key);
        }
        match self.runs.entry(key) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(unknown) => {
                let is_of = |entry: &Entry| entry.domain == key.uuid && Run::is_of(domain, entry);
                unknown.insert(Run::meet(domain, connection, self.ended.take(is_of)))
            }
        }
    }

    /// Moves the records of a run that ended out of the way.
    fn part_with(&mut self, key: DomainKey) {
        if let Some(run) = self.runs.remove(&key) {
            self.forgotten.extend(run.off_record());
            self.ended.extend(run.entries());
        }
    }

    /// Moves the records of runs that ended out of the way, and forgets those that ended long ago.
    fn part_with_the_ended(&mut self, sample: &Sample) {
        let present: BTreeSet<DomainKey> = sample
            .domains
            .iter()
            .map(DomainSample::key)
            .chain(sample.unread.iter().copied())
            .collect();
        self.forgotten.extend(self.ended.wait(&sample.unread));
        let ended: Vec<DomainKey> = self
            .runs
            .keys()
            .filter(|key| !present.contains(key))
            .copied()
            .collect();
        for key in ended {
            self.part_with(key);
        }
        let runs = &self.runs;
        self.unwritten
            .retain(|vcpu| runs.contains_key(&vcpu.domain_key()));
    }

    /// Whether a vCPU is to be left alone.
    pub fn holds(&self, vcpu: &VcpuKey) -> bool {
        self.custody(vcpu).is_none_or(|custody| custody.hold.is_some())
    }

    /// What is known of a vCPU.
    pub fn custody(&self, vcpu: &VcpuKey) -> Option<&Custody> {
        self.runs.get(&vcpu.domain_key())?.custody(vcpu.number)
    }

    /// Whether an affinity that a vCPU was just found to have may be replaced. If it may not, the next sample says what it
    /// is: only that also shows whether CPUs went offline, so that it was the kernel's doing.
    pub fn is_ours(&self, vcpu: &VcpuKey, found: &OsCpuSet) -> bool {
        let run = self.runs.get(&vcpu.domain_key());
        run.is_some_and(|run| run.is_ours(vcpu.number, found, &self.online))
    }

    /// Records that these vCPUs are about to be pinned. When this returns, that is in the journal.
    ///
    /// # Errors
    /// If it is not; nothing may be pinned then.
    pub fn intend<'a>(
        &mut self,
        pins: impl IntoIterator<Item = (&'a VcpuKey, &'a OsCpuSet)>,
    ) -> Result<(), JournalError> {
        for (vcpu, cpus) in pins {
            if let Some(run) = self.runs.get_mut(&vcpu.domain_key()) {
                run.change(vcpu.number, |custody| custody.intend(cpus));
                self.unwritten.insert(*vcpu);
            }
        }
        self.write()
    }

    /// Takes note that what was intended for a vCPU is asked of the host now.
    pub fn ask(&mut self, vcpu: &VcpuKey) {
        self.change(vcpu, Custody::ask);
    }

    /// Takes note that a vCPU was pinned.
    pub fn confirm(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) {
        self.change(vcpu, |custody| custody.confirm(cpus));
    }

    /// Takes note that what was intended for a vCPU is not asked of the host after all.
    pub fn withdraw(&mut self, vcpu: &VcpuKey) {
        self.change(vcpu, Custody::withdraw);
    }

    /// Takes note that a vCPU was not pinned, and will not be by what was asked.
    pub fn retract(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) {
        self.change(vcpu, |custody| custody.retract(cpus));
    }

    fn change(&mut self, vcpu: &VcpuKey, change: impl FnOnce(&mut Custody)) {
        if let Some(run) = self.runs.get_mut(&vcpu.domain_key()) {
            run.change(vcpu.number, change);
            self.unwritten.insert(*vcpu);
        }
    }

    /// The running domain with this name or UUID, as far as the last sample showed it.
    pub fn find(&self, domain: &str) -> Option<DomainUuid> {
        let named = self.runs.iter().find(|(_, run)| *run.name == *domain);
        // A name may look like a UUID.
        let by_uuid = || {
            let mut keys = self.runs.keys();
            keys.find(|key| key.uuid.to_string().eq_ignore_ascii_case(domain))
        };
        named.map(|(key, _)| key).or_else(by_uuid).map(|key| key.uuid)
    }

    /// Whether a running domain has a vCPU, as far as the last samples showed it.
    pub fn has(&self, domain: DomainUuid, number: u32) -> bool {
        let mut runs = self.runs.iter().filter(|(key, _)| key.uuid == domain);
        runs.any(|(_, run)| run.custody(number).is_some())
    }

    /// Ends the holds on a domain's vCPUs, or on one of them; says of which.
    pub fn release(&mut self, domain: DomainUuid, number: Option<u32>) -> Vec<VcpuKey> {
        let mut released = Vec::new();
        for (key, run) in self.runs.iter_mut().filter(|(key, _)| key.uuid == domain) {
            for vcpu in run.release(number) {
                released.push(key.vcpu(vcpu));
                self.unwritten.insert(key.vcpu(vcpu));
            }
        }
        released
    }

    /// Brings the journal up to date.
    ///
    /// # Errors
    /// If it could not be written; what is unwritten then stays so for the next time.
    pub fn write(&mut self) -> Result<(), JournalError> {
        let mut lines: Vec<Line> = self.forgotten.iter().cloned().map(Line::Forget).collect();
        for vcpu in &self.unwritten {
            let Some(run) = self.runs.get_mut(&vcpu.domain_key()) else {
                continue;
            };
            lines.extend(run.line(vcpu.number, &mut self.new_token));
        }
        if !lines.is_empty() {
            self.journal.append(&lines)?;
        }
        self.forgotten.clear();
        for vcpu in std::mem::take(&mut self.unwritten) {
            if let Some(run) = self.runs.get_mut(&vcpu.domain_key()) {
                run.told(vcpu.number);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("runs", &self.runs)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
