//! `policy.options`: what the policy itself is told.
//!
//! Which options there are is the policy's business. What can be said here is that numbers are numbers.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use vcpu_policy_api::options;
use vcpu_policy_api::yaml::{self, Mapping};

use super::value::Value;

/// Options of a policy, by their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyOptions(pub Mapping);

impl PolicyOptions {
    /// Those given as `key=value`, the value in YAML.
    pub fn from_pairs(pairs: &[(String, String)]) -> Self {
        let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Self::from_text(&options::from_pairs(pairs))
    }

    /// Those of a text that the program itself wrote.
    pub fn from_text(text: &str) -> Self {
        Self(yaml::read(text).ok().flatten().unwrap_or_default())
    }

    /// Their text, as policies take it; empty if there are none.
    pub fn text(&self) -> String {
        if self.0.is_empty() {
            String::new()
        } else {
            yaml::write(&self.0)
        }
    }

    /// Those whose name is not refused.
    #[must_use]
    pub fn only(&self, has: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(key, _)| key.as_str().is_none_or(&has));
        Self(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl Value for PolicyOptions {
    fn expected() -> String {
        "options such as {threshold: 8}".to_owned()
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Options)
    }

    fn written(&self) -> yaml::Value {
        yaml::Value::Mapping(self.0.clone())
    }

    fn schema() -> serde_json::Value {
        json!({"type": ["object", "null"]})
    }

    /// An option of a flag stands in the place of the file's; the others stay.
    fn over(self, file: Self) -> Self {
        let mut all = file.0;
        all.extend(self.0);
        Self(all)
    }

    const ADDS: bool = true;
}

struct Options;

impl<'de> Visitor<'de> for Options {
    type Value = PolicyOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&PolicyOptions::expected())
    }

    fn visit_unit<E: Error>(self) -> Result<PolicyOptions, E> {
        Ok(PolicyOptions::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PolicyOptions, A::Error> {
        Finite.visit_map(map).map(|value| match value {
            yaml::Value::Mapping(options) => PolicyOptions(options),
            _ => PolicyOptions::default(),
        })
    }
}

/// Any value whose numbers are finite.
struct Finite;

impl<'de> DeserializeSeed<'de> for Finite {
    type Value = yaml::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<yaml::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finite {
    type Value = yaml::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word, a number of 64 bits, a list or \"key: value\" pairs")
    }

    fn visit_unit<E: Error>(self) -> Result<yaml::Value, E> {
        Ok(yaml::Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<yaml::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<yaml::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<yaml::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<yaml::Value, E> {
        if value.is_finite() {
            Ok(value.into())
        } else {
            Err(E::custom(format_args!(
                "{value} is not possible here; expected a finite number"
            )))
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<yaml::Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<yaml::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Finite)? {
            values.push(value);
        }
        Ok(yaml::Value::Sequence(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<yaml::Value, A::Error> {
        let mut mapping = Mapping::new();
        while let Some(key) = map.next_key_seed(OptionName(&mapping))? {
            let value = map.next_value_seed(Finite)?;
            mapping.insert(key.into(), value);
        }
        Ok(yaml::Value::Mapping(mapping))
    }
}

/// The name of an option that comes for the first time.
struct OptionName<'a>(&'a Mapping);

impl<'de> DeserializeSeed<'de> for OptionName<'_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for OptionName<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an option")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        if self.0.contains_key(name) {
            return Err(E::custom(format_args!(
                "the key {name:?} stands here twice; expected it once"
            )));
        }
        Ok(name.to_owned())
    }
}
