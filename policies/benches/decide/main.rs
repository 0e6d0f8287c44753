//! How long one decision takes, in the steady state: `cargo bench -p vcpu-policies`.

mod crowd;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use crowd::{Loads, crowd};
use vcpu_policies::{DEFAULT, find};
use vcpu_policy_api::plan::Plan;

fn stddev(criterion: &mut Criterion) {
    for loads in [Loads::Uneven, Loads::Even] {
        let mut group = criterion.benchmark_group(format!("{DEFAULT}/{loads:?}").to_lowercase());
        for (vcpus, cpus) in [(100, 16), (1_000, 64), (10_000, 512)] {
            let block = crowd(vcpus, cpus, loads);
            let snapshot = block.view();
            let mut policy =
                (find(DEFAULT).expect("the default").build)("").expect("no options are good options");
            let mut plan = Plan::new();
            group.bench_function(
                BenchmarkId::from_parameter(format!("{vcpus} vCPUs, {cpus} pCPUs")),
                |bencher| {
                    bencher.iter(|| {
                        plan.clear();
                        policy
                            .decide(black_box(&snapshot), &mut plan)
                            .expect("stddev always decides");
                        plan.actions().len()
                    });
                },
            );
            assert_eq!(
                plan.actions().len(),
                usize::from(loads == Loads::Uneven),
                "{loads:?}"
            );
        }
        group.finish();
    }
}

criterion_group!(benches, stddev);
criterion_main!(benches);
