//! What the live host remembers of a running domain, so as not to ask for it again.

use std::sync::Arc;

use thiserror::Error;
use virt::domain::Domain;

use super::counters::Source;
use super::definition::{DefinitionError, definition};
use super::error::LibvirtError;
use crate::host::{Definition, Instance};

/// What is kept of a running domain from sample to sample.
pub(super) struct Guest {
    pub(super) instance: Instance,
    pub(super) domain: Domain,
    pub(super) name: Arc<str>,
    pub(super) definition: Arc<Definition>,
    /// It has no more vCPUs than this, however many are plugged in.
    pub(super) most_vcpus: u32,
    pub(super) source: Source,
}

/// Why a domain is left out of a sample.
#[derive(Debug, Error)]
pub(super) enum GuestError {
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

impl Guest {
    /// Reads what is kept of a domain that was not known to run.
    pub(super) fn meet(domain: Domain, instance: Instance, name: &str) -> Result<Self, GuestError> {
        let most_vcpus = domain.max_vcpus().map_err(LibvirtError::from)?;
        let persistent = domain.is_persistent().map_err(LibvirtError::from)?;
        let xml = domain
            .xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE)
            .map_err(LibvirtError::from)?;
        Ok(Self {
            instance,
            domain,
            name: name.into(),
            definition: Arc::new(definition(&xml, persistent)?),
            most_vcpus: u32::try_from(most_vcpus).unwrap_or(u32::MAX),
            source: Source::Undecided,
        })
    }
}
