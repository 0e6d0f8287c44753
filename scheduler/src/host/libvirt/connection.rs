//! Connecting.
//!
//! A connection is kept alive: libvirt asks the daemon now and then whether it is there, and gives the connection up when
//! it does not answer. Without that a call to a daemon that hangs would never end. (Opening a connection to one never
//! does.) And it tells of changes, where the kind of host can.
//!
//! Every error names the URI: a daemon may be told to watch another host than its operator believes.

use std::sync::Once;

use tracing::debug;
use virt::connect::Connect;

use super::Access;
use super::error::LibvirtError;
use super::ffi::{self, Changes, Connection};
use crate::host::HostError;

/// How often libvirt asks whether the daemon is there.
const KEEPALIVE_SECONDS: i32 = 5;
/// How many times in a row the daemon may not answer: it is given up after some 20 s.
const KEEPALIVE_COUNT: u32 = 3;

/// Connects to `uri`, or to libvirt's default. What libvirt tells from then on is noted in `changes`.
pub(super) fn connect(uri: Option<&str>, access: Access, changes: &Changes) -> Result<Connection, HostError> {
    /// Without it libvirt prints errors to stderr that are reported here.
    static SILENCED: Once = Once::new();
    SILENCED.call_once(virt::error::clear_error_callback);

    let target = uri.unwrap_or("libvirt's default host");
    if target.contains('\0') {
        return Err(HostError::Lost {
            operation: format!("cannot connect to {target:?}"),
            source: "a URI has no zero byte in it".into(),
        });
    }
    // An event loop that is there only later is not known to the connection.
    let told = ffi::run_event_loop();
    let opened = match access {
        Access::ReadOnly => Connect::open_read_only(uri),
        Access::ReadWrite => Connect::open(uri),
    };
    let mut connection = opened
        .map(Connection::new)
        .map_err(|error| not_connected(target, access, error.into()))?;
    if told {
        // Neither is something that every kind of host has, or the scheduler cannot do without.
        if let Err(error) = connection.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT) {
            debug!(
                target,
                error = error.message(),
                "the connection is not kept alive"
            );
        }
        if let Err(error) = connection.subscribe(changes) {
            debug!(
                target,
                error = error.message(),
                "changes are not told, but found by reading from time to time"
            );
        }
    }
    Ok(connection)
}

fn not_connected(target: &str, access: Access, error: LibvirtError) -> HostError {
    let denied = error.says_forbidden() || error.says_access_denied() || error.says_no_entry();
    let hint = if access == Access::ReadWrite && denied {
        " with permission to pin (`run --dry-run` needs permission to read only)"
    } else {
        ""
    };
    HostError::Lost {
        operation: format!("cannot connect to {target}{hint}"),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use virt::error::ErrorNumber as Code;

    use super::*;

    #[test]
    fn who_may_not_pin_is_told_that_reading_may_be_allowed() {
        let plain = "cannot connect to qemu:///system";
        let hinted =
            format!("{plain} with permission to pin (`run --dry-run` needs permission to read only)");
        let denied = "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied";
        let nobody = "Failed to connect socket to '/run/libvirt/libvirt-sock': Connection refused";
        for (access, code, message, expect) in [
            (Access::ReadWrite, Code::SystemError, denied, &*hinted),
            (
                Access::ReadWrite,
                Code::AuthUnavailable,
                "authentication unavailable",
                &*hinted,
            ),
            (Access::ReadOnly, Code::SystemError, denied, plain),
            (Access::ReadWrite, Code::SystemError, nobody, plain),
        ] {
            let error = not_connected("qemu:///system", access, LibvirtError::new(code, message));
            assert_eq!(error.to_string(), expect, "{access:?} {code:?} {message}");
        }
    }
}
