//! A policy on a simulated host, tick by tick, and the figures of the whole run.
//!
//! In go a simulated host and an engine; out comes a [`Report`], which is what `simulate --format json` prints. Each
//! tick is also handed to the caller as it happens. A tick whose sample is missing has no figures of its own and is
//! passed over in those of the run.

use serde::Serialize;
use tracing::warn;
use vcpu_policy_api::ids::Index;
use vcpu_policy_api::plan::{NamedAction, managed_stddev};
use vcpu_policy_api::snapshot::Snapshot;
use vcpu_policy_api::statistics::exceeds;

use crate::engine::apply::apply;
use crate::engine::daemon::chain;
use crate::engine::ledger::{Finding, Ledger, Notice};
use crate::engine::{Engine, TickError};
use crate::host::simulated::SimulatedHost;
use crate::host::{Host, HostError};

/// What came of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The policy's name.
    pub policy: String,
    /// How many ticks were simulated.
    pub ticks: u64,
    /// How many masks were changed.
    pub pins: u64,
    /// The last tick that changed a mask; `None` if none did.
    pub last_pin_tick: Option<u64>,
    /// The first tick from which on the standard deviation never exceeded the threshold; `None` if there is none.
    pub balanced_tick: Option<u64>,
    /// Standard deviations over the run, percent of a pCPU.
    pub stddev: StddevSummary,
    /// What the vCPUs wanted and did not get, in percent of what they wanted, over all ticks.
    pub unserved_percent: f64,
    /// How many actions the verifier refused.
    pub rejected: u64,
    /// How many pins the host refused.
    pub failed: u64,
    /// Each tick.
    pub per_tick: Vec<TickReport>,
}

/// The standard deviations of the managed pCPUs' loads over a run; all `None` if no tick had a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StddevSummary {
    /// Of the first tick.
    pub first: Option<f64>,
    /// Of the last tick.
    pub last: Option<f64>,
    /// The mean over all ticks.
    pub mean: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// One tick.
#[derive(Debug, Clone, Serialize)]
pub struct TickReport {
    /// Its number, from 1.
    pub tick: u64,
    /// Standard deviation of the managed pCPUs' loads; `None` if the tick had no sample to compare.
    pub stddev: Option<f64>,
    /// Load of each pCPU by the kernel's number; `None` where that is offline, or the tick has no loads.
    pub cpu_load: Vec<Option<f64>>,
    /// The masks that were changed.
    pub pins: Vec<NamedAction>,
    /// What else happened, for people.
    #[serde(skip)]
    pub remarks: Vec<String>,
}

/// Runs `ticks` ticks; `each` gets to see every one of them.
///
/// # Errors
/// If `each` fails, with its error.
pub fn simulate<E>(
    host: &mut SimulatedHost,
    engine: &mut Engine,
    setting: &Setting,
    mut each: impl FnMut(&TickReport) -> Result<(), E>,
) -> Result<Report, E> {
    let mut run = Run::new();
    // The baseline: guests that are there from the start have a load in tick 1.
    let baseline = host.sample();
    run.tick(host, engine, 0, baseline);
    let mut per_tick = Vec::new();
    for tick in 1..=setting.ticks {
        let sample = host.sample();
        let report = run.tick(host, engine, tick, sample);
        each(&report)?;
        per_tick.push(report);
    }
    let (wanted, served) = (host.wanted_total(), host.served_total());
    Ok(Report {
        policy: setting.policy.clone(),
        ticks: setting.ticks,
        pins: run.pins,
        last_pin_tick: run.last_pin_tick,
        balanced_tick: balanced_tick(&per_tick, setting.threshold),
        stddev: summary(&per_tick),
        unserved_percent: if wanted > 0.0 {
            (100.0 * (wanted - served) / wanted).max(0.0)
        } else {
            0.0
        },
        rejected: run.rejected,
        failed: run.failed,
        per_tick,
    })
}

/// One more than the largest number of a CPU that the host has.
pub fn cpu_numbers(host: &SimulatedHost) -> usize {
    host.present_cpus().iter().last().map_or(0, |cpu| cpu.index() + 1)
}

/// What a run is made of, beside its host and its engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The policy's name.
    pub policy: String,
    /// How many ticks to run.
    pub ticks: u64,
    /// The standard deviation up to which the host counts as balanced, percent of a pCPU.
    pub threshold: f64,
}

