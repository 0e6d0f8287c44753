//! Files that are no plugins, and libraries whose tables are wrong: each is refused, and the reason is the right one.

use std::path::{Path, PathBuf};

use vcpu_scheduler::engine::daemon::chain;

use crate::harness::{compile, include, scratch, try_load};

/// Compiles a library of which `parts` is all that differs from one that works.
pub(crate) fn library(name: &str, parts: &str) -> PathBuf {
    let source = scratch().join(format!("{name}.c"));
    let whole = include_str!("broken/library.c");
    std::fs::write(&source, format!("{parts}\n{whole}")).expect("a source");
    compile(&source, &include(), name)
}

fn refused(path: &Path) -> String {
    chain(&try_load(path).expect_err("refused"))
}

fn check(name: &str, parts: &str, expected: &str) {
    let name = format!("broken-{name}");
    assert_eq!(
        refused(&library(&name, parts)),
        format!("{name}.so{expected}"),
        "{parts}"
    );
}

#[test]
fn the_library_that_the_others_differ_from_is_good() {
    let loaded = try_load(&library("broken-not", "")).expect("a good library");
    assert_eq!(
        loaded
            .policies()
            .map(|policy| policy.name().to_owned())
            .collect::<Vec<_>>(),
        ["still"]
    );
}

#[test]
fn wrong_tables_are_refused() {
    let unusable = " is not a usable policy plugin: ";
    check(
        "null",
        "#define TABLE NULL",
        &format!("{unusable}the library has no table of policies: it returned a null pointer"),
    );
    check(
        "magic",
        "#define MAGIC 42",
        &format!(
            "{unusable}what the library returned is not a table of policies (its magic number is wrong)"
        ),
    );
    check(
        "major",
        "#define MAJOR 2",
        &format!(
            "{unusable}the library speaks version 2 of the plugin interface, this program speaks version 1"
        ),
    );
    check(
        "library-size",
        "#define LIBRARY_SIZE 24",
        &format!("{unusable}the library's table has 24 bytes, less than the 32 of version 1"),
    );
    check(
        "none",
        "#define COUNT 0",
        &format!("{unusable}the library has no policies"),
    );
    check(
        "many",
        "#define COUNT 70000",
        &format!("{unusable}the library states 70000 policies; at most 64 are supported"),
    );
    check(
        "list",
        "#define POLICIES NULL",
        &format!("{unusable}the pointer to the library's policies is null or not aligned"),
    );
}

#[test]
fn wrong_policies_are_refused() {
    let unusable = " is not a usable policy plugin: policy 1 of the library: ";
    check(
        "policy",
        "#define POLICY NULL",
        &format!("{unusable}the pointer to its table is null or not aligned"),
    );
    check(
        "policy-size",
        "#define POLICY_SIZE 96",
        &format!("{unusable}its table has 96 bytes, less than the 104 of version 1"),
    );
    check(
        "create",
        "#define CREATE NULL",
        &format!("{unusable}its function create is a null pointer"),
    );
    check(
        "decide",
        "#define DECIDE NULL",
        &format!("{unusable}its function decide is a null pointer"),
    );
    check(
        "destroy",
        "#define DESTROY NULL",
        &format!("{unusable}its function destroy is a null pointer"),
    );
    check(
        "name",
        "#define NAME VCPU_TEXT(\"Still Life\")",
        &format!(
            "{unusable}its name is \"Still Life\"; expected lower-case letters, digits and dashes, first a letter"
        ),
    );
    check(
        "name-flag",
        "#define NAME VCPU_TEXT(\"-rf\")",
        &format!(
            "{unusable}its name is \"-rf\"; expected lower-case letters, digits and dashes, first a letter"
        ),
    );
    check(
        "name-null",
        "#define NAME {NULL, 5}",
        &format!("{unusable}its name is a null pointer or longer than 64 bytes"),
    );
    check(
        "name-long",
        "#define NAME {\"still\", UINT64_MAX}",
        &format!("{unusable}its name is a null pointer or longer than 64 bytes"),
    );
    check(
        "summary",
        "#define SUMMARY VCPU_TEXT(\"\\xff\")",
        &format!("{unusable}its summary is not UTF-8"),
    );
    check(
        "summary-lines",
        "#define SUMMARY VCPU_TEXT(\"a\\033[2J\")",
        &format!("{unusable}its summary is empty or has control characters; expected one line of text"),
    );
    check(
        "defaults-key",
        "#define DEFAULTS VCPU_TEXT(\"\\\"\\\\e[2J\\\": 7\")",
        &format!(
            "{unusable}its defaults: \"\\u{{1b}}[2J\" is no name of an option; expected text in one line, without \"=\""
        ),
    );
    check(
        "defaults",
        "#define DEFAULTS VCPU_TEXT(\"- 7\")",
        &format!("{unusable}its defaults: the options of policy still are not \"key: value\" pairs"),
    );
}

