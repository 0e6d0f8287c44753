//! One vCPU's story a case, a word a step.

use super::*;

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a cpulist")
}

/// Tells a story about a vCPU on CPUs 0 to 3, which begins with the affinity `first`.
///
/// Steps: `intend C`, `ask`, `confirm C`, `withdraw`, `retract C`, `online C` (these are online from now on), `release`, and `see C`, to which
/// the finding is added. In the end the affinity that would be given back is told.
#[track_caller]
fn check(first: &str, steps: &str, expect: &str) {
    check_with(
        (ManualPins::Respect, InitialPins::Take),
        "0-3",
        first,
        steps,
        expect,
    );
}

#[track_caller]
fn check_with(
    (manual, initial): (ManualPins, InitialPins),
    inherited: &str,
    first: &str,
    steps: &str,
    expect: &str,
) {
    let mut online = cpus("0-3");
    let mut online_before = online.clone();
    let all_inherited = cpus(inherited);
    let inherited = |online: &OsCpuSet| {
        let mut inherited = all_inherited.clone();
        inherited.intersect(online.as_ref());
        inherited
    };
    let mut custody = {
        let inherited = inherited(&online);
        let scene = Scene {
            online: &online,
            online_before: &online,
            inherited: &inherited,
        };
        Custody::first_seen(&cpus(first), scene, initial)
    };
    let mut told = Vec::new();
    for step in steps.split(", ").filter(|step| !step.is_empty()) {
        let (word, list) = step.split_once(' ').unwrap_or((step, "0"));
        match word {
            "intend" => custody.intend(&cpus(list)),
            "ask" => custody.ask(),
            "confirm" => custody.confirm(&cpus(list)),
            "withdraw" => custody.withdraw(),
            "retract" => custody.retract(&cpus(list)),
            "online" => online = cpus(list),
            "release" => told.push(format!("release {}", custody.release())),
            "see" => {
                let inherited = inherited(&online);
                let scene = Scene {
                    online: &online,
                    online_before: &online_before,
                    inherited: &inherited,
                };
                let finding = custody.observe(&cpus(list), scene, manual);
                told.push(format!("{list} {finding:?}"));
                online_before.clone_from(&online);
            }
            other => panic!("no step {other:?}"),
        }
    }
    let inherited = inherited(&online);
    let scene = Scene {
        online: &online,
        online_before: &online,
        inherited: &inherited,
    };
    let hold = if custody.hold.is_some() { ", held" } else { "" };
    told.push(format!("gives back {}{hold}", custody.resolve(scene)));
    assert_eq!(told.join("; "), expect, "first {first}, {steps}");
}

#[test]
fn what_we_set_or_asked_for_is_ours() {
    check("0-3", "", "gives back 0-3");
    check(
        "0-1",
        "see 0-1, intend 2, confirm 2, see 2",
        "0-1 Unchanged; 2 Unchanged; gives back 0-1",
    );
    check(
        "0-3",
        "intend 2, ask, see 2, see 2",
        "2 Confirmed; 2 Unchanged; gives back 0-3",
    );
    // What was only intended is not on its way: whoever is seen to have it has it from another hand.
    check("0-3", "intend 2, see 2", "2 Taken; gives back 0-3, held");
    check(
        "0-3",
        "intend 2, ask, retract 2, see 0-3",
        "0-3 Unchanged; gives back 0-3",
    );
    // A call without an answer, then another one; the first comes about late.
    check(
        "0-3",
        "intend 2, ask, intend 1, ask, see 1, see 2",
        "1 Confirmed; 2 Confirmed; gives back 0-3",
    );
}

#[test]
fn what_another_hand_set_is_left_alone_until_the_original_is_back() {
    check(
        "0-3",
        "see 2, see 1, see 0-3",
        "2 Taken; 1 Unchanged; 0-3 Returned; gives back 0-3",
    );
    check(
        "0-3",
        "intend 2, confirm 2, see 1",
        "1 Taken; gives back 0-3, held",
    );
    check(
        "0-3",
        "intend 2, ask, retract 2, see 2",
        "2 Taken; gives back 0-3, held",
    );
    check(
        "0-1",
        "intend 2, confirm 2, see 0-1, see 2",
        "0-1 Returned; 2 Taken; gives back 0-1, held",
    );
    check(
        "0-3",
        "intend 2, confirm 2, see 1, release, see 1, intend 3, confirm 3, see 3",
        "1 Taken; release true; 1 Unchanged; 3 Unchanged; gives back 0-3",
    );
    check("0-3", "release", "release false; gives back 0-3");
}

#[test]
fn it_may_be_overridden_in_words() {
    let terms = (ManualPins::Override, InitialPins::Take);
    check_with(
        terms,
        "0-3",
        "0-3",
        "intend 2, confirm 2, see 1",
        "1 Overridden; gives back 0-3",
    );
}

