//! Both sides of the interface in one process: there and back, and tables and calls that mean no good.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use proptest::prelude::*;

use super::export::{Exports, policy_table};
use super::library::{Library, LibraryError};
use super::types::{
    ABI_MAJOR, ERROR_ARGUMENT, ERROR_FULL, Host, LIBRARY_MAGIC, MAX_DEFAULTS, MAX_NAME, MAX_NOTES,
    MAX_SET_WORDS, OK, Options, PlanTable, PolicyLibrary, PolicyTable, Text,
};
use crate::cpuset::CpuSet;
use crate::document;
use crate::ids::{CpuIx, VcpuIx};
use crate::log;
use crate::plan::Plan;
use crate::policy::{Decide, Policy, PolicyError};
use crate::snapshot::rows::Header;
use crate::snapshot::{Snapshot, SnapshotBlock};

fn host() -> SnapshotBlock {
    let text = "{interval: 1s, topology: {cpus: 70}, domains: [{name: a, vcpus: [{load: 5}, {load: 6, affinity: 69}]}]}";
    document::read(text).expect("a snapshot")
}

/// Repeats what it sees, so that a test can tell whether it arrived.
struct Echo {
    greeting: String,
    ticks: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Greeting {
    greeting: String,
}

impl Default for Greeting {
    fn default() -> Self {
        Self {
            greeting: "hello".to_owned(),
        }
    }
}

impl Policy for Echo {
    const NAME: &'static str = "echo";
    const VERSION: &'static str = "1.2.3";
    const SUMMARY: &'static str = "says what it sees";
    type Options = Greeting;

    fn new(Greeting { greeting }: Greeting) -> Result<Self, PolicyError> {
        Ok(Self { greeting, ticks: 0 })
    }

    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        self.ticks += 1;
        let cpus: CpuSet = [CpuIx(0), CpuIx(69)].into_iter().collect();
        for vcpu in snapshot.vcpus() {
            plan.pin(vcpu.ix(), cpus.as_ref(), vcpu, vcpu.load().unwrap_or(f64::NAN));
        }
        plan.note(format_args!("{} {}", self.greeting, self.ticks));
        log::info("decided");
        if self.greeting == "silence" {
            Err(PolicyError::new("nothing to say"))
        } else {
            Ok(())
        }
    }
}

static ECHO: Exports = Exports::new();

fn exported() -> Library {
    // SAFETY: a table of this process, which is never freed.
    unsafe { Library::new(ECHO.library(&[policy_table::<Echo>])) }.expect("a good table")
}

/// The table of [`Echo`]; each one that is made stays for good.
fn echo_table() -> PolicyTable {
    // SAFETY: the library's own tables, as they were exported.
    unsafe { **(*ECHO.library(&[policy_table::<Echo>])).policies }
}

fn decided(policy: &mut dyn Decide) -> Result<Plan, PolicyError> {
    let mut plan = Plan::new();
    policy.decide(&host().view(), &mut plan).map(|()| plan)
}

#[test]
fn what_a_policy_says_arrives_to_the_bit() {
    let library = exported();
    let policy = &library.policies()[0];
    assert_eq!(
        (policy.name(), policy.version(), policy.summary()),
        ("echo", "1.2.3", "says what it sees")
    );
    assert_eq!(policy.defaults(), "greeting: hello\n");
    let mut instance = policy
        .make("greeting: 'a: \"b\" = \\'", Arc::new(|_, _| {}))
        .expect("good options");
    decided(&mut *instance).expect("a plan");
    let plan = decided(&mut *instance).expect("a plan");
    let mut direct = Echo {
        greeting: "a: \"b\" = \\".to_owned(),
        ticks: 1,
    };
    let mut expected = Plan::new();
    Policy::decide(&mut direct, &host().view(), &mut expected).expect("a plan");
    assert_eq!(format!("{plan:?}"), format!("{expected:?}"));
    assert_eq!(plan.actions().len(), 2);
}

