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

/// The folder of the sandbox with the only QEMU that the daemon finds.
const EMULATORS: &str = "emulators";
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
        let emulators = sandbox.create_folder(EMULATORS);
        let qemu = "qemu-system-x86_64";
        symlink(sandbox.place_of(qemu), emulators.join(qemu)).expect("link to QEMU");
        let daemon = spawn(&sandbox);
        let mut libvirt = Self { daemon, sandbox };
        libvirt.wait_until_ready();
        libvirt
    }

    /// Ends the daemon at once, without a chance to say anything to anybody. Its guests live on.
    pub(crate) fn kill_daemon(&mut self) {
        self.daemon.kill().expect("kill the daemon");
        self.daemon.wait().expect("the daemon is ours");
    }

    /// Starts a daemon again where one was killed, and returns when it answers. It may find its guests a little later.
    pub(crate) fn start_daemon(&mut self) {
        // The socket of the one before would look like an answer.
        let _ = fs::remove_file(self.socket());
        self.daemon = spawn(&self.sandbox);
        self.wait_until_ready();
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

/// Starts a daemon in the sandbox.
fn spawn(sandbox: &Sandbox) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(sandbox.folder().join("libvirtd.log"))
        .expect("create the daemon's log");
    sandbox
        .installed(sandbox.place_of("libvirtd"))
        .env("PATH", sandbox.folder().join(EMULATORS))
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
        .expect("start libvirtd")
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
