//! From two samples to a snapshot.
//!
//! In goes one [`Sample`] after another; out comes, from the second one on, what happened between the last two, as a
//! [`Snapshot`] for the policy. The function is pure: it knows only the samples it was given.
//!
//! Rules:
//! - Load is run time over elapsed time, both from the counters' own reading times; wait is delay over elapsed time.
//! - A vCPU has no load, and may not be moved, in the first snapshot that shows it; nor when a counter went backwards,
//!   nor after a gap. It is then measured from here on.
//! - A load counts on the only CPU of the affinity, else on the CPU last run on.
//! - A vCPU that the host refused to pin is not movable for a while.
//! - Each vCPU has a slot of its own as long as it lives; a slot is given away only after a tick of absence.
//!
//! What does not change from tick to tick (masks, definitions, the topology) is not worked out again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::ids::{Index, NodeIx};
use vcpu_policy_api::snapshot::{DomainEntry, Moment, Snapshot, SnapshotBuilder, SnapshotError, VcpuEntry};
use vcpu_policy_api::topology::Topology;

use super::terms::Terms;
use crate::host::{Definition, DomainSample, DomainUuid, Instance, Sample, VcpuKey, VcpuSample};

/// For how many ticks a vCPU is set aside after the host refused to pin it for the first time.
const FIRST_TIME_ASIDE: u64 = 8;
/// How often that time doubles: up to about a thousand ticks.
const MOST_DOUBLINGS: u32 = 7;

/// A snapshot, and whom its rows stand for.
#[derive(Debug, Clone, Copy)]
pub struct Collected<'a> {
    /// What the policy gets to see.
    pub snapshot: Snapshot<'a>,
    /// The vCPU of each row, indexed by [`vcpu_policy_api::ids::VcpuIx`].
    pub keys: &'a [VcpuKey],
}

/// Turns samples into snapshots; see the [module](self).
#[derive(Debug)]
pub struct Collector {
    terms: Terms,
    builder: SnapshotBuilder,
    keys: Vec<VcpuKey>,
    domains: BTreeMap<(DomainUuid, Instance), TrackedDomain>,
    slots: Slots,
    host: Option<Arc<KnownHost>>,
    /// Intervals since the first sample, also those whose sample is missing.
    tick: u64,
    /// When the sample before was read; `None` if the next one is a baseline.
    previous_ns: Option<u64>,
    /// Whether there was a first sample.
    begun: bool,
}

/// The pCPUs, and those among them that count.
#[derive(Debug)]
struct KnownHost {
    topology: Arc<Topology>,
    managed: CpuSet,
}

#[derive(Debug, Default)]
struct TrackedDomain {
    /// By ascending number.
    vcpus: Vec<TrackedVcpu>,
    seen: bool,
}

#[derive(Debug)]
struct TrackedVcpu {
    number: u32,
    slot: u32,
    born: u64,
    /// The counters of the sample before; `None` if that sample did not show the vCPU, or its counters are void.
    counters: Option<Counters>,
    placement: Placement,
    /// How often in a row the host refused to pin it.
    refusals: u32,
    /// It is not movable in a tick up to this one.
    aside_until: u64,
    seen: bool,
}

/// In nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Counters {
    read_at: u64,
    run: u64,
    delay: Option<u64>,
}

/// A vCPU's masks as rows, and what they were made from.
#[derive(Debug)]
struct Placement {
    stated_affinity: OsCpuSet,
    definition: Arc<Definition>,
    affinity: CpuSet,
    allowed: CpuSet,
}

