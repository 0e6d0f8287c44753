//! Values of the files that check themselves while they are read, so that a bad one is located by line and column.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cpuset::{CpuListError, OsCpuSet};

/// A percentage or another measure: finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// The value.
    pub fn get(self) -> f64 {
        self.0
    }

    /// A value that a snapshot's own check has seen.
    pub(super) fn from_checked(value: f64) -> Self {
        Self(value)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Percent;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, 0 or more")
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Percent, E> {
                if value.is_finite() && value >= 0.0 {
                    Ok(Percent(value))
                } else {
                    Err(E::custom(format_args!(
                        "{value} is not possible here; expected a finite number, 0 or more"
                    )))
                }
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Percent, E> {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a percentage beyond 2^53 is no percentage"
                )]
                self.visit_f64(value as f64)
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Percent, E> {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a percentage beyond 2^53 is no percentage"
                )]
                self.visit_f64(value as f64)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// A length of time, written as `5s`, `250ms` or `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval(Duration);

/// The longest time that files and flags accept: beyond it, a sum of two could no longer be counted in nanoseconds.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Interval {
    /// This length of time.
    pub fn new(duration: Duration) -> Self {
        Self(duration)
    }

    pub(super) fn nanoseconds(self) -> u64 {
        u64::try_from(self.get().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.get() == Duration::ZERO
    }

    /// The length of time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl std::str::FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => Ok(Self(duration)),
            Ok(_) => Err(format!("\"{text}\" is longer than a hundred years")),
            Err(error) => Err(format!(
                "\"{text}\" is not a length of time ({error}); expected for example 5s or 250ms"
            )),
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = Interval;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as 5s or 250ms")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Interval, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Time)
    }
}

/// The CPUs that a vCPU may be pinned to: a CPU list, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedCpus {
    /// Not a single one.
    None,
    /// These.
    Some(OsCpuSet),
}

impl Serialize for AllowedCpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Some(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AllowedCpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Allowed;
        impl Visitor<'_> for Allowed {
            type Value = AllowedCpus;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CPU list such as \"0-3,8\", or none")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<AllowedCpus, E> {
                if text == "none" {
                    return Ok(AllowedCpus::None);
                }
                text.parse().map(AllowedCpus::Some).map_err(|error| match error {
                    CpuListError::Malformed { .. } => E::custom(format_args!("{error}, or none")),
                    _ => E::custom(error),
                })
            }
            fn visit_u64<E: Error>(self, cpu: u64) -> Result<AllowedCpus, E> {
                self.visit_str(&cpu.to_string())
            }
        }
        deserializer.deserialize_any(Allowed)
    }
}
