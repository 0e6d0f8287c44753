//! Hosts, loads and decisions in a few lines: for the tests of policies.
//!
//! A test states a host, lets the policy decide, and compares the table that people read, preferably as a golden file:
//!
//! ```
//! use vcpu_policy_api::testing::{Host, decide, vcpu};
//! # use vcpu_policy_api::{plan::Plan, policy::{Policy, PolicyError}, snapshot::Snapshot};
//! # struct Still;
//! # impl Policy for Still {
//! #     const NAME: &'static str = "still";
//! #     const VERSION: &'static str = "1.0.0";
//! #     const SUMMARY: &'static str = "never moves a vCPU";
//! #     type Options = ();
//! #     fn new(_: ()) -> Result<Self, PolicyError> { Ok(Self) }
//! #     fn decide(&mut self, _: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
//! #         plan.note("nothing moves");
//! #         Ok(())
//! #     }
//! # }
//!
//! let host = Host::cpus(2).domain("web", [vcpu(80.0).on(0), vcpu(10.0).on(0)]);
//! assert_eq!(
//!     decide::<Still>("", &host.snapshot()),
//!     "host    2 pCPUs, 1 domain, 2 vCPUs\n\
//!      stddev  45.00\n\
//!      cpu 0    90.0  web/0 80.0, web/1 10.0\n\
//!      cpu 1     0.0\n\
//!      note    nothing moves\n"
//! );
//! ```
//!
//! What a [`Host`] cannot say, a snapshot file can: [`snapshot`] reads one, and `vcpu-scheduler snapshot` writes one of
//! a live host. A mistake in a test's host panics with the message that a user's file would get.

use std::fmt::{Display, Write};

use crate::document;
use crate::explain::Explanation;
use crate::options;
use crate::plan::Plan;
use crate::policy::{Decide, Policy};
use crate::snapshot::SnapshotBlock;

/// Makes a policy from the YAML text of its options; empty text means its defaults.
///
/// # Panics
/// If the policy does not take them.
pub fn policy<P: Policy>(options: &str) -> Box<dyn Decide> {
    options::build::<P>(options).unwrap_or_else(|error| {
        let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
        panic!("{error}{}", why.unwrap_or_default())
    })
}

/// What a new policy decides on a snapshot, as the table that people read.
///
/// # Panics
/// If the policy does not take its options, or cannot decide.
pub fn decide<P: Policy>(options: &str, snapshot: &SnapshotBlock) -> String {
    decide_with(&mut *policy::<P>(options), snapshot)
}

/// What a policy decides on a snapshot, as the table that people read. For policies with a memory, one call after
/// another.
///
/// # Panics
/// If the policy cannot decide.
pub fn decide_with(policy: &mut dyn Decide, snapshot: &SnapshotBlock) -> String {
    let mut plan = Plan::new();
    let snapshot = snapshot.view();
    if let Err(error) = policy.decide(&snapshot, &mut plan) {
        panic!("the policy cannot decide: {error}");
    }
    Explanation::new(&snapshot, &plan).to_string()
}

/// Reads a snapshot in the form of a snapshot file.
///
/// # Panics
/// If it is not one.
pub fn snapshot(yaml: &str) -> SnapshotBlock {
    document::read(yaml).unwrap_or_else(|error| panic!("not a snapshot: {error}\n{yaml}"))
}

/// A host with its guests. CPU numbers are the kernel's, lists of them are as in `"0-3,8"`.
#[derive(Debug, Clone)]
pub struct Host {
    /// The keys of the snapshot file, but for the domains.
    head: String,
    domains: String,
}

impl Host {
    /// A host of this many pCPUs, each a core of its own, with one last-level cache.
    #[must_use]
    pub fn cpus(count: u32) -> Self {
        Self::shaped(format_args!("{{cpus: {count}}}"))
    }

    /// A host of NUMA nodes, last-level caches a node, cores a cache, and threads a core; neighbours share the most.
    #[must_use]
    pub fn uniform(nodes: u32, llcs: u32, cores: u32, threads: u32) -> Self {
        Self::shaped(format_args!(
            "{{nodes: {nodes}, llcs-per-node: {llcs}, cores-per-llc: {cores}, threads-per-core: {threads}}}"
        ))
    }

    /// A host of the shape that a snapshot file would give it behind `topology:`.
    #[must_use]
    pub fn shaped(topology: impl Display) -> Self {
        Self {
            head: format!("interval: 5s\ntopology: {topology}\n"),
            domains: String::new(),
        }
    }

    /// CPUs that take no part in the balance.
    #[must_use]
    pub fn reserved(self, cpus: impl Display) -> Self {
        self.key("reserved", format_args!("\"{cpus}\""))
    }

    /// How many pins will be carried out at most.
    #[must_use]
    pub fn budget(self, pins: u32) -> Self {
        self.key("budget", pins)
    }

    /// The number of the tick. It tells the policy that it has been there before.
    #[must_use]
    pub fn tick(self, tick: u64) -> Self {
        self.key("tick", tick).key("fresh", false)
    }

    /// Adds a domain behind those added before.
    #[must_use]
    pub fn domain(self, name: &str, vcpus: impl IntoIterator<Item = Vcpu>) -> Self {
        self.add(name, true, vcpus)
    }

    /// Adds a domain that may not be touched.
    #[must_use]
    pub fn unmanaged(self, name: &str, vcpus: impl IntoIterator<Item = Vcpu>) -> Self {
        self.add(name, false, vcpus)
    }

