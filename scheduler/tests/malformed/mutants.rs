//! Files that are almost right.
//!
//! In go files that are right; out comes any number of inputs made of them by one to three changes each: lines and tokens
//! deleted, doubled and exchanged, texts cut off, bytes flipped, numbers and words replaced by the ones that break programs,
//! nesting deeper than any stack, references that multiply, bytes that are no text. What comes out depends on the files and
//! on the number of the mutant alone, so that a failure can be had again by its number.

use std::fmt::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use oorandom::Rand32;

/// What a file is written in.
#[derive(Debug, Clone, Copy)]
enum Language {
    Yaml,
    Xml,
}

/// Files of one language that are right.
#[derive(Debug)]
pub(crate) struct Originals {
    language: Language,
    texts: Vec<Vec<u8>>,
}

/// Numbers at and beyond the edges of what programs count in, and what is no number.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "-0",
    "1e308",
    "1e999",
    "-1e999",
    ".nan",
    ".inf",
    "-.inf",
    "NaN",
    "0.1",
    "1e-320",
    "255",
    "8193",
    "65535",
    "65536",
    "99999",
    "1048576",
    "4294967295",
    "4294967296",
    "4000000000",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "0x7f",
    "0o17",
    "1_000",
    "١٢",
];

/// Values that other values are mistaken for.
const WORDS: &[&str] = &[
    "null",
    "~",
    "true",
    "no",
    "[]",
    "{}",
    "[[1, 2], [3]]",
    "{a: {b: c}}",
    "\"\"",
    "''",
    "\"0-65535\"",
    "\"0-4294967295\"",
    "\"^0\"",
    "\"3-1\"",
    "\"0,,1\"",
    "none",
    "*",
    "&a",
    "*a",
    "!!binary x",
    "!thing",
    "|",
    ">",
    "---",
    "...",
    "%TAG",
    "? a",
    "100y",
    "0s",
    "{a,{b,{c,",
    "[!a-",
    "../../../etc/passwd",
    "<",
    "&amp;",
    "&x;",
    "<![CDATA[",
    "<!--",
    "<?pi",
    "\u{202e}",
    "\u{feff}",
];

impl Originals {
    /// The files of a folder that end so.
    pub(crate) fn read(folder: &Path, extension: &str) -> Self {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == extension));
        files.sort();
        let texts: Vec<Vec<u8>> = files
            .iter()
            .map(|file| std::fs::read(file).expect("readable"))
            .collect();
        assert!(!texts.is_empty(), "{} has no such files", folder.display());
        Self {
            language: if extension == "xml" {
                Language::Xml
            } else {
                Language::Yaml
            },
            texts,
        }
    }

    /// A mutant by its number.
    pub(crate) fn mutant(&self, number: u64) -> Vec<u8> {
        let mut chance = Rand32::new(number);
        let at = self.pick(&mut chance);
        let mut text = self.texts[at].clone();
        for _ in 0..chance.rand_range(1..4) {
            self.change(&mut text, &mut chance);
        }
        text
    }

    fn pick(&self, chance: &mut Rand32) -> usize {
        below(chance, self.texts.len())
    }

    fn change(&self, text: &mut Vec<u8>, chance: &mut Rand32) {
        match chance.rand_range(0..18) {
            0 => drop(text.drain(one(&lines(text), chance))),
            1 => repeat(text, &one(&lines(text), chance), chance),
            2 => exchange(text, &lines(text), chance),
            3 => drop(text.drain(one(&tokens(text), chance))),
            4 => repeat(text, &one(&tokens(text), chance), chance),
            5 => exchange(text, &tokens(text), chance),
            6 => text.truncate(below(chance, text.len() + 1)),
            7 => text.truncate(one(&tokens(text), chance).start),
            8 => text.truncate(one(&lines(text), chance).start),
            9 => flip(text, chance),
            10 => replace(text, one(&numbers(text), chance), any(NUMBERS, chance)),
            11 => replace(text, one(&tokens(text), chance), any(NUMBERS, chance)),
            12 => replace(text, one(&tokens(text), chance), any(WORDS, chance)),
            13 => self.nest(text, chance),
            14 => self.multiply(text, chance),
            15 => insert(
                text,
                chance,
                &[[0xff], [0xc3], [0], [0x80], [b'\t'], [b'\r'], [0x1b]],
            ),
            16 => self.graft(text, chance),
            _ => indent(text, chance),
        }
    }

    /// Puts something deeply nested in the place of a token.
    fn nest(&self, text: &mut Vec<u8>, chance: &mut Rand32) {
        let depth = [8, 100, 130, 1000, 50_000][below(chance, 5)];
        let opening = match self.language {
            Language::Yaml => ["[", "{a: ", "- ", "? "][below(chance, 4)],
            Language::Xml => ["<cell>", "<a b='", "<!--", "&lt;"][below(chance, 4)],
        };
        replace(text, one(&tokens(text), chance), &opening.repeat(depth));
    }

    /// Puts a reference to something that grows tenfold with each step in the place of a token.
    fn multiply(&self, text: &mut Vec<u8>, chance: &mut Rand32) {
        let at = one(&tokens(text), chance);
        let steps = chance.rand_range(2..12);
        let mut definitions = String::new();
        match self.language {
            Language::Yaml => {
                replace(text, at, &format!("*a{steps}"));
                definitions.push_str("bomb:\n  - &a0 [0, 0]\n");
                for step in 1..=steps {
                    let ten = format!("*a{}, ", step - 1).repeat(10);
                    writeln!(definitions, "  - &a{step} [{ten}]").expect("memory");
                }
            }
            Language::Xml => {
                replace(text, at, &format!("&a{steps};"));
                definitions.push_str("<!DOCTYPE a [<!ENTITY a0 \"0\">");
                for step in 1..=steps {
                    let ten = format!("&a{};", step - 1).repeat(10);
                    write!(definitions, "<!ENTITY a{step} \"{ten}\">").expect("memory");
                }
                definitions.push_str("]>");
            }
        }
        text.splice(0..0, definitions.into_bytes());
    }

    /// Goes on as another file.
    fn graft(&self, text: &mut Vec<u8>, chance: &mut Rand32) {
        let other = &self.texts[self.pick(chance)];
        let from = one(&lines(other), chance).start;
        text.truncate(one(&lines(text), chance).start);
        text.extend_from_slice(&other[from..]);
    }
}

