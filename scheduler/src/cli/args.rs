//! Every flag, with the text that `--help` shows.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use vcpu_policy_api::document::Interval;

use super::release::ReleaseArgs;
use super::restore::{RestoreArgs, StateArgs};

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

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// libvirt connection URI, as for virsh
    #[arg(short, long, value_name = "URI", env = "LIBVIRT_DEFAULT_URI", default_value = DEFAULT_URI, hide_default_value = true)]
    #[arg(long_help = "libvirt connection URI, as for virsh [default: qemu:///system]")]
    connect: String,
}

const DEFAULT_URI: &str = "qemu:///system";

impl ConnectArgs {
    /// The URI; a variable that is set to nothing counts as not set, as it does for virsh.
    pub(super) fn uri(&self) -> &str {
        if self.connect.is_empty() {
            DEFAULT_URI
        } else {
            &self.connect
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// The policy that decides: stddev, or observe, which pins nothing
    #[arg(short, long, value_name = "NAME", default_value = vcpu_policies::DEFAULT)]
    pub(super) policy: String,
    #[command(flatten)]
    pub(super) options: OptionArgs,
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
}

/// What flags about plugins stand under.
const PLUGINS: &str = "Plugins";

/// Policies from outside.
#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    /// Load the policies of this shared object, to be chosen with --policy; may be repeated
    ///
    /// The file and its folders must belong to root or to the user whom the scheduler runs as, and nobody else may have
    /// the right to write them.
    #[arg(long = "plugin", value_name = "FILE", help_heading = PLUGINS)]
    pub(super) files: Vec<PathBuf>,
    /// Load every shared object (*.so) of this folder in the same way
    #[arg(long = "plugin-dir", value_name = "DIR", help_heading = PLUGINS)]
    pub(super) folder: Option<PathBuf>,
    /// Where plugins run
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = IsolationArg::Process, help_heading = PLUGINS)]
    pub(super) isolation: IsolationArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum IsolationArg {
    /// Each in a process of its own, without rights: a crash or a hang costs one tick
    Process,
    /// In the scheduler's own process, where nothing can be contained: a plugin that crashes, hangs or leaks takes the
    /// scheduler with it, and it may do whatever the scheduler may
    InProcess,
}

/// What happens to a plugin that decides badly.
#[derive(Debug, Args)]
pub(super) struct SupervisionArgs {
    /// How long a plugin in a process of its own may take for a decision, such as 200ms, before it is killed
    #[arg(long, value_name = "TIME", value_parser = deadline, help_heading = PLUGINS)]
    #[arg(
        long_help = "How long a plugin in a process of its own may take for a decision, such as 200ms, before it is killed [default: half the interval, 1s at most]"
    )]
    pub(super) deadline: Option<Duration>,
    /// The built-in policy that takes over from a plugin that failed too often
    #[arg(long, value_name = "NAME", default_value = "observe", help_heading = PLUGINS)]
    pub(super) fallback: String,
}

#[derive(Debug, Args)]
pub(super) struct PoliciesArgs {
    /// Hold the policies of this shared object against what every policy promises, instead of listing any
    ///
    /// Each decides on a number of hosts: it must decide the same each time, ask for nothing that cannot be, survive odd and
    /// large hosts, and say why nothing moves. A broken promise ends with exit status 2.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "folder", "format"])]
    pub(super) check: Option<PathBuf>,
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
}

#[derive(Debug, Args)]
pub(super) struct OptionArgs {
    /// Set an option of the policy, such as threshold=8; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(super) pairs: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    /// Time from tick to tick, such as 5s or 500ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub(super) interval: Interval,
    /// Measure one interval, decide, pin, and exit
    #[arg(long)]
    pub(super) once: bool,
    /// Show what would be pinned and pin nothing; opens the connection read-only
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) state: StateArgs,
    #[command(flatten)]
    pub(super) supervision: SupervisionArgs,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The scenario, a YAML file
    pub(super) scenario: PathBuf,
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
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(super) interval: Interval,
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
    /// The policy that decides; may be repeated, and -o then goes to those that have the option
    #[arg(short, long = "policy", value_name = "NAME", default_value = vcpu_policies::DEFAULT)]
    pub(super) policies: Vec<String>,
    #[command(flatten)]
    pub(super) options: OptionArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
    /// How long a plugin may take for its decision, such as 200ms, before it is killed
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = deadline, help_heading = PLUGINS)]
    pub(super) deadline: Duration,
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

/// The shortest interval: libvirt counts CPU time in steps of 10 ms, so less would measure little but that.
const SHORTEST_INTERVAL_MS: u128 = 100;

/// No process can be asked anything in less.
const SHORTEST_DEADLINE: Duration = Duration::from_millis(1);

fn interval(text: &str) -> Result<Interval, String> {
    let interval: Interval = text.parse()?;
    if interval.get().as_millis() < SHORTEST_INTERVAL_MS {
        return Err(format!(
            "\"{text}\" is too short to measure; expected {SHORTEST_INTERVAL_MS}ms or more"
        ));
    }
    Ok(interval)
}

fn deadline(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(deadline) if deadline >= SHORTEST_DEADLINE => Ok(deadline),
        Ok(_) => Err(format!("\"{text}\" is too short; expected 1ms or more")),
        Err(error) => Err(format!("{error}; expected for example 200ms")),
    }
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
