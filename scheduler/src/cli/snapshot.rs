//! `snapshot`: one snapshot of a host as YAML.

use std::io::Write;
use std::time::Instant;

use anyhow::anyhow;
use vcpu_policy_api::document;

use super::Failure;
use super::args::SnapshotArgs;
use super::run::{open_libvirt, stop_on_signals};
use super::simulate::read;
use crate::engine::collect::{Collector, Terms};
use crate::host::libvirt::Access;
use crate::host::simulated::SimulatedHost;
use crate::host::watched::{PATIENCE, Watched};
use crate::host::{Host, HostError, Sample};

pub(super) fn snapshot(args: &SnapshotArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let samples = match &args.scenario {
        Some(path) => {
            let mut host = SimulatedHost::new(read(path)?);
            // The baseline comes before tick 1.
            (0..=args.tick).map(|_| host.sample()).collect()
        }
        None => two_samples(args)?,
    };
    let mut collector = Collector::new(Terms::default());
    let mut text = None;
    for sample in samples {
        match sample {
            Ok(sample) => {
                let collected = collector.collect(&sample, true).map_err(Failure::world)?;
                text = collected.map(|collected| document::write(&collected.snapshot));
            }
            Err(error) => {
                collector.interrupt();
                text = None;
                if args.scenario.is_none() {
                    return Err(Failure::world(error));
                }
            }
        }
    }
    let text = text.ok_or_else(|| {
        Failure::World(anyhow!(
            "tick {} of the scenario has no sample to compare",
            args.tick
        ))
    })?;
    output.write_all(text.as_bytes())?;
    Ok(())
}

/// A live host at the beginning and at the end of the interval.
fn two_samples(args: &SnapshotArgs) -> Result<Vec<Result<Sample, HostError>>, Failure> {
    let stop = stop_on_signals()?;
    let uri = args.connect.uri().to_owned();
    let mut host =
        Watched::open(open_libvirt(uri, Access::ReadOnly), stop.clone(), PATIENCE).map_err(Failure::world)?;
    let first = host.sample().map_err(Failure::world)?;
    if stop.wait_until(Instant::now() + args.interval.get()) {
        return Err(Failure::world(HostError::Stopped));
    }
    Ok(vec![Ok(first), host.sample()])
}
