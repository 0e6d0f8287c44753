//! The points in time at which ticks lie: a fixed grid, so that a late tick skips points and never bursts.

use std::time::{Duration, Instant};

/// The points in time at which ticks lie.
#[derive(Debug)]
pub(super) struct Grid {
    begun: Instant,
    interval: Duration,
}

impl Grid {
    /// A grid that begins at a time.
    pub(super) fn new(begun: Instant, interval: Duration) -> Self {
        Self { begun, interval }
    }

    /// The first point after `now`, and not before `pause` is over.
    pub(super) fn next(&self, now: Instant, pause: Option<Duration>) -> Instant {
        let earliest = now + pause.unwrap_or_default();
        let elapsed = earliest.duration_since(self.begun).as_nanos();
        let interval = self.interval.as_nanos().max(1);
        let into_interval = elapsed % interval;
        earliest + Duration::from_nanos(u64::try_from(interval - into_interval).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_skips_points_and_keeps_the_grid() {
        let grid = Grid::new(Instant::now(), Duration::from_secs(5));
        let after = |seconds: f64| grid.begun + Duration::from_secs_f64(seconds);
        for (now, next) in [
            (0.0, 5.0),
            (0.25, 5.0),
            (4.75, 5.0),
            (5.0, 10.0),
            (12.5, 15.0),
            (29.0, 30.0),
        ] {
            assert_eq!(grid.next(after(now), None), after(next));
        }
        assert_eq!(grid.next(grid.begun, Some(Duration::from_secs(8))), after(10.0));
    }
}
