//! What speaks against moving a vCPU, and that a change of it is seen at the next sample.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::time::Duration;

use globset::Glob;
use vcpu_policy_api::snapshot::Cpu;
use vcpu_policy_api::topology::{Distances, uniform_sites};

use super::*;
use crate::engine::constraints::{Constraints, DomainMatch, DomainRule};
use crate::engine::terms::Limits;
use crate::host::Wish;

/// A collector and a sample that it gets again and again, a second later each time, with changes by hand in between.
struct Course {
    collector: Collector,
    sample: Sample,
    /// Of the last snapshot.
    budget: Option<u32>,
}

impl Course {
    /// Four pCPUs; web-1 and db-1 with two vCPUs each.
    fn new(terms: Terms) -> Self {
        let two = || vec![vcpu(0, 0, 0), vcpu(1, 0, 0)];
        let mut course = Self {
            collector: Collector::new(terms),
            sample: Sample {
                read_at_ns: 0,
                topology: Arc::new(Topology::uniform(1, 1, 4, 1).expect("valid")),
                isolated: OsCpuSet::new(),
                domains: vec![domain("web-1", 1, two()), domain("db-1", 1, two())],
                unread: Vec::new(),
                connection: 0,
            },
            budget: None,
        };
        course.tick();
        course
    }

    /// What the next sample comes to: the managed pCPUs, and of each vCPU where it is allowed, with a star if it is movable.
    fn tick(&mut self) -> String {
        self.tick_holding(&|_| false)
    }

    fn tick_holding(&mut self, holds: &dyn Fn(&VcpuKey) -> bool) -> String {
        self.sample.read_at_ns += SECOND;
        let now = self.sample.read_at_ns;
        for vcpu in self
            .sample
            .domains
            .iter_mut()
            .flat_map(|domain| &mut domain.vcpus)
        {
            vcpu.read_at_ns = now;
        }
        let collected = self.collector.collect(&self.sample, true, holds);
        let Some(Collected { snapshot, .. }) = collected.expect("possible") else {
            return String::new();
        };
        self.budget = snapshot.budget();
        let managed = snapshot.cpus().filter(|cpu| cpu.is_managed());
        let mut text = managed.map(Cpu::os_id).collect::<OsCpuSet>().to_string();
        for domain in snapshot.domains() {
            let unmanaged = if domain.is_managed() { "" } else { "unmanaged" };
            write!(text, "; {} {unmanaged}", domain.name()).expect("memory");
            for vcpu in domain.vcpus().map(|ix| snapshot.vcpu(ix)) {
                let star = if vcpu.is_movable() { "*" } else { "" };
                write!(text, "[{}{star}]", snapshot.os_ids(vcpu.allowed())).expect("memory");
            }
        }
        text
    }

    fn key(&self, domain: usize, number: u32) -> VcpuKey {
        let domain = &self.sample.domains[domain];
        VcpuKey {
            domain: domain.uuid,
            instance: domain.instance,
            number,
        }
    }
}

fn rule(name: &str, manage: Option<bool>, list: Option<&str>) -> DomainRule {
    DomainRule {
        text: name.to_owned(),
        matches: DomainMatch::Name(Glob::new(name).expect("a glob").compile_matcher()),
        wish: Wish {
            manage,
            cpus: list.map(cpus),
        },
    }
}

fn constrained(reserved: &str, rules: Vec<DomainRule>) -> Terms {
    let constraints = Constraints {
        reserved: cpus(reserved),
        use_isolated: false,
        rules,
    };
    Terms {
        constraints: constraints.into(),
        ..Terms::default()
    }
}

fn limited(limits: Limits) -> Terms {
    Terms {
        limits,
        ..Terms::default()
    }
}

#[test]
fn constraints_bind() {
    let terms = constrained(
        "0",
        vec![rule("db-*", Some(false), None), rule("*", None, Some("0-2"))],
    );
    let mut course = Course::new(terms);
    assert_eq!(course.tick(), "1-3; web-1 [1-2*][1-2*]; db-1 unmanaged[1-3][1-3]");
}