#[test]
fn an_error_arrives_and_the_instance_goes_on() {
    let library = exported();
    let mut instance = library.policies()[0]
        .make("greeting: silence", Arc::new(|_, _| {}))
        .expect("good options");
    for _ in 0..2 {
        assert_eq!(
            decided(&mut *instance).expect_err("an error"),
            PolicyError::new("nothing to say")
        );
    }
}

#[test]
fn instances_may_wander_from_thread_to_thread() {
    let library = exported();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let policy = &library.policies()[0];
            let mut instance = policy.make("", Arc::new(|_, _| {})).expect("defaults");
            scope.spawn(move || decided(&mut *instance).expect("a plan"));
        }
    });
}

/// The functions of a table, called as only a broken host would.
#[test]
fn null_pointers_are_answered_with_a_code() {
    let table = echo_table();
    let (create, decide, destroy) = (table.create, table.decide, table.destroy);
    let (create, decide, destroy) = (create.expect("set"), decide.expect("set"), destroy.expect("set"));
    // SAFETY: null is what these functions have to stand.
    unsafe {
        assert_eq!(create(ptr::null(), ptr::null(), ptr::null_mut()), ERROR_ARGUMENT);
        assert_eq!(
            decide(ptr::null_mut(), ptr::null(), 0, ptr::null()),
            ERROR_ARGUMENT
        );
        destroy(ptr::null_mut());
    }
}

/// How a text of a hostile table is made.
#[derive(Debug, Clone)]
enum AnyText {
    Null { length: u64 },
    Bytes(Vec<u8>),
    TooLong,
}

impl AnyText {
    /// The text, whose bytes live as long as `self`.
    fn text(&self) -> Text {
        match self {
            Self::Null { length } => Text {
                bytes: ptr::null(),
                length: *length,
            },
            Self::Bytes(bytes) => Text {
                bytes: bytes.as_ptr().cast::<c_char>(),
                length: bytes.len() as u64,
            },
            Self::TooLong => Text {
                bytes: ptr::dangling(),
                length: u64::MAX,
            },
        }
    }
}

fn texts(good: &'static str) -> impl Strategy<Value = AnyText> {
    prop_oneof![
        8 => Just(AnyText::Bytes(good.into())),
        1 => any::<u64>().prop_map(|length| AnyText::Null { length }),
        2 => prop::collection::vec(any::<u8>(), 0..80).prop_map(AnyText::Bytes),
        1 => Just(AnyText::TooLong),
    ]
}

/// A call that a hostile `decide` makes.
#[derive(Debug, Clone)]
enum AnyCall {
    Pin {
        vcpu: u32,
        words: Option<Vec<u64>>,
        count: Option<u32>,
        reason: Vec<u8>,
        gain: f64,
    },
    Note(Vec<u8>),
    Log(i32, Vec<u8>),
    Fail(Vec<u8>),
}

fn calls() -> impl Strategy<Value = AnyCall> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let words = prop::option::weighted(0.9, prop::collection::vec(any::<u64>(), 0..4));
    prop_oneof![
        (
            0..4u32,
            words,
            prop::option::weighted(0.1, MAX_SET_WORDS + 1..),
            bytes(),
            any::<f64>()
        )
            .prop_map(|(vcpu, words, count, reason, gain)| AnyCall::Pin {
                vcpu,
                words,
                count,
                reason,
                gain
            }),
        bytes().prop_map(AnyCall::Note),
        (any::<i32>(), bytes()).prop_map(|(level, line)| AnyCall::Log(level, line)),
        bytes().prop_map(AnyCall::Fail),
    ]
}

