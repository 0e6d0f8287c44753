//! The default policy: one move a tick, from the busiest pCPU to the least busy one, if that evens out the loads.
//!
//! # The rule
//!
//! The load of a pCPU is the sum of the loads of the vCPUs on it, in percent of one pCPU. How uneven a host is, is the
//! population standard deviation of the loads of its managed pCPUs. In each tick:
//!
//! ```text
//! if stddev(loads) <= threshold:                    stop: even enough
//! source = the pCPU with the highest load           (of equals the lowest number)
//! target = the pCPU with the lowest load            (of equals the lowest number)
//! victim = the heaviest vCPU on the source          (of equals the first domain's, then the lowest number)
//!          that may be pinned to the target
//! if there is none:                                 stop: nothing may move
//! if loads[target] + victim >= loads[source]:       stop: it would not help
//! pin victim to target alone
//! ```
//!
//! The last test looks ahead: it is true exactly if the move would not lower the standard deviation. A move keeps the
//! sum of the loads, and so their mean; what changes in the sum of squares is, with source S, target T and victim v,
//!
//! ```text
//! (S - v)^2 + (T + v)^2 - S^2 - T^2  =  -2 v (S - T - v)
//! ```
//!
//! which is below 0 exactly if v > 0 and T + v < S.
//!
//! A vCPU whose load is not known counts for nothing and stays. "May be pinned" means: its domain is managed, it is
//! movable in this tick, the target is among the CPUs it is allowed, and it is not pinned to the target already.
//!
//! # Promises
//!
//! - At most one move a tick, never one without effect, and only within what the vCPU is allowed.
//! - A move lowers the standard deviation of the loads in the snapshot. Where the loads stay as they are and each
//!   vCPU is pinned to one CPU, a placement that was left is therefore never seen again, and moving ends.
//! - Where nothing moves, the plan's note says why.
//! - The decision depends on the snapshot alone: the policy remembers nothing. Once its memory has grown to the host's
//!   size it allocates nothing, and it takes time linear in the vCPUs and pCPUs.
//!
//! # Known limits
//!
//! - One move a tick: a host of hundreds of vCPUs takes hundreds of ticks to even out.
//! - Only the heaviest vCPU that may move is looked at, and nothing is ever swapped. Of four vCPUs of 40 % and four of
//!   16 % on four pCPUs, it can end with 72, 72, 40 and 40 % (a standard deviation of 16): a 40 would not help on either
//!   target, and the 16 that would is not tried.
//! - It believes the load it is shown, and a full pCPU hides what its vCPUs want: four vCPUs that would each fill a pCPU
//!   read 25 % each while they share one.
//! - On noisy loads a threshold of 5.0 lies below the noise: it then moves something in about 95 % of all ticks.
//! - vCPUs that are not pinned to one CPU make it restless, since their load counts where they ran last.

mod reason;

use reason::{Move, Obstacle, Obstacles, Stay};
use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::{CpuIx, OsCpuId};
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Policy, PolicyError};
use vcpu_policy_api::snapshot::{Snapshot, Vcpu};
use vcpu_policy_api::statistics::{exceeds, population_stddev};

/// The policy. See the [module](self).
///
/// Apart from the threshold it holds nothing but memory to work in.
#[derive(Debug, Clone)]
pub struct StdDev {
    threshold: f64,
    /// The load of each pCPU, by [`CpuIx`].
    loads: Vec<f64>,
    /// The loads of the managed ones, side by side.
    managed: Vec<f64>,
    target: CpuSet,
}

/// What the operator may set.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Nothing moves while the standard deviation is at most this; percent of a pCPU, finite, 0 or more.
    pub threshold: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: 5.0 }
    }
}

impl Policy for StdDev {
    const NAME: &'static str = "stddev";
    const VERSION: &'static str = "1.0.0";
    const SUMMARY: &'static str = "pins vCPUs to single CPUs, one a tick, from the busiest to the least busy, if that lowers the standard deviation";
    type Options = Options;

    fn new(Options { threshold }: Options) -> Result<Self, PolicyError> {
        if !threshold.is_finite() || threshold < 0.0 {
            return Err(PolicyError::new(format_args!(
                "threshold is {threshold}; expected a finite number of percent, 0 or more"
            )));
        }
        Ok(Self {
            threshold,
            loads: Vec::new(),
            managed: Vec::new(),
            target: CpuSet::new(),
        })
    }

    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        match self.choose(snapshot) {
            Ok(chosen) => {
                self.target.clear();
                self.target.insert(chosen.target.cpu);
                plan.pin(
                    chosen.victim.vcpu.ix(),
                    self.target.as_ref(),
                    &chosen,
                    chosen.stddev - chosen.projected,
                );
            }
            Err(stay) => plan.note(stay),
        }
        Ok(())
    }
}