fn below(chance: &mut Rand32, end: usize) -> usize {
    let end = u32::try_from(end).unwrap_or(u32::MAX).max(1);
    chance.rand_range(0..end) as usize
}

fn any<'a>(list: &[&'a str], chance: &mut Rand32) -> &'a str {
    list[below(chance, list.len())]
}

/// One of some places; the end of nothing if there is none.
fn one(places: &[Range<usize>], chance: &mut Rand32) -> Range<usize> {
    places.get(below(chance, places.len())).cloned().unwrap_or(0..0)
}

/// Each line with its end.
fn lines(text: &[u8]) -> Vec<Range<usize>> {
    let mut start = 0;
    let lines = text.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let place = start..start + line.len();
        start = place.end;
        place
    });
    lines.collect()
}

/// Each word or number, and each other character that is no space.
fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    let of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let parts = text.chunk_by(|a, b| of_word(a) && of_word(b));
    let mut start = 0;
    let places = parts.map(|part| {
        let place = start..start + part.len();
        start = place.end;
        place
    });
    places
        .filter(|place| !text[place.clone()].iter().all(u8::is_ascii_whitespace))
        .collect()
}

fn numbers(text: &[u8]) -> Vec<Range<usize>> {
    let mut tokens = tokens(text);
    tokens.retain(|place| text[place.clone()].iter().any(u8::is_ascii_digit));
    tokens
}

fn replace(text: &mut Vec<u8>, place: Range<usize>, by: &str) {
    text.splice(place, by.bytes());
}

/// Once more, or very often.
fn repeat(text: &mut Vec<u8>, place: &Range<usize>, chance: &mut Rand32) {
    let times = [1, 1, 1, 20, 2000][below(chance, 5)];
    let more = text[place.clone()].repeat(times);
    text.splice(place.end..place.end, more);
}

fn exchange(text: &mut Vec<u8>, places: &[Range<usize>], chance: &mut Rand32) {
    let (a, b) = (one(places, chance), one(places, chance));
    let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
    if first.end <= second.start {
        let (front, back) = (text[first.clone()].to_vec(), text[second.clone()].to_vec());
        text.splice(second, front);
        text.splice(first, back);
    }
}

fn flip(text: &mut [u8], chance: &mut Rand32) {
    for _ in 0..chance.rand_range(1..6) {
        let at = below(chance, text.len());
        if let Some(byte) = text.get_mut(at) {
            *byte ^= 1 << chance.rand_range(0..8);
        }
    }
}

fn insert(text: &mut Vec<u8>, chance: &mut Rand32, choices: &[[u8; 1]]) {
    let at = below(chance, text.len() + 1);
    text.insert(at, choices[below(chance, choices.len())][0]);
}

/// Moves a line to the right, or to the left.
fn indent(text: &mut Vec<u8>, chance: &mut Rand32) {
    let line = one(&lines(text), chance);
    if chance.rand_range(0..2) == 0 {
        text.splice(line.start..line.start, b"  ".iter().copied());
    } else if text[line.clone()].starts_with(b"  ") {
        text.drain(line.start..line.start + 2);
    }
}
