//! The live host: libvirt, here or remote.
//!
//! A [`LibvirtHost`] is one connection. Reading it costs one call for the ids of running domains and one for the map of
//! online CPUs, whatever the number of domains; then one call a domain, or none where the kernel can be asked instead
//! (see [`counters`]). What seldom changes is kept: what a domain's XML states (see [`guests`]), and the host's [`shape`].
//!
//! - A domain that vanishes while it is being read is left out, as is one that cannot be understood, which is said
//!   once. Neither costs the rest of the sample.
//! - Pins are live only. Just before one it is made sure that the domain is still in the run that the last sample showed:
//!   nothing that was meant for one run reaches the next. (libvirt has no call that does both at once.)
//! - An instance is libvirt's id of the running domain. Ids repeat across daemons; an incarnation does not.
//! - A keepsake is live metadata of the domain. One that cannot be understood is never replaced.
//! - What a call to a daemon that hangs comes to is known within half a minute: the connection is lost.
//!
//! Every call blocks until the daemon answers; a `LibvirtHost` belongs to one thread at a time, which may change.

mod capabilities;
mod connection;
mod counters;
mod definition;
mod error;
mod ffi;
mod guest;
mod guests;
mod identity;
mod isolated;
mod metadata;
mod omissions;
mod process;
mod shape;
mod stated;
mod stored;
mod xml;

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::debug;
use uuid::Uuid;
use vcpu_policy_api::cpuset::OsCpuSet;

pub use self::capabilities::CapabilitiesError;
use self::connection::connect;
use self::counters::{AffinityError, Counters, Source};
pub use self::definition::DefinitionError;
use self::error::is_alive;
pub use self::error::{LibvirtError, NotReplaced, PinRefusal};
use self::ffi::{Changes, Connection};
use self::guest::Guest;
use self::guests::{Guests, Through};
use self::identity::guests_of;
pub use self::identity::local_host_uuid;
pub use self::metadata::MetadataError;
pub use self::process::is_local;
use self::shape::Shape;
use super::{
    DomainKey, DomainSample, Host, HostError, HostIdentity, Instance, Keepsake, PinError, Sample, VcpuKey,
};

/// What a connection is allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only; libvirt itself refuses every pin.
    ReadOnly,
    /// Read and pin.
    ReadWrite,
}

/// A host reached through libvirt.
pub struct LibvirtHost {
    connection: Connection,
    /// Among all connections of this process.
    number: u64,
    uri: String,
    counters: Counters,
    shape: Shape,
    uuid: Option<Uuid>,
    guests: Guests,
}

/// How many connections there were.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// What is done with one domain, as errors name it.
const PIN: &str = "pin a vCPU on";
const READ_AFFINITY: &str = "read an affinity on";
const KEEP: &str = "keep something in a domain of";

/// The kind of metadata that is an XML element, as the crate wants it.
const METADATA_ELEMENT: i32 = virt_sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();

impl LibvirtHost {
    /// Connects to `uri`, or without one to what libvirt takes for the default (`LIBVIRT_DEFAULT_URI` first), and
    /// reads the host's shape.
    ///
    /// # Errors
    /// [`HostError::Lost`] if there is no connection; the text says so where [`Access::ReadOnly`] might have had one.
    /// [`HostError::Failed`] if there is one, but the host's shape could not be understood.
    pub fn open(uri: Option<&str>, access: Access) -> Result<Self, HostError> {
        let changes = Changes::default();
        let connection = connect(uri, access, &changes)?;
        let uri = match connection.uri() {
            Ok(resolved) => resolved,
            Err(_) => uri.unwrap_or("libvirt").to_owned(),
        };
        let (shape, capabilities) = Shape::read(&connection, &uri)?;
        let topology = &shape.topology;
        debug!(uri, cpus = %topology.online(), nodes = topology.nodes().len(), "connected");
        Ok(Self {
            counters: Counters::new(&uri),
            guests: Guests::new(&uri, changes),
            uuid: identity::host_uuid(&uri, &capabilities),
            connection,
            number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            uri,
            shape,
        })
    }