impl StdDev {
    /// The move of this tick, or why there is none.
    #[expect(
        clippy::result_large_err,
        reason = "both sides are alike in size, and a box would allocate"
    )]
    fn choose<'s>(&mut self, snapshot: &'s Snapshot<'s>) -> Result<Move<'s>, Stay<'s>> {
        snapshot.cpu_loads(&mut self.loads);
        let Some((source, target)) = self.extremes(snapshot) else {
            let managed = self.managed.len();
            return Err(Stay::NowhereToGo { managed });
        };
        if source.load <= 0.0 && !snapshot.vcpus().any(|vcpu| vcpu.load().is_some()) {
            let (_, _, vcpus) = snapshot.counts();
            return Err(if vcpus == 0 { Stay::NoVcpu } else { Stay::NoLoad });
        }
        let stddev = population_stddev(self.managed.iter().copied());
        if !stddev.is_finite() {
            return Err(Stay::Immense);
        }
        // Loads that only rounding tells apart make one CPU both ends.
        if !exceeds(stddev, self.threshold) || source.cpu == target.cpu {
            let threshold = self.threshold;
            return Err(Stay::EvenEnough { stddev, threshold });
        }
        if snapshot.budget() == Some(0) {
            return Err(Stay::NoBudget);
        }
        let Some(victim) = heaviest_that_may_move(snapshot, source.cpu, target.cpu) else {
            let obstacles = obstacles(snapshot, source.cpu, target.cpu);
            return Err(Stay::NothingMayMove {
                source,
                target,
                obstacles,
            });
        };
        let (source_after, target_after) = (source.load - victim.load, target.load + victim.load);
        if !exceeds(source.load, target_after) {
            return Err(Stay::NoHelp {
                source,
                target,
                victim,
                stddev,
            });
        }
        self.managed[source.at] = source_after;
        self.managed[target.at] = target_after;
        // In reals it is lower; where the difference drowns in rounding, at least it is no higher.
        let projected = population_stddev(self.managed.iter().copied()).min(stddev);
        Ok(Move {
            source,
            target,
            victim,
            stddev,
            projected,
        })
    }

    /// Collects the loads of the managed pCPUs and finds the highest and the lowest of them, if there are two.
    fn extremes(&mut self, snapshot: &Snapshot<'_>) -> Option<(Site, Site)> {
        self.managed.clear();
        let mut ends: Option<(Site, Site)> = None;
        let cpus = snapshot.cpus().zip(&self.loads);
        for (cpu, &load) in cpus.filter(|(cpu, _)| cpu.is_managed()) {
            let site = Site {
                cpu: cpu.ix(),
                os_id: cpu.os_id(),
                at: self.managed.len(),
                load,
            };
            self.managed.push(load);
            let (busiest, idlest) = ends.get_or_insert((site, site));
            if exceeds(load, busiest.load) {
                *busiest = site;
            }
            if exceeds(idlest.load, load) {
                *idlest = site;
            }
        }
        ends.filter(|_| self.managed.len() > 1)
    }
}

/// A managed pCPU with its load.
#[derive(Debug, Clone, Copy)]
struct Site {
    cpu: CpuIx,
    os_id: OsCpuId,
    /// Its place among the managed ones.
    at: usize,
    load: f64,
}

/// The vCPUs that count on a pCPU with a known load above 0, in order.
fn vcpus_on<'s>(snapshot: &'s Snapshot<'s>, cpu: CpuIx) -> impl Iterator<Item = (Vcpu<'s>, f64)> {
    let here = snapshot.vcpus_on(Some(cpu));
    here.filter_map(|vcpu| vcpu.load().filter(|&load| load > 0.0).map(|load| (vcpu, load)))
}

/// The vCPU to move, if the move helps.
struct Victim<'s> {
    vcpu: Vcpu<'s>,
    load: f64,
    /// Whether something heavier is on the source, but may not move.
    heavier_stays: bool,
}

/// The vCPU on `source` with the highest load of those that may be pinned to `target`; of equals the first.
fn heaviest_that_may_move<'s>(
    snapshot: &'s Snapshot<'s>,
    source: CpuIx,
    target: CpuIx,
) -> Option<Victim<'s>> {
    let mut chosen: Option<(Vcpu<'s>, f64)> = None;
    let mut heaviest_that_stays = 0.0;
    for (vcpu, load) in vcpus_on(snapshot, source) {
        if chosen.is_some_and(|(_, chosen)| load <= chosen) {
            continue;
        }
        if obstacle(&vcpu, target).is_none() {
            chosen = Some((vcpu, load));
        } else {
            heaviest_that_stays = load.max(heaviest_that_stays);
        }
    }
    chosen.map(|(vcpu, load)| Victim {
        vcpu,
        load,
        heavier_stays: heaviest_that_stays > load,
    })
}

/// What keeps a vCPU from being pinned to `target`.
fn obstacle(vcpu: &Vcpu<'_>, target: CpuIx) -> Option<Obstacle> {
    if !vcpu.domain().is_managed() {
        Some(Obstacle::Unmanaged)
    } else if !vcpu.is_movable() {
        Some(Obstacle::NotMovable)
    } else if !vcpu.allowed().contains(target) {
        Some(Obstacle::NotAllowed)
    } else if vcpu.affinity().single() == Some(target) {
        Some(Obstacle::PinnedThere)
    } else {
        None
    }
}

/// What keeps the vCPUs on `source` from being pinned to `target`, counted.
fn obstacles(snapshot: &Snapshot<'_>, source: CpuIx, target: CpuIx) -> Obstacles {
    let mut obstacles = Obstacles::default();
    for (vcpu, _) in vcpus_on(snapshot, source) {
        if let Some(obstacle) = obstacle(&vcpu, target) {
            obstacles.count(obstacle);
        }
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(threshold: f64) -> Option<String> {
        StdDev::new(Options { threshold })
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn a_threshold_is_a_number_of_percent() {
        assert_eq!((refusal(0.0), refusal(5.0), refusal(1e6)), (None, None, None));
        let expected = "expected a finite number of percent, 0 or more";
        for (threshold, written) in [
            (-1.0, "-1"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(
                refusal(threshold),
                Some(format!("threshold is {written}; {expected}"))
            );
        }
    }

    #[test]
    fn sums_of_the_same_loads_are_equal_in_any_order() {
        let (forward, backward) = (0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1);
        assert!(forward > backward, "rounding tells them apart");
        assert!(!exceeds(forward, backward) && !exceeds(backward, forward));
        assert!(exceeds(100.000_001, 100.0) && !exceeds(0.0, 0.0) && exceeds(f64::MIN_POSITIVE, 0.0));
    }
}
