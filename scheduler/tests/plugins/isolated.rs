//! The same libraries in a process of their own, which is how they run unless someone asks for less: files that are no
//! plugins are refused in the same words, and a panic costs its tick and nothing else.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::testing::Host;
use vcpu_scheduler::engine::daemon::chain;
use vcpu_scheduler::plugin::conformance;
use vcpu_scheduler::plugin::registry::{Isolation, Plugin, Registry, RegistryError};
use vcpu_scheduler::plugin::supervised::{IN_A_ROW, Order, Supervised, Terms};
use vcpu_scheduler::plugin::trust::{self, Sha256};

use crate::broken::library;
use crate::harness::{compile, include, root, rust_library, scratch};

fn terms() -> Terms {
    Terms {
        program: assert_cmd::cargo::cargo_bin!("vcpu-policy-host").to_owned(),
        // More than any machine needs: nothing here hangs.
        deadline: Duration::from_secs(30),
        stop: None,
        fallback: vcpu_policies::find("observe").expect("built in"),
    }
}

/// Does something with a copy of a file, in a folder that nobody else may write.
fn with_copy<T>(library: &Path, act: impl FnOnce(PathBuf) -> T) -> T {
    let private = Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().permissions(private).tempdir();
    let folder = folder.expect("a folder");
    let path = folder.path().join(library.file_name().expect("a name"));
    std::fs::write(&path, std::fs::read(library).expect("a library")).expect("written");
    // Whatever the umask: a file that a group may write is not loaded.
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("permitted");
    act(path)
}

fn registry_with(library: &Path, sha256: Option<Sha256>) -> Result<Registry, RegistryError> {
    let new = |path| Registry::new(&[Plugin { path, sha256 }], Isolation::Process, terms());
    with_copy(library, new)
}

fn registry(library: &Path) -> Result<Registry, RegistryError> {
    registry_with(library, None)
}

/// Why a file is refused, without the folder that it was in.
fn refused(library: &Path) -> String {
    let said = chain(&registry(library).expect_err("refused"));
    let name = library.file_name().expect("a name").to_str().expect("ASCII");
    let (_, rest) = said.split_once(name).unwrap_or_else(|| panic!("{said}"));
    format!("{name}{rest}")
}

#[test]
fn what_is_no_plugin_is_refused_in_the_same_words() {
    let unusable = "is not a usable policy plugin:";
    for (name, parts, expected) in [
        (
            "magic",
            "#define MAGIC 42",
            format!(
                "{unusable} what the library returned is not a table of policies (its magic number is wrong)"
            ),
        ),
        (
            "major",
            "#define MAJOR 2",
            format!(
                "{unusable} the library speaks version 2 of the plugin interface, this program speaks version 1"
            ),
        ),
        (
            "library-size",
            "#define LIBRARY_SIZE 24",
            format!("{unusable} the library's table has 24 bytes, less than the 32 of version 1"),
        ),
        (
            "policy-size",
            "#define POLICY_SIZE 96",
            format!(
                "{unusable} policy 1 of the library: its table has 96 bytes, less than the 104 of version 1"
            ),
        ),
        (
            "no-symbol",
            "#define vcpu_policy_library_v1 something_else",
            "is not a policy plugin: it does not export vcpu_policy_library_v1".to_owned(),
        ),
        (
            "other-symbol",
            "#define vcpu_policy_library_v1 vcpu_policy_library_v3",
            "speaks version 3 of the plugin interface, this program speaks version 1".to_owned(),
        ),
    ] {
        let name = format!("isolated-{name}");
        assert_eq!(refused(&library(&name, parts)), format!("{name}.so {expected}"));
    }
    let whole = std::fs::read(library("isolated-whole", "")).expect("a library");
    let path = scratch().join("isolated-file.so");
    for (content, expected) in [
        (&b"a policy"[..], "is not a shared object (64-bit ELF)"),
        (
            &whole[..whole.len() / 2],
            "is truncated: the file ends before the shared object does",
        ),
    ] {
        std::fs::write(&path, content).expect("written");
        assert_eq!(refused(&path), format!("isolated-file.so {expected}"));
    }
}