/// What the hostile functions do, and whom they were given.
#[derive(Debug, Default)]
struct Script {
    create_code: i32,
    decide_code: i32,
    calls: Vec<AnyCall>,
    host: Option<Host>,
    living: i32,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

unsafe extern "C" fn hostile_create(host: *const Host, _: *const Options, _: *mut *mut c_void) -> i32 {
    // SAFETY: the host's own table.
    let host = unsafe { *host };
    SCRIPT.with_borrow_mut(|script| {
        script.host = Some(host);
        script.living += i32::from(script.create_code == OK);
        script.create_code
    })
}

unsafe extern "C" fn hostile_decide(
    _: *mut c_void,
    snapshot: *const Header,
    size: u64,
    plan: *const PlanTable,
) -> i32 {
    // SAFETY: the host's own block and table.
    let (plan, block) = unsafe {
        (
            *plan,
            std::slice::from_raw_parts(snapshot.cast::<u8>(), size.try_into().expect("64 bits")),
        )
    };
    assert!(Snapshot::new(block).is_ok());
    let (calls, code, host) = SCRIPT.with_borrow(|script| {
        (
            script.calls.clone(),
            script.decide_code,
            script.host.expect("created"),
        )
    });
    let (pin, note) = (plan.pin.expect("set"), plan.note.expect("set"));
    let text = |bytes: &[u8]| Text {
        bytes: bytes.as_ptr().cast::<c_char>(),
        length: bytes.len() as u64,
    };
    for call in &calls {
        // SAFETY: the host's own functions; every pointer is null or good for the length that goes with it, but for
        // counts beyond the limit, which the host must not believe.
        unsafe {
            match call {
                AnyCall::Pin {
                    vcpu,
                    words,
                    count,
                    reason,
                    gain,
                } => {
                    let known = words.as_deref().unwrap_or_default();
                    let pointer = words.as_deref().map_or(ptr::null(), <[u64]>::as_ptr);
                    let count = count.unwrap_or_else(|| u32::try_from(known.len()).expect("short"));
                    let code = pin(plan.context, *vcpu, pointer, count, text(reason), *gain);
                    assert!([OK, ERROR_ARGUMENT, ERROR_FULL].contains(&code));
                }
                AnyCall::Note(bytes) => {
                    note(plan.context, text(bytes));
                }
                AnyCall::Log(level, bytes) => host.log.expect("set")(host.context, *level, text(bytes)),
                AnyCall::Fail(bytes) => host.fail.expect("set")(host.context, text(bytes)),
            }
        }
    }
    code
}

unsafe extern "C" fn hostile_destroy(_: *mut c_void) {
    SCRIPT.with_borrow_mut(|script| script.living -= 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a table says: it is refused in words, or what is then known of the policy is sound.
    #[test]
    fn hostile_tables_are_refused_or_sound(
        texts in (texts("name"), texts("1.0.0"), texts("a summary"), texts("limit: 3\n")),
        table_size in prop_oneof![5 => Just(104u32), 1 => any::<u32>()],
        library_size in prop_oneof![5 => Just(32u32), 1 => any::<u32>()],
        major in prop_oneof![5 => Just(ABI_MAJOR), 1 => any::<u32>()],
        magic in prop_oneof![5 => Just(LIBRARY_MAGIC), 1 => any::<u64>()],
        count in prop_oneof![5 => Just(1u32), 1 => 0..3u32, 1 => 65u32..],
        pointers in prop::collection::vec(prop_oneof![8 => Just(true), 1 => Just(false)], 2),
        functions in prop::collection::vec(prop::bool::weighted(0.95), 3),
    ) {
        let (name, version, summary, defaults) = &texts;
        let table = PolicyTable {
            size: table_size,
            reserved: 0,
            name: name.text(),
            version: version.text(),
            summary: summary.text(),
            defaults: defaults.text(),
            create: functions[0].then_some(hostile_create),
            decide: functions[1].then_some(hostile_decide),
            destroy: functions[2].then_some(hostile_destroy),
            extension: None,
        };
        let policies: Vec<*const PolicyTable> =
            pointers.iter().map(|&good| if good { &raw const table } else { ptr::null() }).collect();
        let library = PolicyLibrary { size: library_size, major, magic, policy_count: count, reserved: 0, policies: policies.as_ptr() };
        // SAFETY: every pointer is null or good for what is stated with it, but for lengths beyond the limits and sizes
        // beyond what a reader knows; the tables outlive the library, and the functions are static.
        let result = unsafe { Library::new(&raw const library) };
        match result {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            Ok(library) => for policy in library.policies() {
                prop_assert!((1..=MAX_NAME as usize).contains(&policy.name().len()));
                prop_assert!(policy.defaults().len() <= MAX_DEFAULTS as usize);
                prop_assert!(!policy.summary().contains(char::is_control));
            },
        }
    }

    /// Whatever an instance calls and returns: the plan holds no more than it may, and everything ends in order.
    #[test]
    fn hostile_instances_are_contained(
        calls in prop::collection::vec(calls(), 0..12),
        create_code in prop_oneof![3 => Just(OK), 1 => any::<i32>()],
        decide_code in prop_oneof![1 => Just(OK), 1 => -4..3i32, 1 => any::<i32>()],
    ) {
        SCRIPT.replace(Script { create_code, decide_code, calls: calls.clone(), host: None, living: 0 });
        let table = PolicyTable {
            create: Some(hostile_create),
            decide: Some(hostile_decide),
            destroy: Some(hostile_destroy),
            ..echo_table()
        };
        let pointers = [&raw const table];
        let library = PolicyLibrary { size: 32, major: ABI_MAJOR, magic: LIBRARY_MAGIC, policy_count: 1, reserved: 0, policies: pointers.as_ptr() };
        // SAFETY: a good table, whose functions are static.
        let library = unsafe { Library::new(&raw const library) }.expect("a good table");
        let made = library.policies()[0].make("", Arc::new(|_, line: &str| assert!(!line.contains(char::is_control), "{line:?}")));
        prop_assert_eq!(made.is_ok(), create_code == OK);
        if let Ok(mut instance) = made {
            let mut plan = Plan::new();
            let result = instance.decide(&host().view(), &mut plan);
            prop_assert_eq!(result.is_ok(), decide_code == OK);
            prop_assert!(plan.actions().len() <= 2 && plan.notes().len() <= MAX_NOTES as usize);
            prop_assert!(plan.notes().all(|note| !note.contains(char::is_control)));
            drop(instance);
        }
        prop_assert_eq!(SCRIPT.with_borrow(|script| script.living), 0);
    }
}

#[test]
fn a_misaligned_table_is_refused() {
    let words = [0u64; 8];
    let misaligned = words
        .as_ptr()
        .cast::<u8>()
        .wrapping_add(4)
        .cast::<PolicyLibrary>();
    // SAFETY: refused before anything is read.
    let refused = unsafe { Library::new(misaligned) }.expect_err("refused");
    assert_eq!(
        refused,
        LibraryError::Pointer {
            what: "the library's table"
        }
    );
    // SAFETY: as above.
    assert_eq!(
        unsafe { Library::new(ptr::null()) }.expect_err("refused"),
        LibraryError::NoTable
    );
}

#[test]
fn a_pin_of_a_set_without_words_arrives() {
    let mut plan = Plan::new();
    plan.pin(VcpuIx(0), CpuSet::new().as_ref(), "", 0.0);
    SCRIPT.replace(Script {
        calls: vec![AnyCall::Pin {
            vcpu: 0,
            words: None,
            count: None,
            reason: Vec::new(),
            gain: 0.0,
        }],
        ..Script::default()
    });
    let table = PolicyTable {
        create: Some(hostile_create),
        decide: Some(hostile_decide),
        destroy: Some(hostile_destroy),
        ..echo_table()
    };
    let pointers = [&raw const table];
    let library = PolicyLibrary {
        size: 32,
        major: ABI_MAJOR,
        magic: LIBRARY_MAGIC,
        policy_count: 1,
        reserved: 0,
        policies: pointers.as_ptr(),
    };
    // SAFETY: a good table, whose functions are static.
    let library = unsafe { Library::new(&raw const library) }.expect("a good table");
    let mut instance = library.policies()[0].make("", Arc::new(|_, _| {})).expect("made");
    assert_eq!(
        format!("{:?}", decided(&mut *instance).expect("a plan")),
        format!("{plan:?}")
    );
}
