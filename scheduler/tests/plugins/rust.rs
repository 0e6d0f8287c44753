//! Rust libraries: the example, and a library of policies that break their promises.

use std::sync::{Arc, Mutex};

use vcpu_policy_api::log::Level;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::PolicyError;
use vcpu_policy_api::testing::{Host, decide_with, vcpu};
use vcpu_scheduler::plugin::conformance;
use vcpu_scheduler::plugin::library::PluginPolicy;

use crate::harness::{make, policy, refusal, rust_library, try_load};

fn night() -> PluginPolicy {
    policy(rust_library("vcpu_policy_night"), "night")
}

fn unruly(name: &str) -> PluginPolicy {
    policy(rust_library("vcpu_policy_unruly"), name)
}

#[test]
fn it_introduces_itself() {
    let policy = night();
    assert_eq!(policy.defaults(), "quiet: 30.0\nfill: 60.0\nmargin: 5.0\n");
    assert_eq!(policy.version(), "1.0.0");
}

#[test]
fn it_decides_as_it_does_without_a_library_around_it() {
    let host = Host::uniform(1, 2, 2, 1).domain("web", (0..4).map(|cpu| vcpu(10.0).on(cpu)));
    let table = decide_with(&mut *make(&night(), "quiet: 25"), &host.snapshot());
    let pins: Vec<&str> = table.lines().filter(|line| line.starts_with("pin ")).collect();
    assert_eq!(
        pins,
        [
            "pin     web/0  0 -> 0-1  gain 0.00  the host carries 10.0 %: 1 of 2 caches suffice",
            "pin     web/1  1 -> 0-1  gain 0.00  the host carries 10.0 %: 1 of 2 caches suffice",
            "pin     web/2  2 -> 0-1  gain 10.00  the host carries 10.0 %: 1 of 2 caches suffice",
            "pin     web/3  3 -> 0-1  gain 10.00  the host carries 10.0 %: 1 of 2 caches suffice",
        ]
    );
}

#[test]
fn it_conforms() {
    let policy = night();
    assert_eq!(conformance::check(|| make(&policy, "")), []);
    assert_eq!(
        conformance::check(|| make(&policy, "{quiet: 90, fill: 90, margin: 0}")),
        []
    );
}

#[test]
fn options_are_refused_by_whom_they_concern() {
    let policy = night();
    assert_eq!(
        refusal(&policy, "quite: 25"),
        "policy night has no option \"quite\" (did you mean \"quiet\"?); known: quiet, fill, margin"
    );
    assert_eq!(
        refusal(&policy, "quiet: lots"),
        "policy night does not accept its options: quiet: invalid type: string \"lots\", expected a number"
    );
    assert_eq!(
        refusal(&policy, "quiet: 200"),
        "policy night does not accept its options: quiet is 200; expected a percentage above 0, up to 100"
    );
}

#[test]
fn a_library_may_have_several_policies() {
    let library = try_load(rust_library("vcpu_policy_unruly")).expect("a library");
    let names: Vec<String> = library
        .policies()
        .map(|policy| policy.name().to_owned())
        .collect();
    assert_eq!(names, ["panics", "gives-up", "talks"]);
}

/// Decides at a tick on any host.
fn decide(policy: &mut dyn vcpu_policy_api::policy::Decide, tick: u64) -> Result<Plan, PolicyError> {
    let mut plan = Plan::new();
    policy
        .decide(&Host::cpus(1).tick(tick).snapshot().view(), &mut plan)
        .map(|()| plan)
}

#[test]
fn a_panic_is_an_error_with_its_text_and_place_and_the_instance_is_lost() {
    let policy = unruly("panics");
    let mut instance = make(&policy, "");
    decide(&mut *instance, 1).expect("all is well in the first tick");
    let error = decide(&mut *instance, 2).expect_err("it panics");
    assert!(error.is_lost());
    let text = error.to_string();
    assert!(
        text.starts_with("it panicked: tick 2 was one too many, at "),
        "{text}"
    );
    assert!(text.contains("unruly/src/lib.rs:"), "{text}");
    let again = decide(&mut *instance, 3).expect_err("it does not go on");
    assert_eq!(
        (again.is_lost(), again.to_string().as_str()),
        (true, "it panicked in an earlier tick")
    );
    drop(instance);
    decide(&mut *make(&policy, ""), 3).expect("a new one decides");
}

#[test]
fn a_panic_while_it_is_made_or_ended_is_contained_too() {
    let policy = unruly("panics");
    let refused = refusal(&policy, "in: new");
    assert!(
        refused.starts_with(
            "policy panics does not accept its options: it panicked: there is no such policy, at "
        ),
        "{refused}"
    );
    drop(make(&policy, "in: drop"));
}

#[test]
fn a_policy_can_say_that_its_state_is_lost() {
    let error = decide(&mut *make(&unruly("gives-up"), ""), 1).expect_err("it gives up");
    assert_eq!(error, PolicyError::lost("it cannot go on"));
}

#[test]
fn log_lines_reach_the_host_and_what_is_too_much_is_left_out() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let mut instance = unruly("talks")
        .make_logging_to(
            "",
            Arc::new(move |level, line: &str| {
                sink.lock().expect("one thread").push((level, line.to_owned()));
            }),
        )
        .expect("no options are good options");
    let plan = decide(&mut *instance, 1).expect("a plan");
    assert_eq!(plan.notes().len(), 256);
    let heard = heard.lock().expect("one thread");
    let expected = [
        (Level::Info, "made"),
        (Level::Error, "one"),
        (Level::Warn, "two lines"),
        (Level::Info, "3"),
        (Level::Debug, "four"),
        (Level::Trace, &"x".repeat(1024)),
        (
            Level::Warn,
            "44 pins or notes were malformed or too many, and were left out",
        ),
    ];
    let heard: Vec<(Level, &str)> = heard
        .iter()
        .map(|(level, line)| (*level, line.as_str()))
        .collect();
    assert_eq!(heard, expected);
}
