//! Scenario files: a host, its guests, and what happens to them.
//!
//! ```yaml
//! name: all-on-one        # absent: the file's name
//! host: {cpus: 4, isolated: "3"}   # any shape of a host; background load of a CPU is what the guests cannot get of it
//!                         #   isolated: CPUs that the kernel was told to keep free; absent: none
//! interval: 1s            # absent: 5s
//! ticks: 30               # how many intervals to simulate; absent: 30
//! seed: 1                 # what noise and chance are drawn from; absent: 0
//! domains:
//!   - name: vm
//!     count: 8            # 2 or more: vm-0, vm-1, …; absent or 1: the name itself
//!     vcpus: 1            # absent: 1
//!     pin: "0"            # the affinity at first sight: a CPU list for all copies, or a list of them, one a copy in turn;
//!                         #   absent: the definition's cpuset, or all CPUs
//!     cpuset: "0-3"       # the stored definition's; absent: none
//!     metadata: {manage: yes, cpus: "0-3"}    # what its metadata asks of the scheduler; each absent: nothing
//!     load: 20            # percent of a pCPU that each vCPU wants; or steps [[1, 20], [14, 50]], nothing before the
//!                         #   first; or {trace: FILE, row: N}; absent: 0
//!     noise: 2            # standard deviation of what is added to it in each tick; absent: 0
//! events:                 # absent: none
//!   - {at: 14, load: {domain: "vm-[0-3]", percent: 50}}
//!   - {at: 20, destroy: "vm-3"}
//!   - {at: 22, create: {name: late, vcpus: 2, load: 30}}          # as an entry of domains
//!   - {at: 25, offline: "3"}
//!   - {at: 26, online: "3"}
//!   - {at: 26, pin: {domain: "vm-1", vcpu: 0, cpus: "2"}}         # by someone else
//!   - {at: 27, vcpus: {domain: "vm-2", count: 4}}
//!   - {at: 27, pause: "vm-5"}
//!   - {at: 28, resume: "vm-5"}
//!   - {at: 28, reboot: "vm-6"}
//!   - {at: 28, save: "vm-4"}                                      # a managed save: gone, with affinities and keepsake
//!   - {at: 29, restore: "vm-4"}                                   # back as another run, with both
//!   - {at: 28, cpuset: {domain: "vm-7", cpus: "0-1"}}             # the stored definition's; moves nothing by itself
//!   - {at: 28, fail: {call: pin, domain: "vm-2", ticks: 3, error: busy}}  # error: busy, refused; ticks absent: 1
//!   - {at: 28, fail: {call: affinity, domain: "vm-2"}}            # reading an affinity anew fails; as call: pin
//!   - {at: 28, fail: {call: keep, domain: "vm-2"}}                # handing over a keepsake fails; as call: pin
//!   - {at: 28, fail: {call: sample}}                              # the host cannot be read
//!   - {at: 28, fail: {call: disconnect}}                          # nothing works
//!   - {at: 28, fail: {call: slow, ms: 700}}                       # every call takes so long, in simulated time
//! ```
//!
//! `domain` is a pattern of names, `*`, `?`, `[0-3]` and `{a,b}` as in a shell, and means the guests there at that time.
//! Events of one tick act in the order of the file; an event behind the last tick is no mistake, since the number of
//! ticks can be set when the scenario is run.
//!
//! A trace is in the form of [`crate::trace::wide_csv`], its path relative to the scenario's file. `row` counts from 0; a
//! domain's next copy takes the next row. The value at a time is that of the last column not later than it, the last one
//! holds to the end, and more than 100 counts as 100.
//!
//! A mistake in the form or in a single value is located by line and column; one that only shows in the light of the
//! whole file by the path of its key, as `events[3].offline`.

mod check;
mod event;
mod host;
mod load;
mod value;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::topology::{Topology, TopologyError};
use vcpu_policy_api::yaml::{self, YamlError};

pub(super) use check::present_cpus;
pub(super) use event::{Action, DomainCall, DomainFault, Event, Failure, Fault, FaultKind};
pub(super) use host::HostSpec;
pub(super) use load::{Load, Series, Step, Traces};
pub(super) use value::Pattern;
use value::{Name, Pins, SampleInterval, VcpuPercent, Whole, YesNo};

use crate::host::Wish;
use crate::trace::wide_csv::WideCsvError;