#[test]
fn the_same_name_twice_is_refused() {
    check(
        "twice",
        "#define COUNT 2\n#define POLICIES twice",
        " is not a usable policy plugin: policy 2 of the library: its name is \"still\", as that of an earlier one",
    );
}

#[test]
fn a_library_of_another_version_says_which() {
    check(
        "other-symbol",
        "#define vcpu_policy_library_v1 vcpu_policy_library_v3",
        " speaks version 3 of the plugin interface, this program speaks version 1",
    );
    check(
        "no-symbol",
        "#define vcpu_policy_library_v1 something_else",
        " is not a policy plugin: it does not export vcpu_policy_library_v1",
    );
}

#[test]
fn what_cannot_be_loaded_is_refused_in_the_loaders_words() {
    let source = scratch().join("broken-undefined.c");
    std::fs::write(
        &source,
        "void nowhere(void);\nvoid call(void);\nvoid call(void) { nowhere(); }\n",
    )
    .expect("a source");
    let said = refused(&compile(&source, &include(), "broken-undefined"));
    assert!(
        said.starts_with("broken-undefined.so cannot be loaded: "),
        "{said}"
    );
    assert!(said.contains("undefined symbol: nowhere"), "{said}");
}

#[test]
fn what_is_no_shared_object_is_refused_before_the_loader_sees_it() {
    let path = scratch().join("broken-text.so");
    for (content, said) in [
        ("", "broken-text.so is not a shared object (64-bit ELF)"),
        ("a policy", "broken-text.so is not a shared object (64-bit ELF)"),
        (
            "\x7fELF",
            "broken-text.so is truncated: the file ends before the shared object does",
        ),
    ] {
        std::fs::write(&path, content).expect("a file");
        assert_eq!(refused(&path), said);
    }
}

/// The loader would say that there is no such file.
#[test]
fn a_library_for_another_machine_is_refused() {
    let whole = std::fs::read(library("broken-machine", "")).expect("a library");
    let path = scratch().join("broken-foreign.so");
    // The byte order, and the machine's number.
    for (at, byte) in [(5, 3 - whole[5]), (18, 22)] {
        let mut foreign = whole.clone();
        foreign[at] = byte;
        std::fs::write(&path, foreign).expect("a file");
        assert_eq!(
            refused(&path),
            format!(
                "broken-foreign.so is a shared object for another kind of machine; this one is {}",
                std::env::consts::ARCH
            )
        );
    }
}

/// Cut off within what is loaded, the file is refused; the loader itself would let the first touch end the process.
#[test]
fn a_truncated_library_is_refused() {
    let whole = std::fs::read(library("broken-whole", "")).expect("a library");
    let path = scratch().join("broken-truncated.so");
    for length in [64, 100, 1000, 4096, whole.len() / 4, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).expect("a file");
        assert_eq!(
            refused(&path),
            "broken-truncated.so is truncated: the file ends before the shared object does",
            "{length} of {}",
            whole.len()
        );
    }
}
