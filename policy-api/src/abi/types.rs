//! What C sees: the tables, the codes and the limits of the plugin ABI, version 1.
//!
//! These types, together with the rows of [`crate::snapshot::rows`], are the source of `include/vcpu_policy.h`: their
//! comments are its comments, so they speak of neither language.

use std::ffi::{c_char, c_void};

use crate::snapshot::rows::Header;

/// The version of the interface: what differs in it cannot work together. It is part of the entry point's name.
pub const ABI_MAJOR: u32 = 1;

/// What the magic field of a library's table holds: "VCPUPLUG" in ASCII, the first letter in the lowest byte.
pub const LIBRARY_MAGIC: u64 = 0x4755_4C50_5550_4356;

/// Returned by a call that did what it was asked.
pub const OK: i32 = 0;
/// Returned by a call that failed; it has said why through the host's fail callback. The policy can be used on.
pub const ERROR: i32 = -1;
/// Returned by a call that failed and left the policy in a state of no use: it will be destroyed and made anew.
pub const ERROR_LOST: i32 = -2;
/// Returned by a call that was handed a null pointer or a length out of bounds.
pub const ERROR_ARGUMENT: i32 = -3;
/// Returned by a callback that cannot take more of the same.
pub const ERROR_FULL: i32 = -4;

/// Log level: the policy cannot do its job.
pub const LOG_ERROR: i32 = 1;
/// Log level: the operator should look.
pub const LOG_WARN: i32 = 2;
/// Log level: something changed.
pub const LOG_INFO: i32 = 3;
/// Log level: once a tick.
pub const LOG_DEBUG: i32 = 4;
/// Log level: many times a tick.
pub const LOG_TRACE: i32 = 5;

/// The longest name and version of a policy, in bytes.
pub const MAX_NAME: u64 = 64;
/// The longest summary, reason, note, error and log line, in bytes; what is longer is cut off.
pub const MAX_LINE: u64 = 1024;
/// The longest text of a policy's default options, in bytes.
pub const MAX_DEFAULTS: u64 = 65_536;
/// The most policies in one library.
pub const MAX_POLICIES: u32 = 64;
/// The most 64-bit words of a CPU set in a pin.
pub const MAX_SET_WORDS: u32 = 1024;
/// The most notes in a plan.
pub const MAX_NOTES: u32 = 256;

/// A piece of UTF-8 text. No zero byte ends it. Where the length is 0 the pointer is not looked at.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Text {
    /// The first byte.
    pub bytes: *const c_char,
    /// The length in bytes.
    pub length: u64,
}

/// What a library returns from its one exported function. It and everything it points to stays as it is for as long
/// as the process lives: a library is never unloaded.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PolicyLibrary {
    /// The size of this struct in bytes, as the library was compiled.
    pub size: u32,
    /// The version of the interface that the library was compiled for.
    pub major: u32,
    /// The number by which the table is known for one.
    pub magic: u64,
    /// How many policies the library has; at least one.
    pub policy_count: u32,
    /// Zero.
    pub reserved: u32,
    /// That many pointers, none of them null.
    pub policies: *const *const PolicyTable,
}

