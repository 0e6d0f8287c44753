//! Each fault, again and again: every time it is told in the same words, nothing is pinned meanwhile, and in the end the
//! fallback decides.

use std::time::Duration;

use vcpu_policy_api::plan::Plan;
use vcpu_scheduler::engine::verify::verify;
use vcpu_scheduler::plugin::supervised::IN_A_ROW;

use super::{PATIENT, snapshot, supervised, tick};

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
