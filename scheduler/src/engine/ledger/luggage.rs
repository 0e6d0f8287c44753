//! What a running domain carries of ours, and whether it takes what it is to carry.
//!
//! Asking a domain to carry something costs a call that has libvirt write the domain's status, so it is asked once for each
//! change, and one that did not take it is asked again only when one of its vCPUs is to be pinned.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::debug;

use super::Ledger;
use crate::host::{DomainKey, DomainSample, Host, Keepsake, Original, PinError, Token, VcpuKey};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Luggage {
    /// What the domain was last seen to carry, to know another one by its place.
    shown: Option<Arc<Keepsake>>,
    /// What it carries, as far as is known.
    carried: Option<Keepsake>,
    /// Whether it may have to carry something else.
    stale: bool,
    takes: Takes,
}

/// Whether a domain takes what it is to carry, as far as was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// It did, or was not asked.
    It,
    /// It did not: it is asked again when one of its vCPUs is to be pinned, and not before, since asking a busy domain may
    /// take long.
    ItLater,
    /// Nothing at all: no domain of its host can carry anything.
    Nothing,
}

impl Luggage {
    /// What a domain carries that is seen for the first time.
    pub(super) fn of(domain: &DomainSample) -> Self {
        let carried = domain.keepsake.as_deref().cloned();
        Self {
            shown: domain.keepsake.clone(),
            stale: carried.is_some(),
            carried,
            takes: Takes::It,
        }
    }

    /// Looks at what a sample shows. What someone else has changed may have to be changed back.
    pub(super) fn look(&mut self, domain: &DomainSample) {
        let same = match (&self.shown, &domain.keepsake) {
            (Some(shown), Some(now)) => Arc::ptr_eq(shown, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.shown.clone_from(&domain.keepsake);
            self.carried = domain.keepsake.as_deref().cloned();
            self.is_to_change();
        }
    }

    /// What it is to carry may be something else from now on.
    pub(super) fn is_to_change(&mut self) {
        self.stale = true;
        if self.takes != Takes::Nothing {
            self.takes = Takes::It;
        }
    }

    /// Whether it may have to carry something else than it does, and takes it at once.
    pub(super) fn is_stale(&self) -> bool {
        self.stale && self.takes == Takes::It
    }

    /// Whether it may have to carry something else than it does, and may take it.
    pub(super) fn may_take(&self) -> bool {
        self.stale && self.takes != Takes::Nothing
    }

    /// Whether no domain of its host can carry anything.
    pub(super) fn is_impossible(&self) -> bool {
        self.takes == Takes::Nothing
    }

    /// What it carries, as far as is known.
    pub(super) fn known(&self) -> Option<&Keepsake> {
        self.carried.as_ref()
    }

    /// Whether it carries, under this token, the original of a vCPU.
    pub(super) fn has(&self, token: Option<&Token>, vcpu: u32, original: &Original) -> bool {
        let carried = self
            .carried
            .as_ref()
            .filter(|carried| Some(&carried.token) == token);
        let kept = carried.and_then(|carried| carried.vcpus.get(&vcpu));
        kept.is_some_and(|kept| kept.original == *original)
    }

    /// It carries this now.
    pub(super) fn carries(&mut self, keepsake: Option<Keepsake>) {
        self.carried = keepsake;
        self.stale = false;
        self.takes = Takes::It;
    }

    /// It does not take what it is to carry.
    pub(super) fn does_not_carry(&mut self, why: &PinError) {
        self.takes = match why {
            PinError::Unsupported { .. } => Takes::Nothing,
            _ => Takes::ItLater,
        };
    }

    /// Nothing is recorded any more: what it carries is to go.
    pub(super) fn start_over(&mut self) {
        self.stale = self.carried.is_some();
        self.takes = Takes::It;
    }
}

impl Ledger {
    /// Which domains may have to carry something else than they do.
    pub fn stale(&self) -> BTreeSet<DomainKey> {
        let stale = self.runs.iter().filter(|(_, run)| run.luggage.is_stale());
        stale.map(|(key, _)| *key).collect()
    }

    /// Has these domains carry what they are to carry now, where that is not what they do.
    ///
    /// Those that do not take it are given with the reason; without a connection the rest is left undone.
    pub fn keep(&mut self, host: &mut dyn Host, domains: &BTreeSet<DomainKey>) -> Vec<(DomainKey, PinError)> {
        let mut refusals = Vec::new();
        for key in domains {
            let Some(run) = self.runs.get_mut(key).filter(|run| run.luggage.may_take()) else {
                continue;
            };
            if run.records() > 0 {
                run.ensure_token(&mut self.new_token);
            }
            let keepsake = run.keepsake();
            if run.luggage.known() == keepsake.as_ref() {
                run.luggage.carries(keepsake);
                continue;
            }
            match host.keep(key, keepsake.as_ref()) {
                Ok(()) => run.luggage.carries(keepsake),
                Err(error) => {
                    debug!(domain = %run.name, "it does not carry its originals: {error}");
                    let lost = matches!(error, PinError::Host(_));
                    // Without an answer, what it carries shows over the next connection.
                    if !lost {
                        run.luggage.does_not_carry(&error);
                    }
                    refusals.push((*key, error));
                    if lost {
                        break;
                    }
                }
            }
        }
        refusals
    }

    /// Whether the original of a vCPU would be found again, whatever becomes of this process and of the domain's.
    pub fn is_safe(&self, vcpu: &VcpuKey) -> bool {
        let run = self.runs.get(&vcpu.domain_key());
        run.is_some_and(|run| run.is_safe(vcpu.number))
    }
}
