//! The configuration in force as a file that gives the same, with a comment where each value comes from.

use vcpu_policy_api::yaml::{self, Mapping};

use super::CONNECT_VARIABLE;
use super::keys::{Effective, KEYS, Key, Origin, Unsaid};

/// The column in which comments begin, where the line is not longer.
const COMMENT_COLUMN: usize = 40;

/// A line, and what is said behind it.
type Line = (String, Option<String>);

impl Effective {
    /// The text of a file that, read without flags, gives this configuration again.
    ///
    /// A value that follows from other things stands as a comment, so that it goes on following from them. Options that
    /// nobody set are completed by `defaults`, those of the policy.
    pub fn to_yaml(&self, defaults: &Mapping) -> String {
        let mut text = String::new();
        let mut group = "";
        for key in KEYS {
            let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if above != group && !above.is_empty() {
                text.extend([above, ":\n"]);
            }
            group = above;
            let mut lines = self.lines(key, name);
            if key.path == "policy.options" {
                self.complete_options(&mut lines, defaults);
            }
            let indent = if above.is_empty() { "" } else { "  " };
            for (line, comment) in lines {
                let line = format!("{indent}{line}");
                let line = match comment {
                    Some(comment) => format!("{line:COMMENT_COLUMN$} # {comment}"),
                    None => line,
                };
                text.extend([&line, "\n"]);
            }
        }
        text
    }

    fn lines(&self, key: &Key, name: &str) -> Vec<Line> {
        let origin = Some(in_words(self.origin(key.path)));
        let Some(value) = (key.written)(self) else {
            let (Unsaid::Value(unsaid) | Unsaid::Rule(unsaid)) = key.unsaid;
            return vec![(format!("# {name}: {unsaid}"), origin)];
        };
        let lines = lines(name, &value);
        let comments = std::iter::once(origin).chain(std::iter::repeat(None));
        lines.into_iter().zip(comments).collect()
    }

    /// Adds to the lines of `options` those that the policy has and nobody set.
    fn complete_options(&self, lines_of_options: &mut Vec<Line>, defaults: &Mapping) {
        let rest = defaults
            .iter()
            .filter(|(name, _)| !self.options.0.contains_key(*name));
        let mut rest: Vec<Line> = rest
            .flat_map(|(name, value)| lines(name.as_str().unwrap_or_default(), value))
            .map(|line| (format!("  {line}"), Some(in_words(Origin::Default))))
            .collect();
        if let Some((first, _)) = lines_of_options.first_mut()
            && !rest.is_empty()
        {
            "options:".clone_into(first);
        }
        lines_of_options.append(&mut rest);
    }
}

/// A key with its value, as YAML.
fn lines(name: &str, value: &yaml::Value) -> Vec<String> {
    let nested = match value {
        yaml::Value::Mapping(pairs) => !pairs.is_empty(),
        yaml::Value::Sequence(list) => !list.is_empty(),
        _ => false,
    };
    let written = yaml::write(value);
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
        |word| serde_json::Value::from(word).to_string(),
    );
    vec![format!("{name}: {written}")]
}

fn in_words(origin: Origin) -> String {
    match origin {
        Origin::Flag => "flag".to_owned(),
        Origin::File => "file".to_owned(),
        Origin::FlagAndFile => "flag and file".to_owned(),
        Origin::Environment => format!("environment, {CONNECT_VARIABLE}"),
        Origin::Default => "default".to_owned(),
    }
}
