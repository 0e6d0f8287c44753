//! The configuration: what the operator says in a file, in flags and in the environment, and what follows from it.
//!
//! A flag wins over the file, the file over the environment (`LIBVIRT_DEFAULT_URI` alone), and all of them over what holds
//! when nothing is said. In go [`Sources`]; out comes an [`Effective`] configuration, complete and checked, or an error
//! that says where the mistake is: by line and column for a mistake in the form or in a single value, by the path of the
//! key (`domains[3].cpus`) for one that shows only in the light of the rest.
//!
//! [`Sources`] can be read again, as often as wished: whoever keeps the old [`Effective`] until a new one is there loses
//! nothing to a bad file. [`changed`] says what a new one changes, and [`TakesHold`] whether a running daemon can follow.
//!
//! Everything else is made from the one table of [`KEYS`]: the text that `check` prints ([`Effective::to_yaml`]), which
//! read again is the same configuration, and the JSON [`schema`](schema()) for editors.

mod cross_check;
mod domains;
mod doubts;
mod keys;
mod list;
mod pairs;
mod plugins;
mod policy_options;
mod print;
mod quantity;
mod schema;
mod value;
mod word;

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing::warn;
use vcpu_policy_api::yaml::{self, YamlError};

pub use self::domains::{DomainEntry, Domains, Match};
use self::keys::Layers;
pub use self::keys::{
    Effective, KEYS, Key, Layer, Origin, Origins, TakesHold, Unsaid, changed, find, keep_until_restart,
};
pub use self::plugins::{PluginEntry, Plugins};
pub use self::policy_options::PolicyOptions;
pub use self::quantity::{
    CallTimeout, Cooldown, Deadline, Moves, ReservedCpus, StopTimeout, TickInterval, Time,
};
pub use self::schema::schema;
pub use self::value::{AbsolutePath, Fallback, PolicyName, Text, Uri, Value};
pub use self::word::{IsolatedCpus, OnExit};
use crate::engine::constraints::Constraints;
use crate::engine::terms::{Limits, Terms};

/// The variable that names a connection, as for virsh.
pub const CONNECT_VARIABLE: &str = "LIBVIRT_DEFAULT_URI";

/// The most that is read of a file; a rule for each of ten thousand guests is a tenth of it.
const MOST_BYTES: u64 = 16 << 20;

