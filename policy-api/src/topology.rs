//! The shape of a host: which pCPUs it has, and what they share.
//!
//! In goes one [`CpuSite`] a pCPU, in any order, with labels as the source of the facts had them (a kernel's core
//! number, a file's). Out comes a [`Topology`] of dense tables that refer to each other by index.
//!
//! Promises:
//! - Rows are in ascending order of the kernel's CPU number; cores and caches in the order of their first CPU; nodes
//!   in the order of the kernel's node number. The order of the input does not matter.
//! - Only online CPUs have a row. Offline ones are remembered by number alone.
//! - Cores and caches nest in nodes: a cache that two nodes share becomes one row in each, since what matters for
//!   placement is which CPUs share it *and* reach memory alike.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::cpuset::{CpuSet, OsCpuSet};
use crate::ids::{CoreIx, CpuIx, Index, LlcIx, NodeIx, OsCpuId};

/// What one pCPU delivers at most, in percent of a pCPU, where nothing else is known.
pub const FULL_CAPACITY: f64 = 100.0;

/// What is known about one pCPU before the host is put together.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuSite {
    /// The kernel's number.
    pub os_id: OsCpuId,
    /// The kernel's number of the NUMA node.
    pub node: u32,
    /// CPUs of one node with the same label share a last-level cache.
    pub llc: u32,
    /// CPUs of one node and cache with the same label are SMT siblings.
    pub core: u32,
    /// Whether the kernel schedules on it.
    pub online: bool,
    /// What it delivers at most, in percent of a nominal pCPU.
    pub capacity: f64,
}

/// An online pCPU and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Cpu {
    /// The kernel's number.
    pub os_id: OsCpuId,
    /// Its core.
    pub core: CoreIx,
    /// Its last-level cache.
    pub llc: LlcIx,
    /// Its NUMA node.
    pub node: NodeIx,
    /// What it delivers at most, in percent of a nominal pCPU.
    pub capacity: f64,
}

/// A core: SMT siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// The cache it belongs to.
    pub llc: LlcIx,
    /// The node it belongs to.
    pub node: NodeIx,
    /// Its online CPUs.
    pub cpus: CpuSet,
}

/// CPUs of one node that share a last-level cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Llc {
    /// The node it belongs to.
    pub node: NodeIx,
    /// Its online CPUs.
    pub cpus: CpuSet,
}

/// A NUMA node with at least one online CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The kernel's number.
    pub os_id: u32,
    /// Its online CPUs.
    pub cpus: CpuSet,
}

/// The distances between nodes by the kernel's node numbers: `(from, to) -> distance`.
pub type Distances = BTreeMap<(u32, u32), u32>;

/// What a node's own memory costs by the ACPI convention (SLIT); other distances are relative to it.
pub const LOCAL_DISTANCE: u32 = 10;
/// The distance between two nodes where the host states none: the ACPI convention for "another node".
pub const REMOTE_DISTANCE: u32 = 20;

/// The most online CPUs of a host: as many as Linux is built for on any architecture. The tables of a host grow with their
/// square, so that a larger number in a file would ask for gigabytes.
pub const MAX_CPUS: usize = 8192;
/// The most NUMA nodes with an online CPU of a host, of which the same is true.
pub const MAX_NODES: usize = 1024;

/// A host's pCPUs and what they share.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    cpus: Vec<Cpu>,
    cores: Vec<Core>,
    llcs: Vec<Llc>,
    nodes: Vec<Node>,
    offline: OsCpuSet,
    /// Row-major, `nodes` x `nodes`.
    distances: Vec<u32>,
}

/// Why a set of CPUs is not a host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopologyError {
    /// There is nowhere to run.
    #[error("the host has no online CPU")]
    NoOnlineCpu,
    /// Two CPUs claim the same number.
    #[error("CPU {cpu} is listed twice")]
    DuplicateCpu {
        /// The kernel's number.
        cpu: OsCpuId,
    },
    /// More CPUs are online than any kernel knows.
    #[error("the host has {count} online CPUs; expected {MAX_CPUS} at most")]
    TooManyCpus {
        /// How many.
        count: usize,
    },
    /// There are more NUMA nodes than any kernel knows.
    #[error("the host has {count} NUMA nodes; expected {MAX_NODES} at most")]
    TooManyNodes {
        /// How many.
        count: usize,
    },
}

