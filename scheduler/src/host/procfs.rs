//! What the kernel says about the threads that are a guest's vCPUs.
//!
//! QEMU runs each vCPU in a thread of its own and names it `CPU <number>/KVM` (or `/TCG`). In goes the folder of a
//! QEMU process in `/proc`; out come, for each vCPU, exact counters: nanoseconds run and nanoseconds waited for a
//! CPU, with the CPU it ran on last and the kernel's own affinity mask. No call to libvirt is made.
//!
//! **A number never comes from another thread.** Process and thread ids are used again, so the counters' file
//! (`schedstat`) is opened once and kept: read through an open file, a thread that has ended gives an error. The
//! other two files are opened anew each time, which keeps it at one open file a vCPU, but *before* the counters are
//! read: if those can still be read then, the thread lived all the while, and its id meant nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::OsCpuId;

/// The vCPU threads of one process.
#[derive(Debug)]
pub struct VcpuThreads {
    tasks: PathBuf,
    vcpus: BTreeMap<u32, Thread>,
    /// The process's other threads, whose names need no second look.
    others: BTreeSet<u32>,
}

#[derive(Debug)]
struct Thread {
    id: u32,
    folder: PathBuf,
    schedstat: File,
}

/// What the kernel says about one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadReading {
    /// How long it has run, in nanoseconds.
    pub run_ns: u64,
    /// How long it has been runnable without running, in nanoseconds.
    pub delay_ns: u64,
    /// The CPU it ran on last.
    pub last_cpu: OsCpuId,
    /// Where it may run; the kernel may count CPUs that the host does not have among them.
    pub affinity: OsCpuSet,
}

/// Whether the process's command line has `words` in a row, so that a process id from a file is known to mean the
/// process that the file was written for.
///
/// # Errors
/// If there is no such process, or its command line may not be read.
pub fn was_started_with(process: &Path, words: &[&str]) -> io::Result<bool> {
    let line = fs::read(process.join("cmdline"))?;
    let arguments: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
    Ok(arguments.windows(words.len()).any(|window| {
        window
            .iter()
            .zip(words)
            .all(|(argument, word)| *argument == word.as_bytes())
    }))
}

/// When a process was started, in clock ticks since the machine was. Together with its id that names it for as long as
/// the machine is up.
///
/// # Errors
/// If there is no such process, or the kernel's answer is not understood.
pub fn started_ticks(process: &Path) -> io::Result<u64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    let ticks = stat_field(&stat, 22).and_then(|field| field.parse().ok());
    ticks.ok_or_else(|| not_understood(process))
}

impl VcpuThreads {
    /// Finds the vCPU threads of the process whose folder in `/proc` this is.
    ///
    /// # Errors
    /// If its threads may not be read.
    pub fn find(process: &Path) -> io::Result<Self> {
        let mut threads = Self {
            tasks: process.join("task"),
            vcpus: BTreeMap::new(),
            others: BTreeSet::new(),
        };
        threads.update()?;
        Ok(threads)
    }

    /// Looks for threads that came or went. Returns whether one came.
    ///
    /// # Errors
    /// If the process has ended, or a thread of it may not be read.
    pub fn update(&mut self) -> io::Result<bool> {
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&self.tasks)? {
            if let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                present.insert(id);
            }
        }
        self.others.retain(|id| present.contains(id));
        self.vcpus.retain(|_, thread| present.contains(&thread.id));
        for thread in self.vcpus.values() {
            present.remove(&thread.id);
        }
        let mut came = false;
        for id in present {
            if self.others.contains(&id) {
                continue;
            }
            match Thread::open(&self.tasks, id) {
                Ok(Some((number, thread))) => {
                    self.vcpus.insert(number, thread);
                    came = true;
                }
                Ok(None) => {
                    self.others.insert(id);
                }
                // It ended meanwhile.
                Err(error) if has_ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(came)
    }

    /// The numbers of the vCPUs, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.vcpus.keys().copied()
    }

    /// Forgets vCPUs. The next [`Self::update`] finds them again.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.vcpus.retain(|&number, _| keep(number));
    }

    /// Reads all vCPUs, ascending; those whose thread has ended are left out.
    ///
    /// # Errors
    /// If the kernel's answer could not be read or understood.
    pub fn read(&self) -> impl Iterator<Item = io::Result<(u32, ThreadReading)>> + '_ {
        let numbers = self.vcpus.keys();
        numbers.filter_map(|&number| Some(self.read_one(number)?.map(|reading| (number, reading))))
    }

    /// Reads one vCPU; `None` if there is no such vCPU or its thread has ended.
    ///
    /// # Errors
    /// If the kernel's answer could not be read or understood.
    pub fn read_one(&self, number: u32) -> Option<io::Result<ThreadReading>> {
        match self.vcpus.get(&number)?.read() {
            Err(error) if has_ended(&error) => None,
            read => Some(read),
        }
    }
}

impl Thread {
    /// Opens the thread if it is a vCPU's.
    fn open(tasks: &Path, id: u32) -> io::Result<Option<(u32, Self)>> {
        let folder = tasks.join(id.to_string());
        let name = fs::read_to_string(folder.join("comm"))?;
        let Some(number) = vcpu_number(&name) else {
            return Ok(None);
        };
        let schedstat = File::open(folder.join("schedstat"))?;
        Ok(Some((
            number,
            Self {
                id,
                folder,
                schedstat,
            },
        )))
    }

    fn read(&self) -> io::Result<ThreadReading> {
        let last_cpu = last_cpu(&fs::read_to_string(self.folder.join("stat"))?);
        let affinity = affinity(&fs::read_to_string(self.folder.join("status"))?);
        let mut buffer = [0; 80];
        let length = self.schedstat.read_at(&mut buffer, 0)?;
        let counters = counters(&buffer[..length]);
        match (counters, last_cpu, affinity) {
            (Some((run_ns, delay_ns)), Some(last_cpu), Some(affinity)) => Ok(ThreadReading {
                run_ns,
                delay_ns,
                last_cpu,
                affinity,
            }),
            _ => Err(not_understood(&self.folder)),
        }
    }
}

fn not_understood(folder: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: the kernel's answer is not understood", folder.display()),
    )
}

/// Whether the error says that a thread or process is no more.
fn has_ended(error: &io::Error) -> bool {
    /// The kernel's number for "no such process".
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

/// The number in `CPU <number>/KVM`.
fn vcpu_number(comm: &str) -> Option<u32> {
    let (number, accelerator) = comm.trim_end().strip_prefix("CPU ")?.split_once('/')?;
    matches!(accelerator, "KVM" | "TCG")
        .then(|| number.parse().ok())
        .flatten()
}

/// Run time and waiting time: the first two numbers of `schedstat`.
fn counters(schedstat: &[u8]) -> Option<(u64, u64)> {
    let mut numbers = std::str::from_utf8(schedstat).ok()?.split_ascii_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The CPU that a thread ran on last.
fn last_cpu(stat: &str) -> Option<OsCpuId> {
    stat_field(stat, 39)?.parse().ok().map(OsCpuId)
}

/// One of the fields of `stat` from the third on. The second one is the thread's name in parentheses, which may hold
/// anything.
fn stat_field(stat: &str, field: usize) -> Option<&str> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(field - 3)
}

/// The line `Cpus_allowed_list` of `status`.
fn affinity(status: &str) -> Option<OsCpuSet> {
    let mut lines = status.lines();
    let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

#[cfg(test)]
mod tests;
