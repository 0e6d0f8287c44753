//! What `night` decides, as tables. `cargo insta review` shows what a change does to them.

use vcpu_policy_api::testing::{Host, decide, decide_with, policy, vcpu};
use vcpu_policy_night::Night;

/// Two caches of four CPUs, a guest with a vCPU on each.
fn host(load: f64) -> Host {
    Host::uniform(1, 2, 4, 1).domain("web", (0..8).map(|cpu| vcpu(load).on(cpu)))
}

#[test]
fn a_quiet_host_is_gathered_on_its_first_cache() {
    insta::assert_snapshot!(decide::<Night>("", &host(10.0).snapshot()));
}

#[test]
fn a_busy_host_is_left_alone() {
    insta::assert_snapshot!(decide::<Night>("", &host(50.0).snapshot()));
}

#[test]
fn with_one_cache_cores_are_the_units() {
    let host = Host::uniform(1, 1, 4, 2).domain("web", (0..8).map(|cpu| vcpu(10.0).on(cpu)));
    insta::assert_snapshot!(decide::<Night>("", &host.snapshot()));
}

#[test]
fn what_is_not_allowed_or_not_movable_stays() {
    let host = Host::uniform(1, 2, 2, 1)
        .domain("far", [vcpu(5.0).on(3).allowed("2-3"), vcpu(5.0).on(2).fixed()])
        .unmanaged("own", [vcpu(5.0).on(3)])
        .domain("web", [vcpu(5.0).on(1).allowed("1-2")]);
    insta::assert_snapshot!(decide::<Night>("", &host.snapshot()));
}

#[test]
fn reserved_cpus_are_no_place_to_gather() {
    let host = Host::cpus(4)
        .reserved("0")
        .domain("web", [vcpu(10.0).on(2), vcpu(10.0).on(3)]);
    insta::assert_snapshot!(decide::<Night>("", &host.snapshot()));
    let host = Host::cpus(2).reserved("0-1").domain("web", [vcpu(10.0).on(0)]);
    assert!(decide::<Night>("", &host.snapshot()).ends_with("there is nothing to gather on\n"));
}

/// The load that fills one cache to the brim of `fill`: 60 % of 400 are 240, on eight vCPUs 30 each. It is night up to
/// `quiet` percent of 800.
#[test]
fn on_the_border_nothing_flaps() {
    let mut night = policy::<Night>("quiet: 50");
    let mut pins = |load: f64| {
        decide_with(&mut *night, &host(load).snapshot())
            .matches("\npin ")
            .count()
    };
    assert_eq!(pins(20.0), 8, "one cache is enough");
    assert_eq!(
        pins(31.0),
        0,
        "248 do not fit on one cache: both are awake, where the vCPUs are"
    );
    assert_eq!(pins(29.0), 0, "232 would fit, but not with the margin");
    assert_eq!(pins(27.0), 8, "216 are below the 220 of the margin");
}

#[test]
fn options_without_sense_are_refused() {
    use vcpu_policy_api::options::build;
    for (options, said) in [
        ("quiet: 0", "quiet is 0; expected a percentage above 0, up to 100"),
        (
            "fill: 101",
            "fill is 101; expected a percentage above 0, up to 100",
        ),
        (
            "margin: 30",
            "margin is 30; expected 0 or more, and less than quiet (30) and fill (60)",
        ),
    ] {
        let error = build::<Night>(options).err().expect("refused");
        let source = std::error::Error::source(&error).expect("the policy's own words");
        assert_eq!(source.to_string(), said);
    }
}
