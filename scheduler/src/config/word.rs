//! Values of the configuration that are one of a few words.
//!
//! The words, and what each means, stand once: the file, the flags, `--help` and the JSON schema have them from here.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::json;
use vcpu_policy_api::options::{closest, did_you_mean};

use super::value::Text;
use crate::engine::terms::{InitialPins, ManualPins};
use crate::plugin::registry::Isolation;

/// What becomes of the pins when the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Every vCPU gets the affinity back that it had.
    Restore,
    /// They stay, for the next daemon to take over.
    Keep,
}

/// What becomes of CPUs that the kernel isolates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolatedCpus {
    /// No guest is placed on them.
    Avoid,
    /// They are CPUs like any other.
    Use,
}

/// States the words of a type, each with its meaning.
macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal: $meaning:literal;)+ }) => {
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self {
                    $(Self::$variant => PossibleValue::new($word).help($meaning)),+
                })
            }
        }

        impl Text for $type {
            fn expected() -> String {
                one_of(&[$($word),+])
            }

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(unknown(text, &[$($word),+])),
                }
            }

            fn text(&self) -> String {
                match self {
                    $(Self::$variant => $word.to_owned(),)+
                }
            }

            fn json_schema() -> serde_json::Value {
                json!({"enum": [$($word),+]})
            }
        }
    };
}

words!(Isolation {
    Process = "process": "Each in a process of its own, without rights: a crash or a hang costs one tick";
    InProcess = "in-process":
        "In the scheduler's own process, where nothing can be contained: a plugin that crashes, hangs or leaks takes the scheduler with it, and it may do whatever the scheduler may";
});

words!(OnExit {
    Restore = "restore": "Every vCPU gets the affinity back that it had";
    Keep = "keep": "They stay, for the next daemon to take over";
});

words!(IsolatedCpus {
    Avoid = "avoid": "No guest is placed on them";
    Use = "use": "They are CPUs like any other";
});

words!(ManualPins {
    Respect = "respect": "It is someone's decision: the vCPU is left alone until it is released";
    Override = "override": "It is a place like any other, from which the vCPU may be moved";
});

words!(InitialPins {
    Take = "take": "It is where the vCPU starts from, and is given back at the end";
    Respect = "respect": "It is someone's decision: the vCPU is left alone until it is released";
});

fn one_of(words: &[&str]) -> String {
    match words {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        words => words.concat(),
    }
}

fn unknown(text: &str, words: &[&str]) -> String {
    format!(
        "{text:?} is not possible here{}; expected {}",
        did_you_mean(closest(text, words).copied()),
        one_of(words)
    )
}
