//! What a reader makes of [mutants](super::mutants): every answer is a value or an error that says where; nothing panics,
//! nothing hangs, and nothing takes more memory than an honest file could.

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use super::mutants::Originals;

/// How long one input may take, on the slowest and busiest of machines, before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most memory that reading and using one input may take. The largest scenario, of a hundred thousand guests, takes a
/// quarter of it.
const MOST_MEMORY: u64 = 256 << 20;
/// How much of an input is shown when it fails.
const SHOWN: usize = 2000;

/// A reader of one kind of input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    /// Reads and uses an input; gives an error as people see it.
    pub(crate) read: fn(&str) -> Result<(), String>,
    /// The longest error, in characters.
    pub(crate) longest_error: usize,
    /// Whether an error says where in the input it is.
    pub(crate) says_where: fn(&str) -> bool,
}

/// Has a reader read so many mutants; gives how many it accepted.
///
/// # Panics
/// If one of them is answered as it should not be.
pub(crate) fn check(originals: Originals, inputs: Range<u64>, reader: Reader) -> u64 {
    let (begun, watch) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut accepted = 0;
        for number in inputs {
            begun.send(number).expect("someone watches");
            let input = originals.mutant(number);
            // What is no text does not reach the readers: a file of it cannot be read as one.
            if let Ok(text) = std::str::from_utf8(&input) {
                accepted += u64::from(is_accepted(number, text, reader));
            }
        }
        accepted
    });
    let mut last = None;
    loop {
        match watch.recv_timeout(PATIENCE) {
            Ok(number) => last = Some(number),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("input {last:?} is never answered"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    reading
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn is_accepted(number: u64, text: &str, reader: Reader) -> bool {
    let shown: String = text.chars().take(SHOWN).collect();
    let mut answer = None;
    let memory = allocation_counter::measure(|| {
        answer = std::panic::catch_unwind(|| (reader.read)(text)).ok();
    });
    assert!(
        memory.bytes_max < MOST_MEMORY,
        "input {number} takes {} bytes:\n{shown}",
        memory.bytes_max
    );
    match answer {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            assert!(
                error.chars().count() < reader.longest_error && (reader.says_where)(&error),
                "input {number} is answered with \"{error}\":\n{shown}"
            );
            false
        }
        None => panic!("input {number} makes the reader panic:\n{shown}"),
    }
}

/// An error and its causes, as people see them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
