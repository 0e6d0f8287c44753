//! The configuration in force as a file that gives the same, with a comment where each value comes from.

use vcpu_policy_api::yaml;

use super::CONNECT_VARIABLE;
use super::keys::{Effective, KEYS, Key, Origin, Unsaid};

/// The column in which comments begin, where the line is not longer.
const COMMENT_COLUMN: usize = 40;

impl Effective {
    /// The text of a file that, read without flags, gives this configuration again.
    ///
    /// A value that follows from other things stands as a comment, so that it goes on following from them.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let mut group = "";
        for key in KEYS {
            let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if above != group && !above.is_empty() {
                text.push_str(&format!("{above}:\n"));
            }
            group = above;
            let indent = if above.is_empty() { "" } else { "  " };
            let origin = origin_in_words(self.origin(key.path));
            for (at, line) in self.lines(key, name).into_iter().enumerate() {
                let line = format!("{indent}{line}");
                if at == 0 {
                    text.push_str(&format!("{line:COMMENT_COLUMN$} # {origin}\n"));
                } else {
                    text.push_str(&format!("{line}\n"));
                }
            }
        }
        text
    }

    /// The lines of a key; a comment may stand behind the first of them.
    fn lines(&self, key: &Key, name: &str) -> Vec<String> {
        let Some(value) = (key.written)(self) else {
            let (Unsaid::Value(unsaid) | Unsaid::Rule(unsaid)) = key.unsaid;
            return vec![format!("# {name}: {unsaid}")];
        };
        let nested = match &value {
            yaml::Value::Mapping(pairs) => !pairs.is_empty(),
            yaml::Value::Sequence(list) => !list.is_empty(),
            _ => false,
        };
        let written = yaml::write(&value);
        let written = written.trim_end();
        if nested {
            let lines = written
                .lines()
                .map(|line| format!("  {line}").trim_end().to_owned());
            return std::iter::once(format!("{name}:")).chain(lines).collect();
        }
        // A word with line breaks would be written over several lines; JSON's strings are YAML's too.
        let word = value.as_str().filter(|_| written.contains('\n'));
        let written = word.map_or_else(
            || written.to_owned(),
            |word| format!("{}", serde_json::Value::from(word)),
        );
        vec![format!("{name}: {written}")]
    }
}

fn origin_in_words(origin: Origin) -> String {
    match origin {
        Origin::Flag => "flag".to_owned(),
        Origin::File => "file".to_owned(),
        Origin::FlagAndFile => "flag and file".to_owned(),
        Origin::Environment => format!("environment, {CONNECT_VARIABLE}"),
        Origin::Default => "default".to_owned(),
    }
}
