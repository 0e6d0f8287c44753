//! What the daemon says where it may not pin.

use std::path::Path;
use std::process::Output;

use crate::harness::{PrivateLibvirt, ReadOnlyLibvirt};

const BINARY: &str = env!("CARGO_BIN_EXE_vcpu-scheduler");

/// The test driver's guest is so idle that only a threshold of 0 sees anything to even out.
fn once(libvirt: &ReadOnlyLibvirt, flags: &[&str]) -> Output {
    let uri = libvirt.uri();
    let arguments = [
        "run",
        "--once",
        "--interval",
        "500ms",
        "-o",
        "threshold=0",
        "-c",
        &uri,
    ];
    libvirt
        .command(Path::new(BINARY))
        .args(arguments)
        .args(flags)
        .output()
        .expect("the binary starts")
}

#[test]
fn a_read_only_connection_needs_a_dry_run() {
    let Some(libvirt) = ReadOnlyLibvirt::start() else {
        return;
    };
    let refused = once(&libvirt, &[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let told: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(told.len(), 1, "{said}");
    assert!(
        told[0].contains("pinning is not permitted") && told[0].contains("--dry-run"),
        "{said}"
    );

    let dry = once(&libvirt, &["--dry-run"]);
    let said = String::from_utf8_lossy(&dry.stderr);
    assert_eq!(dry.status.code(), Some(0), "{said}");
    assert!(
        String::from_utf8_lossy(&dry.stdout).contains("\npin     test/"),
        "{dry:?}"
    );
}

#[test]
fn a_socket_that_may_not_be_opened_is_named() {
    let libvirt = PrivateLibvirt::start();
    let closed = libvirt.folder().join("run/libvirt/libvirt-sock");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("closed");
    let output = libvirt
        .command(Path::new(BINARY))
        .args(["run", "--once"])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: cannot connect to ") && said.contains("Permission denied"),
        "{said}"
    );
    assert!(said.contains("--dry-run"), "{said}");
}
