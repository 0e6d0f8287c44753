//! The live host: libvirt, here or remote.
//!
//! A [`LibvirtHost`] is one connection. Reading it costs one call for the list of running domains and one for the
//! map of online CPUs, whatever the number of domains; then one call a domain, or none where the kernel can be asked
//! instead (see [`counters`]). What seldom changes is kept: a domain's definition is read when the domain is first
//! seen running, the host's shape when the connection is made and when a CPU goes on- or offline.
//!
//! - A domain that vanishes while it is being read is left out, as is one that cannot be understood, which is said
//!   once. Neither costs the rest of the sample.
//! - Pins are live only. A vCPU is pinned through the handle that the last sample found, so pinning looks nothing up.
//! - An instance is libvirt's id of the running domain. Ids repeat across daemons, never within a connection.
//!
//! Every call blocks until the daemon answers; a `LibvirtHost` belongs to one thread at a time, which may change.

mod capabilities;
mod connection;
mod counters;
mod definition;
mod error;
mod ffi;
mod guest;
mod process;
mod xml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tracing::{debug, info, warn};
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::topology::Topology;

pub use self::capabilities::CapabilitiesError;
use self::connection::{connect, cpu_map, topology};
use self::counters::{Counters, Subject};
pub use self::definition::DefinitionError;
use self::error::is_alive;
pub use self::error::{LibvirtError, PinRefusal};
use self::ffi::{Connection, CpuMap};
use self::guest::{Guest, GuestError};
use super::{
    DomainKey, DomainSample, DomainUuid, Host, HostError, HostIdentity, Instance, Keepsake, PinError, Sample,
    VcpuKey,
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
    uri: String,
    counters: Counters,
    map: Option<CpuMap>,
    topology: Arc<Topology>,
    guests: BTreeMap<DomainUuid, Guest>,
    omissions: Omissions,
}

/// Running domains that could not be read, and in how many samples in a row.
type Omissions = BTreeMap<(DomainUuid, Instance), u32>;

impl LibvirtHost {
    /// Connects to `uri`, or without one to what libvirt takes for the default (`LIBVIRT_DEFAULT_URI` first), and
    /// reads the host's shape.
    ///
    /// # Errors
    /// [`HostError::Lost`] if there is no connection; the text says so where [`Access::ReadOnly`] might have had one.
    /// [`HostError::Failed`] if there is one, but the host's shape could not be understood.
    pub fn open(uri: Option<&str>, access: Access) -> Result<Self, HostError> {
        let connection = connect(uri, access)?;
        let uri = match connection.uri() {
            Ok(resolved) => resolved,
            Err(_) => uri.unwrap_or("libvirt").to_owned(),
        };
        let map = cpu_map(&connection, &uri)?;
        let topology = Arc::new(topology(&connection, &uri, map.as_ref())?);
        debug!(uri, cpus = %topology.online(), nodes = topology.nodes().len(), "connected");
        Ok(Self {
            counters: Counters::new(&uri),
            connection,
            uri,
            map,
            topology,
            guests: BTreeMap::new(),
            omissions: Omissions::new(),
        })
    }

    /// The URI of the connection, as libvirt resolved it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The numbers of the host's CPUs are below this one.
    fn cpu_bound(&self) -> u32 {
        let beyond = |cpus: &OsCpuSet| cpus.iter().last().map_or(0, |last| last.0 + 1);
        let mapped = self.map.as_ref().map_or(0, |map| map.length);
        mapped
            .max(beyond(self.topology.offline()))
            .max(beyond(&self.topology.online()))
    }

    /// Reads the host's shape anew if CPUs went on- or offline.
    fn refresh_topology(&mut self) -> Result<(), HostError> {
        let map = cpu_map(&self.connection, &self.uri)?;
        if map != self.map {
            self.topology = Arc::new(topology(&self.connection, &self.uri, map.as_ref())?);
            self.map = map;
            info!(online = %self.topology.online(), "the host's CPUs changed");
        }
        Ok(())
    }

