//! `release`: lets vCPUs be moved again that are left alone because someone else had pinned them.

use std::io::Write;

use anyhow::anyhow;

use super::Failure;
use super::args::ReleaseArgs;
use super::connection::connect;
use super::signals::Signals;
use super::state::{self, State};
use crate::config::Layer;
use crate::engine::daemon::{Release, release as release_in};
use crate::engine::terms::Terms;
use crate::host::Host;
use crate::host::libvirt::Access;
use crate::host::watched::Watched;
use crate::operate::control::{self, ControlError};

pub(super) fn release(args: &ReleaseArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let signals = Signals::handle(None)?;
    let effective = args
        .host
        .sources(Layer::default())?
        .read()
        .map_err(Failure::caller)?;
    let connected = connect(&effective, Access::ReadWrite, &signals.stop);
    let (mut host, identity) = connected.map_err(Failure::world)?;
    let stated = effective.state_dir();
    let released = match control::release(&state::folder(&identity, stated)?, &args.target) {
        Err(ControlError::NoDaemon) => {
            let state = State::open(&identity, stated, "release")?;
            without_a_daemon(&mut host, state, &args.target)?
        }
        Err(error @ ControlError::Refused(_)) => return Err(Failure::caller(error)),
        outcome => outcome.map_err(Failure::world)?,
    };
    let domain = &args.target.domain;
    if released.is_empty() {
        match args.target.vcpu {
            Some(vcpu) => writeln!(output, "nothing to release: {domain}/{vcpu} is not left alone")?,
            None => writeln!(output, "nothing to release: no vCPU of {domain} is left alone")?,
        }
    }
    for vcpu in released {
        writeln!(output, "{domain}/{vcpu}  released")?;
    }
    Ok(())
}

/// Changes what the next daemon finds.
fn without_a_daemon(host: &mut Watched, mut state: State, target: &Release) -> Result<Vec<u32>, Failure> {
    let sample = host.sample().map_err(Failure::world)?;
    state.ledger.observe(&sample, &Terms::default());
    let released = release_in(&mut state.ledger, target).map_err(Failure::caller)?;
    let changed = state.ledger.stale();
    let refusals = state.ledger.keep(host, &changed);
    state.ledger.write().map_err(Failure::world)?;
    match refusals.into_iter().next() {
        None => Ok(released),
        Some((_, error)) => Err(Failure::World(
            anyhow!(error).context("the journal knows of the release, the domain does not"),
        )),
    }
}
