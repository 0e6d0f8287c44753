//! On random hosts, under random constraints: what is not to be touched is not touched, whoever decides.
//!
//! What a vCPU may be pinned to is worked out here a second time, CPU by CPU, from what the scenario and the constraints
//! say, and every pin that the engine lets pass is held against it. Beside the built-in policies a wild one decides, which
//! asks for everything, so that the promise does not hang on the good manners of a policy.

use globset::Glob;
use proptest::prelude::*;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::OsCpuId;

use super::*;
use crate::engine::apply::apply;
use crate::engine::constraints::{Constraints, DomainMatch, DomainRule};
use crate::engine::ledger::Ledger;
use crate::host::{DomainSample, Host, Wish};

const CPUS: u32 = 6;
const NAMES: [&str; 4] = ["web-0", "web-1", "db-0", "db-1"];
const PATTERNS: [&str; 5] = ["web-*", "db-*", "*", "db-1", "nobody"];

fn policies() -> Vec<MakePolicy> {
    let built_in = vcpu_policies::BUILT_IN.iter().map(make);
    built_in.chain([make_wild()]).collect()
}

fn any_cpus() -> impl Strategy<Value = OsCpuSet> {
    prop::collection::btree_set(0..CPUS, 1..5).prop_map(|set| set.into_iter().map(OsCpuId).collect())
}

fn any_wish() -> impl Strategy<Value = Wish> {
    (any::<Option<bool>>(), prop::option::of(any_cpus())).prop_map(|(manage, cpus)| Wish { manage, cpus })
}

fn any_constraints() -> impl Strategy<Value = Constraints> {
    let rule = (prop::sample::select(PATTERNS.to_vec()), any_wish());
    let rule = rule.prop_map(|(pattern, wish)| DomainRule {
        text: pattern.to_owned(),
        matches: DomainMatch::Name(Glob::new(pattern).expect("a glob").compile_matcher()),
        wish,
    });
    let rules = prop::collection::vec(rule, 0..3);
    (prop::option::of(any_cpus()), any::<bool>(), rules).prop_map(|(reserved, use_isolated, rules)| {
        Constraints {
            reserved: reserved.unwrap_or_default(),
            use_isolated,
            rules,
        }
    })
}

/// A domain in a scenario, its name aside.
fn any_domain() -> impl Strategy<Value = String> {
    let bound = (prop::option::of(any_cpus()), prop::option::of(any_cpus()));
    (bound, any_wish(), 1u32..4, 0u32..100).prop_map(|((pin, cpuset), wish, vcpus, load)| {
        let key = |key: &str, cpus: Option<OsCpuSet>| {
            cpus.map(|cpus| format!(", {key}: \"{cpus}\""))
                .unwrap_or_default()
        };
        let manage = wish.manage.map(|manage| format!("manage: {manage}"));
        let cpus = wish.cpus.map(|cpus| format!("cpus: \"{cpus}\""));
        let metadata: Vec<String> = manage.into_iter().chain(cpus).collect();
        format!(
            "vcpus: {vcpus}, load: {load}, noise: 10, metadata: {{{}}}{}{}",
            metadata.join(", "),
            key("pin", pin),
            key("cpuset", cpuset)
        )
    })
}

fn any_event() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(NAMES.to_vec());
    prop_oneof![
        (1..CPUS).prop_map(|cpu| format!("offline: {cpu}")),
        (1..CPUS).prop_map(|cpu| format!("online: {cpu}")),
        (name(), any_cpus()).prop_map(|(name, cpus)| format!("cpuset: {{domain: {name}, cpus: \"{cpus}\"}}")),
        (name(), 1u32..4).prop_map(|(name, count)| format!("vcpus: {{domain: {name}, count: {count}}}")),
        name().prop_map(|name| format!("save: {name}")),
        name().prop_map(|name| format!("restore: {name}")),
    ]
}

fn any_scenario() -> impl Strategy<Value = String> {
    let domains: Vec<_> = NAMES.iter().map(|_| any_domain()).collect();
    let events = prop::collection::vec((1u32..8, any_event()), 0..6);
    (any_cpus(), domains, events).prop_map(|(isolated, domains, events)| {
        let domains = NAMES
            .iter()
            .zip(domains)
            .map(|(name, keys)| format!("{{name: {name}, {keys}}}"));
        let events = events
            .into_iter()
            .map(|(at, event)| format!("{{at: {at}, {event}}}"));
        let (domains, events): (Vec<String>, Vec<String>) = (domains.collect(), events.collect());
        format!(
            "{{host: {{cpus: {CPUS}, isolated: \"{isolated}\"}}, domains: [{}], events: [{}]}}",
            domains.join(", "),
            events.join(", ")
        )
    })
}

/// Whether a vCPU may be pinned to a CPU, by everything that anybody has said.
fn may(constraints: &Constraints, sample: &Sample, domain: &DomainSample, cpu: OsCpuId) -> bool {
    let rule = constraints.rules.iter().find(|rule| match &rule.matches {
        DomainMatch::Name(glob) => glob.is_match(&*domain.name),
        DomainMatch::Uuid(uuid) => *uuid == domain.uuid,
    });
    let rule = rule.map(|rule| rule.wish.clone()).unwrap_or_default();
    let metadata = &domain.definition.wish;
    let managed = rule.manage.or(metadata.manage).unwrap_or(true);
    let sets = [&domain.definition.cpuset, &rule.cpus, &metadata.cpus];
    managed
        && sample.topology.online().contains(cpu)
        && !constraints.reserved.contains(cpu)
        && (constraints.use_isolated || !sample.isolated.contains(cpu))
        && sets.into_iter().flatten().all(|cpus| cpus.contains(cpu))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn only_what_may_be_touched_is(text in any_scenario(), constraints in any_constraints()) {
        let scenario = Scenario::parse(&text, "random", Path::new("")).expect("valid");
        for make_policy in policies() {
            let terms = Terms { constraints: constraints.clone().into(), ..Terms::default() };
            let mut engine = Engine::new(make_policy, terms).expect("made");
            let mut host = SimulatedHost::new(scenario.clone());
            let mut ledger = Ledger::unkept();
            for _ in 0..10 {
                let sample = host.sample().expect("nothing fails in these scenarios");
                let terms = engine.terms().clone();
                ledger.observe(&sample, &terms);
                let Some(decision) = engine.decide(&sample, &ledger).expect("decided") else { continue };
                let applied =
                    apply(&mut host, &mut ledger, &decision.collected, &decision.verdict.accepted);
                prop_assert!(applied.failed.is_empty());
                for pinned in &applied.pinned {
                    let mut domains = sample.domains.iter();
                    let domain = domains.find(|domain| domain.uuid == pinned.key.domain).expect("sampled");
                    let cpus: OsCpuSet = pinned.action.cpus.to_string().parse().expect("a CPU list");
                    for cpu in cpus.iter() {
                        prop_assert!(may(&constraints, &sample, domain, cpu), "{}/{} to {cpu}", domain.name, pinned.key.number);
                    }
                }
                engine.learn(&applied);
            }
        }
    }
}
