//! The one table of policies: those built in, and those of the plugins that the operator named.
//!
//! A name stands for one policy. Two policies of a name are refused rather than one hidden behind the other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tracing::warn;
use vcpu_policies::{BUILT_IN, BuiltIn};
use vcpu_policy_api::options::{self, closest, did_you_mean};
use vcpu_policy_api::policy::{Decide, PolicyError, is_name};
use vcpu_policy_host::offer::{self, Make, Offer};

use super::fault::Fault;
use super::supervised::{Order, Supervised, Terms, inspect};
use super::trust::{self, SealedLibrary, Sha256, TrustError};
use crate::engine::MakePolicy;
use crate::engine::daemon::chain;

/// Where plugins run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each in a process of its own, without rights.
    Process,
    /// In the scheduler's own.
    InProcess,
}

/// A plugin to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The shared object.
    pub path: PathBuf,
    /// The hash that it must have; `None`: any.
    pub sha256: Option<Sha256>,
}

/// A plugin of whatever hash.
impl From<PathBuf> for Plugin {
    fn from(path: PathBuf) -> Self {
        Self { path, sha256: None }
    }
}

/// A policy that can be chosen.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What is known of it.
    pub offer: Offer,
    /// Where it comes from.
    pub origin: Origin,
    how: How,
}

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The scheduler itself.
    BuiltIn,
    /// A plugin, by its absolute path.
    Plugin(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::Plugin(path) => path.display().fmt(f),
        }
    }
}

/// How it is made.
#[derive(Clone)]
enum How {
    BuiltIn(&'static BuiltIn),
    Isolated(SealedLibrary),
    InProcess(Make),
}

impl fmt::Debug for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BuiltIn(_) => "built in",
            Self::Isolated(_) => "isolated",
            Self::InProcess(_) => "in process",
        })
    }
}

/// Every policy, the built-in ones first.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<Entry>,
    terms: Arc<Terms>,
}

/// Why there is no table.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// A file is not loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A plugin does not come as far as saying what it offers.
    #[error("the plugin {} {}", path.display(), chain(fault))]
    Fault {
        /// The plugin.
        path: PathBuf,
        /// What happened; it continues the sentence.
        fault: Fault,
    },
    /// A library cannot be loaded.
    #[error(transparent)]
    Load(PolicyError),
    /// A plugin offers a policy whose name could not be chosen.
    #[error(
        "the plugin {} names a policy \"{}\"; expected lower-case letters, digits and dashes, first a letter",
        path.display(), name.escape_debug()
    )]
    Name {
        /// The plugin.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A plugin offers a policy with options that could not be set.
    #[error("the plugin {} has a policy {name} whose default options are of no use: {problem}", path.display())]
    Defaults {
        /// The plugin.
        path: PathBuf,
        /// The policy.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A name is taken.
    #[error("there are two policies \"{name}\": one is {first}, the other is of the plugin {}", second.display())]
    Taken {
        /// The name.
        name: String,
        /// What came first.
        first: FirstOrigin,
        /// The plugin that came later.
        second: PathBuf,
    },
}

/// What had a name first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstOrigin(Origin);

impl fmt::Display for FirstOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::BuiltIn => f.write_str("built in"),
            Origin::Plugin(path) => write!(f, "of the plugin {}", path.display()),
        }
    }
}

/// No policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no policy \"{name}\"{}; there are {}", did_you_mean(.suggestion.as_deref()), .known.join(", "))]
pub struct UnknownPolicy {
    name: String,
    suggestion: Option<String>,
    known: Vec<String>,
}

impl Registry {
    /// The built-in policies and those of `plugins`, each of which is checked, loaded and asked what it offers.
    ///
    /// # Errors
    /// If a plugin may not be loaded, cannot be, or offers a name that is taken.
    pub fn new(plugins: &[Plugin], isolation: Isolation, terms: Terms) -> Result<Self, RegistryError> {
        let built_in = BUILT_IN.iter().map(|policy| Entry {
            offer: Offer {
                name: policy.name.to_owned(),
                version: policy.version.to_owned(),
                summary: policy.summary.to_owned(),
                defaults: (policy.defaults)(),
            },
            origin: Origin::BuiltIn,
            how: How::BuiltIn(policy),
        });
        let mut registry = Self {
            entries: built_in.collect(),
            terms: Arc::new(terms),
        };
        for plugin in plugins {
            let library = trust::seal(&plugin.path, plugin.sha256)?;
            if registry.has(library.path()) {
                continue;
            }
            let offered = match isolation {
                Isolation::Process => registry.isolated(&library)?,
                Isolation::InProcess => in_process(&library)?,
            };
            for (offer, how) in offered {
                registry.add(library.path(), offer, how)?;
            }
        }
        Ok(registry)
    }

