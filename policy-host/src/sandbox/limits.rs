//! How much of the machine the process may take.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{SandboxError, step};

/// Address space, in bytes: code, stack and heap together. A snapshot of 10,000 vCPUs takes a few megabytes of it.
const ADDRESS_SPACE: u64 = 512 << 20;
/// Stack of the thread that decides, in bytes.
const STACK: u64 = 8 << 20;
/// Open files: what loading a library with its own libraries needs.
const OPEN_FILES: u64 = 32;

/// What is limited, and to what. Time is limited from outside, by the deadline.
const LIMITS: &[(Resource, u64)] = &[
    (Resource::As, ADDRESS_SPACE),
    (Resource::Stack, STACK),
    (Resource::Nofile, OPEN_FILES),
    (Resource::Core, 0),
    (Resource::Fsize, 0),
    (Resource::Nproc, 0),
    (Resource::Memlock, 0),
    (Resource::Msgqueue, 0),
    (Resource::Nice, 0),
    (Resource::Rtprio, 0),
];

/// Sets every limit for good, or leaves it where it is lower already.
pub(super) fn set() -> Result<(), SandboxError> {
    for &(resource, limit) in LIMITS {
        let now = rustix::process::getrlimit(resource);
        let limit = Some(now.maximum.map_or(limit, |maximum| maximum.min(limit)));
        let new = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(resource, new).map_err(step("limit what it may use"))?;
    }
    Ok(())
}
