//! Where a domain's counters come from. This choice is made here and nowhere else.
//!
//! There are two sources, and one of them is chosen for each running domain when it is first read:
//!
//! - **The kernel**, where QEMU runs on this machine and its threads can be read ([`crate::host::procfs`]): exact to
//!   the nanosecond, with the waiting time, at the cost of a few reads from `/proc` a vCPU and no call to libvirt.
//! - **libvirt** everywhere else: one `virDomainGetVcpus` a domain, with run times in steps of 10 ms. The waiting
//!   time takes one more call for all domains. QEMU's monitor is asked for it, so that call costs more than all the
//!   others together; where it takes too long it is not made again, and waiting times are unknown from then on.
//!
//! Each vCPU that is read from the kernel keeps a file open. Half of what the process may open is used for that;
//! domains beyond it are read through libvirt.
//!
//! The two never mix. They count the same thing but round differently, and a difference between one reading of each
//! is nothing anybody measured. A domain keeps its source for as long as it runs. If the kernel's is lost, the domain
//! is without vCPUs in that one sample, so that each of them begins anew when it comes back, from whichever source.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::{debug, info};
use vcpu_policy_api::cpuset::OsCpuSet;
use virt::domain::Domain;

use super::error::LibvirtError;
use super::ffi::{self, Connection, CpuMap, Delays, VcpuState};
use super::process::Processes;
use crate::host::procfs::VcpuThreads;
use crate::host::{DomainUuid, Incarnation, VcpuSample};

/// How long the call for all waiting times may take.
const DELAYS_LIMIT: Duration = Duration::from_millis(250);
/// How many times in a row it may take longer before it is given up.
const DELAYS_PATIENCE: u32 = 3;

/// Where one domain's counters come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Not yet known: the domain has not been read.
    Undecided,
    /// The kernel.
    Threads(VcpuThreads),
    /// libvirt.
    Libvirt,
}

impl Source {
    /// How many files it keeps open.
    fn files(&self) -> usize {
        match self {
            Self::Threads(threads) => threads.numbers().count(),
            Self::Undecided | Self::Libvirt => 0,
        }
    }
}

/// A domain to be read.
pub(super) struct Subject<'a> {
    pub(super) domain: &'a Domain,
    pub(super) uuid: DomainUuid,
    pub(super) name: &'a str,
    /// It has no more vCPUs than this.
    pub(super) most_vcpus: u32,
}

/// Why an affinity could not be read.
#[derive(Debug, Error)]
pub(super) enum AffinityError {
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    #[error("its thread cannot be read")]
    Thread(#[from] io::Error),
}

/// Reads counters.
#[derive(Debug)]
pub(super) struct Counters {
    origin: Instant,
    guests: Processes,
    delays: DelayCall,
    /// How many files the kernel's counters may take in all.
    files: usize,
    /// How many of them are still to be had.
    free_files: usize,
}

/// How the call for all waiting times has fared.
#[derive(Debug)]
enum DelayCall {
    /// It is made; the last few answers took too long.
    Made { slow: u32 },
    /// It is not made any more.
    GivenUp,
}

impl Counters {
    /// For the guests of the daemon at `uri`.
    pub(super) fn new(uri: &str) -> Self {
        let files = open_file_limit() / 2;
        Self {
            origin: Instant::now(),
            guests: Processes::of(uri),
            delays: DelayCall::Made { slow: 0 },
            files,
            free_files: files,
        }
    }

    /// What tells the process of a guest from all others; `None` if it cannot be seen.
    pub(super) fn incarnation(&self, name: &str, uuid: DomainUuid) -> Option<Incarnation> {
        self.guests.incarnation(name, uuid)
    }

    /// Monotonic time since the connection was made.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether a domain's waiting times would come from libvirt.
    pub(super) fn wants_delays(&self, source: &Source) -> bool {
        match source {
            Source::Undecided => !self.guests.are_here(),
            Source::Threads(_) => false,
            Source::Libvirt => true,
        }
    }

