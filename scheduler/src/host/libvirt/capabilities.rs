//! From libvirt's description of a host to the shape of that host.
//!
//! In go the capabilities XML, which says where each CPU sits, and the map of online CPUs, which says which of them
//! the kernel uses now. Out comes a [`Topology`]. Machines differ in what they tell, so every fact has a rule for its
//! absence, the same on all machines:
//!
//! - **Node**: the cell that lists the CPU. Without any cell all CPUs are in node 0.
//! - **Last-level cache**: the bank of the highest level that holds the CPU. CPUs of a node that are in no bank share
//!   a cache with those of the same socket and die that are in none either: libvirt reports level 3 and above only,
//!   and a machine without such a level shares, if anything, within a die.
//! - **Core**: the stated siblings; without them the CPUs of a node, socket and die with the same core number, which
//!   the kernel counts anew in each; without a number the CPU alone.
//! - **Online**: what the map says. Where there is no map, or for a CPU beyond its end, being listed counts as online.
//! - A CPU that only the map knows is in the node of all others if there is only one, else in a node of its kind
//!   behind all others: its memory is as far from it as from any.
//!
//! Cells without CPUs (memory alone) are no place to run and leave no trace. The order of the XML does not matter.
//! Malformed input is an error, never a panic, that says what was read, where, and what was expected there.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;
use thiserror::Error;
use vcpu_policy_api::cpuset::{CpuListError, MAX_OS_CPU, OsCpuSet};
use vcpu_policy_api::ids::OsCpuId;
use vcpu_policy_api::topology::{CpuSite, Distances, FULL_CAPACITY, Topology, TopologyError};

use super::ffi::CpuMap;
use super::xml::{child, children};

/// Why a host's capabilities could not be understood.
#[derive(Debug, Error)]
pub enum CapabilitiesError {
    /// It is no XML.
    #[error("the host's capabilities are not well-formed XML")]
    Xml(#[from] roxmltree::Error),
    /// It is XML, but something else.
    #[error("the host's capabilities have no <host>; expected <capabilities><host>…")]
    NoHost,
    /// An element lacks what makes it useful.
    #[error("<{element}> at line {line} of the host's capabilities has no {attribute}")]
    Missing {
        /// The element.
        element: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// Where, from 1.
        line: u32,
    },
    /// An attribute is no number, or none in range.
    #[error(
        "{attribute}=\"{value}\" of <{element}> at line {line} of the host's capabilities is not {expected}"
    )]
    Number {
        /// The element.
        element: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        expected: &'static str,
        /// Where, from 1.
        line: u32,
    },
    /// An attribute is no list of CPUs.
    #[error("{attribute} of <{element}> at line {line} of the host's capabilities")]
    CpuList {
        /// The element.
        element: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// Where, from 1.
        line: u32,
        /// What is wrong with it.
        #[source]
        source: CpuListError,
    },
    /// A NUMA node appears twice.
    #[error("cell {cell} is listed twice in the host's capabilities")]
    DuplicateCell {
        /// Its number.
        cell: u32,
    },
    /// A CPU is in two places.
    #[error("CPU {cpu} is listed twice in the host's capabilities: in cell {first} and in cell {second}")]
    DuplicateCpu {
        /// The kernel's number.
        cpu: u32,
        /// Where it was first.
        first: u32,
        /// Where it was again.
        second: u32,
    },
    /// The CPUs do not make a host.
    #[error("the CPUs of the host's capabilities do not make a host")]
    Topology(#[from] TopologyError),
}

