//! What the loop says, and how often: what changed is said when it does, what goes on being wrong is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use oorandom::Rand32;
use tracing::{debug, error, info, warn};
use vcpu_policy_api::plan::NamedAction;

use super::{Release, ReleaseError, chain, release_command, wishes};
use crate::engine::apply::{Pinned, Taken};
use crate::engine::journal::JournalError;
use crate::engine::ledger::{Finding, Notice, Observed};
use crate::engine::verify::{NamedRejection, Rejection};
use crate::engine::{Decision, TickError};
use crate::host::{HostError, PinError, Sample};

/// The longest wait between two attempts to reach a host that was lost.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// A host that cannot be read for so long does not come back by itself.
const EMERGENCY: Duration = Duration::from_secs(60);

/// What a sample told of other hands.
pub(super) fn observed(observed: &Observed) {
    if observed.adopted > 0 {
        info!(
            vcpus = observed.adopted,
            "found pinned by the scheduler before; the affinities to give back are known"
        );
    }
    for notice in &observed.notices {
        report_notice(notice);
    }
}

fn report_notice(notice: &Notice) {
    let Notice {
        key,
        domain,
        expected,
        found,
        ..
    } = notice;
    let vcpu = key.number;
    let domain: &str = domain;
    match notice.finding {
        Finding::Unchanged | Finding::Confirmed => {}
        Finding::Displaced => {
            info!(domain, vcpu, was = %expected, %found, "its CPUs went offline: the kernel lets it run elsewhere");
        }
        Finding::Taken => info!(
            domain, vcpu, was = %expected, %found,
            "pinned by another hand: left alone until it has its original affinity again or is released \
             ({})", release_command(domain, vcpu)
        ),
        Finding::Overridden => {
            info!(domain, vcpu, was = %expected, %found, "pinned by another hand, which is overridden");
        }
        Finding::Returned => {
            info!(domain, vcpu, %found, "given back by another hand: it may be moved");
        }
    }
}

/// What domains' metadata has begun or ceased to ask.
pub(super) fn wishes(changes: &[wishes::Changed]) {
    for wishes::Changed { domain, what } in changes {
        info!(domain = &**domain, "{what}");
    }
}

/// Pins that were made, with their reasons.
pub(super) fn pinned(pinned: &[Pinned]) {
    for Pinned { action, .. } in pinned {
        let NamedAction {
            domain,
            vcpu,
            from,
            cpus,
            reason,
            gain,
        } = action;
        // A number in JSON too.
        let gain = (gain * 100.0).round() / 100.0;
        info!(domain, vcpu, from, %cpus, gain, reason, "pinned");
    }
}

/// What became of a wish to release vCPUs.
pub(super) fn released(asked: &Release, released: &Result<Vec<u32>, ReleaseError>) {
    let domain = &asked.domain;
    match released {
        Ok(vcpus) if vcpus.is_empty() => debug!(domain, "asked to release vCPUs that are not left alone"),
        Ok(vcpus) => info!(domain, ?vcpus, "released: they may be moved again"),
        Err(error) => debug!("asked to release vCPUs: {error}"),
    }
}

/// Pins that were left because someone else was faster.
pub(super) fn taken(taken: &[Taken]) {
    for Taken { action, found, .. } in taken {
        let NamedAction { domain, vcpu, .. } = action;
        info!(
            domain, vcpu, %found,
            "pinned by another hand just now: not moved in this tick"
        );
    }
}

/// What the policy has to say; who asked for this one tick is to hear it, in a daemon's log it would be a line a tick.
pub(super) fn decision(decision: &Decision<'_>, is_only_one: bool) {
    let snapshot = &decision.collected.snapshot;
    for note in decision.plan.notes() {
        if is_only_one {
            info!("{note}");
        } else {
            debug!(tick = snapshot.tick(), "{note}");
        }
    }
}

/// What failed once may come about in the next tick; what goes on failing is not tried again for a while, which is said, the
/// first time in a row.
pub(super) fn failed_pin(action: &NamedAction, error: &PinError, is_news: bool) {
    let NamedAction {
        domain, vcpu, cpus, ..
    } = action;
    if is_news {
        warn!(
            domain, vcpu, %cpus,
            "{}; the vCPU is set aside and tried again later, at growing distances", chain(error)
        );
    } else {
        debug!(domain, vcpu, %cpus, "{}", chain(error));
    }
}

