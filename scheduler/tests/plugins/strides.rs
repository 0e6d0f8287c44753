//! What a C compiler makes of the rows is what a snapshot of today holds: the strides are the rows' sizes, as C sees them.

use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::testing::{Host, vcpu};

use crate::broken::library;
use crate::harness::{make, policy};

const STRIDES: &str = r#"
#include "vcpu_policy.h"

static int32_t strides(void *policy, const struct vcpu_snapshot *snapshot, uint64_t size,
                       const struct vcpu_plan *plan) {
    (void)policy;
    int same = snapshot->size == sizeof *snapshot && snapshot->total_size == size &&
               snapshot->cpus.stride == sizeof(struct vcpu_cpu_row) &&
               snapshot->cores.stride == sizeof(struct vcpu_core_row) &&
               snapshot->llcs.stride == sizeof(struct vcpu_llc_row) &&
               snapshot->nodes.stride == sizeof(struct vcpu_node_row) &&
               snapshot->domains.stride == sizeof(struct vcpu_domain_row) &&
               snapshot->vcpus.stride == sizeof(struct vcpu_vcpu_row) &&
               snapshot->sets.stride == snapshot->set_words * sizeof(uint64_t);
    return vcpu_note(plan, same ? "all as they are here" : "something is not as it is here");
}

#define DECIDE strides
"#;

#[test]
fn strides_are_what_c_makes_of_the_rows() {
    let library = library("strides", STRIDES);
    let host = Host::uniform(2, 1, 40, 2).domain("web", [vcpu(10.0), vcpu(20.0)]);
    let mut plan = Plan::new();
    let decided = make(&policy(&library, "still"), "").decide(&host.snapshot().view(), &mut plan);
    assert_eq!(decided, Ok(()));
    assert_eq!(plan.notes().collect::<Vec<_>>(), ["all as they are here"]);
}