/// The shape of the host that `xml` describes, of which the CPUs in `map` are online.
pub(super) fn topology(xml: &str, map: Option<&CpuMap>) -> Result<Topology, CapabilitiesError> {
    let document = roxmltree::Document::parse(xml)?;
    let root = document.root_element();
    let host = child(root, "host")
        .filter(|_| root.has_tag_name("capabilities"))
        .ok_or(CapabilitiesError::NoHost)?;
    let cells = match child(host, "topology").and_then(|topology| child(topology, "cells")) {
        Some(cells) => Cells::read(cells)?,
        None => Cells::default(),
    };
    let banks = match child(host, "cache") {
        Some(cache) => banks(cache)?,
        None => Vec::new(),
    };

    let mut places = cells.places;
    let peopled: BTreeSet<u32> = places.values().map(|place| place.node).collect();
    let elsewhere = match peopled.first() {
        None => 0,
        Some(&only) if peopled.len() == 1 => only,
        Some(_) => cells.seen.last().map_or(0, |last| last.saturating_add(1)),
    };
    // The map speaks of every CPU below its length: what it does not show online is offline, not absent.
    let mut unlisted: BTreeSet<u32> = (0..map.map_or(0, |map| map.length)).collect();
    if map.is_none() && places.is_empty() {
        // Nothing names a CPU. That leaves how many there are, though not which of them are siblings.
        unlisted.extend(0..stated_count(host)?);
    }
    for cpu in unlisted {
        places.entry(cpu).or_insert_with(|| Place::bare(elsewhere));
    }

    let sites = sites(&places, &banks, map);
    Ok(Topology::new(sites, &cells.distances)?)
}

/// What `<cells>` says.
#[derive(Default)]
struct Cells {
    /// The numbers of all cells, those without CPUs too.
    seen: BTreeSet<u32>,
    places: BTreeMap<u32, Place>,
    distances: Distances,
}

/// Where a CPU is, as far as the host says. Socket, die and core numbers are labels: some kernels count from -1.
struct Place {
    node: u32,
    socket: Option<i64>,
    die: Option<i64>,
    core: Option<i64>,
    siblings: Option<OsCpuSet>,
}

impl Place {
    /// A place of which only the node is known.
    fn bare(node: u32) -> Self {
        Self {
            node,
            socket: None,
            die: None,
            core: None,
            siblings: None,
        }
    }
}

impl Cells {
    fn read(cells: Node<'_, '_>) -> Result<Self, CapabilitiesError> {
        let mut read = Self::default();
        for cell in children(cells, "cell") {
            let node = required(cell, "cell", "id", "a NUMA node's number", u32::MAX)?;
            if !read.seen.insert(node) {
                return Err(CapabilitiesError::DuplicateCell { cell: node });
            }
            for sibling in child(cell, "distances")
                .into_iter()
                .flat_map(|distances| children(distances, "sibling"))
            {
                let to = required(sibling, "sibling", "id", "a NUMA node's number", u32::MAX)?;
                let distance = required(sibling, "sibling", "value", "a distance", u32::MAX)?;
                read.distances.insert((node, to), distance);
            }
            for cpu in child(cell, "cpus")
                .into_iter()
                .flat_map(|cpus| children(cpus, "cpu"))
            {
                let number = required(cpu, "cpu", "id", "a CPU number", MAX_OS_CPU)?;
                let place = Place {
                    node,
                    socket: label(cpu, "socket_id")?,
                    die: label(cpu, "die_id")?,
                    core: label(cpu, "core_id")?,
                    siblings: cpu_list(cpu, "cpu", "siblings")?,
                };
                if let Some(first) = read.places.insert(number, place) {
                    return Err(CapabilitiesError::DuplicateCpu {
                        cpu: number,
                        first: first.node,
                        second: node,
                    });
                }
            }
        }
        Ok(read)
    }
}

/// The CPUs of each cache, the highest level first.
fn banks(cache: Node<'_, '_>) -> Result<Vec<OsCpuSet>, CapabilitiesError> {
    let mut banks = Vec::new();
    for bank in children(cache, "bank").filter(|bank| bank.attribute("type") != Some("code")) {
        let level = required(bank, "bank", "level", "a cache level", u32::MAX)?;
        if let Some(cpus) = cpu_list(bank, "bank", "cpus")? {
            banks.push((level, cpus));
        }
    }
    banks.sort_by_key(|&(level, _)| std::cmp::Reverse(level));
    Ok(banks.into_iter().map(|(_, cpus)| cpus).collect())
}

