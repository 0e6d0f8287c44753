//! One test a fault: what fails, for how long, and that the host is as it should be afterwards.

use super::*;

/// Lets tick after tick pass and tries to pin both guests in each.
fn check(fault: &str, ticks: u64) -> String {
    let text = format!(
        "{{host: {{cpus: 2}}, interval: 1s, domains: [{{name: a, load: 20}}, {{name: b, load: 30}}], events: [{{at: 2, fail: {fault}}}]}}"
    );
    let mut host = host(&text);
    let mut known = host.sample().expect("the baseline");
    let mut story = String::new();
    for tick in 1..=ticks {
        let sample = host.sample();
        let mut line = match sample {
            Ok(sample) => {
                let at = |ns: u64| Duration::from_nanos(ns);
                let vcpu = &sample.domains[0].vcpus[0];
                let line = format!(
                    "at {:?}, counters at {:?}: {:?}",
                    at(sample.read_at_ns),
                    at(vcpu.read_at_ns),
                    at(vcpu.run_ns)
                );
                known = sample;
                line
            }
            Err(error) => chain(&error),
        };
        for domain in &known.domains {
            let pinned = host.pin(&key(domain, 0), &cpus("0"));
            let result = pinned.err().map_or("pinned".to_owned(), |error| chain(&error));
            write!(line, "; {} {result}", domain.name).expect("memory");
        }
        writeln!(story, "{tick}: {line}; then {:?}", host.now()).expect("memory");
    }
    story
}

#[test]
fn pin() {
    insta::assert_snapshot!(check("{call: pin, domain: b, ticks: 2}", 4), @r#"
    1: at 1s, counters at 1s: 200ms; a pinned; b pinned; then 1s
    2: at 2s, counters at 2s: 400ms; a pinned; b the domain is busy: the scenario keeps the domain busy; then 2s
    3: at 3s, counters at 3s: 600ms; a pinned; b the domain is busy: the scenario keeps the domain busy; then 3s
    4: at 4s, counters at 4s: 800ms; a pinned; b pinned; then 4s
    "#);
}

#[test]
fn pin_refused_for_all() {
    insta::assert_snapshot!(check("{call: pin, error: refused}", 3), @r#"
    1: at 1s, counters at 1s: 200ms; a pinned; b pinned; then 1s
    2: at 2s, counters at 2s: 400ms; a the host refuses the pin: the scenario refuses pins of the domain; b the host refuses the pin: the scenario refuses pins of the domain; then 2s
    3: at 3s, counters at 3s: 600ms; a pinned; b pinned; then 3s
    "#);
}

/// Each call about a domain fails by its own fault, for the domains that this names, and by no other.
#[test]
fn calls_about_a_domain() {
    let calls = ["pin", "affinity", "keep"];
    for failing in calls {
        for (error, said) in [
            ("busy", "the domain is busy"),
            ("refused", "the host refuses the pin"),
        ] {
            let mut host = host(&format!(
                "{{host: {{cpus: 1}}, domains: [{{name: a}}, {{name: b}}], events: [{{at: 1, fail: {{call: {failing}, domain: b, error: {error}}}}}]}}"
            ));
            host.sample().expect("the baseline");
            for during in [true, false] {
                let sample = host.sample().expect("a tick");
                for domain in &sample.domains {
                    let key = key(domain, 0);
                    let results = [
                        host.pin(&key, &cpus("0")),
                        host.affinity(&key).map(drop),
                        host.keep(&key.domain_key(), None),
                    ];
                    for (call, result) in calls.into_iter().zip(results) {
                        let fails = during && call == failing && &*domain.name == "b";
                        let text = result.err().map(|error| error.to_string());
                        assert_eq!(
                            text.as_deref(),
                            fails.then_some(said),
                            "{call} of {}",
                            domain.name
                        );
                    }
                }
            }
        }
    }
}

/// Time and counters go on: the sample after the fault covers all of it.
#[test]
fn sample() {
    insta::assert_snapshot!(check("{call: sample, ticks: 2}", 4), @r#"
    1: at 1s, counters at 1s: 200ms; a pinned; b pinned; then 1s
    2: cannot read the simulated host: the scenario lets this fail; a pinned; b pinned; then 2s
    3: cannot read the simulated host: the scenario lets this fail; a pinned; b pinned; then 3s
    4: at 4s, counters at 4s: 800ms; a pinned; b pinned; then 4s
    "#);
}

#[test]
fn disconnect() {
    insta::assert_snapshot!(check("{call: disconnect}", 3), @r#"
    1: at 1s, counters at 1s: 200ms; a pinned; b pinned; then 1s
    2: cannot read the simulated host: the scenario has cut the connection; a cannot pin on the simulated host: the scenario has cut the connection; b cannot pin on the simulated host: the scenario has cut the connection; then 2s
    3: at 3s, counters at 3s: 600ms; a pinned; b pinned; then 3s
    "#);
}

/// Counters are read at the end of a call; pins use the time up to the next sample, which stays on the grid.
#[test]
fn slow() {
    insta::assert_snapshot!(check("{call: slow, ms: 200, ticks: 2}", 4), @r#"
    1: at 1s, counters at 1s: 200ms; a pinned; b pinned; then 1s
    2: at 2s, counters at 2.2s: 440ms; a pinned; b pinned; then 2.6s
    3: at 3s, counters at 3.2s: 640ms; a pinned; b pinned; then 3.6s
    4: at 4s, counters at 4s: 800ms; a pinned; b pinned; then 4s
    "#);
}

/// Calls that run over the next point of the grid skip it.
#[test]
fn slower_than_the_interval() {
    insta::assert_snapshot!(check("{call: slow, ms: 600}", 3), @r#"
    1: at 1s, counters at 1s: 200ms; a pinned; b pinned; then 1s
    2: at 2s, counters at 2.6s: 520ms; a pinned; b pinned; then 3.8s
    3: at 4s, counters at 4s: 800ms; a pinned; b pinned; then 4s
    "#);
}
