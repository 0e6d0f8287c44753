//! What libvirt tells of its own accord: a domain's definition or metadata changed.
//!
//! libvirt delivers events, and keeps a connection alive, from an event loop, of which a process has one. It is
//! started before the first connection is opened and runs in a thread of its own for as long as the process does. A
//! callback notes the domain in [`Changes`] and returns; whoever samples the host takes the notes away. They take up
//! no more memory than a thousand domains need, however long nobody comes for them.
//!
//! Each callback holds a share of the notes, which libvirt drops when it is done with the callback.

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;
use virt::connect::Connect;
use virt::error::Error;

use crate::host::DomainUuid;

/// Of more domains than this it is only kept that there were many.
const MOST_NOTED: usize = 1000;

/// How long the event loop waits after it failed, so as not to fail without a pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Domains of which something kept may have changed.
#[derive(Debug, Clone, Default)]
pub(in crate::host::libvirt) struct Changes(Arc<Mutex<Changed>>);

/// What [`Changes`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host::libvirt) enum Changed {
    /// Of these domains.
    Domains(BTreeSet<DomainUuid>),
    /// Of so many that they were not counted.
    Any,
}

impl Default for Changed {
    fn default() -> Self {
        Self::Domains(BTreeSet::new())
    }
}

impl Changed {
    /// Whether this domain is among them.
    pub(in crate::host::libvirt) fn includes(&self, domain: DomainUuid) -> bool {
        match self {
            Self::Domains(domains) => domains.contains(&domain),
            Self::Any => true,
        }
    }
}

impl Changes {
    /// Takes away what was noted since the last time.
    pub(in crate::host::libvirt) fn take(&self) -> Changed {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, domain: Option<DomainUuid>) {
        let mut changed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *changed, domain) {
            (Changed::Domains(domains), Some(domain)) if domains.len() < MOST_NOTED => {
                domains.insert(domain);
            }
            _ => *changed = Changed::Any,
        }
    }
}

/// Starts libvirt's event loop if it does not run yet. Returns whether it runs.
///
/// To be called before the first connection is opened: one that was opened earlier knows nothing of it.
pub(in crate::host::libvirt) fn run_event_loop() -> bool {
    static RUNS: OnceLock<bool> = OnceLock::new();
    *RUNS.get_or_init(|| {
        let registered = virt::event::event_register_default_impl();
        let started = registered
            .map_err(|error| error.message().to_owned())
            .and_then(|()| {
                let spawned = thread::Builder::new()
                    .name("libvirt-events".to_owned())
                    .spawn(event_loop);
                spawned.map_err(|error| error.to_string())
            });
        if let Err(error) = &started {
            warn!(
                error,
                "libvirt's events cannot be had: changes are found by reading from time to time"
            );
        }
        started.is_ok()
    })
}

fn event_loop() {
    let mut said = false;
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            if !mem::replace(&mut said, true) {
                warn!(
                    error = error.message(),
                    "libvirt's event loop failed; it is tried again"
                );
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Has libvirt note domains that are defined anew or undefined. Returns the subscription's number.
pub(super) fn definitions(connect: &Connect, changes: &Changes) -> Result<c_int, Error> {
    // SAFETY: libvirt calls back a lifecycle handler with the arguments of this type, whatever type it is registered
    // as; that is how its interface is meant to be used.
    let callback = unsafe { mem::transmute::<LifecycleCallback, GenericCallback>(on_lifecycle) };
    subscribe(
        connect,
        virt_sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        callback,
        changes,
    )
}

/// Has libvirt note domains whose metadata changes. Returns the subscription's number.
pub(super) fn metadata(connect: &Connect, changes: &Changes) -> Result<c_int, Error> {
    // SAFETY: as for `definitions`.
    let callback = unsafe { mem::transmute::<MetadataCallback, GenericCallback>(on_metadata) };
    subscribe(
        connect,
        virt_sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
        callback,
        changes,
    )
}

type GenericCallback = unsafe extern "C" fn(virt_sys::virConnectPtr, virt_sys::virDomainPtr, *mut c_void);
type LifecycleCallback =
    unsafe extern "C" fn(virt_sys::virConnectPtr, virt_sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type MetadataCallback =
    unsafe extern "C" fn(virt_sys::virConnectPtr, virt_sys::virDomainPtr, c_int, *const c_char, *mut c_void);

fn subscribe(
    connect: &Connect,
    event: virt_sys::virDomainEventID,
    callback: GenericCallback,
    changes: &Changes,
) -> Result<c_int, Error> {
    let share = Arc::into_raw(Arc::clone(&changes.0)).cast_mut().cast::<c_void>();
    let event = c_int::try_from(event).expect("libvirt has few kinds of events");
    // SAFETY: the connection is open for as long as it is borrowed; without a domain the events of all are meant; the
    // callback is of the kind that the event calls for; `share` stays valid until `drop_share` is called, which libvirt
    // does once, when it is done with the callback.
    let subscription = unsafe {
        virt_sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            event,
            Some(callback),
            share,
            Some(drop_share),
        )
    };
    if subscription < 0 {
        let error = Error::last_error();
        // SAFETY: libvirt did not take the share, so it is still ours.
        unsafe { drop_share(share) };
        return Err(error);
    }
    Ok(subscription)
}

/// Ends a subscription. A connection that is lost has ended it already, which is no matter.
pub(super) fn unsubscribe(connect: &Connect, subscription: c_int) {
    // SAFETY: the connection is open for as long as it is borrowed; a number that it does not know is an error.
    unsafe { virt_sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), subscription) };
}

