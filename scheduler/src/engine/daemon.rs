//! The loop: a tick at each point of a fixed grid, until told to stop.
//!
//! The grid begins with the baseline sample and has a point every interval. A tick that comes late skips the points it
//! missed; there are no bursts. A fault costs the tick it happened in: it is said once, and the loop goes on. What ends
//! the loop is the wish to stop, a host that refuses every pin, or, with `--once`, anything that keeps the one tick from
//! coming to its end.

use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::{debug, error, info, warn};
use vcpu_policy_api::plan::NamedAction;

use super::apply::{Applied, Pinned, apply};
use super::stop::Stop;
use super::verify::{NamedRejection, named, same_request};
use super::{Decision, Engine, TickError};
use crate::host::{Host, HostError, PinError, Sample};

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

/// The longest wait between two attempts to reach a host that was lost.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

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

/// Runs until told to stop; `proposals` gets to see each new proposal of a dry run.
///
/// # Errors
/// If the loop cannot go on; see [`DaemonError`].
pub fn run(
    host: &mut dyn Host,
    engine: &mut Engine,
    stop: &Stop,
    settings: Settings,
    proposals: &mut Proposals<'_>,
) -> Result<Totals, DaemonError> {
    let mut daemon = Daemon {
        settings,
        troubles: Troubles::default(),
        proposed: None,
        totals: Totals::default(),
    };
    let grid = Grid::new(settings.interval);
    loop {
        let outcome = daemon.tick(host, engine, proposals);
        match outcome {
            Err(DaemonError::Host(HostError::Stopped)) => break,
            Err(error) => return Err(error),
            Ok(Tick::Done) if settings.once => break,
            Ok(_) => {}
        }
        let next = grid.next(Instant::now(), daemon.troubles.backoff());
        if stop.is_requested() || stop.wait_until(next) {
            break;
        }
    }
    Ok(daemon.totals)
}

struct Daemon {
    settings: Settings,
    troubles: Troubles,
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
        proposals: &mut Proposals<'_>,
    ) -> Result<Tick, DaemonError> {
        let sample = match host.sample() {
            Ok(sample) => self.troubles.over(sample),
            Err(HostError::Stopped) => return Err(DaemonError::Host(HostError::Stopped)),
            Err(error) if self.settings.once => return Err(DaemonError::Host(error)),
            Err(error) => {
                self.troubles.host(&error);
                engine.interrupt();
                return Ok(Tick::Lost);
            }
        };
        let decision = match engine.decide(&sample) {
            Ok(Some(decision)) => decision,
            Ok(None) => return Ok(Tick::Baseline),
            Err(error) if self.settings.once => return Err(error.into()),
            Err(error) => {
                self.troubles.decision(&error);
                return Ok(Tick::Lost);
            }
        };
        self.troubles.decided();
        self.totals.ticks += 1;
        report_decision(&decision);
        if self.settings.dry_run {
            self.propose(&decision, proposals).map_err(DaemonError::Output)?;
            return Ok(Tick::Done);
        }
        let all = decision.verdict.accepted.len();
        let applied = apply(host, &decision.collected, &decision.verdict.accepted);
        self.totals.pins += applied.pinned.len() as u64;
        engine.learn(&applied);
        self.account(applied, all)?;
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

    /// Says what became of the pins.
    fn account(&mut self, applied: Applied, all: usize) -> Result<(), DaemonError> {
        for Pinned { action, .. } in &applied.pinned {
            let NamedAction {
                domain,
                vcpu,
                from,
                cpus,
                reason,
                gain,
            } = action;
            let gain = format!("{gain:.2}");
            info!(domain, vcpu, from, %cpus, gain, reason, "pinned");
        }
        let failed = applied.failed.len() + applied.untried;
        let mut last = None;
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
                    self.troubles.host(&error);
                    last = Some(PinError::Host(error));
                }
                error => {
                    report_failed_pin(&failure.action, &error);
                    last = Some(error);
                }
            }
        }
        if applied.untried > 0 {
            warn!(pins = applied.untried, "left undone in this tick");
        }
        match last {
            Some(source) if self.settings.once => Err(DaemonError::Pins { failed, all, source }),
            _ => Ok(()),
        }
    }
}

fn report_decision(decision: &Decision<'_>) {
    let snapshot = &decision.collected.snapshot;
    for note in decision.plan.notes() {
        debug!(tick = snapshot.tick(), "{note}");
    }
    for rejected in &decision.verdict.rejected {
        let rejected = NamedRejection::new(snapshot, rejected);
        warn!(
            tick = snapshot.tick(),
            "the policy asked for a pin that is not carried out: {rejected}"
        );
    }
}

/// A busy domain's turn comes again in the next tick; a refused pin is not tried again for a while, so it is said.
fn report_failed_pin(action: &NamedAction, error: &PinError) {
    let NamedAction {
        domain, vcpu, cpus, ..
    } = action;
    if matches!(error, PinError::Busy { .. }) {
        debug!(domain, vcpu, %cpus, "{}", chain(error));
    } else {
        warn!(domain, vcpu, %cpus, "{}; the vCPU is set aside for a while", chain(error));
    }
}

/// What is wrong, so that it is said once and not in every tick.
#[derive(Debug, Default)]
struct Troubles {
    /// How many samples in a row failed.
    failed_samples: u32,
    /// Whether the connection is known to be lost.
    lost: bool,
    undecided: bool,
}

impl Troubles {
    fn host(&mut self, error: &HostError) {
        self.lost = matches!(error, HostError::Lost { .. });
        self.failed_samples += 1;
        if self.failed_samples == 1 {
            error!("{}; nothing is decided until it can be read again", chain(error));
        } else {
            debug!(attempt = self.failed_samples, "{}", chain(error));
        }
    }

    /// A sample came: whatever kept them from coming is over.
    fn over(&mut self, sample: Sample) -> Sample {
        if self.failed_samples > 0 {
            info!(missed = self.failed_samples, "the host can be read again");
        }
        self.failed_samples = 0;
        self.lost = false;
        sample
    }

    fn decision(&mut self, error: &TickError) {
        if self.undecided {
            debug!("{}", chain(error));
        } else {
            error!("{}; this tick is lost", chain(error));
        }
        self.undecided = true;
    }

    fn decided(&mut self) {
        self.undecided = false;
    }

    /// How much longer than the interval to wait for a host that is lost: doubled with each attempt.
    fn backoff(&self) -> Option<Duration> {
        let doublings = self.failed_samples.saturating_sub(1).min(6);
        self.lost
            .then(|| Duration::from_secs(1 << doublings).min(LONGEST_BACKOFF))
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The points in time at which ticks lie.
#[derive(Debug)]
struct Grid {
    begun: Instant,
    interval: Duration,
}

impl Grid {
    fn new(interval: Duration) -> Self {
        Self {
            begun: Instant::now(),
            interval,
        }
    }

    /// The first point after `now`, and not before `pause` is over.
    fn next(&self, now: Instant, pause: Option<Duration>) -> Instant {
        let earliest = now + pause.unwrap_or_default();
        let elapsed = earliest.duration_since(self.begun).as_nanos();
        let interval = self.interval.as_nanos().max(1);
        let into_interval = elapsed % interval;
        earliest + Duration::from_nanos(u64::try_from(interval - into_interval).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
