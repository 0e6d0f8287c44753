//! Hostile tables and calls out of arbitrary bytes, for the fuzz target `library` and for a test of fixed budget.
//!
//! The bytes are read as a library's table, field by field, and then as what its policy does when it is called. What a
//! host cannot find out stays out: each pointer is null, or good for the length that goes with it as far as a length
//! within the limits goes.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use super::library::Library;
use super::types::{
    ABI_MAJOR, Host, LIBRARY_MAGIC, MAX_NOTES, MAX_SET_WORDS, OK, Options, PlanTable, PolicyLibrary,
    PolicyTable, Text,
};
use crate::document;
use crate::plan::Plan;
use crate::snapshot::rows::Header;

/// Takes values off the front; what is missing at the end is zero.
#[derive(Debug, Clone, Default)]
struct Bytes(std::collections::VecDeque<u8>);

impl Bytes {
    fn byte(&mut self) -> u8 {
        self.0.pop_front().unwrap_or_default()
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn is_usual(&mut self) -> bool {
        self.byte() < 224
    }

    fn some(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte() % 64);
        (0..length).map(|_| self.byte()).collect()
    }

    /// A text, most often the usual one. What it points to is never freed within a run.
    fn text(&mut self, usual: &'static str) -> Text {
        if self.is_usual() {
            return Text::of(usual);
        }
        match self.byte() % 3 {
            0 => Text {
                bytes: ptr::null(),
                length: self.u64(),
            },
            1 => Text {
                bytes: ptr::dangling(),
                length: u64::MAX,
            },
            _ => {
                let bytes = self.some();
                let text = text_of(&bytes);
                KEPT.with_borrow_mut(|kept| kept.push(bytes));
                text
            }
        }
    }
}

fn text_of(bytes: &[u8]) -> Text {
    Text {
        bytes: bytes.as_ptr().cast::<c_char>(),
        length: bytes.len() as u64,
    }
}

thread_local! {
    /// The texts of the tables, until the next run.
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// What the policy does next.
    static SCRIPT: RefCell<Bytes> = RefCell::default();
    /// How many were made and not ended, and the table of the last one's host.
    static MADE: RefCell<(i32, Option<Host>)> = const { RefCell::new((0, None)) };
}

unsafe extern "C" fn create(host: *const Host, _: *const Options, policy: *mut *mut c_void) -> i32 {
    // SAFETY: the host's own table, and a place for a pointer, which is never looked at.
    let host = unsafe {
        *policy = ptr::dangling_mut();
        *host
    };
    let refuses = SCRIPT.with_borrow_mut(|script| !script.is_usual());
    let living = i32::from(!refuses);
    MADE.with_borrow_mut(|made| *made = (made.0 + living, Some(host)));
    if refuses { -1 } else { OK }
}

unsafe extern "C" fn decide(_: *mut c_void, _: *const Header, _: u64, plan: *const PlanTable) -> i32 {
    // SAFETY: the host's own table.
    let plan = unsafe { *plan };
    let host = MADE.with_borrow(|made| made.1).expect("it was made");
    loop {
        let mut script = SCRIPT.take();
        let (call, bytes, number) = (script.byte(), script.some(), script.u32());
        let words: Vec<u64> = (0..script.byte() % 4).map(|_| script.u64()).collect();
        let count = u32::try_from(words.len()).expect("a few");
        let (pointer, count) = match script.byte() {
            0..200 => (words.as_ptr(), count),
            200..228 => (ptr::null(), number),
            _ => (words.as_ptr(), number.max(MAX_SET_WORDS + 1)),
        };
        let gain = f64::from_bits(script.u64());
        let is_over = script.0.is_empty();
        SCRIPT.replace(script);
        // SAFETY: the host's own functions; every pointer is null or good for the length that goes with it, but for
        // counts beyond the limit, which the host must not believe.
        unsafe {
            match call % 4 {
                0 => {
                    let pin = plan.pin.expect("set");
                    pin(plan.context, number % 8, pointer, count, text_of(&bytes), gain);
                }
                1 => {
                    plan.note.expect("set")(plan.context, text_of(&bytes));
                }
                2 => host.log.expect("set")(host.context, number.cast_signed(), text_of(&bytes)),
                _ => host.fail.expect("set")(host.context, text_of(&bytes)),
            }
        }
        if is_over {
            return i32::from(call).min(1) - 1;
        }
    }
}

