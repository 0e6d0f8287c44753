//! Names of others on the user's terminal.
//!
//! A domain's name is chosen by whoever made the domain. libvirt lets it hold characters that a terminal obeys.

/// A name with every control character spelled out, as in Rust's source text.
pub(super) fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(printable("web-1 \"ä\\"), "web-1 \"ä\\");
        assert_eq!(
            printable("a\r\u{1b}[2Jb\u{9b}1A\n"),
            "a\\r\\u{1b}[2Jb\\u{9b}1A\\n"
        );
    }
}
