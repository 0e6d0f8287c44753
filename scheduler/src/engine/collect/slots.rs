//! Dense numbers for vCPUs: each has one of its own as long as it lives, and the smallest free one is given first, but
//! only after a tick in which nobody had it.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct Slots {
    free: BTreeSet<u32>,
    /// Let go in this tick, free from the next one on.
    released: Vec<u32>,
    next: u32,
}

impl Slots {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    pub(super) fn release(&mut self, slot: u32) {
        self.released.push(slot);
    }

    pub(super) fn end_tick(&mut self) {
        self.free.extend(self.released.drain(..));
    }
}
