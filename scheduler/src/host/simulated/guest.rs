//! A guest of the simulated host: what it wants, and what its counters say.

use std::sync::Arc;
use std::time::Duration;

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::OsCpuId;

use super::chance::{Chance, Purpose};
use super::scenario::{DomainSpec, Load, Series, Step, Traces};
use crate::host::{Definition, DomainSample, DomainUuid, Incarnation, Instance, Keepsake, VcpuSample};

/// A running (or paused) domain.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) uuid: DomainUuid,
    pub(super) instance: Instance,
    pub(super) name: Arc<str>,
    pub(super) definition: Arc<Definition>,
    pub(super) keepsake: Option<Arc<Keepsake>>,
    pub(super) demand: Demand,
    noise: f64,
    pub(super) paused: bool,
    pub(super) vcpus: Vec<Vcpu>,
}

/// What each vCPU of a guest wants, apart from noise.
#[derive(Debug)]
pub(super) enum Demand {
    Constant(f64),
    Steps(Vec<Step>),
    Trace(Series),
}

/// A vCPU of a guest.
#[derive(Debug)]
pub(super) struct Vcpu {
    pub(super) affinity: OsCpuSet,
    pub(super) last_cpu: Option<OsCpuId>,
    /// What it wants in this tick, percent of a pCPU.
    pub(super) wanted: f64,
    /// What it gets of that.
    pub(super) served: f64,
    run: Counter,
    delay: Counter,
}

/// Nanoseconds, of which a part may be pending: sums do not drift, however many there are.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    whole: u64,
    /// From 0 to 1, 1 excluded.
    part: f64,
}

impl Counter {
    /// Adds so many percent of a time.
    fn add(&mut self, percent: f64, time: Duration) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "steps of the simulated time are far shorter than 2^53 ns"
        )]
        let sum = self.part + percent * (time.as_nanos() as f64) / 100.0;
        let whole = sum.floor();
        self.part = sum - whole;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number, not negative, and no more than the time"
        )]
        let nanoseconds = whole as u64;
        self.whole = self.whole.saturating_add(nanoseconds);
    }

    /// The nearest whole number.
    fn read(self) -> u64 {
        self.whole + u64::from(self.part >= 0.5)
    }
}

impl Guest {
    /// Starts a copy of a domain; vCPUs that the scenario binds to nothing may run on all of `present`.
    pub(super) fn start(
        spec: &DomainSpec,
        (copy, name): (usize, &str),
        instance: Instance,
        present: &OsCpuSet,
        traces: &Traces,
    ) -> Self {
        let affinity = spec.affinity(copy).unwrap_or(present);
        Self {
            uuid: DomainUuid(vcpu_policy_api::document::uuid_from_name(name)),
            instance,
            name: name.into(),
            definition: Arc::new(Definition {
                cpuset: spec.cpuset.clone(),
                wish: spec.wish(),
                ..Definition::default()
            }),
            keepsake: None,
            demand: Demand::new(&spec.load, copy, traces),
            noise: spec.noise.get(),
            paused: false,
            vcpus: (0..spec.vcpus.get()).map(|_| Vcpu::plugged(affinity)).collect(),
        }
    }

    /// Goes on, as another run, where it was saved: affinities and keepsake are what they were, counters begin anew.
    pub(super) fn restored(self, instance: Instance) -> Self {
        let vcpus = self.vcpus.iter().map(|vcpu| Vcpu::plugged(&vcpu.affinity));
        Self {
            instance,
            vcpus: vcpus.collect(),
            ..self
        }
    }

    /// Plugs or unplugs vCPUs until there are `count`. New ones have the affinity of the definition.
    pub(super) fn plug(&mut self, count: usize, present: &OsCpuSet) {
        let affinity = self.definition.cpuset.as_ref().unwrap_or(present);
        self.vcpus.resize_with(count, || Vcpu::plugged(affinity));
    }

    /// Decides what the vCPUs want in a tick that begins at `time`.
    ///
    /// That depends on the scenario alone, never on where the vCPUs run.
    pub(super) fn want(&mut self, tick: u64, time: Duration, chance: Chance) {
        let mean = self.demand.at(tick, time);
        for (vcpu, number) in self.vcpus.iter_mut().zip(0..) {
            vcpu.wanted = if self.paused {
                0.0
            } else if self.noise > 0.0 {
                let noise = self.noise * chance.normal(Purpose::Noise, self.uuid, number);
                (mean + noise).clamp(0.0, 100.0)
            } else {
                mean
            };
        }
    }

    /// What its counters say.
    pub(super) fn sample(&self, read_at_ns: u64) -> DomainSample {
        let vcpus = self.vcpus.iter().zip(0..).map(|(vcpu, number)| VcpuSample {
            number,
            read_at_ns,
            run_ns: vcpu.run.read(),
            delay_ns: Some(vcpu.delay.read()),
            last_cpu: vcpu.last_cpu,
            affinity: vcpu.affinity.clone(),
        });
        DomainSample {
            uuid: self.uuid,
            instance: self.instance,
            name: Arc::clone(&self.name),
            definition: Arc::clone(&self.definition),
            incarnation: Some(Incarnation(self.instance.0.to_string().into())),
            keepsake: self.keepsake.clone(),
            vcpus: vcpus.collect(),
        }
    }
}

impl Demand {
    fn new(load: &Load, copy: usize, traces: &Traces) -> Self {
        match load {
            Load::Constant(percent) => Self::Constant(percent.get()),
            Load::Steps(steps) => Self::Steps(steps.clone()),
            Load::Trace(trace) => Self::Trace(
                traces
                    .series(&trace.trace, trace.row as usize + copy)
                    .expect("the scenario has been read with the rows it names"),
            ),
        }
    }

    fn at(&self, tick: u64, time: Duration) -> f64 {
        match self {
            Self::Constant(percent) => *percent,
            Self::Steps(steps) => {
                let begun = steps.partition_point(|step| u64::from(step.from_tick) <= tick);
                steps[..begun].last().map_or(0.0, |step| step.percent.get())
            }
            Self::Trace(series) => series.at(time).min(100.0),
        }
    }
}

impl Vcpu {
    fn plugged(affinity: &OsCpuSet) -> Self {
        Self {
            affinity: affinity.clone(),
            last_cpu: None,
            wanted: 0.0,
            served: 0.0,
            run: Counter::default(),
            delay: Counter::default(),
        }
    }

    /// Lets it run and wait for a time as in this tick.
    pub(super) fn run(&mut self, time: Duration) {
        if self.wanted > 0.0 {
            self.run.add(self.served, time);
            self.delay.add(100.0 * (1.0 - self.served / self.wanted), time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A third of a percent of an odd time, a million times: the counter is within half a nanosecond.
    #[test]
    fn counters_do_not_drift() {
        let mut counter = Counter::default();
        for _ in 0..1_000_000 {
            counter.add(1.0 / 3.0, Duration::from_nanos(1_000_000_001));
        }
        assert_eq!(counter.read(), 3_333_333_336_667);
    }

    #[test]
    fn whole_percentages_of_round_times_are_exact() {
        let mut counter = Counter::default();
        for _ in 0..1000 {
            let before = counter.read();
            counter.add(20.1, Duration::from_secs(1));
            assert_eq!(counter.read() - before, 201_000_000);
        }
    }
}
