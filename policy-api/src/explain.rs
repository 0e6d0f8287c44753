//! A decision as a table that people can read, and that tests compare.
//!
//! In go a snapshot and the plan a policy made of it; out comes text: the loads now and as foretold, who makes up each
//! load, the pins with their reasons, and the notes. The text depends on nothing else, so it serves as a golden file.
//!
//! ```text
//! host    2 pCPUs, 2 domains, 3 vCPUs
//! stddev  50.00 -> 20.00
//! cpu 0   100.0 ->  30.0  web/0 70.0, db/0 30.0 fixed
//! cpu 1     0.0 ->  70.0
//! no cpu                  new/0 ?
//! pin     web/0  0 -> 1  gain 30.00  …
//! ```
//!
//! `fixed` is a vCPU that may not be pinned in this tick, `?` a load that is not known, `reserved` a CPU that takes no
//! part in the balance. A large host gets lines only for the CPUs that matter; a crowded CPU names only its heaviest.

use std::fmt;

use crate::ids::{CpuIx, Index, OsCpuId};
use crate::plan::{Action, Plan, managed_stddev, projected_loads};
use crate::snapshot::{Cpu, Snapshot, Vcpu};

/// Up to how many pCPUs are listed one by one.
const LISTED_CPUS: usize = 16;

/// Up to how many vCPUs of a pCPU are named.
const NAMED_VCPUS: usize = 4;

/// The table of one decision; see the [module](self).
#[derive(Debug, Clone, Copy)]
pub struct Explanation<'a> {
    snapshot: &'a Snapshot<'a>,
    plan: &'a Plan,
}

impl<'a> Explanation<'a> {
    /// The table of `plan`, made of `snapshot`.
    pub fn new(snapshot: &'a Snapshot<'a>, plan: &'a Plan) -> Self {
        Self { snapshot, plan }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut now = Vec::new();
        self.snapshot.cpu_loads(&mut now);
        let then = projected_loads(self.snapshot, self.plan.actions());
        let (cpus, domains, vcpus) = self.snapshot.counts();
        let (cpus, domains, vcpus) = (
            counted(cpus, "pCPU"),
            counted(domains, "domain"),
            counted(vcpus, "vCPU"),
        );
        writeln!(f, "host    {cpus}, {domains}, {vcpus}")?;
        write!(f, "stddev  {:.2}", managed_stddev(self.snapshot, &now))?;
        if self.plan.actions().len() > 0 {
            write!(f, " -> {:.2}", managed_stddev(self.snapshot, &then))?;
        }
        writeln!(f)?;
        self.write_cpus(f, &now, &then)?;
        for action in self.plan.actions() {
            self.write_action(f, &action)?;
        }
        for note in self.plan.notes() {
            writeln!(f, "note    {note}")?;
        }
        Ok(())
    }
}

