//! Scenarios of `testdata/scenarios` as they go when an operator lays something down; how they go otherwise is in the
//! golden tables of the command line.

use std::convert::Infallible;
use std::fmt::Write;
use std::num::NonZeroU32;
use std::time::Duration;

use globset::Glob;

use super::*;
use crate::engine::constraints::{Constraints, DomainMatch, DomainRule};
use crate::engine::terms::Limits;
use crate::evaluate::simulation::{Setting, simulate};
use crate::host::Wish;

/// The pins of each tick, a line a tick.
fn check(name: &str, terms: Terms) -> String {
    let scenario = Scenario::read(&scenarios().join(format!("{name}.yaml"))).expect("valid");
    let setting = Setting {
        policy: "stddev".to_owned(),
        ticks: u64::from(scenario.ticks()),
        threshold: 5.0,
    };
    let terms = Terms {
        seed: scenario.seed(),
        ..terms
    };
    let policy = vcpu_policies::find("stddev").expect("there");
    let mut engine = Engine::new(make(policy), terms).expect("made");
    let mut table = String::new();
    let run = simulate(&mut SimulatedHost::new(scenario), &mut engine, &setting, |tick| {
        let stddev = tick.stddev.unwrap_or(f64::NAN);
        let pins = tick.pins.iter().map(|pin| {
            let from = pin.from.map_or_else(String::new, |from| from.to_string());
            format!("  {}/{} {from}->{}", pin.domain, pin.vcpu, pin.cpus)
        });
        let remarks = tick.remarks.iter().map(|remark| format!("  ! {remark}"));
        let happened: String = pins.chain(remarks).collect();
        writeln!(table, "{:>2} {stddev:>6.2}{happened}", tick.tick).expect("memory");
        Ok::<(), Infallible>(())
    });
    assert!(run.is_ok_and(|report| report.rejected == 0));
    table
}

fn limited(limits: Limits) -> Terms {
    Terms {
        limits,
        ..Terms::default()
    }
}

/// The guest in between is moved every fifth tick at most, though each third would ask for it.
#[test]
fn cooldown() {
    let limits = Limits {
        cooldown: Duration::from_secs(5),
        ..Limits::default()
    };
    insta::assert_snapshot!(check("cooldown", limited(limits)));
}

/// Two moves in each six ticks of ten seconds.
#[test]
fn rate() {
    let limits = Limits {
        moves_per_minute: NonZeroU32::new(2),
        ..Limits::default()
    };
    insta::assert_snapshot!(check("rate", limited(limits)));
}

/// Pins that fail are attempts as well: of the guests that are busy all the time, two are tried in each minute.
#[test]
fn failures_count() {
    let scenario = "{host: {cpus: 4}, interval: 10s, domains: [{name: vm, count: 8, pin: 0, load: 12}], events: [{at: 1, fail: {call: pin, ticks: 30}}]}";
    let scenario = Scenario::parse(scenario, "busy", Path::new("")).expect("valid");
    let terms = limited(Limits {
        moves_per_minute: NonZeroU32::new(2),
        ..Limits::default()
    });
    let policy = vcpu_policies::find("stddev").expect("there");
    let mut engine = Engine::new(make(policy), terms).expect("made");
    let setting = Setting {
        policy: "stddev".to_owned(),
        ticks: 14,
        threshold: 5.0,
    };
    let mut failed = Vec::new();
    let run = simulate(&mut SimulatedHost::new(scenario), &mut engine, &setting, |tick| {
        failed.push(tick.remarks.len());
        Ok::<(), Infallible>(())
    });
    assert!(run.is_ok_and(|report| report.pins == 0));
    assert_eq!(failed, [1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]);
}

/// CPU 1 is emptied of all but db and quiet, which nobody may move; CPUs 0 and 5 stay empty.
#[test]
fn rules() {
    let rule = |text: &str, name: &str, manage, cpus: Option<&str>| DomainRule {
        text: text.to_owned(),
        matches: DomainMatch::Name(Glob::new(name).expect("a glob").compile_matcher()),
        wish: Wish {
            manage,
            cpus: cpus.map(|list| list.parse().expect("a CPU list")),
        },
    };
    let constraints = Constraints {
        reserved: "0".parse().expect("a CPU list"),
        use_isolated: false,
        rules: vec![
            rule("match: \"db-*\", manage: false", "db-*", Some(false), None),
            rule(
                "match: \"web-[01]\", cpus: \"0-2\"",
                "web-[01]",
                None,
                Some("0-2"),
            ),
        ],
    };
    insta::assert_snapshot!(check(
        "rules",
        Terms {
            constraints: constraints.into(),
            ..Terms::default()
        }
    ));
}
