//! The host's side of one instance: a foreign policy behind [`Decide`].

use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use super::types::{
    ERROR_ARGUMENT, ERROR_FULL, ERROR_LOST, Host, LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_WARN, MAX_LINE,
    MAX_NOTES, MAX_SET_WORDS, OK, Options, PlanTable, Text,
};
use crate::cpuset::CpuSetRef;
use crate::ids::VcpuIx;
use crate::log::Level;
use crate::options::CompleteOptions;
use crate::plan::Plan;
use crate::policy::{Decide, PolicyError};
use crate::snapshot::Snapshot;
use crate::snapshot::rows::Header;

/// Where the log lines of a plugin go. It may be called on any thread.
pub type LogSink = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// The functions that every policy has.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    pub(super) create: CreateFn,
    pub(super) decide: DecideFn,
    pub(super) destroy: DestroyFn,
}

type CreateFn = unsafe extern "C" fn(*const Host, *const Options, *mut *mut c_void) -> i32;
type DecideFn = unsafe extern "C" fn(*mut c_void, *const Header, u64, *const PlanTable) -> i32;
type DestroyFn = unsafe extern "C" fn(*mut c_void);

/// A policy that a library made.
pub(super) struct Instance {
    calls: Calls,
    policy: *mut c_void,
    /// From `Box::into_raw`, since the library holds the same pointer for as long as the instance lives.
    host: *mut HostSide,
}

// SAFETY: the ABI asks of a library that its instances may be called on one thread after another; what the host
// side adds is a log sink, which is Sync, and a text that only the thread in a call gets to see.
unsafe impl Send for Instance {}

/// What the callbacks of an instance work on.
struct HostSide {
    table: Host,
    log: LogSink,
    failure: RefCell<Option<String>>,
}

impl Instance {
    pub(super) fn new(calls: Calls, options: &CompleteOptions, log: LogSink) -> Result<Self, PolicyError> {
        let host = Box::into_raw(Box::new(HostSide {
            table: Host {
                size: size(size_of::<Host>()),
                reserved: 0,
                context: ptr::null_mut(),
                log: Some(on_log),
                fail: Some(on_fail),
                extension: Some(on_extension),
            },
            log,
            failure: RefCell::new(None),
        }));
        let options = Options {
            size: size(size_of::<Options>()),
            reserved: 0,
            yaml: Text::of(&options.yaml),
            flat: Text::of(&options.flat),
        };
        let mut policy = ptr::null_mut();
        // SAFETY: `host` comes from `into_raw` just now and nobody else has it, so that its context may be set to
        // itself. The tables handed over are valid for as long as the ABI says; the library was trusted on loading.
        let code = unsafe {
            (*host).table.context = host.cast();
            (calls.create)(&raw const (*host).table, &raw const options, &raw mut policy)
        };
        if code == OK {
            return Ok(Self { calls, policy, host });
        }
        // SAFETY: the call is over, and with it the library's right to use the pointer.
        let host = unsafe { Box::from_raw(host) };
        Err(host.error(code))
    }
}

impl HostSide {
    /// What a call came to that did not return [`OK`].
    fn error(&self, code: i32) -> PolicyError {
        let said = self.failure.borrow_mut().take();
        let message = said.unwrap_or_else(|| format!("it returned the code {code} and did not say why"));
        if code == ERROR_LOST {
            PolicyError::lost(message)
        } else {
            PolicyError::new(message)
        }
    }
}

impl Decide for Instance {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        let (_, _, vcpus) = snapshot.counts();
        let mut filling = Filling {
            plan,
            pins_left: vcpus,
            notes_left: MAX_NOTES,
            refused: 0,
        };
        let table = PlanTable {
            size: size(size_of::<PlanTable>()),
            reserved: 0,
            context: (&raw mut filling).cast(),
            pin: Some(on_pin),
            note: Some(on_note),
        };
        let block = snapshot.as_bytes();
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "the check of a snapshot makes sure of its block's alignment"
        )]
        let header = block.as_ptr().cast::<Header>();
        // SAFETY: `host` lives until `drop`.
        let host = unsafe { &*self.host };
        host.failure.replace(None);
        // SAFETY: the instance is the library's own and in use by this call alone, since it is borrowed mutably. The
        // block is a checked snapshot and aligned; it, the table and what its context points to outlive the call.
        let code = unsafe { (self.calls.decide)(self.policy, header, block.len() as u64, &raw const table) };
        if filling.refused > 0 {
            let line = format!(
                "{} pins or notes were malformed or too many, and were left out",
                filling.refused
            );
            tell(host, Level::Warn, &line);
        }
        if code == OK { Ok(()) } else { Err(host.error(code)) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the instance is not in a call and ends here; after that nobody has the pointer to the host's side.
        unsafe {
            (self.calls.destroy)(self.policy);
            drop(Box::from_raw(self.host));
        }
    }
}

