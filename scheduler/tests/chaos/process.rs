//! The scheduler's process in the world: begun, at work tick by tick, killed or stopped, begun again.
//!
//! A tick here is what [the loop](vcpu_scheduler::engine::daemon) makes of one, without the waiting.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use globset::Glob;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_scheduler::engine::apply::{Applied, apply};
use vcpu_scheduler::engine::constraints::{Constraints, DomainMatch, DomainRule};
use vcpu_scheduler::engine::daemon::{Release, release};
use vcpu_scheduler::engine::ledger::Ledger;
use vcpu_scheduler::engine::restore::restore;
use vcpu_scheduler::engine::stop::Stop;
use vcpu_scheduler::engine::terms::{InitialPins, Limits, ManualPins, Terms};
use vcpu_scheduler::engine::{Engine, MakePolicy};
use vcpu_scheduler::host::{Host, HostError, PinError, Token, Wish};

use crate::dice::Dice;
use crate::faults::Faults;
use crate::host::Connection;
use crate::paper::Paper;
use crate::wild::Wild;
use crate::world::{Guest, Phase, Setter, Shared, Vcpu};

/// A record may outlive its run for this many samples.
const KEPT: usize = 64;
/// How often giving back is tried before it is left to the next process.
const PASSES: u32 = 12;
/// How many ticks after the last fault the scheduler moves vCPUs again.
const RECOVERY: u32 = 4;

pub(crate) struct Process {
    world: Shared,
    host: Connection,
    engine: Engine,
    ledger: Ledger,
}

/// What keeps a process from going on.
pub(crate) enum End {
    /// It is told to stop, or the host refuses every pin.
    Stop,
    Killed,
}

impl Process {
    pub(crate) fn begin(world: &Shared) -> Self {
        let terms = {
            let mut world = world.lock();
            world.begin_process();
            let terms = any_terms(&mut world.dice);
            world.terms = terms.clone();
            terms
        };
        let left = world.lock().holds.values().cloned().collect();
        let tokens = world.clone();
        let new_token = move || Token(format!("token-{}", tokens.lock().serial()).into());
        Self {
            host: Connection(world.clone()),
            engine: Engine::new(policy(world), terms).expect("the wild policy can be made"),
            ledger: Ledger::new(Box::new(Paper(world.clone())), left, Box::new(new_token)),
            world: world.clone(),
        }
    }

    /// Time goes on, the world with it, and the scheduler has its tick.
    pub(crate) fn tick(&mut self) -> Result<(), End> {
        let (orders, terms) = {
            let mut world = self.world.lock();
            let terms = world.begin_tick().then(|| any_terms(&mut world.dice));
            let orders = world.faults.hand > 0 && world.dice.one_in(20);
            (orders, terms)
        };
        if let Some(terms) = terms {
            self.renew(terms);
        }
        if orders {
            self.release();
        }
        self.decide_and_apply()?;
        let records = self.ledger.records();
        let mut world = self.world.lock();
        if world.dead {
            return Err(End::Killed);
        }
        world.laws_of_a_tick();
        let most = (KEPT + 8) * 24;
        if records > most || world.holds.len() > most {
            let held = world.holds.len();
            world.breaks(format_args!(
                "11 memory: {records} records, {held} in the journal"
            ));
        }
        if world.dice.one_in(1000) {
            Err(End::Stop)
        } else {
            Ok(())
        }
    }

    pub(crate) fn renew(&mut self, terms: Terms) {
        let new_policy = self.world.lock().dice.one_in(3);
        let make_policy = new_policy.then(|| policy(&self.world));
        self.engine
            .renew(terms.clone(), make_policy)
            .expect("the wild policy can be made");
        let mut world = self.world.lock();
        world.tell(format_args!(
            "  terms: {:?} {:?} {:?}",
            terms.limits, terms.manual_pins, terms.initial_pins
        ));
        for vcpu in world.guests.iter_mut().flat_map(Guest::all_vcpus_mut) {
            vcpu.attempted = vcpu
                .attempted
                .map(|(at, cooldown)| (at, cooldown.min(terms.limits.cooldown)));
        }
        world.terms = terms;
    }

    fn release(&mut self) {
        let (asked, uuid) = {
            let mut world = self.world.lock();
            let uuids: Vec<_> = world.guests.iter().map(|guest| guest.uuid).collect();
            let Some(&uuid) = world.dice.pick(&uuids) else {
                return;
            };
            let vcpu = world.dice.one_in(2).then(|| world.dice.below(4));
            let domain = uuid.to_string();
            (Release { domain, vcpu }, uuid)
        };
        let released = release(&mut self.ledger, &asked);
        let mut world = self.world.lock();
        world.tell(format_args!("release {asked:?}: {released:?}"));
        let numbers = released.unwrap_or_default();
        let guests = world.guests.iter_mut().filter(|guest| guest.uuid == uuid);
        let is_released = |vcpu: &&mut Vcpu| numbers.contains(&vcpu.number);
        for vcpu in guests.flat_map(Guest::all_vcpus_mut).filter(is_released) {
            vcpu.respected = None;
            if vcpu.noticed {
                (vcpu.setter, vcpu.noticed) = (Setter::Unclear, false);
            }
        }
    }

