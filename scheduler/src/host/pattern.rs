//! Patterns of domain names: `*`, `?`, `[0-3]` and `{a,b}` as in a shell.

use globset::{Glob, GlobMatcher};

/// Characters that a pattern does not have to mean as they stand.
const SPECIAL: [char; 9] = ['*', '?', '[', ']', '{', '}', ',', '!', '\\'];

/// Reads a pattern.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    Glob::new(pattern)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("\"{pattern}\" is not a pattern of names: {}", error.kind()))
}

/// Which names a pattern matches, as far as its text shows that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach<'a> {
    pattern: &'a GlobMatcher,
    /// What stands before the first character that is special: the beginning of every name that it matches.
    plain: &'a str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is a name, and matches no other.
    Name,
    /// It matches all that begin as it does, as `web-*` does.
    Beginning,
    Other,
}

impl<'a> Reach<'a> {
    pub(crate) fn of(pattern: &'a GlobMatcher) -> Self {
        let text = pattern.glob().glob();
        let plain = text.find(SPECIAL).map_or(text, |end| &text[..end]);
        let kind = match &text[plain.len()..] {
            "" => Kind::Name,
            "*" => Kind::Beginning,
            _ => Kind::Other,
        };
        Self { pattern, plain, kind }
    }

    pub(crate) fn is_one_name(&self) -> bool {
        self.kind == Kind::Name
    }

    /// Whether there is no name that it does not match.
    pub(crate) fn is_every_name(&self) -> bool {
        self.kind == Kind::Beginning && self.plain.is_empty()
    }

    /// Whether it certainly matches every name that another one does. No is no proof of the contrary.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self.kind, other.kind) {
            (Kind::Name, _) => other.kind == Kind::Name && self.plain == other.plain,
            (Kind::Beginning, _) => other.plain.starts_with(self.plain),
            (Kind::Other, Kind::Name) => self.pattern.is_match(other.plain),
            (Kind::Other, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, covered: &[&str], not_covered: &[&str]) {
        let pattern = compile(pattern).expect("a pattern");
        let covers =
            |other: &&str| Reach::of(&pattern).covers(&Reach::of(&compile(other).expect("a pattern")));
        assert!(covered.iter().all(covers), "{covered:?}");
        assert!(!not_covered.iter().any(covers), "{not_covered:?}");
    }

    #[test]
    fn what_is_certain_is_seen() {
        check("*", &["*", "web", "web-*", "[ab]", "?", "{a,b}", ""], &[]);
        check(
            "web-*",
            &["web-1", "web-", "web-*", "web-1*", "web-[0-9]", "web-{a,b}x"],
            &["web*", "web", "*-web-", "{web-1,web-2}"],
        );
        check("web-[0-9]", &["web-1"], &["web-a", "web-?", "web-[0-9]*"]);
        check("web", &["web"], &["web?", "web-1"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_covered_is_matched(one in "[ab*?{},!/\\[\\]-]{0,3}", other in "[ab*?{},!/\\[\\]-]{0,3}", name in "[ab*,!/-]{0,3}") {
            if let (Ok(one), Ok(other)) = (compile(&one), compile(&other))
                && Reach::of(&one).covers(&Reach::of(&other))
                && other.is_match(&name)
            {
                prop_assert!(one.is_match(&name));
            }
        }
    }
}
