//! Each fault, at each stage: what the operator is told.

use std::time::Instant;

use vcpu_policy_api::plan::Plan;
use vcpu_scheduler::engine::verify::verify;

use super::{IMPATIENT, PATIENT, snapshot, supervised, tick};

const WHO: &str = "policy faulty of the plugin faulty.so";

/// What one tick of a plugin with this fault in `decide` comes to.
fn decided(fault: &str, deadline: std::time::Duration) -> Result<Vec<String>, String> {
    let mut policy = supervised(&format!("decide {fault}"), deadline).expect("it is made without fault");
    tick(&mut policy, 1, &mut Plan::new())
}

fn check(fault: &str, expected: &str) {
    assert_eq!(
        decided(fault, PATIENT),
        Err(format!("{WHO} {expected}")),
        "{fault}"
    );
}

#[test]
fn a_crash_is_told_by_its_signal() {
    check("abort", "was killed by SIGABRT (it aborted) while it decided");
    check(
        "segfault",
        "was killed by SIGSEGV (invalid memory access) while it decided",
    );
    // Rust's own runtime notices the guard page and aborts; in C it is SIGSEGV.
    check("overflow", "was killed by SIGABRT (it aborted) while it decided");
    check("allocate", "was killed by SIGABRT (it aborted) while it decided");
}

#[test]
fn an_exit_is_told_by_its_status() {
    check("exit", "ended its process with exit status 0 while it decided");
    check("panic", "ended its process with exit status 101 while it decided");
    check(
        "cut frame",
        "ended its process with exit status 0 while it decided",
    );
}

#[test]
fn a_late_answer_is_not_waited_for() {
    for fault in ["loop", "sleep"] {
        let begun = Instant::now();
        assert_eq!(
            decided(fault, IMPATIENT),
            Err(format!(
                "{WHO} was killed: no answer within 300ms while it decided"
            )),
            "{fault}"
        );
        assert!(begun.elapsed() < PATIENT, "{fault}");
    }
}

#[test]
fn closing_everything_is_noticed_before_the_deadline() {
    check(
        "close",
        "was killed: it closed its connection to the scheduler while it decided",
    );
}

#[test]
fn a_senseless_answer_is_told() {
    check(
        "garbage",
        "was killed: it sent a frame of unknown kind 4294967295 while it decided",
    );
    check(
        "long frame",
        "was killed: it sent a frame of 4294967295 bytes; 16777216 at most are taken while it decided",
    );
    check(
        "bad plan",
        "was killed: it sent a plan that cannot be read while it decided",
    );
    check(
        "wrong answer",
        "was killed: it sent an answer that was not asked for while it decided",
    );
}

#[test]
fn a_second_answer_is_found_before_the_next_question() {
    let mut policy = supervised("decide two answers", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    assert_eq!(tick(&mut policy, 1, &mut plan), Ok(vec![]));
    assert_eq!(
        tick(&mut policy, 2, &mut plan),
        Err(format!(
            "{WHO} was killed: it sent an answer that was not asked for while it decided"
        ))
    );
}

#[test]
fn a_flood_of_actions_is_refused_and_loses_nothing_else() {
    let mut policy = supervised("even million", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    assert!(tick(&mut policy, 1, &mut plan).is_ok());
    assert_eq!(
        tick(&mut policy, 2, &mut plan),
        Err(format!(
            "{WHO} could not decide: the plan has 1000000 actions; 65536 at most are taken"
        ))
    );
    assert_eq!(
        tick(&mut policy, 3, &mut plan),
        Ok(vec!["decision 3 since it was made, fresh false".to_owned()])
    );
}

#[test]
fn nonsense_in_a_plan_reaches_the_verifier_and_no_further() {
    let mut policy = supervised("decide nonsense", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    tick(&mut policy, 1, &mut plan).expect("a plan all the same");
    let block = snapshot(1, true);
    let verdict = verify(&block.view(), &plan);
    assert!(verdict.accepted.is_empty(), "{verdict:?}");
    let reasons: Vec<&str> = plan.actions().map(|action| action.reason).collect();
    assert_eq!(reasons, ["because", "because", "because", "\u{fffd}[31mred "]);
}

#[test]
fn output_is_bounded_and_harmless() {
    for fault in ["stdout", "stderr"] {
        assert!(decided(fault, PATIENT).is_ok(), "{fault}");
    }
}

#[test]
fn the_sandbox_lets_nothing_out() {
    let notes = decided("escape", PATIENT).expect("it decides all the same");
    let denied = "Operation not permitted (os error 1)";
    let expected: Vec<String> = [
        "write a file",
        "read a file",
        "list a folder",
        "start a program",
        "start a thread",
        "connect",
        "bind",
        "socket pair",
        "signal the scheduler",
        "move the scheduler",
        "leave the session",
        "outlive the scheduler",
        "memory of its own kind",
    ]
    .iter()
    .map(|what| format!("{what}: {denied}"))
    .chain(["user not root, variables 0, folder Operation not permitted (os error 1)".to_owned()])
    .collect();
    assert_eq!(notes[1..], expected);
    check(
        "exec",
        "was killed by SIGSYS (a system call that plugins may not make) while it decided",
    );
}

/// While a library is loaded, its constructors run with more system calls: what holds then is landlock and the rest.
#[test]
fn constructors_are_confined_as_well() {
    for (fault, expected) in [
        ("abort", "was killed by SIGABRT (it aborted) while it was loaded"),
        ("exit", "ended its process with exit status 0 while it was loaded"),
        (
            "exec",
            "was killed by SIGSYS (a system call that plugins may not make) while it was loaded",
        ),
        ("error", "cannot be used: there is nothing to decide"),
        (
            "garbage",
            "was killed: it sent a frame of unknown kind 4294967295 while it was loaded",
        ),
    ] {
        let refused = supervised(&format!("load {fault}"), PATIENT).expect_err("it is not made");
        assert_eq!(refused.to_string(), format!("{WHO} {expected}"), "{fault}");
    }
}

#[test]
fn making_a_policy_is_confined_as_well() {
    for (fault, expected) in [
        (
            "abort",
            "was killed by SIGABRT (it aborted) while it was made from its options",
        ),
        (
            "close",
            "was killed: it closed its connection to the scheduler while it was made from its options",
        ),
        ("error", "cannot be used: there is nothing to decide"),
    ] {
        let refused = supervised(&format!("make {fault}"), PATIENT).expect_err("it is not made");
        assert_eq!(refused.to_string(), format!("{WHO} {expected}"), "{fault}");
    }
}

/// A policy that cannot be destroyed does not keep the scheduler.
#[test]
fn destroying_a_policy_is_not_waited_for_long() {
    for fault in ["loop", "abort", "close"] {
        let begun = Instant::now();
        drop(supervised(&format!("destroy {fault}"), PATIENT).expect("it is made without fault"));
        assert!(begun.elapsed() < PATIENT, "{fault}");
    }
}