/// The last tick that a file can speak of.
const LAST_TICK: u32 = 1_000_000;
/// The most copies of a domain; also the most vCPUs of a host at a time.
const MOST_GUESTS: u32 = 100_000;
/// The most domains that a scenario starts in its course.
const MOST_STARTS: u32 = 1_000_000;
/// The most vCPUs of a domain; KVM itself has no more.
const MOST_VCPUS: u32 = 4_096;
/// The longest that a call of a slow host takes.
const LONGEST_CALL_MS: u32 = 3_600_000;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A scenario that can be run. See the [module](self).
#[derive(Debug, Clone)]
pub struct Scenario {
    pub(super) name: String,
    pub(super) host: HostSpec,
    pub(super) topology: Arc<Topology>,
    pub(super) interval: Duration,
    pub(super) ticks: u32,
    pub(super) seed: u64,
    pub(super) domains: Vec<DomainSpec>,
    /// By ascending tick.
    pub(super) events: Vec<Event>,
    pub(super) traces: Traces,
}

/// Why a file is not a scenario.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario")]
    Read(#[from] io::Error),
    /// It is not of the form of a scenario.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Its host is impossible.
    #[error("host")]
    Host(#[from] TopologyError),
    /// A value that does not fit the rest of the file.
    #[error("{path}: {problem}")]
    Value {
        /// The path of the key, as `events[3].offline`.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A trace that the scenario names.
    #[error("{path}: {}", file.display())]
    Trace {
        /// The path of the key.
        path: String,
        /// The trace's file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: WideCsvError,
    },
}

/// A guest, or several copies of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainSpec {
    name: Name,
    #[serde(default = "one")]
    count: Whole<1, MOST_GUESTS>,
    #[serde(default = "one")]
    pub(super) vcpus: Whole<1, MOST_VCPUS>,
    pin: Option<Pins>,
    pub(super) cpuset: Option<OsCpuSet>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default = "idle")]
    pub(super) load: Load,
    #[serde(default = "quiet")]
    pub(super) noise: VcpuPercent,
}

/// What a domain's metadata asks of the scheduler.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    manage: Option<YesNo>,
    cpus: Option<OsCpuSet>,
}

impl DomainSpec {
    /// What its metadata asks of the scheduler.
    pub(super) fn wish(&self) -> Wish {
        Wish {
            manage: self.metadata.manage.map(|manage| manage == YesNo::Yes),
            cpus: self.metadata.cpus.clone(),
        }
    }

    /// The names of its copies.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        let name = self.name.as_str();
        (0..self.count.get()).map(move |copy| match self.count.get() {
            1 => name.to_owned(),
            _ => format!("{name}-{copy}"),
        })
    }

    /// The affinity that a copy is first seen with; `None`: all CPUs.
    pub(super) fn affinity(&self, copy: usize) -> Option<&OsCpuSet> {
        self.pin
            .as_ref()
            .map(|pins| pins.of_copy(copy))
            .or(self.cpuset.as_ref())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a scenario")]
struct Document {
    name: Option<Name>,
    host: HostSpec,
    interval: Option<SampleInterval>,
    #[serde(default = "thirty")]
    ticks: Whole<1, LAST_TICK>,
    #[serde(default)]
    seed: u64,
    domains: Vec<DomainSpec>,
    #[serde(default)]
    events: Vec<Event>,
}

fn one<const MAX: u32>() -> Whole<1, MAX> {
    Whole::new(1)
}

fn thirty() -> Whole<1, LAST_TICK> {
    Whole::new(30)
}

fn idle() -> Load {
    Load::Constant(VcpuPercent::ZERO)
}

fn quiet() -> VcpuPercent {
    VcpuPercent::ZERO
}

impl Scenario {
    /// Reads a scenario file and the traces that it names.
    ///
    /// # Errors
    /// If it is not one; see [`ScenarioError`].
    pub fn read(file: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(file)?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &name, folder)
    }

    /// Reads the text of a scenario, which is called `name` if it does not name itself; traces are looked up from
    /// `folder`.
    ///
    /// # Errors
    /// If it is not one; see [`ScenarioError`].
    pub fn parse(text: &str, name: &str, folder: &Path) -> Result<Self, ScenarioError> {
        let document: Document = yaml::read(text)?;
        let topology = document.host.shape.topology()?;
        let mut scenario = Self {
            name: document
                .name
                .map_or(name.to_owned(), |name| name.as_str().to_owned()),
            topology: Arc::new(topology),
            host: document.host,
            interval: document.interval.map_or(DEFAULT_INTERVAL, SampleInterval::get),
            ticks: document.ticks.get(),
            seed: document.seed,
            domains: document.domains,
            events: document.events,
            traces: Traces::default(),
        };
        scenario.check()?;
        scenario.read_traces(folder)?;
        // The check has spoken of events by their place in the file.
        scenario.events.sort_by_key(|event| event.at);
        Ok(scenario)
    }

    /// What the scenario is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time between two samples.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How many intervals it asks to be simulated.
    pub fn ticks(&self) -> u32 {
        self.ticks
    }

    /// What its noise and chance are drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

#[cfg(test)]
mod tests;
