//! `night`: while a host has little to do, gathers its vCPUs on few CPUs, so that the others can sleep.
//!
//! # The rule
//!
//! A host sleeps by **units**: last-level caches if it has several, else cores. (A package or a cache switches off only
//! when none of its CPUs is busy, so it pays to empty whole units.) In each tick:
//!
//! ```text
//! load = the sum of the loads of all pCPUs that are managed
//! if load > quiet percent of what they deliver:
//!     it is day:    each vCPU gets back all the CPUs it is allowed
//! else:
//!     it is night:  awake = the fewest units, from the first one on, that the load fills up to `fill` percent
//!                   each vCPU gets the awake CPUs among those it is allowed
//! ```
//!
//! A vCPU that is allowed no awake CPU stays where it is, and so does one that may not be moved. Units fall asleep only
//! once the load would leave `margin` points to spare with one unit less, and a day becomes night only `margin` points
//! below `quiet`; else a load on the border would move everything in every tick.
//!
//! # Promises
//!
//! - The plan asks for no more than that: vCPUs get sets of CPUs, and within a set the kernel balances as ever.
//! - Where nothing moves, the note says why.
//! - What it remembers from tick to tick is how many units are awake, no more. A fresh start costs a few pins at most.
//!
//! # Known limits
//!
//! - Memory stays where it is: on a host of several NUMA nodes, gathering makes some of it remote.
//! - It goes by the load of the interval before. A host that wakes up at once is crowded for one interval.

use serde::{Deserialize, Serialize};
use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::{CpuIx, Index};
use vcpu_policy_api::log;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Policy, PolicyError};
use vcpu_policy_api::snapshot::{Snapshot, Vcpu};

// This line makes the library a plugin. Everything else is an ordinary type.
vcpu_policy_api::export_policy!(Night);

/// The policy. See the [crate](self).
#[derive(Debug)]
pub struct Night {
    options: Options,
    /// How many units are awake; `None` by day.
    awake: Option<usize>,
}

/// What the operator may set: all of it in percent of what pCPUs deliver.
///
/// Serde does the work: `Default` is what an operator gets without a word, and the names are what is written behind
/// `--option`. A key that is not here never arrives.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// Up to this load of the whole host it is night.
    pub quiet: f64,
    /// How far the awake CPUs are filled.
    pub fill: f64,
    /// By how much the load has to fall before anything falls asleep.
    pub margin: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quiet: 30.0,
            fill: 60.0,
            margin: 5.0,
        }
    }
}

impl Policy for Night {
    // What the operator writes, what the lists show, what the daemon says at its start.
    const NAME: &'static str = "night";
    const VERSION: &'static str = "1.0.0";
    const SUMMARY: &'static str =
        "while the host has little to do, confines its vCPUs to few CPUs, so that the others can sleep";
    type Options = Options;

    // Types are checked before this is called; what is left are values that make no sense.
    fn new(options: Options) -> Result<Self, PolicyError> {
        let Options { quiet, fill, margin } = options;
        for (name, value) in [("quiet", quiet), ("fill", fill)] {
            if !(value > 0.0 && value <= 100.0) {
                return Err(PolicyError::new(format_args!(
                    "{name} is {value}; expected a percentage above 0, up to 100"
                )));
            }
        }
        if !(margin >= 0.0 && margin < quiet.min(fill)) {
            return Err(PolicyError::new(format_args!(
                "margin is {margin}; expected 0 or more, and less than quiet ({quiet}) and fill ({fill})"
            )));
        }
        Ok(Self { options, awake: None })
    }

    // Called once a tick. A pure function of the snapshot and of what `self` remembers.
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        let host = HostLoad::of(snapshot);
        if host.units.is_empty() {
            plan.note("no cpu is managed: there is nothing to gather on");
            return Ok(());
        }
        let before = self.awake;
        self.awake = self.awake_units(&host);
        if self.awake != before {
            // For the author's eyes: shown with `-v`. What concerns the operator is in reasons and notes.
            log::debug(format_args!(
                "awake units: {before:?} before, {:?} now",
                self.awake
            ));
        }
        match self.awake {
            None => wake_all(snapshot, &host, self.options.quiet, plan),
            Some(units) => gather(snapshot, &host, units, plan),
        }
        Ok(())
    }
}

impl Night {
    /// How many units the load needs; `None` by day.
    fn awake_units(&self, host: &HostLoad) -> Option<usize> {
        let Options { quiet, fill, margin } = self.options;
        let all = host.units.len();
        let border = if self.awake.is_some() {
            quiet
        } else {
            quiet - margin
        };
        if host.load > host.capacity(all) * border / 100.0 {
            return None;
        }
        let fewest = |fill: f64| (1..all).find(|&units| host.load <= host.capacity(units) * fill / 100.0);
        let needed = fewest(fill).unwrap_or(all);
        // To fall asleep takes more than to stay asleep.
        let safe = fewest(fill - margin).unwrap_or(all);
        Some(self.awake.map_or(safe, |awake| awake.clamp(needed, safe)))
    }
}