    /// Brings the kept guests up to date with the list of running domains.
    fn refresh_guests(&mut self) -> Result<Omissions, HostError> {
        let listed = self
            .connection
            .list_all_domains(virt_sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            .map_err(|error| self.failed("list the domains of", error.into()))?;
        let mut known = std::mem::take(&mut self.guests);
        let mut omissions = Omissions::default();
        for domain in listed {
            // Without an id it stopped after it was listed.
            let (Ok(uuid), Some(id), Ok(name)) = (domain.uuid(), domain.id(), domain.name()) else {
                continue;
            };
            let uuid = DomainUuid(uuid.into_bytes());
            let instance = Instance(u64::from(id));
            match known.remove(&uuid) {
                Some(guest) if guest.instance == instance && *guest.name == *name => {
                    self.guests.insert(uuid, guest);
                }
                _ => match Guest::meet(domain, instance, &name) {
                    Ok(guest) => {
                        self.guests.insert(uuid, guest);
                    }
                    Err(error) => self.leave_out((uuid, instance), &name, error, &mut omissions)?,
                },
            }
        }
        Ok(omissions)
    }

    /// Reads the domains that are kept.
    fn read_guests(&mut self, omissions: &mut Omissions) -> Result<Vec<DomainSample>, HostError> {
        let cpus = self.cpu_bound();
        let ask_delays = self
            .guests
            .values()
            .any(|guest| self.counters.wants_delays(&guest.source));
        let delays = if ask_delays {
            self.counters.delays(&self.connection)
        } else {
            ffi::Delays::new()
        };
        let mut guests = std::mem::take(&mut self.guests);
        self.counters
            .count_files(guests.values().map(|guest| &guest.source));
        let mut domains = Vec::with_capacity(guests.len());
        for (&uuid, guest) in &mut guests {
            let subject = Subject {
                domain: &guest.domain,
                uuid,
                name: &guest.name,
                most_vcpus: guest.most_vcpus,
            };
            match self
                .counters
                .read(&subject, &mut guest.source, cpus, self.map.as_ref(), &delays)
            {
                Ok(vcpus) => domains.push(DomainSample {
                    uuid,
                    instance: guest.instance,
                    name: Arc::clone(&guest.name),
                    definition: Arc::clone(&guest.definition),
                    incarnation: None,
                    keepsake: None,
                    vcpus,
                }),
                Err(error) => self.leave_out((uuid, guest.instance), &guest.name, error.into(), omissions)?,
            }
        }
        self.guests = guests;
        Ok(domains)
    }

    /// Goes on without a domain that could not be read, unless that is because nothing can be read any more.
    fn leave_out(
        &self,
        run: (DomainUuid, Instance),
        domain: &str,
        error: GuestError,
        omissions: &mut Omissions,
    ) -> Result<(), HostError> {
        let error = match error {
            GuestError::Libvirt(error) if !is_alive(&self.connection) => {
                return Err(self.failed("read a domain of", error));
            }
            GuestError::Libvirt(error) if error.says_no_domain() => {
                debug!(domain, "it vanished while it was read");
                return Ok(());
            }
            error => error,
        };
        let times = self
            .omissions
            .get(&run)
            .map_or(1, |times| times.saturating_add(1));
        omissions.insert(run, times);
        let error: &(dyn std::error::Error + 'static) = &error;
        // Once may be a domain that is just being started or stopped.
        if times == 2 {
            warn!(domain, error, "left out, since it cannot be read");
        } else {
            debug!(domain, error, "left out of this sample");
        }
        Ok(())
    }

    /// The guest, if it is still in the run that the caller means.
    fn running(&self, domain: &DomainKey) -> Result<&Guest, PinError> {
        let guest = self.guests.get(&domain.uuid);
        guest
            .filter(|guest| guest.instance == domain.instance)
            .ok_or(PinError::Gone)
    }

    /// The error of a call that has nothing to do with one domain.
    fn failed(&self, operation: &str, error: LibvirtError) -> HostError {
        error.while_doing(format!("cannot {operation} {}", self.uri), &self.connection)
    }

    /// What a pin's failure means.
    fn pin_failed(&self, guest: &Guest, number: u32, error: LibvirtError) -> PinError {
        if !is_alive(&self.connection) {
            return PinError::Host(self.failed("pin a vCPU on", error));
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
            _ if !self.has(guest, number) => PinError::Gone,
            error => PinError::Refused {
                source: source(error),
            },
        }
    }

    /// Whether the domain runs and has the vCPU, as far as that can be found out.
    fn has(&self, guest: &Guest, number: u32) -> bool {
        match ffi::vcpus(&guest.domain, guest.most_vcpus, self.cpu_bound()) {
            Ok(vcpus) => vcpus.iter().any(|vcpu| vcpu.number == number),
            Err(error) => !LibvirtError::from(error).says_gone(),
        }
    }
}

impl Host for LibvirtHost {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        let uri = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, self.uri.as_bytes());
        Ok(HostIdentity {
            name: uri.to_string(),
            is_local: self.counters.are_here(),
        })
    }

    fn sample(&mut self) -> Result<Sample, HostError> {
        let read_at_ns = self.counters.now_ns();
        self.refresh_topology()?;
        let mut omissions = self.refresh_guests()?;
        let domains = self.read_guests(&mut omissions)?;
        let unread = omissions
            .keys()
            .map(|&(uuid, instance)| DomainKey { uuid, instance })
            .collect();
        self.omissions = omissions;
        Ok(Sample {
            read_at_ns,
            topology: Arc::clone(&self.topology),
            isolated: OsCpuSet::new(),
            domains,
            unread,
        })
    }

    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        let guest = self.running(&vcpu.domain_key())?;
        if let Some(refusal) = error::refusal(cpus, &self.topology) {
            return Err(PinError::Refused {
                source: Box::new(refusal),
            });
        }
        let map = ffi::map_of(cpus, self.cpu_bound());
        guest
            .domain
            .pin_vcpu(vcpu.number, &map)
            .map_err(|error| self.pin_failed(guest, vcpu.number, error.into()))
    }

    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        let guest = self.running(&vcpu.domain_key())?;
        let vcpus = ffi::vcpus(&guest.domain, guest.most_vcpus, self.cpu_bound())
            .map_err(|error| self.pin_failed(guest, vcpu.number, error.into()))?;
        let found = vcpus.into_iter().find(|info| info.number == vcpu.number);
        found.map(|info| info.affinity).ok_or(PinError::Gone)
    }

    fn keep(&mut self, domain: &DomainKey, _: Option<&Keepsake>) -> Result<(), PinError> {
        self.running(domain)?;
        Err(PinError::Unsupported {
            source: "not there yet".into(),
        })
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
