//! What the ledger knows of one run of a domain: its vCPUs, what tells it from other runs, and what it carries.

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use vcpu_policy_api::cpuset::OsCpuSet;

use self::record::{has_incarnation, subject};
use super::custody::{Custody, Finding, Scene};
use super::luggage::Luggage;
use super::{NewToken, SAMPLES_MISSING};
use crate::engine::journal::{Entry, Subject};
use crate::engine::terms::{InitialPins, ManualPins};
use crate::host::{Definition, DomainSample, DomainUuid, Incarnation, Keepsake, Kept, Token};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Run {
    uuid: DomainUuid,
    pub(super) name: Arc<str>,
    pub(super) incarnation: Option<Incarnation>,
    /// Over which it was seen last.
    connection: u64,
    /// Given when something is first recorded.
    token: Option<Token>,
    definition: Arc<Definition>,
    /// By number; those known from the journal, or by what the domain carries, are there before they are seen.
    vcpus: BTreeMap<u32, Tracked>,
    /// Records that were not taken over.
    superseded: Vec<Subject>,
    pub(super) luggage: Luggage,
}

#[derive(Debug)]
struct Tracked {
    custody: Custody,
    /// Whether it was seen in this process.
    known: bool,
    /// Whether the journal may hold something of it.
    journalled: bool,
    seen: bool,
    /// In how many samples in a row it was not there.
    missing: u32,
}

/// What a sample is judged by.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) connection: u64,
    pub(super) online: &'a OsCpuSet,
    pub(super) online_before: &'a OsCpuSet,
    pub(super) manual: ManualPins,
    pub(super) initial: InitialPins,
    /// Whether the domain may be moved. Asked only where something has changed.
    pub(super) is_managed: &'a dyn Fn() -> bool,
}

/// What a sample changed about one vCPU.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) number: u32,
    /// What was found, what was expected, and the affinity that was seen.
    pub(super) finding: Option<(Finding, OsCpuSet, OsCpuSet)>,
    /// Whether it is known from an earlier process or an earlier life of its domain.
    pub(super) adopted: bool,
    /// What the journal is to forget.
    pub(super) forgotten: Option<Subject>,
}

impl Run {
    /// Whether a record is of the run that a sample shows.
    pub(super) fn is_of(domain: &DomainSample, entry: &Entry) -> bool {
        let token = domain.keepsake.as_ref().map(|keepsake| &*keepsake.token.0);
        token == Some(&*entry.token) || has_incarnation(domain, entry)
    }

    /// A run that is seen for the first time; `records` are what the journal has of it.
    pub(super) fn meet(domain: &DomainSample, connection: u64, records: Vec<Entry>) -> Self {
        let carried = domain.keepsake.as_deref();
        let token = carried
            .map(|keepsake| keepsake.token.clone())
            .or_else(|| records.first().map(Entry::token));
        let mut vcpus = BTreeMap::new();
        let mut superseded = Vec::new();
        for record in records {
            // In another process, it has the affinities that it left with: what it carries says enough.
            let moved =
                record.run.is_some() && domain.incarnation.is_some() && !has_incarnation(domain, &record);
            if moved || Some(record.token()) != token {
                superseded.push(record.subject());
            }
            if !moved {
                let tracked = Tracked {
                    journalled: true,
                    ..Tracked::not_yet_seen(record.custody())
                };
                vcpus.insert(record.vcpu, tracked);
            }
        }
        // A sample may not show all of its vCPUs yet.
        for (&number, kept) in carried.into_iter().flat_map(|keepsake| &keepsake.vcpus) {
            let carried = || Tracked::not_yet_seen(Custody::carried(kept));
            vcpus.entry(number).or_insert_with(carried);
        }
        Self {
            uuid: domain.uuid,
            name: Arc::clone(&domain.name),
            incarnation: domain.incarnation.clone(),
            connection,
            token,
            definition: Arc::clone(&domain.definition),
            vcpus,
            superseded,
            luggage: Luggage::of(domain),
        }
    }

