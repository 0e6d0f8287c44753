//! What vCPUs get, where they are seen, and that all of it is the same every time.

use vcpu_policy_api::ids::{Index, OsCpuId};

use super::*;

const UNPINNED: &str = "{host: {cpus: 4}, interval: 1s, domains: [{name: vm, count: 8, load: 20}]}";

#[test]
fn the_first_sample_is_the_baseline() {
    let mut host = host("{host: {cpus: 1}, domains: [{name: vm, load: 20}]}");
    let baseline = host.sample().expect("the baseline");
    assert_eq!(baseline.read_at_ns, 0);
    assert_eq!(baseline.domains[0].vcpus[0].run_ns, 0);
    let first = host.sample().expect("tick 1");
    assert_eq!(first.read_at_ns, 5_000_000_000);
    assert_eq!(first.domains[0].vcpus[0].run_ns, 1_000_000_000);
    assert!(Arc::ptr_eq(&baseline.topology, &first.topology));
    assert!(Arc::ptr_eq(
        &baseline.domains[0].definition,
        &first.domains[0].definition
    ));
}

#[test]
fn four_hogs_on_one_cpu_read_25_percent_each() {
    let hogs = "{host: {cpus: 2}, domains: [{name: hog, count: 4, pin: 0, load: 100}]}";
    insta::assert_snapshot!(story(hogs, 1..=2), @r#"
    1: [0-1] hog-0/0 25.0 (wait 75.0) on 0 of 0, hog-1/0 25.0 (wait 75.0) on 0 of 0, hog-2/0 25.0 (wait 75.0) on 0 of 0, hog-3/0 25.0 (wait 75.0) on 0 of 0
    2: [0-1] hog-0/0 25.0 (wait 75.0) on 0 of 0, hog-1/0 25.0 (wait 75.0) on 0 of 0, hog-2/0 25.0 (wait 75.0) on 0 of 0, hog-3/0 25.0 (wait 75.0) on 0 of 0
    "#);
    let mut host = host(hogs);
    host.sample().expect("the baseline");
    host.sample().expect("tick 1");
    assert_eq!(
        (host.wanted_total().to_bits(), host.served_total().to_bits()),
        (400f64.to_bits(), 100f64.to_bits())
    );
}

/// The small one gets all it wants, the large ones share the rest, and nothing carries over to the next tick.
#[test]
fn sharing_is_fair_and_wants_do_not_carry_over() {
    let text = "{host: {cpus: 1}, domains: [{name: small, load: 20}, {name: big, count: 2, load: [[1, 80], [2, 30]]}]}";
    insta::assert_snapshot!(story(text, 1..=2), @r#"
    1: [0] small/0 20 on 0 of 0, big-0/0 40.0 (wait 50.0) on 0 of 0, big-1/0 40.0 (wait 50.0) on 0 of 0
    2: [0] small/0 20 on 0 of 0, big-0/0 30 on 0 of 0, big-1/0 30 on 0 of 0
    "#);
}

#[test]
fn a_pin_acts_in_the_next_interval() {
    let mut host = host("{host: {cpus: 2}, domains: [{name: hog, count: 2, pin: 0, load: 100}]}");
    host.sample().expect("the baseline");
    let first = host.sample().expect("tick 1");
    host.pin(&key(&first.domains[1], 0), &cpus("1")).expect("pinned");
    let second = host.sample().expect("tick 2");
    insta::assert_snapshot!(line(&first, &second), @"[0-1] hog-0/0 100 on 0 of 0, hog-1/0 100 on 1 of 1");
}

#[test]
fn pins_that_a_host_would_not_take() {
    let mut host = host("{host: {cpus: 4}, domains: [{name: vm, load: 20}], events: [{at: 1, offline: 3}]}");
    host.sample().expect("the baseline");
    let sample = host.sample().expect("tick 1");
    let vm = key(&sample.domains[0], 0);
    let stranger = VcpuKey {
        instance: Instance(99),
        ..vm
    };
    let mut errors = String::new();
    for (vcpu, list) in [
        (vm, "2-4"),
        (vm, "3"),
        (VcpuKey { number: 1, ..vm }, "0"),
        (stranger, "0"),
    ] {
        let error = host.pin(&vcpu, &cpus(list)).expect_err("a mistake");
        writeln!(errors, "{list}: {}", chain(&error)).expect("memory");
    }
    insta::assert_snapshot!(errors, @r#"
    2-4: the host refuses the pin: the host has no CPU 4; it has 0-3
    3: the host refuses the pin: none of CPUs 3 is online; online are 0-2
    0: the vCPU is gone
    0: the vCPU is gone
    "#);
    // One CPU that is online is enough, and the mask is kept as it was stated.
    host.pin(&vm, &cpus("2-3")).expect("pinned");
    assert_eq!(
        host.sample().expect("tick 2").domains[0].vcpus[0].affinity,
        cpus("2-3")
    );
}

/// Each is seen on one CPU only, and not always on the same: over time on all alike, at a time on some not at all.
#[test]
fn attribution_of_unpinned_vcpus_is_noisy() {
    let mut host = host(UNPINNED);
    host.sample().expect("the baseline");
    let mut seen = [[0u32; 4]; 8];
    let mut uneven = 0;
    for _ in 0..1000 {
        let sample = host.sample().expect("a tick");
        let mut together = [0; 4];
        for (domain, seen) in sample.domains.iter().zip(&mut seen) {
            let cpu = domain.vcpus[0].last_cpu.expect("it ran").index();
            seen[cpu] += 1;
            together[cpu] += 1;
        }
        uneven += u32::from(together.contains(&0));
    }
    // 1000 draws of one in four: mean 250, standard deviation 14.
    assert!(
        seen.iter().flatten().all(|&times| (180..320).contains(&times)),
        "{seen:?}"
    );
    // Of 8 guests on 4 CPUs, some CPU has none with probability 1 - 4! S(8,4) / 4^8 = 0.38.
    assert!((300..460).contains(&uneven), "{uneven}");
}

/// A vCPU that may run on both is seen where the one that is bound to CPU 0 leaves room.
#[test]
fn attribution_follows_the_free_cpus() {
    let text = "{host: {cpus: 2}, domains: [{name: bound, pin: 0, load: 90}, {name: free, load: 50}]}";
    let mut host = host(text);
    host.sample().expect("the baseline");
    let on_1 = (0..200).filter(|_| {
        let sample = host.sample().expect("a tick");
        sample.domains[1].vcpus[0].last_cpu == Some(OsCpuId(1))
    });
    assert_eq!(on_1.count(), 200);
}

#[test]
fn who_wants_nothing_stays_where_it_was() {
    let text = "{host: {cpus: 8}, domains: [{name: a, load: [[2, 10], [3, 0]]}, {name: b}]}";
    insta::assert_snapshot!(story(text, 1..=5), @r#"
    1: [0-7] a/0 0 on - of 0-7, b/0 0 on - of 0-7
    2: [0-7] a/0 10 on 6 of 0-7, b/0 0 on - of 0-7
    3: [0-7] a/0 0 on 6 of 0-7, b/0 0 on - of 0-7
    4: [0-7] a/0 0 on 6 of 0-7, b/0 0 on - of 0-7
    5: [0-7] a/0 0 on 6 of 0-7, b/0 0 on - of 0-7
    "#);
}

/// Wants that add up to less than there is are always served, and the sample shows exactly them.
#[test]
fn loads_come_out_exact() {
    let text = "{host: {cpus: 2}, interval: 1s, seed: 9, domains: [{name: a, load: 20}, {name: b, load: 33.4, pin: 0}]}";
    insta::assert_snapshot!(story(text, 1..=3), @r#"
    1: [0-1] a/0 20 on 1 of 0-1, b/0 33.4 on 0 of 0
    2: [0-1] a/0 20 on 1 of 0-1, b/0 33.4 on 0 of 0
    3: [0-1] a/0 20 on 1 of 0-1, b/0 33.4 on 0 of 0
    "#);
}

/// The value of the last column not later than the tick's begin; the last holds; copies take the next rows.
#[test]
fn loads_from_a_trace() {
    let text = "{host: {cpus: 4}, interval: 450s, domains: [{name: vm, count: 2, pin: [0, 1], load: {trace: tiny-trace.csv, row: 1}}]}";
    insta::assert_snapshot!(story(text, 1..=6), @r#"
    1: [0-3] vm-0/0 80 on 0 of 0, vm-1/0 20 on 1 of 1
    2: [0-3] vm-0/0 75 on 0 of 0, vm-1/0 20 on 1 of 1
    3: [0-3] vm-0/0 2 on 0 of 0, vm-1/0 20 on 1 of 1
    4: [0-3] vm-0/0 2 on 0 of 0, vm-1/0 90 on 1 of 1
    5: [0-3] vm-0/0 2 on 0 of 0, vm-1/0 90 on 1 of 1
    6: [0-3] vm-0/0 2 on 0 of 0, vm-1/0 20 on 1 of 1
    "#);
}

#[test]
fn background_load_comes_before_guests() {
    let text = "{host: {cpus: [{cpu: 0, background: 30}, {cpu: 4, capacity: 50}]}, domains: [{name: vm, count: 2, pin: [0, 4], load: 100}]}";
    insta::assert_snapshot!(story(text, 1..=1), @"1: [0,4] vm-0/0 70.0 (wait 30.0) on 0 of 0, vm-1/0 50.0 (wait 50.0) on 4 of 4");
}

const NOISY: &str =
    "{host: {cpus: 4}, seed: 7, domains: [{name: a, count: 6, vcpus: 2, load: 35, noise: 15}]}";

#[test]
fn the_same_scenario_gives_the_same_samples() {
    let run = || {
        let mut host = host(NOISY);
        (0..50)
            .map(|_| host.sample().expect("a tick"))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
    let other_seed = NOISY.replace("seed: 7", "seed: 8");
    assert_ne!(story(NOISY, 1..=1), story(&other_seed, 1..=1));
}

/// What vCPUs want is the same whoever pins them where, so two policies can be compared tick by tick.
#[test]
fn wants_do_not_depend_on_pins() {
    let mut left_alone = host(NOISY);
    let mut moved = host(NOISY);
    left_alone.sample().expect("the baseline");
    moved.sample().expect("the baseline");
    for tick in 0..20 {
        left_alone.sample().expect("a tick");
        let sample = moved.sample().expect("a tick");
        assert_eq!(
            left_alone.wanted_total().to_bits(),
            moved.wanted_total().to_bits()
        );
        for (domain, cpu) in sample.domains.iter().zip([0, 0, 0, 1, 1, tick % 4]) {
            moved
                .pin(&key(domain, 1), &cpus(&cpu.to_string()))
                .expect("pinned");
        }
    }
    assert!(moved.served_total() < left_alone.served_total());
}

/// Noise is around the load and never makes a want impossible.
#[test]
fn noise_has_the_stated_deviation() {
    let text = "{host: {cpus: 1}, interval: 1s, domains: [{name: a, load: 50, noise: 5}]}";
    let mut host = host(text);
    let mut before = host.sample().expect("the baseline");
    let loads: Vec<f64> = (0..2000)
        .map(|_| {
            let after = host.sample().expect("a tick");
            let (load, _) = percent(&before.domains[0].vcpus[0], &after.domains[0].vcpus[0]);
            before = after;
            load
        })
        .collect();
    let mean = loads.iter().sum::<f64>() / 2000.0;
    let deviation = (loads
        .iter()
        .map(|load| (load - mean) * (load - mean))
        .sum::<f64>()
        / 2000.0)
        .sqrt();
    assert!(
        (mean - 50.0).abs() < 0.5 && (deviation - 5.0).abs() < 0.4,
        "{mean} {deviation}"
    );
}
