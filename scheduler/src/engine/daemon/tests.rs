//! The loop on a host that does what a script says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::ids::{CpuIx, OsCpuId};
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::{Snapshot, Vcpu};
use vcpu_policy_api::topology::Topology;

use super::*;
use crate::engine::terms::Terms;
use crate::host::{
    Definition, DomainKey, DomainSample, DomainUuid, HostIdentity, Incarnation, Instance, Keepsake, Sample,
    VcpuKey, VcpuSample,
};
use crate::stop::{Stop, Stopper};

const SETTINGS: Settings = Settings {
    interval: Duration::from_millis(1),
    once: false,
    dry_run: false,
};

/// What the host does when it is asked next.
enum Step {
    Sample,
    Lost,
    /// Someone else pins the second vCPU to CPU 0, and then it is a sample.
    OtherHand,
}

/// One guest with two vCPUs on CPU 0; requests the stop when the script is at its end.
struct Scripted {
    steps: VecDeque<Step>,
    pin: fn() -> Result<(), PinError>,
    /// Whether a pin takes effect also where the host says that it failed.
    fails_afterwards: bool,
    pins: Vec<(u32, OsCpuSet)>,
    /// What the guest was to carry, one after the other.
    kept: Arc<Mutex<Vec<Option<Keepsake>>>>,
    /// Tick and number of each pin that was asked for.
    asked: Vec<(u64, u32)>,
    topology: Arc<Topology>,
    definition: Arc<Definition>,
    seconds: u64,
    stopper: Option<Stopper>,
}

impl Scripted {
    fn new(steps: impl IntoIterator<Item = Step>, stopper: Stopper) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            pin: || Ok(()),
            fails_afterwards: false,
            pins: Vec::new(),
            kept: Arc::default(),
            asked: Vec::new(),
            topology: Arc::new(Topology::uniform(1, 1, 2, 1).expect("valid")),
            definition: Arc::default(),
            seconds: 0,
            stopper: Some(stopper),
        }
    }
}

impl Host for Scripted {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        Ok(HostIdentity {
            name: "scripted".to_owned(),
            is_local: true,
            cpus: OsCpuSet::first(2),
            isolated: OsCpuSet::new(),
        })
    }
    fn sample(&mut self) -> Result<Sample, HostError> {
        self.seconds += 1;
        let read_at_ns = self.seconds * 1_000_000_000;
        let Some(step) = self.steps.pop_front() else {
            self.stopper = None;
            return Err(HostError::Stopped);
        };
        if matches!(step, Step::Lost) {
            return Err(HostError::Lost {
                operation: "reading".to_owned(),
                source: "broken".into(),
            });
        }
        if matches!(step, Step::OtherHand) {
            self.pins.push((1, OsCpuSet::first(1)));
        }
        let vcpu = |number: u32| {
            let pinned = self.pins.iter().rev().find(|pin| pin.0 == number);
            VcpuSample {
                number,
                read_at_ns,
                run_ns: read_at_ns / 2,
                delay_ns: None,
                last_cpu: Some(OsCpuId(0)),
                affinity: pinned.map_or_else(|| OsCpuSet::first(2), |pin| pin.1.clone()),
            }
        };
        let domain = DomainSample {
            uuid: DomainUuid([1; 16]),
            instance: Instance(1),
            name: "vm".into(),
            definition: Arc::clone(&self.definition),
            incarnation: Some(Incarnation("run".into())),
            keepsake: None,
            vcpus: vec![vcpu(0), vcpu(1)],
        };
        Ok(Sample {
            read_at_ns,
            topology: Arc::clone(&self.topology),
            isolated: OsCpuSet::new(),
            domains: vec![domain],
            unread: Vec::new(),
            connection: 0,
        })
    }

    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        // The first sample, at one second, is the baseline.
        self.asked.push((self.seconds - 1, vcpu.number));
        let outcome = (self.pin)();
        if outcome.is_ok() || self.fails_afterwards {
            self.pins.push((vcpu.number, cpus.clone()));
        }
        outcome
    }

    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        let pinned = self.pins.iter().rev().find(|pin| pin.0 == vcpu.number);
        Ok(pinned.map_or_else(|| OsCpuSet::first(2), |pin| pin.1.clone()))
    }

    fn keep(&mut self, _: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        self.kept.lock().expect("not poisoned").push(keepsake.cloned());
        Ok(())
    }
}

/// Pins the first vCPU to CPU 1; panics in the ticks it is told to; remembers what it saw.
struct Pinner {
    panics: &'static [u64],
    seen: Arc<Mutex<Vec<(u64, bool)>>>,
}