/// How long a plugin may take for a decision at most, where nothing else is said.
pub const LONGEST_DEADLINE: Duration = Duration::from_secs(1);

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is not of the form of a configuration, or not with the rest of what is said.
    #[error("cannot use the configuration {}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ContentError,
    },
    /// A variable of the environment.
    #[error("the variable {name}: {problem}")]
    Environment {
        /// Its name.
        name: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// What is wrong with the content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContentError {
    /// It is no text.
    #[error("line {line}, column {column}: a byte that is not UTF-8; expected a text in UTF-8")]
    NotUtf8 {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It is far too long.
    #[error("the file is longer than {} MiB", MOST_BYTES >> 20)]
    TooLong,
    /// It is not of the form of a configuration.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A value that does not fit the rest.
    #[error("{path}: {problem}")]
    Value {
        /// The path of the key, as `domains[3].cpus`.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// What the flags say.
    pub flags: Layer,
    /// What the environment says.
    pub environment: Layer,
}

impl Sources {
    /// These flags, this file, and the environment of the process.
    ///
    /// # Errors
    /// If a variable holds what cannot be.
    pub fn new(file: Option<PathBuf>, flags: Layer) -> Result<Self, ConfigError> {
        let environment = environment(std::env::var_os(CONNECT_VARIABLE))?;
        Ok(Self {
            file,
            flags,
            environment,
        })
    }

    /// Reads the file, now, and says what is in force.
    ///
    /// # Errors
    /// If the file is not a configuration; see [`ConfigError`].
    pub fn read(&self) -> Result<Effective, ConfigError> {
        let Some(file) = &self.file else {
            return Ok(self.with(Layer::default()));
        };
        let content = |source| ConfigError::Content {
            file: file.clone(),
            source,
        };
        let bytes = read(file).map_err(|source| ConfigError::Read {
            file: file.clone(),
            source,
        })?;
        let layer = parse(&bytes).map_err(content)?;
        let mut effective = self.with(layer);
        effective.file = Some(file.clone());
        cross_check::check(&effective).map_err(content)?;
        Ok(effective)
    }

    /// What is in force when the file says this.
    fn with(&self, mut file: Layer) -> Effective {
        let mut flags = self.flags.clone();
        let named = |layer: &Layer| layer.policy.clone();
        let of_file = named(&file).unwrap_or_else(PolicyName::usual);
        if named(&flags).is_some_and(|policy| policy != of_file) {
            // They were meant for the policy that the file names.
            file.options = None;
        }
        for plugin in file.plugins.iter().flat_map(|plugins| &plugins.0) {
            // Named by both, it is loaded once, with the file's hash.
            if let Some(plugins) = &mut flags.plugins {
                plugins.0.retain(|again| again.path != plugin.path);
            }
        }
        let layers = Layers {
            flags,
            file,
            environment: self.environment.clone(),
        };
        layers.joined()
    }
}

/// What the environment says; a variable that is set to nothing counts as not set, as it does for virsh.
fn environment(uri: Option<OsString>) -> Result<Layer, ConfigError> {
    let uri = uri.filter(|uri| !uri.is_empty());
    let connect = uri.map(|uri| Uri::parse(&uri.to_string_lossy())).transpose();
    Ok(Layer {
        connect: connect.map_err(|problem| ConfigError::Environment {
            name: CONNECT_VARIABLE,
            problem,
        })?,
        ..Layer::default()
    })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file)?;
    let metadata = opened.metadata()?;
    if let Some(whom) = others_who_may_write(&metadata, rustix::process::geteuid().as_raw()) {
        warn!(
            "the configuration {} can be changed by {whom}, and so can what the daemon runs and connects to",
            file.display()
        );
    }
    opened.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Who may write a file beside root and this user; the group of an ordinary user is taken for their own.
fn others_who_may_write(file: &Metadata, user: u32) -> Option<String> {
    const BY_GROUP: u32 = 0o020;
    const BY_ANYONE: u32 = 0o002;
    match file.mode() {
        _ if !file.is_file() => None,
        mode if mode & BY_ANYONE != 0 => Some("anyone".to_owned()),
        mode if mode & BY_GROUP != 0 && user == 0 => Some(format!("group {}", file.gid())),
        _ if file.uid() != 0 && file.uid() != user => Some(format!("user {}", file.uid())),
        _ => None,
    }
}

/// Reads the content of a file.
///
/// # Errors
/// If it is not of the form of a configuration.
pub fn parse(bytes: &[u8]) -> Result<Layer, ContentError> {
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ContentError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        ContentError::NotUtf8 {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    })?;
    Ok(yaml::read(text)?)
}

impl Effective {
    /// Where the value of a key comes from.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).copied().unwrap_or(Origin::Default)
    }

    /// The folder that remembers what to give back, if it is stated.
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_ref().map(AbsolutePath::get)
    }

    /// How long a plugin may take for a decision.
    pub fn decision_deadline(&self) -> Duration {
        let usual = LONGEST_DEADLINE.min(self.interval.get() / 2);
        self.deadline.map_or(usual, Time::get)
    }

    /// What the engine has to keep to.
    pub fn terms(&self, seed: u64) -> Terms {
        Terms {
            seed,
            limits: self.limits(),
            constraints: Arc::new(self.constraints()),
            manual_pins: self.manual_pins,
            initial_pins: self.initial_pins,
        }
    }

    /// How much may be moved.
    pub fn limits(&self) -> Limits {
        Limits {
            moves_per_tick: self.moves_per_tick.get().map(u32::from),
            moves_per_minute: self.moves_per_minute.get(),
            cooldown: self.cooldown.get(),
        }
    }

    /// Where guests may be placed.
    pub fn constraints(&self) -> Constraints {
        Constraints {
            reserved: self.reserved_cpus.get().clone(),
            use_isolated: self.isolated_cpus == IsolatedCpus::Use,
            rules: self.domains.rules(),
        }
    }
}

#[cfg(test)]
mod tests;
