//! A daemon whose plugin is at work when it is told to stop, or to read its configuration again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::recovery::{busy_child, eventually};
use super::{compile, folder};

/// A daemon on a host of libvirt's test driver that decides and pins nothing. It does not outlive its test.
struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let log = folder.join("log");
        let process = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"))
            .args(["run", "-v", "--connect", "test:///default", "--dry-run"])
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the binary starts");
        Self { process, log }
    }

    fn tell(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("it runs");
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A stop that comes while a plugin decides costs a tick that nobody waits for, and is nobody's fault.
#[test]
fn a_stop_while_a_plugin_decides_is_no_error() {
    let folder = folder();
    let plugin = folder.path().join("faulty.so");
    compile(&plugin, "decide", "loop");
    let plugin = plugin.to_str().expect("ASCII");
    let arguments = [
        "-p",
        "faulty",
        "--plugin",
        plugin,
        "--interval",
        "100ms",
        "--deadline",
        "1h",
    ];
    let mut daemon = Daemon::start(folder.path(), &arguments);
    eventually(|| busy_child(daemon.process.id()));
    daemon.tell(Signal::TERM);
    let status = daemon.process.wait().expect("it ends");
    let said = daemon.said();
    let in_order = status.success() && said.contains("stopped") && !said.contains("ERROR");
    assert!(in_order, "{status}: {said}");
}

/// The deadline that nobody stated is half the interval, also of an interval that is stated later.
#[test]
fn another_interval_is_another_deadline() {
    let folder = folder();
    compile(&folder.path().join("faulty.so"), "decide", "loop");
    let plugin = folder.path().join("faulty.so");
    let file = folder.path().join("config.yaml");
    let configure = |interval: &str| {
        let plugins = format!("plugins: [{{path: {}}}]", plugin.display());
        let text = format!("interval: {interval}\npolicy: {{name: faulty}}\n{plugins}\n");
        std::fs::write(&file, text).expect("written");
    };
    configure("100ms");
    let daemon = Daemon::start(folder.path(), &["--config", file.to_str().expect("ASCII")]);
    eventually(|| daemon.said().contains("no answer within 50ms").then_some(()));
    configure("600ms");
    daemon.tell(Signal::HUP);
    eventually(|| daemon.said().contains("no answer within 300ms").then_some(()));
}
