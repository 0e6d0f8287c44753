//! `domains`: rules for guests, of which the first that matches holds.

use std::fmt;

use serde::Deserializer;
use serde::de::MapAccess;
use serde_json::json;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::yaml;

use super::list::{List, ListEntry, described, mapping};
use super::pairs::Fields;
use super::value::{Seed, Text, Value};
use crate::engine::constraints::{DomainMatch, DomainRule};
use crate::host::{DomainUuid, Wish, pattern};

/// A rule, as the operator wrote it.
#[derive(Debug, Clone)]
pub struct DomainEntry {
    /// Which domains.
    pub matches: Match,
    /// What is asked for them.
    pub wish: Wish,
}

/// A UUID, or a pattern of names.
#[derive(Debug, Clone)]
pub struct Match {
    text: String,
    matches: DomainMatch,
}

/// Two are the same if they are of one UUID, or of patterns that are written the same.
impl PartialEq for Match {
    fn eq(&self, other: &Self) -> bool {
        match (&self.matches, &other.matches) {
            (DomainMatch::Uuid(one), DomainMatch::Uuid(other)) => one == other,
            _ => self.text == other.text,
        }
    }
}

impl Match {
    /// Which domains.
    pub(super) fn matches(&self) -> &DomainMatch {
        &self.matches
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for DomainEntry {
    fn eq(&self, other: &Self) -> bool {
        self.matches == other.matches && self.wish == other.wish
    }
}

/// All of them, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Domains(pub Vec<DomainEntry>);

impl Domains {
    /// The rules as the engine takes them.
    pub fn rules(&self) -> Vec<DomainRule> {
        let rule = |entry: &DomainEntry| DomainRule {
            text: entry.matches.text.clone(),
            matches: entry.matches.matches.clone(),
            wish: entry.wish.clone(),
        };
        self.0.iter().map(rule).collect()
    }
}

impl Text for Match {
    fn expected() -> String {
        "a domain's UUID, its name, or a pattern of names such as \"web-*\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let matches = if has_the_shape_of_a_uuid(text) {
            let uuid = uuid::Uuid::parse_str(text).map_err(|_| {
                format!("\"{text}\" is not a UUID; expected hexadecimal digits between the dashes")
            })?;
            DomainMatch::Uuid(DomainUuid(uuid.into_bytes()))
        } else if text.is_empty() {
            return Err(format!(
                "\"\" matches no domain; expected {}",
                <Self as Text>::expected()
            ));
        } else {
            DomainMatch::Name(pattern::compile(text)?)
        };
        Ok(Self {
            text: text.to_owned(),
            matches,
        })
    }

    fn text(&self) -> String {
        self.text.clone()
    }

    fn json_schema() -> serde_json::Value {
        json!({"type": "string", "minLength": 1})
    }
}

/// Words of letters and digits with dashes where a UUID has them: no operator names a guest like that, so a wrong digit
/// in it is a mistake and not a name.
fn has_the_shape_of_a_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let words: Vec<&str> = text.split('-').collect();
    words.len() == lengths.len()
        && words.iter().zip(lengths).all(|(word, length)| {
            word.len() == length && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

impl Value for Domains {
    fn expected() -> String {
        "a list of rules such as {match: \"web-*\", cpus: \"2-15\"}".to_owned()
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(List(Entry::default)).map(Self)
    }

    fn written(&self) -> yaml::Value {
        let entries = self.0.iter().map(|entry| {
            mapping([
                ("match", Some(entry.matches.yaml())),
                ("manage", entry.wish.manage.map(yaml::Value::from)),
                ("cpus", entry.wish.cpus.as_ref().map(Text::yaml)),
            ])
        });
        yaml::Value::Sequence(entries.collect())
    }

    fn schema() -> serde_json::Value {
        json!({
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "properties": {
                    "match": described::<Match>("A domain's UUID, its name, or a pattern of names such as web-*"),
                    "manage": described::<bool>("false: the domain counts as load and is never moved"),
                    "cpus": described::<OsCpuSet>("The CPUs that the domain is to stay on"),
                },
                "required": ["match"],
                "additionalProperties": false,
            },
        })
    }
}

#[derive(Default)]
struct Entry {
    matches: Option<Match>,
    manage: Option<bool>,
    cpus: Option<OsCpuSet>,
}

impl<'de> Fields<'de> for Entry {
    fn expected(&self) -> String {
        "a rule such as {match: \"web-*\", cpus: \"2-15\"}".to_owned()
    }

    fn known(&self) -> Vec<&'static str> {
        vec!["match", "manage", "cpus"]
    }

    fn read<A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "match" => self.matches = Some(map.next_value_seed(Seed::new())?),
            "manage" => self.manage = Some(map.next_value_seed(Seed::new())?),
            _ => self.cpus = Some(map.next_value_seed(Seed::new())?),
        }
        Ok(())
    }
}

impl ListEntry<'_> for Entry {
    type Made = DomainEntry;

    fn made(self) -> Result<DomainEntry, String> {
        let matches = self
            .matches
            .ok_or("the rule has no match; expected match, and manage or cpus")?;
        let wish = Wish {
            manage: self.manage,
            cpus: self.cpus,
        };
        match &wish {
            Wish {
                manage: None,
                cpus: None,
            } => Err(format!(
                "the rule for \"{}\" asks for nothing; expected manage or cpus",
                matches.text
            )),
            Wish {
                manage: Some(false),
                cpus: Some(_),
            } => Err(format!(
                "the rule for \"{}\" has cpus for domains that are not managed; expected one of manage: false and cpus",
                matches.text
            )),
            _ => Ok(DomainEntry { matches, wish }),
        }
    }
}