impl Decide for Pinner {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        self.seen
            .lock()
            .expect("not poisoned")
            .push((snapshot.tick(), snapshot.is_fresh()));
        assert!(!self.panics.contains(&snapshot.tick()), "as told");
        if let Some(vcpu) = snapshot.vcpus().find(Vcpu::is_movable) {
            let cpus: CpuSet = [CpuIx(1)].into_iter().collect();
            if vcpu.affinity() != cpus.as_ref() {
                plan.pin(vcpu.ix(), cpus.as_ref(), "test", 1.0);
            }
        }
        Ok(())
    }
}

struct Trial {
    host: Scripted,
    ledger: Ledger,
    stop: Stop,
    panics: &'static [u64],
    seen: Arc<Mutex<Vec<(u64, bool)>>>,
    proposals: usize,
    /// Whether proposals cannot be written.
    closed: bool,
}

impl Trial {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let (stopper, stop) = Stop::new();
        Self {
            host: Scripted::new(steps, stopper),
            ledger: Ledger::unkept(),
            stop,
            panics: &[],
            seen: Arc::default(),
            proposals: 0,
            closed: false,
        }
    }

    fn run(&mut self, settings: Settings) -> Result<Totals, DaemonError> {
        let stop = self.stop.clone();
        let mut pace = RealTime {
            stop: &stop,
            orders: &crossbeam_channel::never(),
        };
        self.run_at(settings, &mut pace)
    }

    fn run_at(&mut self, settings: Settings, pace: &mut dyn Pace) -> Result<Totals, DaemonError> {
        let (panics, seen) = (self.panics, Arc::clone(&self.seen));
        let make = move || {
            Ok(Box::new(Pinner {
                panics,
                seen: Arc::clone(&seen),
            }) as Box<dyn Decide>)
        };
        let mut engine = Engine::new(Box::new(make), Terms::default()).expect("made");
        let (proposals, closed) = (&mut self.proposals, self.closed);
        let mut around = Surroundings {
            pace,
            chance: 1,
            proposals: &mut |_| {
                *proposals += 1;
                if closed {
                    Err(io::ErrorKind::BrokenPipe.into())
                } else {
                    Ok(())
                }
            },
            reload: &mut || None,
        };
        run(
            &mut self.host,
            &mut engine,
            &mut self.ledger,
            settings,
            &mut around,
        )
    }

    fn seen(&self) -> Vec<(u64, bool)> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn samples(count: usize) -> impl Iterator<Item = Step> {
    std::iter::repeat_with(|| Step::Sample).take(count)
}

#[test]
fn the_loop_decides_and_pins_until_it_is_told_to_stop() {
    let mut trial = Trial::new(samples(4));
    assert_eq!(
        trial.run(SETTINGS).expect("stopped"),
        Totals { ticks: 3, pins: 1 }
    );
    assert_eq!(trial.host.pins, [(0, "1".parse().expect("a CPU list"))]);
    assert_eq!(trial.seen(), [(1, true), (2, false), (3, false)]);
}

#[test]
fn once_is_a_baseline_and_one_tick() {
    let mut trial = Trial::new(samples(9));
    assert_eq!(
        trial
            .run(Settings {
                once: true,
                ..SETTINGS
            })
            .expect("done"),
        Totals { ticks: 1, pins: 1 }
    );
    assert_eq!(trial.host.steps.len(), 7);
}

#[test]
fn a_dry_run_pins_nothing_and_says_the_same_thing_once() {
    let mut trial = Trial::new(samples(5));
    assert_eq!(
        trial
            .run(Settings {
                dry_run: true,
                ..SETTINGS
            })
            .expect("stopped"),
        Totals { ticks: 4, pins: 0 }
    );
    assert_eq!((trial.host.pins.len(), trial.proposals), (0, 1));
}

#[test]
fn nothing_is_decided_on_counters_from_before_an_interruption() {
    let steps = samples(2).chain([Step::Lost]).chain(samples(2));
    let mut trial = Trial::new(steps);
    trial.run(SETTINGS).expect("stopped");
    assert_eq!(
        trial.seen(),
        [(1, true), (4, false)],
        "tick 3 has no counters to compare with"
    );
}

#[test]
fn a_panic_costs_one_tick_and_the_state_of_the_policy() {
    let mut trial = Trial {
        panics: &[2],
        ..Trial::new(samples(5))
    };
    assert_eq!(trial.run(SETTINGS).expect("stopped").ticks, 3);
    assert_eq!(trial.seen(), [(1, true), (2, false), (3, true), (4, false)]);
}

#[test]
fn a_host_that_permits_no_pin_ends_the_loop() {
    let mut trial = Trial::new(samples(9));
    trial.host.pin = || {
        Err(PinError::Forbidden {
            source: "read only".into(),
        })
    };
    assert!(matches!(trial.run(SETTINGS), Err(DaemonError::Forbidden(_))));
    assert_eq!(trial.host.steps.len(), 7, "no tick after the first");
}

