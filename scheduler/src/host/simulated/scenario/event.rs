//! What happens to the host and its guests while a scenario runs.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use vcpu_policy_api::cpuset::OsCpuSet;

use super::value::{Pattern, VcpuPercent, Whole};
use super::{DomainSpec, LAST_TICK, LONGEST_CALL_MS, MOST_VCPUS};

/// One entry of `events`.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The first tick that shows it.
    pub(crate) at: u32,
    /// What happens.
    pub(crate) action: Action,
}

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Guests want another load from now on.
    Load(LoadChange),
    /// Guests are gone.
    Destroy(Pattern),
    /// A guest, or several copies of it, starts.
    Create(Box<DomainSpec>),
    /// CPUs are taken out of use.
    Offline(OsCpuSet),
    /// CPUs come into use.
    Online(OsCpuSet),
    /// Someone else sets a vCPU's affinity.
    Pin(ForeignPin),
    /// vCPUs are plugged or unplugged.
    Vcpus(Hotplug),
    /// Guests stop running, but stay.
    Pause(Pattern),
    /// Paused guests run again.
    Resume(Pattern),
    /// Guests reboot.
    Reboot(Pattern),
    /// Guests are saved by libvirt: they are gone until they are restored.
    Save(Pattern),
    /// Saved guests come back.
    Restore(Pattern),
    /// The operator edits the stored definition.
    Cpuset(CpusetChange),
    /// Calls to the host fail for some ticks.
    Fail(Fault),
}

/// `load: {domain, percent}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadChange {
    pub(crate) domain: Pattern,
    pub(crate) percent: VcpuPercent,
}

/// `pin: {domain, vcpu, cpus}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForeignPin {
    pub(crate) domain: Pattern,
    pub(crate) vcpu: u32,
    pub(crate) cpus: OsCpuSet,
}

/// `vcpus: {domain, count}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hotplug {
    pub(crate) domain: Pattern,
    pub(crate) count: Whole<1, MOST_VCPUS>,
}

/// `cpuset: {domain, cpus}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CpusetChange {
    pub(crate) domain: Pattern,
    pub(crate) cpus: OsCpuSet,
}

/// `fail: {call, ticks, …}`.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// How many ticks it lasts.
    pub(crate) ticks: u32,
    /// What fails.
    pub(crate) kind: FaultKind,
}

/// What fails.
#[derive(Debug, Clone)]
pub(crate) enum FaultKind {
    /// A call about these domains.
    OfDomain(DomainFault),
    /// Reading the host.
    Sample,
    /// Every call.
    Disconnect,
    /// Nothing, but every call takes so long.
    Slow(Duration),
}

/// A call that fails for some domains.
#[derive(Debug, Clone)]
pub(crate) struct DomainFault {
    pub(crate) call: DomainCall,
    /// Which domains; `None`: all.
    pub(crate) domain: Option<Pattern>,
    pub(crate) error: Failure,
}

/// The calls that are about one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DomainCall {
    /// Setting an affinity.
    Pin,
    /// Reading one anew.
    Affinity,
    /// Handing over a keepsake.
    Keep,
}

/// How such a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    /// The domain is busy with something else.
    Busy,
    /// The host does not want it.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "kebab-case")]
enum Key {
    At,
    Load,
    Destroy,
    Create,
    Offline,
    Online,
    Pin,
    Vcpus,
    Pause,
    Resume,
    Reboot,
    Save,
    Restore,
    Cpuset,
    Fail,
}

const ACTIONS: &str = "load, destroy, create, offline, online, pin, vcpus, pause, resume, reboot, save, restore, cpuset or fail";

