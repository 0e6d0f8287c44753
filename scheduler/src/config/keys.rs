//! The one table of keys.
//!
//! From it come the file's reader, what is in force when nothing is said, the flags' help, the print-out, the JSON schema,
//! and which changes a running daemon can follow. `docs/configuration.md` is held against it by a test.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::MapAccess;
use vcpu_policy_api::yaml;

use super::domains::Domains;
use super::pairs::{Fields, Pairs};
use super::plugins::Plugins;
use super::policy_options::PolicyOptions;
use super::quantity::{CallTimeout, Cooldown, Deadline, Moves, ReservedCpus, StopTimeout, TickInterval};
use super::value::{AbsolutePath, Fallback, PolicyName, Read, Seed, Uri, Value};
use super::word::{IsolatedCpus, OnExit};
use crate::engine::terms::{InitialPins, ManualPins};
use crate::plugin::registry::Isolation;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The file.
    File,
    /// Part of it the command line, part of it the file.
    FlagAndFile,
    /// An environment variable.
    Environment,
    /// Nobody said anything.
    Default,
}

/// What is in force when nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsaid {
    /// This value, in YAML.
    Value(&'static str),
    /// What follows from other things, in words.
    Rule(&'static str),
}

/// When a change of a key takes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesHold {
    /// When the configuration is read again.
    AtReload,
    /// When the daemon is started again.
    AtRestart,
}

/// A key of the file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path, as `limits.cooldown`.
    pub path: &'static str,
    /// The flag that says the same, without its dashes.
    pub flag: Option<&'static str>,
    /// What is in force when nothing is said.
    pub unsaid: Unsaid,
    /// When a change takes hold.
    pub takes_hold: TakesHold,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// What it can hold, in words.
    pub expected: fn() -> String,
    /// What it can hold, as a JSON schema.
    pub schema: fn() -> serde_json::Value,
    /// The value in force, for a file; `None` where it follows from other things.
    pub written: fn(&Effective) -> Option<yaml::Value>,
}

/// Where each value comes from, by the key's path.
pub type Origins = BTreeMap<&'static str, Origin>;

/// What the sources of a configuration say, in the order in which they win.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers {
    pub(super) flags: Layer,
    pub(super) file: Layer,
    pub(super) environment: Layer,
}

/// What one source says of a key, for all three.
struct Said<T> {
    flag: Option<T>,
    file: Option<T>,
    environment: Option<T>,
}

impl<T: Value> Said<T> {
    fn joined(self) -> (Option<T>, Origin) {
        match self {
            Self {
                flag: Some(flag),
                file: Some(file),
                ..
            } if T::ADDS => (Some(flag.over(file)), Origin::FlagAndFile),
            Self { flag: Some(flag), .. } => (Some(flag), Origin::Flag),
            Self { file: Some(file), .. } => (Some(file), Origin::File),
            Self {
                environment: Some(value),
                ..
            } => (Some(value), Origin::Environment),
            _ => (None, Origin::Default),
        }
    }
}

/// The value of the table's YAML.
fn stated<T: Value>(default: &str) -> T {
    let read: Result<Read<T>, _> = yaml::read(default);
    read.expect("the table states values").0
}

