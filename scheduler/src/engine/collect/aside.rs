//! Leaving a vCPU alone that cannot be pinned.
//!
//! In go the failures of pins, in a row, and pins that came about; out comes up to which tick the vCPU is not movable.
//!
//! - **Refused** means that trying again changes nothing by itself: 8 ticks aside, then 16, doubling up to about a
//!   thousand.
//! - **Busy** passes: the next tick is the retry, [`PATIENCE`] times in a row. A domain that is busy for longer (a long
//!   migration, a hung monitor) makes every call wait, so from then on the vCPU is set aside too, more gently: 2 ticks, then
//!   4, up to 64.
//! - A pin that comes about ends both rows. A failure of the other kind leaves a row as it is, and the longer time holds.

/// For how many ticks a vCPU is set aside after the host refused to pin it for the first time.
const FIRST_AFTER_REFUSAL: u64 = 8;
/// How often that doubles: up to about a thousand ticks.
const REFUSAL_DOUBLINGS: u32 = 7;
/// How often in a row a vCPU may be busy and is tried again in the next tick.
pub(super) const PATIENCE: u32 = 4;
/// For how many ticks it is set aside after that.
const FIRST_AFTER_BUSY: u64 = 2;
/// How often that doubles: up to 64 ticks.
const BUSY_DOUBLINGS: u32 = 5;

/// How a vCPU has failed of late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Aside {
    /// How often in a row the host refused to pin it.
    refusals: u32,
    /// How often in a row it was busy.
    busy: u32,
    /// It is not movable in a tick up to this one.
    until: u64,
}

impl Aside {
    /// Whether the vCPU is to be left alone in a tick.
    pub(super) fn holds(self, tick: u64) -> bool {
        tick <= self.until
    }

    /// The host refused a pin in this tick. Says whether it is the first time in a row.
    pub(super) fn refused(&mut self, tick: u64) -> bool {
        let is_first = self.refusals == 0;
        self.until = tick + (FIRST_AFTER_REFUSAL << self.refusals.min(REFUSAL_DOUBLINGS));
        self.refusals = self.refusals.saturating_add(1);
        is_first
    }

    /// The domain was busy in this tick. Says whether the vCPU is set aside for that for the first time in a row.
    pub(super) fn busy(&mut self, tick: u64) -> bool {
        self.busy = self.busy.saturating_add(1);
        let Some(beyond) = self.busy.checked_sub(PATIENCE + 1) else {
            return false;
        };
        let until = tick + (FIRST_AFTER_BUSY << beyond.min(BUSY_DOUBLINGS));
        self.until = self.until.max(until);
        beyond == 0
    }

    /// A pin came about.
    pub(super) fn forgive(&mut self) {
        (self.refusals, self.busy) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_in_a_row_is_news() {
        let mut aside = Aside::default();
        assert!(aside.refused(1) && !aside.refused(10) && !aside.refused(30));
        aside.forgive();
        assert!(aside.refused(70));
    }

    /// The ticks in which a vCPU is tried that always fails in one way.
    fn tries(fail: fn(&mut Aside, u64) -> bool, count: usize) -> Vec<u64> {
        let mut aside = Aside::default();
        let mut tries = Vec::new();
        for tick in 1.. {
            if tries.len() == count {
                break;
            }
            if !aside.holds(tick) {
                tries.push(tick);
                fail(&mut aside, tick);
            }
        }
        tries
    }

    fn gaps(tries: &[u64]) -> Vec<u64> {
        tries.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn that_a_domain_stays_busy_is_news_once() {
        let mut aside = Aside::default();
        let news: Vec<u64> = (1..20).filter(|&tick| aside.busy(tick)).collect();
        assert_eq!(news, [u64::from(PATIENCE) + 1]);
        aside.forgive();
        assert!((0..PATIENCE).all(|_| !aside.busy(30)) && aside.busy(30));
    }

    #[test]
    fn refusals_double_the_time_aside() {
        let gaps = gaps(&tries(Aside::refused, 11));
        assert_eq!(gaps, [9, 17, 33, 65, 129, 257, 513, 1025, 1025, 1025]);
    }

    #[test]
    fn a_busy_domain_is_tried_at_once_for_a_while() {
        let gaps = gaps(&tries(Aside::busy, 13));
        assert_eq!(gaps, [1, 1, 1, 1, 3, 5, 9, 17, 33, 65, 65, 65]);
    }

    #[test]
    fn a_pin_that_comes_about_ends_the_row() {
        let mut aside = Aside::default();
        for tick in 1..=5 {
            aside.busy(tick);
            aside.refused(tick);
        }
        assert!(
            aside.holds(5 + 128),
            "what refusals have come to holds, busy or not"
        );
        aside.forgive();
        aside.refused(1000);
        assert!(aside.holds(1008) && !aside.holds(1009));
        aside.busy(2000);
        assert!(!aside.holds(2001));
    }
}