    /// The URI of the connection, as libvirt resolved it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Which host this is, by a name that stays the same for as long as the host is installed and that no other host has;
    /// `None` if it has none that can be relied on.
    pub fn host_uuid(&self) -> Option<Uuid> {
        self.uuid
    }

    /// Whether the host is this machine, as far as the URI says.
    pub fn is_local(&self) -> bool {
        is_local(&self.uri)
    }

    /// Reads the counters of the domains that are known.
    fn read_guests(&mut self) -> Result<Vec<DomainSample>, HostError> {
        let cpus = self.shape.cpu_bound();
        let counters = &mut self.counters;
        let ask_delays = self
            .guests
            .iter()
            .any(|guest| counters.wants_delays(&guest.source));
        let delays = if ask_delays {
            counters.delays(&self.connection)
        } else {
            ffi::Delays::new()
        };
        counters.count_files(self.guests.iter().map(|guest| &guest.source));
        let mut domains = Vec::with_capacity(self.guests.len());
        self.guests.for_each((&self.connection, &self.uri), |guest| {
            if matches!(guest.source, Source::Undecided) && guest.incarnation.is_none() {
                guest.incarnation = counters.incarnation(&guest.name, guest.uuid);
            }
            let mut source = mem::replace(&mut guest.source, Source::Undecided);
            let read = counters.read(
                &guest.subject(),
                &mut source,
                cpus,
                self.shape.map.as_ref(),
                &delays,
            );
            guest.source = source;
            let vcpus = read?;
            domains.push(DomainSample {
                uuid: guest.uuid,
                instance: guest.instance,
                name: Arc::clone(&guest.name),
                definition: Arc::clone(&guest.definition),
                incarnation: guest.incarnation.clone(),
                keepsake: guest.keepsake.as_ref().ok().cloned().flatten(),
                vcpus,
            });
            Ok(())
        })?;
        Ok(domains)
    }

    /// The guest, if it is still in the run that the caller means.
    fn running(&self, domain: &DomainKey) -> Result<&Guest, PinError> {
        let guest = self.guests.get(domain.uuid);
        guest
            .filter(|guest| guest.instance == domain.instance)
            .ok_or(PinError::Gone)
    }

    /// Makes sure that what is asked for now reaches the run that is known, and not a later one of the same domain: libvirt
    /// finds a domain by its UUID, and has no call that names a run.
    fn still_runs(&self, operation: &str, guest: &Guest) -> Result<(), PinError> {
        let uuid = Uuid::from_bytes(guest.uuid.0);
        match self.connection.lookup_domain_by_uuid(uuid) {
            Ok(now) if now.id().map(|id| Instance(u64::from(id))) == Some(guest.instance) => Ok(()),
            Ok(_) => Err(PinError::Gone),
            Err(error) => Err(self.act_failed(operation, guest, None, error.into())),
        }
    }

    /// The error of a call that has nothing to do with one domain.
    fn failed(&self, operation: &str, error: LibvirtError) -> HostError {
        error.while_doing(format!("cannot {operation} {}", self.uri), &self.connection)
    }

    /// What a failure to do something with a domain means, or with one vCPU of it.
    fn act_failed(&self, operation: &str, guest: &Guest, vcpu: Option<u32>, error: LibvirtError) -> PinError {
        if !is_alive(&self.connection) {
            return PinError::Host(self.failed(operation, error));
        }
        let source = |error| Box::new(error);
        match error {
            error if error.says_no_domain() => PinError::Gone,
            error if error.says_busy() => PinError::Busy {
                source: source(error),
            },
            error if error.says_forbidden() => PinError::Forbidden {
                source: source(error),
            },
            // libvirt has no code for "there is no such vCPU (any more)".
            _ if !self.has(guest, vcpu) => PinError::Gone,
            error => PinError::Refused {
                source: source(error),
            },
        }
    }

