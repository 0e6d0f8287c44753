//! What an error of libvirt's means to the scheduler.
//!
//! libvirt says what went wrong by a code that many different failures share. What matters here is who is concerned:
//! everything (the connection is gone), every pin (no permission), one domain now (busy), one vCPU (refused), or
//! nobody (it is gone). A broken connection shows in no code of its own; it is the connection that is asked, which
//! answers without a call to the daemon.

use thiserror::Error;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::topology::Topology;
use virt::error::ErrorNumber as Code;

use super::ffi::Connection;
use super::metadata::{MetadataError, ORIGINALS};
use crate::host::HostError;

/// What libvirt said.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct LibvirtError {
    message: String,
    code: Option<Code>,
}

impl From<virt::error::Error> for LibvirtError {
    fn from(error: virt::error::Error) -> Self {
        Self {
            message: error.message().to_owned(),
            code: error.code().known(),
        }
    }
}

impl LibvirtError {
    /// Whether the domain is not there any more, or not running.
    pub(super) fn says_gone(&self) -> bool {
        matches!(self.code, Some(Code::NoDomain | Code::OperationInvalid))
    }

    /// Whether the domain does not exist any more.
    pub(super) fn says_no_domain(&self) -> bool {
        self.code == Some(Code::NoDomain)
    }

    /// Whether someone else is changing the domain and libvirt gave up waiting.
    pub(super) fn says_busy(&self) -> bool {
        matches!(self.code, Some(Code::OperationTimeout | Code::ResourceBusy))
    }

    /// Whether an access rule of the daemon's, which may be about one domain, forbids what was asked.
    pub(super) fn says_access_denied(&self) -> bool {
        self.code == Some(Code::AccessDenied)
    }

    /// Whether this connection may not do what was asked, whatever the domain.
    pub(super) fn says_forbidden(&self) -> bool {
        matches!(
            self.code,
            Some(Code::OperationDenied | Code::AuthFailed | Code::AuthCancelled | Code::AuthUnavailable)
        )
    }

    /// Whether the daemon's socket may not be opened. Of a connection that is open the same words say something else: that
    /// the kernel does not let one domain's control group be changed, for one.
    pub(super) fn says_no_entry(&self) -> bool {
        // It is a system error; the crate does not hand out its number. The text is in English: the process sets no locale.
        self.code == Some(Code::SystemError) && self.message.ends_with("Permission denied")
    }

    /// Whether the connection's driver does not have the call.
    pub(super) fn says_unsupported(&self) -> bool {
        matches!(
            self.code,
            Some(Code::NoSupport | Code::OperationUnsupported | Code::ArgumentUnsupported)
        )
    }

    /// Whether the domain has no metadata of the kind that was meant.
    pub(super) fn says_no_metadata(&self) -> bool {
        self.code == Some(Code::NoDomainMetadata)
    }

    /// The host's error for a call that failed with this one.
    pub(super) fn while_doing(self, operation: String, connection: &Connection) -> HostError {
        let source = Box::new(self);
        if is_alive(connection) {
            HostError::Failed { operation, source }
        } else {
            HostError::Lost { operation, source }
        }
    }
}

/// Why a domain's keepsake is left as it is.
#[derive(Debug, Error)]
#[error(
    "what the domain carries in {ORIGINALS} is not understood, and is not replaced; to give it up: virsh metadata \
     DOMAIN --uri {ORIGINALS} --live --remove"
)]
pub struct NotReplaced(#[source] pub(super) MetadataError);

/// Why a pin is not even asked for.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PinRefusal {
    /// The vCPU could not run anywhere.
    #[error("it names no CPU")]
    Empty,
    /// The kernel would drop these CPUs without a word, as long as one other is left.
    #[error("the host has no CPU {absent}")]
    Absent {
        /// The CPUs.
        absent: OsCpuSet,
    },
}

/// Whether a pin to these CPUs means something other than it says on this host.
pub(super) fn refusal(cpus: &OsCpuSet, host: &Topology) -> Option<PinRefusal> {
    if cpus.is_empty() {
        return Some(PinRefusal::Empty);
    }
    let absent: OsCpuSet = cpus.iter().filter(|&cpu| !host.is_present(cpu)).collect();
    (!absent.is_empty()).then_some(PinRefusal::Absent { absent })
}

/// Whether the connection still has its daemon, as far as is known on this side.
pub(super) fn is_alive(connection: &Connection) -> bool {
    matches!(connection.is_alive(), Ok(true))
}

#[cfg(test)]
impl LibvirtError {
    pub(super) fn new(code: Code, message: &str) -> Self {
        Self {
            message: message.to_owned(),
            code: Some(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_they_say() {
        for (code, expect) in [
            (Code::NoDomain, "gone no-domain"),
            (Code::OperationInvalid, "gone"),
            (Code::OperationTimeout, "busy"),
            (Code::ResourceBusy, "busy"),
            (Code::OperationDenied, "forbidden"),
            (Code::AccessDenied, "access-denied"),
            (Code::AuthFailed, "forbidden"),
            (Code::AuthCancelled, "forbidden"),
            (Code::AuthUnavailable, "forbidden"),
            (Code::NoSupport, "unsupported"),
            (Code::InvalidArg, ""),
            // The kernel's word about a CPU that the control group above does not have.
            (Code::SystemError, ""),
            (Code::InternalError, ""),
        ] {
            let error = LibvirtError::new(code, "Unable to write to '/a/cpuset.cpus': Permission denied");
            let meanings = [
                (error.says_gone(), "gone"),
                (error.says_no_domain(), "no-domain"),
                (error.says_busy(), "busy"),
                (error.says_forbidden(), "forbidden"),
                (error.says_access_denied(), "access-denied"),
                (error.says_unsupported(), "unsupported"),
            ];
            let said: Vec<&str> = meanings.iter().filter(|said| said.0).map(|said| said.1).collect();
            assert_eq!(said.join(" "), expect, "{code:?}");
        }
    }
}