    /// The memory of the domain that was added last lies on this node (the kernel's number).
    ///
    /// # Panics
    /// If there is no domain yet.
    #[must_use]
    pub fn memory_node(self, node: u32) -> Self {
        self.of_the_last("memory-node", node)
    }

    /// The CPU shares of the domain that was added last, relative to other domains.
    ///
    /// # Panics
    /// If there is no domain yet.
    #[must_use]
    pub fn weight(self, weight: f64) -> Self {
        self.of_the_last("weight", format_args!("{weight:?}"))
    }

    /// The host as a snapshot.
    ///
    /// # Panics
    /// If such a host cannot be; the message says why.
    pub fn snapshot(&self) -> SnapshotBlock {
        snapshot(&self.yaml())
    }

    /// The host as a snapshot file.
    pub fn yaml(&self) -> String {
        let none = if self.domains.is_empty() { " []" } else { "" };
        format!("{}domains:{none}\n{}", self.head, self.domains)
    }

    fn key(mut self, key: &str, value: impl Display) -> Self {
        writeln!(self.head, "{key}: {value}").expect("text grows");
        self
    }

    fn of_the_last(mut self, key: &str, value: impl Display) -> Self {
        let open = self.domains.strip_suffix("}\n").map(str::len);
        self.domains.truncate(open.expect("a domain that it is said of"));
        writeln!(self.domains, ", {key}: {value}}}").expect("text grows");
        self
    }

    fn add(mut self, name: &str, managed: bool, vcpus: impl IntoIterator<Item = Vcpu>) -> Self {
        let vcpus: Vec<String> = vcpus
            .into_iter()
            .map(|vcpu| format!("{{{}}}", vcpu.keys))
            .collect();
        let vcpus = vcpus.join(", ");
        writeln!(
            self.domains,
            "  - {{name: {name:?}, managed: {managed}, vcpus: [{vcpus}]}}"
        )
        .expect("text grows");
        self
    }
}

/// A vCPU of a [`Host`]. It may run on, and be pinned to, all managed CPUs unless something else is said.
#[derive(Debug, Clone)]
pub struct Vcpu {
    /// Its keys in a snapshot file.
    keys: String,
}

/// A vCPU with this load, percent of a pCPU.
pub fn vcpu(load: f64) -> Vcpu {
    Vcpu {
        keys: format!("load: {load:?}"),
    }
}

/// A vCPU without a load: it was just seen for the first time, and may not be moved yet.
pub fn new_vcpu() -> Vcpu {
    Vcpu { keys: String::new() }
}

impl Vcpu {
    /// It ran on this CPU last, and its load counts there.
    #[must_use]
    pub fn on(self, cpu: u32) -> Self {
        self.key("cpu", cpu)
    }

    /// It may run on these CPUs only.
    #[must_use]
    pub fn affinity(self, cpus: impl Display) -> Self {
        self.key("affinity", format_args!("\"{cpus}\""))
    }

    /// It may be pinned to these CPUs only.
    #[must_use]
    pub fn allowed(self, cpus: impl Display) -> Self {
        self.key("allowed", format_args!("\"{cpus}\""))
    }

    /// It was runnable but did not run for this share of the interval, percent.
    #[must_use]
    pub fn wait(self, wait: f64) -> Self {
        self.key("wait", format_args!("{wait:?}"))
    }

    /// It may not be pinned in this tick.
    #[must_use]
    pub fn fixed(self) -> Self {
        self.key("movable", false)
    }

    fn key(mut self, key: &str, value: impl Display) -> Self {
        let separator = if self.keys.is_empty() { "" } else { ", " };
        write!(self.keys, "{separator}{key}: {value}").expect("text grows");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyError;
    use crate::snapshot::Snapshot;

    /// Takes no options.
    #[derive(Debug)]
    struct Picky;

    impl Policy for Picky {
        const NAME: &'static str = "picky";
        const VERSION: &'static str = "1.0.0";
        const SUMMARY: &'static str = "wants something else";
        type Options = ();
        fn new((): ()) -> Result<Self, PolicyError> {
            Err(PolicyError::new("there is nothing that it wants"))
        }
        fn decide(&mut self, _: &Snapshot<'_>, _: &mut Plan) -> Result<(), PolicyError> {
            Ok(())
        }
    }

    #[test]
    #[should_panic(expected = "policy picky does not accept its options: there is nothing that it wants")]
    fn options_that_are_refused_are_told_as_to_an_operator() {
        let _ = policy::<Picky>("");
    }

    #[test]
    fn a_host_is_the_file_that_one_would_write() {
        let host = Host::cpus(4)
            .reserved("3")
            .budget(2)
            .domain(
                "web",
                [
                    vcpu(80.0).on(0),
                    vcpu(10.5).affinity("0-1").allowed("0-2").wait(3.0).fixed(),
                ],
            )
            .memory_node(0)
            .weight(1024.0)
            .unmanaged("own", [new_vcpu()]);
        let written = snapshot(
            "{interval: 5s, topology: {cpus: 4}, reserved: 3, budget: 2, domains: [\
             {name: web, memory-node: 0, weight: 1024, vcpus: [{cpu: 0, load: 80}, \
             {load: 10.5, affinity: 0-1, allowed: 0-2, wait: 3, movable: false}]},\
             {name: own, managed: false, vcpus: [{}]}]}",
        );
        assert_eq!(host.snapshot(), written);
        assert_eq!(Host::cpus(1).snapshot().view().counts(), (1, 0, 0));
    }
}
