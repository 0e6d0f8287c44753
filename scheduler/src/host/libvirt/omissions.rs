//! Running domains that could not be read: the sample goes on without them, and it is said once.

use std::collections::BTreeMap;

use tracing::{debug, warn};

use super::error::is_alive;
use super::ffi::Connection;
use super::guest::GuestError;
use crate::host::{DomainKey, DomainUuid, HostError, Instance};

/// The runs that were left out, and of how many samples in a row.
#[derive(Debug, Default)]
pub(super) struct Omissions {
    last: BTreeMap<(DomainUuid, Instance), u32>,
    current: BTreeMap<(DomainUuid, Instance), u32>,
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
        let times = self.last.get(&run).map_or(1, |times| times.saturating_add(1));
        self.current.insert(run, times);
        let error: &(dyn std::error::Error + 'static) = &error;
        // Once may be a domain that is just being started or stopped.
        if times == 2 {
            warn!(domain, error, "left out, since it cannot be read");
        } else {
            debug!(domain, error, "left out of this sample");
        }
        Ok(())
    }
}
