//! A libvirt daemon whose read-only socket is what clients get.
//!
//! Only a daemon that runs as root has such a socket. This one takes itself for root in a user namespace of its own, in
//! which the machine's run-time folders are hidden behind empty ones. It has no driver but libvirt's built-in test
//! driver, so it has no guest that anybody could touch.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::sandbox::Sandbox;
use super::wait_for;

const READY_LIMIT: Duration = Duration::from_secs(30);

/// What runs in the namespace: hides the machine's folders, then becomes the daemon.
const BECOME_DAEMON: &str = "for folder in /run /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs $folder || exit; done; exec \"$@\"";

/// A libvirt daemon that lets nobody write. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct ReadOnlyLibvirt {
    daemon: Child,
    sandbox: Sandbox,
}

impl ReadOnlyLibvirt {
    /// Starts the daemon; `None` where this machine gives ordinary users no namespaces.
    pub(crate) fn start() -> Option<Self> {
        let sandbox = Sandbox::new();
        if let Err(refusal) = sandbox.run("unshare", &["--user", "--map-root-user", "--mount", "true"]) {
            use std::io::Write;
            // Past the test runner's capture: a test that did not run must not look like one that passed.
            let _ = writeln!(
                std::io::stderr(),
                "no user namespaces here, so nothing was tried: {refusal}"
            );
            return None;
        }
        let folder = sandbox.folder().to_owned();
        let settings = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nlog_outputs = \"3:stderr\"\n",
            folder.display()
        );
        let settings = sandbox.write("libvirtd.conf", &settings);
        let log = fs::File::create(folder.join("libvirtd.log")).expect("create the daemon's log");
        let daemon = sandbox
            .installed("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                BECOME_DAEMON,
                "sh",
            ])
            .arg(sandbox.place_of("libvirtd"))
            .arg("--config")
            .arg(settings)
            .arg("--pid-file")
            .arg(folder.join("libvirtd.pid"))
            .env("LIBVIRT_DRIVER_DIR", sandbox.create_folder("no-drivers"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start libvirtd");
        let mut libvirt = Self { daemon, sandbox };
        wait_for("the read-only socket", READY_LIMIT, || {
            if let Ok(Some(status)) = libvirt.daemon.try_wait() {
                let log = fs::read_to_string(folder.join("libvirtd.log")).unwrap_or_default();
                panic!("libvirtd ended at once: {status}\n{log}");
            }
            libvirt.socket().exists().then_some(())
        });
        Some(libvirt)
    }

    /// What a client connects to: a host of the test driver.
    pub(crate) fn uri(&self) -> String {
        format!("test+unix:///default?socket={}", self.socket().display())
    }

    /// A program of ours, to be run as the daemon's user.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        self.sandbox.command(program)
    }

    fn socket(&self) -> PathBuf {
        self.sandbox.folder().join("libvirt-sock-ro")
    }
}

impl Drop for ReadOnlyLibvirt {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