/// Whatever a placement depends on may change from one sample to the next; nothing else is then lost.
#[test]
fn what_changes_is_seen_at_once() {
    let mut course = Course::new(Terms::default());
    assert_eq!(course.tick(), "0-3; web-1 [0-3*][0-3*]; db-1 [0-3*][0-3*]");
    course.sample.isolated = cpus("3");
    assert_eq!(course.tick(), "0-2; web-1 [0-2*][0-2*]; db-1 [0-2*][0-2*]");
    let rules = vec![rule("web-*", None, Some("2")), rule("db-1", None, Some("1"))];
    course.collector.set_terms(constrained("0", rules));
    assert_eq!(course.tick(), "1-2; web-1 [2*][2*]; db-1 [1*][1*]");
    course.sample.domains[0].name = "db-1".into();
    course.sample.domains[1].name = "web-9".into();
    assert_eq!(course.tick(), "1-2; db-1 [1*][1*]; web-9 [2*][2*]");
    course.sample.domains[0].definition = Arc::new(Definition {
        wish: Wish {
            manage: Some(false),
            cpus: None,
        },
        ..Definition::default()
    });
    assert_eq!(course.tick(), "1-2; db-1 unmanaged[1][1]; web-9 [2*][2*]");
    let mut sites = uniform_sites(1, 1, 4, 1);
    sites[2].online = false;
    course.sample.topology = Topology::new(sites, &Distances::new()).expect("valid").into();
    assert_eq!(course.tick(), "1; db-1 unmanaged[1][1]; web-9 [][]");
    course.collector.set_terms(Terms::default());
    assert_eq!(course.tick(), "0-1; db-1 unmanaged[0-1][0-1]; web-9 [0-1*][0-1*]");
}

#[test]
fn what_the_caller_holds_is_not_movable() {
    let mut course = Course::new(Terms::default());
    let held = course.key(1, 0);
    let shown = course.tick_holding(&|vcpu| *vcpu == held);
    assert_eq!(shown, "0-3; web-1 [0-3*][0-3*]; db-1 [0-3][0-3*]");
}

#[test]
fn a_vcpu_that_was_tried_cools_down() {
    let mut course = Course::new(limited(Limits {
        cooldown: Duration::from_secs(2),
        ..Limits::default()
    }));
    course.tick();
    let tried = course.key(0, 1);
    course.collector.tried(&tried);
    let movable = [(); 3].map(|()| course.tick().matches('*').count());
    assert_eq!(movable, [3, 4, 4]);
}

#[test]
fn a_vcpu_that_cannot_be_read_goes_on_cooling_down() {
    let mut course = Course::new(limited(Limits {
        cooldown: Duration::from_secs(4),
        ..Limits::default()
    }));
    course.tick();
    let tried = course.key(0, 1);
    course.collector.tried(&tried);
    let unread = course.sample.domains.remove(0);
    course.sample.unread = vec![tried.domain_key()];
    course.tick();
    course.sample.unread.clear();
    course.sample.domains.insert(0, unread);
    let movable = [(); 3].map(|()| course.tick().matches('*').count());
    // The one it was seen again in, the one it still cools down in, and the one after.
    assert_eq!(movable, [2, 3, 4]);
}

#[test]
fn the_budget_is_what_the_limits_leave() {
    let mut course = Course::new(limited(Limits {
        moves_per_tick: Some(3),
        moves_per_minute: NonZeroU32::new(4),
        ..Limits::default()
    }));
    let mut budgets = Vec::new();
    for _ in 0..3 {
        course.tick();
        let tried = [course.key(0, 0), course.key(0, 1), course.key(1, 0)];
        let budget = course.budget.expect("limited");
        for vcpu in tried.iter().take(budget as usize) {
            course.collector.tried(vcpu);
        }
        budgets.push(budget);
    }
    assert_eq!(budgets, [3, 1, 0]);
}

/// Refused once: aside at once. Busy: only if that goes on.
#[test]
fn a_vcpu_that_cannot_be_pinned_is_set_aside() {
    let mut course = Course::new(Terms::default());
    course.tick();
    let (refused, busy) = (course.key(0, 0), course.key(1, 0));
    assert!(course.collector.refused(&refused));
    course.collector.busy(&busy);
    assert_eq!(course.tick(), "0-3; web-1 [0-3][0-3*]; db-1 [0-3*][0-3*]");
    for _ in 0..aside::PATIENCE {
        course.collector.busy(&busy);
    }
    assert_eq!(course.tick(), "0-3; web-1 [0-3][0-3*]; db-1 [0-3][0-3*]");
    let movable: Vec<usize> = (0..8).map(|_| course.tick().matches('*').count()).collect();
    assert_eq!(movable, [2, 3, 3, 3, 3, 3, 4, 4]);
}

/// What does not change is not worked out again: what a tick allocates then does not grow with the number of guests.
#[test]
fn a_tick_without_changes_allocates_nothing_for_its_guests() {
    let collect = |course: &mut Course| {
        course.sample.read_at_ns += SECOND;
        let collected = course.collector.collect(&course.sample, false, &|_| false);
        assert!(collected.expect("possible").is_some());
    };
    let steady = |guests: u32| {
        let mut course = Course::new(constrained("0", vec![rule("web-*", None, Some("1-2"))]));
        for number in 0..guests {
            let guest = domain(&format!("web-x{number}"), 1, vec![vcpu(0, 0, 0)]);
            course.sample.domains.push(guest);
        }
        course.tick();
        collect(&mut course);
        allocation_counter::measure(|| collect(&mut course)).count_total
    };
    assert_eq!(steady(0), steady(500));
}
