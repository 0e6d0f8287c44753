//! How a plan reads that no built-in policy would make: the table is there for plugins too.

#![cfg(feature = "yaml")]

use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::document;
use vcpu_policy_api::explain::Explanation;
use vcpu_policy_api::ids::{CpuIx, VcpuIx};
use vcpu_policy_api::plan::Plan;

#[test]
fn any_plan_can_be_read() {
    let block = document::read(
        "interval: 5s
topology: {cpus: [{cpu: 0}, {cpu: 2}, {cpu: 4}]}
reserved: \"4\"
domains:
  - {name: web, vcpus: [{load: 60.0, cpu: 0}, {load: 20.0, cpu: 0}, {load: 0.3, cpu: 0}, {load: 0.2, cpu: 0}, {cpu: 0}]}
  - {name: db, managed: false, vcpus: [{load: 110.0, cpu: 4}, {}]}
",
    )
    .expect("a snapshot");
    let snapshot = block.view();
    let (one, both): (CpuSet, CpuSet) = ([CpuIx(1)].into_iter().collect(), CpuSet::first(2));
    let mut plan = Plan::new();
    plan.pin(
        VcpuIx(0),
        both.as_ref(),
        "a pool of two, one of which it is on",
        0.0,
    );
    plan.pin(VcpuIx(1), one.as_ref(), "a move", 20.0);
    plan.pin(
        VcpuIx(5),
        both.as_ref(),
        "a pool of two, none of which it is on",
        -1.5,
    );
    plan.pin(VcpuIx(6), one.as_ref(), "a vCPU that never ran", 0.0);
    plan.pin(VcpuIx(99), one.as_ref(), "no such vCPU", 0.0);
    plan.pin(
        VcpuIx(0),
        [CpuIx(70)].into_iter().collect::<CpuSet>().as_ref(),
        "no such CPU",
        0.0,
    );
    plan.note("a first note");
    plan.note("a second one");
    insta::assert_snapshot!(Explanation::new(&snapshot, &plan), @r"
    host    3 pCPUs, 2 domains, 7 vCPUs
    stddev  40.25 -> 20.25
    cpu 0    80.5 -> 115.5  web/0 60.0, web/1 20.0, web/2 0.3, web/3 0.2, 1 more
    cpu 2     0.0 ->  75.0
    cpu 4   110.0 ->   0.0  reserved; db/0 110.0 fixed
    no cpu                  db/1 ? fixed
    pin     web/0  0 -> 0,2  gain 0.00  a pool of two, one of which it is on
    pin     web/1  0 -> 2  gain 20.00  a move
    pin     db/0  4 -> 0,2  gain -1.50  a pool of two, none of which it is on
    pin     db/1  - -> 2  gain 0.00  a vCPU that never ran
    pin     VcpuIx(99) to CpuIx {1}: this snapshot has no such rows
    pin     VcpuIx(0) to CpuIx {70}: this snapshot has no such rows
    note    a first note
    note    a second one
    ");
}
