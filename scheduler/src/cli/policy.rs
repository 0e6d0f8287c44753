//! From policies' names, plugins and options in the configuration to policies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tracing::warn;
use vcpu_policies::BuiltIn;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::options;
use vcpu_policy_api::policy::{Decide, PolicyError};

use super::Failure;
use crate::config::{self, Effective, LONGEST_DEADLINE, PolicyName, PolicyOptions, Time, Value};
use crate::engine::{Engine, MadePolicy, MakePolicy};
use crate::plugin::program;
use crate::plugin::registry::{Entry, Origin, Plugin, Registry};
use crate::plugin::supervised::Terms;
use crate::plugin::trust;
use crate::stop::Stop;

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

/// A policy that exists, with options.
#[derive(Debug, Clone)]
pub(super) struct Chosen<'a> {
    registry: &'a Registry,
    pub(super) entry: &'a Entry,
    options: PolicyOptions,
    /// The file that states options, to be named if they are refused.
    options_of: Option<PathBuf>,
}

impl<'a> Chosen<'a> {
    /// The policy of this configuration.
    pub(super) fn new(registry: &'a Registry, effective: &Effective) -> Result<Self, Failure> {
        let chosen = Self::of(registry, effective)?;
        warn_of_unused(registry, &[chosen.entry]);
        Ok(chosen)
    }

    fn of(registry: &'a Registry, effective: &Effective) -> Result<Self, Failure> {
        let found = registry.find(effective.policy.as_str());
        let entry =
            found.map_err(|error| refused(stating(effective, "policy.name"), "policy.name", error))?;
        Ok(Self {
            registry,
            entry,
            options: effective.options.clone(),
            options_of: stating(effective, "policy.options").map(Path::to_owned),
        })
    }

    /// Several policies, each with those of the options given that it has, over what the configuration says for it; an
    /// option that none has is refused by the first.
    pub(super) fn several(
        registry: &'a Registry,
        names: &[PolicyName],
        given: &PolicyOptions,
        effective: &Effective,
    ) -> Result<Vec<Self>, Failure> {
        let entries = names
            .iter()
            .map(|name| registry.find(name.as_str()).map_err(Failure::caller));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        warn_of_unused(registry, &entries);
        let none_has = |key: &str| {
            !entries
                .iter()
                .any(|entry| options::has(&entry.offer.defaults, key))
        };
        let each = entries.iter().zip(names).map(|(entry, name)| {
            let has = |key: &str| none_has(key) || options::has(&entry.offer.defaults, key);
            let mut of_this = effective.clone();
            let said = std::mem::take(&mut of_this.options);
            let said = if *name == effective.policy {
                said
            } else {
                PolicyOptions::default()
            };
            of_this.options = given.only(has).over(said);
            of_this.policy = name.clone();
            Self::of(registry, &of_this)
        });
        each.collect()
    }

    /// The policy itself.
    pub(super) fn make(&self) -> Result<Box<dyn Decide>, Failure> {
        self.maker()().map_err(|error| self.refused(error))
    }

    /// The policy, as one that can be made anew.
    pub(super) fn made(&self) -> Result<MadePolicy, Failure> {
        MadePolicy::new(self.maker()).map_err(|error| self.refused(error))
    }

    /// An engine with the policy.
    pub(super) fn engine(&self, terms: crate::engine::terms::Terms) -> Result<Engine, Failure> {
        Engine::new(self.maker(), terms).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: PolicyError) -> Failure {
        refused(self.options_of.as_deref(), "policy.options", error)
    }

    pub(super) fn name(&self) -> &'a str {
        &self.entry.offer.name
    }

    /// Makes the policy, as often as it is asked to.
    fn maker(&self) -> MakePolicy {
        self.registry.maker(self.entry, self.options.text())
    }

    /// The standard deviation up to which a host counts as balanced, percent of a pCPU.
    pub(super) fn threshold(&self) -> f64 {
        let stated = [self.options.text(), self.entry.offer.defaults.clone()]
            .iter()
            .find_map(|text| options::number(text, "threshold"));
        stated.unwrap_or(USUAL_THRESHOLD)
    }
}

/// Who names plugins and chooses built-in policies alone may have forgotten to choose.
fn warn_of_unused(registry: &Registry, chosen: &[&Entry]) {
    if chosen.iter().any(|entry| entry.origin != Origin::BuiltIn) {
        return;
    }
    let of_one_origin = registry.entries().chunk_by(|one, next| one.origin == next.origin);
    for policies in of_one_origin.filter(|policies| policies[0].origin != Origin::BuiltIn) {
        let plugin = &policies[0].origin;
        let names: Vec<String> = policies
            .iter()
            .map(|entry| format!("-p {}", entry.offer.name))
            .collect();
        let (names, choose) = match names.as_slice() {
            [name] => (name.clone(), "chooses its policy"),
            names => (names.join(", "), "choose its policies"),
        };
        warn!("the plugin {plugin} is loaded and not used: {names} {choose}");
    }
}

/// Whether the configuration can be on a host of these CPUs; see [`Effective::check_host`].
pub(super) fn check_host(effective: &Effective, cpus: &OsCpuSet) -> Result<(), Failure> {
    let refused = effective.check_host(cpus);
    let context = || match stating(effective, "host.reserved-cpus") {
        Some(file) => format!("cannot use the configuration {}", file.display()),
        None => "cannot use the configuration".to_owned(),
    };
    refused.with_context(context).map_err(Failure::Caller)
}

/// The file of the configuration, if it is what states this key.
fn stating<'a>(effective: &'a Effective, path: &str) -> Option<&'a Path> {
    let by_file = matches!(
        effective.origin(path),
        config::Origin::File | config::Origin::FlagAndFile
    );
    effective.file.as_deref().filter(|_| by_file)
}

/// A key that is in order, with a value that the policies do not accept.
fn refused(file: Option<&Path>, path: &str, error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    Failure::Caller(match file {
        Some(file) => error.context(format!("cannot use the configuration {}: {path}", file.display())),
        None => error,
    })
}
