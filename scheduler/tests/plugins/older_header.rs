//! A library that was compiled when rows were shorter reads the rows of today.

use vcpu_policy_api::testing::{Host, decide_with, vcpu};

use crate::harness::{compile, include, make, policy, root, scratch};

/// The header without the last fields of some rows, as if they had been added since.
fn older_header() -> String {
    let header = std::fs::read_to_string(include().join("vcpu_policy.h")).expect("the header");
    let mut older = header;
    for (row, field, size, without) in [
        ("vcpu_vcpu_row", "    double wait;\n", 56, 48),
        ("vcpu_domain_row", "    double weight;\n", 48, 40),
    ] {
        let name = field.trim().trim_start_matches("double ").trim_end_matches(';');
        let offset = format!("VCPU_ASSERT(offsetof(struct {row}, {name}) == {without});\n");
        let length = |size: i32| format!("VCPU_ASSERT(sizeof(struct {row}) == {size});\n");
        for (from, to) in [
            (field.to_owned(), String::new()),
            (offset, String::new()),
            (length(size), length(without)),
        ] {
            assert_eq!(
                older.matches(&from).count(),
                1,
                "{from} was not found once; the test has to follow the header"
            );
            older = older.replace(&from, &to);
        }
    }
    older
}

#[test]
fn a_library_compiled_against_shorter_rows_decides_the_same() {
    let folder = scratch().join("older");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("vcpu_policy.h"), older_header()).expect("a header");
    let source = root().join("policy-api/examples/headroom.c");
    let older = policy(&compile(&source, &folder, "headroom-older"), "headroom");
    let today = policy(&compile(&source, &include(), "headroom-today"), "headroom");
    let host = Host::uniform(2, 1, 2, 2)
        .domain("web", (0..6).map(|at| vcpu(30.0 + f64::from(at)).on(0)))
        .domain("db", (0..6).map(|at| vcpu(40.0 - f64::from(at)).on(4).wait(5.0)));
    let snapshot = host.snapshot();
    let decided = decide_with(&mut *make(&older, ""), &snapshot);
    assert_eq!(decided, decide_with(&mut *make(&today, ""), &snapshot));
    assert_eq!(decided.matches("\npin ").count(), 2, "{decided}");
}
