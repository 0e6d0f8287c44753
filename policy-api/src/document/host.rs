//! The shape of a host in a file, in one of three forms:
//!
//! ```yaml
//! topology: {cpus: 4}
//! topology: {nodes: 2, llcs-per-node: 1, cores-per-llc: 4, threads-per-core: 2}
//! topology: {cpus: [{cpu: 0, node: 0, llc: 0, core: 0, online: true, capacity: 100}, …], distances: [[10, 20], [20, 10]]}
//! ```
//!
//! The first two number their CPUs from 0, neighbours sharing most. In the third, labels of caches and cores are any
//! numbers that tell them apart within their node; where they are left out, the CPUs of a node share one cache and each
//! is a core of its own.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Percent;
use crate::cpuset::MAX_OS_CPU;
use crate::ids::{Index, NodeIx, OsCpuId};
use crate::snapshot::Snapshot;
use crate::topology::{
    CpuSite, Distances, FULL_CAPACITY, LOCAL_DISTANCE, MAX_CPUS, REMOTE_DISTANCE, Topology, TopologyError,
    uniform_sites,
};

/// A host's shape as a file states it. See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    llcs_per_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cores_per_llc: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads_per_core: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<Cpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distances: Option<Vec<Vec<u32>>>,
}

/// The same keys before they are held against each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Fields {
    nodes: Option<u32>,
    llcs_per_node: Option<u32>,
    cores_per_llc: Option<u32>,
    threads_per_core: Option<u32>,
    cpus: Option<Cpus>,
    distances: Option<Vec<Vec<u32>>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Cpus {
    Count(u32),
    List(Vec<CpuDocument>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a CPU such as {cpu: 0, node: 0, llc: 0, core: 0}"
)]
struct CpuDocument {
    cpu: u32,
    #[serde(default)]
    node: u32,
    #[serde(default)]
    llc: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    core: Option<u32>,
    #[serde(default = "super::form::yes", skip_serializing_if = "super::form::is_yes")]
    online: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capacity: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    background: Option<Percent>,
}

/// Hand-written, so that a mistake inside a list keeps its line.
impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrList;
        impl<'de> Visitor<'de> for CountOrList {
            type Value = Cpus;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of CPUs, or a list such as [{cpu: 0, node: 0, llc: 0, core: 0}, …]")
            }
            fn visit_u64<E: Error>(self, count: u64) -> Result<Cpus, E> {
                u32::try_from(count)
                    .map(Cpus::Count)
                    .map_err(|_| E::custom("too many CPUs"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cpus, A::Error> {
                let mut cpus = Vec::new();
                while let Some(cpu) = list.next_element()? {
                    cpus.push(cpu);
                }
                Ok(Cpus::List(cpus))
            }
        }
        deserializer.deserialize_any(CountOrList)
    }
}

/// Hand-written, so that keys that do not agree are located where the topology is.
impl<'de> Deserialize<'de> for HostShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = HostShape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(FORMS)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HostShape, A::Error> {
                let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                HostShape::try_from(fields).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Shape)
    }
}

/// The forms that a topology may have.
const FORMS: &str =
    "{cpus: N}, {cpus: [{cpu: 0, …}, …]} or {nodes, llcs-per-node, cores-per-llc, threads-per-core}";

