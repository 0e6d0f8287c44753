//! Where log lines go and how they look.
//!
//! Levels: error = the daemon cannot do its job; warn = the operator should look; info = what changed; debug = each
//! tick; trace = each call.

use std::io::IsTerminal;

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;

use super::Failure;
use super::args::{LogFormat, Logging};

/// Lets log lines flow to standard error.
pub(super) fn start(args: &Logging) -> Result<(), Failure> {
    let level = match (args.verbose, args.quiet) {
        (0, 0) => "info",
        (1, _) => "debug",
        (2.., _) => "trace",
        (_, 1) => "warn",
        (_, _) => "error",
    };
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let directives = if chosen.is_empty() { level } else { &chosen };
    // The error says in its own text what its cause says.
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| anyhow!("the variable {} is \"{chosen}\": {error}", EnvFilter::DEFAULT_ENV))
        .map_err(Failure::caller)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that nobody can take, as on a full disk, must not end the daemon.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.with_target(false).with_ansi(colour).init();
        }
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).init(),
    }
    Ok(())
}
