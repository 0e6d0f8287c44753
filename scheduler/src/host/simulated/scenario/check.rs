//! What can only be judged in the light of the whole file.
//!
//! Nothing that a policy does changes which domains and CPUs there are, so all events can be gone through beforehand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::topology::Topology;
use vcpu_policy_api::yaml;

use super::event::{Action, DomainFault, FaultKind};
use super::load::{Load, TraceRow, TraceRows};
use super::value::{Pattern, Pins};
use super::{DomainSpec, MOST_GUESTS, MOST_STARTS, Scenario, ScenarioError};
use crate::trace::wide_csv::{self, WideCsvError};

/// How many of a long list of names an error shows.
const NAMES_SHOWN: usize = 8;

impl Scenario {
    /// Checks everything but the traces.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        self.check_count()?;
        let mut course = Course::new(self);
        course.present("host.isolated", &self.host.isolated)?;
        for (at, spec) in self.domains.iter().enumerate() {
            course.start(&format!("domains[{at}]"), spec)?;
        }
        let mut in_time: Vec<usize> = (0..self.events.len()).collect();
        in_time.sort_by_key(|&at| self.events[at].at);
        for at in in_time {
            let action = &self.events[at].action;
            course.act(&format!("events[{at}].{}", action.key()), action)?;
        }
        Ok(())
    }

    /// Everything that is to become a domain, with the path of its key.
    fn specs(&self) -> impl Iterator<Item = (String, &DomainSpec)> {
        let domains = self.domains.iter().enumerate();
        let created = self
            .events
            .iter()
            .enumerate()
            .filter_map(|(at, event)| match &event.action {
                Action::Create(spec) => Some((format!("events[{at}].create"), spec.as_ref())),
                _ => None,
            });
        domains
            .map(|(at, spec)| (format!("domains[{at}]"), spec))
            .chain(created)
    }

    /// Its names can be kept in memory.
    fn check_count(&self) -> Result<(), ScenarioError> {
        let mut count: u64 = 0;
        for (path, spec) in self.specs() {
            count += u64::from(spec.count.get());
            if count > u64::from(MOST_STARTS) {
                let problem =
                    format!("{count} domains would be started by now; expected {MOST_STARTS} at most");
                return Err(value(&path, problem));
            }
        }
        Ok(())
    }

    /// Reads the rows of the traces that its domains name.
    pub(super) fn read_traces(&mut self, folder: &Path) -> Result<(), ScenarioError> {
        let mut wanted: BTreeMap<PathBuf, Vec<Wanted>> = BTreeMap::new();
        for (path, spec) in self.specs() {
            if let Load::Trace(TraceRow { trace, row }) = &spec.load {
                let copies = spec.count.get() as usize;
                let first = *row as usize;
                wanted.entry(trace.clone()).or_default().push(Wanted {
                    path: format!("{path}.load"),
                    rows: first..first + copies,
                });
            }
        }
        for (file, wanted) in wanted {
            let rows = read_rows(&folder.join(&file), &wanted)?;
            self.traces.insert(file, rows);
        }
        Ok(())
    }
}

/// The rows that a domain asks of a trace.
struct Wanted {
    path: String,
    rows: std::ops::Range<usize>,
}

fn read_rows(file: &Path, wanted: &[Wanted]) -> Result<TraceRows, ScenarioError> {
    let failed = |source: WideCsvError| ScenarioError::Trace {
        path: wanted[0].path.clone(),
        file: file.to_owned(),
        source,
    };
    let last = wanted.iter().map(|wanted| wanted.rows.end).max().unwrap_or(0);
    let mut reader = wide_csv::Reader::open(file).map_err(failed)?;
    let mut trace = TraceRows {
        times: std::sync::Arc::clone(reader.times()),
        rows: BTreeMap::new(),
    };
    let mut count = 0;
    while count < last
        && let Some(row) = reader.next_row().map_err(failed)?
    {
        if wanted.iter().any(|wanted| wanted.rows.contains(&count)) {
            trace
                .rows
                .insert(count, row.parse().map_err(failed)?.values.into());
        }
        count += 1;
    }
    match wanted.iter().find(|wanted| wanted.rows.end > count) {
        None => Ok(trace),
        Some(Wanted { path, rows }) => Err(value(
            path,
            format!(
                "{} has {count} rows, but row {} is asked for; rows count from 0, and each copy of a domain takes the next",
                file.display(),
                rows.end - 1
            ),
        )),
    }
}

