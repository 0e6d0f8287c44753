//! The model of a host, and the truth about it.
//!
//! The truth is what no scheduler could know for sure: who set each affinity, what it was before the scheduler's first pin,
//! and what the scheduler has had a chance to see. The [laws](crate::laws) hold what it does against that.
//!
//! **Other hands** act between any two calls, never within one: the interface has no compare-and-set, and no model can ask
//! for more than an affinity read just before its pin. What a hand sets is *noticed* when a sample or a reading shows it and
//! it is not, on the CPUs that are online, the same as what the scheduler may take for its own work: what it saw last, what
//! it has asked for, what the kernel makes of a mask whose CPUs are offline. The original set again is free again. What is
//! neither one nor the other is *unclear*, and may be treated either way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use vcpu_policy_api::snapshot::Snapshot;
use vcpu_policy_api::topology::{Distances, Topology, uniform_sites};
use vcpu_scheduler::engine::journal::Entry;
use vcpu_scheduler::engine::terms::Terms;
use vcpu_scheduler::host::{
    Definition, DomainKey, DomainUuid, Incarnation, Instance, Keepsake, Sample, VcpuKey,
};

use crate::dice::Dice;
use crate::faults::Faults;
use crate::mask::Mask;
use crate::paper::Holds;
use crate::vcpu::{Setter, Vcpu};

/// How many events a failure shows.
const SHOWN: usize = 40;

/// The world as its parts share it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the scheduler is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Tick,
    /// A tick of a dry run.
    Dry,
    Restore,
}

pub(crate) struct Guest {
    pub(crate) uuid: DomainUuid,
    pub(crate) name: Arc<str>,
    pub(crate) instance: Instance,
    pub(crate) incarnation: Incarnation,
    pub(crate) definition: Arc<Definition>,
    pub(crate) keepsake: Option<Arc<Keepsake>>,
    pub(crate) vcpus: Vec<Vcpu>,
    /// vCPUs that were taken out, by number.
    pub(crate) unplugged: BTreeMap<u32, Unplugged>,
    /// It refused to carry a keepsake, for good as far as the host says.
    pub(crate) refuses: bool,
    /// The sample before showed it without vCPUs.
    pub(crate) bare: bool,
    /// Whether a sample showed it while it was to be managed.
    pub(crate) was_managed: bool,
    /// Whom an obstinate hand pins in every tick.
    pub(crate) obstinate: Option<(u32, Mask)>,
}

/// A vCPU that was taken out. What was set for it waits for it.
pub(crate) struct Unplugged {
    pub(crate) vcpu: Vcpu,
    /// How many samples have shown the domain without it.
    pub(crate) samples: u32,
}

impl Guest {
    /// Those that are plugged in, and those that are not.
    pub(crate) fn all_vcpus_mut(&mut self) -> impl Iterator<Item = &mut Vcpu> {
        let unplugged = self.unplugged.values_mut().map(|out| &mut out.vcpu);
        self.vcpus.iter_mut().chain(unplugged)
    }

    pub(crate) fn key(&self) -> DomainKey {
        DomainKey {
            uuid: self.uuid,
            instance: self.instance,
        }
    }

    pub(crate) fn inherited(&self, number: u32, online: Mask) -> Mask {
        let cpus = self.definition.cpus_of(number);
        cpus.and_then(Mask::of).unwrap_or(online)
    }
}

/// What the last sample showed of a vCPU.
pub(crate) struct Shown {
    pub(crate) run_ns: u64,
    pub(crate) read_at_ns: u64,
    /// The sample before showed it too, and its counters went on.
    pub(crate) measured: bool,
    pub(crate) allowed: Mask,
    pub(crate) managed: bool,
}

