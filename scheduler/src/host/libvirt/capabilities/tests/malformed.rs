//! Thousands of capabilities that are almost right: those of `testdata/hosts`, changed here and there.

#[path = "../../../../../tests/malformed/answers.rs"]
mod answers;
#[path = "../../../../../tests/malformed/mutants.rs"]
mod mutants;

use answers::{Reader, check};
use mutants::Originals;

use super::*;

/// How many inputs.
const INPUTS: u64 = 3000;

fn read(xml: &str) -> Result<(), String> {
    topology(xml, stated_map(xml).as_ref())
        .map(drop)
        .map_err(|error| answers::chain(&error))
}

/// By line, or by the number of a CPU or a cell; or the whole is at fault.
fn says_where(error: &str) -> bool {
    let whole = ["do not make a host", "have no <host>"];
    error.contains("line ")
        || error.contains("is listed twice")
        || error.contains("not well-formed XML")
        || whole.iter().any(|words| error.contains(words))
}

#[test]
fn answers_to_malformed_capabilities() {
    let reader = Reader {
        read,
        // What libvirt says is quoted in full; nobody but libvirt writes it.
        longest_error: usize::MAX,
        says_where,
    };
    let accepted = check(Originals::read(&folder(), "xml"), 0..INPUTS, reader);
    assert!(
        (INPUTS / 20..INPUTS / 2).contains(&accepted),
        "{accepted} are accepted"
    );
}
