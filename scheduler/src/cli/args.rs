//! Every flag, with the text that `--help` shows.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::Failure;
use crate::config::{
    self, AbsolutePath, CallTimeout, Cooldown, Deadline, Fallback, IsolatedCpus, Layer, Moves, OnExit,
    PluginEntry, Plugins, PolicyName, PolicyOptions, ReservedCpus, Sources, StopTimeout, Text, TickInterval,
    Unsaid, Uri,
};
use crate::engine::terms::{InitialPins, ManualPins};
use crate::plugin::registry::Isolation;

use super::release::ReleaseArgs;
use super::restore::RestoreArgs;

/// Balances the vCPUs of a KVM/libvirt host's guests over its physical CPUs.
///
/// Exit status: 0 done; 1 the world failed (libvirt, a permission, I/O); 2 what was handed over is wrong (a flag, an
/// option, a file).
#[derive(Debug, Parser)]
#[command(name = "vcpu-scheduler", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub(super) logging: Logging,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon: measure, decide and pin, again and again
    ///
    /// Each interval it reads what every vCPU used, lets the policy decide, checks the plan, and pins. Pins are live
    /// only: no stored definition is changed. SIGINT or SIGTERM ends it.
    Run(RunArgs),
    /// Show what a policy does to a simulated host
    ///
    /// Nothing outside is touched. The last line says when the host was balanced and how many pins that took.
    Simulate(SimulateArgs),
    /// Write one snapshot of a host as YAML, ready to be decided on or to become a test case
    Snapshot(SnapshotArgs),
    /// Show what policies would do with a snapshot, and why
    Decide(DecideArgs),
    /// Give every vCPU back the affinity that it had before the scheduler pinned it
    ///
    /// For what a daemon left behind that was killed, that ran with --once, or whose time to put things in order was up. A
    /// vCPU that someone else has pinned since is left alone. Refuses while a daemon runs, whose end gives everything back.
    Restore(RestoreArgs),
    /// Let vCPUs be moved again that are left alone because someone else had pinned them
    ///
    /// Asks the daemon of the host if one runs, else it changes what the next one finds.
    Release(ReleaseArgs),
    /// List the policies that can be chosen: name, origin, version, options with their defaults
    Policies(PoliciesArgs),
    /// Check the configuration and print what is in force, for the host or for one domain
    ///
    /// Takes the file and the flags of `run`, loads the plugins, and checks the policy and its options. What is printed is a
    /// configuration file that gives the same; comments say where each value comes from. With a domain, it is what that
    /// configuration, the domain's definition and its metadata come to, read from libvirt.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct Logging {
    /// Say more: -v each tick, -vv each call
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(super) verbose: u8,
    /// Say only what needs attention: -q warnings and errors, -qq errors
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "verbose")]
    pub(super) quiet: u8,
    /// How log lines look on standard error; the variable `RUST_LOG`, if set, replaces -v and -q
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, global = true)]
    pub(super) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The help of a flag that says the same as a key of the configuration file.
pub(super) fn help(path: &str) -> String {
    let key = config::find(path).expect("the table has the key");
    let (Unsaid::Value(unsaid) | Unsaid::Rule(unsaid)) = key.unsaid;
    match unsaid {
        // Nothing is the default of what may be repeated.
        "[]" | "{}" => format!("{}; may be repeated", key.meaning),
        unsaid => format!("{} [default: {unsaid}]", key.meaning),
    }
}

/// A value as the configuration file has it.
pub(super) fn text<T: Text>(text: &str) -> Result<T, String> {
    T::parse(text)
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Read the configuration from this file; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    #[arg(short, long, value_name = "URI", value_parser = text::<Uri>, help = help("connect"))]
    #[arg(long_help = format!("{}\n\nWithout the flag and a configuration that says so, the variable LIBVIRT_DEFAULT_URI holds.", help("connect")))]
    pub(super) connect: Option<Uri>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[arg(short, long, value_name = "NAME", value_parser = text::<PolicyName>, help = help("policy.name"))]
    pub(super) policy: Option<PolicyName>,
    #[command(flatten)]
    pub(super) options: OptionArgs,
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
}

/// What flags about plugins stand under.
const PLUGINS: &str = "Plugins";
/// What flags about guests and their placement stand under.
const PLACEMENT: &str = "Placement";
/// What flags about the end of the daemon and its troubles stand under.
const OPERATION: &str = "Operation";

