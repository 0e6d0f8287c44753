//! Chance that is the same every time.
//!
//! Each draw has a place of its own: what it is for, in which tick, for which vCPU of which domain, under which seed. So a
//! draw does not depend on how many others came before it, and two policies on the same scenario meet the same luck:
//! their results differ by what they did and by nothing else. Only integers and exact fractions are used, so the draws
//! are the same on every machine.

use oorandom::Rand32;

use crate::host::DomainUuid;

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What a vCPU wants besides its load.
    Noise,
    /// Which CPU a vCPU ran on last.
    LastCpu,
}

/// The source of a scenario's chance in one tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chance {
    seed: u64,
    tick: u64,
}

impl Chance {
    pub(super) fn new(seed: u64, tick: u64) -> Self {
        Self { seed, tick }
    }

    /// A draw from a distribution close to the standard normal one: mean 0, variance 1, never beyond 6 (the sum of twelve
    /// uniform draws, Irwin and Hall).
    pub(super) fn normal(self, purpose: Purpose, domain: DomainUuid, vcpu: u32) -> f64 {
        let mut draws = self.draws(purpose, domain, vcpu);
        (0..12).map(|_| unit(draws.rand_u32())).sum::<f64>() - 6.0
    }

    /// A draw from 0 (possible) to 1 (never reached), all equally likely.
    pub(super) fn uniform(self, purpose: Purpose, domain: DomainUuid, vcpu: u32) -> f64 {
        unit(self.draws(purpose, domain, vcpu).rand_u32())
    }

    fn draws(self, purpose: Purpose, domain: DomainUuid, vcpu: u32) -> Rand32 {
        let identity = u128::from_le_bytes(domain.0);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a UUID")]
        let (low, high) = (identity as u64, (identity >> 64) as u64);
        let purpose = match purpose {
            Purpose::Noise => 1,
            Purpose::LastCpu => 2,
        };
        let place = [self.seed, low, high, u64::from(vcpu), self.tick, purpose];
        let state = place.into_iter().fold(0, |state, part| scatter(state ^ part));
        Rand32::new_inc(state, scatter(state))
    }
}

/// Spreads the bits of a number over all of it, so that neighbouring places draw nothing alike: the finaliser of
/// `SplitMix64` (Steele, Lea and Flood, 2014).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A draw of 32 bits as a fraction of 1.
fn unit(draw: u32) -> f64 {
    f64::from(draw) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: DomainUuid = DomainUuid([7; 16]);

    #[test]
    fn noise_has_mean_0_and_variance_1() {
        let draws: Vec<f64> = (0..10_000)
            .map(|tick| Chance::new(3, tick).normal(Purpose::Noise, DOMAIN, 0))
            .collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let variance = draws
            .iter()
            .map(|draw| (draw - mean) * (draw - mean))
            .sum::<f64>()
            / 10_000.0;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04,
            "{mean} {variance}"
        );
    }

    /// Neighbouring ticks, vCPUs, seeds and purposes have nothing to do with each other.
    #[test]
    fn draws_of_neighbouring_places_are_not_alike() {
        let correlation = |other: fn(u64) -> f64| {
            let products =
                (0..10_000).map(|tick| Chance::new(3, tick).normal(Purpose::Noise, DOMAIN, 0) * other(tick));
            products.sum::<f64>() / 10_000.0
        };
        for (what, other) in [
            (
                "tick",
                (|tick| Chance::new(3, tick + 1).normal(Purpose::Noise, DOMAIN, 0)) as fn(u64) -> f64,
            ),
            ("vCPU", |tick| {
                Chance::new(3, tick).normal(Purpose::Noise, DOMAIN, 1)
            }),
            ("seed", |tick| {
                Chance::new(4, tick).normal(Purpose::Noise, DOMAIN, 0)
            }),
            ("purpose", |tick| {
                Chance::new(3, tick).normal(Purpose::LastCpu, DOMAIN, 0)
            }),
            ("domain", |tick| {
                Chance::new(3, tick).normal(Purpose::Noise, DomainUuid([8; 16]), 0)
            }),
        ] {
            assert!(correlation(other).abs() < 0.04, "{what}: {}", correlation(other));
        }
    }

    /// A change here changes every result of every scenario with chance in it.
    #[test]
    fn draws_stay_what_they_are() {
        let draws = [0, 1, 2].map(|tick| Chance::new(1, tick).draws(Purpose::LastCpu, DOMAIN, 5).rand_u32());
        assert_eq!(draws, [2_043_552_054, 3_314_374_940, 3_537_566_398]);
    }
}
