//! What the scheduler needs of a host, whatever the host is: a reading of its counters, and a way to pin.
//!
//! A [`Sample`] is one reading: plain data, cumulative counters, nothing interpreted. What became of the counters
//! between two readings is the engine's business ([`crate::engine::collect`]). Only [`Host::sample`] and [`Host::pin`]
//! touch the world.

mod keepsake;
pub mod libvirt;
pub(crate) mod pattern;
pub mod procfs;
pub mod simulated;
pub mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::OsCpuId;
use vcpu_policy_api::topology::Topology;

pub use self::keepsake::{Keepsake, KeepsakeError, Kept, Original, Token};

/// A host of guests.
pub trait Host: Send {
    /// Which host this is.
    ///
    /// # Errors
    /// If there is no connection to ask.
    fn identity(&mut self) -> Result<HostIdentity, HostError>;

    /// Reads all counters now.
    ///
    /// A domain that vanishes while it is being read is left out. The domains come in an order of the host's own that
    /// stays the same from sample to sample (a live host sorts by UUID), the vCPUs of each by their number.
    ///
    /// # Errors
    /// If the host as a whole could not be read; nothing of the sample is then of use.
    fn sample(&mut self) -> Result<Sample, HostError>;

    /// Sets a vCPU's affinity, live only: the stored definition of the domain stays as it is.
    ///
    /// # Errors
    /// If the affinity was not set; [`PinError`] says what that means for this vCPU and for others.
    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError>;

    /// Where a vCPU may run now, read anew: what another hand did since the last sample is in it.
    ///
    /// # Errors
    /// If that could not be read.
    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError>;

    /// Has a running domain carry a keepsake, in place of the one it carries now; `None` takes that one away.
    ///
    /// Live only: the keepsake goes where the run of the domain goes (a managed save, a migration) and ends with it. The
    /// stored definition stays as it is.
    ///
    /// # Errors
    /// If it does not carry it; [`PinError::Unsupported`] if no domain of this host can carry one.
    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError>;
}

/// Which host this is, among all hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// Its UUID, or what stands for it where it has none, and which of its guests these are, since several daemons may have
    /// guests on one host: fit to be a file's name.
    pub name: String,
    /// Whether it is the machine that this process runs on.
    pub is_local: bool,
    /// The CPUs that it has, online or not.
    pub cpus: OsCpuSet,
    /// Those that its kernel was told to keep free of ordinary work; empty where that is not known.
    pub isolated: OsCpuSet,
}

/// libvirt's identity of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainUuid(pub [u8; 16]);

impl fmt::Display for DomainUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

/// One run of a domain: it differs between two starts of the same domain on the same connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

/// A running domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainKey {
    /// Which domain.
    pub uuid: DomainUuid,
    /// Which run of it.
    pub instance: Instance,
}

/// What tells a run of a domain from every other run of any domain, for as long as this host is up: for QEMU on this
/// machine, its process and the time at which that was started. It survives the daemon and the connection, which an
/// [`Instance`] does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub Arc<str>);

/// A vCPU of a running domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuKey {
    /// The domain.
    pub domain: DomainUuid,
    /// Which run of the domain.
    pub instance: Instance,
    /// The vCPU's number in it.
    pub number: u32,
}

impl DomainKey {
    /// The vCPU of this number in it.
    pub fn vcpu(&self, number: u32) -> VcpuKey {
        VcpuKey {
            domain: self.uuid,
            instance: self.instance,
            number,
        }
    }
}

impl DomainSample {
    /// Which running domain it is.
    pub fn key(&self) -> DomainKey {
        DomainKey {
            uuid: self.uuid,
            instance: self.instance,
        }
    }
}

impl VcpuKey {
    /// The domain it belongs to.
    pub fn domain_key(&self) -> DomainKey {
        DomainKey {
            uuid: self.domain,
            instance: self.instance,
        }
    }
}

/// One reading of a host's counters.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Monotonic time at which the reading began, nanoseconds since an arbitrary origin of the host's own.
    pub read_at_ns: u64,
    /// The host's pCPUs as they are now; the same `Arc` as in the sample before if nothing changed.
    pub topology: Arc<Topology>,
    /// CPUs that the kernel was told to keep free of ordinary work (`isolcpus`, `nohz_full`); empty where that is not
    /// known.
    pub isolated: OsCpuSet,
    /// The running domains.
    pub domains: Vec<DomainSample>,
    /// Domains that run but could not be read: not gone, though they are not among the others.
    pub unread: Vec<DomainKey>,
    /// Over which connection it was read. An [`Instance`] tells the runs of a domain apart over one connection only, and
    /// each has a clock of its own.
    pub connection: u64,
}

