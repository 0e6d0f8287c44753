//! The plugin's side: what [`crate::export_policy!`] makes of a [`Policy`].
//!
//! Each function that C calls checks its pointers, and catches a panic before it would leave Rust: the panic's text,
//! with the place it came from, becomes the error of the call, and the instance decides no more. Whoever runs it makes
//! it anew. While a call lasts, [`crate::log`] writes to the host.
//!
//! Nothing here is for an author to call.

use std::ffi::c_void;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::OnceLock;

use super::instance::size;
use super::library::read_table;
use super::panic::caught;
use super::types::{
    ABI_MAJOR, ERROR, ERROR_ARGUMENT, ERROR_LOST, Host, LIBRARY_MAGIC, LOG_DEBUG, LOG_ERROR, LOG_INFO,
    LOG_TRACE, LOG_WARN, MAX_DEFAULTS, OK, Options, PlanTable, PolicyLibrary, PolicyTable, Text, first_size,
};
use crate::ids::Index;
use crate::log::{self, Level};
use crate::options::{self, OptionsError};
use crate::plan::Plan;
use crate::policy::{Decide, Policy, is_name};
use crate::snapshot::Snapshot;
use crate::snapshot::rows::{ALIGNMENT, Header};

/// Makes a plugin of one or more types that implement [`Policy`](crate::policy::Policy): written once, at the top
/// level of a crate with `crate-type = ["cdylib"]`.
///
/// ```
/// #![deny(unsafe_code)]
/// # use vcpu_policy_api::{plan::Plan, policy::{Policy, PolicyError}, snapshot::Snapshot};
/// # fn main() {}
///
/// struct Still;
///
/// impl Policy for Still {
///     const NAME: &'static str = "still";
///     const VERSION: &'static str = "1.0.0";
///     const SUMMARY: &'static str = "never moves a vCPU";
///     type Options = ();
///     fn new(_: ()) -> Result<Self, PolicyError> {
///         Ok(Self)
///     }
///     fn decide(&mut self, _: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
///         plan.note("this policy does nothing");
///         Ok(())
///     }
/// }
///
/// vcpu_policy_api::export_policy!(Still);
/// ```
///
/// Several policies share a library: `export_policy!(Still, Restless)`.
///
/// It refuses to compile where panics abort: one panic would then end the process that runs the policy.
#[macro_export]
macro_rules! export_policy {
    ($($policy:ty),+ $(,)?) => {
        const _: () = {
            #[cfg(panic = "abort")]
            ::core::compile_error!(
                "a policy needs panic = \"unwind\": under \"abort\" a panic would end the process that runs it"
            );

            /// The library's entry point.
            #[unsafe(no_mangle)]
            pub extern "C" fn vcpu_policy_library_v1() -> *const $crate::abi::types::PolicyLibrary {
                static EXPORTS: $crate::abi::export::Exports = $crate::abi::export::Exports::new();
                EXPORTS.library(&[$($crate::abi::export::policy_table::<$policy>),+])
            }
        };
    };
}

/// The tables of a library, made when they are first asked for.
#[derive(Debug, Default)]
pub struct Exports(OnceLock<Option<Tables>>);

#[derive(Debug)]
struct Tables(PolicyLibrary);

// SAFETY: the pointers in the tables point to memory that is never written again and never freed.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

impl Exports {
    /// No tables yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The library's table; null if it could not be made.
    pub fn library(&'static self, policies: &[fn() -> PolicyTable]) -> *const PolicyLibrary {
        let make = || {
            let pointers: Vec<*const PolicyTable> = policies
                .iter()
                .map(|table| std::ptr::from_ref(Box::leak(Box::new(table()))))
                .collect();
            let pointers = pointers.leak();
            Tables(PolicyLibrary {
                size: size(size_of::<PolicyLibrary>()),
                major: ABI_MAJOR,
                magic: LIBRARY_MAGIC,
                policy_count: size(pointers.len()),
                reserved: 0,
                policies: pointers.as_ptr(),
            })
        };
        let tables = self.0.get_or_init(|| catch_unwind(AssertUnwindSafe(make)).ok());
        tables
            .as_ref()
            .map_or(std::ptr::null(), |tables| &raw const tables.0)
    }
}