/// By day: everyone gets back all CPUs.
fn wake_all(snapshot: &Snapshot<'_>, host: &HostLoad, quiet: f64, plan: &mut Plan) {
    let share = host.share();
    for vcpu in snapshot.vcpus().filter(may_be_pinned) {
        if vcpu.affinity() != vcpu.allowed() {
            let reason = format_args!("the host carries {share:.1} %: it is day, and all CPUs are awake");
            plan.pin(vcpu.ix(), vcpu.allowed(), reason, 0.0);
        }
    }
    if plan.actions().len() == 0 {
        plan.note(format_args!(
            "the host carries {share:.1} %, above the {quiet} % of a quiet one; nobody is confined"
        ));
    }
}

/// By night: everyone gets the CPUs of the first units.
fn gather(snapshot: &Snapshot<'_>, host: &HostLoad, units: usize, plan: &mut Plan) {
    let awake = host.cpus(units);
    let (share, kind, all) = (host.share(), host.kind, host.units.len());
    let mut elsewhere = 0;
    for vcpu in snapshot.vcpus().filter(may_be_pinned) {
        let mut cpus = vcpu.allowed().to_owned();
        cpus.intersect(awake.as_ref());
        if cpus.is_empty() {
            elsewhere += 1;
        } else if cpus.as_ref() != vcpu.affinity() {
            let reason = format_args!("the host carries {share:.1} %: {units} of {all} {kind}s suffice");
            // What is gained: the load of this vCPU that leaves CPUs which are to sleep.
            let asleep = vcpu.cpu().is_some_and(|cpu| !awake.contains(cpu));
            plan.pin(
                vcpu.ix(),
                cpus.as_ref(),
                reason,
                vcpu.load().filter(|_| asleep).unwrap_or(0.0),
            );
        }
    }
    if elsewhere > 0 {
        plan.note(format_args!(
            "vCPUs that are allowed no awake cpu, and stay where they are: {elsewhere}"
        ));
    } else if plan.actions().len() == 0 {
        plan.note(format_args!(
            "the host carries {share:.1} %; everything that may move is on {units} of {all} {kind}s"
        ));
    }
}

fn may_be_pinned(vcpu: &Vcpu<'_>) -> bool {
    vcpu.is_movable() && vcpu.domain().is_managed() && !vcpu.allowed().is_empty()
}

/// What a host carries, and in which pieces it sleeps.
struct HostLoad {
    /// Percent of a pCPU, over all managed pCPUs.
    load: f64,
    /// What the units are: `cache` or `core`.
    kind: &'static str,
    /// The managed CPUs of each unit that has any, and what they deliver together.
    units: Vec<(CpuSet, f64)>,
}

impl HostLoad {
    fn of(snapshot: &Snapshot<'_>) -> Self {
        let mut loads = Vec::new();
        snapshot.cpu_loads(&mut loads);
        let managed: CpuSet = snapshot
            .cpus()
            .filter(|cpu| cpu.is_managed())
            .map(vcpu_policy_api::snapshot::Cpu::ix)
            .collect();
        let load = managed.iter().map(|cpu: CpuIx| loads[cpu.index()]).sum();
        let (kind, groups): (_, Vec<CpuSet>) = if snapshot.llcs().len() > 1 {
            (
                "cache",
                snapshot.llcs().map(|llc| llc.cpus().to_owned()).collect(),
            )
        } else {
            (
                "core",
                snapshot.cores().map(|core| core.cpus().to_owned()).collect(),
            )
        };
        let units = groups.into_iter().filter_map(|mut cpus| {
            cpus.intersect(managed.as_ref());
            let capacity = cpus.iter().map(|cpu| snapshot.cpu(cpu).capacity()).sum();
            (!cpus.is_empty()).then_some((cpus, capacity))
        });
        Self {
            load,
            kind,
            units: units.collect(),
        }
    }

    /// What the first units deliver, percent of a pCPU.
    fn capacity(&self, units: usize) -> f64 {
        self.units[..units].iter().map(|(_, capacity)| capacity).sum()
    }

    /// The CPUs of the first units.
    fn cpus(&self, units: usize) -> CpuSet {
        self.units[..units]
            .iter()
            .flat_map(|(cpus, _)| cpus.iter())
            .collect()
    }

    /// The load in percent of what the whole host delivers.
    fn share(&self) -> f64 {
        100.0 * self.load / self.capacity(self.units.len())
    }
}
