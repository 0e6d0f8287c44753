//! Domains that are not to be moved.

use super::*;
use crate::host::Wish;

/// A domain of one vCPU that asks to be left alone.
fn excluded(mask: &str) -> DomainSample {
    let wish = Wish {
        manage: Some(false),
        cpus: None,
    };
    DomainSample {
        definition: Arc::new(Definition {
            wish,
            ..Definition::default()
        }),
        ..domain("a", 1, "r", &[mask])
    }
}

/// Nothing is written into a guest that is to be left alone, and nobody is told how to have it moved again.
#[test]
fn of_a_domain_that_is_not_managed_nobody_is_told_who_pins_it() {
    let journal = Shared::default();
    let mut ledger = journal.ledger();
    for mask in ["0-3", "1", "2"] {
        assert_eq!(observe(&mut ledger, &[&excluded(mask)]).notices, []);
        assert!(ledger.stale().is_empty() && journal.ledger().records() == 0);
    }
    // Once it is managed, it has begun with what it has now.
    let key = vcpu(&excluded("2"), 0);
    observe(&mut ledger, &[&domain("a", 1, "r", &["2"])]);
    assert!(!ledger.holds(&key));
    assert_eq!(ledger.original(&key), Some(cpus("2")));
}

/// What was pinned before its domain was excluded is still ours to give back, and somebody else's pin still theirs.
#[test]
fn a_domain_that_comes_to_be_excluded_is_given_back_all_the_same() {
    let before = domain("a", 1, "r", &["0-3"]);
    let mut ledger = pinned(&Shared::default(), &before);
    let ours = excluded("2");
    observe(&mut ledger, &[&ours]);
    assert_eq!(gives_back(&ledger, &ours).as_deref(), Some("0-3"));
    let theirs = excluded("1");
    assert_eq!(
        observe(&mut ledger, &[&theirs]).notices[0].finding,
        Finding::Taken
    );
    assert_eq!(gives_back(&ledger, &theirs), None);
}
