//! A program that hosts plugins, for the tests of isolation: a plugin is a text file `STAGE FAULT` here, and what the
//! fault says happens at that stage, inside the same sandbox and behind the same protocol as with a real library.

#![expect(unsafe_code, reason = "faults that safe code does not have")]
#![expect(clippy::print_stdout, reason = "one of the faults")]

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process};
use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::{CpuIx, Index, VcpuIx};
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::Snapshot;
use vcpu_policy_host::offer::{Offer, Offered};
use vcpu_policy_host::wire::{Answer, Head};

fn main() -> ExitCode {
    vcpu_policy_host::main(load)
}

fn load(library: OwnedFd, _: &Path) -> Result<Vec<Offered>, PolicyError> {
    let mut text = String::new();
    // The position in the file is shared by all processes that have it.
    let mut library = File::from(library);
    library
        .rewind()
        .and_then(|()| library.read_to_string(&mut text))
        .map_err(PolicyError::new)?;
    let (stage, fault) = text.trim().split_once(' ').unwrap_or(("never", ""));
    let (stage, fault) = (stage.to_owned(), fault.to_owned());
    if stage == "load" {
        happen(&fault, &mut Plan::new())?;
    }
    let make = move |options: &str| {
        if stage == "make" {
            happen(&fault, &mut Plan::new())?;
        }
        if options.contains("refuse") {
            return Err(PolicyError::new("the option refuse is refused"));
        }
        let faulty = Faulty {
            stage: stage.clone(),
            fault: fault.clone(),
            decisions: 0,
        };
        Ok(Box::new(faulty) as Box<dyn Decide>)
    };
    Ok(vec![Offered {
        offer: Offer {
            name: "faulty".to_owned(),
            version: "1.0.0".to_owned(),
            summary: "does what it should not".to_owned(),
            defaults: "limit: 3\n".to_owned(),
        },
        make: Arc::new(make),
    }])
}

struct Faulty {
    stage: String,
    fault: String,
    decisions: u64,
}

impl Decide for Faulty {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        self.decisions += 1;
        plan.note(format_args!(
            "decision {} since it was made, fresh {}",
            self.decisions,
            snapshot.is_fresh()
        ));
        let tick = snapshot.tick();
        match self.stage.as_str() {
            "decide" => happen(&self.fault, plan),
            // In ticks 2, 4, 6, ...
            "even" if tick.is_multiple_of(2) => happen(&self.fault, plan),
            _ => Ok(()),
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if self.stage == "destroy" {
            let _ = happen(&self.fault, &mut Plan::new());
        }
    }
}

/// What a system call that should fail came to, as a note.
fn tried<T>(plan: &mut Plan, what: &str, result: std::io::Result<T>) {
    match result {
        Ok(_) => plan.note(format_args!("{what}: DONE")),
        Err(error) => plan.note(format_args!("{what}: {error}")),
    }
}

fn happen(fault: &str, plan: &mut Plan) -> Result<(), PolicyError> {
    match fault {
        "abort" => std::process::abort(),
        "panic" => panic!("as told"),
        "segfault" => {
            let nowhere: *const u8 = black_box(std::ptr::without_provenance(8));
            // SAFETY: not sound; that is what a plugin might do.
            black_box(unsafe { nowhere.read_volatile() });
        }
        "overflow" => overflow(0),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "sleep" => std::thread::sleep(Duration::from_secs(3600)),
        "exit" => std::process::exit(0),
        "allocate" => allocate(),
        "close" => close_everything(),
        "stdout" => (0..1000).for_each(|line| println!("line {line} of its output")),
        "stderr" => (0..5000).for_each(|line| eprintln_raw(&format!("line {line} of its output\n"))),
        "error" => return Err(PolicyError::new("there is nothing to decide")),
        "lost" => return Err(PolicyError::lost("it panicked: as told")),
        "exec" => {
            let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
            tried::<()>(plan, "exec", Err(error));
        }
        "escape" => escape(plan),
        "garbage" => to_the_scheduler(&[0xff; 64]),
        "long frame" => to_the_scheduler(
            &Head {
                kind: 104,
                length: u32::MAX,
            }
            .to_bytes(),
        ),
        "cut frame" => {
            to_the_scheduler(
                &Head {
                    kind: 104,
                    length: 100,
                }
                .to_bytes(),
            );
            std::process::exit(0);
        }
        "bad plan" => to_the_scheduler(&Answer::Plan(&[0xff; 64]).encode()),
        "wrong answer" => to_the_scheduler(&Answer::Made.encode()),
        "two answers" => to_the_scheduler(&Answer::Plan(&[0; 8]).encode()),
        "million" => (0..1_000_000).for_each(|_| pin(plan, 0, 1, 1.0)),
        "nonsense" => {
            pin(plan, 0, 1, f64::NAN);
            pin(plan, u32::MAX, 1, 1.0);
            pin(plan, 0, 60_000, 1.0);
            plan.pin(VcpuIx(0), CpuSet::new().as_ref(), "\u{1b}[31mred\n", 1.0);
        }
        other => return Err(PolicyError::new(format_args!("there is no fault \"{other}\""))),
    }
    Ok(())
}

