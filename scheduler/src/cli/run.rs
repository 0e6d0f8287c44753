//! `run`: the daemon.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;
use vcpu_policy_api::explain::Explanation;

use super::Failure;
use super::args::RunArgs;
use super::policy::{Chosen, Supervision, registry};
use crate::engine::Decision;
use crate::engine::daemon::{self, DaemonError, Settings};
use crate::engine::stop::Stop;
use crate::engine::verify::NamedRejection;
use crate::host::libvirt::{Access, LibvirtHost};
use crate::host::watched::{Open, Watched};
use crate::host::{Host, HostError};

pub(super) fn run(args: &RunArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let sources = args.settings.sources()?;
    let effective = sources.read().map_err(Failure::caller)?;
    let registry = registry(&effective, Supervision::of_daemon(&effective, Some(stop.clone())))?;
    let chosen = Chosen::new(&registry, &effective)?;
    let terms = effective.terms(0);
    let mut engine = chosen.engine(terms)?;
    let access = if args.dry_run {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let uri = effective.connect.as_str();
    info!(
        uri,
        interval = %humantime::format_duration(effective.interval.get()),
        config = effective.file.as_ref().map(|file| tracing::field::display(file.display())),
        dry_run = args.dry_run,
        "policy {} {}: {}",
        chosen.entry.offer.name,
        chosen.entry.offer.version,
        chosen.entry.offer.summary
    );
    let mut host = match Watched::open(
        open_libvirt(uri.to_owned(), access),
        stop.clone(),
        effective.call_timeout.get(),
    ) {
        Ok(host) => host,
        Err(HostError::Stopped) => return Ok(()),
        Err(error) => return Err(Failure::world(error)),
    };
    let settings = Settings {
        interval: effective.interval.get(),
        once: args.once,
        dry_run: args.dry_run,
    };
    let mut proposals = |decision: &Decision<'_>| write_proposal(output, decision);
    let totals = daemon::run(&mut host, &mut engine, &stop, settings, &mut proposals).map_err(failure)?;
    info!(ticks = totals.ticks, pins = totals.pins, "stopped");
    Ok(())
}

/// Opens libvirt, as often as it is asked to.
pub(super) fn open_libvirt(uri: String, access: Access) -> Open {
    Arc::new(move || Ok(Box::new(LibvirtHost::open(Some(&uri), access)?) as Box<dyn Host>))
}

fn failure(error: DaemonError) -> Failure {
    match error {
        DaemonError::Host(error) => Failure::world(error),
        error => Failure::world(error),
    }
}

/// The first signal asks to stop, a second one ends the process at once.
pub(super) fn stop_on_signals() -> Result<Stop, Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .context("cannot wait for signals")
        .map_err(Failure::world)?;
    let (stopper, stop) = Stop::new();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut signals = signals.forever();
            if let Some(signal) = signals.next() {
                info!(signal = signal_hook::low_level::signal_name(signal), "stopping");
                drop(stopper);
            }
            if let Some(signal) = signals.next() {
                std::process::exit(128 + signal);
            }
        })
        .context("cannot start a thread")
        .map_err(Failure::world)?;
    Ok(stop)
}

/// What a dry run would do now: the explained decision.
fn write_proposal(output: &mut dyn Write, decision: &Decision<'_>) -> std::io::Result<()> {
    let snapshot = &decision.collected.snapshot;
    writeln!(output, "tick    {}", snapshot.tick())?;
    write!(output, "{}", Explanation::new(snapshot, decision.plan))?;
    for rejected in &decision.verdict.rejected {
        writeln!(output, "refused {}", NamedRejection::new(snapshot, rejected))?;
    }
    writeln!(output)?;
    output.flush()
}
