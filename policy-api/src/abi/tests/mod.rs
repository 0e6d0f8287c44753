//! Both sides of the interface in one process, there and back.

mod hostile;

use std::ptr;
use std::sync::Arc;

use super::export::{Exports, policy_table};
use super::library::{Library, LibraryError};
use super::types::{ERROR_ARGUMENT, PolicyLibrary, PolicyTable};
use crate::cpuset::CpuSet;
use crate::document;
use crate::ids::CpuIx;
use crate::log;
use crate::plan::Plan;
use crate::policy::{Decide, Policy, PolicyError};
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
    #[expect(
        clippy::disallowed_methods,
        reason = "the test is about being called on another thread"
    )]
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

#[test]
fn a_misaligned_table_is_refused() {
    let words = [0u64; 8];
    let misaligned = words.as_ptr().cast::<PolicyLibrary>().wrapping_byte_add(4);
    // SAFETY: refused before anything is read.
    let (misaligned, null) = unsafe { (Library::new(misaligned), Library::new(ptr::null())) };
    let what = "the library's table";
    assert_eq!(misaligned.expect_err("refused"), LibraryError::Pointer { what });
    assert_eq!(null.expect_err("refused"), LibraryError::NoTable);
}