/// How many CPUs a host has of which no other word is said: `<cpu><topology sockets= dies= cores= threads=>`.
fn stated_count(host: Node<'_, '_>) -> Result<u32, CapabilitiesError> {
    let Some(shape) = child(host, "cpu").and_then(|cpu| child(cpu, "topology")) else {
        return Ok(0);
    };
    ["sockets", "dies", "cores", "threads"]
        .into_iter()
        .filter(|attribute| shape.has_attribute(*attribute))
        .try_fold(1_u32, |count, attribute| {
            let factor = required(shape, "topology", attribute, "a count", MAX_OS_CPU)?;
            Ok(count.saturating_mul(factor).min(MAX_OS_CPU + 1))
        })
}

/// What distinguishes one group of CPUs of a node from another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Group<'a> {
    Bank(usize),
    Die(Option<i64>, Option<i64>),
    Siblings(&'a OsCpuSet),
    CoreOfDie(Option<i64>, Option<i64>, i64),
    Alone(u32),
}

/// Gives every CPU the labels of its groups: the number of a group's first CPU.
fn sites(places: &BTreeMap<u32, Place>, banks: &[OsCpuSet], map: Option<&CpuMap>) -> Vec<CpuSite> {
    let mut bank_of = BTreeMap::new();
    for (at, cpus) in banks.iter().enumerate() {
        for cpu in cpus.iter() {
            bank_of.entry(cpu).or_insert(at);
        }
    }
    let mut caches = BTreeMap::new();
    let mut cores = BTreeMap::new();
    places
        .iter()
        .map(|(&cpu, place)| {
            let os_id = OsCpuId(cpu);
            let cache = bank_of
                .get(&os_id)
                .map_or(Group::Die(place.socket, place.die), |&at| Group::Bank(at));
            let core = match (&place.siblings, place.core) {
                (Some(siblings), _) => Group::Siblings(siblings),
                (None, Some(core)) => Group::CoreOfDie(place.socket, place.die, core),
                (None, None) => Group::Alone(cpu),
            };
            CpuSite {
                os_id,
                node: place.node,
                llc: *caches.entry((place.node, cache)).or_insert(cpu),
                core: *cores.entry((place.node, core)).or_insert(cpu),
                online: map.is_none_or(|map| cpu >= map.length || map.online.contains(os_id)),
                capacity: FULL_CAPACITY,
            }
        })
        .collect()
}

fn required(
    node: Node<'_, '_>,
    element: &'static str,
    attribute: &'static str,
    expected: &'static str,
    largest: u32,
) -> Result<u32, CapabilitiesError> {
    let value = node.attribute(attribute).ok_or(CapabilitiesError::Missing {
        element,
        attribute,
        line: line_of(node),
    })?;
    let number = value.parse().ok().filter(|&number| number <= largest);
    number.ok_or_else(|| CapabilitiesError::Number {
        element,
        attribute,
        value: value.to_owned(),
        expected,
        line: line_of(node),
    })
}

fn label(cpu: Node<'_, '_>, attribute: &'static str) -> Result<Option<i64>, CapabilitiesError> {
    let Some(value) = cpu.attribute(attribute) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| CapabilitiesError::Number {
        element: "cpu",
        attribute,
        value: value.to_owned(),
        expected: "a number",
        line: line_of(cpu),
    })
}

fn cpu_list(
    node: Node<'_, '_>,
    element: &'static str,
    attribute: &'static str,
) -> Result<Option<OsCpuSet>, CapabilitiesError> {
    // libvirt writes an empty list where the kernel says nothing.
    let Some(list) = node.attribute(attribute).filter(|list| !list.is_empty()) else {
        return Ok(None);
    };
    list.parse()
        .map(Some)
        .map_err(|source| CapabilitiesError::CpuList {
            element,
            attribute,
            line: line_of(node),
            source,
        })
}

fn line_of(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}

#[cfg(test)]
mod tests;
