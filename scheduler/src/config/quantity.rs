//! Values of the configuration that count or measure: times, numbers of moves, CPUs.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::json;
use vcpu_policy_api::cpuset::{CpuListError, OsCpuSet};
use vcpu_policy_api::document::Interval;
use vcpu_policy_api::yaml;

use super::value::{Text, not};

/// A length of time from `SHORTEST` to `LONGEST` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const SHORTEST: u64, const LONGEST: u64>(Duration);

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// From tick to tick. libvirt counts CPU time in steps of 10 ms, so less than 100 ms would measure little but that.
pub type TickInterval = Time<100, DAY_MS>;
/// For a plugin's decision: no process can be asked anything in less than 1 ms.
pub type Deadline = Time<1, DAY_MS>;
/// From one move of a vCPU to its next.
pub type Cooldown = Time<0, DAY_MS>;
/// For giving everything back.
pub type StopTimeout = Time<0, HOUR_MS>;
/// For a call to libvirt, which may well take a second on a large host.
pub type CallTimeout = Time<100, HOUR_MS>;

impl<const SHORTEST: u64, const LONGEST: u64> Time<SHORTEST, LONGEST> {
    /// The length of time.
    pub fn get(self) -> Duration {
        self.0
    }
}

fn in_words(milliseconds: u64) -> String {
    humantime::format_duration(Duration::from_millis(milliseconds)).to_string()
}

impl<const SHORTEST: u64, const LONGEST: u64> Text for Time<SHORTEST, LONGEST> {
    fn expected() -> String {
        let (shortest, longest) = (in_words(SHORTEST), in_words(LONGEST));
        format!("a length of time from {shortest} to {longest}, such as 5s or 250ms")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let time = text.parse::<Interval>()?.get();
        if time < Duration::from_millis(SHORTEST) {
            return Err(format!(
                "{text:?} is too short; expected {} or more",
                in_words(SHORTEST)
            ));
        }
        if time > Duration::from_millis(LONGEST) {
            return Err(format!(
                "{text:?} is too long; expected {} or less",
                in_words(LONGEST)
            ));
        }
        Ok(Self(time))
    }

    fn text(&self) -> String {
        humantime::format_duration(self.0).to_string()
    }

    fn json_schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^[0-9]+ *[A-Za-zµ]"})
    }
}

/// A number of moves, or any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moves(Option<NonZeroU32>);

/// How no limit is written.
const UNLIMITED: &str = "unlimited";

impl Moves {
    /// The number; `None`: any.
    pub fn get(self) -> Option<NonZeroU32> {
        self.0
    }
}

impl Text for Moves {
    fn expected() -> String {
        format!("a whole number from 1 to {}, or {UNLIMITED}", u32::MAX)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == UNLIMITED {
            return Ok(Self(None));
        }
        if text == "0" {
            return Err(format!(
                "{}; --dry-run and the policy observe move nothing",
                not::<Self>(text)
            ));
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Self(Some(number))),
            _ => Err(not::<Self>(text)),
        }
    }

    fn text(&self) -> String {
        self.0
            .map_or_else(|| UNLIMITED.to_owned(), |number| number.to_string())
    }

    fn yaml(&self) -> yaml::Value {
        self.0
            .map_or_else(|| UNLIMITED.into(), |number| number.get().into())
    }

    fn json_schema() -> serde_json::Value {
        json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": u32::MAX}, {"const": UNLIMITED}]})
    }
}

/// CPUs, or none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReservedCpus(OsCpuSet);

impl ReservedCpus {
    /// The CPUs.
    pub fn get(&self) -> &OsCpuSet {
        &self.0
    }
}

impl Text for ReservedCpus {
    fn expected() -> String {
        "a CPU list such as \"0-3,8\", or none".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        text.parse().map(Self).map_err(|error| match error {
            CpuListError::Malformed { .. } | CpuListError::Empty => format!("{error}, or none"),
            error => error.to_string(),
        })
    }

    fn text(&self) -> String {
        if self.0.is_empty() {
            "none".to_owned()
        } else {
            self.0.to_string()
        }
    }

    fn json_schema() -> serde_json::Value {
        json!({"anyOf": [cpu_list_schema(), {"const": "none"}]})
    }
}

/// A number alone is the list of that one CPU.
fn cpu_list_schema() -> serde_json::Value {
    json!({"anyOf": [{"type": "string", "pattern": "^[0-9, ^-]+$"}, {"type": "integer", "minimum": 0}]})
}

impl Text for OsCpuSet {
    fn expected() -> String {
        "a CPU list such as \"0-3,8\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: CpuListError| error.to_string())
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn json_schema() -> serde_json::Value {
        cpu_list_schema()
    }
}