    fn decide_and_apply(&mut self) -> Result<(), End> {
        let sample = match self.host.sample() {
            Ok(sample) => sample,
            Err(HostError::Stopped) => return Err(End::Killed),
            Err(_) => {
                self.engine.interrupt();
                return Ok(());
            }
        };
        let terms = self.engine.terms().clone();
        self.ledger.observe(&sample, &terms);
        let applied = match self.engine.decide(&sample, &self.ledger) {
            Ok(Some(decision)) => {
                let accepted = &decision.verdict.accepted;
                apply(&mut self.host, &mut self.ledger, &decision.collected, accepted)
            }
            Ok(None) | Err(_) => return Ok(()),
        };
        self.engine.learn(&applied);
        ended_by(&applied)
    }

    /// Gives back; says whether nothing remained.
    pub(crate) fn stop(&mut self) -> bool {
        let terms = self.engine.terms().clone();
        // Whoever is in a hurry gets one pass, however long that takes: no clock has a say in it.
        let (stopper, stop) = Stop::new();
        drop(stopper);
        let in_an_hour = Instant::now() + Duration::from_secs(3600);
        self.world.lock().phase = Phase::Restore;
        for _ in 0..PASSES {
            let restored = restore(&mut self.host, &mut self.ledger, &terms, in_an_hour, &stop);
            let mut world = self.world.lock();
            world.tell(format_args!("restored: {restored:?}"));
            if world.dead {
                return false;
            }
            if restored.remaining.is_empty() {
                world.laws_of_the_end();
                return true;
            }
            world.now_ns += 250_000_000;
            world.churn();
        }
        false
    }

    /// After the last fault, the scheduler is at work again within a few ticks, and all can be given back.
    pub(crate) fn recovers(&mut self) {
        {
            let mut world = self.world.lock();
            world.calm = true;
            world.faults = Faults::NONE;
            world.life = None;
            world.land(None);
            world.add_a_fresh_guest();
        }
        self.renew(Terms::default());
        let before = self.world.lock().pins;
        for _ in 0..RECOVERY {
            if self.tick().is_err() {
                break;
            }
        }
        if self.world.lock().pins == before {
            self.world.lock().breaks(format_args!(
                "9 progress: no pin in {RECOVERY} ticks without a fault"
            ));
        }
        if !self.stop() {
            self.world.lock().breaks(format_args!(
                "9 progress: not all could be given back without a fault"
            ));
        }
    }
}

fn ended_by(applied: &Applied) -> Result<(), End> {
    for failure in &applied.failed {
        match failure.error {
            PinError::Host(HostError::Stopped) => return Err(End::Killed),
            PinError::Forbidden { .. } => return Err(End::Stop),
            _ => {}
        }
    }
    Ok(())
}

fn policy(world: &Shared) -> MakePolicy {
    let world = world.clone();
    Box::new(move || {
        let seed = world.lock().dice.any();
        let wild = Wild::new(seed, world.clone());
        Ok(Box::new(wild) as Box<dyn Decide>) as Result<_, PolicyError>
    })
}

fn any_terms(dice: &mut Dice) -> Terms {
    let any_cpus = |dice: &mut Dice| {
        let low = u16::try_from(dice.any() & 0xff).expect("8 bits");
        crate::mask::Mask(low).set()
    };
    let mut constraints = Constraints {
        use_isolated: dice.one_in(3),
        ..Constraints::default()
    };
    if dice.one_in(3) {
        constraints.reserved = crate::mask::Mask::one(dice.below(4)).set();
    }
    for pattern in ["web-*", "db-1*", "*"] {
        if dice.one_in(4) {
            constraints.rules.push(DomainRule {
                text: pattern.to_owned(),
                matches: DomainMatch::Name(Glob::new(pattern).expect("a glob").compile_matcher()),
                wish: Wish {
                    manage: dice.one_in(3).then(|| dice.one_in(2)),
                    cpus: dice.one_in(2).then(|| any_cpus(dice)),
                },
            });
        }
    }
    Terms {
        seed: dice.any(),
        limits: Limits {
            moves_per_tick: dice.one_in(2).then(|| dice.below(4)),
            moves_per_minute: NonZeroU32::new(dice.below(60)).filter(|_| dice.one_in(3)),
            cooldown: Duration::from_secs(if dice.one_in(3) {
                u64::from(dice.below(12))
            } else {
                0
            }),
        },
        constraints: Arc::new(constraints),
        manual_pins: if dice.one_in(5) {
            ManualPins::Override
        } else {
            ManualPins::Respect
        },
        initial_pins: if dice.one_in(5) {
            InitialPins::Respect
        } else {
            InitialPins::Take
        },
    }
}
