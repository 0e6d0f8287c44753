//! A libvirt daemon that belongs to one test.
//!
//! It is a session daemon (unprivileged, without root) that we start as our own child in a [`Sandbox`].
//! Clients reach it by a URI that names its socket, so whatever user a client runs as and whatever its
//! environment holds, it talks to this daemon or to none: never to the machine's own, whose guests are not
//! ours to touch.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::sandbox::Sandbox;
use super::wait_for;

const READY_LIMIT: Duration = Duration::from_secs(30);

/// A libvirt daemon of our own. Dropping it ends the daemon and its guests and removes their files.
#[derive(Debug)]
pub(crate) struct PrivateLibvirt {
    daemon: Child,
    sandbox: Sandbox,
}

impl PrivateLibvirt {
    /// Starts the daemon and returns when it answers. Panics with the daemon's own words if it does not.
    pub(crate) fn start() -> Self {
        let sandbox = Sandbox::new();
        sandbox.create_folder("config/libvirt");
        // By default QEMU's output goes through virtlogd, which libvirt would start and leave behind.
        sandbox.write("config/libvirt/qemu.conf", "stdio_handler = \"file\"\n");
        sandbox.write("config/libvirt/libvirtd.conf", "log_outputs = \"3:stderr\"\n");
        // libvirt questions every QEMU that it finds, one for each architecture: let it find one.
        let emulators = sandbox.create_folder("emulators");
        let qemu = "qemu-system-x86_64";
        symlink(sandbox.place_of(qemu), emulators.join(qemu)).expect("link to QEMU");
        let log = fs::File::create(sandbox.folder().join("libvirtd.log")).expect("create the daemon's log");
        let daemon = sandbox
            .installed(sandbox.place_of("libvirtd"))
            .env("PATH", emulators)
            // The reaper tells by this path that the process is ours.
            .arg("--pid-file")
            .arg(sandbox.folder().join("libvirtd.pid"))
            // Should we be killed before that file is written: end when there has been no client and no guest
            // for 2 minutes.
            .args(["--timeout", "120"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start libvirtd");
        let mut libvirt = Self { daemon, sandbox };
        libvirt.wait_until_ready();
        libvirt
    }

    fn wait_until_ready(&mut self) {
        wait_for("libvirtd's socket", READY_LIMIT, || {
            if let Ok(Some(status)) = self.daemon.try_wait() {
                panic!("libvirtd ended at once: {status}\n{}", self.log());
            }
            self.socket().exists().then_some(())
        });
        if let Err(error) = self.try_virsh(&["version"]) {
            panic!(
                "libvirtd does not answer; if it has no QEMU driver, install the package \
                 libvirt-daemon-driver-qemu (its name in Debian)\n{error}\n{}",
                self.log()
            );
        }
    }

    /// What a client connects to.
    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///session?socket={}", self.socket().display())
    }

    /// A program of ours, to be run as the daemon's user and in its environment, with `LIBVIRT_DEFAULT_URI`
    /// set to [`Self::uri`]. It is copied into the sandbox first, once for each file name. What still runs
    /// when this value is dropped is killed; whoever spawned it has yet to wait for it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = self.sandbox.command(program);
        command.env("LIBVIRT_DEFAULT_URI", self.uri());
        command
    }

    /// Runs `virsh` and returns its output without the blank lines around it. Panics if it fails.
    #[track_caller]
    pub(crate) fn virsh<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        self.try_virsh(args)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// The same, for calls that are expected to fail: then it returns what `virsh` said.
    pub(crate) fn try_virsh<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String, String> {
        let uri = self.uri();
        let mut all: Vec<&OsStr> = vec!["--quiet".as_ref(), "--connect".as_ref(), uri.as_ref()];
        all.extend(args.iter().map(AsRef::as_ref));
        self.sandbox
            .run("virsh", &all)
            .map(|output| output.trim().to_owned())
    }

    /// The folder that everything of this daemon is in.
    pub(crate) fn folder(&self) -> &Path {
        self.sandbox.folder()
    }

    /// The daemon's process, for tests that stop it for a while or kill it.
    pub(crate) fn daemon_pid(&self) -> u32 {
        self.daemon.id()
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("run/libvirt/libvirt-sock")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder().join("libvirtd.log")).unwrap_or_default();
        format!("libvirtd's log:\n{log}")
    }
}

impl Drop for PrivateLibvirt {
    fn drop(&mut self) {
        // The daemon first: it is our child, so nobody else can take its exit status, and it might start
        // something while the reaper, whose turn comes with the sandbox, is at work. Killed, since a stopped
        // daemon would not end otherwise, and nothing of it is kept. An error here means that it has ended
        // already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
