//! A plan as bytes, on its way out of a plugin's process.
//!
//! Layout: the number of actions, each as vCPU, gain, CPU set and reason; then the number of notes, each as text.
//! Whoever wrote the bytes may have been taken over by the plugin, so the decoder believes nothing: every count is
//! bounded, every length is checked against what is there, and bytes left over are an error. What a plan *means* is
//! not looked at here; that is the verifier's.
//!
//! Promises: decoding never panics and never reserves more than the bytes that it was given allow; decoding what was
//! encoded gives the same plan, with control characters in texts replaced.

use thiserror::Error;
use vcpu_policy_api::cpuset::{CpuSetRef, MAX_OS_CPU};
use vcpu_policy_api::ids::VcpuIx;
use vcpu_policy_api::plan::{MAX_TEXT, Plan};

use crate::fields::{Fields, Malformed, printable, put_text, put_u32, put_u64};

/// How many actions a plan may have. A tick carries out a handful; this is room for one on every vCPU of any host.
pub const MAX_ACTIONS: usize = 65_536;
/// How many notes a plan may have.
pub const MAX_NOTES: usize = 4096;
/// How many bytes a plan may come to.
pub const MAX_PLAN_BYTES: usize = 16 << 20;
/// How many 64-bit words a CPU set may have: enough for any CPU number that the project accepts.
const MAX_SET_WORDS: usize = MAX_OS_CPU as usize / 64 + 1;

/// A plan is larger than any sensible one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the plan has {found} {what}; {most} at most are taken")]
pub struct PlanTooLarge {
    /// What there are too many of.
    what: &'static str,
    /// How many there are.
    found: usize,
    /// How many there may be.
    most: usize,
}

/// The bytes are not a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the bytes are not a plan within the limits")]
pub struct MalformedPlan;