    /// Whether the domain runs and has the vCPU, as far as that can be found out.
    fn has(&self, guest: &Guest, vcpu: Option<u32>) -> bool {
        match ffi::vcpus(&guest.domain, guest.most_vcpus, self.shape.cpu_bound()) {
            Ok(vcpus) => vcpu.is_none_or(|number| vcpus.iter().any(|vcpu| vcpu.number == number)),
            Err(error) => !LibvirtError::from(error).says_gone(),
        }
    }
}

impl Host for LibvirtHost {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        // Without a UUID there is the URI, which says no less to whoever states it.
        let uuid = self
            .uuid
            .unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_URL, self.uri.as_bytes()));
        Ok(HostIdentity {
            name: format!("{uuid}-{}", guests_of(&self.uri)),
            is_local: self.is_local(),
            cpus: self.shape.cpus(),
            isolated: self.shape.isolated.clone(),
        })
    }

    fn sample(&mut self) -> Result<Sample, HostError> {
        let read_at_ns = self.counters.now_ns();
        self.shape.refresh(&self.connection, &self.uri)?;
        self.guests.refresh(Through {
            connection: &self.connection,
            uri: &self.uri,
            counters: &self.counters,
        })?;
        let domains = self.read_guests()?;
        Ok(Sample {
            read_at_ns,
            topology: Arc::clone(&self.shape.topology),
            isolated: self.shape.isolated.clone(),
            domains,
            unread: self.guests.unread(),
            connection: self.number,
        })
    }

    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        let guest = self.running(&vcpu.domain_key())?;
        if let Some(refusal) = error::refusal(cpus, &self.shape.topology) {
            return Err(PinError::Refused {
                source: Box::new(refusal),
            });
        }
        self.still_runs(PIN, guest)?;
        let map = ffi::map_of(cpus, self.shape.cpu_bound());
        guest
            .domain
            .pin_vcpu(vcpu.number, &map)
            .map_err(|error| self.act_failed(PIN, guest, Some(vcpu.number), error.into()))
    }

    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        let (bound, map) = (self.shape.cpu_bound(), self.shape.map.as_ref());
        let guest = self.running(&vcpu.domain_key())?;
        let (subject, source) = (guest.subject(), &guest.source);
        // Threads are those of the run that is known.
        if !matches!(source, Source::Threads(_)) {
            self.still_runs(READ_AFFINITY, guest)?;
        }
        match Counters::affinity(&subject, source, vcpu.number, bound, map) {
            Ok(affinity) => affinity.ok_or(PinError::Gone),
            Err(AffinityError::Libvirt(error)) => {
                Err(self.act_failed(READ_AFFINITY, guest, Some(vcpu.number), error))
            }
            Err(error) => Err(PinError::Refused {
                source: Box::new(error),
            }),
        }
    }

    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        let guest = self.running(domain)?;
        if let Err(error) = &guest.keepsake {
            return Err(PinError::Refused {
                source: Box::new(NotReplaced(error.clone())),
            });
        }
        let element = keepsake.map(metadata::element).transpose();
        let element = element.map_err(|error| PinError::Refused {
            source: Box::new(error),
        })?;
        self.still_runs(KEEP, guest)?;
        let done = guest.domain.set_metadata(
            METADATA_ELEMENT,
            element.as_deref(),
            Some(metadata::PREFIX),
            Some(metadata::ORIGINALS),
            virt_sys::VIR_DOMAIN_AFFECT_LIVE,
        );
        match done.map_err(LibvirtError::from) {
            Ok(()) => {}
            // There was none to take away.
            Err(error) if keepsake.is_none() && error.says_no_metadata() => {}
            Err(error) if error.says_unsupported() => {
                return Err(PinError::Unsupported {
                    source: Box::new(error),
                });
            }
            Err(error) => return Err(self.act_failed(KEEP, guest, None, error)),
        }
        if let Some(guest) = self.guests.get_mut(domain.uuid) {
            guest.keepsake = Ok(keepsake.map(|keepsake| Arc::new(keepsake.clone())));
        }
        Ok(())
    }
}

impl fmt::Debug for LibvirtHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibvirtHost")
            .field("uri", &self.uri)
            .field("guests", &self.guests.len())
            .finish_non_exhaustive()
    }
}
