//! The complete example with lines, words and bytes out of place.

use super::*;

/// A file that was damaged in whatever way is a configuration, or is refused in words that say where.
#[test]
fn damage_never_does_more_than_to_be_told() {
    const FILES: usize = 2_500;
    let example = example();
    let mut random = Random(oorandom::Rand32::new(2_500));
    let (mut good, mut located) = (0, 0);
    for _ in 0..FILES {
        let mut bytes = example.clone().into_bytes();
        for _ in 0..=random.below(3) {
            bytes = damaged(&bytes, &mut random);
        }
        let read = parse(&bytes).and_then(|file| {
            let effective = Sources::default().with(file);
            cross_check::check(&effective).map(|()| effective)
        });
        match read {
            Ok(effective) => {
                good += 1;
                parse(effective.to_yaml(&yaml::Mapping::new()).as_bytes())
                    .expect("what is printed can be read");
            }
            Err(error) => {
                let text = told(&ConfigError::Content {
                    file: "FILE".into(),
                    source: error.clone(),
                });
                let place = text
                    .strip_prefix("cannot use the configuration FILE: ")
                    .expect(&text);
                let has_place = match error {
                    ContentError::Yaml(YamlError { at: None, message }) => {
                        message.starts_with("more than one")
                    }
                    ContentError::NotUtf8 { .. } | ContentError::Yaml(_) => place.starts_with("line "),
                    ContentError::Value { path, .. } => place.starts_with(&path) && !path.is_empty(),
                    ContentError::TooLong => false,
                };
                assert!(
                    has_place && place.len() > 20,
                    "{text}\n{}",
                    String::from_utf8_lossy(&bytes)
                );
                located += 1;
            }
        }
    }
    assert!(
        good > FILES / 50 && located > FILES / 2,
        "{good} good, {located} refused"
    );
}

struct Random(oorandom::Rand32);

impl Random {
    /// From 0 to one less than `end`; 0 if there is nothing to choose from.
    fn below(&mut self, end: usize) -> usize {
        let draw = usize::try_from(self.0.rand_u32()).expect("32 bits");
        draw % end.max(1)
    }

    fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

/// The text with one more damage.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (one, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(10) {
        0 if !lines.is_empty() => drop(lines.remove(one)),
        1 if !lines.is_empty() => lines.insert(other, lines[one]),
        2 if !lines.is_empty() => lines.swap(one, other),
        3 => {
            let mut cut = bytes.to_vec();
            cut.truncate(random.below(bytes.len()));
            return cut;
        }
        4 => {
            let mut changed = bytes.to_vec();
            let at = random.below(changed.len());
            if let Some(byte) = changed.get_mut(at) {
                *byte = u8::try_from(random.below(256)).expect("a byte");
            }
            return changed;
        }
        5 => {
            let mut longer = bytes.to_vec();
            let junk = random.of(&[
                "\t", "\u{feff}", "\0", "- ", ": ", "[", "}", "\"", "&a ", "*a", "!t ", "%", "---\n", "é",
            ]);
            let at = random.below(longer.len());
            longer.splice(at..at, junk.bytes());
            return longer;
        }
        _ => return with_other_words(&text, random).into_bytes(),
    }
    lines.concat().into_bytes()
}

/// The text with a word left out, doubled, or in place of another.
fn with_other_words(text: &str, random: &mut Random) -> String {
    const WORDS: &[&str] = &[
        "",
        "0",
        "-1",
        "99999999999999999999",
        ".nan",
        "1e999",
        "0x7f",
        "none",
        "unlimited",
        "keep",
        "5s",
        "~",
        "true",
        "[]",
        "{}",
        "\"\"",
        "domains",
        "interval",
        "match",
        "cpus",
        "*",
        "0-4000000000",
    ];
    let mut words: Vec<&str> = text.split_inclusive(' ').collect();
    let (one, other) = (random.below(words.len()), random.below(words.len()));
    if words.is_empty() {
        return random.of(WORDS).to_owned();
    }
    match random.below(4) {
        0 => drop(words.remove(one)),
        1 => words.swap(one, other),
        2 => words.insert(other, words[one]),
        _ => words[one] = random.of(WORDS),
    }
    words.concat()
}