#[test]
fn an_affinity_that_is_found_is_respected_if_so_wished() {
    let terms = (ManualPins::Respect, InitialPins::Respect);
    check_with(terms, "0-3", "0-3", "see 0-3", "0-3 Unchanged; gives back 0-3");
    check_with(
        terms,
        "0-3",
        "1",
        "see 1, see 2",
        "1 Unchanged; 2 Unchanged; gives back 1, held",
    );
    check_with(terms, "0-3", "1", "see 0-3", "0-3 Returned; gives back 1");
    check_with(
        terms,
        "0-3",
        "1",
        "release, intend 2, confirm 2, see 2",
        "release true; 2 Unchanged; gives back 1",
    );
    // What the definition says is not somebody's pin.
    check_with(terms, "0-1", "0-1", "see 0-1", "0-1 Unchanged; gives back 0-1");
}

#[test]
fn the_kernel_is_not_another_hand() {
    // The only CPU goes offline, and comes back: on some kernels with the old mask, on others without.
    let widened = "intend 2, confirm 2, see 2, online 0-1,3, see 0-1,3, online 0-3, ";
    check(
        "0-3",
        &format!("{widened}see 2"),
        "2 Unchanged; 0-1,3 Displaced; 2 Confirmed; gives back 0-3",
    );
    check(
        "0-3",
        &format!("{widened}see 0-1,3"),
        "2 Unchanged; 0-1,3 Displaced; 0-1,3 Unchanged; gives back 0-3",
    );
    check(
        "0-3",
        &format!("{widened}see 0-3"),
        "2 Unchanged; 0-1,3 Displaced; 0-3 Unchanged; gives back 0-3",
    );
    check(
        "0-3",
        &format!("{widened}see 1"),
        "2 Unchanged; 0-1,3 Displaced; 1 Taken; gives back 0-3, held",
    );
    // One of two goes offline: it is shown or not, and in the end taken out or not.
    let shrunk = "online 0-2, see 2, online 0-3, ";
    check(
        "2-3",
        &format!("{shrunk}see 2-3"),
        "2 Unchanged; 2-3 Unchanged; gives back 2-3",
    );
    check(
        "2-3",
        &format!("{shrunk}see 2, see 2"),
        "2 Unchanged; 2 Unchanged; 2 Unchanged; gives back 2-3",
    );
}

/// Someone has pinned it to a CPU that goes offline then: that the kernel lets it run anywhere gives nothing free.
#[test]
fn what_the_kernel_widens_is_left_alone_as_before() {
    let widened = "see 2, online 0-1,3, see 0-1,3, ";
    check(
        "0-3",
        &format!("{widened}see 0-1,3, online 0-3, see 2"),
        "2 Taken; 0-1,3 Unchanged; 0-1,3 Unchanged; 2 Unchanged; gives back 0-3, held",
    );
    // Of this nobody can say that it is not the original.
    check(
        "0-3",
        &format!("{widened}online 0-3, see 0-3"),
        "2 Taken; 0-1,3 Unchanged; 0-3 Returned; gives back 0-3",
    );
    check(
        "0-3",
        &format!("{widened}see 1, online 0-3, see 1, see 0-3"),
        "2 Taken; 0-1,3 Unchanged; 1 Unchanged; 1 Unchanged; 0-3 Returned; gives back 0-3",
    );
    check(
        "0-3",
        &format!("{widened}release, see 0-1,3, online 0-3, see 2"),
        "2 Taken; 0-1,3 Unchanged; release true; 0-1,3 Unchanged; 2 Confirmed; gives back 0-3",
    );
    let respected = (ManualPins::Respect, InitialPins::Respect);
    check_with(
        respected,
        "0-3",
        "2",
        "online 0-1,3, see 0-1,3, online 0-3, see 2",
        "0-1,3 Unchanged; 2 Unchanged; gives back 2, held",
    );
}

#[test]
fn what_is_given_back_can_be_run_on() {
    check(
        "3",
        "intend 1, confirm 1, online 0-2, see 1",
        "1 Unchanged; gives back 0-2",
    );
    check(
        "2-3",
        "intend 1, confirm 1, online 0-2, see 1",
        "1 Unchanged; gives back 2-3",
    );
    let terms = (ManualPins::Respect, InitialPins::Take);
    // All CPUs where the definition says less: that is an affinity of its own.
    check_with(
        terms,
        "0-1",
        "0-3",
        "intend 1, confirm 1, see 1",
        "1 Unchanged; gives back 0-3",
    );
}

#[test]
fn what_is_carried_is_the_original() {
    let kept = Kept {
        original: Original::Cpus(cpus("0-1")),
        hands_off: true,
    };
    let mut custody = Custody::carried(&kept);
    custody.meet(&cpus("3"));
    assert_eq!(custody.hold, Some(Hold::Manual(cpus("3"))));
    assert_eq!(custody.kept(), Some(kept));
}
