//! The host's shape: its CPUs, which of them are online, and which its kernel keeps free.
//!
//! It is read when the connection is made, and anew when a CPU went on- or offline; whether one did costs a call for the map
//! of online CPUs, where this kind of host has one.

use std::sync::Arc;

use tracing::info;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::topology::Topology;

use super::capabilities;
use super::error::LibvirtError;
use super::ffi::{self, Connection, CpuMap};
use super::isolated::isolated;
use super::process::is_local;
use crate::host::HostError;

/// See the [module](self).
pub(super) struct Shape {
    /// Which CPUs are online; `None` if this kind of host does not say.
    pub(super) map: Option<CpuMap>,
    /// The same `Arc` until it changes.
    pub(super) topology: Arc<Topology>,
    pub(super) isolated: OsCpuSet,
}

impl Shape {
    /// The shape of a host, and the capabilities that it was read from.
    pub(super) fn read(connection: &Connection, uri: &str) -> Result<(Self, String), HostError> {
        Self::with_map(connection, uri, cpu_map(connection, uri)?)
    }

    fn with_map(
        connection: &Connection,
        uri: &str,
        map: Option<CpuMap>,
    ) -> Result<(Self, String), HostError> {
        let capabilities = description(connection, uri)?;
        let topology = topology(&capabilities, uri, map.as_ref())?;
        let shape = Self {
            map,
            topology: Arc::new(topology),
            isolated: isolated_at(uri),
        };
        Ok((shape, capabilities))
    }

    /// Reads it anew if CPUs went on- or offline.
    pub(super) fn refresh(&mut self, connection: &Connection, uri: &str) -> Result<(), HostError> {
        let map = cpu_map(connection, uri)?;
        if map != self.map {
            (*self, _) = Self::with_map(connection, uri, map)?;
            info!(online = %self.topology.online(), "the host's CPUs changed");
        }
        Ok(())
    }

    /// All CPUs, online or not.
    pub(super) fn cpus(&self) -> OsCpuSet {
        let mut cpus = self.topology.online();
        cpus.unite(self.topology.offline().as_ref());
        cpus
    }

    /// The numbers of the CPUs are below this one.
    pub(super) fn cpu_bound(&self) -> u32 {
        let mapped = self.map.as_ref().map_or(0, |map| map.length);
        let known = self.cpus().iter().last().map_or(0, |last| last.0 + 1);
        mapped.max(known)
    }
}

/// Which CPUs are online; `None` if this kind of host does not say.
fn cpu_map(connection: &Connection, uri: &str) -> Result<Option<CpuMap>, HostError> {
    match ffi::cpu_map(connection).map_err(LibvirtError::from) {
        Ok(map) => Ok(Some(map)),
        Err(error) if error.says_unsupported() => Ok(None),
        Err(error) => Err(error.while_doing(format!("cannot read the online CPUs of {uri}"), connection)),
    }
}

/// What libvirt says about the host.
fn description(connection: &Connection, uri: &str) -> Result<String, HostError> {
    connection.capabilities().map_err(|error| {
        LibvirtError::from(error).while_doing(format!("cannot read the capabilities of {uri}"), connection)
    })
}

/// The shape of the host with these capabilities, of which the CPUs in `map` are online.
fn topology(xml: &str, uri: &str, map: Option<&CpuMap>) -> Result<Topology, HostError> {
    capabilities::topology(xml, map).map_err(|error| HostError::Failed {
        operation: format!("cannot understand the capabilities of {uri}"),
        source: Box::new(error),
    })
}

/// The CPUs that the kernel of the host at `uri` keeps free, where they can be known.
fn isolated_at(uri: &str) -> OsCpuSet {
    if is_local(uri) {
        isolated()
    } else {
        OsCpuSet::new()
    }
}
