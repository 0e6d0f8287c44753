//! From policies' names, plugins and options on the command line to policies.

use std::time::Duration;

use anyhow::Context;
use tracing::warn;
use vcpu_policies::BuiltIn;
use vcpu_policy_api::options;

use super::Failure;
use super::args::{IsolationArg, OptionArgs, PluginArgs, SupervisionArgs};
use crate::engine::MakePolicy;
use crate::engine::stop::Stop;
use crate::plugin::program;
use crate::plugin::registry::{Entry, Isolation, Origin, Registry};
use crate::plugin::supervised::Terms;
use crate::plugin::trust;

/// Where a host counts as balanced when the policy has no threshold of its own; percent of a pCPU.
const USUAL_THRESHOLD: f64 = 5.0;
/// How long a plugin may take for a decision at most, where nothing else is said.
pub(super) const LONGEST_DEADLINE: Duration = Duration::from_secs(1);

/// How long plugins may take, and who takes over from one that fails; see [`Terms`].
#[derive(Debug)]
pub(super) struct Supervision {
    deadline: Duration,
    stop: Option<Stop>,
    fallback: &'static BuiltIn,
}

impl Supervision {
    /// What the flags say; `usual` is the deadline where they say none.
    pub(super) fn new(args: &SupervisionArgs, usual: Duration, stop: Option<Stop>) -> Result<Self, Failure> {
        Ok(Self {
            deadline: args.deadline.unwrap_or(usual),
            stop,
            fallback: vcpu_policies::find(&args.fallback)
                .context("the fallback of a plugin has to be a built-in policy")
                .map_err(Failure::caller)?,
        })
    }

    /// For a single decision, which nobody takes over.
    pub(super) fn once(deadline: Duration) -> Self {
        Self {
            deadline,
            stop: None,
            fallback: &vcpu_policies::BUILT_IN[0],
        }
    }
}

/// Every policy that there is to choose from.
pub(super) fn registry(args: &PluginArgs, supervision: Supervision) -> Result<Registry, Failure> {
    let mut files = args.files.clone();
    if let Some(folder) = &args.folder {
        files.extend(trust::list(folder).map_err(Failure::caller)?);
    }
    let isolation = match args.isolation {
        IsolationArg::Process => Isolation::Process,
        IsolationArg::InProcess => Isolation::InProcess,
    };
    let terms = Terms {
        program: program::find(),
        deadline: supervision.deadline,
        stop: supervision.stop,
        fallback: supervision.fallback,
    };
    Registry::new(&files, isolation, terms).map_err(Failure::caller)
}

/// A policy that exists, with options that it accepts.
#[derive(Debug, Clone)]
pub(super) struct Chosen<'a> {
    registry: &'a Registry,
    pub(super) entry: &'a Entry,
    options: String,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(registry: &'a Registry, name: &str, given: &OptionArgs) -> Result<Self, Failure> {
        let entry = registry.find(name).map_err(Failure::caller)?;
        let pairs = given.pairs.iter();
        let options = options::from_pairs(pairs.map(|(key, value)| (key.as_str(), value.as_str())));
        if entry.origin == Origin::BuiltIn {
            for other in registry
                .entries()
                .iter()
                .filter(|other| other.origin != Origin::BuiltIn)
            {
                warn!(
                    "the plugin {} is loaded and not used: -p {} chooses its policy",
                    other.origin, other.offer.name
                );
            }
        }
        Ok(Self {
            registry,
            entry,
            options,
        })
    }

    /// Several policies, each with those of the options that it has; an option that none has is refused by the first.
    pub(super) fn several(
        registry: &'a Registry,
        names: &[String],
        given: &OptionArgs,
    ) -> Result<Vec<Self>, Failure> {
        let entries = names
            .iter()
            .map(|name| registry.find(name).map_err(Failure::caller));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let none_has = |key: &str| {
            !entries
                .iter()
                .any(|entry| options::has(&entry.offer.defaults, key))
        };
        let each = entries.iter().map(|entry| {
            let has = |key: &str| none_has(key) || options::has(&entry.offer.defaults, key);
            let pairs = given.pairs.iter().filter(|(key, _)| has(key)).cloned().collect();
            Self::new(registry, &entry.offer.name, &OptionArgs { pairs })
        });
        each.collect()
    }

    pub(super) fn name(&self) -> &'a str {
        &self.entry.offer.name
    }

    pub(super) fn maker(&self) -> MakePolicy {
        self.registry.maker(self.entry, self.options.clone())
    }

    /// The standard deviation up to which a host counts as balanced, percent of a pCPU.
    pub(super) fn threshold(&self) -> f64 {
        let stated = [&self.options, &self.entry.offer.defaults]
            .into_iter()
            .find_map(|text| options::number(text, "threshold"));
        stated.unwrap_or(USUAL_THRESHOLD)
    }
}
