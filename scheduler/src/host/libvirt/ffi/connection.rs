//! A connection and what it is told of its own accord.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use virt::connect::Connect;
use virt::error::Error;

use super::events::{self, Changes};

/// A connection whose end cannot panic (the crate's own `drop` does if libvirt reports an error on closing), and
/// which ends what it subscribed to first.
pub(in crate::host::libvirt) struct Connection {
    connect: ManuallyDrop<Connect>,
    subscriptions: Vec<c_int>,
}

impl Connection {
    pub(in crate::host::libvirt) fn new(connect: Connect) -> Self {
        Self {
            connect: ManuallyDrop::new(connect),
            subscriptions: Vec::new(),
        }
    }

    /// Takes note in `changes`, from now on, of domains whose definition or metadata changes.
    pub(in crate::host::libvirt) fn subscribe(&mut self, changes: &Changes) -> Result<(), Error> {
        for subscribe in [events::definitions, events::metadata] {
            let subscription = subscribe(&self.connect, changes)?;
            self.subscriptions.push(subscription);
        }
        Ok(())
    }
}

impl Deref for Connection {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        &self.connect
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for &subscription in &self.subscriptions {
            events::unsubscribe(&self.connect, subscription);
        }
        // SAFETY: the pointer is valid, since the crate keeps a reference for each `Connect` and this one was never
        // dropped; it is not used again, since `ManuallyDrop` keeps the crate from closing it a second time.
        unsafe { virt_sys::virConnectClose(self.connect.as_ptr()) };
    }
}
