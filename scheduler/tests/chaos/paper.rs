//! A journal that outlives processes, fails, and tears.
//!
//! It keeps whole lines, as the journal on disk does for whoever reads it: a line that was not written in full counts as not
//! written. An append that fails may have written some of its lines all the same.

use std::collections::BTreeMap;

use vcpu_scheduler::engine::journal::{Entry, Journal, JournalError, Line, Subject};

use crate::world::{Shared, World};

/// What the journal holds.
pub(crate) type Holds = BTreeMap<Subject, Entry>;

pub(crate) struct Paper(pub(crate) Shared);

impl Journal for Paper {
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        self.0.lock().append(lines)
    }
}

impl World {
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        if !self.step() {
            return Err(failed("the process is dead"));
        }
        let fails = self.faults.journal(&mut self.dice);
        let written = if fails {
            let count = u32::try_from(lines.len()).expect("few lines");
            self.dice.below(count + 1) as usize
        } else {
            lines.len()
        };
        self.tell(format_args!("journal {written} of {} lines", lines.len()));
        for (at, line) in lines.iter().take(written).enumerate() {
            // Death may come within an append.
            if at % 4 == 3 && !self.step() {
                return Err(failed("the process is dead"));
            }
            match line {
                Line::Journal { .. } => {}
                Line::Vcpu(entry) => {
                    let Entry {
                        domain,
                        token,
                        vcpu,
                        original,
                        expected,
                        asked,
                        manual,
                        ..
                    } = entry;
                    self.tell(format_args!(
                        "  {}/{vcpu} {token}: was {original}, has {expected}, asked {asked:?}, another hand {manual:?}",
                        domain.0[0]
                    ));
                    self.intended(entry);
                    self.holds.insert(entry.subject(), entry.clone());
                }
                Line::Forget(subject) => {
                    let Subject { domain, token, vcpu } = subject;
                    self.tell(format_args!("  {}/{vcpu} {token}: forgotten", domain.0[0]));
                    self.holds.remove(subject);
                }
            }
        }
        if fails {
            return Err(failed("no space left on device"));
        }
        if self.step() {
            Ok(())
        } else {
            Err(failed("the process is dead"))
        }
    }
}

fn failed(why: &'static str) -> JournalError {
    JournalError::Io {
        operation: "write",
        path: "journal".into(),
        source: std::io::Error::other(why),
    }
}