    /// The waiting times of all domains; empty if libvirt cannot say.
    pub(super) fn delays(&mut self, connection: &Connection) -> Delays {
        let DelayCall::Made { slow } = &mut self.delays else {
            return Delays::new();
        };
        let begin = Instant::now();
        let answer = ffi::delays(connection).map_err(LibvirtError::from);
        let took = begin.elapsed();
        *slow = if took > DELAYS_LIMIT { *slow + 1 } else { 0 };
        if *slow == DELAYS_PATIENCE {
            info!(
                ?took,
                "libvirt takes too long to say how long vCPUs wait: left out from now on"
            );
            self.delays = DelayCall::GivenUp;
        }
        answer.unwrap_or_else(|error| {
            debug!("how long vCPUs wait could not be read: {error}");
            if error.says_unsupported() {
                self.delays = DelayCall::GivenUp;
            }
            Delays::new()
        })
    }

    /// Takes account of the files that the sources of all domains hold.
    pub(super) fn count_files<'a>(&mut self, sources: impl Iterator<Item = &'a Source>) {
        let held: usize = sources.map(Source::files).sum();
        self.free_files = self.files.saturating_sub(held);
    }

    /// Reads a domain's active vCPUs, ascending, from its source, which is chosen if it is not yet.
    pub(super) fn read(
        &mut self,
        subject: &Subject<'_>,
        source: &mut Source,
        cpus: u32,
        map: Option<&CpuMap>,
        delays: &Delays,
    ) -> Result<Vec<VcpuSample>, LibvirtError> {
        match source {
            Source::Libvirt => self.ask(subject, cpus, delays),
            Source::Threads(threads) => {
                let read = follow(subject, threads, cpus).and_then(|()| self.look(threads, map));
                read.or_else(|error| {
                    debug!(
                        domain = subject.name,
                        "its threads cannot be read any more: {error}"
                    );
                    *source = Source::Undecided;
                    Ok(Vec::new())
                })
            }
            Source::Undecided => {
                let asked = self.ask(subject, cpus, delays)?;
                if let Some(threads) = self.threads(subject, &asked)
                    && let Ok(looked) = self.look(&threads, map)
                    && agree(&asked, &looked)
                {
                    *source = Source::Threads(threads);
                    self.free_files = self.free_files.saturating_sub(source.files());
                    return Ok(looked);
                }
                *source = Source::Libvirt;
                Ok(asked)
            }
        }
    }

    /// Reads where one vCPU may run, from the domain's source and as [`Self::read`] does; `None` if there is no such vCPU.
    pub(super) fn affinity(
        subject: &Subject<'_>,
        source: &Source,
        number: u32,
        cpus: u32,
        map: Option<&CpuMap>,
    ) -> Result<Option<OsCpuSet>, AffinityError> {
        if let Source::Threads(threads) = source {
            let read = threads.read_one(number).transpose()?;
            return Ok(read.map(|reading| in_use(reading.affinity, map)));
        }
        let infos = ffi::vcpus(subject.domain, subject.most_vcpus, cpus).map_err(LibvirtError::from)?;
        let found = infos.into_iter().find(|info| info.number == number);
        Ok(found
            .filter(|info| info.state != VcpuState::Offline)
            .map(|info| info.affinity))
    }

    /// Asks libvirt.
    fn ask(
        &self,
        subject: &Subject<'_>,
        cpus: u32,
        delays: &Delays,
    ) -> Result<Vec<VcpuSample>, LibvirtError> {
        let asked_ns = self.now_ns();
        let infos = ffi::vcpus(subject.domain, subject.most_vcpus, cpus)?;
        // The daemon read the counters at some time between question and answer.
        let read_at_ns = u64::midpoint(asked_ns, self.now_ns());
        let mut vcpus: Vec<VcpuSample> = infos
            .into_iter()
            .filter(|info| info.state != VcpuState::Offline)
            .map(|info| VcpuSample {
                number: info.number,
                read_at_ns,
                run_ns: info.cpu_time_ns,
                delay_ns: delays.get(&(subject.uuid, info.number)).copied(),
                last_cpu: info.last_cpu,
                affinity: info.affinity,
            })
            .collect();
        vcpus.sort_by_key(|vcpu| vcpu.number);
        Ok(vcpus)
    }

