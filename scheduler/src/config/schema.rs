//! The JSON schema of the file, for editors.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key, Unsaid};

/// The schema, in the form of draft 2020-12.
pub fn schema() -> Value {
    let mut root = Map::new();
    for key in KEYS {
        match key.path.split_once('.') {
            None => {
                root.insert(key.path.to_owned(), of_key(key));
            }
            Some((group, name)) => {
                let entry = root.entry(group).or_insert_with(|| group_of(&Map::new()));
                entry["properties"][name] = of_key(key);
            }
        }
    }
    let mut schema = group_of(&root);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "The configuration of vcpu-scheduler".into();
    schema
}

/// Nothing stands for no pairs.
fn group_of(properties: &Map<String, Value>) -> Value {
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
}

fn of_key(key: &Key) -> Value {
    let mut schema = (key.schema)();
    schema["description"] = match key.unsaid {
        Unsaid::Value(_) => key.meaning.into(),
        Unsaid::Rule(rule) => format!("{}; absent: {rule}", key.meaning).into(),
    };
    if let Unsaid::Value(default) = key.unsaid
        && let Ok(default) = vcpu_policy_api::yaml::read::<Value>(default)
    {
        schema["default"] = default;
    }
    schema
}
