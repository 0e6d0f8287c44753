//! The folder of a host's journal, opened: the lock, what is recorded, and the ledger that goes on from it.

use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::Failure;
use crate::engine::daemon::chain;
use crate::engine::journal::file::{self, FileJournal};
use crate::engine::journal::folder::{Place, User, boot_id};
use crate::engine::journal::lock::Lock;
use crate::engine::journal::{Entry, JournalError, Unkept};
use crate::engine::ledger::Ledger;
use crate::host::{HostIdentity, Token};

/// What a command that writes works on. See the [module](self).
#[derive(Debug)]
pub(super) struct State {
    pub(super) folder: PathBuf,
    pub(super) ledger: Ledger,
    _lock: Lock,
}

/// Where the state of a host is. `stated` is the folder that the operator named.
fn place(host: &HostIdentity, stated: Option<&Path>) -> Place {
    Place {
        stated: stated.map(Path::to_owned),
        local: host.is_local,
        host: host.name.clone(),
    }
}

/// The kernel's identity of this boot, which holds for guests on this machine.
fn boot(host: &HostIdentity) -> Option<String> {
    host.is_local.then(boot_id).flatten()
}

impl State {
    /// Takes the lock of a host and opens its journal; `command` says to others what holds the lock.
    pub(super) fn open(host: &HostIdentity, stated: Option<&Path>, command: &str) -> Result<Self, Failure> {
        let open = || -> Result<Self, JournalError> {
            let folder = place(host, stated).prepare(&User::current())?;
            let lock = Lock::take(&folder, command)?;
            let journal = FileJournal::open(&folder, boot(host))?;
            let left: Vec<Entry> = journal.entries().cloned().collect();
            debug!(folder = %folder.display(), records = left.len(), "journal opened");
            Ok(Self {
                folder,
                ledger: Ledger::new(Box::new(journal), left, Box::new(random_token)),
                _lock: lock,
            })
        };
        open().map_err(|error| match error {
            JournalError::Io { .. } => Failure::World(anyhow::Error::new(error).context(
                "the record of what to give back cannot be used (--state-dir names another folder)",
            )),
            error => Failure::world(error),
        })
    }
}

/// The folder of a host, whether or not it is there.
pub(super) fn folder(host: &HostIdentity, stated: Option<&Path>) -> Result<PathBuf, Failure> {
    place(host, stated).path(&User::current()).map_err(Failure::world)
}

/// A ledger that knows what is recorded and writes nothing: a dry run's.
pub(super) fn read_only_ledger(host: &HostIdentity, stated: Option<&Path>) -> Ledger {
    let read = place(host, stated)
        .path(&User::current())
        .and_then(|folder| file::read(&folder, boot(host).as_deref()));
    let left = read.unwrap_or_else(|error| {
        let why = chain(&error);
        if matches!(error, JournalError::Nowhere { .. }) {
            // Nothing was ever recorded in no place.
            debug!("{why}");
        } else {
            warn!("what an earlier run has recorded is not taken into account: {why}");
        }
        Vec::new()
    });
    Ledger::new(Box::new(Unkept), left, Box::new(random_token))
}

fn random_token() -> Token {
    Token(uuid::Uuid::new_v4().to_string().into())
}
