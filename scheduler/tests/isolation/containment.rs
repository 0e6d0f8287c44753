//! Each fault, at each stage: what the operator is told.

use std::time::{Duration, Instant};

use vcpu_policy_api::plan::Plan;
use vcpu_scheduler::engine::verify::verify;
use vcpu_scheduler::plugin::process::{Patience, PluginProcess};
use vcpu_scheduler::plugin::supervised::inspect;

use super::{IMPATIENT, PATIENT, sealed, snapshot, supervised, terms, tick};

const WHO: &str = "policy faulty of the plugin faulty.so";
const FIRST_NOTE: &str = "decision 1 since it was made, fresh 1";

/// What one tick of a plugin with this fault in `decide` comes to.
fn decided(fault: &str, deadline: Duration) -> Result<Vec<String>, String> {
    let mut policy = supervised("decide", fault, deadline).expect("it is made without fault");
    tick(&mut policy, 1, &mut Plan::new())
}

fn check(fault: &str, expected: &str) {
    assert_eq!(
        decided(fault, PATIENT),
        Err(format!("{WHO} {expected} while it decided")),
        "{fault}"
    );
}

#[test]
fn a_crash_is_told_by_its_signal() {
    check("abort", "was killed by SIGABRT (it aborted)");
    check("segfault", "was killed by SIGSEGV (invalid memory access)");
    check("allocate", "was killed by SIGSEGV (invalid memory access)");
    check("trap", "was killed by SIGILL (an invalid instruction)");
    // The runtime of the program that hosts it notices the guard page, says so, and aborts.
    check("overflow", "was killed by SIGABRT (it aborted)");
    #[cfg(target_arch = "x86_64")]
    check("divide", "was killed by SIGFPE (an arithmetic error)");
}

#[test]
fn bad_pointers_crash_its_own_process_alone() {
    check("bad words", "was killed by SIGSEGV (invalid memory access)");
    check("bad text", "was killed by SIGSEGV (invalid memory access)");
    check("bad context", "was killed by SIGSEGV (invalid memory access)");
}

#[test]
fn an_exit_is_told_by_its_status() {
    check("exit", "ended its process with exit status 0");
    check("cut frame", "ended its process with exit status 0");
}

