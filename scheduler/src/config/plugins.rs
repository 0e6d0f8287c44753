//! `plugins`: shared objects to load, each with the hash that it must have.

use serde::Deserializer;
use serde::de::MapAccess;
use serde_json::json;
use vcpu_policy_api::yaml;

use super::list::{List, ListEntry, described, mapping};
use super::pairs::Fields;
use super::value::{AbsolutePath, Seed, Text, Value};
use crate::plugin::trust::Sha256;

/// A plugin to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginEntry {
    /// The shared object.
    pub path: AbsolutePath,
    /// The hash that it must have; `None`: any.
    pub sha256: Option<Sha256>,
}

/// All of them, in the order in which they are loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plugins(pub Vec<PluginEntry>);

impl Text for Sha256 {
    fn expected() -> String {
        "a SHA-256 hash of 64 hexadecimal digits".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn json_schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"})
    }
}

impl Value for Plugins {
    fn expected() -> String {
        "a list of plugins such as {path: /usr/lib/vcpu-scheduler/plugins/night.so}".to_owned()
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(List(Entry::default)).map(Self)
    }

    fn written(&self) -> yaml::Value {
        let entries = self.0.iter().map(|plugin| {
            let path = ("path", Some(plugin.path.yaml()));
            mapping([path, ("sha256", plugin.sha256.map(|hash| hash.yaml()))])
        });
        yaml::Value::Sequence(entries.collect())
    }

    fn schema() -> serde_json::Value {
        json!({
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "properties": {
                    "path": described::<AbsolutePath>("The shared object, an absolute path"),
                    "sha256": described::<Sha256>("The hash that it must have, as sha256sum prints it"),
                },
                "required": ["path"],
                "additionalProperties": false,
            },
        })
    }

    /// Flags name plugins beside those of the file.
    fn over(self, file: Self) -> Self {
        let mut all = file.0;
        all.extend(self.0);
        Self(all)
    }

    const ADDS: bool = true;
}

#[derive(Default)]
struct Entry {
    path: Option<AbsolutePath>,
    sha256: Option<Sha256>,
}

impl<'de> Fields<'de> for Entry {
    fn expected(&self) -> String {
        "a plugin such as {path: /usr/lib/vcpu-scheduler/plugins/night.so}".to_owned()
    }

    fn known(&self) -> Vec<&'static str> {
        vec!["path", "sha256"]
    }

    fn read<A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "path" => self.path = Some(map.next_value_seed(Seed::new())?),
            _ => self.sha256 = Some(map.next_value_seed(Seed::new())?),
        }
        Ok(())
    }
}

impl ListEntry<'_> for Entry {
    type Made = PluginEntry;

    fn made(self) -> Result<PluginEntry, String> {
        let path = self
            .path
            .ok_or("the plugin has no path; expected path, and sha256 if wished")?;
        Ok(PluginEntry {
            path,
            sha256: self.sha256,
        })
    }
}
