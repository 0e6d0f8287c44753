//! The connection that a command works on, as the configuration has it.

use std::sync::Arc;

use crate::config::{Effective, Uri};
use crate::engine::stop::Stop;
use crate::host::libvirt::{Access, LibvirtHost};
use crate::host::watched::{Open, Watched};
use crate::host::{Host, HostError, HostIdentity};

/// Opens the connection, and asks which host it leads to.
pub(super) fn connect(
    effective: &Effective,
    access: Access,
    stop: &Stop,
) -> Result<(Watched, HostIdentity), HostError> {
    let open = open_libvirt(&effective.connect, access);
    let mut host = Watched::open(open, stop.clone(), effective.call_timeout.get())?;
    let identity = host.identity()?;
    Ok((host, identity))
}

/// Opens libvirt, as often as it is asked to.
pub(super) fn open_libvirt(uri: &Uri, access: Access) -> Open {
    let uri = uri.as_str().to_owned();
    Arc::new(move || Ok(Box::new(LibvirtHost::open(Some(&uri), access)?) as Box<dyn Host>))
}