    /// Every policy, the built-in ones first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The policy of this name.
    ///
    /// # Errors
    /// If there is none; the error names those there are.
    pub fn find(&self, name: &str) -> Result<&Entry, UnknownPolicy> {
        let found = self.entries.iter().find(|entry| entry.offer.name == name);
        found.ok_or_else(|| {
            let known: Vec<String> = self
                .entries
                .iter()
                .map(|entry| entry.offer.name.clone())
                .collect();
            UnknownPolicy {
                name: name.to_owned(),
                suggestion: closest(name, &known).cloned(),
                known,
            }
        })
    }

    /// Makes policies of an entry from these options; a plugin's process is started with each.
    pub fn maker(&self, entry: &Entry, options: String) -> MakePolicy {
        let terms = Arc::clone(&self.terms);
        let (how, policy) = (entry.how.clone(), entry.offer.name.clone());
        Box::new(move || match &how {
            How::BuiltIn(built_in) => {
                (built_in.build)(&options).map_err(|error| PolicyError::new(chain(&error)))
            }
            How::InProcess(make) => make(&options),
            How::Isolated(library) => {
                let order = Order {
                    library: library.clone(),
                    policy: policy.clone(),
                    options: options.clone(),
                };
                Ok(Box::new(Supervised::new(order, Arc::clone(&terms))?) as Box<dyn Decide>)
            }
        })
    }

    /// Whether a plugin was named before.
    fn has(&self, path: &Path) -> bool {
        let is_it = |entry: &Entry| matches!(&entry.origin, Origin::Plugin(plugin) if plugin == path);
        self.entries.iter().any(is_it)
    }

    fn isolated(&self, library: &SealedLibrary) -> Result<Vec<(Offer, How)>, RegistryError> {
        let loaded = inspect(library, &self.terms).map_err(|fault| match fault {
            // It names the plugin.
            Fault::Refused { message } => RegistryError::Load(PolicyError::new(message)),
            fault => RegistryError::Fault {
                path: library.path().to_owned(),
                fault,
            },
        })?;
        for missing in &loaded.missing {
            warn!(
                plugin = library.file_name(),
                "it is contained less than it should be: {missing}"
            );
        }
        let offers = loaded.offers.into_iter();
        Ok(offers
            .map(|offer| (offer, How::Isolated(library.clone())))
            .collect())
    }

    fn add(&mut self, path: &Path, offer: Offer, how: How) -> Result<(), RegistryError> {
        if !is_name(&offer.name) {
            return Err(RegistryError::Name {
                path: path.to_owned(),
                name: offer.name,
            });
        }
        if let Err(problem) = options::check_defaults(&offer.name, &offer.defaults) {
            return Err(RegistryError::Defaults {
                path: path.to_owned(),
                name: offer.name,
                problem,
            });
        }
        if let Ok(first) = self.find(&offer.name) {
            return Err(RegistryError::Taken {
                name: offer.name.clone(),
                first: FirstOrigin(first.origin.clone()),
                second: path.to_owned(),
            });
        }
        self.entries.push(Entry {
            offer,
            origin: Origin::Plugin(path.to_owned()),
            how,
        });
        Ok(())
    }
}

fn in_process(library: &SealedLibrary) -> Result<Vec<(Offer, How)>, RegistryError> {
    let memory = library.descriptor().map_err(|source| TrustError::Copy {
        path: library.path().to_owned(),
        source,
    })?;
    let offered = offer::load(memory, library.path()).map_err(RegistryError::Load)?;
    let policies = offered.into_iter();
    Ok(policies
        .map(|policy| (policy.offer, How::InProcess(policy.make)))
        .collect())
}
