//! The example in C: what it is, what it decides, and that it keeps what every policy promises.

use std::path::PathBuf;
use std::sync::OnceLock;

use vcpu_policy_api::testing::{Host, decide_with, new_vcpu, vcpu};
use vcpu_scheduler::plugin::conformance;
use vcpu_scheduler::plugin::library::PluginPolicy;

use crate::harness::{compile, include, make, policy, refusal, root};

fn headroom() -> PluginPolicy {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let source = root().join("policy-api/examples/headroom.c");
    policy(
        LIBRARY.get_or_init(|| compile(&source, &include(), "headroom")),
        "headroom",
    )
}

fn decided(options: &str, host: &Host) -> String {
    decide_with(&mut *make(&headroom(), options), &host.snapshot())
}

#[test]
fn it_introduces_itself() {
    let policy = headroom();
    assert_eq!(
        (policy.version(), policy.defaults()),
        ("1.0.0", "limit: 90.0 # percent of a pCPU\n")
    );
    assert_eq!(
        policy.summary(),
        "pins one vCPU a tick away from each CPU above a limit, within its NUMA node"
    );
}

#[test]
fn options_are_checked_by_the_host_and_then_by_the_policy() {
    let policy = headroom();
    make(&policy, "limit: 50");
    assert_eq!(
        refusal(&policy, "limits: 50"),
        "policy headroom has no option \"limits\" (did you mean \"limit\"?); known: limit"
    );
    for options in [
        "limit: 0",
        "limit: 101",
        "limit: much",
        "limit: .nan",
        "limit: [1]",
    ] {
        assert_eq!(
            refusal(&policy, options),
            "policy headroom does not accept its options: limit is out of range; expected a percentage above 0, up \
             to 100"
        );
    }
}

#[test]
fn one_vcpu_leaves_each_cpu_that_carries_too_much() {
    let host = Host::cpus(4)
        .domain("web", [vcpu(40.0).on(0), vcpu(35.0).on(0), vcpu(30.0).on(0)])
        .domain("db", [vcpu(60.0).on(1), vcpu(50.0).on(1), vcpu(20.0).on(2)]);
    insta::assert_snapshot!(decided("", &host));
}

#[test]
fn a_limit_that_nobody_reaches_moves_nobody() {
    let host = Host::cpus(2).domain("web", [vcpu(60.0).on(0), vcpu(30.0).on(0), new_vcpu()]);
    insta::assert_snapshot!(decided("", &host));
}

#[test]
fn nothing_crosses_a_node_and_nothing_is_brought_above_the_limit() {
    let host = Host::uniform(2, 1, 2, 1)
        .domain("web", [vcpu(60.0).on(0), vcpu(50.0).on(0), vcpu(45.0).on(1)])
        .domain("idle", [vcpu(1.0).on(2)]);
    insta::assert_snapshot!(decided("", &host));
}

#[test]
fn what_may_not_move_stays() {
    let host = Host::cpus(3)
        .reserved("2")
        .domain(
            "web",
            [
                vcpu(90.0).on(0).fixed(),
                vcpu(30.0).on(0).allowed("0"),
                vcpu(20.0).on(0),
            ],
        )
        .unmanaged("own", [vcpu(80.0).on(0)]);
    insta::assert_snapshot!(decided("", &host));
}

#[test]
fn one_that_is_alone_stays() {
    let host = Host::cpus(2).domain("hog", [vcpu(99.0).on(0)]);
    insta::assert_snapshot!(decided("", &host));
}

/// A plan has room for 256 notes, and a host may have more CPUs than that.
#[test]
fn on_a_large_host_it_does_not_talk_without_end() {
    let host = Host::cpus(600).domain("web", (0..1200).map(|at| vcpu(60.0).on(at / 2).fixed()));
    let decided = decided("", &host);
    assert_eq!(
        decided.matches("carries 120.0 %, and no vCPU").count(),
        16,
        "{decided}"
    );
    assert!(
        decided.ends_with("584 more cpus carry more than 90 %, and nothing on them may or can leave\n"),
        "{decided}"
    );
}

#[test]
fn it_conforms() {
    let policy = headroom();
    assert_eq!(conformance::check(|| make(&policy, "")), []);
    assert_eq!(conformance::check(|| make(&policy, "limit: 10")), []);
}
