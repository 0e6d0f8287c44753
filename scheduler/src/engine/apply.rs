//! Carrying out what the verifier let pass.
//!
//! In go the accepted actions of a tick; out comes what happened to each. Actions are carried out in plan order, one
//! call a pin. A pin that fails costs itself alone, unless the failure says that no other can succeed: then the rest is
//! left undone.

use tracing::trace;
use vcpu_policy_api::ids::Index;
use vcpu_policy_api::plan::{Action, NamedAction};

use super::collect::Collected;
use crate::host::{Host, PinError, VcpuKey};

/// What became of the actions of a tick.
#[derive(Debug, Default)]
pub struct Applied {
    /// Carried out.
    pub pinned: Vec<Pinned>,
    /// Tried without success.
    pub failed: Vec<Failed>,
    /// Not even tried, because of the last failure.
    pub untried: usize,
}

/// A pin that came about.
#[derive(Debug)]
pub struct Pinned {
    /// Whom it concerns.
    pub key: VcpuKey,
    /// What was done.
    pub action: NamedAction,
}

/// A pin that did not come about.
#[derive(Debug)]
pub struct Failed {
    /// Whom it concerns.
    pub key: VcpuKey,
    /// What was to be done.
    pub action: NamedAction,
    /// Why it was not.
    pub error: PinError,
}

/// Pins, in order, what `actions` ask for.
pub fn apply(host: &mut dyn Host, collected: &Collected<'_>, actions: &[Action<'_>]) -> Applied {
    let mut applied = Applied::default();
    for (at, action) in actions.iter().enumerate() {
        let named = NamedAction::new(&collected.snapshot, action);
        trace!(domain = named.domain, vcpu = named.vcpu, cpus = %named.cpus, "calling pin");
        let key = collected.keys[action.vcpu.index()];
        match host.pin(&key, &named.cpus) {
            Ok(()) => applied.pinned.push(Pinned { key, action: named }),
            Err(error) => {
                let hopeless = matches!(error, PinError::Host(_) | PinError::Forbidden { .. });
                applied.failed.push(Failed {
                    key,
                    action: named,
                    error,
                });
                if hopeless {
                    applied.untried = actions.len() - at - 1;
                    break;
                }
            }
        }
    }
    applied
}
