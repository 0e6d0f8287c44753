//! How much may be moved, over time.
//!
//! In go the attempts to pin, whatever became of them, and the time of each tick; out come how many pins the tick may
//! still ask for, and which vCPUs are cooling down. Time is that of the samples' clock: an attempt counts from the sample
//! that it was decided on.
//!
//! Promises:
//! - No 60 seconds hold more attempts than the limit a minute; an attempt is 60 seconds old when it no longer counts.
//! - Two attempts on a vCPU are a cooldown apart.
//! - The budget of a tick is above none of the limits.
//! - A clock that starts again (the host was opened anew) makes limits last longer, never shorter, and not for long: what was
//!   tried before counts as tried when it started.
//! - What is remembered is bounded: the ticks of the last minute that had attempts, and of each vCPU that is there its
//!   last attempt, as long as it cools.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::terms::Limits;
use crate::host::VcpuKey;

/// What the limit a minute is about.
const MINUTE: Duration = Duration::from_secs(60);

/// Remembers attempts. See the [module](self).
#[derive(Debug, Default)]
pub struct Limiter {
    limits: Limits,
    now: Duration,
    /// The attempts of the last minute, the oldest first.
    recent: VecDeque<Burst>,
    /// When each vCPU that is cooling was last tried.
    tried: BTreeMap<VcpuKey, Duration>,
}

/// The attempts of one tick.
#[derive(Debug)]
struct Burst {
    at: Duration,
    attempts: u32,
}

impl Limiter {
    /// A limiter without a past.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// From the next tick on other limits hold; what was tried before counts for them, except that a vCPU which has cooled
    /// down by the limits before stays so.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A tick begins, at a time of the samples' clock.
    pub fn begin_tick(&mut self, now_ns: u64) {
        let now = Duration::from_nanos(now_ns);
        if now < self.now {
            // Another clock. How long ago the attempts were is unknown; that they were just now errs on the safe side.
            for burst in &mut self.recent {
                burst.at = burst.at.min(now);
            }
            for at in self.tried.values_mut() {
                *at = now.min(*at);
            }
        }
        self.now = now;
        while self
            .recent
            .front()
            .is_some_and(|burst| now.saturating_sub(burst.at) >= MINUTE)
        {
            self.recent.pop_front();
        }
        let cooldown = self.limits.cooldown;
        self.tried.retain(|_, at| now.saturating_sub(*at) < cooldown);
    }

    /// How many pins this tick may still ask for; `None`: any number.
    pub fn budget(&self) -> Option<u32> {
        let this_tick = self.recent.back().filter(|burst| burst.at == self.now);
        let in_tick = this_tick.map_or(0, |burst| burst.attempts);
        let left_in_tick = self
            .limits
            .moves_per_tick
            .map(|limit| limit.saturating_sub(in_tick));
        let left_in_minute = self.limits.moves_per_minute.map(|limit| {
            let attempts = self.recent.iter().map(|burst| burst.attempts);
            limit.get().saturating_sub(attempts.fold(0, u32::saturating_add))
        });
        [left_in_tick, left_in_minute].into_iter().flatten().min()
    }

    /// Whether a vCPU was tried less than a cooldown ago.
    pub fn is_cooling(&self, vcpu: &VcpuKey) -> bool {
        let tried = self.tried.get(vcpu);
        tried.is_some_and(|&at| self.now.saturating_sub(at) < self.limits.cooldown)
    }

    /// A pin of a vCPU was tried in this tick.
    pub fn attempt(&mut self, vcpu: VcpuKey) {
        match self.recent.back_mut().filter(|burst| burst.at == self.now) {
            Some(burst) => burst.attempts = burst.attempts.saturating_add(1),
            None => self.recent.push_back(Burst {
                at: self.now,
                attempts: 1,
            }),
        }
        self.tried.insert(vcpu, self.now);
    }

    /// A vCPU is no more.
    pub fn forget(&mut self, vcpu: &VcpuKey) {
        self.tried.remove(vcpu);
    }
}

#[cfg(test)]
mod tests;
