//! Time as the world has it, for [the loop](vcpu_scheduler::engine::daemon) itself to live in.
//!
//! Whenever the loop waits, a tick is over: the laws of a tick are held against what it has done. Then comes what chance has:
//! an order, the wish to stop, or the moment, in time or late, up to which the world goes on.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use vcpu_scheduler::engine::daemon::{Order, Pace, Release, ReleaseError, Waited};
use vcpu_scheduler::host::DomainUuid;

use crate::TICKS;
use crate::vcpu::{Setter, Vcpu};
use crate::world::{Guest, Phase, Shared, World};

/// How many ticks after the last fault the scheduler moves vCPUs again.
const RECOVERY: u32 = 4;
/// No longer than this is waited beyond an interval, whatever has happened.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// No interval is longer.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(3);

pub(crate) struct Clockwork {
    world: Shared,
    /// What the world's time counts from.
    begin: Instant,
    /// The moment that was waited for last, if an order came first.
    waiting: Option<Instant>,
    /// A release that was ordered.
    released: Option<Released>,
    /// How many ticks there were since the last fault.
    calm: u32,
    pins_before: u64,
}

struct Released {
    domain: DomainUuid,
    answer: Receiver<Result<Vec<u32>, ReleaseError>>,
}

impl Clockwork {
    pub(crate) fn new(world: &Shared) -> Self {
        Self {
            world: world.clone(),
            begin: Instant::now(),
            waiting: None,
            released: None,
            calm: 0,
            pins_before: 0,
        }
    }

    /// What the last release came to.
    fn settle(&mut self) {
        let Some(Released { domain, answer }) = self.released.take() else {
            return;
        };
        let released = answer.try_recv().unwrap_or_else(|_| Ok(Vec::new()));
        let mut world = self.world.lock();
        world.tell(format_args!("released: {released:?}"));
        let numbers = released.unwrap_or_default();
        let guests = world.guests.iter_mut().filter(|guest| guest.uuid == domain);
        let is_released = |vcpu: &&mut Vcpu| numbers.contains(&vcpu.number);
        for vcpu in guests.flat_map(Guest::all_vcpus_mut).filter(is_released) {
            vcpu.respected = None;
            if vcpu.noticed {
                (vcpu.setter, vcpu.noticed) = (Setter::Unclear, false);
            }
        }
    }

    fn order_a_release(&mut self, domain: DomainUuid, vcpu: Option<u32>) -> Waited {
        let (sender, answer) = bounded(1);
        self.released = Some(Released { domain, answer });
        let domain = domain.to_string();
        self.world.lock().tell(format_args!("release {domain} {vcpu:?}"));
        Waited::Order(Order::Release(Release { domain, vcpu }, sender))
    }

    /// After the last fault, the scheduler is at work again within a few ticks.
    fn recovers(&mut self, world: &mut World) -> bool {
        self.calm += 1;
        let is_over = self.calm > RECOVERY;
        if is_over && world.pins == self.pins_before {
            world.breaks(format_args!(
                "9 progress: no pin in {RECOVERY} ticks without a fault"
            ));
        }
        is_over
    }
}

impl Pace for Clockwork {
    fn now(&self) -> Instant {
        self.begin + Duration::from_nanos(self.world.lock().now_ns)
    }

    fn is_stopped(&self) -> bool {
        self.world.lock().dead
    }

    fn wait(&mut self, moment: Instant) -> Waited {
        self.settle();
        let shared = self.world.clone();
        let mut world = shared.lock();
        if world.dead || world.broken.is_some() {
            return Waited::Stop;
        }
        let now = self.begin + Duration::from_nanos(world.now_ns);
        let is_first = self.waiting.replace(moment).is_none();
        if is_first {
            world.laws_of_a_tick();
            if moment <= now || moment > now + LONGEST_INTERVAL + LONGEST_PAUSE {
                let wait = moment.checked_duration_since(now);
                world.breaks(format_args!("9 progress: the loop waits for {wait:?}"));
            }
            if world.calm && self.recovers(&mut world) {
                return Waited::Stop;
            }
        }
        if world.tick >= u64::from(TICKS) && !world.calm {
            if world.phase == Phase::Dry {
                return Waited::Stop;
            }
            world.calm_down();
            self.pins_before = world.pins;
            return Waited::Order(Order::Reload);
        }
        if !world.calm {
            if world.dice.one_in(1000) {
                return Waited::Stop;
            }
            if world.dice.one_in(60) {
                return Waited::Order(Order::Reload);
            }
            if world.faults.hand > 0 && world.phase == Phase::Tick && world.dice.one_in(20) {
                let uuids: Vec<_> = world.guests.iter().map(|guest| guest.uuid).collect();
                if let Some(&uuid) = world.dice.pick(&uuids) {
                    let vcpu = world.dice.one_in(2).then(|| world.dice.below(4));
                    drop(world);
                    return self.order_a_release(uuid, vcpu);
                }
            }
        }
        self.waiting = None;
        let moment_ns = moment.duration_since(self.begin).as_nanos();
        world.begin_tick(u64::try_from(moment_ns).expect("a few centuries"));
        Waited::Moment
    }
}
