//! The built-in policies by name.
//!
//! A new policy is added here, in one line; everything that lists, documents or builds policies goes by this table.

use std::fmt;

use thiserror::Error;
use vcpu_policy_api::options::{self, OptionsError, did_you_mean};
use vcpu_policy_api::policy::{Decide, Policy};

use crate::observe::Observe;
use crate::stddev::StdDev;

/// Every built-in policy, the default first.
pub const BUILT_IN: &[BuiltIn] = &[BuiltIn::of::<StdDev>(), BuiltIn::of::<Observe>()];

/// The policy of an operator who names none.
pub const DEFAULT: &str = StdDev::NAME;

/// What is known of a policy before there is one.
#[derive(Clone, Copy)]
pub struct BuiltIn {
    /// See [`Policy::NAME`].
    pub name: &'static str,
    /// See [`Policy::VERSION`].
    pub version: &'static str,
    /// See [`Policy::SUMMARY`].
    pub summary: &'static str,
    /// Its default options, one `key: value` line each; empty if it has none.
    pub defaults: fn() -> String,
    /// Makes one from the YAML text of its options; empty text means its defaults.
    pub build: fn(&str) -> Result<Box<dyn Decide>, OptionsError>,
}

impl BuiltIn {
    const fn of<P: Policy>() -> Self {
        Self {
            name: P::NAME,
            version: P::VERSION,
            summary: P::SUMMARY,
            defaults: options::defaults::<P>,
            build: options::build::<P>,
        }
    }
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// No built-in policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no built-in policy \"{name}\"{}; there are {}", did_you_mean(*.suggestion), .known.join(", "))]
pub struct UnknownPolicy {
    /// The name that was asked for.
    pub name: String,
    /// The known name that is most like it, if one is.
    pub suggestion: Option<&'static str>,
    /// All known names.
    pub known: Vec<&'static str>,
}

/// The built-in policy of this name.
///
/// # Errors
/// If there is none; the error names those there are.
pub fn find(name: &str) -> Result<&'static BuiltIn, UnknownPolicy> {
    BUILT_IN.iter().find(|policy| policy.name == name).ok_or_else(|| {
        let known: Vec<&str> = BUILT_IN.iter().map(|policy| policy.name).collect();
        UnknownPolicy {
            name: name.to_owned(),
            suggestion: options::closest(name, &known).copied(),
            known,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_found_by_its_name_and_built_from_its_own_defaults() {
        for policy in BUILT_IN {
            assert_eq!(find(policy.name).map(|found| found.name), Ok(policy.name));
            assert!(
                (policy.build)(&(policy.defaults)()).is_ok() && (policy.build)("").is_ok(),
                "{policy:?}"
            );
            assert!(!policy.summary.is_empty(), "{policy:?}");
        }
    }

    #[test]
    fn the_default_is_among_them() {
        assert_eq!(find(DEFAULT).map(|policy| policy.name), Ok("stddev"));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let answer = |name| find(name).expect_err("unknown").to_string();
        assert_eq!(
            answer("stdev"),
            "there is no built-in policy \"stdev\" (did you mean \"stddev\"?); there are stddev, observe"
        );
        assert_eq!(
            answer("random"),
            "there is no built-in policy \"random\"; there are stddev, observe"
        );
    }
}
