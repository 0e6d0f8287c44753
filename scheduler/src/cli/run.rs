//! `run`: the daemon.

use std::io::Write;

use crossbeam_channel::unbounded;
use tracing::{info, warn};
use vcpu_policy_api::explain::Explanation;

use super::Failure;
use super::args::RunArgs;
use super::configuration::Configuration;
use super::connection::connect;
use super::restore;
use super::signals::Signals;
use super::state::{self, State, read_only_ledger};
use crate::config::OnExit;
use crate::engine::Decision;
use crate::engine::daemon::{self, RealTime, Settings, Surroundings, chain};
use crate::engine::verify::NamedRejection;
use crate::host::HostError;
use crate::host::libvirt::Access;
use crate::operate::control::{Control, is_answered};

pub(super) fn run(args: &RunArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let (orders, ordered) = unbounded();
    let signals = Signals::handle(Some(orders.clone()))?;
    let mut configuration = match Configuration::read(args.settings.sources()?, &signals.stop) {
        Err(_) if signals.stop.is_requested() => return Ok(()),
        configuration => configuration?,
    };
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
    let access = if args.dry_run {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let (mut host, identity) = match connect(&configuration.effective, access, &signals.stop) {
        Ok(connected) => connected,
        Err(HostError::Stopped) => return Ok(()),
        Err(error) => return Err(Failure::world(error)),
    };
    configuration.meets(&identity)?;
    let state_dir = configuration.effective.state_dir().map(std::path::Path::to_owned);
    let mut proposals = |decision: &Decision<'_>| write_proposal(output, decision);
    let mut around = Surroundings {
        pace: &mut RealTime {
            stop: &signals.stop,
            orders: &ordered,
        },
        chance: u64::from(std::process::id()),
        proposals: &mut proposals,
        reload: &mut || configuration.renew(settings, &signals.stop),
    };
    if args.dry_run {
        let is_beside = state::folder(&identity, state_dir.as_deref()).is_ok_and(|it| is_answered(&it));
        if is_beside && !args.once {
            warn!(
                "a scheduler runs for this host: what it pins from now on counts here as pinned by another hand; \
                 --once shows what would be done now"
            );
        }
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
    let stay = args.once || configuration.effective.on_exit == OnExit::Keep;
    let restored = if stay {
        Ok(())
    } else {
        let terms = engine.terms().clone();
        let timeout = configuration.effective.stop_timeout.get();
        restore::at_the_end(&mut host, &mut state.ledger, &terms, timeout, &signals.hurry)
    };
    if let Ok(totals) = &ran {
        if args.once && totals.pins > 0 {
            info!("the pins stay; `vcpu-scheduler restore` gives the affinities back");
        } else if stay && !args.once && !state.ledger.has_nothing_to_give_back() {
            info!(
                "the pins stay, as on-exit says: the next daemon takes them over, or `vcpu-scheduler restore` gives \
                 the affinities back"
            );
        }
        info!(ticks = totals.ticks, pins = totals.pins, "stopped");
    }
    ran.map_err(Failure::world).and(restored)
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