impl TryFrom<Fields> for HostShape {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields {
            nodes,
            llcs_per_node,
            cores_per_llc,
            threads_per_core,
            cpus,
            distances,
        } = fields;
        let shape = Self {
            nodes,
            llcs_per_node,
            cores_per_llc,
            threads_per_core,
            cpus,
            distances,
        };
        let counts = [
            ("nodes", nodes),
            ("llcs-per-node", llcs_per_node),
            ("cores-per-llc", cores_per_llc),
            ("threads-per-core", threads_per_core),
        ];
        let stated: Vec<&str> = counts
            .iter()
            .filter(|(_, count)| count.is_some())
            .map(|(name, _)| *name)
            .collect();
        match (&shape.cpus, stated.as_slice()) {
            (Some(_), [name, ..]) => {
                return Err(format!(
                    "cpus and {name} exclude each other; expected one or the other"
                ));
            }
            (None, []) => {
                return Err(format!("it is empty; expected {FORMS}"));
            }
            _ => {}
        }
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(format!("{name} is 0; expected 1 or more"));
        }
        let total = match &shape.cpus {
            Some(Cpus::Count(count)) => u64::from(*count),
            Some(Cpus::List(list)) => list.iter().map(|cpu| u64::from(cpu.cpu) + 1).max().unwrap_or(0),
            None => counts.iter().fold(1, |total, (_, count)| {
                u64::from(count.unwrap_or(1)).saturating_mul(total)
            }),
        };
        if total == 0 {
            return Err("the host has no CPU; expected one or more".to_owned());
        }
        if matches!(shape.cpus, Some(Cpus::List(_))) && total > u64::from(MAX_OS_CPU) + 1 {
            return Err(format!(
                "the host has CPUs beyond number {MAX_OS_CPU}, the largest supported one"
            ));
        }
        if !matches!(shape.cpus, Some(Cpus::List(_))) && total > MAX_CPUS as u64 {
            return Err(format!("the host has too many CPUs; expected {MAX_CPUS} at most"));
        }
        shape.check_list()?;
        shape.check_distances()?;
        shape.topology().map_err(|error| error.to_string())?;
        Ok(shape)
    }
}

impl HostShape {
    /// The host itself.
    ///
    /// # Errors
    /// If no CPU is online, one is listed twice, or there are more than any host has.
    pub fn topology(&self) -> Result<Topology, TopologyError> {
        Topology::new(self.sites(), &self.stated_distances())
    }