impl Collector {
    /// A collector that has seen nothing yet.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            builder: SnapshotBuilder::new(),
            keys: Vec::new(),
            domains: BTreeMap::new(),
            slots: Slots::default(),
            host: None,
            tick: 0,
            previous_ns: None,
            begun: false,
        }
    }

    /// Takes note that the sample of this tick is missing. It voids all counters: the next sample is a baseline.
    pub fn interrupt(&mut self) {
        self.tick += u64::from(self.begun);
        self.void_counters();
    }

    /// Takes note that the host refused a pin of this vCPU: it is not movable for a while, which doubles each time.
    pub fn set_aside(&mut self, vcpu: &VcpuKey) {
        let tick = self.tick;
        if let Some(tracked) = self.tracked(vcpu) {
            tracked.aside_until = tick + (FIRST_TIME_ASIDE << tracked.refusals.min(MOST_DOUBLINGS));
            tracked.refusals += 1;
        }
    }

    /// Takes note that the host accepted a pin of this vCPU: earlier refusals are forgotten.
    pub fn forgive(&mut self, vcpu: &VcpuKey) {
        if let Some(tracked) = self.tracked(vcpu) {
            tracked.refusals = 0;
        }
    }

    fn tracked(&mut self, vcpu: &VcpuKey) -> Option<&mut TrackedVcpu> {
        let domain = self.domains.get_mut(&(vcpu.domain, vcpu.instance))?;
        domain
            .vcpus
            .iter_mut()
            .find(|tracked| tracked.number == vcpu.number)
    }

    /// Makes the next sample a baseline.
    pub fn void_counters(&mut self) {
        self.previous_ns = None;
        for tracked in self.domains.values_mut().flat_map(|domain| &mut domain.vcpus) {
            tracked.counters = None;
        }
    }

    /// Takes in a sample; gives the snapshot of the time since the one before, or `None` for a baseline.
    ///
    /// `fresh` says that the policy's state was lost.
    ///
    /// # Errors
    /// If the host said something impossible of itself, such as a capacity that is no number.
    pub fn collect(&mut self, sample: &Sample, fresh: bool) -> Result<Option<Collected<'_>>, SnapshotError> {
        if self.previous_ns.is_some_and(|before| sample.read_at_ns <= before) {
            // Another clock: the host was opened again in between.
            self.void_counters();
        }
        let interval_ns = self.previous_ns.map(|before| sample.read_at_ns - before);
        self.previous_ns = Some(sample.read_at_ns);
        self.tick += u64::from(self.begun);
        self.begun = true;
        let host = self.known_host(&sample.topology);
        let moment = Moment {
            tick: self.tick,
            now_ns: sample.read_at_ns,
            interval_ns: interval_ns.unwrap_or(1),
            seed: self.terms.seed,
            budget: self.terms.limits.moves_per_tick,
            fresh,
        };
        self.builder.begin(&host.topology, host.managed.as_ref(), moment);
        self.keys.clear();
        for domain in &sample.domains {
            let tracked = self.domains.entry((domain.uuid, domain.instance)).or_default();
            let writer = DomainWriter {
                builder: &mut self.builder,
                keys: &mut self.keys,
                host: &host,
                tick: self.tick,
            };
            writer.write(domain, tracked, &mut self.slots);
        }
        self.forget_the_absent();
        match interval_ns {
            None => Ok(None),
            Some(_) => Ok(Some(Collected {
                snapshot: self.builder.finish()?,
                keys: &self.keys,
            })),
        }
    }

    /// The host with this topology; if it is another one than before, masks are worked out anew.
    fn known_host(&mut self, topology: &Arc<Topology>) -> Arc<KnownHost> {
        if let Some(host) = self
            .host
            .as_ref()
            .filter(|host| Arc::ptr_eq(&host.topology, topology))
        {
            return Arc::clone(host);
        }
        let managed = CpuSet::first(topology.cpus().len());
        let host = Arc::new(KnownHost {
            topology: Arc::clone(topology),
            managed,
        });
        for tracked in self.domains.values_mut().flat_map(|domain| &mut domain.vcpus) {
            tracked.placement = Placement::new(
                &host,
                &tracked.placement.definition,
                tracked.number,
                tracked.placement.stated_affinity.clone(),
            );
        }
        self.host = Some(Arc::clone(&host));
        host
    }

    /// Drops what this sample did not show, and lets go of its slots.
    fn forget_the_absent(&mut self) {
        let slots = &mut self.slots;
        self.domains.retain(|_, domain| {
            let domain_seen = std::mem::take(&mut domain.seen);
            domain.vcpus.retain_mut(|vcpu| {
                let seen = std::mem::take(&mut vcpu.seen) && domain_seen;
                if !seen {
                    slots.release(vcpu.slot);
                }
                seen
            });
            domain_seen
        });
        slots.end_tick();
    }
}

/// Writes one domain of a sample into the snapshot.
struct DomainWriter<'a> {
    builder: &'a mut SnapshotBuilder,
    keys: &'a mut Vec<VcpuKey>,
    host: &'a KnownHost,
    tick: u64,
}