unsafe extern "C" fn destroy(_: *mut c_void) {
    MADE.with_borrow_mut(|made| made.0 -= 1);
}

/// Reads a table, makes its policies, and lets each decide once. It panics where something that is promised is not so.
///
/// # Panics
/// If the host's side of the interface lets pass what it must not.
pub fn library(bytes: &[u8]) {
    KEPT.take();
    let mut script = Bytes(bytes.iter().copied().collect());
    let mut table = || {
        let or_none = |usual: bool| usual.then_some(());
        PolicyTable {
            size: if script.is_usual() { 104 } else { script.u32() },
            reserved: script.u32(),
            name: script.text("name"),
            version: script.text("1.0.0"),
            summary: script.text("a summary"),
            defaults: script.text("limit: 3\n"),
            create: or_none(script.is_usual()).map(|()| create as _),
            decide: or_none(script.is_usual()).map(|()| decide as _),
            destroy: or_none(script.is_usual()).map(|()| destroy as _),
            extension: None,
        }
    };
    let tables = [table(), table()];
    let mut pointer = |table: &PolicyTable| {
        if script.is_usual() {
            ptr::from_ref(table)
        } else {
            ptr::null()
        }
    };
    let pointers = [pointer(&tables[0]), pointer(&tables[1])];
    let library = PolicyLibrary {
        size: if script.is_usual() { 32 } else { script.u32() },
        major: if script.is_usual() {
            ABI_MAJOR
        } else {
            script.u32()
        },
        magic: if script.is_usual() {
            LIBRARY_MAGIC
        } else {
            script.u64()
        },
        policy_count: match script.byte() {
            0..200 => 1,
            200..232 => 2,
            232..244 => 0,
            _ => script.u32().max(65),
        },
        reserved: 0,
        policies: if script.is_usual() {
            pointers.as_ptr()
        } else {
            ptr::null()
        },
    };
    SCRIPT.replace(script);
    // SAFETY: every pointer is null or good for what is stated with it, but for lengths and counts beyond the limits and
    // sizes beyond what a reader knows; the tables outlive the library, and the functions are static.
    let Ok(library) = (unsafe { Library::new(&raw const library) }) else {
        return;
    };
    let text = "{interval: 1s, topology: {cpus: 70}, domains: [{name: a, vcpus: [{load: 5}, {load: 6}]}]}";
    let snapshot = document::read(text).expect("a snapshot");
    for policy in library.policies() {
        assert!(!policy.name().is_empty() && !policy.summary().contains(char::is_control));
        let log = Arc::new(|_, line: &str| assert!(!line.contains(char::is_control)));
        if let Ok(mut policy) = policy.make("", log) {
            let mut plan = Plan::new();
            let _ = policy.decide(&snapshot.view(), &mut plan);
            assert!(plan.actions().len() <= 2 && plan.notes().len() <= MAX_NOTES as usize);
            assert!(plan.notes().all(|note| !note.contains(char::is_control)));
            assert!(
                plan.actions()
                    .all(|action| !action.reason.contains(char::is_control))
            );
        }
        assert_eq!(MADE.with_borrow(|made| made.0), 0, "what was made is ended, once");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn arbitrary_bytes_are_refused_or_contained(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            super::library(&bytes);
        }

        /// Most tables of arbitrary bytes are refused; this one is always good, and then does anything.
        #[test]
        fn arbitrary_calls_are_contained(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let good_tables = [0; 64];
            super::library(&[&good_tables[..], &bytes].concat());
        }
    }
}