impl From<Malformed> for MalformedPlan {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// Appends a plan to `bytes`.
///
/// # Errors
/// If the plan is too large; `bytes` is then as it was.
pub fn encode(plan: &Plan, bytes: &mut Vec<u8>) -> Result<(), PlanTooLarge> {
    let start = bytes.len();
    let (actions, notes) = (plan.actions(), plan.notes());
    let check = |what, found, most| {
        if found > most {
            Err(PlanTooLarge { what, found, most })
        } else {
            Ok(found)
        }
    };
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    put_u32(bytes, count(check("actions", actions.len(), MAX_ACTIONS)?));
    let mut written = Ok(());
    for action in actions {
        let words = action.cpus.words();
        written = written.and(check("words in a CPU set", words.len(), MAX_SET_WORDS).map(drop));
        put_u32(bytes, action.vcpu.0);
        put_u64(bytes, action.gain.to_bits());
        put_u32(bytes, count(words.len()));
        for &word in words {
            put_u64(bytes, word);
        }
        put_text(bytes, action.reason, MAX_TEXT);
    }
    written = written.and(check("notes", notes.len(), MAX_NOTES).map(drop));
    put_u32(bytes, count(notes.len()));
    for note in notes.take(MAX_NOTES) {
        put_text(bytes, note, MAX_TEXT);
    }
    let length = bytes.len() - start;
    written = written.and(check("bytes", length, MAX_PLAN_BYTES).map(drop));
    if written.is_err() {
        bytes.truncate(start);
    }
    written
}

/// Adds what `bytes` say to an empty `plan`.
///
/// # Errors
/// If the bytes are not a plan within the limits; `plan` is then empty.
pub fn decode(bytes: &[u8], plan: &mut Plan) -> Result<(), MalformedPlan> {
    plan.clear();
    let decoded = fill(bytes, plan);
    if decoded.is_err() {
        plan.clear();
    }
    decoded
}

fn fill(bytes: &[u8], plan: &mut Plan) -> Result<(), MalformedPlan> {
    if bytes.len() > MAX_PLAN_BYTES {
        return Err(MalformedPlan);
    }
    let mut fields = Fields::new(bytes);
    let mut words = Vec::new();
    for _ in 0..fields.count(MAX_ACTIONS)? {
        let vcpu = VcpuIx(fields.u32()?);
        let gain = f64::from_bits(fields.u64()?);
        let mut set = Fields::new({
            let length = fields.count(MAX_SET_WORDS)? * size_of::<u64>();
            fields.take(length)?
        });
        words.clear();
        while !set.is_empty() {
            words.push(set.u64()?);
        }
        let reason = fields.text(MAX_TEXT)?;
        plan.pin(vcpu, CpuSetRef::from_words(&words), printable(reason), gain);
    }
    for _ in 0..fields.count(MAX_NOTES)? {
        plan.note(printable(fields.text(MAX_TEXT)?));
    }
    if fields.is_empty() {
        Ok(())
    } else {
        Err(MalformedPlan)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vcpu_policy_api::cpuset::CpuSet;
    use vcpu_policy_api::ids::CpuIx;

    use super::*;

    /// A plan as plain values: vCPU, CPUs, reason, the bits of the gain; and the notes.
    type Plain = (Vec<(u32, Vec<u64>, String, u64)>, Vec<String>);

    fn values(plan: &Plan) -> Plain {
        let actions = plan.actions().map(|action| {
            let reason = action.reason.to_owned();
            (
                action.vcpu.0,
                action.cpus.words().to_vec(),
                reason,
                action.gain.to_bits(),
            )
        });
        (actions.collect(), plan.notes().map(str::to_owned).collect())
    }

    fn planned(values: &Plain) -> Plan {
        let mut plan = Plan::new();
        for (vcpu, words, reason, gain) in &values.0 {
            plan.pin(
                VcpuIx(*vcpu),
                CpuSetRef::from_words(words),
                reason,
                f64::from_bits(*gain),
            );
        }
        for note in &values.1 {
            plan.note(note);
        }
        plan
    }

    fn encoded(plan: &Plan) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(plan, &mut bytes).expect("within the limits");
        bytes
    }

    fn any_plan() -> impl Strategy<Value = Plain> {
        let words = prop::collection::vec(any::<u64>(), 0..4);
        let action = (any::<u32>(), words, "[^\\p{Cc}]{0,20}", any::<u64>());
        (
            prop::collection::vec(action, 0..8),
            prop::collection::vec("[^\\p{Cc}]{0,20}", 0..4),
        )
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(expected in any_plan()) {
            let mut plan = Plan::new();
            prop_assert_eq!(decode(&encoded(&planned(&expected)), &mut plan), Ok(()));
            prop_assert_eq!(values(&plan), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut plan = Plan::new();
            let decoded = decode(&bytes, &mut plan);
            prop_assert!(decoded.is_ok() || plan.actions().len() + plan.notes().len() == 0);
        }

        /// Whatever is decoded from mutated bytes is a plan within the limits, and is encoded again without complaint.
        #[test]
        fn mutated_bytes_give_a_plan_or_an_error(
            valid in any_plan(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encoded(&planned(&valid));
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let mut plan = Plan::new();
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                if decode(bytes, &mut plan).is_ok() {
                    prop_assert!(encode(&plan, &mut Vec::new()).is_ok());
                }
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut plan = Plan::new();
        for count in [u32::MAX, 65_537, 1] {
            assert_eq!(decode(&count.to_le_bytes(), &mut plan), Err(MalformedPlan));
        }
        let mut trailing = encoded(&plan);
        trailing.push(0);
        assert_eq!(decode(&trailing, &mut plan), Err(MalformedPlan));
    }

    #[test]
    fn a_plan_beyond_the_limits_is_not_encoded() {
        let cpus: CpuSet = [CpuIx(1)].into_iter().collect();
        let mut plan = Plan::new();
        for _ in 0..=MAX_ACTIONS {
            plan.pin(VcpuIx(0), cpus.as_ref(), "", 0.0);
        }
        let mut bytes = vec![7];
        let refused = encode(&plan, &mut bytes).expect_err("one too many");
        assert_eq!(
            refused.to_string(),
            "the plan has 65537 actions; 65536 at most are taken"
        );
        assert_eq!(bytes, [7]);
    }

    #[test]
    fn control_characters_do_not_reach_the_log() {
        let mut plan = Plan::new();
        plan.note("a\u{1b}[31m\nb");
        let bytes = encoded(&plan);
        decode(&bytes, &mut plan).expect("a plan");
        assert_eq!(plan.notes().collect::<Vec<_>>(), ["a\u{fffd}[31m b"]);
    }
}
