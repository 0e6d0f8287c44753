//! A policy's options: from what the operator wrote to the policy's own type.
//!
//! Options travel as one YAML mapping in text form. The policy's default options say which keys there are, so an
//! unknown key is refused here, by name and with the nearest known one, before the policy's own type sees it.

use thiserror::Error;

use crate::policy::{Decide, Policy, PolicyError};
use crate::yaml::{self, Mapping, Value, YamlError};

/// Why a policy could not be made from options.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// The text is not a YAML mapping.
    #[error("the options of policy {policy} are not \"key: value\" pairs")]
    NotAMapping {
        /// The policy's name.
        policy: String,
        /// What YAML says.
        #[source]
        source: Option<YamlError>,
    },
    /// A key that the policy does not have.
    #[error("policy {policy} has no option \"{key}\"{}; {}", did_you_mean(.suggestion.as_deref()), list(.known))]
    Unknown {
        /// The policy's name.
        policy: String,
        /// The key.
        key: String,
        /// The known key that is most like it, if one is.
        suggestion: Option<String>,
        /// All known keys.
        known: Vec<String>,
    },
    /// A value of the wrong type.
    #[error("an option of policy {policy} has a value that it cannot have: {message}")]
    Value {
        /// The policy's name.
        policy: String,
        /// What was found and what was expected.
        message: String,
    },
    /// The policy itself refused a value.
    #[error("policy {policy} does not accept its options")]
    Refused {
        /// The policy's name.
        policy: String,
        /// What the policy says.
        #[source]
        source: PolicyError,
    },
}

/// How an error about an unknown word names the known one that is most like it (see [`closest`]); empty if none is.
pub fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion
        .map(|word| format!(" (did you mean \"{word}\"?)"))
        .unwrap_or_default()
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() {
        "it has none".to_owned()
    } else {
        format!("known: {}", keys.join(", "))
    }
}

/// A policy's default options, one `key: value` line each; empty if it has none.
///
/// Options that are no such pairs come out as they are: [`check_defaults`] says what is wrong with them.
pub fn defaults<P: Policy>() -> String {
    match default_options::<P>() {
        Value::Null => String::new(),
        Value::Mapping(options) if options.is_empty() => String::new(),
        options => yaml::write(&options),
    }
}

/// The YAML text of options given as `key=value` pairs, the value in YAML; of several for one key, the last one holds.
pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut options = Mapping::new();
    for (key, value) in pairs {
        let value = yaml::read(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        options.insert(Value::String(key.to_owned()), value);
    }
    if options.is_empty() {
        String::new()
    } else {
        yaml::write(&options)
    }
}

/// Whether the YAML text of some options has this key.
pub fn has(options: &str, key: &str) -> bool {
    yaml::read::<Value>(options).is_ok_and(|options| options.get(key).is_some())
}

/// The number that an option has in the YAML text of some options.
pub fn number(options: &str, key: &str) -> Option<f64> {
    yaml::read::<Value>(options).ok()?.get(key)?.as_f64()
}

/// Makes a policy from the YAML text of its options; empty text means its defaults.
///
/// # Errors
/// If the text is no mapping, a key is unknown, or a value is not acceptable.
pub fn build<P: Policy>(options: &str) -> Result<Box<dyn Decide>, OptionsError> {
    let policy = || P::NAME.to_owned();
    let options = overlay(P::NAME, pairs(P::NAME, default_options::<P>())?, options)?;
    // By way of text, since that way errors name the key. Where there are no keys, the type may be a struct without
    // fields, which reads from {}, or (), which reads from null.
    let text = yaml::write(&options);
    let read = match yaml::read(&text) {
        Err(_) if options.is_empty() => yaml::read("null"),
        read => read,
    };
    let options = read.map_err(|YamlError { message, .. }| OptionsError::Value {
        policy: policy(),
        message,
    })?;
    let built = P::new(options).map_err(|source| OptionsError::Refused {
        policy: policy(),
        source,
    })?;
    Ok(Box::new(built))
}

/// All options of a policy, with a value each, in the two forms in which they cross the plugin ABI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteOptions {
    /// A YAML mapping; empty if the policy has no options.
    pub yaml: String,
    /// A `key=value` line each. What lies within another value has its path as its key (`limits.high`, `cpus.0`); in
    /// text, a backslash stands as two of them and a line break as a backslash and an n; null is empty.
    pub flat: String,
}

