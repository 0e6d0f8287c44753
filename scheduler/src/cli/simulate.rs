//! `simulate`: what a policy does to a simulated host.

use std::io::Write;

use anyhow::Context;

use super::Failure;
use super::args::{Format, SimulateArgs};
use super::policy::{Chosen, Supervision, check_host, registry};
use super::table::TickTable;
use crate::engine::terms::Terms;
use crate::evaluate::simulation::{Setting, cpu_numbers, simulate as run};
use crate::host::simulated::{Scenario, SimulatedHost};

pub(super) fn simulate(args: &SimulateArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let effective = args.sources()?.read().map_err(Failure::caller)?;
    let registry = registry(&effective, Supervision::unhurried(&effective))?;
    let chosen = Chosen::new(&registry, &effective)?;
    let scenario = read(&args.scenario)?;
    // Without a configuration nothing binds the policy, so that what is seen is what it would do by itself.
    let terms = match &args.config {
        Some(_) => effective.terms(scenario.seed()),
        None => Terms {
            seed: scenario.seed(),
            ..Terms::default()
        },
    };
    let mut engine = chosen.engine(terms)?;
    let setting = Setting {
        policy: chosen.name().to_owned(),
        ticks: args.ticks.unwrap_or(u64::from(scenario.ticks())),
        threshold: chosen.threshold(),
    };
    let title = scenario.name().to_owned();
    let mut host = SimulatedHost::new(scenario);
    if args.config.is_some() {
        check_host(&effective, host.present_cpus())?;
    }
    match args.format.format {
        Format::Json => {
            let report = run(&mut host, &mut engine, &setting, |_| Ok::<_, Failure>(()))?;
            serde_json::to_writer_pretty(&mut *output, &report).map_err(std::io::Error::from)?;
            writeln!(output)?;
        }
        Format::Table => {
            let table = TickTable::new(cpu_numbers(&host), setting.threshold);
            writeln!(output, "{title}, policy {}", setting.policy)?;
            table.write_head(output)?;
            let report = run(&mut host, &mut engine, &setting, |tick| {
                table.write_tick(output, tick)
            })?;
            table.write_verdict(output, &report)?;
        }
    }
    Ok(())
}

pub(super) fn read(path: &std::path::Path) -> Result<Scenario, Failure> {
    Scenario::read(path)
        .with_context(|| format!("cannot use the scenario {}", path.display()))
        .map_err(Failure::caller)
}
