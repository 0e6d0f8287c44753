//! What comes after a fault: a new process that knows that it is new, pauses, and in the end the fallback.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::Decide;
use vcpu_scheduler::engine::ledger::Ledger;
use vcpu_scheduler::engine::{Engine, MakePolicy, terms};
use vcpu_scheduler::host::Host;
use vcpu_scheduler::host::simulated::{Scenario, SimulatedHost};
use vcpu_scheduler::plugin::supervised::{IN_A_ROW, OF_LATE, Order, Supervised, inspect};
use vcpu_scheduler::stop::Stop;

use super::{PATIENT, compile, folder, sealed, supervised, terms, tick};

fn note(decisions: u64, fresh: bool) -> Vec<String> {
    vec![format!(
        "decision {decisions} since it was made, fresh {}",
        u8::from(fresh)
    )]
}

#[test]
fn a_fault_costs_one_tick_and_the_state_and_the_snapshot_says_so() {
    let mut policy = supervised("even", "abort", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    assert_eq!(tick(&mut policy, 1, &mut plan), Ok(note(1, true)));
    assert!(tick(&mut policy, 2, &mut plan).is_err());
    assert_eq!(tick(&mut policy, 3, &mut plan), Ok(note(1, true)));
    assert_eq!(tick(&mut policy, 5, &mut plan), Ok(note(2, false)));
}

/// The same in the loop that a real run goes through.
#[test]
fn the_engine_tells_a_restarted_policy_that_its_state_is_lost() {
    let library = sealed("even", "abort");
    let make: MakePolicy = Box::new(move || {
        let order = Order {
            library: library.clone(),
            policy: "faulty".to_owned(),
            options: String::new(),
        };
        Ok(Box::new(Supervised::new(order, Arc::new(terms(PATIENT)))?))
    });
    let scenario =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/scenarios/classic-1-all-on-one.yaml");
    let mut host = SimulatedHost::new(Scenario::read(&scenario).expect("a scenario"));
    let mut engine = Engine::new(make, terms::Terms::default()).expect("it is made without fault");
    let said: Vec<Option<String>> = (0..5)
        .map(|_| {
            let sample = host.sample().expect("a sample");
            let decision = engine.decide(&sample, &Ledger::unkept()).ok().flatten()?;
            decision.plan.notes().next().map(str::to_owned)
        })
        .collect();
    let expected = [(1, true), (1, true)].map(|(decisions, fresh)| note(decisions, fresh).pop());
    let [first, third] = expected;
    // A baseline, then every second tick is lost.
    assert_eq!(said, [None, first, None, third, None]);
}

#[test]
fn a_policy_that_cannot_decide_keeps_its_state() {
    let mut policy = supervised("even", "error", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    assert_eq!(tick(&mut policy, 1, &mut plan), Ok(note(1, true)));
    assert_eq!(
        tick(&mut policy, 2, &mut plan),
        Err("policy faulty of the plugin faulty.so could not decide: there is nothing to decide".to_owned())
    );
    assert_eq!(tick(&mut policy, 3, &mut plan), Ok(note(3, false)));
}

#[test]
fn a_policy_that_says_that_it_is_lost_is_made_anew() {
    let mut policy = supervised("even", "lost", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    assert_eq!(tick(&mut policy, 1, &mut plan), Ok(note(1, true)));
    assert_eq!(
        tick(&mut policy, 2, &mut plan),
        Err(
            "policy faulty of the plugin faulty.so failed and lost its state: it returned the code -2 and did not say why"
                .to_owned()
        )
    );
    assert_eq!(tick(&mut policy, 3, &mut plan), Ok(note(1, true)));
}

#[test]
fn faults_in_a_row_lead_to_pauses_and_then_to_the_fallback() {
    let mut policy = supervised("decide", "abort", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    let mut told = Vec::new();
    let fallback = (1..100).find_map(|number| match tick(&mut policy, number, &mut plan) {
        Ok(notes) => Some((number, notes)),
        Err(error) => {
            told.push(error);
            None
        }
    });
    let crashes = told.iter().filter(|error| error.contains("SIGABRT")).count();
    assert_eq!(crashes, IN_A_ROW as usize, "{told:#?}");
    assert_eq!(
        told.iter()
            .find(|error| error.contains("started again"))
            .map(String::as_str),
        Some(
            "policy faulty of the plugin faulty.so failed 2 times in a row and is started again in the next tick"
        )
    );
    let (number, notes) = fallback.unwrap_or_else(|| panic!("{told:#?}"));
    // 5 faults, and pauses of 0, 1, 2 and 4 ticks between them.
    assert_eq!(number, 13);
    assert!(notes[0].contains("only watches"), "{notes:?}");
    assert!(!policy.is_fresh());
}

#[test]
fn faults_between_decisions_lead_to_the_fallback_too() {
    let mut policy = supervised("even", "exit", PATIENT).expect("it is made without fault");
    let mut plan = Plan::new();
    let lost = (1..=40).filter(|&number| tick(&mut policy, number, &mut plan).is_err());
    assert_eq!(lost.count(), OF_LATE);
}

#[test]
fn options_that_are_refused_are_told_at_once() {
    let order = Order {
        library: sealed("never", ""),
        policy: "faulty".to_owned(),
        options: "limit: -1".to_owned(),
    };
    let refused = Supervised::new(order, Arc::new(terms(PATIENT))).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "policy faulty of the plugin faulty.so cannot be used: policy faulty does not accept its options: limit is below 0"
    );
}

#[test]
fn a_library_is_asked_what_it_offers() {
    let loaded = inspect(&sealed("never", ""), &terms(PATIENT)).expect("it loads");
    assert_eq!(loaded.offers.len(), 1);
    assert_eq!(loaded.offers[0].defaults, "limit: 3\n");
}

#[test]
fn a_stop_ends_the_wait_for_a_plugin() {
    let (stopper, stop) = Stop::new();
    let mut terms = terms(PATIENT);
    terms.stop = Some(stop);
    let order = Order {
        library: sealed("decide", "loop"),
        policy: "faulty".to_owned(),
        options: String::new(),
    };
    let mut policy = Supervised::new(order, Arc::new(terms)).expect("it is made without fault");
    drop(stopper);
    assert_eq!(
        tick(&mut policy, 1, &mut Plan::new()),
        Err("policy faulty of the plugin faulty.so was killed: the scheduler stops".to_owned())
    );
}

#[test]
fn a_program_that_is_not_there_is_not_the_plugins_fault() {
    let mut terms = terms(PATIENT);
    terms.program = "/nonexistent/vcpu-policy-host".into();
    let error = inspect(&sealed("never", ""), &terms).expect_err("no program");
    assert_eq!(
        error.to_string(),
        "cannot be started, by no fault of its own: /nonexistent/vcpu-policy-host"
    );
}

/// A scheduler that is killed cannot end its plugins any more; the kernel does, also one that does not listen.
#[test]
fn a_plugin_does_not_outlive_its_scheduler() {
    let folder = folder();
    let plugin = folder.path().join("faulty.so");
    compile(&plugin, "decide", "deaf loop");
    let mut scheduler = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"))
        .args(["decide", "-p", "faulty", "--deadline", "1h", "-", "--plugin"])
        .arg(&plugin)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = scheduler.stdin.take().expect("piped");
    input
        .write_all(b"interval: 1s\ntopology: {cpus: 2}\ndomains: []\n")
        .expect("written");
    drop(input);
    let pid = scheduler.id();
    let child = eventually(|| busy_child(pid));
    scheduler.kill().expect("it runs");
    scheduler.wait().expect("it ends");
    eventually(|| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
        // A zombie is nobody's process any more.
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}

/// The process of a plugin that is in its endless loop: the first process, which only says what the plugin offers, never
/// uses so much time.
pub(super) fn busy_child(parent: u32) -> Option<String> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?.to_owned();
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
    let user_ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(11)?.parse().ok()?;
    (user_ticks > 5).then_some(child)
}

/// A stop that comes while a plugin is loaded is not the plugin's fault, nor that of who named it.
#[test]
fn a_stop_while_a_plugin_loads_is_no_error() {
    let folder = folder();
    let plugin = folder.path().join("faulty.so");
    compile(&plugin, "load", "sleep");
    let mut scheduler = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"))
        .args(["run", "-p", "faulty", "--connect", "test:///default", "--plugin"])
        .arg(&plugin)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let pid = scheduler.id();
    // The plugin's process is there, and so are those who wait for signals.
    eventually(|| {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    });
    let pid = rustix::process::Pid::from_child(&scheduler);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let mut said = String::new();
    let mut stderr = scheduler.stderr.take().expect("piped");
    std::io::Read::read_to_string(&mut stderr, &mut said).expect("text");
    let status = scheduler.wait().expect("it ends");
    assert!(status.success() && !said.contains("error"), "{status}: {said}");
}

/// Waits for something, though not for ever.
pub(super) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENT, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