impl Action {
    /// The key that states it.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Destroy(_) => "destroy",
            Self::Create(_) => "create",
            Self::Offline(_) => "offline",
            Self::Online(_) => "online",
            Self::Pin(_) => "pin",
            Self::Vcpus(_) => "vcpus",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Reboot(_) => "reboot",
            Self::Save(_) => "save",
            Self::Restore(_) => "restore",
            Self::Cpuset(_) => "cpuset",
            Self::Fail(_) => "fail",
        }
    }

    fn read<'de, A: MapAccess<'de>>(key: Key, map: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(Some(match key {
            Key::At => return Ok(None),
            Key::Load => Self::Load(map.next_value()?),
            Key::Destroy => Self::Destroy(map.next_value()?),
            Key::Create => Self::Create(map.next_value()?),
            Key::Offline => Self::Offline(map.next_value()?),
            Key::Online => Self::Online(map.next_value()?),
            Key::Pin => Self::Pin(map.next_value()?),
            Key::Vcpus => Self::Vcpus(map.next_value()?),
            Key::Pause => Self::Pause(map.next_value()?),
            Key::Resume => Self::Resume(map.next_value()?),
            Key::Reboot => Self::Reboot(map.next_value()?),
            Key::Save => Self::Save(map.next_value()?),
            Key::Restore => Self::Restore(map.next_value()?),
            Key::Cpuset => Self::Cpuset(map.next_value()?),
            Key::Fail => Self::Fail(map.next_value()?),
        }))
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = Event;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an event such as {{at: 14, destroy: \"vm-3\"}}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
                let mut at: Option<Whole<1, LAST_TICK>> = None;
                let mut action: Option<Action> = None;
                while let Some(key) = map.next_key::<Key>()? {
                    let Some(next) = Action::read(key, &mut map)? else {
                        if at.replace(map.next_value()?).is_some() {
                            return Err(A::Error::duplicate_field("at"));
                        }
                        continue;
                    };
                    if let Some(first) = &action {
                        return Err(A::Error::custom(format_args!(
                            "one event cannot be both {} and {}; expected two events",
                            first.key(),
                            next.key()
                        )));
                    }
                    action = Some(next);
                }
                let at = at.ok_or_else(|| A::Error::missing_field("at"))?.get();
                let action = action.ok_or_else(|| {
                    A::Error::custom(format_args!("the event does nothing; expected {ACTIONS}"))
                })?;
                Ok(Event { at, action })
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Call {
    Pin,
    Affinity,
    Keep,
    Sample,
    Disconnect,
    Slow,
}

/// The keys of `fail` before they are held against each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultFields {
    call: Call,
    domain: Option<Pattern>,
    error: Option<Failure>,
    ms: Option<Whole<1, LONGEST_CALL_MS>>,
    #[serde(default = "one_tick")]
    ticks: Whole<1, LAST_TICK>,
}

fn one_tick() -> Whole<1, LAST_TICK> {
    Whole::new(1)
}

/// Hand-written, so that keys that do not go together are located.
impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Fault;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a fault such as {call: pin, domain: \"vm-2\", ticks: 3}")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fault, A::Error> {
                let fields = FaultFields::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                fields.fault().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Keys)
    }
}

impl FaultFields {
    fn fault(self) -> Result<Fault, &'static str> {
        let of_domain = matches!(self.call, Call::Pin | Call::Affinity | Call::Keep);
        if !of_domain && self.domain.is_some() {
            return Err(
                "domain goes with call: pin, affinity or keep only; other calls concern the whole host",
            );
        }
        if !of_domain && self.error.is_some() {
            return Err("error goes with call: pin, affinity or keep only");
        }
        if self.call != Call::Slow && self.ms.is_some() {
            return Err("ms goes with call: slow only");
        }
        let Self {
            call,
            domain,
            error,
            ms,
            ticks,
        } = self;
        let of_domain = |call| {
            FaultKind::OfDomain(DomainFault {
                call,
                domain,
                error: error.unwrap_or(Failure::Busy),
            })
        };
        let kind = match call {
            Call::Pin => of_domain(DomainCall::Pin),
            Call::Affinity => of_domain(DomainCall::Affinity),
            Call::Keep => of_domain(DomainCall::Keep),
            Call::Sample => FaultKind::Sample,
            Call::Disconnect => FaultKind::Disconnect,
            Call::Slow => {
                let ms = ms.ok_or("call: slow needs ms, how long each call takes")?;
                FaultKind::Slow(Duration::from_millis(u64::from(ms.get())))
            }
        };
        Ok(Fault {
            ticks: ticks.get(),
            kind,
        })
    }
}
