//! `check`: whether a configuration can be used, and what would be in force.

use std::io::Write;

use super::Failure;
use super::args::CheckArgs;
use super::policy::{Chosen, Supervision, registry};
use crate::config::{self, PolicyOptions};

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
    let defaults = PolicyOptions::from_text(&chosen.entry.offer.defaults);
    output.write_all(effective.to_yaml(&defaults.0).as_bytes())?;
    Ok(())
}
