//! The folder that remembers what to give back, where the operator names it. The host is libvirt's test driver, of which no
//! vCPU is pinned here.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{binary, run, text};

/// A daemon, killed when dropped.
struct Daemon(Child);

impl Daemon {
    /// Starts one, and returns when it listens.
    fn start(state: &Path) -> Self {
        let child = binary()
            .args([
                "-q",
                "run",
                "-c",
                "test:///default",
                "-p",
                "observe",
                "--state-dir",
            ])
            .arg(state)
            .stderr(Stdio::null())
            .spawn();
        let daemon = Self(child.expect("the binary starts"));
        wait_for("the daemon to listen", || control_is_in(state));
        daemon
    }
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_there() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "gave up waiting for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
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
    let _daemon = Daemon::start(&deep);
    check();
}

/// What the daemon pins would otherwise be taken for somebody else's word, with the advice to release it.
#[test]
fn a_dry_run_beside_a_daemon_says_what_it_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let dry_run = || {
        let log = folder.path().join("log");
        let stderr = std::fs::File::create(&log).expect("created");
        let child = binary()
            .args([
                "run",
                "--dry-run",
                "-c",
                "test:///default",
                "-p",
                "observe",
                "--interval",
                "100ms",
            ])
            .arg("--state-dir")
            .arg(&state)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn();
        let mut child = child.expect("the binary starts");
        // It has said what it has to say when it shows the first tick.
        let mut shown = [0; 4];
        let stdout = child.stdout.as_mut().expect("piped");
        stdout.read_exact(&mut shown).expect("a tick");
        drop(Daemon(child));
        std::fs::read_to_string(log).expect("read")
    };
    let beside = "a scheduler runs for this host";
    let alone = dry_run();
    assert!(!alone.contains(beside), "{alone}");
    let _daemon = Daemon::start(&state);
    let said = dry_run();
    assert!(said.contains(beside), "{said}");
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
