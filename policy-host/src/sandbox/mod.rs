//! What a plugin's process gives up, and when.
//!
//! [`descriptors`] and [`enter`] run before the library is loaded, since a library's constructors are foreign code too;
//! [`tighten`] runs after, when nothing has to be opened or mapped as code any more. Each step only ever takes rights
//! away, so whatever foreign code does later, it cannot undo one.
//!
//! What cannot be done without (no descriptors of the scheduler's, no privileges, limits) is an error when it fails.
//! What an older kernel may not have (landlock, seccomp) is reported in words, for the log. A kernel that restricted system
//! calls once and then does not again has been kept from it by the library: it is not used.

mod descriptors;
mod files;
mod limits;
mod privileges;
mod system_calls;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};
use thiserror::Error;

pub(crate) use descriptors::{Descriptors, descriptors};
pub(crate) use system_calls::tighten;

/// A right that could not be given up.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub(crate) struct SandboxError {
    what: &'static str,
    #[source]
    source: Errno,
}

fn step(what: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |source| SandboxError { what, source }
}

/// What is in force while a library is loaded.
#[derive(Debug)]
pub(crate) struct Confinement {
    /// What this kernel does not have, in words.
    pub(crate) missing: Vec<String>,
    /// Whether system calls are restricted, so that [`tighten`] has to succeed.
    pub(crate) is_filtered: bool,
}

/// Gives up everything that loading a library does not need; says in words what could not be given up.
pub(crate) fn enter(parent: Pid) -> Result<Confinement, SandboxError> {
    // Of two processes that could be ended for want of memory, it shall be this one. Not being allowed to is no harm.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    setsid().map_err(step("leave the scheduler's session"))?;
    privileges::drop()?;
    limits::set()?;
    // After the change of user, which would undo it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("be ended with the scheduler"))?;
    if getppid() != Some(parent) {
        // The scheduler ended before it could be noticed.
        return Err(step("find the scheduler that started it")(Errno::SRCH));
    }
    let mut missing = Vec::new();
    missing.extend(files::restrict());
    let unfiltered = system_calls::restrict();
    let is_filtered = unfiltered.is_none();
    missing.extend(unfiltered);
    Ok(Confinement { missing, is_filtered })
}
