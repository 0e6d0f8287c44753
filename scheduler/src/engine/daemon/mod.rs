//! The loop: a tick at each point of a fixed grid, until told to stop.
//!
//! The grid begins with the baseline sample and has a point every interval. A tick that comes late skips the points it
//! missed; there are no bursts. A fault costs the tick it happened in: it is said once, and the loop goes on. What ends
//! the loop is the wish to stop, a host that refuses every pin, or, with `--once`, anything that keeps the one tick from
//! coming to its end.

mod grid;
mod orders;
mod pace;
mod report;
mod wishes;

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::{debug, info, warn};
use vcpu_policy_api::plan::NamedAction;

use self::grid::Grid;
pub use self::orders::{Order, Release, ReleaseError, Reload, Renewal, release, release_command};
pub use self::pace::{Pace, RealTime, Waited};
use self::report::Troubles;
use self::wishes::Wishes;
use super::apply::{Applied, apply};
use super::journal::JournalError;
use super::ledger::Ledger;
use super::verify::{named, same_request};
use super::{Decision, Engine, TickError};
use crate::host::{Host, HostError, PinError, VcpuKey};

/// How the loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From tick to tick; not 0.
    pub interval: Duration,
    /// One tick, then the end.
    pub once: bool,
    /// Decide, but pin nothing.
    pub dry_run: bool,
}

/// Gets to see each new proposal of a dry run; an error ends the loop.
pub type Proposals<'a> = dyn FnMut(&Decision<'_>) -> io::Result<()> + 'a;

