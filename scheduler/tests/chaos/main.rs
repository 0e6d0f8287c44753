//! Faults by the hundred: the engine in a world where everything goes wrong, by a million ticks.
mod churn;
mod dice;
mod faults;
mod host;
mod laws;
mod mask;
mod paper;
mod process;
mod wild;
mod world;

use std::panic::AssertUnwindSafe;

use self::process::{End, Process};
use self::world::{Shared, World};

/// How many ticks a seed lasts.
const TICKS: u32 = 1000;
const SEEDS: u64 = 80;
const THREADS: u64 = 2;

/// What a seed came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    ticks: u64,
    pins: u64,
    digest: u64,
}

fn run(seed: u64) -> Result<Outcome, String> {
    let world = Shared::new(World::new(seed));
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| live(&world)));
    let mut world = world.lock();
    if let Err(panic) = lived {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        world.breaks(format_args!("9 progress: panicked: {text:?}"));
    }
    match world.broken.take() {
        None => Ok(Outcome {
            ticks: world.tick,
            pins: world.pins,
            digest: world.digest,
        }),
        Some(law) => {
            let events: Vec<String> = world.events.drain(..).collect();
            Err(format!(
                "seed {seed}, tick {}: {law}\n{}\n\nCHAOS_SEED={seed} cargo test -p vcpu-scheduler --test chaos",
                world.tick,
                events.join("\n")
            ))
        }
    }
}

fn live(world: &Shared) {
    let mut process = Process::begin(world);
    for _ in 0..TICKS {
        let end = process.tick();
        if world.lock().broken.is_some() {
            return;
        }
        match end {
            Ok(()) => continue,
            Err(End::Killed) => {}
            Err(End::Stop) => _ = process.stop(),
        }
        process = Process::begin(world);
        let restores = world.lock().dice.one_in(3);
        if restores {
            process.stop();
            process = Process::begin(world);
        }
    }
    process.recovers();
}

#[test]
fn the_laws_hold() {
    if let Ok(seed) = std::env::var("CHAOS_SEED") {
        let seed = seed.parse().expect("CHAOS_SEED is a number");
        let outcome = run(seed);
        assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
        return;
    }
    let of_thread = |thread| -> Result<(u64, u64), String> {
        (0..SEEDS)
            .filter(|seed| seed % THREADS == thread)
            .map(run)
            .try_fold((0, 0), |(ticks, pins), outcome| {
                outcome.map(|outcome| (ticks + outcome.ticks, pins + outcome.pins))
            })
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || of_thread(thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("run catches panics"))
            .collect()
    });
    for outcome in outcomes {
        let (ticks, pins) = outcome.unwrap_or_else(|broken| panic!("{broken}"));
        assert!(ticks > 0 && pins > 0);
    }
}

#[test]
fn the_same_seed_is_the_same_to_the_bit() {
    for seed in 0..6 {
        assert_eq!(run(seed), run(seed), "10 determinism: seed {seed}");
    }
}
