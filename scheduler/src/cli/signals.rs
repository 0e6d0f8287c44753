//! What signals mean: SIGINT and SIGTERM ask to stop, each further one asks for more haste, SIGHUP asks to read the
//! configuration again.

use anyhow::Context;
use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator;
use signal_hook::low_level::signal_name;
use tracing::{info, warn};

use super::Failure;
use crate::engine::daemon::Order;
use crate::stop::Stop;

/// The wishes that signals stand for.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    /// The first signal: decide nothing more, put things in order, and end.
    pub(super) stop: Stop,
    /// The second one: end without putting things in order.
    pub(super) hurry: Stop,
}

impl Signals {
    /// From now on signals are such wishes. A third one ends the process at once. SIGHUP goes to `orders`; without that it
    /// does what it does by default.
    pub(super) fn handle(orders: Option<Sender<Order>>) -> Result<Self, Failure> {
        let mut heeded = vec![SIGINT, SIGTERM];
        heeded.extend(orders.as_ref().map(|_| SIGHUP));
        let mut signals = iterator::Signals::new(heeded)
            .context("cannot wait for signals")
            .map_err(Failure::world)?;
        let (stopper, stop) = Stop::new();
        let (hurrier, hurry) = Stop::new();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut wishes = vec![hurrier, stopper];
                for signal in signals.forever() {
                    let name = signal_name(signal);
                    match (signal, &orders) {
                        (SIGHUP, Some(orders)) => {
                            // Without a loop there is nothing to reload.
                            let _ = orders.send(Order::Reload);
                        }
                        _ => match wishes.len() {
                            2 => info!(signal = name, "stopping"),
                            1 => warn!(
                                signal = name,
                                "asked again: what is not given back yet stays in the journal"
                            ),
                            _ => std::process::exit(128 + signal),
                        },
                    }
                    if signal != SIGHUP {
                        wishes.pop();
                    }
                }
            })
            .context("cannot start a thread")
            .map_err(Failure::world)?;
        Ok(Self { stop, hurry })
    }
}