/// A pointer into nowhere in the table itself: the process dies of it, and the message says so.
#[test]
fn tables_of_garbage_end_their_process_alone() {
    for (name, parts) in [
        ("table", "#define TABLE (const struct vcpu_policy_library *)8"),
        (
            "policies",
            "#define POLICIES (const struct vcpu_policy *const *)8",
        ),
        ("texts", "#define SUMMARY {(const char *)8, 1024}"),
    ] {
        let name = format!("isolated-{name}");
        let said = chain(&registry(&library(&name, parts)).expect_err("refused"));
        assert!(
            said.ends_with(&format!(
                "{name}.so was killed by SIGSEGV (invalid memory access) while it was loaded"
            )),
            "{said}"
        );
    }
}

#[test]
fn a_hash_that_was_stated_is_looked_at_before_anything_is_loaded() {
    let good = library("isolated-hashed", "");
    let sealed = with_copy(&good, |path| trust::seal(&path, None));
    let hash = sealed.expect("in order").sha256();
    let other: Sha256 = "0".repeat(64).parse().expect("a hash");
    let with = |hash| registry_with(&good, Some(hash));
    assert!(with(hash).is_ok_and(|registry| registry.find("still").is_ok()));
    let said = chain(&with(other).expect_err("refused"));
    assert!(
        said.ends_with(&format!(
            "isolated-hashed.so has the SHA-256 hash {hash}, not {other}"
        )),
        "{said}"
    );
}

fn panics(options: &str) -> Result<Supervised, PolicyError> {
    let order = Order {
        library: with_copy(rust_library("vcpu_policy_unruly"), |path| {
            trust::seal(&path, None)
        })
        .expect("in order"),
        policy: "panics".to_owned(),
        options: options.to_owned(),
    };
    Supervised::new(order, Arc::new(terms()))
}

fn tick(policy: &mut dyn Decide, number: u64) -> Result<Vec<String>, String> {
    let mut plan = Plan::new();
    match policy.decide(&Host::cpus(1).tick(number).snapshot().view(), &mut plan) {
        Ok(()) => Ok(plan.notes().map(str::to_owned).collect()),
        Err(error) => Err(error.to_string()),
    }
}

const WHO: &str = "policy panics of the plugin libvcpu_policy_unruly.so";

#[test]
fn a_panic_in_decide_costs_its_tick_and_the_state() {
    let mut policy = panics("").expect("it is made");
    assert!(tick(&mut policy, 1).is_ok());
    assert!(!policy.is_fresh());
    let said = tick(&mut policy, 2).expect_err("it panics");
    let expected = format!("{WHO} failed and lost its state: it panicked: tick 2 was one too many, at ");
    assert!(said.starts_with(&expected), "{said}");
    assert!(policy.is_fresh());
    assert!(tick(&mut policy, 3).is_ok());
}

#[test]
fn a_panic_in_every_tick_ends_in_the_fallback() {
    let mut policy = panics("").expect("it is made");
    let told: Vec<String> = (1..13)
        .map(|_| tick(&mut policy, 2).expect_err("it panics"))
        .collect();
    let panicked = told.iter().filter(|told| told.contains("it panicked: "));
    assert_eq!(panicked.count(), IN_A_ROW as usize, "{told:#?}");
    let notes = tick(&mut policy, 2).expect("the fallback decides");
    assert!(notes[0].contains("only watches"), "{notes:?}");
}

#[test]
fn a_panic_while_it_is_made_or_ended_is_told_or_harmless() {
    let said = panics("in: new").expect_err("it panics").to_string();
    let expected = format!(
        "{WHO} cannot be used: policy panics does not accept its options: it panicked: there is no such policy, at "
    );
    assert!(said.starts_with(&expected), "{said}");
    let mut policy = panics("in: drop").expect("it is made");
    assert!(tick(&mut policy, 1).is_ok());
    drop(policy);
}

/// Every policy keeps its promises wherever it runs: the examples here, by the road that an operator takes.
#[test]
fn the_examples_conform_in_a_process_of_their_own() {
    let headroom = compile(
        &root().join("policy-api/examples/headroom.c"),
        &include(),
        "isolated-headroom",
    );
    for (library, name) in [
        (headroom.as_path(), "headroom"),
        (rust_library("vcpu_policy_night"), "night"),
    ] {
        let registry = registry(library).expect("a plugin");
        let entry = registry.find(name).expect("it is there");
        let make = registry.maker(entry, String::new());
        assert_eq!(conformance::check(|| make().expect("defaults")), [], "{name}");
    }
}