/// Why the loop ended before it was told to.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The host could not be read, and there is no next tick to wait for.
    #[error(transparent)]
    Host(HostError),
    /// The tick came to nothing, and there is no next one.
    #[error(transparent)]
    Tick(#[from] TickError),
    /// The host refuses every pin.
    #[error("pinning is not permitted on this connection; --dry-run shows what would be done and only reads")]
    Forbidden(#[source] PinError),
    /// Nobody takes the proposals of a dry run.
    #[error("cannot write the result")]
    Output(#[source] io::Error),
    /// Nothing may be pinned that is not recorded, and there is no next tick.
    #[error("nothing is pinned, since the original affinities could not be recorded")]
    Unrecorded(#[source] JournalError),
    /// Pins failed, and there is no next tick to try them in.
    #[error("{failed} of {all} pins failed")]
    Pins {
        /// How many failed or were left undone.
        failed: usize,
        /// How many there were.
        all: usize,
        /// The last failure.
        #[source]
        source: PinError,
    },
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ticks that came to a decision.
    pub ticks: u64,
    /// Pins carried out.
    pub pins: u64,
}

/// Where the loop meets what is around it.
pub struct Surroundings<'a> {
    /// The time that passes, and what comes of waiting.
    pub pace: &'a mut dyn Pace,
    /// What differs from one daemon to another, so that not all of them knock at the same moment at a host that was away.
    pub chance: u64,
    /// Gets to see each new proposal of a dry run.
    pub proposals: &'a mut Proposals<'a>,
    /// Reads the configuration again.
    pub reload: &'a mut Reload<'a>,
}

/// Runs until told to stop.
///
/// # Errors
/// If the loop cannot go on; see [`DaemonError`].
pub fn run(
    host: &mut dyn Host,
    engine: &mut Engine,
    ledger: &mut Ledger,
    settings: Settings,
    around: &mut Surroundings<'_>,
) -> Result<Totals, DaemonError> {
    let mut daemon = Daemon {
        settings,
        troubles: Troubles::none(around.chance),
        wishes: Wishes::default(),
        proposed: None,
        totals: Totals::default(),
    };
    let mut grid = Grid::new(around.pace.now(), settings.interval);
    loop {
        let outcome = daemon.tick(host, engine, ledger, around);
        match outcome {
            Err(DaemonError::Host(HostError::Stopped)) => return Ok(daemon.totals),
            Err(error) => return Err(error),
            Ok(Tick::Done) if daemon.settings.once => return Ok(daemon.totals),
            Ok(_) => {}
        }
        let mut next = grid.next(around.pace.now(), daemon.troubles.backoff());
        loop {
            match around.pace.wait(next) {
                Waited::Moment => break,
                Waited::Stop => return Ok(daemon.totals),
                Waited::Order(Order::Release(asked, answer)) => {
                    let released = daemon.release(host, ledger, &asked, around.pace.now());
                    // Whoever asked may have gone.
                    let _ = answer.send(released);
                }
                Waited::Order(Order::Reload) => {
                    if let Some(renewal) = (around.reload)()
                        && daemon.renew(engine, renewal)
                    {
                        let now = around.pace.now();
                        grid = Grid::new(now, daemon.settings.interval);
                        next = grid.next(now, None);
                    }
                }
            }
        }
    }
}

struct Daemon {
    settings: Settings,
    troubles: Troubles,
    wishes: Wishes,
    /// What the dry run proposed last.
    proposed: Option<Vec<NamedAction>>,
    totals: Totals,
}

/// What became of a point of the grid.
enum Tick {
    /// Counters were read, but there is nothing yet to compare them with.
    Baseline,
    /// Decided, and carried out if so wished.
    Done,
    /// Lost to a fault that was reported.
    Lost,
}

impl Daemon {
    fn tick(
        &mut self,
        host: &mut dyn Host,
        engine: &mut Engine,
        ledger: &mut Ledger,
        around: &mut Surroundings<'_>,
    ) -> Result<Tick, DaemonError> {
        let sample = match host.sample() {
            Ok(sample) => self.troubles.over(sample),
            Err(HostError::Stopped) => return Err(DaemonError::Host(HostError::Stopped)),
            Err(error) if self.settings.once => return Err(DaemonError::Host(error)),
            Err(error) => {
                self.troubles.host(&error, around.pace.now());
                engine.interrupt();
                return Ok(Tick::Lost);
            }
        };
        let terms = engine.terms().clone();
        report::observed(&ledger.observe(&sample, &terms));
        report::wishes(&self.wishes.observe(&sample, &terms.constraints, ledger));
        let decision = match engine.decide(&sample, ledger) {
            Ok(Some(decision)) => decision,
            Ok(None) => return Ok(Tick::Baseline),
            // A policy that was not waited for has done nothing wrong, nor has one that was told to stop as well.
            Err(error) if around.pace.is_stopped() => {
                debug!("{}", chain(&error));
                return Err(DaemonError::Host(HostError::Stopped));
            }
            Err(error) if self.settings.once => return Err(error.into()),
            Err(error) => {
                self.troubles.decision(&error);
                return Ok(Tick::Lost);
            }
        };
        self.troubles.decided();
        self.totals.ticks += 1;
        report::decision(&decision, self.settings.once && !self.settings.dry_run);
        self.troubles.rejected(&decision);
        if self.settings.dry_run {
            self.propose(&decision, around.proposals)
                .map_err(DaemonError::Output)?;
            return Ok(Tick::Done);
        }
        let all = decision.verdict.accepted.len();
        let accepted = &decision.verdict.accepted;
        let applied = apply(host, ledger, &decision.collected, accepted);
        self.totals.pins += applied.pinned.len() as u64;
        let set_aside = engine.learn(&applied);
        self.account(applied, all, &set_aside, around.pace.now())?;
        Ok(Tick::Done)
    }

    /// Shows what a real run would do now, unless it was shown just before.
    fn propose(&mut self, decision: &Decision<'_>, proposals: &mut Proposals<'_>) -> io::Result<()> {
        let actions = named(&decision.collected.snapshot, &decision.verdict.accepted);
        if self
            .proposed
            .as_ref()
            .is_none_or(|before| !same_request(before, &actions))
        {
            proposals(decision)?;
            self.proposed = Some(actions);
        }
        Ok(())
    }

    /// Releases vCPUs. That they are is on record when this returns, wherever it could be recorded.
    fn release(
        &mut self,
        host: &mut dyn Host,
        ledger: &mut Ledger,
        asked: &Release,
        now: Instant,
    ) -> Result<Vec<u32>, ReleaseError> {
        let released = release(ledger, asked);
        report::released(asked, &released);
        if self.settings.dry_run {
            return released;
        }
        match ledger.write() {
            Ok(()) => self.troubles.journalled(),
            Err(error) => self.troubles.journal(&error),
        }
        let domains = ledger.stale();
        for (_, error) in ledger.keep(host, &domains) {
            match error {
                PinError::Host(HostError::Stopped) => {}
                PinError::Host(error) => self.troubles.host(&error, now),
                // It is tried again.
                _ => {}
            }
        }
        released
    }

    /// Goes over to another configuration; says whether the interval is another one.
    fn renew(&mut self, engine: &mut Engine, renewal: Renewal) -> bool {
        let Renewal {
            settings,
            terms,
            policy,
            changed,
        } = renewal;
        engine.renew(terms, policy);
        let other_interval = settings.interval != self.settings.interval;
        self.settings = settings;
        // The same proposal may now rest on other terms.
        self.proposed = None;
        if changed.is_empty() {
            info!("the configuration was read again; nothing changed");
        } else {
            info!(changed = changed.join(" "), "the configuration was read again");
        }
        other_interval
    }

    /// Says what became of the pins. Of those that fail, only those that are `set_aside` for it are news.
    fn account(
        &mut self,
        applied: Applied,
        all: usize,
        set_aside: &BTreeSet<VcpuKey>,
        now: Instant,
    ) -> Result<(), DaemonError> {
        report::pinned(&applied.pinned);
        report::taken(&applied.taken);
        match applied.unrecorded {
            Some(error) if self.settings.once => return Err(DaemonError::Unrecorded(error)),
            Some(error) => self.troubles.journal(&error),
            None => self.troubles.journalled(),
        }
        let failed = applied.failed.len() + applied.untried;
        let mut last = None;
        match applied.lost {
            Some(HostError::Stopped) => return Err(DaemonError::Host(HostError::Stopped)),
            Some(error) => {
                self.troubles.host(&error, now);
                last = Some(PinError::Host(error));
            }
            None => {}
        }
        for failure in applied.failed {
            match failure.error {
                PinError::Host(HostError::Stopped) => return Err(DaemonError::Host(HostError::Stopped)),
                error @ PinError::Forbidden { .. } => return Err(DaemonError::Forbidden(error)),
                PinError::Gone => {
                    debug!(
                        domain = failure.action.domain,
                        vcpu = failure.action.vcpu,
                        "vanished before its pin"
                    );
                }
                PinError::Host(error) => {
                    self.troubles.host(&error, now);
                    last = Some(PinError::Host(error));
                }
                error => {
                    report::failed_pin(&failure.action, &error, set_aside.contains(&failure.key));
                    last = Some(error);
                }
            }
        }
        if applied.untried > 0 && !self.troubles.is_unrecorded() {
            warn!(pins = applied.untried, "left undone in this tick");
        }
        match last {
            Some(source) if self.settings.once => Err(DaemonError::Pins { failed, all, source }),
            _ => Ok(()),
        }
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
