//! The flags that say what the configuration file can say too.
//!
//! What a flag means and what holds without it comes from the table of keys; none has a default of its own, which would win
//! over every file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::Failure;
use crate::config::{
    self, AbsolutePath, CallTimeout, Cooldown, Deadline, Fallback, IsolatedCpus, Layer, Moves, OnExit,
    PluginEntry, Plugins, PolicyName, PolicyOptions, ReservedCpus, Sources, StopTimeout, Text, TickInterval,
    Unsaid, Uri,
};
use crate::engine::terms::{InitialPins, ManualPins};
use crate::plugin::registry::Isolation;

/// The help of a flag that says the same as a key of the configuration file.
fn help(path: &str) -> String {
    let key = config::find(path).expect("the table has the key");
    let (Unsaid::Value(unsaid) | Unsaid::Rule(unsaid)) = key.unsaid;
    match unsaid {
        // Nothing is the default of what may be repeated.
        "[]" | "{}" => format!("{}; may be repeated", key.meaning),
        unsaid => format!("{} [default: {unsaid}]", key.meaning),
    }
}

/// A value as the configuration file has it.
pub(in crate::cli) fn text<T: Text>(text: &str) -> Result<T, String> {
    T::parse(text)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    /// Read the configuration from this file; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConnectArgs {
    #[arg(short, long, value_name = "URI", value_parser = text::<Uri>, help = help("connect"))]
    #[arg(long_help = format!("{}\n\nWithout the flag and a configuration that says so, the variable LIBVIRT_DEFAULT_URI holds.", help("connect")))]
    connect: Option<Uri>,
    #[arg(long, value_name = "TIME", value_parser = text::<CallTimeout>, help_heading = OPERATION, help = help("call-timeout"))]
    call_timeout: Option<CallTimeout>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyArgs {
    #[arg(short, long, value_name = "NAME", value_parser = text::<PolicyName>, help = help("policy.name"))]
    pub(in crate::cli) policy: Option<PolicyName>,
    #[command(flatten)]
    pub(in crate::cli) options: OptionArgs,
    #[command(flatten)]
    pub(in crate::cli) plugins: PluginArgs,
}

/// What flags about plugins stand under.
pub(super) const PLUGINS: &str = "Plugins";
/// What flags about guests and their placement stand under.
const PLACEMENT: &str = "Placement";
/// What flags about the end of the daemon and its troubles stand under.
const OPERATION: &str = "Operation";

/// Policies from outside.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct PluginArgs {
    #[arg(long = "plugin", value_name = "FILE", help_heading = PLUGINS, help = help("plugins"))]
    #[arg(long_help = format!("{}\n\nThe file and its folders must belong to root or to the user whom the scheduler runs as, and nobody else may have the right to write them.", help("plugins")))]
    pub(in crate::cli) files: Vec<PathBuf>,
    #[arg(long = "plugin-dir", value_name = "DIR", help_heading = PLUGINS, help = help("plugin-directory"))]
    pub(in crate::cli) folder: Option<PathBuf>,
    #[arg(long, value_enum, value_name = "WHERE", help_heading = PLUGINS, help = help("isolation"))]
    pub(in crate::cli) isolation: Option<Isolation>,
}

/// What happens to a plugin that decides badly.
#[derive(Debug, Args)]
pub(in crate::cli) struct SupervisionArgs {
    #[arg(long, value_name = "TIME", value_parser = text::<Deadline>, help_heading = PLUGINS, help = help("deadline"))]
    pub(in crate::cli) deadline: Option<Deadline>,
    #[arg(long, value_name = "NAME", value_parser = text::<Fallback>, help_heading = PLUGINS, help = help("fallback"))]
    pub(in crate::cli) fallback: Option<Fallback>,
}

/// What the daemon keeps to.
#[derive(Debug, Args)]
pub(in crate::cli) struct TermsArgs {
    #[arg(long, value_name = "CPUS", value_parser = text::<ReservedCpus>, help_heading = PLACEMENT, help = help("host.reserved-cpus"))]
    pub(in crate::cli) reserved_cpus: Option<ReservedCpus>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = PLACEMENT, help = help("host.isolated-cpus"))]
    pub(in crate::cli) isolated_cpus: Option<IsolatedCpus>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = PLACEMENT, help = help("manual-pins"))]
    pub(in crate::cli) manual_pins: Option<ManualPins>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = PLACEMENT, help = help("initial-pins"))]
    pub(in crate::cli) initial_pins: Option<InitialPins>,
    #[arg(long, value_name = "N", value_parser = text::<Moves>, help_heading = PLACEMENT, help = help("limits.moves-per-tick"))]
    pub(in crate::cli) moves_per_tick: Option<Moves>,
    #[arg(long, value_name = "N", value_parser = text::<Moves>, help_heading = PLACEMENT, help = help("limits.moves-per-minute"))]
    pub(in crate::cli) moves_per_minute: Option<Moves>,
    #[arg(long, value_name = "TIME", value_parser = text::<Cooldown>, help_heading = PLACEMENT, help = help("limits.cooldown"))]
    pub(in crate::cli) cooldown: Option<Cooldown>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = OPERATION, help = help("on-exit"))]
    pub(in crate::cli) on_exit: Option<OnExit>,
    #[arg(long, value_name = "TIME", value_parser = text::<StopTimeout>, help_heading = OPERATION, help = help("stop-timeout"))]
    pub(in crate::cli) stop_timeout: Option<StopTimeout>,
}

