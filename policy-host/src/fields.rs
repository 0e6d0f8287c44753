//! Numbers and byte strings one behind the other: what the payloads of the protocol are made of.
//!
//! All numbers are little-endian. Reading never trusts a length: a field that does not fit into what is there is an
//! error, and nothing is reserved for it before that is known.

/// The bytes end before the field does, or the field is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes fields off the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*front))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*front))
    }

    /// A number that counts something, `most` at the highest.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?)
            .ok()
            .filter(|&count| count <= most)
            .ok_or(Malformed)
    }

    /// UTF-8 text of `most` bytes at the longest, behind its length.
    pub(crate) fn text(&mut self, most: usize) -> Result<&'a str, Malformed> {
        let length = self.count(most)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)
    }
}

pub(crate) fn put_u32(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

/// Text behind its length; what is beyond `most` bytes is cut off at a character.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str, most: usize) {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    put_u32(bytes, u32::try_from(end).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&text.as_bytes()[..end]);
}

/// Text that a terminal or a log shows as it is: control characters are replaced.
pub(crate) fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|character| match character {
                '\n' | '\r' | '\t' => ' ',
                character if character.is_control() => char::REPLACEMENT_CHARACTER,
                character => character,
            })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}