/// What is wrong, so that it is said once and not in every tick.
#[derive(Debug)]
pub(super) struct Troubles {
    chance: Rand32,
    /// How many samples in a row failed.
    failed_samples: u32,
    /// Whether the connection is known to be lost.
    lost: bool,
    undecided: bool,
    /// Whether the journal could not be written.
    unrecorded: bool,
    /// When samples began to fail, and whether it was said that they go on failing.
    failing: Option<(Instant, bool)>,
    /// How long after the last failure they are to be called an emergency, if they are not yet.
    emergency_in: Option<Duration>,
    /// The rules that the last plan broke.
    broken_rules: BTreeSet<Rejection>,
}

impl Troubles {
    /// None so far. The seed is for pauses, which are to differ from those of other daemons of the same host's clients.
    pub(super) fn none(seed: u64) -> Self {
        Self {
            chance: Rand32::new(seed),
            failed_samples: 0,
            lost: false,
            undecided: false,
            unrecorded: false,
            failing: None,
            emergency_in: None,
            broken_rules: BTreeSet::new(),
        }
    }

    /// A restart of libvirt is over in seconds and nobody's emergency; a host that stays away is.
    pub(super) fn host(&mut self, error: &HostError, now: Instant) {
        self.lost = matches!(error, HostError::Lost { .. });
        self.failed_samples += 1;
        let (since, is_said) = *self.failing.get_or_insert((now, false));
        if self.failed_samples == 1 {
            warn!("{}; nothing is decided until it can be read again", chain(error));
        } else if !is_said && now.duration_since(since) >= EMERGENCY {
            let missed = self.failed_samples;
            error!(
                missed,
                "the host could not be read for a minute: {}",
                chain(error)
            );
            self.failing = Some((since, true));
        } else {
            debug!(attempt = self.failed_samples, "{}", chain(error));
        }
        let left = EMERGENCY.saturating_sub(now.duration_since(since));
        self.emergency_in = (!left.is_zero()).then_some(left);
    }

    /// Says what of a plan is not carried out. A policy that goes on breaking the same rule is named once; that it would
    /// move more than a tick may is no fault.
    pub(super) fn rejected(&mut self, decision: &Decision<'_>) {
        let named = self.newly_broken(decision);
        let snapshot = &decision.collected.snapshot;
        let tick = snapshot.tick();
        for rejected in &decision.verdict.rejected {
            debug!(
                tick,
                "not carried out: {}",
                NamedRejection::new(snapshot, rejected)
            );
        }
        for (rule, pins) in named {
            let mut rejected = decision.verdict.rejected.iter();
            if let Some(first) = rejected.find(|rejected| rejected.why == rule) {
                let first = NamedRejection::new(snapshot, first);
                warn!(
                    tick,
                    pins, "the policy asked for what is not carried out, such as {first}"
                );
            }
        }
    }

    /// The rules that a plan breaks and the one before did not, and how often.
    fn newly_broken(&mut self, decision: &Decision<'_>) -> Vec<(Rejection, usize)> {
        let mut broken: BTreeMap<Rejection, usize> = BTreeMap::new();
        for rejected in &decision.verdict.rejected {
            *broken.entry(rejected.why).or_default() += 1;
        }
        let known = std::mem::replace(&mut self.broken_rules, broken.keys().copied().collect());
        broken.retain(|rule, _| *rule != Rejection::OverBudget && !known.contains(rule));
        broken.into_iter().collect()
    }

    /// A sample came: whatever kept them from coming is over.
    pub(super) fn over(&mut self, sample: Sample) -> Sample {
        if self.failed_samples > 0 {
            info!(missed = self.failed_samples, "the host can be read again");
        }
        self.failed_samples = 0;
        self.failing = None;
        self.emergency_in = None;
        self.lost = false;
        sample
    }

    pub(super) fn decision(&mut self, error: &TickError) {
        if self.undecided {
            debug!("{}", chain(error));
        } else {
            error!("{}; this tick is lost", chain(error));
        }
        self.undecided = true;
    }

