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

#[test]
fn a_process_is_told_from_a_later_one_by_when_it_was_started() {
    let own = Path::new("/proc/self");
    let ours = started_ticks(own).expect("our own process");
    assert_eq!(started_ticks(own).expect("our own process"), ours);
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("sleep(1)");
    let later = started_ticks(&Path::new("/proc").join(child.id().to_string())).expect("our child");
    child.kill().expect("ours");
    child.wait().expect("ours");
    assert!(later >= ours, "{later} {ours}");
    let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
    assert_eq!(
        stat_field(&format!("7 (a) 1) {}", fields.join(" ")), 22),
        Some("22")
    );
    assert!(started_ticks(Path::new("/proc/0")).is_err());
}
