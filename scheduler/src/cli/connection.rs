//! The connection that a command works on, as the configuration has it. Every command opens it here, and none waits for it
//! longer than for a call.

use std::sync::Arc;

use crate::config::Effective;
use crate::host::libvirt::{Access, LibvirtHost};
use crate::host::watched::{Open, Watched};
use crate::host::{Host, HostError, HostIdentity};
use crate::stop::Stop;

/// Opens the connection, and asks which host it leads to.
pub(super) fn connect(
    effective: &Effective,
    access: Access,
    stop: &Stop,
) -> Result<(Watched, HostIdentity), HostError> {
    let uri = effective.connect.as_str();
    let patience = effective.call_timeout.get();
    let mut host = Watched::open(uri, open_libvirt(uri, access), stop.clone(), patience)?;
    let identity = host.identity()?;
    Ok((host, identity))
}

/// Opens libvirt, as often as it is asked to.
fn open_libvirt(uri: &str, access: Access) -> Open {
    let uri = uri.to_owned();
    Arc::new(move || Ok(Box::new(LibvirtHost::open(Some(&uri), access)?) as Box<dyn Host>))
}
