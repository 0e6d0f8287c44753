//! Which host this is, by a name that stays the same for as long as the host is installed.
//!
//! libvirt states a UUID of its host. It takes it from the machine's firmware; where it cannot, because the daemon runs
//! as an ordinary user or the machine has none, it draws one by lot at each start, and does not say so. So for a daemon
//! on this machine the operating system's own `machine-id` is the name, which every process can read and which stays.
//! For a daemon elsewhere there is nothing but what libvirt says.

use std::fs;

use uuid::Uuid;

use super::process::is_local;
use super::xml::child;

/// The name of this machine's installation: 32 hexadecimal digits.
const MACHINE_ID: &str = "/etc/machine-id";

/// The host at `uri`, whose capabilities libvirt described; `None` if it has no name that can be relied on.
pub(super) fn host_uuid(uri: &str, capabilities: &str) -> Option<Uuid> {
    if is_local(uri) {
        return local_host_uuid(uri);
    }
    told_apart(&stated(capabilities)?)
}

/// The host at `uri`, as [`LibvirtHost::host_uuid`](super::LibvirtHost::host_uuid) would say without a connection; `None`
/// also if it is not this machine.
pub fn local_host_uuid(uri: &str) -> Option<Uuid> {
    if !is_local(uri) {
        return None;
    }
    told_apart(&fs::read_to_string(MACHINE_ID).ok()?)
}

/// What libvirt states.
fn stated(capabilities: &str) -> Option<String> {
    let document = roxmltree::Document::parse(capabilities).ok()?;
    let host = child(document.root_element(), "host")?;
    Some(child(host, "uuid")?.text()?.to_owned())
}

/// The UUID, if it is one that no other host has: not one that firmware has where nobody wrote any.
fn told_apart(text: &str) -> Option<Uuid> {
    /// Boards of many makers have this one.
    const OF_MANY: Uuid = Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009);
    let uuid = Uuid::try_parse(text.trim()).ok()?;
    let bytes = uuid.as_bytes();
    let of_one_byte = bytes.iter().all(|byte| byte == &bytes[0]);
    (!of_one_byte && uuid != OF_MANY).then_some(uuid)
}

/// Which guests of a host the daemon at `uri` has, in the letters of a file's name: `qemu-system`, `qemu-session`.
pub(super) fn guests_of(uri: &str) -> String {
    /// Longer paths are files of the test driver.
    const LONGEST: usize = 40;
    let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
    let driver = scheme.split('+').next().unwrap_or(scheme);
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    // Of `//far.example/system`, the part from the third slash on.
    let path = path
        .strip_prefix("//")
        .and_then(|path| path.split_once('/'))
        .map_or(path, |(_, path)| path);
    let words = format!("{driver}-{path}");
    let plain = words.chars().map(|letter| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    });
    let name: String = plain.take(LONGEST).collect();
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_daemon_of_a_host_has_guests_of_its_own() {
        for (uri, expected) in [
            ("qemu:///system", "qemu-system"),
            ("qemu+unix:///system?socket=/run/a", "qemu-system"),
            ("qemu+ssh://user@far.example/system", "qemu-system"),
            ("qemu:///session", "qemu-session"),
            ("test:///default", "test-default"),
            ("test:///srv/a/hosts.xml", "test-srv-a-hosts-xml"),
            ("xen:///", "xen"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(guests_of(uri), expected, "{uri}");
        }
        assert_eq!(guests_of(&format!("test:///{}", "x/".repeat(99))).len(), 40);
    }

    const UUID: &str = "28c17933-9389-4184-9021-c8197c5f4f20";

    fn capabilities(uuid: &str) -> String {
        format!("<capabilities><host><uuid>{uuid}</uuid><cpu/></host></capabilities>")
    }

    #[test]
    fn a_host_elsewhere_is_what_libvirt_says() {
        let far = "qemu+ssh://far.example/system";
        for (stated, found) in [
            (UUID, Some(UUID)),
            ("00000000-0000-0000-0000-000000000000", None),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", None),
            ("03000200-0400-0500-0006-000700080009", None),
            ("to be filled", None),
            ("", None),
        ] {
            let uuid = host_uuid(far, &capabilities(stated)).map(|uuid| uuid.to_string());
            assert_eq!(uuid.as_deref(), found, "{stated}");
        }
        assert_eq!(host_uuid(far, "<capabilities><host/></capabilities>"), None);
        assert_eq!(host_uuid(far, "<capab"), None);
    }

    #[test]
    fn this_machine_is_what_its_system_says() {
        let uuid = host_uuid("qemu:///session", &capabilities(UUID));
        assert_ne!(uuid.map(|uuid| uuid.to_string()).as_deref(), Some(UUID));
        let own = fs::read_to_string(MACHINE_ID)
            .ok()
            .and_then(|text| told_apart(&text));
        assert_eq!(uuid, own);
        assert_eq!(local_host_uuid("qemu:///session"), own);
        assert_eq!(local_host_uuid("qemu+ssh://far.example/system"), None);
    }
}
