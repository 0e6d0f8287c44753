//! `restore`: gives every vCPU back the affinity that it had before the scheduler pinned it.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tracing::{info, warn};

use super::Failure;
use super::args::RestoreArgs;
use super::connection::connect;
use super::printable::printable;
use super::signals::Signals;
use super::state::State;
use crate::config::Layer;
use crate::engine::daemon::chain;
use crate::engine::ledger::Ledger;
use crate::engine::restore::{Obstacle, Remaining, Restored, Returned, restore as give_back};
use crate::engine::terms::Terms;
use crate::host::libvirt::Access;
use crate::host::watched::Watched;
use crate::stop::Stop;

pub(super) fn restore(args: &RestoreArgs, output: &mut dyn Write) -> Result<(), Failure> {
    let signals = Signals::handle(None)?;
    let flags = Layer {
        stop_timeout: args.stop_timeout,
        ..Layer::default()
    };
    let effective = args.host.sources(flags)?.read().map_err(Failure::caller)?;
    let connected = connect(&effective, Access::ReadWrite, &signals.stop);
    let (mut host, identity) = connected.map_err(Failure::world)?;
    let stated = effective.state_dir();
    let mut state = State::open(&identity, stated, "restore")?;
    let deadline = deadline(&mut host, effective.stop_timeout.get());
    let terms = effective.terms(0);
    let restored = give_back(&mut host, &mut state.ledger, &terms, deadline, &signals.stop);
    write_result(output, &restored)?;
    outcome(&restored)
}

/// At the daemon's end: the same, said in the log. `hurry` is the wish not to wait for it.
pub(super) fn at_the_end(
    host: &mut Watched,
    ledger: &mut Ledger,
    terms: &Terms,
    timeout: Duration,
    hurry: &Stop,
) -> Result<(), Failure> {
    if !ledger.has_nothing_to_give_back() {
        let timeout = humantime::format_duration(timeout);
        info!(%timeout, "giving back the affinities; a second signal skips that");
    }
    host.heed(hurry.clone());
    let deadline = deadline(host, timeout);
    let restored = give_back(host, ledger, terms, deadline, hurry);
    for Returned { domain, vcpu, cpus } in &restored.given_back {
        info!(domain = &**domain, vcpu, %cpus, "given back");
    }
    for Returned { domain, vcpu, cpus } in &restored.left_alone {
        info!(domain = &**domain, vcpu, %cpus, "left as another hand has pinned it");
    }
    for remaining in &restored.remaining {
        let why = chain(&remaining.why);
        if let Some(domain) = remaining.domain.as_deref() {
            warn!(domain, "not given back: {why}");
        } else if is_given_back(remaining) {
            warn!("{why}");
        } else {
            warn!("what is left is not given back: {why}");
        }
    }
    outcome(&restored)
}

/// When giving back ends, whatever the host does; what can be done at once is done however short the time.
fn deadline(host: &mut Watched, timeout: Duration) -> Instant {
    const AT_ONCE: Duration = Duration::from_secs(1);
    let deadline = Instant::now() + timeout.max(AT_ONCE);
    host.answer_by(deadline);
    deadline
}

fn write_result(output: &mut dyn Write, restored: &Restored) -> std::io::Result<()> {
    for Returned { domain, vcpu, cpus } in &restored.given_back {
        let domain = printable(domain);
        writeln!(output, "{domain}/{vcpu}  given back: {cpus}")?;
    }
    for Returned { domain, vcpu, cpus } in &restored.left_alone {
        let domain = printable(domain);
        writeln!(
            output,
            "{domain}/{vcpu}  left alone: {cpus}, as another hand has pinned it"
        )?;
    }
    for remaining in &restored.remaining {
        let why = chain(&remaining.why);
        match remaining.domain.as_deref() {
            Some(domain) => writeln!(output, "{}  not given back: {why}", printable(domain))?,
            None if is_given_back(remaining) => writeln!(output, "{why}")?,
            None => writeln!(output, "what is left is not given back: {why}")?,
        }
    }
    if restored.given_back.is_empty() && restored.left_alone.is_empty() && restored.remaining.is_empty() {
        writeln!(output, "nothing to give back")?;
    }
    Ok(())
}

fn outcome(restored: &Restored) -> Result<(), Failure> {
    if restored.remaining.is_empty() {
        return Ok(());
    }
    Err(Failure::World(if restored.remaining.iter().all(is_given_back) {
        anyhow!(
            "everything is given back, but the journal does not know; `vcpu-scheduler restore` brings it up to date"
        )
    } else {
        anyhow!(
            "not everything could be given back; the journal still has it, and `vcpu-scheduler restore` tries again"
        )
    }))
}

/// Whether nothing remains to be done to a guest: only the journal is behind.
fn is_given_back(remaining: &Remaining) -> bool {
    matches!(remaining.why, Obstacle::Journal(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::journal::JournalError;

    fn remaining(domain: Option<&str>, why: Obstacle) -> Remaining {
        Remaining {
            domain: domain.map(Into::into),
            why,
        }
    }

    fn behind() -> Obstacle {
        Obstacle::Journal(JournalError::Io {
            operation: "write",
            path: "/j".into(),
            source: std::io::Error::other("full"),
        })
    }

    #[track_caller]
    fn check(remaining: Vec<Remaining>, expect: &str) {
        let restored = Restored {
            remaining,
            ..Restored::default()
        };
        let mut output = Vec::new();
        write_result(&mut output, &restored).expect("written");
        let ended = outcome(&restored);
        let error = match ended {
            Ok(()) => String::new(),
            Err(Failure::World(error) | Failure::Caller(error)) => format!("error: {error:#}\n"),
        };
        let said = String::from_utf8(output).expect("text") + &error;
        assert_eq!(said, expect);
    }

    #[test]
    fn a_journal_that_is_behind_is_no_guest_left_pinned() {
        check(vec![], "nothing to give back\n");
        check(
            vec![remaining(None, behind())],
            "the journal cannot be brought up to date: cannot write /j: full\n\
             error: everything is given back, but the journal does not know; `vcpu-scheduler restore` brings it up \
             to date\n",
        );
        check(
            vec![
                remaining(Some("web-1"), Obstacle::Unread),
                remaining(None, behind()),
            ],
            "web-1  not given back: the domain runs but cannot be read\n\
             the journal cannot be brought up to date: cannot write /j: full\n\
             error: not everything could be given back; the journal still has it, and `vcpu-scheduler restore` tries \
             again\n",
        );
    }
}