/// Drops a share of the notes.
unsafe extern "C" fn drop_share(share: *mut c_void) {
    // SAFETY: it is what `subscribe` made of an `Arc` of this type, and it is dropped once.
    drop(unsafe { Arc::from_raw(share.cast_const().cast::<Mutex<Changed>>()) });
}

unsafe extern "C" fn on_lifecycle(
    _: virt_sys::virConnectPtr,
    domain: virt_sys::virDomainPtr,
    event: c_int,
    _: c_int,
    share: *mut c_void,
) -> c_int {
    // Which domains run is not learnt from here.
    if concerns_definitions(event) {
        // SAFETY: libvirt hands over the domain that the event is about and the share given with the callback.
        unsafe { note(share, domain) };
    }
    0
}

unsafe extern "C" fn on_metadata(
    _: virt_sys::virConnectPtr,
    domain: virt_sys::virDomainPtr,
    _: c_int,
    _: *const c_char,
    share: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { note(share, domain) };
}

/// Whether a lifecycle event is about the domain's definition; one that is not known may be.
fn concerns_definitions(event: c_int) -> bool {
    !matches!(
        c_uint::try_from(event),
        Ok(virt_sys::VIR_DOMAIN_EVENT_STARTED
            | virt_sys::VIR_DOMAIN_EVENT_SUSPENDED
            | virt_sys::VIR_DOMAIN_EVENT_RESUMED
            | virt_sys::VIR_DOMAIN_EVENT_STOPPED
            | virt_sys::VIR_DOMAIN_EVENT_SHUTDOWN
            | virt_sys::VIR_DOMAIN_EVENT_PMSUSPENDED
            | virt_sys::VIR_DOMAIN_EVENT_CRASHED)
    )
}

/// Notes a domain.
///
/// # Safety
/// `share` is what [`subscribe`] registered and not yet dropped; `domain` is valid.
unsafe fn note(share: *mut c_void, domain: virt_sys::virDomainPtr) {
    let mut uuid = [0; virt_sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: the caller promises a valid domain; the buffer has the length that the call asks for.
    let known = unsafe { virt_sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0;
    // SAFETY: the caller promises that the share is valid; it is borrowed, not taken, so it is not to be dropped here.
    let changes = mem::ManuallyDrop::new(Changes(unsafe {
        Arc::from_raw(share.cast_const().cast::<Mutex<Changed>>())
    }));
    changes.note(known.then_some(DomainUuid(uuid)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(number: usize) -> DomainUuid {
        DomainUuid(uuid::Uuid::from_u128(number as u128).into_bytes())
    }

    #[test]
    fn what_was_noted_is_taken_away_once() {
        let changes = Changes::default();
        changes.note(Some(uuid(1)));
        changes.note(Some(uuid(2)));
        changes.note(Some(uuid(1)));
        let taken = changes.take();
        assert_eq!(taken, Changed::Domains(BTreeSet::from([uuid(1), uuid(2)])));
        assert!(taken.includes(uuid(2)) && !taken.includes(uuid(3)));
        assert_eq!(changes.take(), Changed::default());
    }

    #[test]
    fn notes_that_nobody_takes_stay_few() {
        let changes = Changes::default();
        for number in 0..=MOST_NOTED {
            changes.note(Some(uuid(number)));
        }
        changes.note(Some(uuid(0)));
        let taken = changes.take();
        assert_eq!(taken, Changed::Any);
        assert!(taken.includes(uuid(MOST_NOTED * 2)));
    }

    #[test]
    fn a_domain_without_a_name_may_be_any() {
        let changes = Changes::default();
        changes.note(None);
        assert_eq!(changes.take(), Changed::Any);
    }

    #[test]
    fn events_that_are_not_known_may_concern_definitions() {
        for (event, concerns) in [
            (0, true),
            (1, true),
            (2, false),
            (5, false),
            (8, false),
            (9, true),
            (-1, true),
        ] {
            assert_eq!(concerns_definitions(event), concerns, "{event}");
        }
    }
}