/// A policy of a library.
///
/// Threads: create may be called on any thread, and for several instances at once. The calls that get one instance come
/// one at a time, but not always on the same thread; those of two instances may come at the same time. A callback may
/// be called only by the thread that is in a call from the host, and only until that call returns.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PolicyTable {
    /// The size of this struct in bytes, as the library was compiled.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// What the operator writes to choose the policy: lower-case letters, digits and dashes, first a letter.
    pub name: Text,
    /// The version of the policy's behaviour, major.minor.patch.
    pub version: Text,
    /// One sentence for the operator: what this policy does to guests.
    pub summary: Text,
    /// The options with their defaults, as a YAML mapping; empty if there are none. The host refuses a key that is not
    /// in it, and completes what the operator left out. Only its own keys: a value that is a mapping or a list is
    /// replaced as a whole, whatever is in it.
    pub defaults: Text,
    /// Makes an instance and stores a pointer to it, which may be null if there is nothing to remember: decide and
    /// destroy then get a null pointer. The host table stays valid until destroy returns; the options are valid until
    /// this call returns.
    pub create: Option<
        unsafe extern "C" fn(host: *const Host, options: *const Options, policy: *mut *mut c_void) -> i32,
    >,
    /// Decides one tick: adds pins and notes to the plan, which is empty. The snapshot and the plan are valid until
    /// this call returns. The same instance with the same history and the same snapshot decides the same: no clock,
    /// no randomness but the snapshot's seed.
    pub decide: Option<
        unsafe extern "C" fn(
            policy: *mut c_void,
            snapshot: *const Header,
            snapshot_size: u64,
            plan: *const PlanTable,
        ) -> i32,
    >,
    /// Ends an instance; called once, and after it nothing else. Called also after a call that failed, but not if
    /// create did.
    pub destroy: Option<unsafe extern "C" fn(policy: *mut c_void)>,
    /// Looks up an extension of the policy by its name; null if it does not have it. May itself be null.
    pub extension: Option<unsafe extern "C" fn(id: Text) -> *const c_void>,
}

/// What the host offers an instance for as long as it lives.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Host {
    /// The size of this struct in bytes, as the host was compiled.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// To be handed back in each call.
    pub context: *mut c_void,
    /// Writes a line into the host's log. The text is copied.
    pub log: Option<unsafe extern "C" fn(context: *mut c_void, level: i32, line: Text)>,
    /// Says why the call that is being made will fail, in one line for the operator; of several, the last one holds.
    /// The text is copied.
    pub fail: Option<unsafe extern "C" fn(context: *mut c_void, reason: Text)>,
    /// Looks up an extension of the host by its name; null if it does not have it.
    pub extension: Option<unsafe extern "C" fn(context: *mut c_void, id: Text) -> *const c_void>,
}

/// The options of an instance: all that the policy has, those that the operator did not set with their defaults.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Options {
    /// The size of this struct in bytes, as the host was compiled.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// A YAML mapping; empty if the policy has no options.
    pub yaml: Text,
    /// The same as "key=value" lines. A value within another one has its path as its key ("limits.high", "cpus.0"). In
    /// a value, a backslash stands as two of them and a line break as a backslash and an n.
    pub flat: Text,
}

/// What an instance fills in the course of a decision.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PlanTable {
    /// The size of this struct in bytes, as the host was compiled.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// To be handed back in each call.
    pub context: *mut c_void,
    /// Adds a pin: the vCPU in this row (not row + 1) shall run on the CPUs whose rows are the one bits of the words,
    /// the least significant bit of the first word first. The reason is for the operator. The gain says by how much
    /// the policy expects its own objective to fall. Words and reason are copied.
    pub pin: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            vcpu: u32,
            words: *const u64,
            word_count: u32,
            reason: Text,
            gain: f64,
        ) -> i32,
    >,
    /// Says something about the decision as a whole: above all why nothing, or nothing more, moves. The text is copied.
    pub note: Option<unsafe extern "C" fn(context: *mut c_void, text: Text) -> i32>,
}

/// What a library exports under the name `vcpu_policy_library_v1`.
pub type EntryPoint = unsafe extern "C" fn() -> *const PolicyLibrary;

/// The one symbol that a library exports.
pub const ENTRY_POINT: &str = "vcpu_policy_library_v1";

/// The sizes in the first version, for good: what is smaller is not of this version.
pub(crate) mod first_size {
    pub(crate) const POLICY_LIBRARY: u32 = 32;
    pub(crate) const POLICY_TABLE: u32 = 104;
    pub(crate) const HOST: u32 = 40;
    pub(crate) const OPTIONS: u32 = 40;
    pub(crate) const PLAN_TABLE: u32 = 32;
}

// What another compiler has to agree with to the byte is in `layout`.
const _: () = assert!(
    size_of::<*const c_void>() == 8,
    "the interface is defined for 64-bit machines"
);