/// A pin whose answer was not waited for.
pub(crate) struct Landing {
    pub(crate) key: VcpuKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) mask: Mask,
    pub(crate) at_ns: u64,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are true or not, each by itself"
)]
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) calm: bool,
    /// Whether it tells incarnations, as a host on this machine does.
    pub(crate) is_local: bool,
    /// Whether domains can carry keepsakes.
    pub(crate) keeps: bool,

    pub(crate) now_ns: u64,
    pub(crate) origin_ns: u64,
    /// When a connection was lost last.
    pub(crate) lost_ns: u64,
    pub(crate) connected: bool,
    pub(crate) connection: u64,
    pub(crate) count: u32,
    pub(crate) online: Mask,
    pub(crate) isolated: Mask,
    pub(crate) topology: Arc<Topology>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) saved: Vec<Guest>,
    pub(crate) landing: Vec<Landing>,
    pub(crate) serial: u64,

    pub(crate) holds: Holds,
    /// How many steps the process has left to live.
    pub(crate) life: Option<u32>,
    pub(crate) dead: bool,
    pub(crate) phase: Phase,
    pub(crate) terms: Terms,
    pub(crate) shown: BTreeMap<VcpuKey, Shown>,
    pub(crate) last: Option<Sample>,
    /// Whether the last sample was the one before, once more.
    pub(crate) stale: bool,
    /// Whether the next sample cannot be held against the last one.
    pub(crate) void: bool,
    pub(crate) online_shown: Mask,
    pub(crate) online_before: Mask,
    /// When pins were asked for in the last minute.
    pub(crate) attempts: VecDeque<u64>,
    pub(crate) attempts_in_tick: u32,
    /// How many pins of this process were answered with success.
    pub(crate) answered: u64,
    pub(crate) pins: u64,
    pub(crate) most_vcpus: usize,

    pub(crate) tick: u64,
    pub(crate) broken: Option<String>,
    pub(crate) events: VecDeque<String>,
    /// Of all events so far.
    pub(crate) digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let faults = Faults::any(&mut dice);
        let count = 4 + dice.below(5);
        let isolated = if dice.one_in(4) {
            Mask::one(count - 1)
        } else {
            Mask::NONE
        };
        let is_local = !dice.one_in(3);
        let mut world = Self {
            keeps: !is_local || !dice.one_in(5),
            is_local,
            dice,
            faults,
            calm: false,
            now_ns: 1_000_000_000,
            origin_ns: 0,
            lost_ns: 0,
            connected: true,
            connection: 0,
            count,
            online: Mask::first(count),
            isolated,
            topology: topology(count, Mask::first(count)),
            guests: Vec::new(),
            saved: Vec::new(),
            landing: Vec::new(),
            serial: 0,
            holds: Holds::new(),
            life: None,
            dead: false,
            phase: Phase::Tick,
            terms: Terms::default(),
            shown: BTreeMap::new(),
            last: None,
            stale: false,
            void: false,
            online_shown: Mask::first(count),
            online_before: Mask::first(count),
            attempts: VecDeque::new(),
            attempts_in_tick: 0,
            answered: 0,
            pins: 0,
            most_vcpus: 0,
            tick: 0,
            broken: None,
            events: VecDeque::new(),
            digest: 0xcbf2_9ce4_8422_2325,
        };
        for _ in 0..3 {
            world.create();
        }
        world
    }

    /// Takes note of an event.
    pub(crate) fn tell(&mut self, event: fmt::Arguments<'_>) {
        let mut text = if self.events.len() < SHOWN {
            String::new()
        } else {
            self.events.pop_front().unwrap_or_default()
        };
        text.clear();
        let _ = write!(text, "{} {event}", self.tick);
        // As FNV-1a, in steps of eight bytes.
        for bytes in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.digest = (self.digest ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3);
        }
        self.events.push_back(text);
    }

    /// A law is broken; the first time counts.
    pub(crate) fn breaks(&mut self, law: fmt::Arguments<'_>) {
        if self.broken.is_none() {
            self.broken = Some(law.to_string());
        }
    }

    /// A step of the scheduler's process; `false` if that is dead.
    pub(crate) fn step(&mut self) -> bool {
        if let Some(left) = &mut self.life {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None if !self.dead => {
                    self.dead = true;
                    self.tell(format_args!("killed"));
                }
                None => {}
            }
        }
        !self.dead
    }

    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn place(&self, key: &VcpuKey) -> Option<(usize, usize)> {
        let guest = self
            .guests
            .iter()
            .position(|guest| guest.key() == key.domain_key())?;
        let vcpus = &self.guests[guest].vcpus;
        Some((guest, vcpus.iter().position(|vcpu| vcpu.number == key.number)?))
    }

    /// The entry by which a new process would find a vCPU in the journal again.
    pub(crate) fn entry(&self, guest: &Guest, number: u32) -> Option<&Entry> {
        let token = guest.keepsake.as_ref().map(|keepsake| &*keepsake.token.0);
        self.holds.values().find(|entry| {
            let is_run = self.is_local && entry.run.as_deref() == Some(&*guest.incarnation.0);
            entry.domain == guest.uuid
                && entry.vcpu == number
                && (is_run || token == Some(entry.token.as_str()))
        })
    }

    pub(crate) fn is_on_record(&self, guest: &Guest, number: u32) -> bool {
        let kept = guest.keepsake.as_ref();
        kept.is_some_and(|keepsake| keepsake.vcpus.contains_key(&number))
            || self.entry(guest, number).is_some()
    }

    /// The journal says what is about to be asked for.
    pub(crate) fn intended(&mut self, entry: &Entry) {
        let is_local = self.is_local;
        for guest in self.guests.iter_mut().filter(|guest| guest.uuid == entry.domain) {
            let token = guest.keepsake.as_ref().map(|keepsake| &*keepsake.token.0);
            let is_run = is_local && entry.run.as_deref() == Some(&*guest.incarnation.0);
            if !is_run && token != Some(entry.token.as_str()) {
                continue;
            }
            if let Some(vcpu) = guest.all_vcpus_mut().find(|vcpu| vcpu.number == entry.vcpu) {
                vcpu.journalled = entry.asked.iter().filter_map(Mask::of).collect();
            }
        }
    }

    /// The scheduler reads an affinity just before it acts. What that is for good is for the next sample to say, which also
    /// shows which CPUs are online.
    pub(crate) fn read_back(&mut self, guest: usize, vcpu: usize) {
        let before = self.guests[guest].vcpus[vcpu].clone();
        let (online, shown) = (self.online, self.online_shown);
        self.look(guest, vcpu);
        let now = &mut self.guests[guest].vcpus[vcpu];
        let read = now.noticed && !before.noticed;
        let given_back =
            self.phase == Phase::Restore && before.setter == Setter::Us && now.has_original([online, shown]);
        let setter = if given_back { Setter::Found } else { before.setter };
        *now = Vcpu {
            read: true,
            found: now.mask,
            taken: read,
            setter,
            ..before
        };
    }

    /// What a sample shows of a vCPU.
    pub(crate) fn look(&mut self, guest: usize, vcpu: usize) {
        let terms = &self.terms;
        let (online, shown, before) = (self.online, self.online_shown, self.online_before);
        let is_managed = self.is_managed(guest);
        let guest = &mut self.guests[guest];
        let inherited = guest.inherited(guest.vcpus[vcpu].number, online);
        let vcpu = &mut guest.vcpus[vcpu];
        let is_free = matches!(vcpu.setter, Setter::Hand | Setter::Unclear) && !vcpu.noticed;
        if !is_managed && !vcpu.touched && is_free {
            // What it has counts as found, unless something was recorded of it.
            (vcpu.setter, vcpu.vague, vcpu.uncertain) = (Setter::Unclear, true, true);
        }
        vcpu.look(terms, inherited, [online, shown, before]);
    }

    /// What the scheduler knew of a vCPU by memory alone is lost; `certain` if it surely is.
    pub(crate) fn forget(&mut self, guest: usize, certain: bool) {
        for out in self.guests[guest].unplugged.values_mut() {
            out.samples = 0;
        }
        let of = &self.guests[guest];
        let plugged = of.vcpus.iter().map(|vcpu| vcpu.number);
        let numbers = plugged.chain(of.unplugged.keys().copied());
        let on_record: BTreeSet<u32> = numbers.filter(|&number| self.is_on_record(of, number)).collect();
        for vcpu in self.guests[guest].all_vcpus_mut() {
            vcpu.attempted = None;
            if vcpu.widened.is_some() && vcpu.noticed {
                (vcpu.setter, vcpu.noticed) = (Setter::Unclear, false);
            }
            if !on_record.contains(&vcpu.number) || !certain {
                vcpu.forget(certain);
            }
        }
    }

    /// The policy is shown a snapshot; says whether it is to behave.
    pub(crate) fn look_at_snapshot(&mut self, snapshot: &Snapshot<'_>) -> bool {
        let most = self.most_vcpus;
        for vcpu in snapshot.vcpus() {
            if vcpu.slot() > 2 * most {
                let slot = vcpu.slot();
                self.breaks(format_args!(
                    "11 memory: slot {slot} with never more than {most} vCPUs"
                ));
            }
        }
        self.calm
    }
}

