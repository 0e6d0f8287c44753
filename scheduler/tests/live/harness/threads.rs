//! What the kernel says about a guest's vCPU threads.
//!
//! libvirt reports the masks that were set through it; the kernel knows the masks in force. QEMU names the
//! thread of vCPU n "CPU n/KVM" or "CPU n/TCG"; libvirt leaves QEMU's process id in a file. Threads are
//! looked up anew for each question, as a guest may have been restarted since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::PrivateLibvirt;

/// The CPUs of a cpulist as the kernel and libvirt write it: "0-3,5".
#[track_caller]
pub(crate) fn cpus(list: &str) -> BTreeSet<u32> {
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .unwrap_or_else(|_| panic!("{list:?} is not a cpulist"))
    };
    let ranges = list
        .split(',')
        .map(|range| range.split_once('-').unwrap_or((range, range)));
    ranges
        .flat_map(|(first, last)| number(first)..=number(last))
        .collect()
}

impl PrivateLibvirt {
    /// The CPUs that the kernel lets a vCPU run on.
    #[track_caller]
    pub(crate) fn kernel_mask(&self, name: &str, vcpu: u32) -> BTreeSet<u32> {
        let status = self.read(name, vcpu, "status");
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        cpus(list.expect("status has a line Cpus_allowed_list"))
    }

    /// The CPU that a vCPU runs on or ran on last.
    #[track_caller]
    pub(crate) fn kernel_last_cpu(&self, name: &str, vcpu: u32) -> u32 {
        let stat = self.read(name, vcpu, "stat");
        // The second field is the thread's name in parentheses, with spaces in it; the CPU is field 39.
        let (_, rest) = stat
            .rsplit_once(')')
            .expect("stat has the thread's name in parentheses");
        let field = rest.split_whitespace().nth(39 - 3);
        field
            .and_then(|cpu| cpu.parse().ok())
            .expect("field 39 of stat is a CPU")
    }

    /// The time that a vCPU has run so far, in ns.
    #[track_caller]
    pub(crate) fn cpu_time_ns(&self, name: &str, vcpu: u32) -> u64 {
        self.schedstat(name, vcpu, 0)
    }

    /// The time that a vCPU has waited for a CPU so far although it could have run (steal), in ns.
    #[track_caller]
    pub(crate) fn steal_ns(&self, name: &str, vcpu: u32) -> u64 {
        self.schedstat(name, vcpu, 1)
    }

    /// What share of one CPU each of these vCPUs gets in the time to come, in percent. Guests repeat
    /// themselves every period, of 0.99 s if not told otherwise: look for whole periods, or for many.
    #[track_caller]
    pub(crate) fn use_percent(&self, vcpus: &[(&str, u32)], over: Duration) -> Vec<f64> {
        percent(vcpus, over, |name, vcpu| self.cpu_time_ns(name, vcpu))
    }

    /// What share of one CPU each of these vCPUs would like to have: what it gets and what it waits for. That
    /// is its duty, however busy the machine is.
    #[track_caller]
    pub(crate) fn want_percent(&self, vcpus: &[(&str, u32)], over: Duration) -> Vec<f64> {
        percent(vcpus, over, |name, vcpu| {
            self.cpu_time_ns(name, vcpu) + self.steal_ns(name, vcpu)
        })
    }

    /// A running guest's QEMU process.
    #[track_caller]
    pub(crate) fn guest_pid(&self, name: &str) -> u32 {
        let file = self
            .folder()
            .join("run/libvirt/qemu/run")
            .join(format!("{name}.pid"));
        let text =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("guest {name} does not run: {error}"));
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{} holds no process id: {text:?}", file.display()))
    }

    /// The thread ids of a running guest's vCPUs, by vCPU number.
    #[track_caller]
    pub(crate) fn vcpus(&self, name: &str) -> BTreeMap<u32, u32> {
        let tasks = task_folder(self.guest_pid(name));
        let entries = fs::read_dir(&tasks).unwrap_or_else(|error| panic!("guest {name} is gone: {error}"));
        entries
            .filter_map(|entry| vcpu_thread(&entry.ok()?.path()))
            .collect()
    }

    #[track_caller]
    fn read(&self, name: &str, vcpu: u32, file: &str) -> String {
        let thread = *self
            .vcpus(name)
            .get(&vcpu)
            .unwrap_or_else(|| panic!("guest {name} has no vCPU {vcpu}"));
        let file = task_folder(self.guest_pid(name))
            .join(thread.to_string())
            .join(file);
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()))
    }

    #[track_caller]
    fn schedstat(&self, name: &str, vcpu: u32, field: usize) -> u64 {
        let schedstat = self.read(name, vcpu, "schedstat");
        let field = schedstat.split_whitespace().nth(field);
        field
            .and_then(|ns| ns.parse().ok())
            .expect("schedstat is a line of numbers")
    }
}

/// By how much the ns of each vCPU grow while time goes on, as a percentage of that time.
fn percent(vcpus: &[(&str, u32)], over: Duration, ns: impl Fn(&str, u32) -> u64) -> Vec<f64> {
    let sample = |&(name, vcpu): &(&str, u32)| (Instant::now(), ns(name, vcpu));
    let before: Vec<_> = vcpus.iter().map(sample).collect();
    thread::sleep(over);
    let after = vcpus.iter().map(sample);
    let both = before.into_iter().zip(after);
    let rate = |((then, had), (now, has)): ((Instant, u64), (Instant, u64))| {
        100.0 * Duration::from_nanos(has - had).div_duration_f64(now.duration_since(then))
    };
    both.map(rate).collect()
}

fn task_folder(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/task"))
}

/// The vCPU that a thread runs and the thread's id, or None if it does something else (or has just ended).
fn vcpu_thread(task: &Path) -> Option<(u32, u32)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let (number, _) = name.strip_prefix("CPU ")?.split_once('/')?;
    let thread = task.file_name()?.to_str()?.parse().ok()?;
    Some((number.parse().ok()?, thread))
}
