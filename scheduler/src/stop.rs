//! The wish to stop, and waiting that gives way to it.
//!
//! Every place that waits (for the next tick, for an answer of the host) waits on this too, so that after SIGINT or
//! SIGTERM nothing more is decided, whatever the daemon was doing.

use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Knows whether to stop. Clones know it at the same moment.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Never carries a message: its end is the message, which all clones receive.
    requested: Receiver<()>,
}

/// Requests the stop when it is dropped.
#[derive(Debug)]
pub struct Stopper(#[expect(dead_code, reason = "held for the sake of being dropped")] Sender<()>);

impl Stop {
    /// A wish that is not yet there, and what makes it known.
    pub fn new() -> (Stopper, Self) {
        let (sender, requested) = bounded(0);
        (Stopper(sender), Self { requested })
    }

    /// Whether to stop now.
    pub fn is_requested(&self) -> bool {
        self.requested
            .try_recv()
            .is_err_and(|error| error.is_disconnected())
    }

    /// Waits for the moment, or for the wish to stop; says whether it was the wish.
    pub fn wait_until(&self, moment: Instant) -> bool {
        matches!(
            self.requested.recv_deadline(moment),
            Err(RecvTimeoutError::Disconnected)
        )
    }

    /// The channel whose end is the wish, for a `select!`.
    pub fn channel(&self) -> &Receiver<()> {
        &self.requested
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_clones_learn_of_the_wish() {
        let (stopper, stop) = Stop::new();
        let other = stop.clone();
        assert!(!stop.is_requested() && !other.wait_until(Instant::now()));
        drop(stopper);
        assert!(stop.is_requested() && other.is_requested());
        assert!(stop.wait_until(Instant::now() + Duration::from_secs(3600)));
    }
}
