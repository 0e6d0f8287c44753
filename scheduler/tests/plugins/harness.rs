//! Building and loading libraries.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use vcpu_policy_api::policy::Decide;
use vcpu_scheduler::engine::daemon::chain;
use vcpu_scheduler::plugin::library::{LoadError, LoadedLibrary, PluginPolicy, load};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root")
}

/// Where the tests put what they build, until the next run.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Compiles a C library against a folder with a header, as the header tells authors to. Warnings are errors.
pub(crate) fn compile(source: &Path, include: &Path, name: &str) -> PathBuf {
    let library = scratch().join(format!("{name}.so"));
    let output = Command::new("cc")
        .args([
            "-std=c11",
            "-O2",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-I",
        ])
        .arg(include)
        .arg("-o")
        .args([&library, source])
        .output()
        .expect("a C compiler");
    assert!(
        output.status.success(),
        "{}:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    library
}

/// The folder with the header.
pub(crate) fn include() -> PathBuf {
    root().join("policy-api/include")
}

/// What cargo makes of the Rust libraries of the workspace, and of all that they depend on.
pub(crate) fn built() -> &'static [PathBuf] {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(root())
            .args(["build", "--locked", "--message-format=json"]);
        cargo.args([
            "--package",
            "vcpu-policy-night",
            "--package",
            "vcpu-policy-unruly",
        ]);
        let output = cargo.output().expect("cargo");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let messages = String::from_utf8(output.stdout).expect("text");
        let messages = messages
            .lines()
            .map(|line| serde_json::from_str(line).expect("a message"));
        let files = messages.flat_map(|message: serde_json::Value| {
            let files = message["filenames"].as_array().cloned().unwrap_or_default();
            files
                .into_iter()
                .filter_map(|file| file.as_str().map(PathBuf::from))
        });
        files.collect()
    })
}

/// The one of these files whose name begins and ends so.
pub(crate) fn built_file(begin: &str, end: &str) -> &'static Path {
    let is_it = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(begin) && name.ends_with(end)
    };
    let found = built().iter().find(is_it);
    found.unwrap_or_else(|| panic!("{begin}…{end} is not among {:?}", built()))
}

/// The file of a Rust library of the workspace.
pub(crate) fn rust_library(name: &str) -> &'static Path {
    built_file(&format!("lib{name}"), ".so")
}

/// Loads a library from a file.
pub(crate) fn try_load(path: &Path) -> Result<LoadedLibrary, LoadError> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    load(file.into(), Path::new(path.file_name().expect("a file")))
}

/// A policy of a library that has it.
pub(crate) fn policy(library: &Path, name: &str) -> PluginPolicy {
    let library = try_load(library).unwrap_or_else(|error| panic!("{}", chain(&error)));
    library
        .policies()
        .find(|policy| policy.name() == name)
        .expect("a policy of this name")
}

/// Makes a policy from options that it takes.
pub(crate) fn make(policy: &PluginPolicy, options: &str) -> Box<dyn Decide> {
    policy
        .make(options)
        .unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Why a policy does not take some options.
pub(crate) fn refusal(policy: &PluginPolicy, options: &str) -> String {
    chain(&policy.make(options).err().expect("refused"))
}
