//! The examples of `docs/plugins.md` do what the book says: they are compiled as they stand there, and decide what is
//! printed there.

use std::path::Path;
use std::process::{Command, Output};

use vcpu_policy_api::testing::{Host, decide_with, vcpu};
use vcpu_scheduler::plugin::conformance;

use crate::harness::{built_file, compile, include, make, policy, root, scratch};

/// The first block of a language in the book whose text contains `mark`.
fn block(language: &str, mark: &str) -> String {
    let book = std::fs::read_to_string(root().join("docs/plugins.md")).expect("the book");
    let begin = format!("```{language}\n");
    let mut blocks = book
        .split(&begin)
        .skip(1)
        .filter_map(|rest| rest.split_once("```"));
    let found = blocks.find(|(block, _)| block.contains(mark));
    found
        .unwrap_or_else(|| panic!("no {language} with {mark}"))
        .0
        .to_owned()
}

/// The book's policy in Rust.
fn in_rust() -> String {
    block("rust", "export_policy!(KeepFree)")
}

/// Compiles a policy in Rust as cargo would, with more flags.
fn compile_rust(policy: &str, flags: &[&str], library: &Path) -> Output {
    let api = built_file("libvcpu_policy_api", ".rlib");
    let folder = api.parent().expect("a folder");
    let dependencies = if folder.ends_with("deps") {
        folder.to_owned()
    } else {
        folder.join("deps")
    };
    let source = library.with_extension("rs");
    std::fs::write(&source, policy).expect("a source");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "--crate-name=keep_free",
            "-Dwarnings",
            "-Wmissing-docs",
        ])
        .args(flags)
        .arg("--extern")
        .arg(format!("vcpu_policy_api={}", api.display()))
        .arg("--extern")
        .arg(format!("serde={}", built_file("libserde-", ".rlib").display()))
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
        .arg("-o")
        .args([library, &source])
        .output()
        .expect("rustc")
}

fn check_decides_as_printed(library: &Path) {
    let policy = policy(library, "keep-free");
    assert_eq!(policy.defaults(), "cpu: 0\n");
    let host = Host::cpus(4).domain("web", [vcpu(80.0).on(0), vcpu(10.0).affinity("2-3")]);
    let decided = decide_with(&mut *make(&policy, ""), &host.snapshot());
    assert_eq!(decided, block("text", "is to be kept free"));
    assert_eq!(conformance::check(|| make(&policy, "")), []);
}

#[test]
fn the_policy_in_rust_decides_as_printed() {
    let library = scratch().join("keep_free_rust.so");
    let output = compile_rust(&in_rust(), &[], &library);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    check_decides_as_printed(&library);
}

#[test]
fn the_policy_in_c_decides_as_printed() {
    let source = scratch().join("keep_free_c.c");
    std::fs::write(&source, block("c", "keep-free")).expect("a source");
    check_decides_as_printed(&compile(&source, &include(), "keep_free_c"));
}

/// The example in Rust stands for itself once what it marks as the author's is changed.
#[test]
fn the_example_in_rust_can_be_copied_as_it_says() {
    let night = root().join("policy-api/examples/night");
    let manifest = std::fs::read_to_string(night.join("Cargo.toml")).expect("a manifest");
    let api = format!("\"{}\"", root().join("policy-api").display());
    let changed: Vec<String> = manifest
        .lines()
        .filter(|line| *line != "[lints]" && !line.starts_with("workspace = true # yours"))
        .map(|line| match line.split_once(" # yours") {
            Some((line, _)) => line
                .replace("vcpu-policy-night", "mine")
                .replace("\"../..\"", &api),
            None => line.to_owned(),
        })
        .collect();
    // Outside of the repository, where there is no workspace to look things up in.
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    std::fs::copy(night.join("src/lib.rs"), folder.path().join("src/lib.rs")).expect("copied");
    std::fs::write(folder.path().join("Cargo.toml"), changed.join("\n")).expect("written");
    let read = Command::new(env!("CARGO"))
        .current_dir(folder.path())
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&read.stdout).contains("\"name\":\"mine\""));
}

#[test]
fn authors_need_no_unsafe() {
    for (at, flag) in ["-Dunsafe_code", "-Funsafe_code"].into_iter().enumerate() {
        let output = compile_rust(
            &in_rust(),
            &["--emit=metadata", flag],
            &scratch().join(format!("keep_free_safe_{at}.rmeta")),
        );
        assert!(
            output.status.success(),
            "{flag}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_policy_does_not_compile_where_panics_abort() {
    let output = compile_rust(
        &in_rust(),
        &["--emit=metadata", "-Cpanic=abort"],
        &scratch().join("keep_free_abort.rmeta"),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("a policy needs panic = \"unwind\""),
        "{said}"
    );
}

#[test]
fn a_policy_does_not_compile_under_a_name_that_nobody_could_write() {
    let policy = in_rust().replace(
        "NAME: &'static str = \"keep-free\"",
        "NAME: &'static str = \"Keep Free\"",
    );
    let output = compile_rust(&policy, &[], &scratch().join("keep_free_misnamed.so"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("a policy's NAME has lower-case letters"),
        "{said}"
    );
}
