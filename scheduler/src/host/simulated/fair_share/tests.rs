use proptest::prelude::*;

use super::*;

/// A vCPU: what it wants, and a bit for each pCPU that it may run on.
type Vcpu = (f64, u32);

/// What is put down to rounding, in percent of a pCPU.
const ROUNDING: f64 = 1e-6;

/// The service of each vCPU.
fn serve(capacities: &[f64], vcpus: &[Vcpu]) -> Vec<f64> {
    let mut masks: Vec<u32> = vcpus.iter().map(|vcpu| vcpu.1).collect();
    masks.sort_unstable();
    masks.dedup();
    let groups: Vec<Group> = masks
        .iter()
        .map(|&mask| {
            let mut wants: Vec<f64> = vcpus
                .iter()
                .filter(|vcpu| vcpu.1 == mask)
                .map(|vcpu| vcpu.0)
                .collect();
            wants.sort_unstable_by(f64::total_cmp);
            let cpus = CpuSet::from_words(&[u64::from(mask)]);
            Group { cpus, wants }
        })
        .collect();
    let levels = levels(capacities, &groups);
    let level = |mask| levels[masks.binary_search(&mask).expect("a group for each mask")];
    vcpus
        .iter()
        .map(|&(want, mask)| served(want, level(mask)))
        .collect()
}

fn check(capacities: &[f64], vcpus: &[Vcpu], expected: &[f64]) {
    let served = serve(capacities, vcpus);
    let close = served
        .iter()
        .zip(expected)
        .all(|(served, expected)| (served - expected).abs() < 1e-9);
    assert!(
        close && served.len() == expected.len(),
        "{served:?}, expected {expected:?}"
    );
}

#[test]
fn one_cpu_is_filled_like_a_vessel() {
    check(&[100.0], &[(30.0, 1), (50.0, 1)], &[30.0, 50.0]);
    check(
        &[100.0],
        &[(100.0, 1), (100.0, 1), (100.0, 1), (100.0, 1)],
        &[25.0; 4],
    );
    // The modest one is served, the others share the remaining 80.
    check(&[100.0], &[(20.0, 1), (70.0, 1), (90.0, 1)], &[20.0, 40.0, 40.0]);
    check(&[0.0], &[(20.0, 1)], &[0.0]);
}

#[test]
fn who_may_run_elsewhere_makes_room() {
    // The free one goes to CPU 1.
    check(&[100.0, 100.0], &[(90.0, 0b01), (50.0, 0b11)], &[90.0, 50.0]);
    // Two hogs on CPU 0 and one that may run on both: it has CPU 1 for itself.
    check(
        &[100.0, 100.0],
        &[(100.0, 0b01), (100.0, 0b01), (100.0, 0b11)],
        &[50.0, 50.0, 100.0],
    );
    // Three hogs on CPU 0, two free ones: CPU 0 gives 33 to each of its own, CPU 1 gives 50 to each free one.
    let third = 100.0 / 3.0;
    check(
        &[100.0, 100.0],
        &[
            (100.0, 0b01),
            (100.0, 0b01),
            (100.0, 0b01),
            (100.0, 0b11),
            (100.0, 0b11),
        ],
        &[third, third, third, 50.0, 50.0],
    );
    // A free one too many: three hogs over two CPUs, though one of them is bound.
    check(
        &[100.0, 100.0],
        &[(100.0, 0b01), (100.0, 0b11), (100.0, 0b11)],
        &[200.0 / 3.0; 3],
    );
}

#[test]
fn a_chain_of_overlapping_sets() {
    // CPU 0 is short, so the pair {0,1} leans on CPU 1, whose other pair leans on CPU 2.
    check(
        &[100.0, 100.0, 100.0],
        &[(80.0, 0b001), (80.0, 0b011), (80.0, 0b110), (60.0, 0b110)],
        &[80.0, 80.0, 80.0, 60.0],
    );
    // All want all: 3 CPUs over 4 that can all be rerouted.
    check(
        &[100.0, 100.0, 100.0],
        &[(100.0, 0b001), (100.0, 0b011), (100.0, 0b110), (100.0, 0b110)],
        &[75.0; 4],
    );
}

#[test]
fn capacities_differ() {
    check(&[50.0, 100.0], &[(100.0, 0b01), (100.0, 0b10)], &[50.0, 100.0]);
    check(&[50.0, 100.0], &[(100.0, 0b11), (100.0, 0b11)], &[75.0, 75.0]);
}

