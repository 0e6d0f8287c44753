//! What a policy says beside its plan: lines in the log of whoever runs it.
//!
//! A plan's reasons and notes are for the operator, and every tick has some. A log line is for what they cannot say: a
//! state that should not be, the steps of an algorithm that is being worked on. [`error`], [`warn`], [`info`],
//! [`debug`] and [`trace`] may be called anywhere while a policy is made or decides; elsewhere, and where nobody
//! listens, they do nothing and do not even format.
//!
//! ```
//! use vcpu_policy_api::log;
//! # let (steps, stddev) = (3, 12.5);
//! log::debug(format_args!("{steps} steps bring the deviation to {stddev:.1}"));
//! ```
//!
//! Logging is no hole in the purity of a decision: nothing comes back.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// How much a line matters, as the daemon understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The policy cannot do its job.
    Error,
    /// The operator should look.
    Warn,
    /// Something changed.
    Info,
    /// Once a tick.
    Debug,
    /// Many times a tick.
    Trace,
}

/// Where lines go.
pub type Sink = dyn Fn(Level, &str);

thread_local! {
    static LISTENER: RefCell<Option<Rc<Sink>>> = const { RefCell::new(None) };
}

/// Makes `call`, during which the lines of this thread go to `sink`.
pub fn with_sink<R>(sink: Rc<Sink>, call: impl FnOnce() -> R) -> R {
    struct Restore(Option<Rc<Sink>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LISTENER.replace(self.0.take());
        }
    }
    let _restore = Restore(LISTENER.replace(Some(sink)));
    call()
}

/// Writes a line at [`Level::Error`].
pub fn error(line: impl fmt::Display) {
    write(Level::Error, &line);
}

/// Writes a line at [`Level::Warn`].
pub fn warn(line: impl fmt::Display) {
    write(Level::Warn, &line);
}

/// Writes a line at [`Level::Info`].
pub fn info(line: impl fmt::Display) {
    write(Level::Info, &line);
}

/// Writes a line at [`Level::Debug`].
pub fn debug(line: impl fmt::Display) {
    write(Level::Debug, &line);
}

/// Writes a line at [`Level::Trace`].
pub fn trace(line: impl fmt::Display) {
    write(Level::Trace, &line);
}

fn write(level: Level, line: &dyn fmt::Display) {
    // Taken out of the cell first: the line's Display, or the sink, may log as well.
    let listener = LISTENER.with_borrow(Clone::clone);
    if let Some(sink) = listener {
        sink(level, &line.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_innermost_listener_and_nowhere_without_one() {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let listen = |who: &'static str| -> Rc<Sink> {
            let heard = Rc::clone(&heard);
            Rc::new(move |level, line: &str| heard.borrow_mut().push(format!("{who} {level:?} {line}")))
        };
        info("nobody");
        with_sink(listen("outer"), || {
            warn("one");
            with_sink(listen("inner"), || debug(format_args!("{}", 2)));
            let _ = std::panic::catch_unwind(|| with_sink(Rc::new(|_, _| {}), || panic!("left early")));
            error("three");
        });
        info("nobody");
        assert_eq!(
            *heard.borrow(),
            ["outer Warn one", "inner Debug 2", "outer Error three"]
        );
    }
}