impl Topology {
    /// Puts a host together.
    ///
    /// Distances that are not stated are [`LOCAL_DISTANCE`] within a node and [`REMOTE_DISTANCE`] between two.
    ///
    /// # Errors
    /// If no CPU is online, one is listed twice, or there are more CPUs or nodes than any host has.
    pub fn new(mut sites: Vec<CpuSite>, stated: &Distances) -> Result<Self, TopologyError> {
        sites.sort_by_key(|site| site.os_id);
        if let Some(pair) = sites.windows(2).find(|pair| pair[0].os_id == pair[1].os_id) {
            return Err(TopologyError::DuplicateCpu { cpu: pair[0].os_id });
        }
        let offline = sites
            .iter()
            .filter(|site| !site.online)
            .map(|site| site.os_id)
            .collect();
        sites.retain(|site| site.online);
        if sites.is_empty() {
            return Err(TopologyError::NoOnlineCpu);
        }
        if sites.len() > MAX_CPUS {
            return Err(TopologyError::TooManyCpus { count: sites.len() });
        }

        let mut node_ids: Vec<u32> = sites.iter().map(|site| site.node).collect();
        node_ids.sort_unstable();
        node_ids.dedup();
        if node_ids.len() > MAX_NODES {
            return Err(TopologyError::TooManyNodes {
                count: node_ids.len(),
            });
        }
        let mut nodes: Vec<Node> = node_ids
            .iter()
            .map(|&os_id| Node {
                os_id,
                cpus: CpuSet::new(),
            })
            .collect();
        let node_by_id: BTreeMap<u32, NodeIx> = node_ids
            .iter()
            .copied()
            .zip(crate::ids::indexes(nodes.len()))
            .collect();

        let mut llcs: Vec<Llc> = Vec::new();
        let mut cores: Vec<Core> = Vec::new();
        let mut llc_by_label: BTreeMap<(u32, u32), LlcIx> = BTreeMap::new();
        let mut core_by_label: BTreeMap<(u32, u32, u32), CoreIx> = BTreeMap::new();
        let mut cpus = Vec::with_capacity(sites.len());
        for (site, ix) in sites.iter().zip(crate::ids::indexes::<CpuIx>(sites.len())) {
            let node = node_by_id[&site.node];
            let llc = *llc_by_label.entry((site.node, site.llc)).or_insert_with(|| {
                llcs.push(Llc {
                    node,
                    cpus: CpuSet::new(),
                });
                last_index(&llcs)
            });
            let core = *core_by_label
                .entry((site.node, site.llc, site.core))
                .or_insert_with(|| {
                    cores.push(Core {
                        llc,
                        node,
                        cpus: CpuSet::new(),
                    });
                    last_index(&cores)
                });
            nodes[node.index()].cpus.insert(ix);
            llcs[llc.index()].cpus.insert(ix);
            cores[core.index()].cpus.insert(ix);
            cpus.push(Cpu {
                os_id: site.os_id,
                core,
                llc,
                node,
                capacity: site.capacity,
            });
        }

        let distances = node_ids
            .iter()
            .flat_map(|&from| node_ids.iter().map(move |&to| (from, to)))
            .map(|(from, to)| {
                let unstated = if from == to {
                    LOCAL_DISTANCE
                } else {
                    REMOTE_DISTANCE
                };
                stated.get(&(from, to)).copied().unwrap_or(unstated)
            })
            .collect();
        Ok(Self {
            cpus,
            cores,
            llcs,
            nodes,
            offline,
            distances,
        })
    }

    /// A host of `nodes` x `llcs` x `cores` x `threads`, all online and of full capacity, numbered in that order:
    /// the threads of a core are neighbours, then come the cores of a cache, and so on.
    ///
    /// # Errors
    /// If one of the counts is 0, or all together are more than any host has.
    pub fn uniform(nodes: u32, llcs: u32, cores: u32, threads: u32) -> Result<Self, TopologyError> {
        Self::new(uniform_sites(nodes, llcs, cores, threads), &Distances::new())
    }

    /// The online CPUs in ascending order of their numbers.
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// The cores, in the order of their first CPU.
    pub fn cores(&self) -> &[Core] {
        &self.cores
    }

    /// The last-level caches, in the order of their first CPU.
    pub fn llcs(&self) -> &[Llc] {
        &self.llcs
    }

    /// The NUMA nodes that have an online CPU, in the order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The numbers of the CPUs that are there but not online.
    pub fn offline(&self) -> &OsCpuSet {
        &self.offline
    }

    /// The numbers of the online CPUs.
    pub fn online(&self) -> OsCpuSet {
        self.cpus.iter().map(|cpu| cpu.os_id).collect()
    }

    /// The distance from a node to another; [`LOCAL_DISTANCE`] is a node's own memory.
    ///
    /// # Panics
    /// If a node is not of this topology.
    pub fn distance(&self, from: NodeIx, to: NodeIx) -> u32 {
        self.distances[from.index() * self.nodes.len() + to.index()]
    }

    /// The row of the CPU with this number, if it is online.
    pub fn cpu_by_os_id(&self, os_id: OsCpuId) -> Option<CpuIx> {
        self.cpus
            .binary_search_by_key(&os_id, |cpu| cpu.os_id)
            .ok()
            .and_then(CpuIx::from_index)
    }

