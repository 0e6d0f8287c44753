//! What can go wrong with a plugin's process, in words that say what happened and whose fault it is.
//!
//! Each text continues "policy P of the plugin F ...".

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use signal_hook::consts::signal::{
    SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ,
};
use thiserror::Error;
use vcpu_policy_host::plan_wire::MalformedPlan;
use vcpu_policy_host::wire::WireError;

/// What the process was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Giving up its rights: nothing of the plugin's has run.
    Starting,
    /// Loading the library.
    Loading,
    /// Making the policy from its options.
    Making,
    /// Deciding.
    Deciding,
    /// Nothing: it waited for the next tick.
    Waiting,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "before it loaded anything",
            Self::Loading => "while it was loaded",
            Self::Making => "while it was made from its options",
            Self::Deciding => "while it decided",
            Self::Waiting => "between two ticks",
        })
    }
}

/// Why there is no answer from a plugin's process.
#[derive(Debug, Error)]
pub enum Fault {
    /// A signal ended it.
    #[error("was killed by {} {stage}", Signal(*.signal))]
    Killed {
        /// The signal's number.
        signal: i32,
        /// When.
        stage: Stage,
    },
    /// It ended by itself.
    #[error("ended its process with exit status {status} {stage}")]
    Exited {
        /// The status.
        status: i32,
        /// When.
        stage: Stage,
    },
    /// It took too long, and was ended.
    #[error("was killed: no answer within {} {stage}", humantime::format_duration(*.deadline))]
    Late {
        /// How long it had.
        deadline: Duration,
        /// When.
        stage: Stage,
    },
    /// It closed the socket to the scheduler and went on, and was ended.
    #[error("was killed: it closed its connection to the scheduler {stage}")]
    HungUp {
        /// When.
        stage: Stage,
    },
    /// What it sent is no answer.
    #[error("was killed: it sent {} {stage}", .what)]
    Garbage {
        /// What it sent.
        what: Garbage,
        /// When.
        stage: Stage,
    },
    /// It can go on only from its beginning.
    #[error("failed and lost its state: {message}")]
    StateLost {
        /// What it says.
        message: String,
    },
    /// It says no: the library cannot be loaded, or the options are not accepted.
    #[error("cannot be used: {message}")]
    Refused {
        /// What it says.
        message: String,
    },
    /// It could not decide this time. Not a fault of the process.
    #[error("could not decide: {message}")]
    Undecided {
        /// What it says.
        message: String,
    },
    /// The program that hosts plugins cannot be started: not the plugin's fault.
    #[error("cannot be started, by no fault of its own: {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The program that hosts plugins is not what it should be: not the plugin's fault.
    #[error("cannot be started, by no fault of its own: {} {fault}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What became of it, which continues the sentence.
        fault: Box<Fault>,
    },
    /// The system failed while it was talked to: not the plugin's fault.
    #[error("cannot be talked to, by no fault of its own, {stage}")]
    System {
        /// When.
        stage: Stage,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The scheduler shall stop, and waits for nothing any more.
    #[error("was killed: the scheduler stops")]
    Stopping,
}

impl Fault {
    /// How a process ended that was not told to.
    pub(super) fn ended(status: ExitStatus, stage: Stage) -> Self {
        match (status.signal(), status.code()) {
            (Some(signal), _) => Self::Killed { signal, stage },
            (None, code) => Self::Exited {
                status: code.unwrap_or_default(),
                stage,
            },
        }
    }
}

/// What a process sent in place of an answer.
#[derive(Debug, Error)]
pub enum Garbage {
    /// Not a frame of the protocol.
    #[error(transparent)]
    Frame(#[from] WireError),
    /// Not a plan.
    #[error("a plan that cannot be read")]
    Plan(#[from] MalformedPlan),
    /// A plan that no policy could have made.
    #[error("a plan with {pins} pins for {vcpus} vCPUs")]
    TooManyPins {
        /// How many it has.
        pins: usize,
        /// How many there can be.
        vcpus: usize,
    },
    /// An answer to another question.
    #[error("an answer that was not asked for")]
    Unasked,
}

/// A signal by name, and what it usually means.
struct Signal(i32);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_hook::low_level::signal_name(self.0) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "signal {}", self.0)?,
        }
        let meaning = match self.0 {
            SIGSEGV | SIGBUS => "invalid memory access",
            SIGABRT => "it aborted",
            SIGSYS => "a system call that plugins may not make",
            SIGXFSZ => "it wrote to a file",
            SIGXCPU => "it used up its CPU time",
            SIGILL | SIGTRAP => "an invalid instruction",
            SIGFPE => "an arithmetic error",
            SIGKILL => "by the system or by hand; out of memory, perhaps",
            _ => return Ok(()),
        };
        write!(f, " ({meaning})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: i32, expected: &str) {
        let status = ExitStatus::from_raw(status);
        assert_eq!(Fault::ended(status, Stage::Deciding).to_string(), expected);
    }

    #[test]
    fn an_end_is_put_in_words() {
        check(
            SIGSEGV,
            "was killed by SIGSEGV (invalid memory access) while it decided",
        );
        check(40, "was killed by signal 40 while it decided");
        check(3 << 8, "ended its process with exit status 3 while it decided");
    }
}