/// Policies from outside.
#[derive(Debug, Default, Args)]
pub(super) struct PluginArgs {
    #[arg(long = "plugin", value_name = "FILE", help_heading = PLUGINS, help = help("plugins"))]
    #[arg(long_help = format!("{}\n\nThe file and its folders must belong to root or to the user whom the scheduler runs as, and nobody else may have the right to write them.", help("plugins")))]
    pub(super) files: Vec<PathBuf>,
    #[arg(long = "plugin-dir", value_name = "DIR", help_heading = PLUGINS, help = help("plugin-directory"))]
    pub(super) folder: Option<PathBuf>,
    #[arg(long, value_enum, value_name = "WHERE", help_heading = PLUGINS, help = help("isolation"))]
    pub(super) isolation: Option<Isolation>,
}

/// What happens to a plugin that decides badly.
#[derive(Debug, Args)]
pub(super) struct SupervisionArgs {
    #[arg(long, value_name = "TIME", value_parser = text::<Deadline>, help_heading = PLUGINS, help = help("deadline"))]
    pub(super) deadline: Option<Deadline>,
    #[arg(long, value_name = "NAME", value_parser = text::<Fallback>, help_heading = PLUGINS, help = help("fallback"))]
    pub(super) fallback: Option<Fallback>,
}

/// What the daemon keeps to.
#[derive(Debug, Args)]
pub(super) struct TermsArgs {
    #[arg(long, value_name = "CPUS", value_parser = text::<ReservedCpus>, help_heading = PLACEMENT, help = help("host.reserved-cpus"))]
    pub(super) reserved_cpus: Option<ReservedCpus>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = PLACEMENT, help = help("host.isolated-cpus"))]
    pub(super) isolated_cpus: Option<IsolatedCpus>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = PLACEMENT, help = help("manual-pins"))]
    pub(super) manual_pins: Option<ManualPins>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = PLACEMENT, help = help("initial-pins"))]
    pub(super) initial_pins: Option<InitialPins>,
    #[arg(long, value_name = "N", value_parser = text::<Moves>, help_heading = PLACEMENT, help = help("limits.moves-per-tick"))]
    pub(super) moves_per_tick: Option<Moves>,
    #[arg(long, value_name = "N", value_parser = text::<Moves>, help_heading = PLACEMENT, help = help("limits.moves-per-minute"))]
    pub(super) moves_per_minute: Option<Moves>,
    #[arg(long, value_name = "TIME", value_parser = text::<Cooldown>, help_heading = PLACEMENT, help = help("limits.cooldown"))]
    pub(super) cooldown: Option<Cooldown>,
    #[arg(long, value_enum, value_name = "WHAT", help_heading = OPERATION, help = help("on-exit"))]
    pub(super) on_exit: Option<OnExit>,
    #[arg(long, value_name = "TIME", value_parser = text::<StopTimeout>, help_heading = OPERATION, help = help("stop-timeout"))]
    pub(super) stop_timeout: Option<StopTimeout>,
}

/// Which host, how it is reached, and where it is remembered what to give back.
#[derive(Debug, Args)]
pub(super) struct HostArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[arg(long, value_name = "TIME", value_parser = text::<CallTimeout>, help_heading = OPERATION, help = help("call-timeout"))]
    call_timeout: Option<CallTimeout>,
    #[arg(long, value_name = "DIR", help_heading = OPERATION, help = help("state-dir"))]
    state_dir: Option<PathBuf>,
}

/// Everything that the configuration file can say, as far as flags can.
#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    #[arg(long, value_name = "TIME", value_parser = text::<TickInterval>, help = help("interval"))]
    pub(super) interval: Option<TickInterval>,
    #[command(flatten)]
    pub(super) supervision: SupervisionArgs,
    #[command(flatten)]
    pub(super) terms: TermsArgs,
}

#[derive(Debug, Args)]
pub(super) struct PoliciesArgs {
    /// Hold the policies of this shared object against what every policy promises, instead of listing any
    ///
    /// Each decides on a number of hosts: it must decide the same each time, ask for nothing that cannot be, survive odd and
    /// large hosts, and say why nothing moves. A broken promise ends with exit status 2.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "folder", "format", "config"])]
    pub(super) check: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
}