    /// Whether a domain that is seen with this key is another run all the same: ids may begin anew with a connection.
    ///
    /// Where the host tells no incarnation, only the token does, over another connection: a domain that does not carry ours is
    /// not known. What of the same run is forgotten by that was never pinned, or is given back.
    pub(super) fn is_other_than(&self, domain: &DomainSample, connection: u64) -> bool {
        match (&self.incarnation, &domain.incarnation) {
            (Some(known), Some(seen)) => known != seen,
            _ if self.connection == connection => false,
            _ => match (&self.token, &domain.keepsake) {
                (Some(known), Some(carried)) => carried.token != *known,
                _ => true,
            },
        }
    }

    /// Takes in what a sample shows of it.
    pub(super) fn observe(&mut self, domain: &DomainSample, scene: Surroundings<'_>) -> Vec<Change> {
        let mut changes: Vec<Change> = self
            .superseded
            .drain(..)
            .map(|subject| Change {
                forgotten: Some(subject.clone()),
                ..Change::of(subject.vcpu)
            })
            .collect();
        if !Arc::ptr_eq(&self.name, &domain.name) {
            self.name = Arc::clone(&domain.name);
        }
        self.connection = scene.connection;
        if self.incarnation.is_none() {
            self.incarnation.clone_from(&domain.incarnation);
        }
        if !Arc::ptr_eq(&self.definition, &domain.definition) {
            self.definition = Arc::clone(&domain.definition);
        }
        self.luggage.look(domain);
        for vcpu in &domain.vcpus {
            changes.extend(self.observe_vcpu(vcpu.number, &vcpu.affinity, scene));
        }
        self.miss_the_absent(&mut changes);
        changes
    }

    fn observe_vcpu(
        &mut self,
        number: u32,
        seen: &OsCpuSet,
        surroundings: Surroundings<'_>,
    ) -> Option<Change> {
        let inherited = self.definition.cpus_of(number);
        let scene = Scene {
            online: surroundings.online,
            online_before: surroundings.online_before,
            inherited: inherited.unwrap_or(surroundings.online),
        };
        let first_seen = || Tracked {
            known: true,
            ..Tracked::not_yet_seen(Custody::first_seen(seen, scene, surroundings.initial))
        };
        let tracked = self.vcpus.entry(number).or_insert_with(first_seen);
        if tracked.is_unplugged() && !tracked.custody.is_known(seen, scene) {
            *tracked = Tracked {
                journalled: tracked.journalled,
                seen: true,
                ..first_seen()
            };
            self.luggage.is_to_change();
            return Some(Change::of(number));
        }
        tracked.custody.meet(seen);
        let adopted = !std::mem::replace(&mut tracked.known, true);
        tracked.seen = true;
        tracked.missing = 0;
        let custody = &mut tracked.custody;
        if custody.hold.is_none() && custody.expected == *seen && !adopted {
            return None;
        }
        let expected = custody.expected.clone();
        let kept = custody.kept();
        let finding = custody.observe(seen, scene, surroundings.manual);
        let is_news = finding != Finding::Unchanged;
        if is_news && kept.is_none() && !adopted && !(surroundings.is_managed)() {
            // Whoever sets its affinity is nobody's concern here: what it has when it is to be managed counts as found.
            if finding.is_decision() {
                *custody = Custody::first_seen(seen, scene, surroundings.initial);
            }
            return None;
        }
        if adopted || kept != custody.kept() {
            self.luggage.is_to_change();
        }
        (is_news || adopted).then(|| Change {
            number,
            finding: is_news.then(|| (finding, expected, seen.clone())),
            adopted,
            ..Change::of(number)
        })
    }

    /// Counts for how long vCPUs are not there, and forgets those that are gone and of which there is no record.
    fn miss_the_absent(&mut self, changes: &mut Vec<Change>) {
        let (uuid, token) = (self.uuid, &self.token);
        self.vcpus.retain(|&number, tracked| {
            if std::mem::take(&mut tracked.seen) {
                return true;
            }
            tracked.missing = tracked.missing.saturating_add(1);
            if !tracked.is_unplugged() || tracked.custody.is_on_record() {
                return true;
            }
            if tracked.journalled {
                changes.push(Change {
                    forgotten: token.as_ref().map(|token| subject(uuid, token, number)),
                    ..Change::of(number)
                });
            }
            false
        });
    }

    pub(super) fn custody(&self, number: u32) -> Option<&Custody> {
        self.vcpus.get(&number).map(|tracked| &tracked.custody)
    }

    pub(super) fn is_on_record(&self, number: u32) -> bool {
        self.custody(number).is_some_and(Custody::is_on_record)
    }

