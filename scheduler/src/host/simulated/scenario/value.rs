//! Values of a scenario that check themselves while they are read, so that a bad one is located by line and column.

use std::fmt;
use std::time::Duration;

use globset::GlobMatcher;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::document::Interval;

use super::{LONGEST_INTERVAL, SHORTEST_INTERVAL};
use crate::host::pattern;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    /// The number.
    pub(crate) fn get(self) -> u32 {
        self.0
    }

    /// A number that the program itself states.
    pub(super) const fn new(value: u32) -> Self {
        assert!(MIN <= value && value <= MAX, "out of range");
        Self(value)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Between<const MIN: u32, const MAX: u32>;
        impl<const MIN: u32, const MAX: u32> Visitor<'_> for Between<MIN, MAX> {
            type Value = Whole<MIN, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                match u32::try_from(value) {
                    Ok(value) if (MIN..=MAX).contains(&value) => Ok(Whole(value)),
                    _ => Err(out_of_range(value, &self)),
                }
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Err(out_of_range(value, &self))
            }
        }
        deserializer.deserialize_any(Between)
    }
}

/// Percent of a pCPU that one vCPU can use: 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VcpuPercent(f64);

impl VcpuPercent {
    pub(super) const ZERO: Self = Self(0.0);

    /// The percentage.
    pub(crate) fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for VcpuPercent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = VcpuPercent;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage of one pCPU from 0 to 100")
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<VcpuPercent, E> {
                if (0.0..=100.0).contains(&value) {
                    Ok(VcpuPercent(value))
                } else {
                    Err(out_of_range(value, &self))
                }
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<VcpuPercent, E> {
                match u32::try_from(value) {
                    Ok(value) => self.visit_f64(f64::from(value)),
                    Err(_) => Err(out_of_range(value, &self)),
                }
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<VcpuPercent, E> {
                Err(out_of_range(value, &self))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// The time between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleInterval(Duration);

impl SampleInterval {
    /// The time.
    pub(super) fn get(self) -> Duration {
        self.0
    }
}

impl<'de> Deserialize<'de> for SampleInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = SampleInterval;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time from 1ms to 24h, such as 5s or 250ms")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<SampleInterval, E> {
                let interval = text.parse::<Interval>().map_err(E::custom)?.get();
                if (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval) {
                    Ok(SampleInterval(interval))
                } else {
                    Err(out_of_range(text, &self))
                }
            }
        }
        deserializer.deserialize_str(Time)
    }
}

fn out_of_range<E: Error>(value: impl fmt::Display, expected: &dyn serde::de::Expected) -> E {
    E::custom(format_args!("{value} is not possible here; expected {expected}"))
}

/// A domain's name, of the kind that libvirt accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a domain's name")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                if name.trim().is_empty() {
                    return Err(E::custom("the name is empty"));
                }
                if name.contains('/') || name.contains(char::is_control) {
                    return Err(E::custom(format_args!(
                        "{name:?} cannot be a domain's name; expected one without slashes and control characters"
                    )));
                }
                Ok(Name(name.to_owned()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A pattern of domain names; see [`pattern`].
#[derive(Debug, Clone)]
pub(crate) struct Pattern(GlobMatcher);

impl Pattern {
    /// Whether a domain of this name is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.glob().fmt(f)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Pattern;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a domain's name, or a pattern of names such as \"web-*\"")
            }
            fn visit_str<E: Error>(self, pattern: &str) -> Result<Pattern, E> {
                pattern::compile(pattern).map(Pattern).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// `yes` or `no`, as the metadata of a domain has it; YAML's own true and false do too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum YesNo {
    Yes,
    No,
}

impl<'de> Deserialize<'de> for YesNo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = YesNo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("yes or no")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<YesNo, E> {
                Ok(if value { YesNo::Yes } else { YesNo::No })
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<YesNo, E> {
                match word {
                    "yes" => Ok(YesNo::Yes),
                    "no" => Ok(YesNo::No),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

/// The affinities that the copies of a domain start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pins {
    /// The same for all copies.
    Same(OsCpuSet),
    /// One a copy, from the start again where there are more copies; never empty.
    EachInTurn(Vec<OsCpuSet>),
}

impl Pins {
    /// The affinity of a copy.
    pub(crate) fn of_copy(&self, copy: usize) -> &OsCpuSet {
        match self {
            Self::Same(cpus) => cpus,
            Self::EachInTurn(list) => &list[copy % list.len()],
        }
    }
}

impl<'de> Deserialize<'de> for Pins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrList;
        impl<'de> Visitor<'de> for OneOrList {
            type Value = Pins;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a CPU list such as \"0-3,8\" for all copies, or a list of such lists, one a copy",
                )
            }
            fn visit_str<E: Error>(self, list: &str) -> Result<Pins, E> {
                list.parse().map(Pins::Same).map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, cpu: u64) -> Result<Pins, E> {
                self.visit_str(&cpu.to_string())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut lists: A) -> Result<Pins, A::Error> {
                let mut each = Vec::new();
                while let Some(cpus) = lists.next_element()? {
                    each.push(cpus);
                }
                if each.is_empty() {
                    return Err(A::Error::custom(
                        "the list is empty; expected at least one CPU list",
                    ));
                }
                Ok(Pins::EachInTurn(each))
            }
        }
        deserializer.deserialize_any(OneOrList)
    }
}
