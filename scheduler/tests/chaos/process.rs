//! The scheduler's process in the world: begun, at work, killed or stopped, begun again.
//!
//! What is at work is [the loop](vcpu_scheduler::engine::daemon) itself, in a [time](crate::clockwork) of the world's own.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use globset::Glob;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_scheduler::engine::constraints::{Constraints, DomainMatch, DomainRule};
use vcpu_scheduler::engine::daemon::{self, DaemonError, Renewal, Settings, Surroundings};
use vcpu_scheduler::engine::journal::{Journal, Unkept};
use vcpu_scheduler::engine::ledger::Ledger;
use vcpu_scheduler::engine::restore::restore;
use vcpu_scheduler::engine::terms::{InitialPins, Limits, ManualPins, Terms};
use vcpu_scheduler::engine::{Engine, MadePolicy, MakePolicy};
use vcpu_scheduler::host::{Token, Wish};
use vcpu_scheduler::stop::Stop;

use crate::TICKS;
use crate::clockwork::{Clockwork, LONGEST_INTERVAL};
use crate::dice::Dice;
use crate::host::Connection;
use crate::paper::Paper;
use crate::wild::Wild;
use crate::world::{Guest, Phase, Shared};

/// A record may outlive its run for this many samples.
const KEPT: usize = 64;
/// How often giving back is tried before it is left to the next process.
const PASSES: u32 = 12;

pub(crate) struct Process {
    world: Shared,
    host: Connection,
    engine: Engine,
    ledger: Ledger,
    settings: Settings,
}

/// How a process has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to stop, or the host refuses every pin: it may put things in order.
    Stopped,
    Killed,
    /// It has recovered from the last fault.
    Recovered,
}

impl Process {
    pub(crate) fn begin(world: &Shared) -> Self {
        let (settings, terms, left) = {
            let mut world = world.lock();
            let dry_run = world.tick < u64::from(TICKS) && world.dice.one_in(12);
            world.begin_process(dry_run);
            let terms = any_terms(&mut world.dice);
            world.terms = terms.clone();
            let settings = Settings {
                interval: any_interval(&mut world.dice),
                once: false,
                dry_run,
            };
            (settings, terms, world.holds.values().cloned().collect())
        };
        let tokens = world.clone();
        let new_token = move || Token(format!("token-{}", tokens.lock().serial()).into());
        let journal: Box<dyn Journal> = if settings.dry_run {
            Box::new(Unkept)
        } else {
            Box::new(Paper(world.clone()))
        };
        Self {
            host: Connection(world.clone()),
            engine: Engine::new(policy(world), terms).expect("the wild policy can be made"),
            ledger: Ledger::new(journal, left, Box::new(new_token)),
            world: world.clone(),
            settings,
        }
    }

    /// The loop, until it ends.
    pub(crate) fn run(&mut self) -> End {
        let mut pace = Clockwork::new(&self.world);
        let (world, settings) = (self.world.clone(), self.settings);
        let chance = world.lock().dice.any();
        let mut around = Surroundings {
            pace: &mut pace,
            chance,
            proposals: &mut |_| Ok(()),
            reload: &mut || Some(renewal(&world, settings)),
        };
        let (host, engine, ledger) = (&mut self.host, &mut self.engine, &mut self.ledger);
        let ran = daemon::run(host, engine, ledger, settings, &mut around);
        let records = self.ledger.records();
        let mut world = self.world.lock();
        let most = (KEPT + 8) * 24;
        if records > most || world.holds.len() > most {
            let held = world.holds.len();
            world.breaks(format_args!(
                "11 memory: {records} records, {held} in the journal"
            ));
        }
        match ran {
            Ok(totals) if totals.pins != world.answered => {
                let answered = world.answered;
                world.breaks(format_args!("9 progress: {totals:?}, but {answered} pins"));
            }
            Ok(_) | Err(DaemonError::Forbidden(_)) => {}
            Err(error) => world.breaks(format_args!("9 progress: the loop ends: {error:?}")),
        }
        if world.dead {
            End::Killed
        } else if world.calm {
            End::Recovered
        } else {
            End::Stopped
        }
    }

    /// Gives back; says whether nothing remained.
    pub(crate) fn stop(&mut self) -> bool {
        if self.settings.dry_run {
            return false;
        }
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
}

/// The configuration is read again. After the last fault, nothing binds any more.
fn renewal(world: &Shared, settings: Settings) -> Renewal {
    let (terms, interval, new_policy) = {
        let mut world = world.lock();
        let terms = if world.calm {
            Terms::default()
        } else {
            any_terms(&mut world.dice)
        };
        world.tell(format_args!(
            "  terms: {:?} {:?} {:?}",
            terms.limits, terms.manual_pins, terms.initial_pins
        ));
        for vcpu in world.guests.iter_mut().flat_map(Guest::all_vcpus_mut) {
            vcpu.attempted = vcpu
                .attempted
                .map(|(at, cooldown)| (at, cooldown.min(terms.limits.cooldown)));
        }
        world.terms = terms.clone();
        let interval = any_interval(&mut world.dice);
        (terms, interval, world.dice.one_in(3))
    };
    Renewal {
        settings: Settings { interval, ..settings },
        terms,
        policy: new_policy.then(|| MadePolicy::new(policy(world)).expect("made")),
        changed: Vec::new(),
    }
}

fn any_interval(dice: &mut Dice) -> Duration {
    match dice.below(6) {
        0 => Duration::from_millis(300),
        1 => LONGEST_INTERVAL,
        _ => Duration::from_secs(1),
    }
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
