//! `run`: the daemon.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use tracing::{info, warn};
use vcpu_policy_api::explain::Explanation;

use super::Failure;
use super::args::RunArgs;
use super::policy::{Chosen, LONGEST_DEADLINE, Supervision, registry};
use super::restore;
use super::signals::Signals;
use super::state::{State, read_only_ledger};
use crate::engine::daemon::{self, Settings, Surroundings, chain};
use crate::engine::terms::{Limits, Terms};
use crate::engine::verify::NamedRejection;
use crate::engine::{Decision, Engine};
use crate::host::libvirt::{Access, LibvirtHost};
use crate::host::watched::{Open, PATIENCE, Watched};
use crate::host::{Host, HostError};
use crate::operate::control::Control;

/// How many pins a tick makes at most: enough to follow a change, too few to stir up a host by mistake.
const MOVES_PER_TICK: u32 = 16;
/// How long giving affinities back may take at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(args: &RunArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let (orders, ordered) = unbounded();
    let signals = Signals::handle(Some(orders.clone()))?;
    let stop = signals.stop.clone();
    let usual_deadline = LONGEST_DEADLINE.min(args.interval.get() / 2);
    let supervision = Supervision::new(&args.supervision, usual_deadline, Some(stop.clone()))?;
    let registry = registry(&args.policy.plugins, supervision)?;
    let chosen = Chosen::new(&registry, &args.policy.policy, &args.policy.options)?;
    let terms = Terms {
        seed: 0,
        limits: Limits {
            moves_per_tick: Some(MOVES_PER_TICK),
            ..Limits::default()
        },
        ..Terms::default()
    };
    let mut engine = Engine::new(chosen.maker(), terms).map_err(Failure::caller)?;
    let access = if args.dry_run {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let uri = args.connect.uri();
    info!(
        uri,
        interval = %humantime::format_duration(args.interval.get()),
        dry_run = args.dry_run,
        "policy {} {}: {}",
        chosen.entry.offer.name,
        chosen.entry.offer.version,
        chosen.entry.offer.summary
    );
    let mut host = match Watched::open(open_libvirt(uri.to_owned(), access), stop.clone(), PATIENCE) {
        Ok(host) => host,
        Err(HostError::Stopped) => return Ok(()),
        Err(error) => return Err(Failure::world(error)),
    };
    let settings = Settings {
        interval: args.interval.get(),
        once: args.once,
        dry_run: args.dry_run,
    };
    let identity = match host.identity() {
        Ok(identity) => identity,
        Err(HostError::Stopped) => return Ok(()),
        Err(error) => return Err(Failure::world(error)),
    };
    let mut proposals = |decision: &Decision<'_>| write_proposal(output, decision);
    let mut around = Surroundings {
        stop: &stop,
        orders: &ordered,
        proposals: &mut proposals,
        reload: &mut || None,
    };
    if args.dry_run {
        let mut ledger = read_only_ledger(&identity, None);
        let totals = daemon::run(&mut host, &mut engine, &mut ledger, settings, &mut around)
            .map_err(Failure::world)?;
        info!(ticks = totals.ticks, "stopped");
        return Ok(());
    }
    let mut state = State::open(&identity, args.state.state_dir.as_deref(), "run")?;
    let _control = Control::listen(&state.folder, orders)
        .inspect_err(|error| warn!("{}; `release` works only while no daemon runs", chain(error)));
    let ran = daemon::run(&mut host, &mut engine, &mut state.ledger, settings, &mut around);
    if let Ok(totals) = &ran {
        info!(ticks = totals.ticks, pins = totals.pins, "stopped");
    }
    let restored = if args.once {
        Ok(())
    } else {
        let terms = engine.terms().clone();
        restore::at_the_end(&mut host, &mut state.ledger, &terms, STOP_TIMEOUT, &signals.hurry)
    };
    ran.map_err(Failure::world).and(restored)
}

/// Opens libvirt, as often as it is asked to.
pub(super) fn open_libvirt(uri: String, access: Access) -> Open {
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
