//! One test an event: the tick that it is stated for is the first to show it.

use super::*;

fn check(event: &str, ticks: RangeInclusive<u64>) -> String {
    let domains = "[{name: a, load: 20, pin: 0}, {name: b, vcpus: 2, load: 30, pin: 1, cpuset: 1-2}]";
    story(
        &format!("{{host: {{cpus: 3}}, domains: {domains}, events: [{event}]}}"),
        ticks,
    )
}

#[test]
fn load() {
    insta::assert_snapshot!(check("{at: 3, load: {domain: 'b*', percent: 40}}", 2..=3), @r#"
    2: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    3: [0-2] a/0 20 on 0 of 0, b/0 40 on 1 of 1, b/1 40 on 1 of 1
    "#);
}

#[test]
fn destroy() {
    insta::assert_snapshot!(check("{at: 3, destroy: a}", 2..=3), @r#"
    2: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    3: [0-2] b/0 30 on 1 of 1, b/1 30 on 1 of 1
    "#);
}

/// Sample 3 shows it for the first time, so there is no load yet.
#[test]
fn create() {
    insta::assert_snapshot!(check("{at: 3, create: {name: c, count: 2, pin: [2, 0], load: 10}}", 2..=4), @r#"
    2: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    3: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1, c-0/0 new on 2 of 2, c-1/0 new on 0 of 0
    4: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1, c-0/0 10 on 2 of 2, c-1/0 10 on 0 of 0
    "#);
}

/// The same name is the same domain to libvirt, but another run of it, with counters of its own.
#[test]
fn destroyed_and_created_again() {
    let text = "{host: {cpus: 1}, domains: [{name: a, load: 20}], events: [{at: 2, destroy: a}, {at: 2, create: {name: a, load: 5}}]}";
    insta::assert_snapshot!(story(text, 1..=3), @r#"
    1: [0] a/0 20 on 0 of 0
    2: [0] a/0 new on 0 of 0
    3: [0] a/0 5 on 0 of 0
    "#);
    let mut host = host(text);
    let first = host.sample().expect("the baseline");
    host.sample().expect("tick 1");
    let second = host.sample().expect("tick 2");
    assert_eq!(first.domains[0].uuid, second.domains[0].uuid);
    assert_ne!(first.domains[0].instance, second.domains[0].instance);
}

/// Both vCPUs of b are bound to CPU 1: without it they run anywhere, but their masks stay, and hold again later.
#[test]
fn offline_and_online() {
    insta::assert_snapshot!(check("{at: 2, offline: '1-2'}, {at: 3, online: '1'}", 1..=3), @r#"
    1: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    2: [0] a/0 20 on 0 of 0, b/0 30 on 0 of 1, b/1 30 on 0 of 1
    3: [0-1] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    "#);
}

#[test]
fn an_unchanged_topology_is_the_same() {
    let mut host = host("{host: {cpus: 2}, domains: [], events: [{at: 1, online: 1}, {at: 2, offline: 1}]}");
    let topologies: Vec<_> = (0..3).map(|_| host.sample().expect("a tick").topology).collect();
    assert!(Arc::ptr_eq(&topologies[0], &topologies[1]));
    assert!(!Arc::ptr_eq(&topologies[1], &topologies[2]));
    assert_eq!(topologies[2].offline().to_string(), "1");
}

#[test]
fn pin() {
    insta::assert_snapshot!(check("{at: 3, pin: {domain: b, vcpu: 1, cpus: 2}}", 2..=3), @r#"
    2: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    3: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 2 of 2
    "#);
}

/// New vCPUs have the definition's CPUs; one that comes back is a new one.
#[test]
fn vcpus() {
    let events = "{at: 2, vcpus: {domain: b, count: 3}}, {at: 4, vcpus: {domain: b, count: 1}}, {at: 5, vcpus: {domain: b, count: 2}}";
    insta::assert_snapshot!(check(events, 1..=6), @r#"
    1: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    2: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1, b/2 new on 2 of 1-2
    3: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1, b/2 30 on 2 of 1-2
    4: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1
    5: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 new on 2 of 1-2
    6: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 2 of 1-2
    "#);
    insta::assert_snapshot!(check("{at: 2, vcpus: {domain: a, count: 2}}", 2..=2), @"2: [0-2] a/0 20 on 0 of 0, a/1 new on 2 of 0-2, b/0 30 on 1 of 1, b/1 30 on 1 of 1");
}

/// Counters stand still meanwhile, and nothing is made up for afterwards.
#[test]
fn pause_and_resume() {
    insta::assert_snapshot!(check("{at: 2, pause: b}, {at: 4, resume: b}", 1..=4), @r#"
    1: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    2: [0-2] a/0 20 on 0 of 0, b/0 0 on 1 of 1, b/1 0 on 1 of 1
    3: [0-2] a/0 20 on 0 of 0, b/0 0 on 1 of 1, b/1 0 on 1 of 1
    4: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    "#);
}

/// Under libvirt a reboot leaves process, threads, counters and pins as they were.
#[test]
fn reboot() {
    assert_eq!(
        check("{at: 2, reboot: '*'}", 1..=4),
        check("{at: 9, reboot: '*'}", 1..=4)
    );
}

/// Gone, and back as another run with new counters, where it was saved: also behind others, and also if that is not where its
/// definition wants it. Events that it sleeps through pass it by.
#[test]
fn save_and_restore() {
    let events = "{at: 2, pin: {domain: b, vcpu: 1, cpus: 2}}, {at: 2, save: b}, {at: 3, load: {domain: b, percent: 1}}, {at: 3, destroy: b}, {at: 4, restore: '*'}";
    insta::assert_snapshot!(check(events, 1..=5), @r#"
    1: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    2: [0-2] a/0 20 on 0 of 0
    3: [0-2] a/0 20 on 0 of 0
    4: [0-2] a/0 20 on 0 of 0, b/0 new on 1 of 1, b/1 new on 2 of 2
    5: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 2 of 2
    "#);
}

/// What a guest carries goes through a managed save with it, and ends with its run; what tells runs apart tells these apart.
#[test]
fn a_keepsake_stays_with_its_run() {
    let mut host = host(
        "{host: {cpus: 1}, domains: [{name: a, load: 50}], events: [{at: 2, save: a}, {at: 2, restore: a}, {at: 3, reboot: a}, {at: 4, destroy: a}, {at: 4, create: {name: a}}]}",
    );
    let keepsake = Keepsake {
        token: Token("token".into()),
        vcpus: BTreeMap::new(),
    };
    let first = host.sample().expect("the baseline").domains.remove(0);
    let run = |domain: &DomainSample| DomainKey {
        uuid: domain.uuid,
        instance: domain.instance,
    };
    host.keep(&run(&first), Some(&keepsake)).expect("it runs");
    let mut next = || host.sample().expect("a tick").domains.remove(0);
    let (kept, restored, rebooted, new) = (next(), next(), next(), next());
    let carried =
        [&kept, &restored, &rebooted, &new].map(|domain| domain.keepsake.as_deref() == Some(&keepsake));
    assert_eq!(carried, [true, true, true, false]);
    assert_eq!((run(&kept), &kept.incarnation), (run(&first), &first.incarnation));
    assert_eq!(
        (run(&rebooted), &rebooted.incarnation),
        (run(&restored), &restored.incarnation)
    );
    for (before, after) in [(&kept, &restored), (&rebooted, &new)] {
        assert_eq!(before.uuid, after.uuid);
        assert_ne!(before.instance, after.instance);
        assert_ne!(before.incarnation, after.incarnation);
    }
    assert_eq!(restored.vcpus[0].run_ns, 2_500_000_000, "of this tick alone");
    assert!(matches!(host.keep(&run(&first), None), Err(PinError::Gone)));
}

#[test]
fn isolated_cpus_and_metadata_are_told() {
    let mut host = host(
        "{host: {isolated: 2-3, cpus: 4}, domains: [{name: a, metadata: {manage: no}}, {name: b, metadata: {manage: yes, cpus: 0-1}}, {name: c}]}",
    );
    let sample = host.sample().expect("the baseline");
    assert_eq!(sample.isolated, cpus("2-3"));
    let wishes = sample.domains.iter().map(|domain| {
        let wish = &domain.definition.wish;
        (wish.manage, wish.cpus.as_ref().map(ToString::to_string))
    });
    let expected = [
        (Some(false), None),
        (Some(true), Some("0-1".to_owned())),
        (None, None),
    ];
    assert_eq!(wishes.collect::<Vec<_>>(), expected);
}

/// The definition changes, where the guest runs does not.
#[test]
fn cpuset() {
    let text = "{host: {cpus: 2}, domains: [{name: a}], events: [{at: 1, cpuset: {domain: a, cpus: 1}}]}";
    let mut host = host(text);
    let before = host.sample().expect("the baseline");
    let after = host.sample().expect("tick 1");
    assert_eq!(before.domains[0].definition.cpus_of(0), None);
    assert_eq!(after.domains[0].definition.cpus_of(0), Some(&cpus("1")));
    assert_eq!(after.domains[0].vcpus[0].affinity, cpus("0-1"));
    assert!(!Arc::ptr_eq(
        &before.domains[0].definition,
        &after.domains[0].definition
    ));
}

/// A pattern means the domains that are there at that time; one that means none then does nothing.
#[test]
fn a_pattern_may_match_nobody_for_a_while() {
    insta::assert_snapshot!(check("{at: 1, destroy: a}, {at: 2, load: {domain: a, percent: 9}}", 2..=2), @"2: [0-2] b/0 30 on 1 of 1, b/1 30 on 1 of 1");
}

/// In one tick, events act in the order of the file, whatever the order of ticks in it.
#[test]
fn order_of_events() {
    let events = "{at: 3, load: {domain: a, percent: 3}}, {at: 2, load: {domain: a, percent: 1}}, {at: 2, load: {domain: a, percent: 2}}";
    insta::assert_snapshot!(check(events, 1..=3), @r#"
    1: [0-2] a/0 20 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    2: [0-2] a/0 2 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    3: [0-2] a/0 3 on 0 of 0, b/0 30 on 1 of 1, b/1 30 on 1 of 1
    "#);
}
