//! Text that comes and goes over the ABI.

use std::ffi::c_char;

use super::types::Text;

impl Text {
    /// The text of a string; good for as long as the string is.
    pub(crate) fn of(text: &str) -> Self {
        Self {
            bytes: text.as_ptr().cast::<c_char>(),
            length: text.len() as u64,
        }
    }

    /// The bytes, `None` if they are more than `most` or the pointer is null.
    ///
    /// # Safety
    /// If the pointer is not null, that many bytes can be read from it, and stay as they are for `'a`.
    pub(crate) unsafe fn read<'a>(self, most: u64) -> Option<&'a [u8]> {
        if self.length == 0 {
            return Some(&[]);
        }
        if self.bytes.is_null() || self.length > most {
            return None;
        }
        let length = usize::try_from(self.length).ok()?;
        // SAFETY: not null; the caller vouches for the bytes; any address is aligned for bytes.
        Some(unsafe { std::slice::from_raw_parts(self.bytes.cast::<u8>(), length) })
    }

    /// A line for people: at most `most` bytes of it, what is not UTF-8 and what would steer a terminal replaced.
    ///
    /// # Safety
    /// As for [`Self::read`].
    pub(crate) unsafe fn line(self, most: u64) -> String {
        let shortened = Self {
            length: self.length.min(most),
            ..self
        };
        // SAFETY: no more bytes than the caller vouches for.
        let bytes = unsafe { shortened.read(most) }.unwrap_or_default();
        let mut line = String::from_utf8_lossy(bytes).into_owned();
        if line.contains(char::is_control) {
            line = line.replace(char::is_control, " ");
        }
        line
    }
}
