//! Reading "key: value" pairs so that each mistake is located where it was made.
//!
//! A key is checked while it is read, not when all are there: an unknown one is refused with the nearest known one, and a
//! second one of the same name is refused, at their own line and column.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use vcpu_policy_api::options::{closest, did_you_mean};

/// Something that is read key by key.
pub(super) trait Fields<'de> {
    /// What it is, for a value that is no pairs at all.
    fn expected(&self) -> String;
    /// The keys that there are.
    fn known(&self) -> Vec<&'static str>;
    /// The path of the key that is called so elsewhere.
    fn elsewhere(&self, _key: &str) -> Option<&'static str> {
        None
    }
    /// Reads the value of a known key.
    fn read<A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads fields; nothing at all stands for no pairs.
pub(super) struct Pairs<F>(pub(super) F);

impl<'de, F: Fields<'de>> DeserializeSeed<'de> for Pairs<F> {
    type Value = F;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<F, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fields<'de>> Visitor<'de> for Pairs<F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.expected())
    }

    fn visit_unit<E: Error>(self) -> Result<F, E> {
        Ok(self.0)
    }

    /// An empty file.
    fn visit_none<E: Error>(self) -> Result<F, E> {
        Ok(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F, A::Error> {
        let known = self.0.known();
        let mut seen = Vec::new();
        while let Some(key) = map.next_key_seed(Key {
            known: &known,
            seen: &seen,
            elsewhere: &|key| self.0.elsewhere(key),
        })? {
            seen.push(key);
            self.0.read(key, &mut map)?;
        }
        Ok(self.0)
    }
}

/// A key that is known and comes for the first time.
struct Key<'a> {
    known: &'a [&'static str],
    seen: &'a [&'static str],
    elsewhere: &'a dyn Fn(&str) -> Option<&'static str>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = &'static str;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key: {}", self.known.join(", "))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<&'static str, E> {
        let Some(&known) = self.known.iter().find(|known| **known == key) else {
            return Err(E::custom(format_args!(
                "there is no key {key:?} here{}; expected {}",
                did_you_mean((self.elsewhere)(key).or_else(|| closest(key, self.known).copied())),
                self.known.join(", ")
            )));
        };
        if self.seen.contains(&known) {
            return Err(E::custom(format_args!(
                "the key {key:?} stands here twice; expected it once"
            )));
        }
        Ok(known)
    }
}
