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
//! - Where vCPUs may be pinned, and which pCPUs count, is what the [constraints](super::constraints) say.
//! - A vCPU is movable if its domain is managed, it is allowed somewhere and has a load, and nothing speaks against it for
//!   now: it is not held by the caller's word, is not [cooling down](super::limits), and has not been [set aside](aside)
//!   because it could not be pinned. The budget is the least that the limits leave.
//! - Each vCPU has a slot of its own as long as it lives; a slot is given away only after a tick of absence.
//!
//! What does not change from tick to tick (masks, definitions, the topology, the terms) is not worked out again.

mod aside;
mod slots;
mod tracked;

use std::collections::BTreeMap;
use std::sync::Arc;

use vcpu_policy_api::snapshot::{DomainEntry, Moment, Snapshot, SnapshotBuilder, SnapshotError, VcpuEntry};

use self::aside::Aside;
use self::slots::Slots;
use self::tracked::{KnownHost, Placement, TrackedDomain, TrackedVcpu};
use super::limits::Limiter;
use super::terms::Terms;
use crate::host::{DomainKey, DomainSample, DomainUuid, Instance, Sample, VcpuKey};

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
    limiter: Limiter,
    host: Option<Arc<KnownHost>>,
    /// Intervals since the first sample, also those whose sample is missing.
    tick: u64,
    /// When the sample before was read; `None` if the next one is a baseline.
    previous_ns: Option<u64>,
    /// Over which connection.
    connection: Option<u64>,
    /// Whether there was a first sample.
    begun: bool,
}

impl Collector {
    /// A collector that has seen nothing yet.
    pub fn new(terms: Terms) -> Self {
        Self {
            limiter: Limiter::new(terms.limits),
            terms,
            builder: SnapshotBuilder::new(),
            keys: Vec::new(),
            domains: BTreeMap::new(),
            slots: Slots::default(),
            host: None,
            tick: 0,
            previous_ns: None,
            connection: None,
            begun: false,
        }
    }

    /// What holds.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// From the next sample on other terms hold. Nothing else is forgotten: not the counters, and not what was tried.
    pub fn set_terms(&mut self, terms: Terms) {
        self.limiter.set_limits(terms.limits);
        self.terms = terms;
    }

    /// Takes note that the sample of this tick is missing. It voids all counters: the next sample is a baseline.
    pub fn interrupt(&mut self) {
        self.tick += u64::from(self.begun);
        self.void_counters();
    }

    /// Takes note that a pin of this vCPU was tried in this tick, whatever became of it.
    pub fn tried(&mut self, vcpu: &VcpuKey) {
        self.limiter.attempt(*vcpu);
    }

    /// Takes note that the host refused a pin of this vCPU: it is not movable for a while, which doubles each time. Says
    /// whether it is the first time in a row.
    pub fn refused(&mut self, vcpu: &VcpuKey) -> bool {
        let tick = self.tick;
        let tracked = self.tracked(vcpu);
        tracked.is_some_and(|tracked| tracked.aside.refused(tick))
    }

    /// Takes note that this vCPU was busy: if that goes on, it is not movable for a while. Says whether that begins now.
    pub fn busy(&mut self, vcpu: &VcpuKey) -> bool {
        let tick = self.tick;
        let tracked = self.tracked(vcpu);
        tracked.is_some_and(|tracked| tracked.aside.busy(tick))
    }

    /// Takes note that the host accepted a pin of this vCPU: earlier failures are forgotten.
    pub fn forgive(&mut self, vcpu: &VcpuKey) {
        if let Some(tracked) = self.tracked(vcpu) {
            tracked.aside.forgive();
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
    /// `fresh` says that the policy's state was lost, `holds` of which vCPUs are to be left alone.
    ///
    /// # Errors
    /// If the host said something impossible of itself, such as a capacity that is no number.
    pub fn collect(
        &mut self,
        sample: &Sample,
        fresh: bool,
        holds: &dyn Fn(&VcpuKey) -> bool,
    ) -> Result<Option<Collected<'_>>, SnapshotError> {
        let is_reopened = self.connection.replace(sample.connection) != Some(sample.connection);
        if is_reopened || self.previous_ns.is_some_and(|before| sample.read_at_ns <= before) {
            // Another clock, or none that can be believed.
            self.void_counters();
        }
        let interval_ns = self.previous_ns.map(|before| sample.read_at_ns - before);
        self.previous_ns = Some(sample.read_at_ns);
        self.tick += u64::from(self.begun);
        self.begun = true;
        self.limiter.begin_tick(sample.read_at_ns);
        let host = self.known_host(sample);
        let moment = Moment {
            tick: self.tick,
            now_ns: sample.read_at_ns,
            interval_ns: interval_ns.unwrap_or(1),
            seed: self.terms.seed,
            budget: self.limiter.budget(),
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
                limiter: &self.limiter,
                holds,
            };
            writer.write(domain, tracked, &mut self.slots);
        }
        self.forget_the_absent(sample);
        match interval_ns {
            None => Ok(None),
            Some(_) => Ok(Some(Collected {
                snapshot: self.builder.finish()?,
                keys: &self.keys,
            })),
        }
    }

