//! Who may move whom where, and how that is explained. The table and the sets come from the same restrictions; the last
//! property holds them against the rules as the module's prose has them, worked out a second way.

use globset::Glob;
use proptest::prelude::*;
use vcpu_policy_api::ids::OsCpuId;
use vcpu_policy_api::topology::Topology;

use super::explain::{HostFacts, explain};
use super::*;
use crate::host::{DomainSample, Instance, VcpuSample};

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a CPU list")
}

fn some(list: &str) -> Option<OsCpuSet> {
    (!list.is_empty()).then(|| cpus(list))
}

fn rule(name: &str, manage: Option<bool>, list: &str) -> DomainRule {
    let mut text = format!("match: \"{name}\"");
    if let Some(manage) = manage {
        text = format!("{text}, manage: {manage}");
    }
    if !list.is_empty() {
        text = format!("{text}, cpus: \"{list}\"");
    }
    DomainRule {
        text,
        matches: DomainMatch::Name(Glob::new(name).expect("a glob").compile_matcher()),
        wish: Wish {
            manage,
            cpus: some(list),
        },
    }
}

fn uuid(name: &str) -> DomainUuid {
    DomainUuid(vcpu_policy_api::document::uuid_from_name(name))
}

fn domain(name: &str, vcpus: &[u32], definition: Definition) -> DomainSample {
    let vcpu = |&number: &u32| VcpuSample {
        number,
        read_at_ns: 0,
        run_ns: 0,
        delay_ns: None,
        last_cpu: None,
        affinity: cpus("0-7"),
    };
    DomainSample {
        uuid: uuid(name),
        instance: Instance(1),
        name: name.into(),
        definition: definition.into(),
        incarnation: None,
        keepsake: None,
        vcpus: vcpus.iter().map(vcpu).collect(),
    }
}

/// What is said of a domain on a host of eight CPUs of which the kernel isolates 6 and 7.
fn check(constraints: &Constraints, domain: &DomainSample) -> String {
    let topology = Topology::uniform(1, 1, 8, 1).expect("valid");
    let host = HostFacts {
        topology: &topology,
        isolated: &cpus("6-7"),
    };
    explain(constraints, host, domain)
}

fn reserving(list: &str, rules: Vec<DomainRule>) -> Constraints {
    Constraints {
        reserved: some(list).unwrap_or_default(),
        use_isolated: false,
        rules,
    }
}