impl DomainWriter<'_> {
    fn write(self, domain: &DomainSample, tracked: &mut TrackedDomain, slots: &mut Slots) {
        tracked.seen = true;
        self.builder.domain(DomainEntry {
            name: &domain.name,
            uuid: domain.uuid.0,
            managed: true,
            memory_node: domain
                .definition
                .memory_node
                .and_then(|node| self.host.node(node)),
            weight: domain.definition.weight,
        });
        for vcpu in &domain.vcpus {
            let at = tracked.vcpus.partition_point(|known| known.number < vcpu.number);
            if tracked
                .vcpus
                .get(at)
                .is_none_or(|known| known.number != vcpu.number)
            {
                let placement =
                    Placement::new(self.host, &domain.definition, vcpu.number, vcpu.affinity.clone());
                let slot = slots.take();
                let (number, born) = (vcpu.number, self.tick);
                let first_seen = TrackedVcpu {
                    number,
                    slot,
                    born,
                    counters: None,
                    placement,
                    refusals: 0,
                    aside_until: 0,
                    seen: false,
                };
                tracked.vcpus.insert(at, first_seen);
            }
            let known = &mut tracked.vcpus[at];
            known.seen = true;
            known.placement.refresh(self.host, &domain.definition, vcpu);
            let (load, wait) = known.measure(vcpu);
            let placement = &known.placement;
            let last_cpu = vcpu.last_cpu.and_then(|cpu| self.host.topology.cpu_by_os_id(cpu));
            self.builder.vcpu(&VcpuEntry {
                number: vcpu.number,
                cpu: placement.affinity.as_ref().single().or(last_cpu),
                affinity: placement.affinity.as_ref(),
                allowed: placement.allowed.as_ref(),
                movable: load.is_some() && !placement.allowed.is_empty() && self.tick > known.aside_until,
                slot: known.slot,
                born: known.born,
                load,
                wait,
            });
            self.keys.push(VcpuKey {
                domain: domain.uuid,
                instance: domain.instance,
                number: vcpu.number,
            });
        }
    }
}

impl TrackedVcpu {
    /// Load and wait since the sample before, in percent; takes the new counters for the next time.
    fn measure(&mut self, now: &VcpuSample) -> (Option<f64>, Option<f64>) {
        let current = Counters {
            read_at: now.read_at_ns,
            run: now.run_ns,
            delay: now.delay_ns,
        };
        let Some(before) = self.counters.replace(current) else {
            return (None, None);
        };
        let elapsed = current
            .read_at
            .checked_sub(before.read_at)
            .filter(|&elapsed| elapsed > 0);
        let run = current.run.checked_sub(before.run);
        let delay = match (before.delay, current.delay) {
            (Some(before), Some(now)) => now.checked_sub(before),
            _ => None,
        };
        let percent = |part: Option<u64>| Some(share(part?, elapsed?));
        (percent(run), percent(delay))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 nanoseconds are a hundred days, and no interval is that long"
)]
fn share(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

impl Placement {
    fn new(host: &KnownHost, definition: &Arc<Definition>, number: u32, stated_affinity: OsCpuSet) -> Self {
        let mut affinity = host.topology.rows(&stated_affinity);
        if affinity.is_empty() {
            // The kernel lets a thread run anywhere when all CPUs of its mask are offline.
            affinity = CpuSet::first(host.topology.cpus().len());
        }
        let mut allowed = host.managed.clone();
        if let Some(bound) = definition.cpus_of(number) {
            allowed.intersect(host.topology.rows(bound).as_ref());
        }
        Self {
            stated_affinity,
            definition: Arc::clone(definition),
            affinity,
            allowed,
        }
    }

    fn refresh(&mut self, host: &KnownHost, definition: &Arc<Definition>, vcpu: &VcpuSample) {
        if self.stated_affinity != vcpu.affinity || !Arc::ptr_eq(&self.definition, definition) {
            *self = Self::new(host, definition, vcpu.number, vcpu.affinity.clone());
        }
    }
}

impl KnownHost {
    fn node(&self, os_id: u32) -> Option<NodeIx> {
        self.topology
            .nodes()
            .iter()
            .position(|node| node.os_id == os_id)
            .and_then(NodeIx::from_index)
    }
}

/// Dense numbers for vCPUs: the smallest free one first.
#[derive(Debug, Default)]
struct Slots {
    free: BTreeSet<u32>,
    /// Let go in this tick, free from the next one on.
    released: Vec<u32>,
    next: u32,
}

impl Slots {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn release(&mut self, slot: u32) {
        self.released.push(slot);
    }

    fn end_tick(&mut self) {
        self.free.extend(self.released.drain(..));
    }
}

#[cfg(test)]
mod tests;