pub(crate) fn topology(count: u32, online: Mask) -> Arc<Topology> {
    let mut sites = uniform_sites(1, 1, count, 1);
    for site in &mut sites {
        site.online = online.has(site.os_id.0);
    }
    Arc::new(Topology::new(sites, &Distances::new()).expect("a CPU is online"))
}

impl World {
    /// A new process begins: what the one before knew by memory alone is lost.
    pub(crate) fn begin_process(&mut self, is_dry: bool) {
        self.land(None);
        self.tell(format_args!("a process begins, {} records", self.holds.len()));
        self.dead = false;
        self.life = None;
        self.phase = if is_dry { Phase::Dry } else { Phase::Tick };
        self.attempts_in_tick = 0;
        self.answered = 0;
        self.connected = true;
        self.connection += 1;
        self.last = None;
        self.stale = false;
        self.void();
        self.attempts.clear();
        self.online_shown = self.online;
        self.laws_of_a_tick();
        for guest in 0..self.guests.len() {
            self.forget(guest, true);
        }
    }

    /// The moment comes for which the scheduler has waited, and a tick begins: in time, or late.
    pub(crate) fn begin_tick(&mut self, moment_ns: u64) {
        self.tick += 1;
        self.attempts_in_tick = 0;
        let late_ns = u64::from(self.dice.below(200)) * 1_000_000;
        let very_late_ns = if self.dice.one_in(50) {
            u64::from(self.dice.below(8)) * 1_000_000_000
        } else {
            0
        };
        self.now_ns = self.now_ns.max(moment_ns) + late_ns + very_late_ns;
        for vcpu in self.guests.iter_mut().flat_map(|guest| &mut guest.vcpus) {
            vcpu.read = false;
        }
        self.churn();
        if self.dice.one_in(self.faults.death) {
            self.life = Some(self.dice.below(40));
        }
    }

    /// No fault happens from now on.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        self.faults = Faults::NONE;
        self.life = None;
        self.land(None);
        self.add_a_fresh_guest();
    }

    /// A guest that may be anywhere and is nobody's business but the scheduler's.
    pub(crate) fn add_a_fresh_guest(&mut self) {
        if self.online.0.count_ones() < 2 {
            let all = Mask::first(self.count);
            self.put_online(all, all, false);
        }
        self.guests.retain(|guest| guest.uuid.0[0] != 99);
        let serial = self.serial();
        self.guests.push(Guest {
            uuid: DomainUuid([99; 16]),
            name: "fresh".into(),
            instance: Instance(serial),
            incarnation: Incarnation(format!("run-{serial}").into()),
            definition: Arc::default(),
            keepsake: None,
            vcpus: vec![Vcpu::new(0, self.online)],
            unplugged: BTreeMap::new(),
            refuses: false,
            bare: false,
            was_managed: false,
            obstinate: None,
        });
    }
}
