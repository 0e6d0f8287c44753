//! `decide`: what policies would do with a snapshot, and why.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use vcpu_policy_api::document;
use vcpu_policy_api::explain::Explanation;
use vcpu_policy_api::plan::{NamedAction, Plan, managed_stddev, projected_loads};
use vcpu_policy_api::snapshot::{Cpu, Snapshot, SnapshotBlock};

use super::Failure;
use super::args::{DecideArgs, Format};
use super::policy::{Chosen, Supervision, check_host, registry};
use crate::engine::verify::{NamedRejection, named, verify};
use crate::evaluate::bound::bound;

/// One policy's decision, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct DecisionReport {
    policy: String,
    stddev: Stddev,
    actions: Vec<NamedAction>,
    notes: Vec<String>,
    rejected: Vec<NamedRejection>,
}

/// Standard deviations of the managed pCPUs' loads, percent of a pCPU.
#[derive(Debug, Serialize)]
struct Stddev {
    now: f64,
    projected: f64,
}

pub(super) fn decide(args: &DecideArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let effective = args.sources()?.read().map_err(Failure::caller)?;
    let registry = registry(&effective, Supervision::unhurried(&effective))?;
    let policies = match args.policies.as_slice() {
        [] => std::slice::from_ref(&effective.policy),
        named => named,
    };
    let policies = Chosen::several(&registry, policies, &args.options.given(), &effective)?;
    let mut block = read(&args.snapshot)?;
    if args.config.is_some() {
        let cpus = block.view().cpus().map(Cpu::os_id).collect();
        check_host(&effective, &cpus)?;
        block =
            bound(&block.view(), &effective.constraints(), effective.limits()).map_err(Failure::caller)?;
    }
    let snapshot = block.view();
    let mut reports = Vec::new();
    for (at, chosen) in policies.iter().enumerate() {
        let mut policy = chosen.make()?;
        let mut plan = Plan::new();
        policy
            .decide(&snapshot, &mut plan)
            .with_context(|| format!("policy {} could not decide", chosen.name()))
            .map_err(Failure::world)?;
        let report = DecisionReport::new(chosen.name(), &snapshot, &plan);
        if args.format.format == Format::Table {
            let separator = if at == 0 { "" } else { "\n" };
            writeln!(output, "{separator}policy  {}", report.policy)?;
            write!(output, "{}", Explanation::new(&snapshot, &plan))?;
            for rejected in &report.rejected {
                writeln!(output, "refused {rejected}")?;
            }
        }
        reports.push(report);
    }
    if args.format.format == Format::Json {
        serde_json::to_writer_pretty(&mut *output, &reports).map_err(std::io::Error::from)?;
        writeln!(output)?;
    }
    Ok(())
}

impl DecisionReport {
    fn new(policy: &str, snapshot: &Snapshot<'_>, plan: &Plan) -> Self {
        let verdict = verify(snapshot, plan);
        let mut now = Vec::new();
        snapshot.cpu_loads(&mut now);
        let then = projected_loads(snapshot, verdict.accepted.iter().copied());
        Self {
            policy: policy.to_owned(),
            stddev: Stddev {
                now: managed_stddev(snapshot, &now),
                projected: managed_stddev(snapshot, &then),
            },
            actions: named(snapshot, &verdict.accepted),
            notes: plan.notes().map(str::to_owned).collect(),
            rejected: verdict
                .rejected
                .iter()
                .map(|rejected| NamedRejection::new(snapshot, rejected))
                .collect(),
        }
    }
}

fn read(path: &Path) -> Result<SnapshotBlock, Failure> {
    let (text, name) = if path == Path::new("-") {
        let mut text = String::new();
        (
            std::io::stdin().read_to_string(&mut text).map(|_| text),
            "standard input".to_owned(),
        )
    } else {
        (std::fs::read_to_string(path), path.display().to_string())
    };
    let text = text
        .with_context(|| format!("cannot read the snapshot {name}"))
        .map_err(Failure::caller)?;
    document::read(&text)
        .with_context(|| format!("{name} is not a snapshot"))
        .map_err(Failure::caller)
}
