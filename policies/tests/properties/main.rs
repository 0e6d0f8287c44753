//! The promises of `stddev`, each for any host that can be made up.

mod model;
mod reference;

use std::collections::BTreeSet;

use model::{Model, Pin, balanced_models, models, pinned_models, pins, tied_models};
use proptest::prelude::*;
use reference::reference;
use vcpu_policies::{find, stddev};
use vcpu_policy_api::plan::{Plan, managed_stddev, projected_loads};
use vcpu_policy_api::policy::{Decide, Policy};

/// The default threshold.
const THRESHOLD_TENTHS: u32 = 50;

fn stddev() -> Box<dyn Decide> {
    (find("stddev").expect("built in").build)("").expect("no options are good options")
}

fn decide(policy: &mut dyn Decide, model: &Model) -> Plan {
    let mut plan = Plan::new();
    let block = model.snapshot();
    policy
        .decide(&block.view(), &mut plan)
        .expect("stddev always decides");
    plan
}

fn decided(model: &Model) -> Vec<Pin> {
    pins(&decide(&mut *stddev(), model))
}

/// What the plans of two instances have in common if they are the same.
fn words(plan: &Plan) -> String {
    format!(
        "{:?}{:?}",
        plan.actions().collect::<Vec<_>>(),
        plan.notes().collect::<Vec<_>>()
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_rule_says(model in models(), threshold in prop_oneof![Just(THRESHOLD_TENTHS), 0u32..400]) {
        let options = stddev::Options { threshold: f64::from(threshold) / 10.0 };
        let mut policy = stddev::StdDev::new(options).expect("a good threshold");
        let decided = pins(&decide(&mut policy, &model));
        prop_assert_eq!(decided, reference(&model, threshold).into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn it_moves_at_most_one_vcpu_and_only_as_it_may(model in models()) {
        let decided = decided(&model);
        prop_assert!(decided.len() <= 1, "{:?}", decided);
        for pin in decided {
            let (domain_managed, vcpu) = model.vcpus().nth(pin.vcpu).expect("a vCPU of the host");
            prop_assert!(domain_managed && vcpu.movable && vcpu.tenths > Some(0));
            prop_assert_eq!(pin.cpus.len(), 1);
            prop_assert!(model.managed[pin.cpus[0]] && vcpu.allowed[pin.cpus[0]]);
            // Not a no-op: another mask, and another CPU.
            let mask: Vec<bool> = (0..model.cpus()).map(|cpu| pin.cpus.contains(&cpu)).collect();
            prop_assert!(vcpu.affinity != mask && vcpu.cpu != Some(pin.cpus[0]));
        }
    }

    #[test]
    fn a_move_lowers_the_standard_deviation(model in models()) {
        let (block, mut plan) = (model.snapshot(), Plan::new());
        let snapshot = block.view();
        stddev().decide(&snapshot, &mut plan).expect("stddev always decides");
        if let Some(action) = plan.actions().next() {
            prop_assert!(model.after(&pins(&plan)).unevenness() < model.unevenness());
            let mut now = Vec::new();
            snapshot.cpu_loads(&mut now);
            let then = projected_loads(&snapshot, plan.actions());
            let gain = managed_stddev(&snapshot, &now) - managed_stddev(&snapshot, &then);
            prop_assert!(action.gain >= 0.0 && (action.gain - gain).abs() < 1e-9, "{} is not {}", action.gain, gain);
        }
    }

    #[test]
    fn it_says_why_nothing_moves(model in models()) {
        let plan = decide(&mut *stddev(), &model);
        let texts: Vec<&str> = plan.actions().map(|action| action.reason).chain(plan.notes()).collect();
        prop_assert_eq!(texts.len(), 1);
        prop_assert!(!texts[0].is_empty());
    }

    #[test]
    fn what_was_moved_is_not_moved_back(model in models()) {
        let first = decided(&model);
        let after = model.after(&first);
        for (moved, again) in first.iter().zip(decided(&after)) {
            let from = model.placement()[moved.vcpu];
            prop_assert!(moved.vcpu != again.vcpu || Some(again.cpus[0]) != from, "{:?} then {:?}", moved, again);
        }
    }

    #[test]
    fn balanced_loads_stay_where_they_are(model in balanced_models(), threshold in prop::sample::select(vec![0.0, 5.0])) {
        let mut policy = stddev::StdDev::new(stddev::Options { threshold }).expect("a good threshold");
        prop_assert_eq!(pins(&decide(&mut policy, &model)), Vec::new());
    }

    #[test]
    fn an_exact_tie_moves_nothing(model in tied_models()) {
        prop_assert_eq!(decided(&model), Vec::new());
    }

    #[test]
    fn the_same_snapshot_gives_the_same_plan(first in models(), second in models()) {
        let mut used = stddev();
        decide(&mut *used, &second);
        let (fresh, reused) = (decide(&mut *stddev(), &first), decide(&mut *used, &first));
        prop_assert_eq!(words(&fresh), words(&reused));
    }

    #[test]
    fn observe_moves_nothing_and_says_so(model in models()) {
        let mut observe = (find("observe").expect("built in").build)("").expect("no options");
        let plan = decide(&mut *observe, &model);
        prop_assert_eq!((plan.actions().len(), plan.notes().len()), (0, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// It must end, since each move lowers the sum of the squared loads. How soon, no short proof tells; made-up hosts
    /// took at most about one move a vCPU, and the bound is four.
    #[test]
    fn stationary_loads_come_to_rest(start in pinned_models()) {
        let mut policy = stddev();
        let (mut model, mut seen) = (start, BTreeSet::new());
        let bound = 4 * (model.placement().len() + 1);
        for tick in 0.. {
            prop_assert!(tick <= bound, "still moving after {} ticks", bound);
            prop_assert!(seen.insert(model.placement()), "back at an earlier placement after {} ticks", tick);
            let pins = pins(&decide(&mut *policy, &model));
            if pins.is_empty() {
                break;
            }
            model = model.after(&pins);
        }
    }
}
