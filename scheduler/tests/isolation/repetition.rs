//! Each fault, again and again: every time it is told in the same words, nothing is pinned meanwhile, and in the end the
//! fallback decides.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vcpu_policy_api::plan::Plan;
use vcpu_scheduler::engine::verify::verify;
use vcpu_scheduler::plugin::supervised::{IN_A_ROW, Order, Supervised};
use vcpu_scheduler::plugin::trust;

use super::{PATIENT, compile_source, folder, snapshot, supervised, terms, tick};

const WHO: &str = "policy faulty of the plugin faulty.so";
/// For plugins that do not answer: however short it is, what they do is the same.
const SHORT: Duration = Duration::from_millis(100);
/// Faults cost ticks 1, 2, 4, 7 and 12, those between them are pauses.
const FALLBACK_FROM: u64 = 13;

fn check(fault: &str, deadline: Duration, expected: &str) {
    let mut policy = supervised("decide", fault, deadline).expect("it is made without fault");
    let mut plan = Plan::new();
    let mut faults = 0;
    for number in 1..FALLBACK_FROM {
        let told = tick(&mut policy, number, &mut plan).expect_err(fault);
        if !told.contains("is started again in") {
            assert_eq!(told, format!("{WHO} {expected} while it decided"), "{fault}");
            faults += 1;
        }
        assert_eq!(plan.actions().len(), 0, "{fault}");
    }
    assert_eq!(faults, IN_A_ROW, "{fault}");
    let notes = tick(&mut policy, FALLBACK_FROM, &mut plan).expect("the fallback decides");
    assert!(notes[0].contains("only watches"), "{fault}: {notes:?}");
}

#[test]
fn a_crash_ends_in_the_fallback() {
    for (fault, expected) in [
        ("abort", "was killed by SIGABRT (it aborted)"),
        ("segfault", "was killed by SIGSEGV (invalid memory access)"),
        ("overflow", "was killed by SIGABRT (it aborted)"),
        ("allocate", "was killed by SIGSEGV (invalid memory access)"),
        ("bad words", "was killed by SIGSEGV (invalid memory access)"),
        ("bad text", "was killed by SIGSEGV (invalid memory access)"),
        ("exit", "ended its process with exit status 0"),
    ] {
        check(fault, PATIENT, expected);
    }
}

#[test]
fn silence_ends_in_the_fallback() {
    for fault in ["loop", "sleep", "late"] {
        check(fault, SHORT, "was killed: no answer within 100ms");
    }
    check(
        "close",
        PATIENT,
        "was killed: it closed its connection to the scheduler",
    );
}

#[test]
fn nonsense_ends_in_the_fallback() {
    for (fault, expected) in [
        (
            "garbage",
            "was killed: it sent a frame of unknown kind 4294967295",
        ),
        (
            "long frame",
            "was killed: it sent a frame of 4294967295 bytes; 16777216 at most are taken",
        ),
        ("bad plan", "was killed: it sent a plan that cannot be read"),
    ] {
        check(fault, PATIENT, expected);
    }
}

/// A library that loaded well once need not do so again.
#[test]
fn a_constructor_that_fails_later_ends_in_the_fallback() {
    for (fault, expected) in [
        ("abort", "was killed by SIGABRT (it aborted)"),
        ("exit", "ended its process with exit status 0"),
    ] {
        let folder = folder();
        let (plugin, from_now_on) = (folder.path().join("faulty.so"), folder.path().join("now"));
        let definitions = [
            "-DWHEN=\"decide\"".to_owned(),
            format!("-DFAULT=\"{fault}\""),
            format!("-DLOAD_TOO_ONCE=\"{}\"", from_now_on.display()),
        ];
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/faulty.c");
        compile_source(&plugin, &source, &definitions.each_ref().map(String::as_str));
        let order = Order {
            library: trust::seal(&plugin, None).expect("a file of one's own"),
            policy: "faulty".to_owned(),
            options: String::new(),
        };
        // Everyone may look for the file.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("permitted");
        let mut policy = Supervised::new(order, Arc::new(terms(PATIENT))).expect("it is made without fault");
        std::fs::write(&from_now_on, "").expect("written");
        let mut plan = Plan::new();
        let told: Vec<String> = (1..FALLBACK_FROM)
            .map(|number| tick(&mut policy, number, &mut plan).expect_err(fault))
            .collect();
        assert_eq!(told[0], format!("{WHO} {expected} while it decided"));
        let loading = format!("{WHO} {expected} while it was loaded");
        let times = told.iter().filter(|&told| *told == loading).count();
        assert_eq!(times, IN_A_ROW as usize - 1, "{told:#?}");
        let notes = tick(&mut policy, FALLBACK_FROM, &mut plan).expect("the fallback decides");
        assert!(notes[0].contains("only watches"), "{fault}: {notes:?}");
    }
}

/// What is no fault of the process, tick after tick: the plan is refused where it has to be, and the policy goes on.
#[test]
fn what_the_verifier_refuses_is_refused_in_every_tick() {
    for fault in ["million", "nonsense"] {
        let mut policy = supervised("decide", fault, PATIENT).expect("it is made without fault");
        let mut plan = Plan::new();
        for number in 1..=20 {
            tick(&mut policy, number, &mut plan).expect("a plan");
            let block = snapshot(number, false);
            let verdict = verify(&block.view(), &plan);
            let sound = fault == "million";
            assert_eq!(verdict.accepted.len(), usize::from(sound), "{fault} {number}");
            assert_eq!(verdict.rejected.len(), usize::from(!sound), "{fault} {number}");
        }
    }
}
