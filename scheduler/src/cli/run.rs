//! `run`: the daemon.

use std::io::Write;
use std::sync::Arc;

use crossbeam_channel::unbounded;
use tracing::{info, warn};
use vcpu_policy_api::explain::Explanation;

use super::Failure;
use super::args::RunArgs;
use super::configuration::Configuration;
use super::restore;
use super::signals::Signals;
use super::state::{State, read_only_ledger};
use crate::config::{OnExit, Uri};
use crate::engine::Decision;
use crate::engine::daemon::{self, Settings, Surroundings, chain};
use crate::engine::verify::NamedRejection;
use crate::host::libvirt::{Access, LibvirtHost};
use crate::host::watched::{Open, Watched};
use crate::host::{Host, HostError, HostIdentity};
use crate::operate::control::Control;

pub(super) fn run(args: &RunArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let (orders, ordered) = unbounded();
    let signals = Signals::handle(Some(orders.clone()))?;
    let mut configuration = Configuration::read(args.settings.sources()?)?;
    let settings = Settings {
        interval: configuration.effective.interval.get(),
        once: args.once,
        dry_run: args.dry_run,
    };
    let terms = configuration.effective.terms(0);
    let mut engine = match configuration.engine(terms, &signals.stop) {
        // Whatever it says, nobody waits for a plugin any more.
        Err(_) if signals.stop.is_requested() => return Ok(()),
        engine => engine?,
    };
    configuration.announce(settings);
    let (mut host, identity) = match connect(&configuration, args.dry_run, &signals) {
        Ok(connected) => connected,
        Err(HostError::Stopped) => return Ok(()),
        Err(error) => return Err(Failure::world(error)),
    };
    configuration.meets(&identity)?;
    let state_dir = configuration.state_dir().map(std::path::Path::to_owned);
    let mut proposals = |decision: &Decision<'_>| write_proposal(output, decision);
    let mut around = Surroundings {
        stop: &signals.stop,
        orders: &ordered,
        proposals: &mut proposals,
        reload: &mut || configuration.renew(settings, &signals.stop),
    };
    if args.dry_run {
        let mut ledger = read_only_ledger(&identity, state_dir.as_deref());
        let totals = daemon::run(&mut host, &mut engine, &mut ledger, settings, &mut around)
            .map_err(Failure::world)?;
        info!(ticks = totals.ticks, "stopped");
        return Ok(());
    }
    let mut state = State::open(&identity, state_dir.as_deref(), "run")?;
    let _control = Control::listen(&state.folder, orders)
        .inspect_err(|error| warn!("{}; `release` works only while no daemon runs", chain(error)));
    let ran = daemon::run(&mut host, &mut engine, &mut state.ledger, settings, &mut around);
    // One tick is asked for its pins, so they stay.
    let restored = if args.once || configuration.effective.on_exit == OnExit::Keep {
        Ok(())
    } else {
        let terms = engine.terms().clone();
        let timeout = configuration.effective.stop_timeout.get();
        restore::at_the_end(&mut host, &mut state.ledger, &terms, timeout, &signals.hurry)
    };
    if let Ok(totals) = &ran {
        if args.once && totals.pins > 0 {
            info!("the pins stay; `vcpu-scheduler restore` gives the affinities back");
        }
        info!(ticks = totals.ticks, pins = totals.pins, "stopped");
    }
    ran.map_err(Failure::world).and(restored)
}

/// Opens the connection, and asks which host it leads to.
fn connect(
    configuration: &Configuration,
    dry_run: bool,
    signals: &Signals,
) -> Result<(Watched, HostIdentity), HostError> {
    let access = if dry_run {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let effective = &configuration.effective;
    let open = open_libvirt(&effective.connect, access);
    let mut host = Watched::open(open, signals.stop.clone(), effective.call_timeout.get())?;
    let identity = host.identity()?;
    Ok((host, identity))
}

/// Opens libvirt, as often as it is asked to.
pub(super) fn open_libvirt(uri: &Uri, access: Access) -> Open {
    let uri = uri.as_str().to_owned();
    Arc::new(move || Ok(Box::new(LibvirtHost::open(Some(&uri), access)?) as Box<dyn Host>))
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