    /// Looks at the threads.
    fn look(&self, threads: &VcpuThreads, map: Option<&CpuMap>) -> io::Result<Vec<VcpuSample>> {
        let looked = threads.read().map(|read| {
            let (number, reading) = read?;
            Ok(VcpuSample {
                number,
                read_at_ns: self.now_ns(),
                run_ns: reading.run_ns,
                delay_ns: Some(reading.delay_ns),
                last_cpu: Some(reading.last_cpu),
                affinity: in_use(reading.affinity, map),
            })
        });
        looked.collect()
    }

    /// The domain's vCPU threads, if its process is on this machine and they can be read. Of the vCPUs, those that
    /// libvirt does not list are left out.
    fn threads(&self, subject: &Subject<'_>, asked: &[VcpuSample]) -> Option<VcpuThreads> {
        if asked.len() > self.free_files {
            return None;
        }
        let process = self.guests.process(subject.name, subject.uuid)?;
        let mut threads = VcpuThreads::find(&process.folder)
            .inspect_err(|error| debug!(domain = subject.name, "its threads cannot be read: {error}"))
            .ok()?;
        let listed: BTreeSet<u32> = asked.iter().map(|vcpu| vcpu.number).collect();
        threads.retain(|number| listed.contains(&number));
        Some(threads)
    }
}

/// A kernel's mask without the CPUs that the host does not have or use: the kernel keeps them, libvirt leaves them out.
fn in_use(mut affinity: OsCpuSet, map: Option<&CpuMap>) -> OsCpuSet {
    if let Some(map) = map.filter(|map| !map.online.is_empty()) {
        affinity.intersect(map.online.as_ref());
    }
    affinity
}

/// How many files this process may have open.
fn open_file_limit() -> usize {
    /// What Linux allows unless told otherwise.
    const USUAL: usize = 1024;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?
            .split_ascii_whitespace()
            .next()
    });
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(USUAL)
}

/// Takes note of vCPUs that were plugged in or out. A thread that libvirt does not list, yet, is left for later.
fn follow(subject: &Subject<'_>, threads: &mut VcpuThreads, cpus: u32) -> io::Result<()> {
    if threads.update()? {
        let infos = ffi::vcpus(subject.domain, subject.most_vcpus, cpus)
            .map_err(|error| io::Error::other(LibvirtError::from(error)))?;
        let listed: BTreeSet<u32> = infos
            .iter()
            .filter(|info| info.state != VcpuState::Offline)
            .map(|info| info.number)
            .collect();
        threads.retain(|number| listed.contains(&number));
    }
    Ok(())
}

/// Whether the kernel's counters are of use where libvirt gave these: each of the vCPUs has a thread, and the kernel
/// keeps the counters at all (it can be built so that it shows zeros).
fn agree(asked: &[VcpuSample], looked: &[VcpuSample]) -> bool {
    asked.len() == looked.len()
        && asked
            .iter()
            .zip(looked)
            .all(|(asked, looked)| asked.number == looked.number && (asked.run_ns == 0 || looked.run_ns > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_must_cover_what_libvirt_lists() {
        let vcpu = |number, run_ns| VcpuSample {
            number,
            read_at_ns: 0,
            run_ns,
            delay_ns: None,
            last_cpu: None,
            affinity: OsCpuSet::new(),
        };
        assert!(agree(&[vcpu(0, 10), vcpu(2, 0)], &[vcpu(0, 7), vcpu(2, 0)]));
        assert!(
            !agree(&[vcpu(0, 10), vcpu(1, 10)], &[vcpu(0, 7)]),
            "one has no thread"
        );
        assert!(!agree(&[vcpu(0, 10)], &[vcpu(1, 7)]), "another one");
        assert!(!agree(&[vcpu(0, 10)], &[vcpu(0, 0)]), "the kernel does not count");
    }
}
