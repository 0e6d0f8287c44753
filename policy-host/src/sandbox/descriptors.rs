//! The descriptors that the process was started with.
//!
//! The scheduler hands over the socket as standard input and the library as standard output, so that starting the
//! process needs no code between fork and exec. Both are moved out of the way here, and everything else is closed.

#![expect(unsafe_code, reason = "closing what was inherited by its number")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio;

/// The first number behind the standard descriptors.
const FIRST: RawFd = 3;

/// Where standard input and output lead from now on.
const NULL: &str = "/dev/null";
/// Where the kernel lists what is open.
const LISTED: &str = "/proc/self/fd";

/// What is left.
pub(crate) struct Descriptors {
    /// To the scheduler and back.
    pub(crate) channel: File,
    /// The library.
    pub(crate) library: OwnedFd,
}

/// Keeps the socket, the library and standard error; closes everything else.
///
/// Call it first, while nothing in this process owns a descriptor.
pub(crate) fn descriptors() -> io::Result<Descriptors> {
    let channel = fcntl_dupfd_cloexec(stdio::stdin(), FIRST)?;
    let library = fcntl_dupfd_cloexec(stdio::stdout(), FIRST)?;
    let null = rustix::fs::open(NULL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| unusable(NULL, &error.into()))?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    drop(null);
    let kept = [channel.as_raw_fd(), library.as_raw_fd()];
    for number in inherited().map_err(|error| unusable(LISTED, &error))? {
        if number >= FIRST && !kept.contains(&number) {
            // SAFETY: nothing in this process owns the descriptor: it is none of the two above, and before them only
            // the standard ones were in use. (The folder that listed it is closed: closing again is an error that
            // changes nothing.)
            unsafe { libc::close(number) };
        }
    }
    Ok(Descriptors {
        channel: File::from(channel),
        library,
    })
}

/// The same error, and what it is about: on a system without it plugins have no process of their own.
fn unusable(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot open {path}, which a plugin's process needs: {error}"),
    )
}

/// The numbers of the open descriptors.
fn inherited() -> io::Result<Vec<RawFd>> {
    std::fs::read_dir(LISTED)?
        .map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())))
        .filter_map(Result::transpose)
        .collect()
}
