//! Real guests for tests: a libvirt daemon of our own, and what the kernel says about its guests.
//!
//! [`PrivateLibvirt::start`] gives a test an empty libvirt that nobody else uses. The test defines guests in
//! it that keep their vCPUs busy for a chosen share of the time, starts them, runs the program under test
//! against [`PrivateLibvirt::uri`], and reads from `/proc` what the program did. When the value is dropped,
//! or the test process dies, daemon, guests and files are gone.
//!
//! - `sandbox`: a folder, an ordinary user to run things as, and the end of everything started there
//! - `daemon`: the libvirt daemon in that sandbox, and `virsh` to talk to it
//! - `guest`: building, defining, starting and pinning guests
//! - `read_only`: a daemon that lets nobody write
//! - `threads`: masks, last CPU and CPU time of a guest's vCPU threads, read from the kernel
//!
//! The harness is for tests, so it panics where something is wrong, with a message that says what to do about
//! it. No wait in it is without a limit.

mod daemon;
mod guest;
mod read_only;
mod sandbox;
mod threads;

pub(crate) use daemon::PrivateLibvirt;
pub(crate) use guest::GuestSpec;
pub(crate) use read_only::ReadOnlyLibvirt;
pub(crate) use threads::cpus;

use std::thread;
use std::time::{Duration, Instant};

/// Asks `probe` every 10 ms until it has an answer; panics when it has none within `limit`. `what` completes
/// the sentence "gave up waiting for".
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(
            begin.elapsed() < limit,
            "gave up waiting for {what} after {limit:?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