#[test]
fn a_late_answer_is_not_waited_for() {
    for fault in ["loop", "deaf loop", "sleep", "stop"] {
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
    check("close", "was killed: it closed its connection to the scheduler");
}

#[test]
fn a_senseless_answer_is_told() {
    check(
        "garbage",
        "was killed: it sent a frame of unknown kind 4294967295",
    );
    check(
        "long frame",
        "was killed: it sent a frame of 4294967295 bytes; 16777216 at most are taken",
    );
    check("bad plan", "was killed: it sent a plan that cannot be read");
    check(
        "crowded plan",
        "was killed: it sent a plan with 3 pins for 1 vCPUs",
    );
    check(
        "old answer",
        "was killed: it sent an answer that was not asked for",
    );
    check(
        "wrong answer",
        "was killed: it sent an answer that was not asked for",
    );
}

#[test]
fn a_second_answer_is_not_taken_for_that_to_the_next_question() {
    let mut policy = supervised("decide", "two answers", PATIENT).expect("it is made without fault");
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
fn what_a_policy_says_by_itself_costs_no_process() {
    for (fault, message) in [
        ("error", "there is nothing to decide"),
        ("code", "it returned the code 12345 and did not say why"),
    ] {
        let mut policy = supervised("even", fault, PATIENT).expect("it is made without fault");
        let mut plan = Plan::new();
        assert!(tick(&mut policy, 1, &mut plan).is_ok());
        assert_eq!(
            tick(&mut policy, 2, &mut plan),
            Err(format!("{WHO} could not decide: {message}"))
        );
        let notes = tick(&mut policy, 3, &mut plan);
        assert_eq!(
            notes,
            Ok(vec!["decision 3 since it was made, fresh 0".to_owned()])
        );
    }
}

#[test]
fn a_flood_of_pins_ends_at_one_for_each_vcpu() {
    let mut policy = supervised("decide", "million", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    tick(&mut policy, 1, &mut plan).expect("a plan all the same");
    assert_eq!(plan.actions().len(), 1);
}

#[test]
fn nonsense_in_a_plan_reaches_the_verifier_and_no_further() {
    let mut policy = supervised("decide", "nonsense", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    tick(&mut policy, 1, &mut plan).expect("a plan all the same");
    let block = snapshot(1, true);
    let verdict = verify(&block.view(), &plan);
    assert_eq!(
        (verdict.accepted.len(), verdict.rejected.len()),
        (0, 1),
        "{verdict:?}"
    );
    let reason = verdict.rejected[0].action.reason;
    assert!(
        !reason.contains(char::is_control) && reason.contains("red"),
        "{reason:?}"
    );
}

#[test]
fn output_and_leaks_are_bounded_and_harmless() {
    for fault in ["stdout", "stderr", "leak"] {
        assert_eq!(
            decided(fault, PATIENT),
            Ok(vec![FIRST_NOTE.to_owned()]),
            "{fault}"
        );
    }
}

/// Looked at from outside, once the library is loaded.
#[test]
fn the_kernel_says_that_it_has_no_rights() {
    let mut process = PluginProcess::start(&terms(PATIENT).program, &sealed("never", "")).expect("it starts");
    let patience = Patience {
        deadline: PATIENT,
        stop: None,
    };
    let missing = process.load(&patience).expect("it loads").missing;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for name in ["Uid", "Gid"] {
        assert!(!field(name).split(' ').any(|id| id == "0"), "{status}");
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    if missing.is_empty() {
        // Three for loading, one for deciding.
        assert_eq!(
            (field("Seccomp"), field("Seccomp_filters")),
            ("2".to_owned(), "4".to_owned())
        );
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("it runs");
    for (name, limit) in [
        ("Max address space", 512 << 20),
        ("Max stack size", 8 << 20),
        ("Max open files", 32),
        ("Max file size", 0),
        ("Max processes", 0),
        ("Max core file size", 0),
    ] {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect(name);
        let hard = line
            .split_whitespace()
            .nth(1)
            .and_then(|limit| limit.parse::<u64>().ok());
        assert!(hard.is_some_and(|hard| hard <= limit), "{name}{line}");
    }
}

/// Whether this kernel lacks something that isolation uses; what it then cannot refuse is not looked at.
fn is_partial() -> bool {
    !inspect(&sealed("never", ""), &terms(PATIENT))
        .expect("it loads")
        .missing
        .is_empty()
}

#[test]
fn deciding_can_do_nothing_but_compute() {
    if is_partial() {
        return;
    }
    let notes = decided("escape", PATIENT).expect("it decides all the same");
    assert_eq!(notes.len(), 29, "{notes:#?}");
    for note in &notes[1..] {
        assert!(note.ends_with(": Operation not permitted"), "{note}");
    }
    for fault in ["exec", "trace"] {
        check(
            fault,
            "was killed by SIGSYS (a system call that plugins may not make)",
        );
    }
}

/// A library's constructors may read libraries; everything else is denied to them as well.
#[test]
fn constructors_are_confined_as_well() {
    if is_partial() {
        return;
    }
    let mut policy = supervised("load", "escape", PATIENT).expect("it is made all the same");
    let notes = tick(&mut policy, 1, &mut Plan::new()).expect("it decides all the same");
    assert_eq!(notes.len(), 28, "{notes:#?}");
    assert_eq!(notes[1], "read a folder of libraries: DONE");
    for note in &notes[2..] {
        let denied = [": Operation not permitted", ": Permission denied"];
        assert!(denied.iter().any(|denied| note.ends_with(denied)), "{note}");
    }
}

/// What a constructor does to be confined less ends its use.
#[test]
fn a_constructor_that_resists_is_refused() {
    if is_partial() {
        return;
    }
    let refused = supervised("load", "resist", PATIENT).expect_err("it is not made");
    let said = refused.to_string();
    let expected = format!("{WHO} cannot be used: ");
    assert!(said.starts_with(&expected), "{said}");
    assert!(
        said.contains("faulty.so keeps its process from being confined once it is loaded: system calls are not restricted: "),
        "{said}"
    );
}

#[test]
fn faults_of_constructors_are_told() {
    for (fault, expected) in [
        ("abort", "was killed by SIGABRT (it aborted) while it was loaded"),
        (
            "segfault",
            "was killed by SIGSEGV (invalid memory access) while it was loaded",
        ),
        ("exit", "ended its process with exit status 0 while it was loaded"),
        (
            "overflow",
            "was killed by SIGABRT (it aborted) while it was loaded",
        ),
        (
            "allocate",
            "was killed by SIGSEGV (invalid memory access) while it was loaded",
        ),
        ("loop", "was killed: no answer within 5s while it was loaded"),
        (
            "exec",
            "was killed by SIGSYS (a system call that plugins may not make) while it was loaded",
        ),
        (
            "close",
            "was killed: it closed its connection to the scheduler while it was loaded",
        ),
        (
            "garbage",
            "was killed: it sent a frame of unknown kind 4294967295 while it was loaded",
        ),
    ] {
        let refused = supervised("load", fault, PATIENT).expect_err("it is not made");
        assert_eq!(refused.to_string(), format!("{WHO} {expected}"), "{fault}");
    }
}

#[test]
fn a_constructor_may_talk_and_leak() {
    for fault in ["stdout", "stderr", "leak"] {
        let mut policy = supervised("load", fault, PATIENT).expect("it is made all the same");
        let notes = tick(&mut policy, 1, &mut Plan::new());
        assert_eq!(notes, Ok(vec![FIRST_NOTE.to_owned()]), "{fault}");
    }
}

#[test]
fn faults_of_making_are_told() {
    for (fault, expected) in [
        (
            "abort",
            "was killed by SIGABRT (it aborted) while it was made from its options",
        ),
        (
            "close",
            "was killed: it closed its connection to the scheduler while it was made from its options",
        ),
        (
            "error",
            "cannot be used: policy faulty does not accept its options: there is nothing to decide",
        ),
    ] {
        let refused = supervised("make", fault, PATIENT).expect_err("it is not made");
        assert_eq!(refused.to_string(), format!("{WHO} {expected}"), "{fault}");
    }
}

/// Neither a policy that cannot be destroyed nor a library that cannot be left keeps the scheduler.
#[test]
fn an_end_is_not_waited_for_long() {
    for (when, fault) in [
        ("destroy", "loop"),
        ("destroy", "abort"),
        ("destroy", "close"),
        ("exit", "loop"),
        ("exit", "abort"),
    ] {
        let begun = Instant::now();
        drop(supervised(when, fault, PATIENT).expect("it is made without fault"));
        assert!(begun.elapsed() < PATIENT, "{when} {fault}");
    }
}
