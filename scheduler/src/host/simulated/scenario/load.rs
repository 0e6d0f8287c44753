//! What vCPUs want: a number, steps, or a row of a trace.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::LAST_TICK;
use super::value::{VcpuPercent, Whole};

/// What each vCPU of a domain wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Load {
    /// Always the same.
    Constant(VcpuPercent),
    /// From each tick on, by ascending tick; nothing before the first.
    Steps(Vec<Step>),
    /// As a row of a trace says.
    Trace(TraceRow),
}

/// From a tick on, so much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) from_tick: u32,
    pub(crate) percent: VcpuPercent,
}

/// A row of a trace in the wide CSV form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceRow {
    /// The trace's file, relative to the scenario's.
    pub(crate) trace: PathBuf,
    /// The row of the first copy, from 0; the next copy has the next row.
    pub(crate) row: u32,
}

impl<'de> Deserialize<'de> for Load {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyForm;
        impl<'de> Visitor<'de> for AnyForm {
            type Value = Load;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a percentage of one pCPU, steps such as [[1, 20], [14, 50]], or {trace: FILE, row: 0}",
                )
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Load, E> {
                VcpuPercent::deserialize(serde::de::value::F64Deserializer::new(value)).map(Load::Constant)
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Load, E> {
                VcpuPercent::deserialize(serde::de::value::U64Deserializer::new(value)).map(Load::Constant)
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Load, E> {
                VcpuPercent::deserialize(serde::de::value::I64Deserializer::new(value)).map(Load::Constant)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Load, A::Error> {
                let mut steps: Vec<Step> = Vec::new();
                while let Some(step) = list.next_element::<Step>()? {
                    if let Some(last) = steps.last().filter(|last| last.from_tick >= step.from_tick) {
                        return Err(A::Error::custom(format_args!(
                            "the step at tick {} comes behind the one at tick {}; expected ascending ticks",
                            step.from_tick, last.from_tick
                        )));
                    }
                    steps.push(step);
                }
                if steps.is_empty() {
                    return Err(A::Error::custom(
                        "the list is empty; expected steps such as [[1, 20], [14, 50]]",
                    ));
                }
                Ok(Load::Steps(steps))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Load, A::Error> {
                TraceRow::deserialize(MapAccessDeserializer::new(map)).map(Load::Trace)
            }
        }
        deserializer.deserialize_any(AnyForm)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Step;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a step [tick, percent]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Step, A::Error> {
                let tick: Whole<0, LAST_TICK> = pair
                    .next_element()?
                    .ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let percent = pair
                    .next_element()?
                    .ok_or_else(|| A::Error::invalid_length(1, &self))?;
                if pair.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    return Err(A::Error::invalid_length(3, &self));
                }
                Ok(Step {
                    from_tick: tick.get(),
                    percent,
                })
            }
        }
        deserializer.deserialize_seq(Pair)
    }
}

/// The rows of traces that a scenario uses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traces(BTreeMap<PathBuf, TraceRows>);

/// The rows of one trace.
#[derive(Debug, Clone)]
pub(super) struct TraceRows {
    pub(super) times: Arc<[Duration]>,
    /// By their place in the file, from 0.
    pub(super) rows: BTreeMap<usize, Arc<[f64]>>,
}

/// A row of a trace and the times of its values.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    times: Arc<[Duration]>,
    values: Arc<[f64]>,
}

impl Traces {
    /// Keeps the rows of a file that the scenario calls so.
    pub(super) fn insert(&mut self, file: PathBuf, rows: TraceRows) {
        self.0.insert(file, rows);
    }

    /// A row that the check of the scenario has seen.
    pub(crate) fn series(&self, file: &Path, row: usize) -> Option<Series> {
        let rows = self.0.get(file)?;
        Some(Series {
            times: Arc::clone(&rows.times),
            values: Arc::clone(rows.rows.get(&row)?),
        })
    }
}

impl Series {
    /// The value at a time: that of the last sample not later than it, before the first sample the first.
    pub(crate) fn at(&self, time: Duration) -> f64 {
        let behind = self.times.partition_point(|&sample| sample <= time);
        self.values[behind.saturating_sub(1)]
    }
}