impl Explanation<'_> {
    fn write_cpus(&self, f: &mut fmt::Formatter<'_>, now: &[f64], then: &[f64]) -> fmt::Result {
        let mut lines = Vec::new();
        let listed = self.listed(now, then);
        for &ix in &listed {
            let (at, cpu) = (ix.index(), self.snapshot.cpu(ix));
            let mut carried = self.carried(Some(ix));
            if !cpu.is_managed() {
                carried.insert_str(
                    0,
                    if carried.is_empty() {
                        "reserved"
                    } else {
                        "reserved; "
                    },
                );
            }
            let change = changes(now[at], then[at]).then(|| format!(" -> {:>5}", percent(then[at])));
            lines.push(Line {
                name: format!("cpu {}", cpu.os_id()),
                load: format!("{:>5}", percent(now[at])),
                change: change.unwrap_or_default(),
                carried,
            });
        }
        lines.push(Line {
            name: "no cpu".to_owned(),
            carried: self.carried(None),
            ..Line::default()
        });
        lines.retain(|line| !(line.load.is_empty() && line.carried.is_empty()));
        Line::write_all(&lines, f)?;
        match now.len() - listed.len() {
            0 => Ok(()),
            left_out => writeln!(f, "        and {}, unchanged", counted(left_out, "more pCPU")),
        }
    }

    /// The pCPUs that get a line: all of a small host; of a large one those that change, the most and the least loaded.
    fn listed(&self, now: &[f64], then: &[f64]) -> Vec<CpuIx> {
        let all = self.snapshot.cpus().map(Cpu::ix);
        if now.len() <= LISTED_CPUS {
            return all.collect();
        }
        let managed = || self.snapshot.cpus().filter(|cpu| cpu.is_managed()).map(Cpu::ix);
        let load = |cpu: CpuIx| now[cpu.index()];
        let most = managed().reduce(|most, cpu| if load(cpu) > load(most) { cpu } else { most });
        let least = managed().reduce(|least, cpu| if load(cpu) < load(least) { cpu } else { least });
        all.filter(|&cpu| {
            changes(now[cpu.index()], then[cpu.index()]) || Some(cpu) == most || Some(cpu) == least
        })
        .collect()
    }

    /// The vCPUs that count on a CPU, the heaviest first.
    fn carried(&self, cpu: Option<CpuIx>) -> String {
        let mut vcpus: Vec<Vcpu<'_>> = self.snapshot.vcpus_on(cpu).collect();
        let load = |vcpu: &Vcpu<'_>| vcpu.load().unwrap_or(-1.0);
        vcpus.sort_by(|a, b| load(b).total_cmp(&load(a)));
        let mut names: Vec<String> = vcpus.iter().take(NAMED_VCPUS).map(named).collect();
        if let Some(left_out) = vcpus.len().checked_sub(NAMED_VCPUS).filter(|&count| count > 0) {
            names.push(format!("{left_out} more"));
        }
        names.join(", ")
    }

    fn write_action(&self, f: &mut fmt::Formatter<'_>, action: &Action<'_>) -> fmt::Result {
        let (cpus, _, vcpus) = self.snapshot.counts();
        if action.vcpu.index() >= vcpus || action.cpus.iter().any(|cpu| cpu.index() >= cpus) {
            return writeln!(
                f,
                "pin     {:?} to CpuIx {:?}: this snapshot has no such rows",
                action.vcpu, action.cpus
            );
        }
        let vcpu = self.snapshot.vcpu(action.vcpu);
        let os_id = |cpu: CpuIx| -> OsCpuId { self.snapshot.cpu(cpu).os_id() };
        let from = vcpu
            .cpu()
            .map_or_else(|| "-".to_owned(), |cpu| os_id(cpu).to_string());
        let to = self.snapshot.os_ids(action.cpus);
        writeln!(
            f,
            "pin     {vcpu}  {from} -> {to}  gain {:.2}  {}",
            action.gain, action.reason
        )
    }
}

/// A pCPU's line, in columns.
#[derive(Default)]
struct Line {
    name: String,
    load: String,
    change: String,
    carried: String,
}

impl Line {
    /// Writes lines with their columns under each other and no blanks at the end.
    fn write_all(lines: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: fn(&Self) -> &str| lines.iter().map(|line| column(line).len()).max().unwrap_or(0);
        let (names, loads, changes) = (
            width(|line| &line.name).max("stddev ".len()),
            width(|line| &line.load),
            width(|line| &line.change),
        );
        for Self {
            name,
            load,
            change,
            carried,
        } in lines
        {
            let line = format!("{name:<names$} {load:>loads$}{change:<changes$}  {carried}");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A vCPU with its load, as `web/0 70.0`.
fn named(vcpu: &Vcpu<'_>) -> String {
    let load = vcpu.load().map_or_else(|| "?".to_owned(), percent);
    let fixed = if vcpu.is_movable() && vcpu.domain().is_managed() {
        ""
    } else {
        " fixed"
    };
    format!("{vcpu} {load}{fixed}")
}

/// A load to the tenth; one that only a slip of the pen can have made, without its zeros.
fn percent(load: f64) -> String {
    if load < 1e9 {
        format!("{load:.1}")
    } else {
        format!("{load:.1e}")
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn changes(now: f64, then: f64) -> bool {
    (now - then).abs() > 1e-9
}
