//! Limits hold, whatever a policy asks for and whatever becomes of the pins.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::apply::apply;
use crate::engine::ledger::Ledger;
use crate::engine::terms::Limits;
use crate::host::{Host, VcpuKey};

const INTERVAL: u64 = 7;
const MINUTE: u64 = 60;

fn any_limits() -> impl Strategy<Value = Limits> {
    let per_tick = prop::option::of(0u32..5);
    let per_minute = prop::option::of(1u32..20);
    let cooldown = prop::sample::select(vec![0u64, 5, 30, 100]);
    (per_tick, per_minute, cooldown).prop_map(|(per_tick, per_minute, cooldown)| Limits {
        moves_per_tick: per_tick,
        moves_per_minute: per_minute.and_then(NonZeroU32::new),
        cooldown: Duration::from_secs(cooldown),
    })
}

/// A call that fails for some ticks.
fn any_fault() -> impl Strategy<Value = String> {
    let call = prop::sample::select(vec![
        "call: pin, domain: \"vm-[0-3]\", error: busy",
        "call: pin, domain: \"vm-[2-5]\", error: refused",
        "call: sample",
        "call: disconnect",
        "call: slow, ms: 900",
    ]);
    (1u32..30, call, 1u32..12)
        .prop_map(|(at, call, ticks)| format!("{{at: {at}, fail: {{{call}, ticks: {ticks}}}}}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn limits_hold(limits in any_limits(), faults in prop::collection::vec(any_fault(), 0..4)) {
        let text = format!(
            "{{host: {{cpus: 4}}, interval: {INTERVAL}s, domains: [{{name: vm, count: 6, load: 30}}], events: [{}]}}",
            faults.join(", ")
        );
        let scenario = Scenario::parse(&text, "limits", Path::new("")).expect("valid");
        let terms = Terms { limits, ..Terms::default() };
        let mut engine = Engine::new(make_wild(), terms).expect("made");
        let mut host = SimulatedHost::new(scenario);
        let mut ledger = Ledger::unkept();
        // By the time of the sample that each was decided on.
        let mut attempts: Vec<(Duration, VcpuKey)> = Vec::new();
        for _ in 0..40 {
            let Ok(sample) = host.sample() else {
                engine.interrupt();
                continue;
            };
            let terms = engine.terms().clone();
            ledger.observe(&sample, &terms);
            let Some(decision) = engine.decide(&sample, &ledger).expect("decided") else { continue };
            let accepted = &decision.verdict.accepted;
            let applied = apply(&mut host, &mut ledger, &decision.collected, accepted);
            let now = Duration::from_nanos(sample.read_at_ns);
            let tried = applied.pinned.iter().map(|pinned| pinned.key).chain(applied.failed.iter().map(|failed| failed.key));
            let tried: Vec<VcpuKey> = tried.collect();
            prop_assert!(limits.moves_per_tick.is_none_or(|limit| tried.len() <= limit as usize));
            attempts.extend(tried.into_iter().map(|key| (now, key)));
            engine.learn(&applied);
        }
        for (at, (time, key)) in attempts.iter().enumerate() {
            let of_minute = attempts[..=at].iter().filter(|(before, _)| time.saturating_sub(*before) < Duration::from_secs(MINUTE));
            let count = of_minute.count();
            prop_assert!(limits.moves_per_minute.is_none_or(|limit| count <= limit.get() as usize));
            let before = attempts[..at].iter().rev().find(|(_, other)| other == key);
            prop_assert!(before.is_none_or(|(before, _)| time.saturating_sub(*before) >= limits.cooldown));
        }
        prop_assert!(limits.moves_per_tick == Some(0) || !attempts.is_empty());
    }
}