/// Which host, how it is reached, and where it is remembered what to give back.
#[derive(Debug, Args)]
pub(in crate::cli) struct HostArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[arg(long, value_name = "DIR", help_heading = OPERATION, help = help("state-dir"))]
    state_dir: Option<PathBuf>,
}

/// Everything that the configuration file can say, as far as flags can.
#[derive(Debug, Args)]
pub(in crate::cli) struct SettingsArgs {
    #[command(flatten)]
    pub(in crate::cli) host: HostArgs,
    #[command(flatten)]
    pub(in crate::cli) policy: PolicyArgs,
    #[arg(long, value_name = "TIME", value_parser = text::<TickInterval>, help = help("interval"))]
    pub(in crate::cli) interval: Option<TickInterval>,
    #[command(flatten)]
    pub(in crate::cli) supervision: SupervisionArgs,
    #[command(flatten)]
    pub(in crate::cli) terms: TermsArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OptionArgs {
    /// Set an option of the policy, such as threshold=8, in place of the configuration's; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(in crate::cli) pairs: Vec<(String, String)>,
}

impl SettingsArgs {
    /// Where the configuration comes from.
    pub(in crate::cli) fn sources(&self) -> Result<Sources, Failure> {
        let terms = &self.terms;
        let mut flags = Layer {
            interval: self.interval,
            reserved_cpus: terms.reserved_cpus.clone(),
            isolated_cpus: terms.isolated_cpus,
            manual_pins: terms.manual_pins,
            initial_pins: terms.initial_pins,
            moves_per_tick: terms.moves_per_tick,
            moves_per_minute: terms.moves_per_minute,
            cooldown: terms.cooldown,
            on_exit: terms.on_exit,
            stop_timeout: terms.stop_timeout,
            ..Layer::default()
        };
        self.policy.say(&mut flags)?;
        self.supervision.say(&mut flags);
        self.host.sources(flags)
    }
}

impl HostArgs {
    /// Where the configuration comes from; `flags` are the others.
    pub(in crate::cli) fn sources(&self, mut flags: Layer) -> Result<Sources, Failure> {
        self.connect.say(&mut flags);
        flags.state_dir = self.state_dir.as_deref().map(from_here).transpose()?;
        Sources::new(self.config.config.clone(), flags).map_err(Failure::caller)
    }
}

impl ConnectArgs {
    /// Where the connection of a command comes from that has no configuration.
    pub(in crate::cli) fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Layer::default();
        self.say(&mut flags);
        Sources::new(None, flags).map_err(Failure::caller)
    }

    fn say(&self, flags: &mut Layer) {
        flags.connect.clone_from(&self.connect);
        flags.call_timeout = self.call_timeout;
    }
}

impl PolicyArgs {
    pub(super) fn say(&self, flags: &mut Layer) -> Result<(), Failure> {
        flags.policy.clone_from(&self.policy);
        flags.options = (!self.options.pairs.is_empty()).then(|| self.options.given());
        self.plugins.say(flags)
    }
}

impl OptionArgs {
    /// The options.
    pub(in crate::cli) fn given(&self) -> PolicyOptions {
        PolicyOptions::from_pairs(&self.pairs)
    }
}

impl PluginArgs {
    /// Nothing but these.
    pub(in crate::cli) fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Layer::default();
        self.say(&mut flags)?;
        Ok(sources(None, flags))
    }

    pub(super) fn say(&self, flags: &mut Layer) -> Result<(), Failure> {
        let mut plugins: Vec<PluginEntry> = Vec::new();
        for file in &self.files {
            let path = from_here(file)?;
            if plugins.iter().all(|plugin| plugin.path != path) {
                plugins.push(PluginEntry { path, sha256: None });
            }
        }
        flags.plugins = (!plugins.is_empty()).then_some(Plugins(plugins));
        flags.plugin_directory = self.folder.as_deref().map(from_here).transpose()?;
        flags.isolation = self.isolation;
        Ok(())
    }
}

impl SupervisionArgs {
    pub(super) fn say(&self, flags: &mut Layer) {
        flags.deadline = self.deadline;
        flags.fallback = self.fallback;
    }
}

/// Where the configuration of a command comes from that makes no connection: the environment has no say in it.
pub(super) fn sources(file: Option<&Path>, flags: Layer) -> Sources {
    Sources {
        file: file.map(Path::to_owned),
        flags,
        ..Sources::default()
    }
}

fn from_here(path: &Path) -> Result<AbsolutePath, Failure> {
    AbsolutePath::from_here(path)
        .with_context(|| format!("cannot use the path \"{}\"", path.display()))
        .map_err(Failure::caller)
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as threshold=5".to_owned()),
    }
}
