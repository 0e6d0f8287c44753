//! The built-in policies pass; each way to break a promise is found.

use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::CpuIx;
use vcpu_policy_api::snapshot::Snapshot;

use super::*;

#[test]
fn every_built_in_policy_conforms() {
    for policy in vcpu_policies::BUILT_IN {
        let violations = check(|| (policy.build)("").expect("defaults are good options"));
        assert_eq!(violations, [], "{policy:?}");
    }
}

/// A policy that is a function of the tick and of how many were made before it.
struct Rogue(u32, fn(u32, &Snapshot<'_>, &mut Plan) -> Result<(), PolicyError>);

impl Decide for Rogue {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        (self.1)(self.0, snapshot, plan)
    }
}

fn first_violation(rogue: fn(u32, &Snapshot<'_>, &mut Plan) -> Result<(), PolicyError>) -> String {
    let made = std::cell::Cell::new(0);
    let violations = check(|| {
        made.set(made.get() + 1);
        Box::new(Rogue(made.get(), rogue))
    });
    violations.first().expect("a violation").to_string()
}

#[test]
fn each_broken_promise_is_named() {
    assert_eq!(
        first_violation(|_, _, _| Ok(())),
        "one pCPU without a guest, tick 1: it neither moves anything nor says why"
    );
    let said = first_violation(|made, _, plan| {
        plan.note(made);
        Ok(())
    });
    let expected = "one pCPU without a guest, tick 1: not deterministic: on the same snapshots, one decides \"note: 1\", \
                    the other \"note: ";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(
        first_violation(|_, snapshot, plan| {
            plan.pin(VcpuIx(0), CpuSet::from_iter([CpuIx(1)]).as_ref(), "", 0.0);
            plan.note(snapshot.tick());
            Ok(())
        }),
        "one pCPU without a guest, tick 1: it asks for a pin that cannot be: unknown vCPU -> unknown CPUs: the \
         snapshot has no such vCPU"
    );
    assert_eq!(
        first_violation(|_, snapshot, plan| {
            assert!(snapshot.counts().2 > 0, "a host without a guest");
            plan.note("all is well");
            Ok(())
        }),
        "one pCPU without a guest, tick 1: it does not survive: a host without a guest"
    );
    assert_eq!(
        first_violation(|_, _, _| Err(PolicyError::lost("gave up"))),
        "one pCPU without a guest, tick 1: it does not survive: gave up"
    );
}

#[test]
fn a_policy_may_say_that_it_cannot_decide() {
    let violations = check(|| Box::new(Rogue(0, |_, _, _| Err(PolicyError::new("cannot")))));
    assert_eq!(violations, []);
}