/// A running domain.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainSample {
    /// libvirt's identity.
    pub uuid: DomainUuid,
    /// Which run of the domain.
    pub instance: Instance,
    /// libvirt's name.
    pub name: Arc<str>,
    /// What its stored definition says; the same `Arc` as in the sample before if nothing changed.
    pub definition: Arc<Definition>,
    /// What tells this run from others beyond this connection; `None` if only a [`Keepsake`] can.
    pub incarnation: Option<Incarnation>,
    /// What it carries of ours; the same `Arc` as in the sample before if nothing changed.
    pub keepsake: Option<Arc<Keepsake>>,
    /// Its active vCPUs, by ascending number.
    pub vcpus: Vec<VcpuSample>,
}

/// What the operator wrote into a domain's stored definition that binds its placement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    /// `<vcpu cpuset='…'>`: the CPUs of all vCPUs without an entry of their own.
    pub cpuset: Option<OsCpuSet>,
    /// `<vcpupin vcpu='…' cpuset='…'/>`.
    pub vcpupin: BTreeMap<u32, OsCpuSet>,
    /// The NUMA node its memory is bound to, by the kernel's number, where it is bound to exactly one.
    pub memory_node: Option<u32>,
    /// `<cputune><shares>`: its CPU shares relative to other domains.
    pub weight: Option<f64>,
    /// What its metadata asks of the scheduler.
    pub wish: Wish,
}

/// What an operator asks of the scheduler for a domain: in its metadata, or by a rule of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether it may be moved; `None`: nothing is said.
    pub manage: Option<bool>,
    /// The CPUs it is to stay on; `None`: nothing is said.
    pub cpus: Option<OsCpuSet>,
}

impl Definition {
    /// The CPUs that the definition binds a vCPU to; `None` if it does not.
    pub fn cpus_of(&self, vcpu: u32) -> Option<&OsCpuSet> {
        self.vcpupin.get(&vcpu).or(self.cpuset.as_ref())
    }
}

/// A vCPU's counters.
#[derive(Debug, Clone, PartialEq)]
pub struct VcpuSample {
    /// Its number in the domain.
    pub number: u32,
    /// Monotonic time at which the counters were read, nanoseconds since the sample's origin.
    pub read_at_ns: u64,
    /// How long it has run since it was started, nanoseconds.
    pub run_ns: u64,
    /// How long it has been runnable without running since it was started, nanoseconds; `None` if the host cannot say.
    pub delay_ns: Option<u64>,
    /// The CPU it ran on last; `None` if it has not run yet.
    pub last_cpu: Option<OsCpuId>,
    /// Where it may run, by the kernel's numbers; offline CPUs may be among them.
    pub affinity: OsCpuSet,
}

/// The cause of a host's error, in the words of whatever the host is.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a host could not be read.
#[derive(Debug, Error)]
pub enum HostError {
    /// There is no connection to the host, or it broke: to be opened again.
    #[error("{operation}")]
    Lost {
        /// What was being done.
        operation: String,
        /// What the host said.
        #[source]
        source: Cause,
    },
    /// The connection stands, but this did not work.
    #[error("{operation}")]
    Failed {
        /// What was being done.
        operation: String,
        /// What the host said.
        #[source]
        source: Cause,
    },
    /// The caller asked to stop while the host was busy.
    #[error("stopped before the host answered")]
    Stopped,
}

/// Why a vCPU could not be pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// The domain or the vCPU is no more: nothing to do.
    #[error("the vCPU is gone")]
    Gone,
    /// The domain is busy with something else: the next tick may try again.
    #[error("the domain is busy")]
    Busy {
        /// What the host said.
        #[source]
        source: Cause,
    },
    /// The host refuses this pin.
    #[error("the host refuses the pin")]
    Refused {
        /// What the host said.
        #[source]
        source: Cause,
    },
    /// What the vCPU had before could not be recorded so that it would be found again after a crash.
    #[error("the original affinity cannot be recorded in the domain")]
    Unrecorded {
        /// What the host said, if this is the first time.
        #[source]
        source: Option<Cause>,
    },
    /// No host of this kind can do what was asked.
    #[error("this host cannot do it")]
    Unsupported {
        /// What the host said.
        #[source]
        source: Cause,
    },
    /// The host refuses every pin: this connection may not write.
    #[error("the connection has no permission to pin")]
    Forbidden {
        /// What the host said.
        #[source]
        source: Cause,
    },
    /// The connection broke, or the caller asked to stop.
    #[error(transparent)]
    Host(#[from] HostError),
}