/// Completes the options that were given by those that were not, from the YAML text of a policy's defaults.
///
/// # Errors
/// If one of the texts is no mapping, or a key is given that the defaults do not have.
pub fn complete(policy: &str, defaults: &str, given: &str) -> Result<CompleteOptions, OptionsError> {
    let options = overlay(policy, mapping(policy, defaults)?, given)?;
    let mut flat = String::new();
    for (key, value) in &options {
        flatten(&key_name(key), value, &mut flat);
    }
    let yaml = if options.is_empty() {
        String::new()
    } else {
        yaml::write(&options)
    };
    Ok(CompleteOptions { yaml, flat })
}

/// Checks the YAML text of default options that someone else wrote.
///
/// # Errors
/// If it is no mapping, or has a key that nobody could write or that would steer a terminal; the text says which.
pub fn check_defaults(policy: &str, defaults: &str) -> Result<(), String> {
    let told = |error: OptionsError| match &error {
        OptionsError::NotAMapping {
            source: Some(source), ..
        } => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    for key in mapping(policy, defaults).map_err(told)?.keys() {
        let name = key.as_str().unwrap_or_default();
        if name.is_empty() || name.contains(|c: char| c.is_control() || c == '=') {
            let name = key_name(key);
            return Err(format!(
                "\"{}\" is no name of an option; expected text in one line, without \"=\"",
                name.escape_debug()
            ));
        }
    }
    Ok(())
}

fn flatten(path: &str, value: &Value, flat: &mut String) {
    let text = match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => value.replace('\\', "\\\\").replace('\n', "\\n"),
        Value::Sequence(values) => {
            for (at, value) in values.iter().enumerate() {
                flatten(&format!("{path}.{at}"), value, flat);
            }
            return;
        }
        Value::Mapping(values) => {
            for (key, value) in values {
                flatten(&format!("{path}.{}", key_name(key)), value, flat);
            }
            return;
        }
        Value::Tagged(tagged) => return flatten(path, &tagged.value, flat),
    };
    flat.extend([path, "=", &text, "\n"]);
}

/// The defaults, with what was given in their place. The defaults say which keys there are.
fn overlay(policy: &str, defaults: Mapping, given: &str) -> Result<Mapping, OptionsError> {
    let mut options = defaults;
    for (key, value) in mapping(policy, given)? {
        let Some(slot) = options.get_mut(&key) else {
            return Err(unknown(policy, &key, &options));
        };
        *slot = value;
    }
    Ok(options)
}

fn mapping(policy: &str, text: &str) -> Result<Mapping, OptionsError> {
    let refused = |source| OptionsError::NotAMapping {
        policy: policy.to_owned(),
        source,
    };
    pairs(policy, yaml::read(text).map_err(|source| refused(Some(source)))?)
}

fn pairs(policy: &str, value: Value) -> Result<Mapping, OptionsError> {
    match value {
        Value::Null => Ok(Mapping::new()),
        Value::Mapping(mapping) => Ok(mapping),
        _ => Err(OptionsError::NotAMapping {
            policy: policy.to_owned(),
            source: None,
        }),
    }
}

/// By way of text, since that is what the other side reads.
fn default_options<P: Policy>() -> Value {
    yaml::read(&yaml::write(&P::Options::default())).unwrap_or_default()
}

fn unknown(policy: &str, key: &Value, options: &Mapping) -> OptionsError {
    let known: Vec<String> = options.keys().map(key_name).collect();
    let key = key_name(key);
    OptionsError::Unknown {
        policy: policy.to_owned(),
        suggestion: closest(&key, &known).cloned(),
        key,
        known,
    }
}

fn key_name(key: &Value) -> String {
    key.as_str()
        .map_or_else(|| yaml::write(key).trim().to_owned(), str::to_owned)
}