    /// The loads of what is not a vCPU, by the kernel's CPU number; percent of a pCPU.
    pub fn background(&self) -> impl Iterator<Item = (OsCpuId, f64)> + '_ {
        let listed = if let Some(Cpus::List(list)) = &self.cpus {
            list.as_slice()
        } else {
            &[]
        };
        listed
            .iter()
            .filter_map(|cpu| cpu.background.map(|load| (OsCpuId(cpu.cpu), load.get())))
    }

    /// The shape of a snapshot's host, in the shortest form that says all.
    pub fn of(snapshot: &Snapshot<'_>) -> Self {
        let nodes: Vec<NodeIx> = snapshot.nodes().map(|node| node.ix()).collect();
        let list: Vec<CpuDocument> = snapshot
            .cpus()
            .map(|cpu| CpuDocument {
                cpu: cpu.os_id().0,
                node: snapshot.node_os_id(cpu.node()),
                llc: cpu.llc().0,
                core: Some(cpu.core().0),
                online: true,
                capacity: (cpu.capacity().to_bits() != FULL_CAPACITY.to_bits())
                    .then(|| Percent::from_checked(cpu.capacity())),
                background: cpu.background().map(Percent::from_checked),
            })
            .collect();
        let matrix: Vec<Vec<u32>> = nodes
            .iter()
            .map(|&from| nodes.iter().map(|&to| snapshot.distance(from, to)).collect())
            .collect();
        let usual = (0..matrix.len()).all(|from| {
            (0..matrix.len()).all(|to| {
                matrix[from][to]
                    == if from == to {
                        LOCAL_DISTANCE
                    } else {
                        REMOTE_DISTANCE
                    }
            })
        });
        let distances = (!usual).then_some(matrix);
        let uniform = Self::uniform_like(snapshot);
        if uniform.listed() == list {
            Self { distances, ..uniform }
        } else {
            Self {
                cpus: Some(Cpus::List(list)),
                distances,
                ..Self::default()
            }
        }
    }

    /// The regular host of about this size; equal to the snapshot's only if that is regular.
    fn uniform_like(snapshot: &Snapshot<'_>) -> Self {
        let count = |rows: usize| u32::try_from(rows).unwrap_or(u32::MAX);
        let (cpus, nodes) = (count(snapshot.counts().0), count(snapshot.nodes().len()));
        let (llcs, cores) = (count(snapshot.llcs().len()), count(snapshot.cores().len()));
        if cores == cpus && llcs == 1 {
            return Self {
                cpus: Some(Cpus::Count(cpus)),
                ..Self::default()
            };
        }
        Self {
            nodes: Some(nodes),
            llcs_per_node: Some(llcs / nodes),
            cores_per_llc: Some(cores / llcs),
            threads_per_core: Some(cpus / cores),
            ..Self::default()
        }
    }

    /// What the host would be if it were written as a list by [`Self::of`].
    fn listed(&self) -> Vec<CpuDocument> {
        let Ok(topology) = self.topology() else {
            return Vec::new();
        };
        let document = |cpu: &crate::topology::Cpu| CpuDocument {
            cpu: cpu.os_id.0,
            node: topology.nodes()[cpu.node.index()].os_id,
            llc: cpu.llc.0,
            core: Some(cpu.core.0),
            online: true,
            capacity: None,
            background: None,
        };
        topology.cpus().iter().map(document).collect()
    }

    /// Every CPU of the host, online or not.
    pub fn sites(&self) -> Vec<CpuSite> {
        if let Some(Cpus::List(list)) = &self.cpus {
            // A core of its own for each CPU that names none: labels that no stated core can have.
            let labels_of_their_own = list
                .iter()
                .filter_map(|cpu| cpu.core)
                .max()
                .map_or(0, |core| core.saturating_add(1));
            return list
                .iter()
                .map(|cpu| CpuSite {
                    os_id: OsCpuId(cpu.cpu),
                    node: cpu.node,
                    llc: cpu.llc,
                    core: cpu.core.unwrap_or(labels_of_their_own.saturating_add(cpu.cpu)),
                    online: cpu.online,
                    capacity: cpu.capacity.map_or(FULL_CAPACITY, Percent::get),
                })
                .collect();
        }
        if let Some(Cpus::Count(count)) = self.cpus {
            return uniform_sites(1, 1, count, 1);
        }
        let [nodes, llcs, cores, threads] = [
            self.nodes,
            self.llcs_per_node,
            self.cores_per_llc,
            self.threads_per_core,
        ]
        .map(|count| count.unwrap_or(1));
        uniform_sites(nodes, llcs, cores, threads)
    }

    /// The numbers of all nodes, also of those without an online CPU, in ascending order.
    fn node_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.sites().iter().map(|site| site.node).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The distances between NUMA nodes that the file states.
    pub fn stated_distances(&self) -> Distances {
        let ids = self.node_ids();
        let rows = ids.iter().zip(self.distances.iter().flatten());
        rows.flat_map(|(&from, row)| {
            ids.iter()
                .zip(row)
                .map(move |(&to, &distance)| ((from, to), distance))
        })
        .collect()
    }

    fn check_list(&self) -> Result<(), String> {
        let Some(Cpus::List(list)) = &self.cpus else {
            return Ok(());
        };
        match list
            .iter()
            .find(|cpu| cpu.capacity.is_some_and(|capacity| capacity.get() <= 0.0))
        {
            Some(cpu) => Err(format!("the capacity of CPU {} is 0; expected more", cpu.cpu)),
            None => Ok(()),
        }
    }

    fn check_distances(&self) -> Result<(), String> {
        let Some(matrix) = &self.distances else {
            return Ok(());
        };
        let nodes = self.node_ids().len();
        if matrix.len() != nodes || matrix.iter().any(|row| row.len() != nodes) {
            return Err(format!(
                "distances has another size than the host; expected {nodes} rows of {nodes} numbers, one a NUMA node"
            ));
        }
        Ok(())
    }
}
