//! What a library has to offer, however it is loaded.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use vcpu_policy_api::policy::{Decide, PolicyError};

use crate::error_text;
use crate::library::{self, PluginPolicy};

/// What is known of a policy before there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the operator writes behind `--policy`.
    pub name: String,
    /// The version of its behaviour.
    pub version: String,
    /// What it does to guests, in one sentence.
    pub summary: String,
    /// Its default options, one `key: value` line each; empty if it has none.
    pub defaults: String,
}

impl Offer {
    pub(crate) fn texts(&self) -> [&str; 4] {
        [&self.name, &self.version, &self.summary, &self.defaults]
    }
}

/// Makes a policy from the YAML text of its options; empty text means its defaults.
pub type Make = Arc<dyn Fn(&str) -> Result<Box<dyn Decide>, PolicyError> + Send + Sync>;

/// A policy of a loaded library.
#[derive(Clone)]
pub struct Offered {
    /// What is known of it.
    pub offer: Offer,
    /// Makes one.
    pub make: Make,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.offer.fmt(f)
    }
}

/// Loads a library from a descriptor and gives the policies it has; the path is for messages. The error's text is for
/// the operator.
pub type LoadLibrary = fn(OwnedFd, &Path) -> Result<Vec<Offered>, PolicyError>;

/// Loads a library as [`library::load`] does.
///
/// # Errors
/// If it cannot be loaded, or is not one of policies.
pub fn load(file: OwnedFd, name: &Path) -> Result<Vec<Offered>, PolicyError> {
    let library = library::load(file, name).map_err(|error| PolicyError::new(error_text(&error)))?;
    Ok(library.policies().map(offered).collect())
}

fn offered(policy: PluginPolicy) -> Offered {
    Offered {
        offer: Offer {
            name: policy.name().to_owned(),
            version: policy.version().to_owned(),
            summary: policy.summary().to_owned(),
            defaults: policy.defaults().to_owned(),
        },
        make: Arc::new(move |options| {
            policy
                .make(options)
                .map_err(|error| PolicyError::new(error_text(&error)))
        }),
    }
}
