//! Tables and calls that mean no good.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use proptest::prelude::*;

use super::{decided, echo_table, host};
use crate::abi::library::Library;
use crate::abi::types::{
    ABI_MAJOR, ERROR_ARGUMENT, ERROR_FULL, Host, LIBRARY_MAGIC, MAX_DEFAULTS, MAX_NAME, MAX_NOTES,
    MAX_SET_WORDS, OK, Options, PlanTable, PolicyLibrary, PolicyTable, Text,
};
use crate::cpuset::CpuSet;
use crate::ids::VcpuIx;
use crate::plan::Plan;
use crate::snapshot::Snapshot;
use crate::snapshot::rows::Header;

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
    /// Where the last snapshot lay, and how long it was.
    seen: Option<(usize, u64)>,
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
    SCRIPT.with_borrow_mut(|script| script.seen = Some((snapshot.addr(), size)));
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
                prop_assert!((1..=MAX_NAME).contains(&(policy.name().len() as u64)));
                prop_assert!(policy.defaults().len() as u64 <= MAX_DEFAULTS);
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
        SCRIPT.replace(Script { create_code, decide_code, calls: calls.clone(), host: None, living: 0, seen: None });
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
fn a_snapshot_is_not_copied_and_a_pin_of_a_set_without_words_arrives() {
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
    // The snapshot is handed over as it is, where it lies.
    let block = host();
    let bytes = block.view().as_bytes().as_ptr_range();
    instance.decide(&block.view(), &mut Plan::new()).expect("a plan");
    let lies_at = (bytes.start.addr(), (bytes.end.addr() - bytes.start.addr()) as u64);
    assert_eq!(SCRIPT.with_borrow(|script| script.seen), Some(lies_at));
    assert_eq!(
        format!("{:?}", decided(&mut *instance).expect("a plan")),
        format!("{plan:?}")
    );
}
