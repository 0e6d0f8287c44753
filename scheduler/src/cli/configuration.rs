//! The configuration of a daemon that runs, which may be read again.
//!
//! A file can be a pipe that nobody writes to, or lie on a server that does not answer: the wish to stop ends the wait for
//! it, and a daemon that runs does not wait long.

use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use crossbeam_channel::{after, bounded, never, select};
use tracing::{info, warn};

use super::Failure;
use super::policy::{Chosen, Supervision, check_host, registry};
use crate::config::{self, Effective, Sources, TakesHold};
use crate::engine::Engine;
use crate::engine::daemon::{Renewal, Settings};
use crate::engine::terms::Terms;
use crate::host::HostIdentity;
use crate::plugin::registry::Registry;
use crate::stop::Stop;

/// The keys by which a policy is made.
const OF_THE_POLICY: [&str; 6] = [
    "policy.name",
    "policy.options",
    "plugins",
    "plugin-directory",
    "deadline",
    "fallback",
];

/// How long a daemon that runs waits for its configuration; guests are not looked after meanwhile.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// What is in force, and where it comes from.
pub(super) struct Configuration {
    sources: Sources,
    pub(super) effective: Effective,
    /// What the chosen policy says of itself.
    policy: String,
    /// The host, once it is known.
    host: Option<HostIdentity>,
}

impl Configuration {
    /// Reads the sources, however long that takes; a wish to stop ends it with an error.
    pub(super) fn read(sources: Sources, stop: &Stop) -> Result<Self, Failure> {
        let effective = read(&sources, stop, None)?;
        Ok(Self {
            sources,
            effective,
            policy: String::new(),
            host: None,
        })
    }

    /// Checks that it can be in force on this host, which is known from now on, and says what is hardly meant for it.
    pub(super) fn meets(&mut self, host: &HostIdentity) -> Result<(), Failure> {
        self.host = Some(host.clone());
        self.check_cpus(&self.effective)?;
        say_doubts(&self.effective, Some(host));
        Ok(())
    }

    fn check_cpus(&self, effective: &Effective) -> Result<(), Failure> {
        match &self.host {
            Some(host) => check_host(effective, &host.cpus),
            None => Ok(()),
        }
    }

    /// Loads the plugins, and an engine with the policy that is chosen.
    pub(super) fn engine(&mut self, terms: Terms, stop: &Stop) -> Result<Engine, Failure> {
        let registry = load(&self.effective, stop)?;
        let chosen = Chosen::new(&registry, &self.effective)?;
        self.policy = introduction(&chosen);
        chosen.engine(terms)
    }

    /// Says what is going to happen to the guests.
    pub(super) fn announce(&self, settings: Settings) {
        info!(
            uri = self.effective.connect.as_str(),
            interval = %humantime::format_duration(settings.interval),
            config = self.effective.file.as_ref().map(|file| tracing::field::display(file.display())),
            dry_run = settings.dry_run,
            "{}",
            self.policy
        );
    }

    /// Reads the sources again; what is in force stays, and why is said, if they cannot be used.
    pub(super) fn renew(&mut self, settings: Settings, stop: &Stop) -> Option<Renewal> {
        match self.try_to_renew(settings, stop) {
            Ok(renewal) => Some(renewal),
            // Whatever it says, there will be no other tick.
            Err(_) if stop.is_requested() => None,
            Err(Failure::World(error) | Failure::Caller(error)) => {
                warn!("{error:#}; the configuration stays as it was");
                None
            }
        }
    }