#[derive(Debug, Args)]
pub(super) struct OptionArgs {
    /// Set an option of the policy, such as threshold=8, in place of the configuration's; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(super) pairs: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// Measure one interval, decide, pin, and exit
    #[arg(long)]
    pub(super) once: bool,
    /// Show what would be pinned and pin nothing; opens the connection read-only
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Show for this running domain, by name or UUID, where each vCPU may be pinned, and because of which rule
    #[arg(conflicts_with = "schema")]
    pub(super) domain: Option<String>,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// Print the JSON schema of the configuration file instead, for editors
    #[arg(long)]
    pub(super) schema: bool,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The scenario, a YAML file
    pub(super) scenario: PathBuf,
    /// Take policy, plugins, limits and rules for guests from this configuration file; without one, no limits hold
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    /// How many ticks to simulate [default: what the scenario says]
    #[arg(long, value_name = "N", value_parser = tick)]
    pub(super) ticks: Option<u64>,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) supervision: SupervisionArgs,
}

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// How long to measure, such as 5s or 500ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = text::<TickInterval>)]
    pub(super) interval: TickInterval,
    /// Take the snapshot of this simulated host instead; no connection is made
    #[arg(long, value_name = "SCENARIO")]
    pub(super) scenario: Option<PathBuf>,
    /// The tick of the scenario to take it at, with nothing pinned before [default: 1]
    #[arg(long, value_name = "N", requires = "scenario", value_parser = tick)]
    pub(super) tick: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct DecideArgs {
    /// The snapshot, a YAML file; - for standard input
    pub(super) snapshot: PathBuf,
    /// The policy that decides [default: stddev]; may be repeated, and -o then goes to those that have the option
    #[arg(short, long = "policy", value_name = "NAME", value_parser = text::<PolicyName>)]
    pub(super) policies: Vec<PolicyName>,
    /// Take policy, plugins, limits and rules for guests from this configuration file; without one, no limits hold
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) options: OptionArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
    /// How long a plugin may take for its decision, such as 200ms, before it is killed [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = text::<Deadline>, help_heading = PLUGINS)]
    pub(super) deadline: Option<Deadline>,
}

#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For scripts
    Json,
}

/// As many as a scenario file may speak of.
const MOST_TICKS: u64 = 1_000_000;

fn tick(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number @ 1..=MOST_TICKS) => Ok(number),
        _ => Err(format!("expected a whole number from 1 to {MOST_TICKS}")),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as threshold=5".to_owned()),
    }
}

impl SettingsArgs {
    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> Result<Sources, Failure> {
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
    pub(super) fn sources(&self, mut flags: Layer) -> Result<Sources, Failure> {
        flags.connect.clone_from(&self.connect.connect);
        flags.call_timeout = self.call_timeout;
        flags.state_dir = self.state_dir.as_deref().map(from_here).transpose()?;
        sources(self.config.config.as_deref(), flags)
    }
}

impl SimulateArgs {
    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Layer::default();
        self.policy.say(&mut flags)?;
        self.supervision.say(&mut flags);
        sources(self.config.as_deref(), flags)
    }
}

impl DecideArgs {
    /// Where the configuration comes from, without policies and their options: there may be several.
    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Layer {
            deadline: self.deadline,
            ..Layer::default()
        };
        self.plugins.say(&mut flags)?;
        sources(self.config.as_deref(), flags)
    }
}

impl PoliciesArgs {
    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        let mut sources = self.plugins.sources()?;
        sources.file.clone_from(&self.config.config);
        Ok(sources)
    }
}

impl ConnectArgs {
    /// The connection of a command that has no configuration.
    pub(super) fn uri(&self) -> Result<Uri, Failure> {
        let flags = Layer {
            connect: self.connect.clone(),
            ..Layer::default()
        };
        let effective = sources(None, flags)?.read().map_err(Failure::caller)?;
        Ok(effective.connect)
    }
}

impl PolicyArgs {
    fn say(&self, flags: &mut Layer) -> Result<(), Failure> {
        flags.policy.clone_from(&self.policy);
        flags.options = (!self.options.pairs.is_empty()).then(|| self.options.given());
        self.plugins.say(flags)
    }
}

impl OptionArgs {
    /// The options.
    pub(super) fn given(&self) -> PolicyOptions {
        PolicyOptions::from_pairs(&self.pairs)
    }
}

impl PluginArgs {
    /// Nothing but these.
    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Layer::default();
        self.say(&mut flags)?;
        sources(None, flags)
    }

    fn say(&self, flags: &mut Layer) -> Result<(), Failure> {
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
    fn say(&self, flags: &mut Layer) {
        flags.deadline = self.deadline;
        flags.fallback = self.fallback;
    }
}

fn sources(file: Option<&Path>, flags: Layer) -> Result<Sources, Failure> {
    Sources::new(file.map(Path::to_owned), flags).map_err(Failure::caller)
}

fn from_here(path: &Path) -> Result<AbsolutePath, Failure> {
    AbsolutePath::from_here(path)
        .with_context(|| format!("cannot use the path \"{}\"", path.display()))
        .map_err(Failure::caller)
}