/// A plan while a library fills it.
struct Filling<'a> {
    plan: &'a mut Plan,
    /// More pins than there are vCPUs make no sense, and memory has an end.
    pins_left: usize,
    notes_left: u32,
    refused: u32,
}

unsafe extern "C" fn on_pin(
    context: *mut c_void,
    vcpu: u32,
    words: *const u64,
    word_count: u32,
    reason: Text,
    gain: f64,
) -> i32 {
    // SAFETY: the library hands back the context it was given, within the call it was given for; the `Filling` is used
    // by callbacks alone while that call lasts, and they come one at a time.
    let Some(filling) = (unsafe { context.cast::<Filling<'_>>().as_mut() }) else {
        return ERROR_ARGUMENT;
    };
    let unreadable = word_count > 0 && (words.is_null() || !words.is_aligned());
    if unreadable || word_count > MAX_SET_WORDS {
        filling.refused = filling.refused.saturating_add(1);
        return ERROR_ARGUMENT;
    }
    if filling.pins_left == 0 {
        filling.refused = filling.refused.saturating_add(1);
        return ERROR_FULL;
    }
    filling.pins_left -= 1;
    let words = if word_count == 0 {
        &[]
    } else {
        // SAFETY: not null and aligned; the library vouches for as many words as it states, and they are copied here.
        unsafe { std::slice::from_raw_parts(words, word_count as usize) }
    };
    // SAFETY: the library vouches for the bytes of its text.
    let reason = unsafe { reason.line(MAX_LINE) };
    filling
        .plan
        .pin(VcpuIx(vcpu), CpuSetRef::from_words(words), reason, gain);
    OK
}

unsafe extern "C" fn on_note(context: *mut c_void, text: Text) -> i32 {
    // SAFETY: as in `on_pin`.
    let Some(filling) = (unsafe { context.cast::<Filling<'_>>().as_mut() }) else {
        return ERROR_ARGUMENT;
    };
    if filling.notes_left == 0 {
        filling.refused = filling.refused.saturating_add(1);
        return ERROR_FULL;
    }
    filling.notes_left -= 1;
    // SAFETY: the library vouches for the bytes of its text.
    let text = unsafe { text.line(MAX_LINE) };
    filling.plan.note(text);
    OK
}

unsafe extern "C" fn on_log(context: *mut c_void, level: i32, line: Text) {
    // SAFETY: the library hands back the context it was given; the host's side lives as long as the instance.
    let Some(host) = (unsafe { context.cast::<HostSide>().as_ref() }) else {
        return;
    };
    // SAFETY: the library vouches for the bytes of its text.
    let line = unsafe { line.line(MAX_LINE) };
    tell(host, level_of(level), &line);
}

unsafe extern "C" fn on_fail(context: *mut c_void, reason: Text) {
    // SAFETY: as in `on_log`.
    let Some(host) = (unsafe { context.cast::<HostSide>().as_ref() }) else {
        return;
    };
    // SAFETY: the library vouches for the bytes of its text.
    let reason = unsafe { reason.line(MAX_LINE) };
    host.failure.replace(Some(reason));
}

/// The host has no extensions so far.
unsafe extern "C" fn on_extension(_context: *mut c_void, _id: Text) -> *const c_void {
    ptr::null()
}

/// A sink that panics must not unwind into the library.
fn tell(host: &HostSide, level: Level, line: &str) {
    let _ = catch_unwind(AssertUnwindSafe(|| (host.log)(level, line)));
}

fn level_of(level: i32) -> Level {
    match level {
        ..=LOG_ERROR => Level::Error,
        LOG_WARN => Level::Warn,
        LOG_INFO => Level::Info,
        LOG_DEBUG => Level::Debug,
        _ => Level::Trace,
    }
}

pub(super) fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a struct's size")
}
