//! Running domains that could not be read: the sample goes on without them, and it is said once.
//!
//! A domain that is just being started or stopped cannot be read for a moment, and nobody wants to hear of that. So it is
//! said of one that could not be read for some time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::{debug, warn};

use super::definition::DefinitionError;
use super::error::{LibvirtError, is_alive};
use super::ffi::Connection;
use crate::host::{DomainKey, DomainUuid, HostError, Instance};

/// For how long a domain may be between two states.
const MOMENT: Duration = Duration::from_secs(10);

/// Why a domain is left out of a sample.
#[derive(Debug, Error)]
pub(super) enum GuestError {
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// The runs that were left out.
#[derive(Debug, Default)]
pub(super) struct Omissions {
    last: BTreeMap<(DomainUuid, Instance), Omission>,
    current: BTreeMap<(DomainUuid, Instance), Omission>,
}

/// Since when a run was left out of every sample, and whether that was said.
#[derive(Debug, Clone, Copy)]
struct Omission {
    since: Instant,
    said: bool,
}

impl Omission {
    /// Another sample without it; says whether this is the moment to say so.
    fn goes_on(&mut self, now: Instant) -> bool {
        let long = now.duration_since(self.since) >= MOMENT;
        long && !std::mem::replace(&mut self.said, long)
    }
}

impl Omissions {
    /// A sample begins.
    pub(super) fn begin(&mut self) {
        self.last = std::mem::take(&mut self.current);
    }

    /// The runs that this sample has left out.
    pub(super) fn unread(&self) -> Vec<DomainKey> {
        let runs = self.current.keys();
        runs.map(|&(uuid, instance)| DomainKey { uuid, instance })
            .collect()
    }

    /// Goes on without a domain that could not be read, unless that is because nothing can be read any more.
    pub(super) fn leave_out(
        &mut self,
        run: (DomainUuid, Instance),
        domain: &str,
        error: GuestError,
        connection: &Connection,
        uri: &str,
    ) -> Result<(), HostError> {
        let error = match error {
            GuestError::Libvirt(error) if !is_alive(connection) => {
                return Err(error.while_doing(format!("cannot read a domain of {uri}"), connection));
            }
            GuestError::Libvirt(error) if error.says_no_domain() => {
                debug!(domain, "it vanished while it was read");
                return Ok(());
            }
            error => error,
        };
        let now = Instant::now();
        let known = self.last.get(&run).copied();
        let mut omission = known.unwrap_or(Omission {
            since: now,
            said: false,
        });
        let say = omission.goes_on(now);
        self.current.insert(run, omission);
        let error: &(dyn std::error::Error + 'static) = &error;
        if say {
            warn!(domain, error, "left out, since it cannot be read");
        } else {
            debug!(domain, error, "left out of this sample");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_once() {
        let since = Instant::now();
        let mut omission = Omission { since, said: false };
        let said =
            [0, 1, 9, 10, 11, 60].map(|seconds| omission.goes_on(since + Duration::from_secs(seconds)));
        assert_eq!(said, [false, false, false, true, false, false]);
    }
}
