//! What is remembered of domains and vCPUs from sample to sample.

use std::sync::Arc;

use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::ids::{Index, NodeIx};
use vcpu_policy_api::topology::Topology;

use super::aside::Aside;
use crate::engine::constraints::Constraints;
use crate::host::{Definition, DomainSample, Sample, VcpuSample};

/// The pCPUs, those among them that count, and what binds the placement on them.
#[derive(Debug)]
pub(super) struct KnownHost {
    pub(super) topology: Arc<Topology>,
    isolated: OsCpuSet,
    constraints: Arc<Constraints>,
    pub(super) managed: CpuSet,
}

/// A domain that the sample before showed.
#[derive(Debug, Default)]
pub(super) struct TrackedDomain {
    binding: Option<Binding>,
    /// By ascending number.
    pub(super) vcpus: Vec<TrackedVcpu>,
    pub(super) seen: bool,
}

/// What binds a domain, and what that was worked out from.
#[derive(Debug)]
struct Binding {
    host: Arc<KnownHost>,
    name: Arc<str>,
    definition: Arc<Definition>,
    managed: bool,
    memory_node: Option<NodeIx>,
}

/// A vCPU that the sample before showed.
#[derive(Debug)]
pub(super) struct TrackedVcpu {
    pub(super) number: u32,
    pub(super) slot: u32,
    pub(super) born: u64,
    /// The counters of the sample before; `None` if that sample did not show the vCPU, or its counters are void.
    pub(super) counters: Option<Counters>,
    pub(super) placement: Placement,
    pub(super) aside: Aside,
    pub(super) seen: bool,
}

/// In nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    read_at: u64,
    run: u64,
    delay: Option<u64>,
}

/// A vCPU's masks as rows.
#[derive(Debug, Default)]
pub(super) struct Placement {
    stated_affinity: OsCpuSet,
    pub(super) affinity: CpuSet,
    pub(super) allowed: CpuSet,
}

impl KnownHost {
    pub(super) fn new(sample: &Sample, constraints: &Arc<Constraints>) -> Self {
        Self {
            topology: Arc::clone(&sample.topology),
            isolated: sample.isolated.clone(),
            constraints: Arc::clone(constraints),
            managed: constraints.managed(&sample.topology, &sample.isolated),
        }
    }

    /// Whether it is still what a sample shows.
    pub(super) fn is_of(&self, sample: &Sample, constraints: &Arc<Constraints>) -> bool {
        Arc::ptr_eq(&self.topology, &sample.topology)
            && self.isolated == sample.isolated
            && Arc::ptr_eq(&self.constraints, constraints)
    }

    fn node(&self, os_id: u32) -> Option<NodeIx> {
        let mut nodes = self.topology.nodes().iter();
        nodes
            .position(|node| node.os_id == os_id)
            .and_then(NodeIx::from_index)
    }
}

impl TrackedDomain {
    /// Works out anew what binds the domain and where its vCPUs may be, if anything has changed that this depends on.
    pub(super) fn refresh(&mut self, host: &Arc<KnownHost>, domain: &DomainSample) -> Bound {
        let current = self.binding.as_ref().filter(|binding| {
            Arc::ptr_eq(&binding.host, host)
                && Arc::ptr_eq(&binding.definition, &domain.definition)
                && binding.name == domain.name
        });
        let changed = current.is_none();
        if changed {
            let definition = &domain.definition;
            let standing = host.constraints.of_domain(&domain.name, domain.uuid, definition);
            self.binding = Some(Binding {
                host: Arc::clone(host),
                name: Arc::clone(&domain.name),
                definition: Arc::clone(definition),
                managed: standing.management().is_managed(),
                memory_node: definition.memory_node.and_then(|node| host.node(node)),
            });
        }
        let binding = self.binding.as_ref();
        Bound {
            changed,
            managed: binding.is_some_and(|binding| binding.managed),
            memory_node: binding.and_then(|binding| binding.memory_node),
        }
    }
}

/// What binds a domain in a tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Whether that is not what it was in the tick before.
    pub(super) changed: bool,
    pub(super) managed: bool,
    pub(super) memory_node: Option<NodeIx>,
}

impl TrackedVcpu {
    /// Load and wait since the sample before, in percent; takes the new counters for the next time.
    pub(super) fn measure(&mut self, now: &VcpuSample) -> (Option<f64>, Option<f64>) {
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
    /// Works the masks out anew if what they are made of is not what it was: the affinity as stated, or what
    /// [binds the domain](Bound::changed).
    pub(super) fn refresh(
        &mut self,
        host: &KnownHost,
        domain: &DomainSample,
        vcpu: &VcpuSample,
        bound: Bound,
    ) {
        if bound.changed || self.stated_affinity != vcpu.affinity {
            *self = Self::new(host, domain, vcpu);
        }
    }

    pub(super) fn new(host: &KnownHost, domain: &DomainSample, vcpu: &VcpuSample) -> Self {
        let mut affinity = host.topology.rows(&vcpu.affinity);
        if affinity.is_empty() {
            // The kernel lets a thread run anywhere when all CPUs of its mask are offline.
            affinity = CpuSet::first(host.topology.cpus().len());
        }
        let definition = &domain.definition;
        let standing = host.constraints.of_domain(&domain.name, domain.uuid, definition);
        Self {
            stated_affinity: vcpu.affinity.clone(),
            affinity,
            allowed: standing.allowed(&host.topology, &host.managed, vcpu.number),
        }
    }
}
