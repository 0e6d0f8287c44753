//! Lists of entries that are "key: value" pairs: reading, writing, and what their schemas share.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use vcpu_policy_api::yaml;

use super::pairs::{Fields, Pairs};
use super::value::Value;

/// An entry's schema, with what it means.
pub(super) fn described<T: Value>(meaning: &str) -> serde_json::Value {
    let mut schema = T::schema();
    schema["description"] = meaning.into();
    schema
}

/// Pairs as YAML, without those that have no value.
pub(super) fn mapping<const N: usize>(pairs: [(&str, Option<yaml::Value>); N]) -> yaml::Value {
    let pairs = pairs
        .into_iter()
        .filter_map(|(key, value)| Some((key.into(), value?)));
    yaml::Value::Mapping(pairs.collect())
}

/// An entry of a list, read key by key, and what it makes when it is complete.
pub(super) trait ListEntry<'de>: Fields<'de> {
    /// What it makes.
    type Made;
    /// The entry when all its keys are read.
    fn made(self) -> Result<Self::Made, String>;
}

/// Reads a list of entries, each of which begins as the function makes it; nothing at all stands for none.
pub(super) struct List<F>(pub(super) F);

impl<'de, E: ListEntry<'de>, F: Fn() -> E> Visitor<'de> for List<F> {
    type Value = Vec<E::Made>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list, each entry of it {}", (self.0)().expected())
    }

    fn visit_unit<X: Error>(self) -> Result<Self::Value, X> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element_seed(Complete((self.0)()))? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Reads an entry and completes it where it stands, so that what it lacks is located there.
struct Complete<E>(E);

impl<'de, E: ListEntry<'de>> DeserializeSeed<'de> for Complete<E> {
    type Value = E::Made;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<E::Made, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, E: ListEntry<'de>> Visitor<'de> for Complete<E> {
    type Value = E::Made;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.expected())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<E::Made, A::Error> {
        Pairs(self.0).visit_map(map)?.made().map_err(A::Error::custom)
    }
}
