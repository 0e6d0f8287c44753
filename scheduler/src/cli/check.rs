//! `check`: whether a configuration can be used, and what would be in force: all of it, or for one domain.

use std::io::Write;

use super::Failure;
use super::args::CheckArgs;
use super::configuration::say_doubts;
use super::connection::connect;
use super::placement::check_domain;
use super::policy::{Chosen, Supervision, check_host, registry};
use super::signals::Signals;
use super::state::read_only_ledger;
use crate::config::{self, PolicyOptions};
use crate::host::libvirt::Access;

pub(super) fn check(args: &CheckArgs, output: &mut dyn Write) -> Result<(), Failure> {
    if args.schema {
        serde_json::to_writer_pretty(&mut *output, &config::schema()).map_err(std::io::Error::from)?;
        writeln!(output)?;
        return Ok(());
    }
    let effective = args.settings.sources()?.read().map_err(Failure::caller)?;
    let registry = registry(&effective, Supervision::of_daemon(&effective, None))?;
    let chosen = Chosen::new(&registry, &effective)?;
    // Only the policy itself knows which values of its options it accepts.
    drop(chosen.make()?);
    if let Some(domain) = &args.domain {
        let stop = Signals::handle(None)?.stop;
        let connected = connect(&effective, Access::ReadOnly, &stop);
        let (mut host, identity) = connected.map_err(Failure::world)?;
        check_host(&effective, &identity.cpus)?;
        say_doubts(&effective, Some(&identity));
        let state_dir = effective.state_dir();
        let mut ledger = read_only_ledger(&identity, state_dir);
        return check_domain(&mut host, &mut ledger, &effective.terms(0), domain, output);
    }
    say_doubts(&effective, None);
    let defaults = PolicyOptions::from_text(&chosen.entry.offer.defaults);
    output.write_all(effective.to_yaml(&defaults.0).as_bytes())?;
    Ok(())
}