    pub(super) fn journal(&mut self, error: &JournalError) {
        if self.unrecorded {
            debug!("{}", chain(error));
        } else {
            error!("{}; nothing is pinned until it can be written", chain(error));
        }
        self.unrecorded = true;
    }

    pub(super) fn journalled(&mut self) {
        if std::mem::take(&mut self.unrecorded) {
            info!("the journal can be written again");
        }
    }

    pub(super) fn is_unrecorded(&self) -> bool {
        self.unrecorded
    }

    pub(super) fn decided(&mut self) {
        self.undecided = false;
    }

    /// How much longer than the interval to wait for a host that is lost: doubled with each attempt, and a part of it left
    /// to chance, up to a half, so that not all daemons of a host that comes back knock at the same moment. An attempt falls
    /// on the minute after which it is an emergency.
    pub(super) fn backoff(&mut self) -> Option<Duration> {
        let doublings = self.failed_samples.saturating_sub(1).min(6);
        let longest = Duration::from_secs(1 << doublings).min(LONGEST_BACKOFF);
        let wait = longest.mul_f32(1.0 - self.chance.rand_float() / 2.0);
        let wait = self.emergency_in.map_or(wait, |left| wait.min(left));
        self.lost.then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use vcpu_policy_api::document;
    use vcpu_policy_api::plan::Plan;
    use vcpu_policy_api::snapshot::Cpu;

    use super::*;
    use crate::engine::collect::Collected;
    use crate::engine::verify::verify;

    #[test]
    fn a_policy_that_goes_on_breaking_a_rule_is_named_once() {
        let host = "{interval: 1s, topology: {cpus: 2}, budget: 1, domains: [{name: a, vcpus: [{load: 9}, {load: 9}, {load: 9}]}]}";
        let block = document::read(host).expect("a snapshot");
        let snapshot = block.view();
        let mut plan = Plan::new();
        let first: vcpu_policy_api::cpuset::CpuSet = snapshot.cpus().take(1).map(Cpu::ix).collect();
        for vcpu in snapshot.vcpus() {
            plan.pin(vcpu.ix(), first.as_ref(), "test", f64::NAN);
            plan.pin(vcpu.ix(), first.as_ref(), "test", 1.0);
        }
        let decision = Decision {
            collected: Collected { snapshot, keys: &[] },
            verdict: verify(&snapshot, &plan),
            plan: &plan,
        };
        let mut troubles = Troubles::none(1);
        assert_eq!(troubles.newly_broken(&decision), [(Rejection::GainNotFinite, 3)]);
        assert_eq!(troubles.newly_broken(&decision), []);
        troubles.broken_rules.clear();
        assert_eq!(troubles.newly_broken(&decision), [(Rejection::GainNotFinite, 3)]);
    }

    fn lost() -> HostError {
        HostError::Lost {
            operation: "test".to_owned(),
            source: "broken".into(),
        }
    }

    /// Between two attempts there can be a minute, and the one at which it is said must not be put off by it.
    #[test]
    fn a_host_that_is_away_for_a_minute_is_an_emergency_at_that_moment() {
        for seed in 0..100 {
            let mut troubles = Troubles::none(seed);
            let begin = Instant::now();
            let mut now = begin;
            loop {
                troubles.host(&lost(), now);
                if troubles.failing.is_some_and(|(_, is_said)| is_said) {
                    break;
                }
                now += troubles.backoff().expect("lost");
            }
            assert_eq!(now - begin, EMERGENCY, "seed {seed}");
        }
    }

    #[test]
    fn the_wait_for_a_lost_host_grows_to_a_minute() {
        let mut troubles = Troubles::none(1);
        let lost = lost();
        let mut waits = Vec::new();
        for _ in 0..9 {
            troubles.host(&lost, Instant::now());
            waits.extend(troubles.backoff().map(|wait| wait.as_secs_f32()));
        }
        let longest = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0];
        assert!(
            waits.len() == longest.len() && (waits[7] - waits[8]).abs() > 0.01,
            "{waits:?}"
        );
        for (wait, longest) in waits.into_iter().zip(longest) {
            assert!((longest / 2.0..=longest).contains(&wait), "{wait} of {longest}");
        }
    }
}
