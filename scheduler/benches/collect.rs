//! What it costs to make a snapshot of two samples: when nothing has changed, which is almost always, and when the terms
//! have, so that every placement is worked out again; and what it costs to know whose decision each affinity is.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use globset::Glob;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::document;
use vcpu_policy_api::ids::OsCpuId;
use vcpu_policy_api::topology::Topology;
use vcpu_scheduler::engine::collect::Collector;
use vcpu_scheduler::engine::constraints::{Constraints, DomainMatch, DomainRule};
use vcpu_scheduler::engine::ledger::Ledger;
use vcpu_scheduler::engine::terms::{Limits, Terms};
use vcpu_scheduler::host::{
    Definition, DomainSample, DomainUuid, Instance, Sample, VcpuKey, VcpuSample, Wish,
};

const CPUS: u32 = 256;
const VCPUS_EACH: u32 = 4;
const RULES: u32 = 20;

/// Guests of four vCPUs, each pinned to one CPU.
fn sample(vcpus: u32) -> Sample {
    let guest = |guest: u32| {
        let name = format!("web-{guest}");
        let vcpu = |number: u32| {
            let cpu = OsCpuId((guest * VCPUS_EACH + number) % CPUS);
            VcpuSample {
                number,
                read_at_ns: 0,
                run_ns: 0,
                delay_ns: Some(0),
                last_cpu: Some(cpu),
                affinity: [cpu].into_iter().collect(),
            }
        };
        DomainSample {
            uuid: DomainUuid(document::uuid_from_name(&name)),
            instance: Instance(1),
            name: name.into(),
            definition: Arc::new(Definition::default()),
            incarnation: None,
            keepsake: None,
            vcpus: (0..VCPUS_EACH).map(vcpu).collect(),
        }
    };
    Sample {
        read_at_ns: 0,
        topology: Arc::new(Topology::uniform(2, 4, 16, 2).expect("a host")),
        isolated: OsCpuSet::first(4),
        domains: (0..vcpus / VCPUS_EACH).map(guest).collect(),
        unread: Vec::new(),
        connection: 0,
    }
}

/// Rules of which the last matches, and limits of every kind.
fn terms() -> Terms {
    let rule = |number: u32| {
        let last = number + 1 == RULES;
        let name = if last {
            "web-*".to_owned()
        } else {
            format!("db-{number}-*")
        };
        DomainRule {
            text: name.clone(),
            matches: DomainMatch::Name(Glob::new(&name).expect("a glob").compile_matcher()),
            wish: Wish {
                manage: None,
                cpus: Some(OsCpuSet::first(200)),
            },
        }
    };
    let constraints = Constraints {
        reserved: OsCpuSet::first(2),
        use_isolated: false,
        rules: (0..RULES).map(rule).collect(),
    };
    Terms {
        limits: Limits {
            moves_per_tick: Some(16),
            moves_per_minute: None,
            cooldown: Duration::from_secs(30),
        },
        constraints: constraints.into(),
        ..Terms::default()
    }
}

fn collect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("collect");
    for vcpus in [1_000, 10_000] {
        for reload in [false, true] {
            let mut sample = sample(vcpus);
            let mut collector = Collector::new(terms());
            let what = if reload { "after a reload" } else { "steady" };
            group.bench_function(BenchmarkId::new(what, vcpus), |bencher| {
                bencher.iter(|| {
                    sample.read_at_ns += 1_000_000_000;
                    if reload {
                        collector.set_terms(terms());
                    }
                    let collected = collector.collect(&sample, false, &|_| false);
                    collected.expect("possible").is_some()
                });
            });
        }
    }
    group.finish();
}

/// Whose affinities are they, and which are left alone: what the ledger adds to a tick in which nothing has changed.
fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    for vcpus in [1_000, 10_000] {
        let mut sample = sample(vcpus);
        let terms = terms();
        let mut ledger = Ledger::unkept();
        let keys: Vec<VcpuKey> = sample
            .domains
            .iter()
            .flat_map(|domain| {
                domain.vcpus.iter().map(|vcpu| VcpuKey {
                    domain: domain.uuid,
                    instance: domain.instance,
                    number: vcpu.number,
                })
            })
            .collect();
        group.bench_function(BenchmarkId::new("steady", vcpus), |bencher| {
            bencher.iter(|| {
                sample.read_at_ns += 1_000_000_000;
                ledger.observe(&sample, &terms);
                keys.iter().filter(|key| ledger.holds(key)).count()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, collect, ledger);
criterion_main!(benches);
