//! The only place that knows which YAML library the project uses.
//!
//! Reading gives the value, or an error with line, column and what was expected. Values that serde types check while
//! they are read (a percentage, a CPU list) are located in the same way.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why a text is not the YAML that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{message}", location(*.at))]
pub struct YamlError {
    /// Line and column, both from 1, where that is known.
    pub at: Option<(usize, usize)>,
    /// What was found and what was expected, with the path of the key.
    pub message: String,
}

fn location(at: Option<(usize, usize)>) -> String {
    at.map(|(line, column)| format!("line {line}, column {column}: "))
        .unwrap_or_default()
}

/// Reads a value.
///
/// # Errors
/// If the text is not YAML, or not of the type's form.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    serde_yaml::from_str(text).map_err(|error| {
        let at = error
            .location()
            .map(|location| (location.line(), location.column()));
        let mut message = error.to_string();
        // The library ends most messages with the place, which is told apart here.
        if let Some((line, column)) = at {
            message = message.replace(&format!(" at line {line} column {column}"), "");
            message = message.trim_start_matches('.').to_owned();
        }
        YamlError { at, message }
    })
}

/// Writes a value.
///
/// # Panics
/// If the value has a form that YAML cannot express; none of this project's types has.
pub fn write<T: Serialize>(value: &T) -> String {
    serde_yaml::to_string(value).expect("a value of a form that YAML has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where() {
        let error = read::<Vec<u32>>("- 1\n- two\n").expect_err("two is no number");
        assert_eq!(error.at, Some((2, 3)));
        assert_eq!(
            error.to_string(),
            "line 2, column 3: [1]: invalid type: string \"two\", expected u32"
        );
        assert_eq!(
            read::<u32>("{a: ").expect_err("unfinished").at.map(|at| at.0),
            Some(1)
        );
    }
}