    fn try_to_renew(&mut self, settings: Settings, stop: &Stop) -> Result<Renewal, Failure> {
        let mut new = read(&self.sources, stop, Some(LONGEST_READ))?;
        self.check_cpus(&new)?;
        let changed = config::changed(&self.effective, &new);
        let is_of_policy = |key: &&config::Key| OF_THE_POLICY.contains(&key.path);
        config::keep_until_restart(&self.effective, &mut new);
        // By default a plugin's deadline goes by the interval. A built-in policy has none, and would lose what it has learnt.
        let other_deadline = self.effective.decision_deadline() != new.decision_deadline()
            && vcpu_policies::find(new.policy.as_str()).is_err();
        let policy = if other_deadline || changed.iter().any(is_of_policy) {
            let registry = load(&new, stop)?;
            let chosen = Chosen::new(&registry, &new)?;
            // Whether it takes its options shows when it is made; until then the old one stays.
            let made = chosen.made()?;
            let introduction = introduction(&chosen);
            if introduction != self.policy {
                info!("{introduction}");
                self.policy = introduction;
            }
            Some(made)
        } else {
            None
        };
        let takes_hold = |key: &&config::Key| key.takes_hold == TakesHold::AtReload;
        let (now, later): (Vec<&config::Key>, Vec<&config::Key>) = changed.into_iter().partition(takes_hold);
        for key in later {
            warn!(
                key = key.path,
                "this change takes hold when the daemon is started again"
            );
        }
        say_doubts(&new, self.host.as_ref());
        let settings = Settings {
            interval: new.interval.get(),
            ..settings
        };
        let terms = new.terms(0);
        self.effective = new;
        Ok(Renewal {
            settings,
            terms,
            policy,
            changed: now.into_iter().map(|key| key.path).collect(),
        })
    }
}

/// Says what of a configuration cannot do what it says.
pub(super) fn say_doubts(effective: &Effective, host: Option<&HostIdentity>) {
    for doubt in effective.doubts(host) {
        warn!("in the configuration, {doubt}");
    }
}

/// Reads the sources, until there is a wish to stop or patience is at its end.
fn read(sources: &Sources, stop: &Stop, patience: Option<Duration>) -> Result<Effective, Failure> {
    let (sender, result) = bounded(1);
    let reader = sources.clone();
    // Left behind where reading does not end.
    thread::Builder::new()
        .name("configuration".to_owned())
        .spawn(move || {
            // Whoever waited may have given up.
            let _ = sender.send(reader.read());
        })
        .context("cannot start a thread")
        .map_err(Failure::world)?;
    let unread = |why: &str| {
        let file = sources
            .file
            .as_deref()
            .unwrap_or_else(|| std::path::Path::new(""));
        Failure::World(anyhow!("cannot read the configuration {}: {why}", file.display()))
    };
    select! {
        recv(result) -> effective => match effective {
            Ok(effective) => effective.map_err(Failure::caller),
            Err(_) => Err(unread("the reading of it broke off")),
        },
        recv(stop.channel()) -> _ => Err(unread("stopped meanwhile")),
        recv(patience.map_or_else(never, after)) -> _ => {
            let patience = humantime::format_duration(patience.unwrap_or_default());
            Err(unread(&format!("there was no end of it within {patience}")))
        }
    }
}

/// Every policy that a configuration gives to choose from.
fn load(effective: &Effective, stop: &Stop) -> Result<Registry, Failure> {
    registry(effective, Supervision::of_daemon(effective, Some(stop.clone())))
}

/// What a policy says of itself.
fn introduction(chosen: &Chosen<'_>) -> String {
    let offer = &chosen.entry.offer;
    format!("policy {} {}: {}", offer.name, offer.version, offer.summary)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A pipe that nobody writes to.
    fn endless() -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().expect("a folder");
        let file: PathBuf = folder.path().join("config.yaml");
        mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        (folder, sources)
    }

    fn why(failure: Failure) -> String {
        let (Failure::World(error) | Failure::Caller(error)) = failure;
        format!("{error:#}")
    }

    #[test]
    fn a_file_without_an_end_is_given_up() {
        let (_folder, sources) = endless();
        let (_stopper, stop) = Stop::new();
        let error = read(&sources, &stop, Some(Duration::from_millis(10))).expect_err("no end");
        assert!(why(error).contains("config.yaml: there was no end of it"));
    }

    #[test]
    fn a_wish_to_stop_ends_the_wait_for_a_file() {
        let (_folder, sources) = endless();
        let (stopper, stop) = Stop::new();
        drop(stopper);
        let error = Configuration::read(sources, &stop).err().expect("stopped");
        assert!(why(error).ends_with("stopped meanwhile"));
    }
}