#[derive(Debug)]
struct Run {
    ledger: Ledger,
    pins: u64,
    last_pin_tick: Option<u64>,
    rejected: u64,
    failed: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            ledger: Ledger::unkept(),
            pins: 0,
            last_pin_tick: None,
            rejected: 0,
            failed: 0,
        }
    }

    fn tick(
        &mut self,
        host: &mut SimulatedHost,
        engine: &mut Engine,
        tick: u64,
        sample: Result<crate::host::Sample, HostError>,
    ) -> TickReport {
        let mut report = TickReport {
            tick,
            stddev: None,
            cpu_load: vec![None; cpu_numbers(host)],
            pins: Vec::new(),
            remarks: Vec::new(),
        };
        let sample = match sample {
            Ok(sample) => sample,
            Err(error) => {
                engine.interrupt();
                report.remarks.push(chain(&error));
                return report;
            }
        };
        let terms = engine.terms().clone();
        for notice in self.ledger.observe(&sample, &terms).notices {
            report.remarks.extend(remark(&notice));
        }
        let decision = match engine.decide(&sample, &self.ledger) {
            Ok(Some(decision)) => decision,
            Ok(None) => {
                report
                    .remarks
                    .push("nothing yet to compare the counters with".to_owned());
                return report;
            }
            Err(error) => {
                warn!(tick, "{}", chain(&error));
                report.remarks.push(match error {
                    TickError::Panicked { .. } => "the policy panicked".to_owned(),
                    error => chain(&error),
                });
                return report;
            }
        };
        let snapshot = &decision.collected.snapshot;
        report.measure(snapshot);
        let accepted = &decision.verdict.accepted;
        let applied = apply(host, &mut self.ledger, &decision.collected, accepted);
        self.rejected += decision.verdict.rejected.len() as u64;
        self.failed += applied.failed.len() as u64;
        self.pins += applied.pinned.len() as u64;
        if !applied.pinned.is_empty() {
            self.last_pin_tick = Some(tick);
        }
        for failure in &applied.failed {
            let action = &failure.action;
            report.remarks.push(format!(
                "{}/{} -> {}: {}",
                action.domain,
                action.vcpu,
                action.cpus,
                chain(&failure.error)
            ));
        }
        let _ = engine.learn(&applied);
        report.pins = applied.pinned.into_iter().map(|pinned| pinned.action).collect();
        report
    }
}

/// What people want to know of a vCPU that changed hands.
fn remark(notice: &Notice) -> Option<String> {
    let Notice {
        key, domain, found, ..
    } = notice;
    let vcpu = key.number;
    match notice.finding {
        Finding::Taken => Some(format!(
            "{domain}/{vcpu} was pinned to {found} by another hand: left alone"
        )),
        Finding::Returned => Some(format!(
            "{domain}/{vcpu} was given back {found} by another hand: may be moved"
        )),
        Finding::Unchanged | Finding::Confirmed | Finding::Displaced | Finding::Overridden => None,
    }
}

impl TickReport {
    fn measure(&mut self, snapshot: &Snapshot<'_>) {
        let mut loads = Vec::new();
        snapshot.cpu_loads(&mut loads);
        self.stddev = Some(managed_stddev(snapshot, &loads));
        for (cpu, &load) in snapshot.cpus().zip(&loads) {
            if let Some(slot) = self.cpu_load.get_mut(cpu.os_id().0 as usize) {
                *slot = Some(load);
            }
        }
    }
}

/// The first tick from which on no stddev is above the threshold, provided that the last measured one is not.
fn balanced_tick(ticks: &[TickReport], threshold: f64) -> Option<u64> {
    let measured = || ticks.iter().filter_map(|tick| Some((tick.tick, tick.stddev?)));
    let last_unbalanced = measured()
        .filter(|&(_, stddev)| exceeds(stddev, threshold))
        .map(|(tick, _)| tick)
        .next_back();
    measured()
        .map(|(tick, _)| tick)
        .find(|&tick| last_unbalanced.is_none_or(|unbalanced| tick > unbalanced))
}

fn summary(ticks: &[TickReport]) -> StddevSummary {
    let measured: Vec<f64> = ticks.iter().filter_map(|tick| tick.stddev).collect();
    #[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 ticks")]
    let count = measured.len() as f64;
    StddevSummary {
        first: measured.first().copied(),
        last: measured.last().copied(),
        mean: (!measured.is_empty()).then(|| measured.iter().sum::<f64>() / count),
        max: measured.iter().copied().reduce(f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(stddevs: &[Option<f64>]) -> Vec<TickReport> {
        let report = |(tick, &stddev)| TickReport {
            tick,
            stddev,
            cpu_load: Vec::new(),
            pins: Vec::new(),
            remarks: Vec::new(),
        };
        (1..).zip(stddevs).map(report).collect()
    }

    #[test]
    fn balanced_means_to_the_end() {
        let check = |stddevs: &[Option<f64>], expected| {
            assert_eq!(balanced_tick(&ticks(stddevs), 5.0), expected, "{stddevs:?}");
        };
        check(&[Some(9.0), Some(5.0), Some(4.0)], Some(2));
        check(&[Some(1.0), Some(9.0), Some(4.0)], Some(3));
        check(&[Some(1.0), Some(9.0)], None);
        check(&[Some(9.0), None, Some(4.0), None], Some(3));
        check(&[None, None], None);
    }

    #[test]
    fn ticks_without_a_sample_are_passed_over() {
        let summary = summary(&ticks(&[None, Some(6.0), None, Some(2.0)]));
        assert_eq!(
            summary,
            StddevSummary {
                first: Some(6.0),
                last: Some(2.0),
                mean: Some(4.0),
                max: Some(6.0)
            }
        );
    }
}
