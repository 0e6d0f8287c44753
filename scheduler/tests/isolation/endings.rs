//! However a process ends, and whatever holds it: it is told whose fault it was, and nothing is left or waited for.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vcpu_policy_api::plan::Plan;
use vcpu_scheduler::engine::daemon::chain;
use vcpu_scheduler::plugin::process::{Patience, PluginProcess};
use vcpu_scheduler::plugin::supervised::{IN_A_ROW, Order, Supervised, inspect};

use super::recovery::eventually;
use super::{PATIENT, compile, folder, sealed, supervised, terms, tick};

/// A program in place of the one that hosts plugins.
fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("program");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permitted");
    path
}

#[test]
fn a_program_that_does_not_host_is_not_the_plugins_fault() {
    let folder = folder();
    for (text, said) in [
        (
            "#!/bin/sh\nexit 127\n",
            "ended its process with exit status 127 before it loaded anything",
        ),
        (
            "#!/bin/sh\nkill -SEGV $$\n",
            "was killed by SIGSEGV (invalid memory access) before it loaded anything",
        ),
        (
            "#!/bin/sh\necho hello, this is no frame >&0\nexec sleep 60\n",
            "was killed: it sent a frame of unknown kind 1819043176 before it loaded anything",
        ),
    ] {
        let mut terms = terms(PATIENT);
        terms.program = program(folder.path(), text);
        let fault = inspect(&sealed("never", ""), &terms).expect_err("no host");
        let path = terms.program.display();
        assert_eq!(
            chain(&fault),
            format!("cannot be started, by no fault of its own: {path} {said}")
        );
    }
}

/// Stands in for a kernel that has less than is used here, as a frame that says so.
#[test]
fn what_the_kernel_lacks_is_told_when_a_plugin_is_loaded() {
    let folder = folder();
    let missing = "this kernel has no landlock: reading files is not restricted";
    let length = |length: usize| format!("\\{length:o}\\0\\0\\0");
    let text = format!(
        "#!/bin/sh\nprintf '\\145\\0\\0\\0\\0\\0\\0\\0{}\\1\\0\\0\\0{}{missing}' >&0\n\
         printf '\\146\\0\\0\\0\\0\\0\\0\\0\\4\\0\\0\\0\\0\\0\\0\\0' >&0\n",
        length(8 + missing.len()),
        length(missing.len())
    );
    compile(&folder.path().join("faulty.so"), "never", "");
    let output = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"))
        .args(["policies", "--plugin"])
        .arg(folder.path().join("faulty.so"))
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .env("VCPU_POLICY_HOST", program(folder.path(), &text))
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(&format!(
            "WARN it is contained less than it should be: {missing} plugin=\"faulty.so\""
        )),
        "{said}"
    );
}

/// A program that goes away while the scheduler runs, in the course of an upgrade perhaps, ends in the fallback too.
#[test]
fn a_program_that_is_gone_ends_in_the_fallback() {
    let folder = folder();
    let mut terms = terms(PATIENT);
    let copy = folder.path().join("vcpu-policy-host");
    let copied = Command::new("cp").arg(&terms.program).arg(&copy).status();
    assert!(copied.expect("cp").success());
    terms.program.clone_from(&copy);
    let order = Order {
        library: sealed("decide", "abort"),
        policy: "faulty".to_owned(),
        options: String::new(),
    };
    let mut policy = Supervised::new(order, Arc::new(terms)).expect("it is made without fault");
    std::fs::remove_file(&copy).expect("it was there");
    let mut plan = Plan::new();
    let told: Vec<String> = (1..13)
        .map(|number| tick(&mut policy, number, &mut plan).expect_err("nobody decides"))
        .collect();
    let unable = told
        .iter()
        .filter(|told| told.contains("cannot be started, by no fault of its own"));
    assert_eq!(unable.count(), IN_A_ROW as usize - 1, "{told:#?}");
    let notes = tick(&mut policy, 13, &mut plan).expect("the fallback decides");
    assert!(notes[0].contains("only watches"), "{notes:?}");
}

/// Also where the process ended by itself, and was only found to have.
#[test]
fn what_a_process_leaves_in_its_group_is_ended() {
    let folder = folder();
    let left = folder.path().join("left");
    // Says that it is confined and has nothing to offer, as frames, and ends while another process goes on.
    let text = format!(
        "#!/bin/sh\nexec setsid sh -c 'printf \"\\145\\0\\0\\0\\0\\0\\0\\0\\4\\0\\0\\0\\0\\0\\0\\0\" >&0\n\
         printf \"\\146\\0\\0\\0\\0\\0\\0\\0\\4\\0\\0\\0\\0\\0\\0\\0\" >&0\nsleep 600 & echo $! >{left}.new\n\
         mv {left}.new {left}'\n",
        left = left.display()
    );
    let program = program(folder.path(), &text);
    let mut process = PluginProcess::start(&program, &sealed("never", "")).expect("it starts");
    let patience = Patience {
        deadline: PATIENT,
        stop: None,
    };
    process.load(&patience).expect("it says so");
    let fault = eventually(|| process.ended_between());
    assert_eq!(
        fault.to_string(),
        "ended its process with exit status 0 between two ticks"
    );
    let pid = std::fs::read_to_string(&left).expect("left");
    eventually(|| is_gone(pid.trim()).then_some(()));
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// Holds on to a process, as a debugger does.
struct Tracer(Child);

impl Tracer {
    fn of(pid: &str, folder: &Path) -> Self {
        let (source, program) = (folder.join("tracer.c"), folder.join("tracer"));
        let text = "#include <stdlib.h>\n#include <sys/ptrace.h>\n#include <unistd.h>\n\
                    int main(int count, char **arguments) {\n\
                    if (count < 2 || ptrace(PTRACE_SEIZE, atoi(arguments[1]), 0, 0) != 0) { return 1; }\n\
                    for (;;) { pause(); }\n}\n";
        std::fs::write(&source, text).expect("written");
        let compiled = Command::new("cc").arg("-o").args([&program, &source]).status();
        assert!(compiled.expect("a C compiler").success());
        let tracer = Self(Command::new(program).arg(pid).spawn().expect("it starts"));
        eventually(|| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status
                .contains(&format!("TracerPid:\t{}\n", tracer.0.id()))
                .then_some(())
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// While a debugger holds a process, its parent is not told of its end, though it be killed.
#[test]
fn a_process_that_a_debugger_holds_is_not_waited_for() {
    let folder = folder();
    // It lets itself be traced by anyone, which else takes a right on some systems.
    let library = sealed("load", "traceable");
    let mut process = PluginProcess::start(&terms(PATIENT).program, &library).expect("it starts");
    let patience = Patience {
        deadline: PATIENT,
        stop: None,
    };
    process.load(&patience).expect("it loads");
    let pid = process.id().to_string();
    let tracer = Tracer::of(&pid, folder.path());
    let begun = Instant::now();
    drop(process);
    assert!(begun.elapsed() < PATIENT);
    assert!(is_gone(&pid), "it was killed all the same");
    drop(tracer);
    // And it does not stay a zombie.
    eventually(|| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[test]
fn no_deadline_is_too_long() {
    let mut policy = supervised("never", "", Duration::MAX).expect("it is made without fault");
    assert!(tick(&mut policy, 1, &mut Plan::new()).is_ok());
}