    /// The host that a sample shows. Where it is another one than before, so is what was worked out for it.
    fn known_host(&mut self, sample: &Sample) -> Arc<KnownHost> {
        let constraints = &self.terms.constraints;
        let known = self.host.take().filter(|host| host.is_of(sample, constraints));
        let host = known.unwrap_or_else(|| Arc::new(KnownHost::new(sample, constraints)));
        self.host = Some(Arc::clone(&host));
        host
    }

    /// Drops what this sample did not show, and lets go of its slots. What could not be read is still there: it keeps its
    /// slots, and what is known of its pins.
    fn forget_the_absent(&mut self, sample: &Sample) {
        let (slots, limiter) = (&mut self.slots, &mut self.limiter);
        self.domains.retain(|&(domain, instance), tracked| {
            let domain_seen = std::mem::take(&mut tracked.seen);
            let key = DomainKey {
                uuid: domain,
                instance,
            };
            if !domain_seen && sample.unread.contains(&key) {
                tracked.vcpus.iter_mut().for_each(|vcpu| vcpu.counters = None);
                return true;
            }
            tracked.vcpus.retain_mut(|vcpu| {
                let seen = std::mem::take(&mut vcpu.seen) && domain_seen;
                if !seen {
                    slots.release(vcpu.slot);
                    limiter.forget(&VcpuKey {
                        domain,
                        instance,
                        number: vcpu.number,
                    });
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
    host: &'a Arc<KnownHost>,
    tick: u64,
    limiter: &'a Limiter,
    holds: &'a dyn Fn(&VcpuKey) -> bool,
}

impl DomainWriter<'_> {
    fn write(self, domain: &DomainSample, tracked: &mut TrackedDomain, slots: &mut Slots) {
        tracked.seen = true;
        let bound = tracked.refresh(self.host, domain);
        self.builder.domain(DomainEntry {
            name: &domain.name,
            uuid: domain.uuid.0,
            managed: bound.managed,
            memory_node: bound.memory_node,
            weight: domain.definition.weight,
        });
        for vcpu in &domain.vcpus {
            let vcpus = &mut tracked.vcpus;
            let at = vcpus.partition_point(|known| known.number < vcpu.number);
            if vcpus.get(at).is_none_or(|known| known.number != vcpu.number) {
                let first_seen = TrackedVcpu {
                    number: vcpu.number,
                    slot: slots.take(),
                    born: self.tick,
                    counters: None,
                    placement: Placement::new(self.host, domain, vcpu),
                    aside: Aside::default(),
                    seen: false,
                };
                vcpus.insert(at, first_seen);
            }
            let known = &mut vcpus[at];
            known.seen = true;
            known.placement.refresh(self.host, domain, vcpu, bound);
            let (load, wait) = known.measure(vcpu);
            let placement = &known.placement;
            let last_cpu = vcpu.last_cpu.and_then(|cpu| self.host.topology.cpu_by_os_id(cpu));
            let key = domain.key().vcpu(vcpu.number);
            let movable = bound.managed
                && load.is_some()
                && !placement.allowed.is_empty()
                && !known.aside.holds(self.tick)
                && !self.limiter.is_cooling(&key)
                && !(self.holds)(&key);
            self.builder.vcpu(&VcpuEntry {
                number: vcpu.number,
                cpu: placement.affinity.as_ref().single().or(last_cpu),
                affinity: placement.affinity.as_ref(),
                allowed: placement.allowed.as_ref(),
                movable,
                slot: known.slot,
                born: known.born,
                load,
                wait,
            });
            self.keys.push(key);
        }
    }
}

#[cfg(test)]
mod tests;
