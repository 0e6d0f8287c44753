//! Patterns of domain names: `*`, `?`, `[0-3]` and `{a,b}` as in a shell.

use globset::{Glob, GlobMatcher};

/// Reads a pattern.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    Glob::new(pattern)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("\"{pattern}\" is not a pattern of names: {}", error.kind()))
}
