//! What `stddev` decides in each situation of `testdata/snapshots`, and how it reads.
//!
//! A case is a file there: its first line says what is expected and why, the table beside it
//! (`<case>@stddev.snap`) is what is decided. A new case is a new file.

use std::collections::BTreeSet;
use std::path::Path;

use vcpu_policies::{DEFAULT, find};
use vcpu_policy_api::testing::{decide_with, snapshot};

#[expect(
    clippy::disallowed_methods,
    reason = "the test reads its cases, the policy reads nothing"
)]
fn check(case: &Path) {
    let name = case.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    let text = std::fs::read_to_string(case).expect("a readable case");
    let expectation = text.lines().next().and_then(|line| line.strip_prefix("# "));
    let mut policy = (find(DEFAULT).expect("the default").build)("").expect("no options are good options");
    let decided = decide_with(&mut *policy, &snapshot(&text));

    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(case.parent().expect("a folder"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_suffix(DEFAULT);
    settings.set_description(expectation.expect("the first line says what is expected"));
    settings.set_omit_expression(true);
    settings.remove_input_file();
    settings.bind(|| insta::assert_snapshot!(name, decided));
}

#[test]
fn every_case_is_decided_as_recorded() {
    insta::glob!("../../testdata/snapshots", "*.yaml", check);
}

/// A table without its case is a leftover that nothing checks any more.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the cases are files, and their tables too"
)]
fn every_table_has_its_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/snapshots");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the cases")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    for table in files.iter().filter_map(|file| file.strip_suffix(".snap")) {
        let case = table.split_once('@').map_or(table, |(case, _)| case);
        assert!(
            files.contains(&format!("{case}.yaml")),
            "{table}.snap has no case"
        );
    }
}
