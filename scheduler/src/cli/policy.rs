//! From policies' names, plugins and options in the configuration to policies.

use std::time::Duration;

use tracing::warn;
use vcpu_policies::BuiltIn;
use vcpu_policy_api::options;

use super::Failure;
use crate::config::{Effective, LONGEST_DEADLINE, PolicyName, Sources, Time};
use crate::engine::MakePolicy;
use crate::engine::stop::Stop;
use crate::plugin::program;
use crate::plugin::registry::{Entry, Origin, Plugin, Registry};
use crate::plugin::supervised::Terms;
use crate::plugin::trust;

/// Where a host counts as balanced when the policy has no threshold of its own; percent of a pCPU.
const USUAL_THRESHOLD: f64 = 5.0;

/// How long plugins may take, and who takes over from one that fails; see [`Terms`].
#[derive(Debug)]
pub(super) struct Supervision {
    deadline: Duration,
    stop: Option<Stop>,
    fallback: &'static BuiltIn,
}

impl Supervision {
    /// For a daemon, where a decision has to fit into the interval.
    pub(super) fn of_daemon(effective: &Effective, stop: Option<Stop>) -> Self {
        Self {
            deadline: effective.decision_deadline(),
            stop,
            fallback: effective.fallback.get(),
        }
    }

    /// Where no interval passes while a plugin decides.
    pub(super) fn unhurried(effective: &Effective) -> Self {
        Self {
            deadline: effective.deadline.map_or(LONGEST_DEADLINE, Time::get),
            stop: None,
            fallback: effective.fallback.get(),
        }
    }
}

/// Every policy that there is to choose from.
pub(super) fn registry(effective: &Effective, supervision: Supervision) -> Result<Registry, Failure> {
    let named = effective.plugins.0.iter().map(|plugin| Plugin {
        path: plugin.path.get().to_owned(),
        sha256: plugin.sha256,
    });
    let mut plugins: Vec<Plugin> = named.collect();
    if let Some(folder) = &effective.plugin_directory {
        let files = trust::list(folder.get()).map_err(Failure::caller)?;
        plugins.extend(files.into_iter().map(Plugin::from));
    }
    let terms = Terms {
        program: program::find(),
        deadline: supervision.deadline,
        stop: supervision.stop,
        fallback: supervision.fallback,
    };
    Registry::new(&plugins, effective.isolation, terms).map_err(Failure::caller)
}

/// A policy that exists, with options that it accepts.
#[derive(Debug, Clone)]
pub(super) struct Chosen<'a> {
    registry: &'a Registry,
    pub(super) entry: &'a Entry,
    options: String,
}

impl<'a> Chosen<'a> {
    /// The policy of this configuration.
    pub(super) fn new(registry: &'a Registry, effective: &Effective) -> Result<Self, Failure> {
        let entry = registry
            .find(effective.policy.as_str())
            .map_err(Failure::caller)?;
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
            options: effective.options.text(),
        })
    }

    /// Several policies, each with those of the options that it has; an option that none has is refused by the first.
    pub(super) fn several(
        registry: &'a Registry,
        names: &[PolicyName],
        sources: &Sources,
    ) -> Result<Vec<Self>, Failure> {
        let entries = names
            .iter()
            .map(|name| registry.find(name.as_str()).map_err(Failure::caller));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let none_has = |key: &str| {
            !entries
                .iter()
                .any(|entry| options::has(&entry.offer.defaults, key))
        };
        let each = entries.iter().zip(names).map(|(entry, name)| {
            let has = |key: &str| none_has(key) || options::has(&entry.offer.defaults, key);
            let mut sources = sources.clone();
            sources.flags.policy = Some(name.clone());
            sources.flags.options = sources.flags.options.map(|options| options.only(has));
            let effective = sources.read().map_err(Failure::caller)?;
            Self::new(registry, &effective)
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