/// States the keys. `fixed` ones have a value of their own when nothing is said, `open` ones a rule.
macro_rules! keys {
    (@type fixed $type:ty) => { $type };
    (@type open $type:ty) => { Option<$type> };
    (@value fixed $said:expr, $unsaid:literal) => { $said.unwrap_or_else(|| stated($unsaid)) };
    (@value open $said:expr, $unsaid:literal) => { $said };
    (@unsaid fixed $unsaid:literal) => { Unsaid::Value($unsaid) };
    (@unsaid open $unsaid:literal) => { Unsaid::Rule($unsaid) };
    (@written fixed $value:expr) => { Some($value.written()) };
    (@written open $value:expr) => { $value.as_ref().map(Value::written) };
    ($(
        $path:literal $flag:expr, $takes_hold:ident,
        $kind:ident $field:ident: $type:ty = $unsaid:literal,
        $meaning:literal;
    )*) => {
        /// Every key, in the order in which they are documented and printed.
        pub const KEYS: &[Key] = &[$(Key {
            path: $path,
            flag: $flag,
            unsaid: keys!(@unsaid $kind $unsaid),
            takes_hold: TakesHold::$takes_hold,
            meaning: $meaning,
            expected: <$type as Value>::expected,
            schema: <$type as Value>::schema,
            written: |effective| keys!(@written $kind effective.$field),
        }),*];

        /// What one source says; what it does not speak of is `None`.
        #[derive(Debug, Clone, Default, PartialEq)]
        #[expect(clippy::doc_markdown, reason = "the same sentences are read in a terminal")]
        pub struct Layer {
            $(#[doc = $meaning] pub $field: Option<$type>,)*
        }

        impl Layer {
            fn read_key<'de, A: MapAccess<'de>>(&mut self, path: &str, map: &mut A) -> Result<(), A::Error> {
                match path {
                    $($path => self.$field = Some(map.next_value_seed(Seed::new())?),)*
                    _ => unreachable!("the table has the key"),
                }
                Ok(())
            }
        }

        /// The configuration in force.
        #[derive(Debug, Clone)]
        #[expect(clippy::doc_markdown, reason = "the same sentences are read in a terminal")]
        pub struct Effective {
            $(#[doc = $meaning] pub $field: keys!(@type $kind $type),)*
            /// Where each value comes from.
            pub origins: Origins,
            /// The file that was read, if one was.
            pub file: Option<PathBuf>,
        }

        impl Layers {
            /// What is in force when these speak.
            pub(super) fn joined(self) -> Effective {
                let mut origins = Origins::new();
                $(
                    let said = Said {
                        flag: self.flags.$field,
                        file: self.file.$field,
                        environment: self.environment.$field,
                    };
                    let ($field, origin) = said.joined();
                    origins.insert($path, origin);
                )*
                Effective {
                    $($field: keys!(@value $kind $field, $unsaid),)*
                    origins,
                    file: None,
                }
            }
        }

        /// Gives back to what was read anew the values that only a restart changes: those stay what they are.
        pub fn keep_until_restart(in_force: &Effective, new: &mut Effective) {
            $(if TakesHold::$takes_hold == TakesHold::AtRestart {
                new.$field = in_force.$field.clone();
            })*
        }

        /// The keys whose values differ.
        pub fn changed(old: &Effective, new: &Effective) -> Vec<&'static Key> {
            let differ = [$(old.$field != new.$field),*];
            KEYS.iter().zip(differ).filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
        }
    };
}

keys! {
    "connect" Some("connect"), AtRestart,
    fixed connect: Uri = "qemu:///system",
    "libvirt connection URI, as for virsh";

    "interval" Some("interval"), AtReload,
    fixed interval: TickInterval = "5s",
    "Time from tick to tick, such as 5s or 500ms";

    "policy.name" Some("policy"), AtReload,
    fixed policy: PolicyName = "stddev",
    "The policy that decides: stddev, observe, which pins nothing, or one of a plugin";

    "policy.options" Some("option"), AtReload,
    fixed options: PolicyOptions = "{}",
    "Options of the policy, such as threshold: 8";

    "plugins" Some("plugin"), AtReload,
    fixed plugins: Plugins = "[]",
    "Shared objects whose policies can be chosen";

    "plugin-directory" Some("plugin-dir"), AtReload,
    open plugin_directory: AbsolutePath = "none",
    "A folder of which every shared object (*.so) is loaded in the same way";

    "isolation" Some("isolation"), AtRestart,
    fixed isolation: Isolation = "process",
    "Where plugins run";

    "deadline" Some("deadline"), AtReload,
    open deadline: Deadline = "half the interval, 1s at most",
    "How long a plugin in a process of its own may take for a decision, such as 200ms, before it is killed";

    "fallback" Some("fallback"), AtReload,
    fixed fallback: Fallback = "observe",
    "The built-in policy that takes over from a plugin that failed too often";

    "host.reserved-cpus" Some("reserved-cpus"), AtReload,
    fixed reserved_cpus: ReservedCpus = "none",
    "CPUs that no guest is placed on, such as 0,32; or none";

    "host.isolated-cpus" Some("isolated-cpus"), AtReload,
    fixed isolated_cpus: IsolatedCpus = "avoid",
    "What becomes of CPUs that the kernel isolates (isolcpus, nohz_full)";

    "domains" None, AtReload,
    fixed domains: Domains = "[]",
    "Rules for guests, of which the first that matches holds";

    "limits.moves-per-tick" Some("moves-per-tick"), AtReload,
    fixed moves_per_tick: Moves = "16",
    "How many vCPUs a tick may move; or unlimited";

    "limits.moves-per-minute" Some("moves-per-minute"), AtReload,
    fixed moves_per_minute: Moves = "unlimited",
    "How many vCPUs any 60 seconds may move; or unlimited";

    "limits.cooldown" Some("cooldown"), AtReload,
    fixed cooldown: Cooldown = "0s",
    "How long a vCPU that was moved stays where it is, such as 30s";

    "on-exit" Some("on-exit"), AtReload,
    fixed on_exit: OnExit = "restore",
    "What becomes of the pins when the daemon ends";

    "stop-timeout" Some("stop-timeout"), AtReload,
    fixed stop_timeout: StopTimeout = "30s",
    "How long giving the pins back may take when the daemon ends";

    "call-timeout" Some("call-timeout"), AtRestart,
    fixed call_timeout: CallTimeout = "30s",
    "How long a call to libvirt may take, connecting included, before libvirt counts as hung";

    "manual-pins" Some("manual-pins"), AtReload,
    fixed manual_pins: ManualPins = "respect",
    "What it means when someone else pins a vCPU while the daemon runs";

    "initial-pins" Some("initial-pins"), AtReload,
    fixed initial_pins: InitialPins = "take",
    "What it means when a vCPU that is first seen is pinned already, other than its definition says";

    "state-dir" Some("state-dir"), AtRestart,
    open state_dir: AbsolutePath = "under /run/vcpu-scheduler as root, $XDG_RUNTIME_DIR otherwise, /var/lib for a remote host",
    "The folder that remembers what to give back";
}

/// The key at this path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The keys of the file, or those under a prefix such as `limits.`.
struct Group<'a> {
    prefix: &'a str,
    layer: &'a mut Layer,
}

impl<'de> Fields<'de> for Group<'_> {
    fn expected(&self) -> String {
        format!(
            "\"key: value\" pairs, with the keys {}",
            Fields::known(self).join(", ")
        )
    }

    fn known(&self) -> Vec<&'static str> {
        let below = KEYS.iter().filter_map(|key| key.path.strip_prefix(self.prefix));
        let mut known: Vec<&str> = below.filter_map(|rest| rest.split('.').next()).collect();
        known.dedup();
        known
    }

    fn elsewhere(&self, name: &str) -> Option<&'static str> {
        let named = |path: &str| path.rsplit('.').next() == Some(name);
        KEYS.iter().map(|key| key.path).find(|path| named(path))
    }

    fn read<A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        let path = format!("{}{key}", self.prefix);
        if find(&path).is_some() {
            return self.layer.read_key(&path, map);
        }
        let group = Group {
            prefix: &format!("{path}."),
            layer: self.layer,
        };
        map.next_value_seed(Pairs(group)).map(|_| ())
    }
}

impl<'de> serde::Deserialize<'de> for Layer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut layer = Self::default();
        let group = Group {
            prefix: "",
            layer: &mut layer,
        };
        deserializer.deserialize_any(Pairs(group))?;
        Ok(layer)
    }
}
