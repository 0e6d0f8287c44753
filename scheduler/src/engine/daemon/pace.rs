//! Time as the loop knows it: what time it is, and what comes of waiting.
//!
//! The loop reads no clock and waits for nothing but through a [`Pace`]. So it can also be driven through a time that
//! somebody makes up, without a pause, with orders and the wish to stop at moments of their choice.

use std::time::Instant;

use crossbeam_channel::{Receiver, at, select};

use super::Order;
use crate::stop::Stop;

/// A clock, and waiting by it.
pub trait Pace {
    /// What time it is.
    fn now(&self) -> Instant;

    /// Whether the wish to stop is there.
    fn is_stopped(&self) -> bool;

    /// Waits for a moment, for an order, or for the wish to stop, whichever comes first.
    fn wait(&mut self, moment: Instant) -> Waited;
}

/// What came of waiting.
#[derive(Debug)]
pub enum Waited {
    /// The moment came.
    Moment,
    /// The wish to stop.
    Stop,
    /// Something is to be done first.
    Order(Order),
}

/// Time as it passes.
#[derive(Debug, Clone, Copy)]
pub struct RealTime<'a> {
    /// The wish to stop.
    pub stop: &'a Stop,
    /// What the loop is asked for while it runs.
    pub orders: &'a Receiver<Order>,
}

impl Pace for RealTime<'_> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_requested()
    }

    fn wait(&mut self, moment: Instant) -> Waited {
        if self.is_stopped() {
            return Waited::Stop;
        }
        select! {
            recv(self.stop.channel()) -> _ => Waited::Stop,
            // Without anybody to order anything, there is the moment.
            recv(self.orders) -> order => order.map_or_else(|_| quietly(moment, self.stop), Waited::Order),
            recv(at(moment)) -> _ => Waited::Moment,
        }
    }
}

fn quietly(moment: Instant, stop: &Stop) -> Waited {
    if stop.wait_until(moment) {
        Waited::Stop
    } else {
        Waited::Moment
    }
}