    /// The numbers of the vCPUs that have to outlive this process.
    fn on_record(&self) -> impl Iterator<Item = u32> {
        let vcpus = self.vcpus.iter();
        vcpus.filter_map(|(&number, tracked)| tracked.custody.is_on_record().then_some(number))
    }

    pub(super) fn records(&self) -> usize {
        self.on_record().count()
    }

    pub(super) fn touched(&self) -> impl Iterator<Item = u32> {
        let vcpus = self.vcpus.iter();
        vcpus.filter_map(|(&number, tracked)| tracked.custody.touched.then_some(number))
    }

    /// Changes what is known of a vCPU.
    pub(super) fn change<T>(&mut self, number: u32, change: impl FnOnce(&mut Custody) -> T) -> Option<T> {
        let custody = &mut self.vcpus.get_mut(&number)?.custody;
        let kept = custody.kept();
        let changed = change(custody);
        if kept != custody.kept() {
            self.luggage.is_to_change();
        }
        Some(changed)
    }

    /// Whether an affinity that a vCPU was just found to have may be replaced: it is the one that is known.
    pub(super) fn is_ours(&self, number: u32, found: &OsCpuSet, online: &OsCpuSet) -> bool {
        let scene = at_rest(&self.definition, number, online);
        let custody = self.custody(number);
        custody.is_some_and(|custody| custody.is_ours(found, scene))
    }

    /// What a vCPU is given back now.
    pub(super) fn original(&self, number: u32, online: &OsCpuSet) -> Option<OsCpuSet> {
        let scene = at_rest(&self.definition, number, online);
        self.custody(number).map(|custody| custody.resolve(scene))
    }

    /// Ends the hold on a vCPU, or on all; says on which there was one.
    pub(super) fn release(&mut self, number: Option<u32>) -> Vec<u32> {
        let asked = |&candidate: &u32| number.is_none_or(|number| number == candidate);
        let numbers: Vec<u32> = self.vcpus.keys().copied().filter(asked).collect();
        let released = |&number: &u32| self.change(number, Custody::release) == Some(true);
        numbers.into_iter().filter(released).collect()
    }

    /// Gives the run a token if it has none.
    pub(super) fn ensure_token(&mut self, new_token: &mut NewToken) {
        if self.token.is_none() {
            self.token = Some(new_token());
        }
    }

    /// What it is to carry; needs a token if that is anything.
    pub(super) fn keepsake(&self) -> Option<Keepsake> {
        let vcpus: BTreeMap<u32, Kept> = self
            .vcpus
            .iter()
            .filter_map(|(&number, tracked)| Some((number, tracked.custody.kept()?)))
            .collect();
        let token = self.token.clone()?;
        (!vcpus.is_empty()).then_some(Keepsake { token, vcpus })
    }

    /// Whether the original of a vCPU would be found again after a crash, and after a managed save: the domain carries it.
    /// Where no domain can carry anything, it is enough that the run can be told from others.
    pub(super) fn is_safe(&self, number: u32) -> bool {
        if self.luggage.is_impossible() {
            return self.incarnation.is_some();
        }
        let custody = self.custody(number);
        custody.is_some_and(|custody| self.luggage.has(self.token.as_ref(), number, &custody.original))
    }

    /// Forgets all that was recorded. The vCPUs are seen for the first time when they are seen next.
    pub(super) fn start_over(&mut self) {
        self.vcpus.clear();
        self.token = None;
        self.luggage.start_over();
    }
}

impl Change {
    /// Nothing but that what the journal says of it may be another thing now.
    fn of(number: u32) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }
}

impl Tracked {
    /// Whether it was not there for so long that it is not only unread.
    fn is_unplugged(&self) -> bool {
        self.missing >= SAMPLES_MISSING
    }

    fn not_yet_seen(custody: Custody) -> Self {
        Self {
            custody,
            known: false,
            journalled: false,
            seen: false,
            missing: 0,
        }
    }
}

/// By what a vCPU is judged while no CPU goes on- or offline.
fn at_rest<'a>(definition: &'a Definition, number: u32, online: &'a OsCpuSet) -> Scene<'a> {
    Scene {
        online,
        online_before: online,
        inherited: definition.cpus_of(number).unwrap_or(online),
    }
}