#[test]
fn a_vcpu_that_vanished_before_its_pin_costs_nothing() {
    let mut trial = Trial::new(samples(4));
    trial.host.pin = || Err(PinError::Gone);
    assert_eq!(
        trial.run(SETTINGS).expect("stopped"),
        Totals { ticks: 3, pins: 0 }
    );
    let mut trial = Trial::new(samples(4));
    trial.host.pin = || Err(PinError::Gone);
    assert!(
        trial
            .run(Settings {
                once: true,
                ..SETTINGS
            })
            .is_ok()
    );
}

#[test]
fn a_vcpu_whose_pin_is_refused_is_left_alone_for_a_while() {
    let mut trial = Trial::new(samples(30));
    trial.host.pin = || Err(PinError::Refused { source: "no".into() });
    trial.run(SETTINGS).expect("stopped");
    // The first vCPU is tried in tick 1 and the second in tick 2, both again 8 ticks later and then 16 ticks later.
    assert_eq!(
        trial.host.asked,
        [(1, 0), (2, 1), (10, 0), (11, 1), (27, 0), (28, 1)]
    );
}

/// libvirt says so where it cannot write down what it has done.
#[test]
fn a_pin_that_failed_and_is_in_force_all_the_same_is_ours() {
    let mut trial = Trial::new(samples(6));
    trial.host.pin = || Err(PinError::Refused { source: "no".into() });
    trial.host.fails_afterwards = true;
    trial.run(SETTINGS).expect("stopped");
    let pinned: Vec<u32> = trial.host.pins.iter().map(|pin| pin.0).collect();
    assert_eq!(pinned, [0, 1], "each is set aside after its first refusal");
    for number in pinned {
        let vcpu = VcpuKey {
            domain: DomainUuid([1; 16]),
            instance: Instance(1),
            number,
        };
        assert!(!trial.ledger.holds(&vcpu), "nobody else has pinned it");
        assert_eq!(trial.ledger.original(&vcpu), Some(OsCpuSet::first(2)));
    }
}

#[test]
fn a_connection_lost_in_a_pin_makes_the_next_sample_a_baseline() {
    let mut trial = Trial::new(samples(4));
    trial.host.pin = || {
        Err(HostError::Lost {
            operation: "pinning".to_owned(),
            source: "broken".into(),
        }
        .into())
    };
    trial.run(SETTINGS).expect("stopped");
    assert_eq!(
        trial.seen(),
        [(1, true), (3, false)],
        "tick 2 has no counters to compare with"
    );
}

#[test]
fn a_dry_run_whose_proposals_nobody_takes_ends() {
    let mut trial = Trial::new(samples(9));
    trial.closed = true;
    assert!(matches!(
        trial.run(Settings {
            dry_run: true,
            ..SETTINGS
        }),
        Err(DaemonError::Output(_))
    ));
}

#[test]
fn once_fails_where_its_pins_fail() {
    let mut trial = Trial::new(samples(4));
    trial.host.pin = || Err(PinError::Refused { source: "no".into() });
    assert!(matches!(
        trial.run(Settings {
            once: true,
            ..SETTINGS
        }),
        Err(DaemonError::Pins {
            failed: 1,
            all: 1,
            ..
        })
    ));
    assert!(trial.run(SETTINGS).is_ok(), "the daemon goes on all the same");
}

/// Has a vCPU released after the third tick, and stops.
struct Releasing {
    waits: u32,
    answer: Option<crossbeam_channel::Receiver<Result<Vec<u32>, ReleaseError>>>,
}

impl Pace for Releasing {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn is_stopped(&self) -> bool {
        false
    }

    fn wait(&mut self, _: Instant) -> Waited {
        self.waits += 1;
        if self.waits < 3 {
            return Waited::Moment;
        }
        if let Some(answer) = &self.answer {
            assert_eq!(answer.try_recv(), Ok(Ok(vec![1])));
            return Waited::Stop;
        }
        let (sender, answer) = crossbeam_channel::bounded(1);
        self.answer = Some(answer);
        let asked = Release {
            domain: "vm".to_owned(),
            vcpu: Some(1),
        };
        Waited::Order(Order::Release(asked, sender))
    }
}

/// Whoever is told so may kill the daemon at once.
#[test]
fn that_a_vcpu_is_released_is_on_record_before_it_is_said() {
    let mut trial = Trial::new(samples(2).chain([Step::OtherHand]).chain(samples(1)));
    let pace = &mut Releasing {
        waits: 0,
        answer: None,
    };
    trial.run_at(SETTINGS, pace).expect("stopped");
    let hands_off: Vec<Vec<u32>> = trial
        .host
        .kept
        .lock()
        .expect("not poisoned")
        .iter()
        .flatten()
        .map(|keepsake| {
            let held = keepsake.vcpus.iter().filter(|(_, kept)| kept.hands_off);
            held.map(|(&number, _)| number).collect()
        })
        .collect();
    assert_eq!(hands_off, [vec![], vec![1], vec![]]);
}