/// Each case by its name, in one readable text.
#[test]
fn what_is_said() {
    let none = Definition::default;
    let bound = |list: &str| Definition {
        cpuset: Some(cpus(list)),
        ..none()
    };
    let asks = |manage: Option<bool>, list: &str| Definition {
        wish: Wish {
            manage,
            cpus: some(list),
        },
        ..none()
    };
    let each_source = Definition {
        vcpupin: [(1, cpus("2")), (3, cpus("0"))].into(),
        cpuset: Some(cpus("0-4,6")),
        ..asks(None, "0-7")
    };
    let use_isolated = Constraints {
        use_isolated: true,
        ..Constraints::default()
    };
    let two_rules = || reserving("0", vec![rule("db-*", None, "5"), rule("web-*", None, "1-3")]);
    let managing = || {
        let rules = vec![rule("web-*", Some(true), ""), rule("db-*", Some(false), "")];
        reserving("", rules)
    };
    let cases = [
        (
            "nothing but the host",
            reserving("0", vec![]),
            domain("a", &[0, 1, 2, 5], none()),
        ),
        ("isolated CPUs are used", use_isolated, domain("a", &[0], none())),
        (
            "each source",
            two_rules(),
            domain("web-1", &[0, 1, 2, 3], each_source),
        ),
        (
            "all that is left is isolated",
            reserving("0", vec![]),
            domain("a", &[0], bound("6-7")),
        ),
        (
            "all CPUs are reserved",
            reserving("0-7", vec![rule("a", None, "1")]),
            domain("a", &[0], none()),
        ),
        (
            "a rule for CPUs that are not there",
            reserving("", vec![rule("a", None, "64-127")]),
            domain("a", &[0], none()),
        ),
        (
            "a rule says no, the metadata yes",
            managing(),
            domain("db-1", &[0], asks(Some(true), "")),
        ),
        (
            "the metadata says no",
            managing(),
            domain("other", &[0], asks(Some(false), "1")),
        ),
        (
            "the metadata says no, a rule yes",
            managing(),
            domain("web-1", &[0], asks(Some(false), "1")),
        ),
        (
            "both say yes",
            managing(),
            domain("web-1", &[0], asks(Some(true), "")),
        ),
        ("a domain without vCPUs", managing(), domain("web-1", &[], none())),
    ];
    let texts =
        cases.map(|(what, constraints, domain)| format!("# {what}\n{}", check(&constraints, &domain)));
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn the_first_rule_that_matches_holds_alone() {
    let by_uuid = DomainRule {
        text: "match: …".to_owned(),
        matches: DomainMatch::Uuid(uuid("web-2")),
        wish: Wish {
            manage: None,
            cpus: Some(cpus("5")),
        },
    };
    let rules = vec![
        rule("web-1", None, "1-2"),
        by_uuid,
        rule("web-*", Some(false), "3"),
    ];
    let constraints = reserving("", rules);
    let number = |name: &str| {
        let rule = constraints.rule_for(name, uuid(name));
        rule.map(|rule| rule.number)
    };
    let numbers = ["web-1", "web-2", "web-3", "db"].map(number);
    assert_eq!(numbers, [Some(1), Some(2), Some(3), None]);
}

fn any_cpus() -> impl Strategy<Value = OsCpuSet> {
    prop::collection::btree_set(0u32..10, 0..8).prop_map(|set| set.into_iter().map(OsCpuId).collect())
}

fn any_wish() -> impl Strategy<Value = Wish> {
    (any::<Option<bool>>(), prop::option::of(any_cpus())).prop_map(|(manage, cpus)| Wish { manage, cpus })
}

proptest! {
    #[test]
    fn allowed_is_what_everybody_allows(
        (reserved, isolated, use_isolated) in (any_cpus(), any_cpus(), any::<bool>()),
        (cpuset, vcpupin) in (prop::option::of(any_cpus()), prop::option::of(any_cpus())),
        metadata in any_wish(),
        rules in prop::collection::vec((prop::sample::select(vec!["a*", "ab", "*", "b"]), any_wish()), 0..4),
    ) {
        let topology = Topology::uniform(1, 1, 8, 1).expect("valid");
        let definition = Definition {
            cpuset: cpuset.clone(),
            vcpupin: vcpupin.iter().map(|cpus| (0, cpus.clone())).collect(),
            wish: metadata.clone(),
            ..Definition::default()
        };
        let rule_of = |(name, wish): &(&str, Wish)| DomainRule { wish: wish.clone(), ..rule(name, None, "") };
        let constraints = Constraints { reserved: reserved.clone(), use_isolated, rules: rules.iter().map(rule_of).collect() };
        let standing = constraints.of_domain("ab", uuid("ab"), &definition);
        let managed = constraints.managed(&topology, &isolated);
        let allowed = topology.os_ids(standing.allowed(&topology, &managed, 0).as_ref());

        let first = rules.iter().find(|(name, _)| *name != "b").map(|(_, wish)| wish.clone()).unwrap_or_default();
        let stated = [vcpupin.or(cpuset), first.cpus, metadata.cpus];
        for cpu in (0..10).map(OsCpuId) {
            let counts = cpu.0 < 8 && !reserved.contains(cpu) && (use_isolated || !isolated.contains(cpu));
            let everybody = stated.iter().flatten().all(|cpus| cpus.contains(cpu));
            prop_assert_eq!(allowed.contains(cpu), counts && everybody, "CPU {}", cpu);
        }
        let unmanaged = first.manage == Some(false) || (metadata.manage == Some(false) && first.manage.is_none());
        prop_assert_eq!(standing.management().is_managed(), !unmanaged);
    }
}