fn capacities() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(
        prop_oneof![4 => Just(100.0), 1 => Just(0.0), 2 => 10.0..150.0],
        1..8,
    )
}

/// Up to 24 vCPUs over up to 7 pCPUs, from idle to a multiple overload.
fn cases() -> impl Strategy<Value = (Vec<f64>, Vec<Vcpu>)> {
    capacities().prop_flat_map(|capacities| {
        let all = (1u32 << capacities.len()) - 1;
        let cpus = u32::try_from(capacities.len()).expect("few");
        let want = prop_oneof![1 => Just(0.0), 2 => Just(100.0), 2 => Just(20.0), 4 => 0.0..100.0];
        let mask = prop_oneof![2 => (0..cpus).prop_map(|cpu| 1 << cpu), 1 => Just(all), 3 => 1..=all];
        (Just(capacities), prop::collection::vec((want, mask), 0..24))
    })
}

/// What the vCPUs that can only run within a set of pCPUs get together.
fn within(set: u32, vcpus: &[Vcpu], served: &[f64]) -> f64 {
    let inside = vcpus.iter().zip(served).filter(|(vcpu, _)| vcpu.1 & !set == 0);
    inside.map(|(_, served)| served).sum()
}

fn capacity_of(set: u32, capacities: &[f64]) -> f64 {
    (0..)
        .zip(capacities)
        .filter(|(cpu, _)| set >> cpu & 1 == 1)
        .map(|(_, capacity)| capacity)
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The service can be carried out (Hall): no set of pCPUs is asked for more than it has; and nobody gets more than
    /// it wants.
    #[test]
    fn the_service_is_possible((capacities, vcpus) in cases()) {
        let served = serve(&capacities, &vcpus);
        for set in 0..1u32 << capacities.len() {
            prop_assert!(within(set, &vcpus, &served) <= capacity_of(set, &capacities) + ROUNDING);
        }
        for (vcpu, served) in vcpus.iter().zip(&served) {
            prop_assert!((0.0..=vcpu.0).contains(served));
        }
    }

    /// Max-min fairness has one answer, known by its bottlenecks: whoever gets less than it wants is bound to pCPUs that
    /// are full with vCPUs that are bound to them too and get no more than it does. Work conservation follows.
    #[test]
    fn whoever_is_short_has_a_bottleneck((capacities, vcpus) in cases()) {
        let served = serve(&capacities, &vcpus);
        for (&(want, mask), &got) in vcpus.iter().zip(&served) {
            if got >= want - ROUNDING {
                continue;
            }
            let bottleneck = (0..1u32 << capacities.len()).any(|set| {
                let nobody_gets_more = vcpus
                    .iter()
                    .zip(&served)
                    .all(|(other, &gets)| other.1 & !set != 0 || gets <= got + ROUNDING);
                mask & !set == 0
                    && nobody_gets_more
                    && within(set, &vcpus, &served) >= capacity_of(set, &capacities) - ROUNDING
            });
            prop_assert!(bottleneck, "vCPU of {mask:b} got {got} of {want}: {served:?}");
        }
    }

    /// The order of the vCPUs does not matter, to the bit, and equal ones get the same.
    #[test]
    fn service_is_symmetric((capacities, vcpus) in cases(), turn in 0usize..24) {
        let served = serve(&capacities, &vcpus);
        let mut turned = vcpus.clone();
        let by = turn % vcpus.len().max(1);
        turned.rotate_left(by);
        let mut back = serve(&capacities, &turned);
        back.rotate_right(by);
        let bits = |served: &[f64]| served.iter().map(|served| served.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&served), bits(&back));
        for (a, got_a) in vcpus.iter().zip(&served) {
            for (b, got_b) in vcpus.iter().zip(&served) {
                prop_assert!(a != b || got_a.to_bits() == got_b.to_bits());
            }
        }
    }

    /// Who wants more gets no less for it.
    #[test]
    fn service_is_monotonous((capacities, vcpus) in cases(), more in 0.0..100.0f64) {
        let served = serve(&capacities, &vcpus);
        if let Some(((want, mask), rest)) = vcpus.split_first() {
            let mut greedier = vec![((want + more).min(100.0), *mask)];
            greedier.extend_from_slice(rest);
            prop_assert!(serve(&capacities, &greedier)[0] >= served[0] - ROUNDING);
        }
    }
}
