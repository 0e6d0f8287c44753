//! What the limits promise, on ticks and attempts of any kind.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::host::{DomainUuid, Instance};

fn vcpu(number: u32) -> VcpuKey {
    VcpuKey {
        domain: DomainUuid([0; 16]),
        instance: Instance(1),
        number,
    }
}

fn seconds(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

fn limits(per_tick: Option<u32>, per_minute: Option<u32>, cooldown: u64) -> Limits {
    Limits {
        moves_per_tick: per_tick,
        moves_per_minute: per_minute.and_then(NonZeroU32::new),
        cooldown: Duration::from_secs(cooldown),
    }
}

#[test]
fn without_limits_everything_goes() {
    let mut limiter = Limiter::new(Limits::default());
    limiter.begin_tick(0);
    limiter.attempt(vcpu(0));
    limiter.begin_tick(1);
    assert_eq!(limiter.budget(), None);
    assert!(!limiter.is_cooling(&vcpu(0)));
}

/// The budget is the least of what is left, and an attempt counts for a minute.
#[test]
fn a_minute_slides() {
    let mut limiter = Limiter::new(limits(Some(2), Some(3), 0));
    let mut budgets = Vec::new();
    for tick in 0..14 {
        limiter.begin_tick(seconds(10 * tick));
        let budget = limiter.budget().expect("limited");
        budgets.push(budget);
        for number in 0..budget {
            limiter.attempt(vcpu(number));
        }
    }
    assert_eq!(budgets, [2, 1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 2, 1]);
}

#[test]
fn a_vcpu_cools_for_just_the_cooldown() {
    let mut limiter = Limiter::new(limits(None, None, 30));
    limiter.begin_tick(seconds(5));
    limiter.attempt(vcpu(0));
    for (at, cooling) in [(6, true), (34, true), (35, false)] {
        limiter.begin_tick(seconds(at));
        assert_eq!(limiter.is_cooling(&vcpu(0)), cooling, "at {at} s");
        assert!(!limiter.is_cooling(&vcpu(1)));
    }
}

#[test]
fn other_limits_count_what_was_tried_before() {
    let mut limiter = Limiter::new(limits(None, None, 0));
    limiter.begin_tick(seconds(1));
    limiter.attempt(vcpu(0));
    limiter.set_limits(limits(Some(9), Some(4), 30));
    limiter.begin_tick(seconds(2));
    assert_eq!(limiter.budget(), Some(3));
    assert!(limiter.is_cooling(&vcpu(0)));
}

/// What was tried by the old clock counts as tried when the new one began, however far on the old one was.
#[test]
fn a_clock_that_starts_again_does_not_stop_everything() {
    let mut limiter = Limiter::new(limits(None, Some(1), 90));
    limiter.begin_tick(seconds(1_000_000));
    limiter.attempt(vcpu(0));
    for (at, budget, cooling) in [
        (5, 0, true),
        (64, 0, true),
        (65, 1, true),
        (94, 1, true),
        (95, 1, false),
    ] {
        limiter.begin_tick(seconds(at));
        assert_eq!(
            (limiter.budget(), limiter.is_cooling(&vcpu(0))),
            (Some(budget), cooling),
            "at {at} s"
        );
    }
}

#[test]
fn what_is_over_or_gone_is_forgotten() {
    let mut limiter = Limiter::new(limits(Some(100), None, 30));
    for tick in 0..1000 {
        limiter.begin_tick(seconds(tick));
        for number in 0..10 {
            let short_lived = vcpu(u32::try_from(tick).expect("small") * 10 + number + 10);
            limiter.attempt(short_lived);
            limiter.forget(&short_lived);
            limiter.attempt(vcpu(number));
        }
        assert!(limiter.recent.len() <= 60 && limiter.tried.len() <= 10);
    }
}

proptest! {
    /// Ticks at any distance, sometimes by a clock that starts again, and a policy that uses all it may. Real time is kept
    /// aside: whatever the clock says, no minute of it sees too much.
    #[test]
    fn limits_hold(
        per_tick in prop::option::of(0u32..6),
        per_minute in prop::option::of(1u32..12),
        cooldown in prop::sample::select(vec![0u64, 3, 30, 90]),
        ticks in prop::collection::vec((1u64..20, prop::bool::weighted(0.1), prop::collection::vec(0u32..5, 0..8)), 1..60),
    ) {
        let mut limiter = Limiter::new(limits(per_tick, per_minute, cooldown));
        let mut attempts: Vec<(u64, u32)> = Vec::new();
        let (mut real, mut clock_began) = (0, 0);
        for (elapsed, reopened, wishes) in ticks {
            real += elapsed;
            if reopened {
                clock_began = real;
            }
            limiter.begin_tick(seconds(real - clock_began));
            let budget = limiter.budget();
            prop_assert!(budget.is_none_or(|left| per_tick.is_none_or(|limit| left <= limit)));
            prop_assert!(budget.is_none_or(|left| per_minute.is_none_or(|limit| left <= limit)));
            prop_assert_eq!(budget.is_none(), per_tick.is_none() && per_minute.is_none());
            let mut left = budget.map_or(usize::MAX, |left| left as usize);
            let mut this_tick = std::collections::BTreeSet::new();
            for number in wishes {
                if left > 0 && !limiter.is_cooling(&vcpu(number)) && this_tick.insert(number) {
                    left -= 1;
                    attempts.push((real, number));
                }
            }
            for &number in &this_tick {
                limiter.attempt(vcpu(number));
            }
        }
        for (at, &(time, number)) in attempts.iter().enumerate() {
            let in_minute = attempts[..=at].iter().filter(|&&(before, _)| time - before < 60).count();
            prop_assert!(per_minute.is_none_or(|limit| in_minute <= limit as usize));
            let before = attempts[..at].iter().rev().find(|&&(_, other)| other == number);
            prop_assert!(before.is_none_or(|&(before, _)| time - before >= cooldown));
        }
    }
}
