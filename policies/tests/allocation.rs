//! In the steady state deciding allocates nothing: the daemon runs for months beside the guests.

#[path = "../benches/decide/crowd.rs"]
mod crowd;

use crowd::{Loads, crowd};
use vcpu_policies::BUILT_IN;
use vcpu_policy_api::plan::Plan;

#[test]
fn a_second_decision_allocates_nothing() {
    for policy in BUILT_IN {
        for loads in [Loads::Uneven, Loads::Even] {
            let block = crowd(1_000, 64, loads);
            let snapshot = block.view();
            let mut built = (policy.build)("").expect("no options are good options");
            let mut plan = Plan::new();
            let mut decide = || {
                plan.clear();
                built.decide(&snapshot, &mut plan).expect("a decision");
            };
            let first = allocation_counter::measure(&mut decide);
            assert!(first.count_total > 0, "the count counts");
            let second = allocation_counter::measure(&mut decide);
            assert_eq!(second.count_total, 0, "{policy:?} on {loads:?} loads");
        }
    }
}