fn pin(plan: &mut Plan, vcpu: u32, cpu: u32, gain: f64) {
    let cpus: CpuSet = CpuIx::from_index(cpu as usize).into_iter().collect();
    plan.pin(VcpuIx(vcpu), cpus.as_ref(), "because", gain);
}

#[expect(unconditional_recursion, reason = "as told")]
fn overflow(depth: u64) {
    let frame = [depth; 512];
    black_box(&frame);
    overflow(black_box(depth + 1));
}

fn allocate() {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 16 << 20]));
    }
}

fn close_everything() {
    for number in 0..64 {
        // SAFETY: not sound; that is what a plugin might do.
        unsafe { libc::close(number) };
    }
    std::thread::sleep(Duration::from_secs(3600));
}

fn eprintln_raw(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Writes past the host program, to whatever descriptor is the socket.
fn to_the_scheduler(bytes: &[u8]) {
    for number in 3..16 {
        // SAFETY: not sound; that is what a plugin might do.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::write(descriptor, bytes);
    }
}

/// Everything that a sandboxed process could try, one note each.
fn escape(plan: &mut Plan) {
    tried(
        plan,
        "write a file",
        std::fs::write("/tmp/vcpu-policy-host-was-here", "x"),
    );
    tried(plan, "read a file", std::fs::read("/etc/passwd"));
    tried(plan, "list a folder", std::fs::read_dir("/"));
    tried(plan, "start a program", Command::new("/bin/true").status());
    tried(plan, "start a thread", std::thread::Builder::new().spawn(|| ()));
    tried(
        plan,
        "connect",
        std::net::TcpStream::connect(("127.0.0.1", 9)).map(drop),
    );
    tried(plan, "bind", std::net::UdpSocket::bind(("127.0.0.1", 0)));
    tried(plan, "socket pair", std::os::unix::net::UnixStream::pair());
    let parent = getppid().unwrap_or(Pid::INIT);
    tried(
        plan,
        "signal the scheduler",
        kill_process(parent, Signal::USR1).map_err(Into::into),
    );
    tried(
        plan,
        "move the scheduler",
        rustix::thread::sched_setaffinity(Some(parent), &rustix::thread::CpuSet::new()).map_err(Into::into),
    );
    tried(
        plan,
        "leave the session",
        rustix::process::setsid().map_err(Into::into),
    );
    tried(
        plan,
        "outlive the scheduler",
        rustix::process::set_parent_process_death_signal(None).map_err(Into::into),
    );
    tried(
        plan,
        "memory of its own kind",
        rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::empty()).map_err(Into::into),
    );
    plan.note(format_args!(
        "user {}, variables {}, folder {}",
        if rustix::process::geteuid().is_root() {
            "root"
        } else {
            "not root"
        },
        std::env::vars_os().count(),
        std::env::current_dir().map_or_else(|error| error.to_string(), |folder| folder.display().to_string()),
    ));
}
