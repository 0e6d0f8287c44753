//! From a policy's name and options on the command line to a policy.

use vcpu_policies::BuiltIn;
use vcpu_policy_api::options;
use vcpu_policy_api::policy::PolicyError;

use super::Failure;
use super::args::{OptionArgs, PolicyArgs};
use crate::engine::MakePolicy;
use crate::engine::daemon::chain;

/// Where a host counts as balanced when the policy has no threshold of its own; percent of a pCPU.
const USUAL_THRESHOLD: f64 = 5.0;

/// A policy that exists, with options that it accepts.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) built_in: &'static BuiltIn,
    options: String,
}

impl Chosen {
    pub(super) fn new(name: &str, given: &OptionArgs) -> Result<Self, Failure> {
        let built_in = vcpu_policies::find(name).map_err(Failure::caller)?;
        let options = options::from_pairs(
            given
                .pairs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        // Made once to see that the options are good.
        (built_in.build)(&options).map_err(Failure::caller)?;
        Ok(Self { built_in, options })
    }

    /// Several policies, each with those of the options that it has; an option that none has is refused by the first.
    pub(super) fn several(names: &[String], given: &OptionArgs) -> Result<Vec<Self>, Failure> {
        let built_in = names
            .iter()
            .map(|name| vcpu_policies::find(name).map_err(Failure::caller));
        let built_in = built_in.collect::<Result<Vec<_>, _>>()?;
        let has = |policy: &BuiltIn, key: &str| options::has(&(policy.defaults)(), key);
        let one_for_all = |key: &str| !built_in.iter().any(|policy| has(policy, key));
        let each = built_in.iter().map(|policy| {
            let pairs = given
                .pairs
                .iter()
                .filter(|(key, _)| one_for_all(key) || has(policy, key));
            Self::new(
                policy.name,
                &OptionArgs {
                    pairs: pairs.cloned().collect(),
                },
            )
        });
        each.collect()
    }

    pub(super) fn from_args(args: &PolicyArgs) -> Result<Self, Failure> {
        Self::new(&args.policy, &args.options)
    }

    pub(super) fn maker(&self) -> MakePolicy {
        let Self { built_in, options } = self.clone();
        Box::new(move || (built_in.build)(&options).map_err(|error| PolicyError::new(chain(&error))))
    }

    /// The standard deviation up to which a host counts as balanced, percent of a pCPU.
    pub(super) fn threshold(&self) -> f64 {
        let defaults = (self.built_in.defaults)();
        let stated = [self.options.as_str(), &defaults]
            .into_iter()
            .find_map(|text| options::number(text, "threshold"));
        stated.unwrap_or(USUAL_THRESHOLD)
    }
}
