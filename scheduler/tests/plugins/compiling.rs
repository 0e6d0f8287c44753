//! What an author's crate has to compile with, and what it must not compile with.

use std::process::{Command, Output};

use crate::harness::{cargo_build, scratch};

const POLICY: &str = r#"
    //! A policy as authors write it.
    #![warn(missing_docs, unreachable_pub)]
    use vcpu_policy_api::{plan::Plan, policy::{Policy, PolicyError}, snapshot::Snapshot};

    struct Still;

    impl Policy for Still {
        const NAME: &'static str = "still";
        const VERSION: &'static str = "1.0.0";
        const SUMMARY: &'static str = "never moves a vCPU";
        type Options = ();
        fn new(_: ()) -> Result<Self, PolicyError> { Ok(Self) }
        fn decide(&mut self, _: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
            plan.note("nothing moves");
            Ok(())
        }
    }

    vcpu_policy_api::export_policy!(Still);
"#;

/// Compiles the policy with more flags, up to what a later crate would need of it.
fn compile(flags: &[&str]) -> Output {
    let built = cargo_build(&["vcpu-policy-night"]);
    let api = built
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rlib"))
        .find(|file| file.to_string_lossy().contains("libvcpu_policy_api"))
        .expect("the library that policies depend on");
    let deps = api.parent().expect("a folder");
    let deps = if deps.ends_with("deps") {
        deps.to_owned()
    } else {
        deps.join("deps")
    };
    let name = flags.join("").replace(|c: char| !c.is_alphanumeric(), "");
    let source = scratch().join(format!("still-{name}.rs"));
    std::fs::write(&source, POLICY).expect("a source");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "--crate-name=still",
            "--emit=metadata",
            "-Dwarnings",
        ])
        .args(flags)
        .arg("--extern")
        .arg(format!("vcpu_policy_api={}", api.display()))
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--out-dir")
        .arg(scratch())
        .arg(source)
        .output()
        .expect("rustc")
}

#[test]
fn authors_need_no_unsafe() {
    for flags in [&[][..], &["-Dunsafe_code"], &["-Funsafe_code"]] {
        let output = compile(flags);
        assert!(
            output.status.success(),
            "{flags:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_policy_does_not_compile_where_panics_abort() {
    let output = compile(&["-Cpanic=abort"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("a policy needs panic = \"unwind\""),
        "{said}"
    );
}