    /// Whether the host has a CPU of this number, online or not.
    pub fn is_present(&self, os_id: OsCpuId) -> bool {
        self.cpu_by_os_id(os_id).is_some() || self.offline.contains(os_id)
    }

    /// The online members of a set of kernel numbers, as rows.
    pub fn rows(&self, set: &OsCpuSet) -> CpuSet {
        set.iter().filter_map(|os_id| self.cpu_by_os_id(os_id)).collect()
    }

    /// The kernel numbers of a set of rows.
    pub fn os_ids(&self, set: crate::cpuset::CpuSetRef<'_>) -> OsCpuSet {
        set.iter()
            .filter_map(|ix| self.cpus.get(ix.index()))
            .map(|cpu| cpu.os_id)
            .collect()
    }
}

/// The CPUs of a regular host; see [`Topology::uniform`].
pub fn uniform_sites(nodes: u32, llcs: u32, cores: u32, threads: u32) -> Vec<CpuSite> {
    let cpus = 0..nodes * llcs * cores * threads;
    cpus.map(|cpu| {
        let (core, llc) = (cpu / threads, cpu / threads / cores);
        CpuSite {
            os_id: OsCpuId(cpu),
            node: llc / llcs,
            llc,
            core,
            online: true,
            capacity: FULL_CAPACITY,
        }
    })
    .collect()
}

fn last_index<T, I: Index>(rows: &[T]) -> I {
    I::from_index(rows.len() - 1).expect("a host has fewer rows than an index can count")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(cpu: u32, node: u32, llc: u32, core: u32) -> CpuSite {
        CpuSite {
            os_id: OsCpuId(cpu),
            node,
            llc,
            core,
            online: true,
            capacity: FULL_CAPACITY,
        }
    }

    #[test]
    fn a_uniform_host_nests() {
        let host = Topology::uniform(2, 2, 2, 2).expect("valid");
        assert_eq!(
            (
                host.nodes().len(),
                host.llcs().len(),
                host.cores().len(),
                host.cpus().len()
            ),
            (2, 4, 8, 16)
        );
        assert_eq!(host.os_ids(host.nodes()[1].cpus.as_ref()).to_string(), "8-15");
        assert_eq!(host.os_ids(host.cores()[1].cpus.as_ref()).to_string(), "2-3");
        assert_eq!(host.distance(NodeIx(0), NodeIx(0)), LOCAL_DISTANCE);
        assert_eq!(host.distance(NodeIx(0), NodeIx(1)), REMOTE_DISTANCE);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter() {
        let mut sites = vec![
            site(5, 1, 0, 0),
            site(1, 0, 0, 0),
            site(4, 1, 0, 0),
            site(0, 0, 0, 0),
        ];
        let forward = Topology::new(sites.clone(), &Distances::new());
        sites.reverse();
        assert_eq!(forward, Topology::new(sites, &Distances::new()));
    }

    #[test]
    fn offline_cpus_leave_gaps_in_numbers_only() {
        let mut sites: Vec<CpuSite> = (0..4).map(|cpu| site(cpu, 0, 0, cpu)).collect();
        sites[1].online = false;
        let host = Topology::new(sites, &Distances::new()).expect("valid");
        assert_eq!(host.cpu_by_os_id(OsCpuId(2)), Some(CpuIx(1)));
        assert_eq!(host.cpu_by_os_id(OsCpuId(1)), None);
        assert!(host.is_present(OsCpuId(1)) && !host.is_present(OsCpuId(4)));
        assert_eq!(host.online().to_string(), "0,2-3");
    }

    #[test]
    fn a_cache_across_two_nodes_becomes_one_row_in_each() {
        let host = Topology::new(vec![site(0, 0, 0, 0), site(1, 1, 0, 0)], &Distances::new()).expect("valid");
        assert_eq!((host.llcs().len(), host.cores().len()), (2, 2));
    }

    #[test]
    fn impossible_hosts_are_refused() {
        let twice = vec![site(3, 0, 0, 0), site(3, 0, 0, 1)];
        assert_eq!(
            Topology::new(twice, &Distances::new()),
            Err(TopologyError::DuplicateCpu { cpu: OsCpuId(3) })
        );
        assert_eq!(Topology::uniform(1, 1, 0, 1), Err(TopologyError::NoOnlineCpu));
        assert_eq!(
            Topology::uniform(1, 1, 8193, 1),
            Err(TopologyError::TooManyCpus { count: 8193 })
        );
        assert_eq!(
            Topology::uniform(1025, 1, 1, 1),
            Err(TopologyError::TooManyNodes { count: 1025 })
        );
        assert!(Topology::uniform(1024, 1, 4, 2).is_ok());
    }
}
