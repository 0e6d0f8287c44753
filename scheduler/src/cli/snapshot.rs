//! `snapshot`: one snapshot of a host as YAML.

use std::io::Write;
use std::time::Instant;

use anyhow::anyhow;
use vcpu_policy_api::document;

use super::Failure;
use super::args::SnapshotArgs;
use super::connection::connect;
use super::signals::Signals;
use super::simulate::read;
use crate::engine::collect::Collector;
use crate::engine::terms::Terms;
use crate::host::libvirt::Access;
use crate::host::simulated::{Scenario, SimulatedHost};
use crate::host::{Host, Sample};

pub(super) fn snapshot(args: &SnapshotArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let text = match &args.scenario {
        Some(path) => of_scenario(read(path)?, args.tick.unwrap_or(1))?,
        None => of_live_host(args)?,
    };
    output.write_all(text.as_bytes())?;
    Ok(())
}

fn of_scenario(scenario: Scenario, tick: u64) -> Result<String, Failure> {
    let mut collector = Collector::new(Terms {
        seed: scenario.seed(),
        ..Terms::default()
    });
    let mut host = SimulatedHost::new(scenario);
    let mut text = None;
    // The baseline comes before tick 1.
    for at in 0..=tick {
        text = if let Ok(sample) = host.sample() {
            document_of(&mut collector, &sample, at == tick)?
        } else {
            collector.interrupt();
            None
        };
    }
    text.ok_or_else(|| {
        Failure::Caller(anyhow!(
            "tick {tick} of the scenario has no sample to compare with another"
        ))
    })
}

/// The host at the beginning and at the end of the interval.
fn of_live_host(args: &SnapshotArgs) -> Result<String, Failure> {
    let stop = Signals::handle(None)?.stop;
    let effective = args.connect.sources()?.read().map_err(Failure::caller)?;
    let connected = connect(&effective, Access::ReadOnly, &stop);
    let (mut host, _) = connected.map_err(Failure::world)?;
    let mut collector = Collector::new(Terms::default());
    let first = host.sample().map_err(Failure::world)?;
    document_of(&mut collector, &first, false)?;
    if stop.wait_until(Instant::now() + args.interval.get()) {
        return Err(Failure::World(anyhow!(
            "interrupted before the interval was over"
        )));
    }
    let second = host.sample().map_err(Failure::world)?;
    let text = document_of(&mut collector, &second, true)?;
    text.ok_or_else(|| Failure::World(anyhow!("the connection was lost in between")))
}

/// Takes in a sample; gives the snapshot as a file if it is `wanted` and not a baseline.
fn document_of(collector: &mut Collector, sample: &Sample, wanted: bool) -> Result<Option<String>, Failure> {
    let collected = collector
        .collect(sample, true, &|_| false)
        .map_err(Failure::world)?;
    Ok(collected
        .filter(|_| wanted)
        .map(|collected| document::write(&collected.snapshot)))
}