/// The candidate that a mistyped word most probably meant.
pub fn closest<'a, S: AsRef<str>>(word: &str, candidates: &'a [S]) -> Option<&'a S> {
    let distance = |candidate: &S| strsim::damerau_levenshtein(word, candidate.as_ref());
    candidates
        .iter()
        .min_by_key(|candidate| distance(candidate))
        .filter(|candidate| {
            let longest = word.chars().count().max(candidate.as_ref().chars().count());
            distance(candidate) * 2 < longest
        })
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::plan::Plan;
    use crate::snapshot::Snapshot;

    #[derive(Serialize, Deserialize)]
    struct Options {
        threshold: f64,
        eager: bool,
    }

    impl Default for Options {
        fn default() -> Self {
            Self {
                threshold: 5.0,
                eager: false,
            }
        }
    }

    #[derive(Debug)]
    struct Sample;

    impl Policy for Sample {
        const NAME: &'static str = "sample";
        const VERSION: &'static str = "1.0.0";
        const SUMMARY: &'static str = "does nothing";
        type Options = Options;
        fn new(options: Options) -> Result<Self, PolicyError> {
            if options.threshold < 0.0 {
                return Err(PolicyError::new("threshold is below 0; expected 0 or more"));
            }
            Ok(Self)
        }
        fn decide(&mut self, _: &Snapshot<'_>, _: &mut Plan) -> Result<(), PolicyError> {
            Ok(())
        }
    }

    fn refusal(options: &str) -> String {
        let mut error: Option<&dyn std::error::Error> = None;
        let refused = build::<Sample>(options).err().expect("refused");
        let mut text = refused.to_string();
        error.replace(&refused);
        while let Some(source) = error.and_then(std::error::Error::source) {
            text = format!("{text}: {source}");
            error = Some(source);
        }
        text
    }

    #[test]
    fn good_options_make_a_policy() {
        for options in ["", "{}", "threshold: 7", "threshold: 7.5\neager: true"] {
            assert!(build::<Sample>(options).is_ok(), "{options}");
        }
        assert_eq!(defaults::<Sample>(), "threshold: 5.0\neager: false\n");
    }

    #[test]
    fn options_are_completed_and_flattened() {
        let defaults = "limit: 90.0\nquiet: {from: 22, days: [sat, sun]}\nlabel: ''\nnone:\n";
        let complete =
            complete("sample", defaults, "{label: \"a=b\\\\c\\nd\", limit: 80}").expect("good options");
        assert_eq!(
            complete.flat,
            "limit=80\nquiet.from=22\nquiet.days.0=sat\nquiet.days.1=sun\nlabel=a=b\\\\c\\nd\nnone=\n"
        );
        assert_eq!(
            super::complete("sample", "", "")
                .map(|complete| complete.yaml)
                .ok(),
            Some(String::new())
        );
        let refused = super::complete("sample", defaults, "limits: 3").expect_err("unknown");
        assert_eq!(
            refused.to_string(),
            "policy sample has no option \"limits\" (did you mean \"limit\"?); known: limit, quiet, label, none"
        );
    }

    #[test]
    fn default_options_are_checked() {
        for defaults in ["", "{}", "limit: 3", "quiet: {from: 22}\n'a b': [1]"] {
            assert_eq!(check_defaults("sample", defaults), Ok(()), "{defaults}");
        }
        let no_name = |name: &str| {
            Err(format!(
                "\"{name}\" is no name of an option; expected text in one line, without \"=\""
            ))
        };
        for (defaults, name) in [
            ("\"\\e[2J\": 1", "\\u{1b}[2J"),
            ("\"a\\nb\": 1", "a\\nb"),
            ("a=b: 1", "a=b"),
            ("'': 1", ""),
            ("3: 1", "3"),
        ] {
            assert_eq!(check_defaults("sample", defaults), no_name(name));
        }
        assert_eq!(
            check_defaults("sample", "- 1"),
            Err("the options of policy sample are not \"key: value\" pairs".to_owned())
        );
        assert!(check_defaults("sample", "{a: ").is_err_and(|said| said.contains("pairs: ")));
    }

    /// A policy whose options are one number: there is no key by which an operator could set it.
    #[derive(Debug)]
    struct Keyless;

    impl Policy for Keyless {
        const NAME: &'static str = "keyless";
        const VERSION: &'static str = "1.0.0";
        const SUMMARY: &'static str = "does nothing";
        type Options = f64;
        fn new(_: f64) -> Result<Self, PolicyError> {
            Ok(Self)
        }
        fn decide(&mut self, _: &Snapshot<'_>, _: &mut Plan) -> Result<(), PolicyError> {
            Ok(())
        }
    }

    #[test]
    fn options_without_keys_are_refused_on_either_side() {
        let said = "the options of policy keyless are not \"key: value\" pairs";
        let refused = build::<Keyless>("").err().expect("refused");
        assert_eq!(refused.to_string(), said);
        assert_eq!(
            check_defaults("keyless", &defaults::<Keyless>()),
            Err(said.to_owned())
        );
    }

    #[test]
    fn bad_options_are_named() {
        assert_eq!(
            refusal("treshold: 3"),
            "policy sample has no option \"treshold\" (did you mean \"threshold\"?); known: threshold, eager"
        );
        assert!(
            refusal("threshold: lots").contains("lots"),
            "{}",
            refusal("threshold: lots")
        );
        assert_eq!(
            refusal("threshold: -1"),
            "policy sample does not accept its options: threshold is below 0; expected 0 or more"
        );
        assert_eq!(
            refusal("7"),
            "the options of policy sample are not \"key: value\" pairs"
        );
    }
}