/// The table of one policy.
///
/// # Panics
/// If the text of its default options is longer than the interface allows.
pub fn policy_table<P: Policy>() -> PolicyTable {
    const {
        assert!(
            is_name(P::NAME),
            "a policy's NAME has lower-case letters, digits and dashes, first a letter; 64 at most"
        );
    }
    let defaults = options::defaults::<P>();
    assert!(
        defaults.len() as u64 <= MAX_DEFAULTS,
        "the default options are too long"
    );
    PolicyTable {
        size: size(size_of::<PolicyTable>()),
        reserved: 0,
        name: Text::of(P::NAME),
        version: Text::of(P::VERSION),
        summary: Text::of(P::SUMMARY),
        defaults: Text::of(defaults.leak()),
        create: Some(create::<P>),
        decide: Some(decide),
        destroy: Some(destroy),
        extension: None,
    }
}

/// A policy behind the pointer that the host holds.
struct Exported {
    policy: Box<dyn Decide>,
    plan: Plan,
    host: HostHandle,
    /// It panicked: its state may be half-way through a change.
    poisoned: bool,
}

/// The host's table, which is valid for as long as the instance.
#[derive(Clone, Copy)]
struct HostHandle(Host);

impl HostHandle {
    /// # Safety
    /// The pointer is null or what the host handed over.
    unsafe fn new(host: *const Host) -> Option<Self> {
        // SAFETY: the host vouches for its table; zero is a null pointer, or no function, in each field.
        let table = unsafe { read_table(host, "the host's table", first_size::HOST, |_| Ok(())) };
        table.ok().map(Self)
    }

    fn log(&self, level: Level, line: &str) {
        let level = match level {
            Level::Error => LOG_ERROR,
            Level::Warn => LOG_WARN,
            Level::Info => LOG_INFO,
            Level::Debug => LOG_DEBUG,
            Level::Trace => LOG_TRACE,
        };
        if let Some(log) = self.0.log {
            // SAFETY: the host's own function and context, within a call from the host; the text is copied at once.
            unsafe { log(self.0.context, level, Text::of(line)) };
        }
    }

    /// Says why the call fails, and gives the code to return.
    fn fail(&self, code: i32, reason: &dyn Display) -> i32 {
        let reason = reason.to_string();
        if let Some(fail) = self.0.fail {
            // SAFETY: as in `log`.
            unsafe { fail(self.0.context, Text::of(&reason)) };
        }
        code
    }

    /// Makes a call into the author's code, its log lines going to the host.
    fn guard<R>(self, call: impl FnOnce() -> R) -> Result<R, String> {
        let sink = Rc::new(move |level, line: &str| self.log(level, line));
        log::with_sink(sink, || caught(call))
    }
}

unsafe extern "C" fn create<P: Policy>(
    host: *const Host,
    options: *const Options,
    policy: *mut *mut c_void,
) -> i32 {
    // SAFETY: the host vouches for its tables.
    let (Some(host), Ok(options)) = (unsafe {
        (
            HostHandle::new(host),
            read_table(options, "options", first_size::OPTIONS, |_| Ok(())),
        )
    }) else {
        return ERROR_ARGUMENT;
    };
    if policy.is_null() || !policy.is_aligned() {
        return ERROR_ARGUMENT;
    }
    // SAFETY: the host vouches for the bytes of its texts, which stay for this call.
    let Some(yaml) = (unsafe { options.yaml.read(u64::from(u32::MAX)) }) else {
        return ERROR_ARGUMENT;
    };
    let made = host.guard(|| match std::str::from_utf8(yaml) {
        Err(_) => Err("the options are not UTF-8".to_owned()),
        // The host puts the policy's name in front.
        Ok(yaml) => options::build::<P>(yaml).map_err(|error| match error {
            OptionsError::Refused { source, .. } => source.to_string(),
            OptionsError::Value { message, .. } => message,
            other => other.to_string(),
        }),
    });
    match made {
        Err(panic) => host.fail(ERROR, &format_args!("it panicked: {panic}")),
        Ok(Err(refusal)) => host.fail(ERROR, &refusal),
        Ok(Ok(made)) => {
            let exported = Box::new(Exported {
                policy: made,
                plan: Plan::new(),
                host,
                poisoned: false,
            });
            // SAFETY: not null, aligned, and the host vouches that a pointer can be stored there.
            unsafe { policy.write(Box::into_raw(exported).cast()) };
            OK
        }
    }
}