/// The domains and CPUs of a scenario, in the course of it.
struct Course<'a> {
    topology: &'a Topology,
    online: OsCpuSet,
    /// The vCPUs of the domains that are there now.
    there: BTreeMap<String, u32>,
    /// The vCPUs of the domains that are saved now.
    saved: BTreeMap<String, u32>,
    /// Every name that a domain ever has, and the most vCPUs that it ever can have.
    ever: BTreeMap<String, u32>,
}

impl<'a> Course<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut ever: BTreeMap<String, u32> = BTreeMap::new();
        for (_, spec) in scenario.specs() {
            for name in spec.names() {
                let most = ever.entry(name).or_default();
                *most = spec.vcpus.get().max(*most);
            }
        }
        for event in &scenario.events {
            if let Action::Vcpus(change) = &event.action {
                for (_, most) in ever.iter_mut().filter(|(name, _)| change.domain.matches(name)) {
                    *most = change.count.get().max(*most);
                }
            }
        }
        Self {
            topology: &scenario.topology,
            online: scenario.topology.online(),
            there: BTreeMap::new(),
            saved: BTreeMap::new(),
            ever,
        }
    }

    /// Domains come into being.
    fn start(&mut self, path: &str, spec: &DomainSpec) -> Result<(), ScenarioError> {
        match &spec.pin {
            None => {}
            Some(Pins::Same(cpus)) => self.present(&format!("{path}.pin"), cpus)?,
            Some(Pins::EachInTurn(list)) => {
                for (at, cpus) in list.iter().enumerate() {
                    self.present(&format!("{path}.pin[{at}]"), cpus)?;
                }
            }
        }
        if let Some(cpus) = &spec.cpuset {
            self.present(&format!("{path}.cpuset"), cpus)?;
        }
        if let Some(cpus) = &spec.metadata.cpus {
            self.present(&format!("{path}.metadata.cpus"), cpus)?;
        }
        for name in spec.names() {
            if self.saved.contains_key(&name) {
                return Err(value(
                    &format!("{path}.name"),
                    format!("the domain \"{name}\" is saved at that time; expected a restore of it"),
                ));
            }
            if self.there.contains_key(&name) {
                return Err(value(
                    &format!("{path}.name"),
                    format!("there already is a domain \"{name}\" at that time"),
                ));
            }
            self.there.insert(name, spec.vcpus.get());
        }
        self.check_size(path)
    }

    fn act(&mut self, path: &str, action: &Action) -> Result<(), ScenarioError> {
        match action {
            Action::Create(spec) => self.start(path, spec)?,
            Action::Destroy(domain) => {
                self.known(path, domain)?;
                self.there.retain(|name, _| !domain.matches(name));
            }
            Action::Pause(domain) | Action::Resume(domain) | Action::Reboot(domain) => {
                self.known(path, domain)?;
            }
            Action::Save(domain) => {
                self.known(path, domain)?;
                pass(domain, &mut self.there, &mut self.saved);
            }
            Action::Restore(domain) => {
                self.known(path, domain)?;
                pass(domain, &mut self.saved, &mut self.there);
                self.check_size(path)?;
            }
            Action::Load(change) => self.known(&format!("{path}.domain"), &change.domain)?,
            Action::Cpuset(change) => {
                self.known(&format!("{path}.domain"), &change.domain)?;
                self.present(&format!("{path}.cpus"), &change.cpus)?;
            }
            Action::Pin(pin) => {
                self.known(&format!("{path}.domain"), &pin.domain)?;
                self.present(&format!("{path}.cpus"), &pin.cpus)?;
                self.vcpu(&format!("{path}.vcpu"), &pin.domain, pin.vcpu)?;
            }
            Action::Vcpus(change) => {
                self.known(&format!("{path}.domain"), &change.domain)?;
                for (_, vcpus) in self
                    .there
                    .iter_mut()
                    .filter(|(name, _)| change.domain.matches(name))
                {
                    *vcpus = change.count.get();
                }
                self.check_size(path)?;
            }
            Action::Online(cpus) => {
                self.present(path, cpus)?;
                self.online.unite(cpus.as_ref());
            }
            Action::Offline(cpus) => {
                self.present(path, cpus)?;
                self.online.subtract(cpus.as_ref());
                if self.online.is_empty() {
                    return Err(value(
                        path,
                        "no CPU would be left online; expected one that stays",
                    ));
                }
            }
            Action::Fail(fault) => {
                if let FaultKind::OfDomain(DomainFault {
                    domain: Some(domain), ..
                }) = &fault.kind
                {
                    self.known(&format!("{path}.domain"), domain)?;
                }
            }
        }
        Ok(())
    }

    /// A pattern is of a name that a domain has at some time.
    fn known(&self, path: &str, pattern: &Pattern) -> Result<(), ScenarioError> {
        if self.ever.keys().any(|name| pattern.matches(name)) {
            return Ok(());
        }
        let mut names: Vec<&str> = self.ever.keys().take(NAMES_SHOWN).map(String::as_str).collect();
        if self.ever.len() > NAMES_SHOWN {
            names.push("…");
        }
        let problem = match names.as_slice() {
            [] => format!("no domain is ever called \"{pattern}\"; the scenario has none"),
            names => format!(
                "no domain is ever called \"{pattern}\"; there are {}",
                names.join(", ")
            ),
        };
        Err(value(path, problem))
    }

    /// Some domain of the pattern has a vCPU of this number at some time.
    fn vcpu(&self, path: &str, pattern: &Pattern, number: u32) -> Result<(), ScenarioError> {
        let matching = self.ever.iter().filter(|(name, _)| pattern.matches(name));
        let most = matching.map(|(_, &vcpus)| vcpus).max().unwrap_or(0);
        if number < most {
            return Ok(());
        }
        let known = if most == 1 {
            "0 is the only one".to_owned()
        } else {
            format!("they count from 0 to {}", most - 1)
        };
        Err(value(
            path,
            format!("\"{pattern}\" never has a vCPU {number}; {known}"),
        ))
    }

    fn present(&self, path: &str, cpus: &OsCpuSet) -> Result<(), ScenarioError> {
        match cpus.iter().find(|&cpu| !self.topology.is_present(cpu)) {
            None => Ok(()),
            Some(cpu) => Err(value(
                path,
                format!(
                    "the host has no CPU {cpu}; it has {}",
                    present_cpus(self.topology)
                ),
            )),
        }
    }

    fn check_size(&self, path: &str) -> Result<(), ScenarioError> {
        let vcpus: u64 = self.there.values().map(|&vcpus| u64::from(vcpus)).sum();
        if vcpus <= u64::from(MOST_GUESTS) {
            return Ok(());
        }
        let problem = format!("the host would have {vcpus} vCPUs then; expected {MOST_GUESTS} at most");
        Err(value(path, problem))
    }
}

/// Moves what matches from one map to another.
fn pass(domain: &Pattern, from: &mut BTreeMap<String, u32>, to: &mut BTreeMap<String, u32>) {
    from.retain(|name, vcpus| {
        let passes = domain.matches(name);
        if passes {
            to.insert(name.clone(), *vcpus);
        }
        !passes
    });
}

/// The numbers of a host's CPUs, online or not.
pub(crate) fn present_cpus(topology: &Topology) -> OsCpuSet {
    let mut present = topology.online();
    present.unite(topology.offline().as_ref());
    present
}

fn value(path: &str, problem: impl Into<String>) -> ScenarioError {
    ScenarioError::Value {
        path: path.to_owned(),
        problem: yaml::elided(&problem.into()),
    }
}
