//! The folder that remembers what to give back, where the operator names it. The host is libvirt's test driver, of which no
//! vCPU is pinned here.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{binary, run, text};

/// A daemon, killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(state: &str) -> Self {
        let child = binary()
            .args([
                "-q",
                "run",
                "-c",
                "test:///default",
                "-p",
                "observe",
                "--state-dir",
                state,
            ])
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the binary starts"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn control_is_in(folder: &Path) -> bool {
    let hosts = std::fs::read_dir(folder).into_iter().flatten().flatten();
    hosts.into_iter().any(|host| host.path().join("control").exists())
}

/// A socket's path holds 107 bytes, a folder's more.
#[test]
fn a_daemon_is_reached_in_a_deep_folder_too() {
    let base = tempfile::tempdir().expect("a folder");
    let deep = base.path().join("deep".repeat(30));
    let state = deep.to_str().expect("a plain path");
    let release = ["release", "test", "-c", "test:///default", "--state-dir", state];
    let check = || {
        let released = run(&release);
        assert!(released.status.success(), "{}", text(&released.stderr));
        assert!(text(&released.stdout).contains("no vCPU of test is left alone"));
    };
    check();
    let _daemon = Daemon::start(state);
    let begin = Instant::now();
    while !control_is_in(&deep) {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the daemon does not listen"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    check();
}

/// A real run would not start, so what a dry run shows is not the whole truth.
#[test]
fn a_dry_run_says_that_it_does_not_know_what_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().to_str().expect("a plain path");
    let once = [
        "run",
        "--once",
        "-c",
        "test:///default",
        "--interval",
        "100ms",
        "-p",
        "observe",
    ];
    let dry = [&once[..], &["--dry-run", "--state-dir", state]].concat();
    let said = || text(&run(&dry).stderr);
    let doubt = "what an earlier run has recorded is not taken into account";
    assert!(!said().contains(doubt), "{}", said());
    let real = run(&[&once[..], &["--state-dir", state]].concat());
    assert!(real.status.success(), "{}", text(&real.stderr));
    assert!(!said().contains(doubt), "{}", said());
    let host = std::fs::read_dir(state)
        .expect("listed")
        .next()
        .expect("one host");
    let journal = host.expect("read").path().join("journal");
    std::fs::remove_file(&journal).expect("it wrote one");
    std::fs::create_dir(&journal).expect("made");
    assert!(
        said().contains(doubt) && said().contains("Is a directory"),
        "{}",
        said()
    );
}