unsafe extern "C" fn decide(
    policy: *mut c_void,
    snapshot: *const Header,
    snapshot_size: u64,
    plan: *const PlanTable,
) -> i32 {
    // SAFETY: null or what `create` stored, which the host uses in one call at a time; the host vouches for its table.
    let (Some(exported), Ok(table)) = (unsafe {
        (
            policy.cast::<Exported>().as_mut(),
            read_table(plan, "plan", first_size::PLAN_TABLE, |_| Ok(())),
        )
    }) else {
        return ERROR_ARGUMENT;
    };
    let Exported {
        policy,
        plan,
        host,
        poisoned,
    } = exported;
    if *poisoned {
        return host.fail(ERROR_LOST, &"it panicked in an earlier tick");
    }
    let length = usize::try_from(snapshot_size)
        .ok()
        .filter(|&length| isize::try_from(length).is_ok());
    let (false, true, Some(length)) = (
        snapshot.is_null(),
        snapshot.addr().is_multiple_of(ALIGNMENT),
        length,
    ) else {
        return ERROR_ARGUMENT;
    };
    // SAFETY: not null; the host vouches for the bytes of the block, which stay as they are for this call.
    let block = unsafe { std::slice::from_raw_parts(snapshot.cast::<u8>(), length) };
    let decided = host.guard(|| {
        plan.clear();
        let snapshot = Snapshot::new(block).map_err(|error| (false, error.to_string()))?;
        let decided = policy.decide(&snapshot, plan);
        decided.map_err(|error| (error.is_lost(), error.to_string()))
    });
    match decided {
        Err(panic) => {
            *poisoned = true;
            host.fail(ERROR_LOST, &format_args!("it panicked: {panic}"))
        }
        Ok(Err((lost, reason))) => host.fail(if lost { ERROR_LOST } else { ERROR }, &reason),
        Ok(Ok(())) => hand_over(plan, table),
    }
}

/// Tells the host what is in the plan. What it does not take, it says itself.
fn hand_over(plan: &Plan, table: PlanTable) -> i32 {
    let (Some(pin), Some(note)) = (table.pin, table.note) else {
        return ERROR_ARGUMENT;
    };
    for action in plan.actions() {
        let words = action.cpus.words();
        let Ok(vcpu) = u32::try_from(action.vcpu.index()) else {
            continue;
        };
        // SAFETY: the host's own function and context, within the call they were given for; words and text are copied.
        unsafe {
            pin(
                table.context,
                vcpu,
                words.as_ptr(),
                size(words.len()),
                Text::of(action.reason),
                action.gain,
            )
        };
    }
    for text in plan.notes() {
        // SAFETY: as above.
        unsafe { note(table.context, Text::of(text)) };
    }
    OK
}

unsafe extern "C" fn destroy(policy: *mut c_void) {
    if policy.is_null() {
        return;
    }
    // SAFETY: what `create` stored, and the host's last use of it.
    let exported = unsafe { Box::from_raw(policy.cast::<Exported>()) };
    let Exported {
        policy,
        host,
        poisoned,
        ..
    } = *exported;
    if poisoned {
        // Its state may be half-way through a change; running its destructors is not worth a second panic.
        std::mem::forget(policy);
    } else if let Err(panic) = host.guard(|| drop(policy)) {
        host.log(Level::Error, &format!("it panicked while it was ended: {panic}"));
    }
}
