//! What a plugin's process writes to standard error, as lines of the scheduler's log.
//!
//! The program that hosts the plugin puts the level in front of its log lines; what else there is (a panic's message, a
//! library's complaint) is a warning. A plugin can write as much as it likes: a line is cut at [`LONGEST`] bytes, and
//! from one request to the next [`MOST`] lines are shown; the rest is counted and that is said.

use std::io::{ErrorKind, Read};
use std::process::ChildStderr;

use tracing::{debug, error, info, trace, warn};

/// In bytes; the rest of a longer line is dropped.
const LONGEST: usize = 1000;
/// In lines.
const MOST: u32 = 50;
/// How much is read at a time at most, so that a flood does not keep anything else waiting.
const GULP: usize = 1 << 16;

/// The reading end.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` once the other end is closed.
    pipe: Option<ChildStderr>,
    lines: Lines,
}

/// Lines of one plugin.
#[derive(Debug)]
struct Lines {
    plugin: String,
    /// What has come of the line that has not ended yet.
    unfinished: Vec<u8>,
    shown: u32,
    dropped: u64,
}

impl Output {
    /// Of a plugin with this name; the pipe must not block.
    pub(super) fn new(pipe: ChildStderr, plugin: String) -> Self {
        let lines = Lines {
            plugin,
            unfinished: Vec::new(),
            shown: 0,
            dropped: 0,
        };
        Self {
            pipe: Some(pipe),
            lines,
        }
    }

    /// The pipe, to wait for.
    pub(super) fn pipe(&self) -> Option<&ChildStderr> {
        self.pipe.as_ref()
    }

    /// Logs what is there, within the bounds.
    pub(super) fn relay(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut bytes = vec![0; GULP];
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(count) => self.lines.take(&bytes[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.pipe = None,
        }
    }

    /// Says how much was not shown, and begins to count anew.
    pub(super) fn settle(&mut self) {
        let lines = &mut self.lines;
        if lines.dropped > 0 {
            let plugin = &lines.plugin;
            warn!(plugin, "{} more lines of its output are not shown", lines.dropped);
        }
        (lines.shown, lines.dropped) = (0, 0);
    }

    /// Logs what came last.
    pub(super) fn finish(&mut self) {
        self.relay();
        let rest = std::mem::take(&mut self.lines.unfinished);
        self.lines.show(&rest);
        self.settle();
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LONGEST.saturating_sub(self.unfinished.len());
            self.unfinished.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.unfinished);
                self.show(&line);
            }
        }
    }

    fn show(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if self.shown >= MOST {
            self.dropped += 1;
            return;
        }
        self.shown += 1;
        let line: String = line
            .chars()
            .map(|character| {
                if character.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    character
                }
            })
            .collect();
        let plugin = &self.plugin;
        match line.split_once(' ') {
            Some(("ERROR", text)) => error!(plugin, "{text}"),
            Some(("INFO", text)) => info!(plugin, "{text}"),
            Some(("DEBUG", text)) => debug!(plugin, "{text}"),
            Some(("TRACE", text)) => trace!(plugin, "{text}"),
            Some(("WARN", text)) => warn!(plugin, "{text}"),
            _ => warn!(plugin, "{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_a_long_line_is_cut() {
        let mut lines = Lines {
            plugin: "test".to_owned(),
            unfinished: Vec::new(),
            shown: 0,
            dropped: 0,
        };
        for _ in 0..MOST + 7 {
            lines.take(b"INFO flood\n\n");
        }
        assert_eq!((lines.shown, lines.dropped), (MOST, 7));
        for _ in 0..100 {
            lines.take(&[b'x'; 4096]);
        }
        assert_eq!(lines.unfinished.len(), LONGEST);
    }
}
