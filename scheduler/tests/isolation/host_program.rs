//! The program that hosts plugins, as a file.

use std::path::Path;
use std::process::Command;

/// A plugin's process has no business with libvirt, nor with anything that comes with it.
#[test]
fn it_links_no_libvirt() {
    let needed = |program: &Path| {
        let output = Command::new("readelf")
            .arg("--dynamic")
            .arg(program)
            .output()
            .expect("readelf");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let host = needed(assert_cmd::cargo::cargo_bin!("vcpu-policy-host"));
    assert!(host.contains("NEEDED") && !host.contains("libvirt"), "{host}");
    // The check itself sees libvirt where it is.
    assert!(needed(assert_cmd::cargo::cargo_bin!("vcpu-scheduler")).contains("libvirt"));
}

#[test]
fn it_says_that_it_is_not_for_people() {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-policy-host"))
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: vcpu-policy-host is started by vcpu-scheduler, for each plugin\n"
    );
}

/// One of the two programs can be replaced while the other runs.
#[test]
fn it_says_that_it_is_of_another_release() {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-policy-host"))
        .args(["4711", "1", "info", "night.so"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ERROR this vcpu-policy-host and the vcpu-scheduler that started it are of different releases (protocol 1 and \
         4711): start the scheduler anew\n"
    );
}
