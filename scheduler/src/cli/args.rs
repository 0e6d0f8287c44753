//! Every flag, with the text that `--help` shows.

mod settings;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use self::settings::{
    ConfigArgs, ConnectArgs, OptionArgs, PLUGINS, PolicyArgs, SettingsArgs, SupervisionArgs, sources, text,
};
pub(super) use self::settings::{HostArgs, PluginArgs};
use super::Failure;
use crate::config::{Deadline, Layer, PolicyName, Sources, StopTimeout, TickInterval};
use crate::engine::daemon::Release;

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
    /// only: no stored definition is changed.
    ///
    /// SIGINT or SIGTERM ends it, and every vCPU gets the affinity back that it had; a second signal skips that. SIGHUP reads
    /// the configuration again.
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
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// Measure one interval, decide, pin, and exit; the pins stay, and `restore` undoes them
    #[arg(long)]
    pub(super) once: bool,
    /// Show what would be pinned and pin nothing; opens the connection read-only
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Show for this running domain, by name or UUID, where each vCPU may be pinned, because of which rule, and whether it is left alone
    #[arg(conflicts_with = "schema")]
    pub(super) domain: Option<String>,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// Print the JSON schema of the configuration file instead, for editors
    #[arg(long)]
    pub(super) schema: bool,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub(super) host: HostArgs,
    /// How long to try what does not succeed at once, such as a busy domain [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = text::<StopTimeout>)]
    pub(super) stop_timeout: Option<StopTimeout>,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// The domain's name or UUID, or DOMAIN/VCPU for one of its vCPUs
    #[arg(value_name = "DOMAIN[/VCPU]", value_parser = target)]
    pub(super) target: Release,
    #[command(flatten)]
    pub(super) host: HostArgs,
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
    #[arg(long, value_name = "SCENARIO", conflicts_with_all = ["connect", "interval"])]
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

/// A domain's name holds no slash: libvirt sees to that.
fn target(text: &str) -> Result<Release, String> {
    let (domain, vcpu) = match text.split_once('/') {
        None => (text, None),
        Some((domain, number)) => {
            let number = number.parse().map_err(|_| {
                format!("\"{number}\" is no number of a vCPU; expected DOMAIN or DOMAIN/VCPU, such as web/0")
            })?;
            (domain, Some(number))
        }
    };
    if domain.is_empty() {
        return Err("expected DOMAIN or DOMAIN/VCPU, such as web/0".to_owned());
    }
    Ok(Release {
        domain: domain.to_owned(),
        vcpu,
    })
}

/// As many as a scenario file may speak of.
const MOST_TICKS: u64 = 1_000_000;

fn tick(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number @ 1..=MOST_TICKS) => Ok(number),
        _ => Err(format!("expected a whole number from 1 to {MOST_TICKS}")),
    }
}

impl SimulateArgs {
    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> Result<Sources, Failure> {
        let mut flags = Layer::default();
        self.policy.say(&mut flags)?;
        self.supervision.say(&mut flags);
        Ok(sources(self.config.as_deref(), flags))
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
        Ok(sources(self.config.as_deref(), flags))
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
