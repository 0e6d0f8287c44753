//! The command line: what the user asks for, and how the answer is put.
//!
//! Results go to standard output, logs and errors to standard error. The exit status says whose turn it is: 0 done,
//! 1 the world failed (libvirt, a permission, an I/O error), 2 what the caller handed over is wrong.

mod args;
mod check;
mod configuration;
mod connection;
mod decide;
mod logging;
mod placement;
mod policies;
mod policy;
mod printable;
mod release;
mod restore;
mod run;
mod signals;
mod simulate;
mod snapshot;
mod state;
mod table;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

pub use args::Cli;
use args::{Command, LogFormat};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Failure {
    /// The world failed: exit status 1.
    World(anyhow::Error),
    /// What the caller handed over is wrong: exit status 2.
    Caller(anyhow::Error),
}

impl Failure {
    fn world(error: impl Into<anyhow::Error>) -> Self {
        Self::World(error.into())
    }

    fn caller(error: impl Into<anyhow::Error>) -> Self {
        Self::Caller(error.into())
    }
}

/// Writing a result can fail; a reader that has seen enough (`| head`) is told apart in [`main`].
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::World(anyhow::Error::from(error).context("cannot write the result"))
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(failure) = logging::start(&cli.logging) {
        return report(&failure, LogFormat::Text);
    }
    let mut output = anstream::stdout().lock();
    let done = match &cli.command {
        Command::Run(args) => run::run(args, &mut output),
        Command::Simulate(args) => simulate::simulate(args, &mut output),
        Command::Snapshot(args) => snapshot::snapshot(args, &mut output),
        Command::Decide(args) => decide::decide(args, &mut output),
        Command::Restore(args) => restore::restore(args, &mut output),
        Command::Release(args) => release::release(args, &mut output),
        Command::Policies(args) => policies::policies(args, &mut output),
        Command::Check(args) => check::check(args, &mut output),
    };
    match done.and_then(|()| Ok(output.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, cli.logging.log_format),
    }
}

fn report(failure: &Failure, format: LogFormat) -> ExitCode {
    let (error, status) = match failure {
        Failure::World(error) => (error, 1),
        Failure::Caller(error) => (error, 2),
    };
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    match format {
        // The last resort for telling anything: if it fails, there is nobody left to tell.
        LogFormat::Text => drop(writeln!(anstream::stderr(), "error: {error:#}")),
        LogFormat::Json => tracing::error!("{error:#}"),
    }
    ExitCode::from(status)
}
