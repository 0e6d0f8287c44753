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
        self.vcpus
            .iter()
            .filter_map(|(&number, thread)| match thread.read() {
                Ok(reading) => Some(Ok((number, reading))),
                Err(error) if has_ended(&error) => None,
                Err(error) => Some(Err(error)),
            })
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
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: the kernel's answer is not understood", self.folder.display()),
            )),
        }
    }
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

/// Field 39 of `stat`. The second field is the thread's name in parentheses, which may hold anything.
fn last_cpu(stat: &str) -> Option<OsCpuId> {
    const FIELDS_AFTER_NAME: usize = 39 - 2;
    let (_, fields) = stat.rsplit_once(')')?;
    let field = fields.split_ascii_whitespace().nth(FIELDS_AFTER_NAME - 1)?;
    field.parse().ok().map(OsCpuId)
}

/// The line `Cpus_allowed_list` of `status`.
fn affinity(status: &str) -> Option<OsCpuSet> {
    let mut lines = status.lines();
    let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use super::*;

    /// A thread that spins until it is told to end, which it does when this is dropped.
    struct Spinner {
        end: Option<mpsc::Sender<()>>,
        handle: Option<JoinHandle<()>>,
    }

    impl Spinner {
        fn start(name: &str) -> Self {
            let (end, ended) = mpsc::channel();
            let (started, wait) = mpsc::channel();
            let handle = thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    started.send(()).expect("the starter waits");
                    while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
                        std::hint::spin_loop();
                    }
                })
                .expect("start a thread");
            wait.recv().expect("the thread has its name before it runs");
            Self {
                end: Some(end),
                handle: Some(handle),
            }
        }
    }

    impl Drop for Spinner {
        fn drop(&mut self) {
            drop(self.end.take());
            self.handle
                .take()
                .expect("joined once")
                .join()
                .expect("it spins, no more");
        }
    }

    fn ours() -> VcpuThreads {
        VcpuThreads::find(Path::new("/proc/self")).expect("our own threads can be read")
    }

    fn reading(threads: &VcpuThreads, vcpu: u32) -> Option<ThreadReading> {
        threads
            .read()
            .map(|read| read.expect("readable"))
            .find_map(|(number, reading)| (number == vcpu).then_some(reading))
    }

    /// One test for all that involves threads of this process, which the tests of a process share.
    #[test]
    fn vcpu_threads_come_run_and_go() {
        let first = Spinner::start("CPU 901/KVM");
        let mut threads = ours();
        assert!(threads.numbers().eq([901]));
        let before = reading(&threads, 901).expect("it runs");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let after = reading(&threads, 901).expect("it runs");
        let passed = u64::try_from(begin.elapsed().as_nanos()).expect("an instant");
        let (ran, waited) = (after.run_ns - before.run_ns, after.delay_ns - before.delay_ns);
        assert!(
            ran > 0 && ran + waited <= passed * 2,
            "{ran} + {waited} of {passed}"
        );
        assert!(after.affinity.contains(after.last_cpu), "{after:?}");

        let second = Spinner::start("CPU 902/TCG");
        let _other = Spinner::start("worker");
        assert!(threads.update().expect("readable"));
        assert!(threads.numbers().eq([901, 902]));
        assert!(!threads.update().expect("readable"), "nothing more came");

        drop(first);
        assert!(threads.numbers().eq([901, 902]), "not looked yet");
        assert_eq!(
            reading(&threads, 901),
            None,
            "a thread that has ended gives no numbers"
        );
        assert!(!threads.update().expect("readable"));
        assert!(threads.numbers().eq([902]));

        threads.retain(|number| number != 902);
        assert_eq!(threads.numbers().next(), None);
        assert!(threads.update().expect("readable"), "found again");
        drop(second);
    }

    #[test]
    fn names_of_vcpus_are_those_of_qemu() {
        for (name, number) in [
            ("CPU 0/KVM\n", Some(0)),
            ("CPU 128/TCG\n", Some(128)),
            ("ALL CPUs/TCG\n", None),
            ("CPU 1/HVF\n", None),
            ("CPU /KVM\n", None),
            ("CPU 1\n", None),
            ("qemu-system-x86\n", None),
            ("", None),
        ] {
            assert_eq!(vcpu_number(name), number, "{name:?}");
        }
    }

    #[test]
    fn a_threads_name_cannot_fake_its_numbers() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let fields = fields.join(" ");
        assert_eq!(last_cpu(&format!("7 (CPU 0/KVM) {fields}")), Some(OsCpuId(39)));
        assert_eq!(
            last_cpu(&format!("7 (a) 1 2 (b c) {fields}\n")),
            Some(OsCpuId(39))
        );
        assert_eq!(last_cpu("7 (short) S 1"), None);
        assert_eq!(last_cpu(""), None);
    }

    #[test]
    fn the_kernels_texts_are_understood() {
        assert_eq!(counters(b"123 45 6\n"), Some((123, 45)));
        assert_eq!(counters(b"123\n"), None);
        assert_eq!(counters(b"-1 2 3"), None);
        let status = "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,8\nMems_allowed:\t1\n";
        assert_eq!(
            affinity(status).map(|set| set.to_string()),
            Some("0-3,8".to_owned())
        );
        assert_eq!(affinity("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_is_known_by_its_arguments() {
        let process = Path::new("/proc/self");
        let own: Vec<String> = std::env::args().collect();
        let words: Vec<&str> = own.iter().map(String::as_str).collect();
        assert!(was_started_with(process, &words).expect("our own command line"));
        assert!(!was_started_with(process, &["-uuid", "no such"]).expect("our own command line"));
        assert!(was_started_with(Path::new("/proc/0"), &["a"]).is_err());
    }
}
