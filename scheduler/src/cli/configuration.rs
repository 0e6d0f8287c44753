//! The configuration of a daemon that runs, which may be read again.

use std::path::Path;

use tracing::{error, info, warn};

use super::Failure;
use super::policy::{Chosen, Supervision, registry};
use crate::config::{self, Effective, Sources, TakesHold};
use crate::engine::MakePolicy;
use crate::engine::daemon::{Renewal, Settings};
use crate::engine::stop::Stop;

/// The keys by which a policy is made.
const OF_THE_POLICY: [&str; 6] = [
    "policy.name",
    "policy.options",
    "plugins",
    "plugin-directory",
    "deadline",
    "fallback",
];

/// What is in force, and where it comes from.
pub(super) struct Configuration {
    sources: Sources,
    pub(super) effective: Effective,
    /// What the chosen policy says of itself.
    policy: String,
}

impl Configuration {
    pub(super) fn read(sources: Sources) -> Result<Self, Failure> {
        let effective = sources.read().map_err(Failure::caller)?;
        Ok(Self {
            sources,
            effective,
            policy: String::new(),
        })
    }

    /// Loads the plugins and finds the policy that was chosen.
    pub(super) fn make_policy(&mut self, stop: &Stop) -> Result<MakePolicy, Failure> {
        let (make_policy, policy) = chosen(&self.effective, stop)?;
        self.policy = policy;
        Ok(make_policy)
    }

    /// Says what is going to happen to the guests.
    pub(super) fn announce(&self, settings: Settings) {
        info!(
            uri = self.effective.connect.as_str(),
            interval = %humantime::format_duration(settings.interval),
            dry_run = settings.dry_run,
            "{}",
            self.policy
        );
    }

    pub(super) fn state_dir(&self) -> Option<&Path> {
        self.effective.state_dir.as_ref().map(config::AbsolutePath::get)
    }

    /// Reads the sources again; what is in force stays, and why is said, if they cannot be used.
    pub(super) fn renew(&mut self, settings: Settings, stop: &Stop) -> Option<Renewal> {
        match self.try_to_renew(settings, stop) {
            Ok(renewal) => Some(renewal),
            Err(Failure::World(error) | Failure::Caller(error)) => {
                error!("{error:#}; the configuration stays as it was");
                None
            }
        }
    }

    fn try_to_renew(&mut self, settings: Settings, stop: &Stop) -> Result<Renewal, Failure> {
        let mut new = self.sources.read().map_err(Failure::caller)?;
        let changed = config::changed(&self.effective, &new);
        let is_of_policy = |key: &&config::Key| OF_THE_POLICY.contains(&key.path);
        // Where plugins run changes with a restart alone.
        new.isolation = self.effective.isolation;
        let make_policy = if changed.iter().any(is_of_policy) {
            let (make_policy, policy) = chosen(&new, stop)?;
            info!("{policy}");
            self.policy = policy;
            Some(make_policy)
        } else {
            None
        };
        for key in changed
            .iter()
            .filter(|key| key.takes_hold == TakesHold::AtRestart)
        {
            warn!(
                key = key.path,
                "this change takes hold when the daemon is started again"
            );
        }
        let settings = Settings {
            interval: new.interval.get(),
            ..settings
        };
        let terms = new.terms(0);
        self.effective = new;
        Ok(Renewal {
            settings,
            terms,
            make_policy,
        })
    }
}

/// The policy that a configuration chooses, and what it says of itself.
fn chosen(effective: &Effective, stop: &Stop) -> Result<(MakePolicy, String), Failure> {
    let registry = registry(effective, Supervision::of_daemon(effective, Some(stop.clone())))?;
    let chosen = Chosen::new(&registry, effective)?;
    let offer = &chosen.entry.offer;
    let policy = format!("policy {} {}: {}", offer.name, offer.version, offer.summary);
    Ok((chosen.maker(), policy))
}
