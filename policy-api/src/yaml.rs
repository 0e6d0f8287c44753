//! The only place that knows which YAML library the project uses.
//!
//! Reading gives the value, or an error with line, column and what was expected. Values that serde types check while
//! they are read (a percentage, a CPU list) are located in the same way.

use serde::Serialize;
use serde::de::DeserializeOwned;
pub use serde_yaml::{Mapping, Value};
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
    if text.starts_with('\u{feff}') {
        return Err(YamlError {
            at: Some((1, 1)),
            message: "the text begins with a byte order mark; expected UTF-8 without one".to_owned(),
        });
    }
    if let Some(at) = too_deep(text) {
        return Err(YamlError {
            at: Some(at),
            message: "lists and pairs are nested too deeply here".to_owned(),
        });
    }
    serde_yaml::from_str(text).map_err(|error| {
        let mut at = error
            .location()
            .map(|location| (location.line(), location.column()));
        let mut message = error.to_string();
        // Of a character that no text may hold, the library states the byte.
        if let Some((problem, byte)) = message.split_once(" at position ")
            && let Some(before) = byte.parse().ok().and_then(|byte| text.get(..byte))
        {
            let line_start = before.rfind('\n').map_or(0, |end| end + 1);
            let column = before[line_start..].chars().count() + 1;
            at = Some((before.matches('\n').count() + 1, column));
            message = problem.to_owned();
        }
        // The library ends most messages with the place, which is told apart here.
        if let Some((line, column)) = at {
            message = message.replace(&format!(" at line {line} column {column}"), "");
            message = message.trim_start_matches('.').to_owned();
        }
        let message = elided(&in_words(&message));
        YamlError { at, message }
    })
}

/// How many brackets may be open at a time. The library itself follows 128, but takes a time that grows with the square of
/// what it does not follow; brackets in words and remarks, which need no partner, are counted here too.
const MOST_OPEN: usize = 1000;

/// Where a text opens more brackets than may be open.
fn too_deep(text: &str) -> Option<(usize, usize)> {
    let mut open: usize = 0;
    for (line, content) in (1..).zip(text.lines()) {
        for (column, character) in (1..).zip(content.chars()) {
            match character {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MOST_OPEN {
                return Some((line, column));
            }
        }
    }
    None
}

/// The most characters of a message, and how many of those are its end, which says what was expected.
const LONGEST_MESSAGE: usize = 600;
const LONGEST_END: usize = 250;

/// A message about an input without the middle of what it quotes, if that is very long.
pub fn elided(message: &str) -> String {
    let count = message.chars().count();
    if count <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    let begin = message.chars().take(LONGEST_MESSAGE - LONGEST_END - 1);
    let end = message.chars().skip(count - LONGEST_END);
    begin.chain(['…']).chain(end).collect()
}

/// Names the types of a programming language, and the library's peculiarities, in words that everybody knows.
fn in_words(message: &str) -> String {
    const WORDS: &[(&str, &str)] = &[
        (", expected u8", ", expected a whole number from 0 to 255"),
        (", expected u16", ", expected a whole number from 0 to 65535"),
        (", expected u32", ", expected a whole number from 0 to 4294967295"),
        (", expected u64", ", expected a whole number, 0 or more"),
        (", expected usize", ", expected a whole number, 0 or more"),
        (", expected i8", ", expected a whole number from -128 to 127"),
        (", expected i16", ", expected a whole number from -32768 to 32767"),
        (
            ", expected i32",
            ", expected a whole number from -2147483648 to 2147483647",
        ),
        (", expected i64", ", expected a whole number"),
        (", expected isize", ", expected a whole number"),
        (", expected f32", ", expected a number"),
        (", expected f64", ", expected a number"),
        (
            ", expected a YAML tag starting with '!'",
            ", expected a word, or a tag (!word)",
        ),
        (", expected a boolean", ", expected true or false"),
        (", expected a sequence", ", expected a list"),
        ("invalid type: sequence", "invalid type: list"),
        ("invalid type: map", "invalid type: \"key: value\" pairs"),
        ("invalid type: unit value", "invalid type: nothing"),
        ("invalid type: enum", "invalid type: tag"),
        (
            "recursion limit exceeded",
            "nested too deeply; expected fewer levels",
        ),
        (
            "repetition limit exceeded",
            "aliases that repeat too much; expected the text written out",
        ),
        ("` as u128", "`"),
        ("` as i128", "`"),
        (
            "found character that cannot start any token, while scanning for the next token",
            "a character that nothing can begin with, such as a tab; expected spaces, or quotes around the word",
        ),
        (
            "deserializing from YAML containing more than one document is not supported",
            "more than one YAML document; expected one",
        ),
    ];
    let message = WORDS.iter().fold(message.to_owned(), |message, (from, to)| {
        message.replace(from, to)
    });
    // What is behind it is a type's name in somebody's program.
    match message.split_once(", expected struct ") {
        Some((found, name)) if !name.contains(' ') => format!("{found}, expected \"key: value\" pairs"),
        _ => message,
    }
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

    /// As deep as the library goes, it is the library that says so; beyond, it is not even asked.
    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| read::<Value>(&format!("\n a: {}", "[".repeat(depth))).expect_err("deep");
        assert_eq!(
            nested(500_000).to_string(),
            "line 2, column 1005: lists and pairs are nested too deeply here"
        );
        assert!(nested(1000).message.contains("expected fewer levels"));
        assert!(read::<Value>(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_ok());
    }

    #[test]
    fn long_messages_lose_their_middle() {
        assert_eq!(elided("short"), "short");
        let quoted = "é".repeat(100_000);
        let error = read::<Vec<u32>>(&format!("[{quoted}]")).expect_err("no number");
        assert_eq!(error.message.chars().count(), LONGEST_MESSAGE);
        assert!(
            error.message.starts_with("[0]: invalid type: string \"éé"),
            "{error}"
        );
        assert!(
            error
                .message
                .ends_with("éé\", expected a whole number from 0 to 4294967295")
        );
    }

    #[test]
    fn types_are_named_in_words() {
        #[derive(Debug, serde::Deserialize)]
        struct Hours {
            #[expect(dead_code, reason = "only ever read")]
            from: u8,
        }
        #[derive(Debug, serde::Deserialize)]
        enum Mood {
            Soft,
        }
        fn said<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
            read::<T>(text).expect_err("refused").message
        }
        let found = "invalid type: integer `3`, expected";
        assert_eq!(said::<Hours>("3"), format!("{found} \"key: value\" pairs"));
        assert_eq!(
            said::<Hours>("from: 300"),
            "from: invalid value: integer `300`, expected a whole number from 0 to 255"
        );
        assert_eq!(
            said::<i32>("x"),
            "invalid type: string \"x\", expected a whole number from -2147483648 to 2147483647"
        );
        assert_eq!(
            said::<Mood>("{Soft: 3}"),
            "invalid type: \"key: value\" pairs, expected a word, or a tag (!word)"
        );
        assert!(matches!(read::<Mood>("Soft"), Ok(Mood::Soft)));
    }

    #[test]
    fn errors_say_where() {
        let error = read::<Vec<u32>>("- 1\n- two\n").expect_err("two is no number");
        assert_eq!(error.at, Some((2, 3)));
        assert_eq!(
            error.to_string(),
            "line 2, column 3: [1]: invalid type: string \"two\", expected a whole number from 0 to 4294967295"
        );
        assert_eq!(
            read::<u32>("{a: ").expect_err("unfinished").at.map(|at| at.0),
            Some(1)
        );
    }
}
