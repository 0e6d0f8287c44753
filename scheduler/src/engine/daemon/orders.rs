//! What the loop is asked for while it runs. It is done between two ticks, never within one.

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Settings;
use crate::engine::MadePolicy;
use crate::engine::ledger::Ledger;
use crate::engine::terms::Terms;

/// Something to do between two ticks.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Let vCPUs be moved again that are left alone; the numbers of those come back.
    Release(Release, Sender<Result<Vec<u32>, ReleaseError>>),
}

/// Which vCPUs are to be released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The domain's name or UUID.
    pub domain: String,
    /// The vCPU's number; `None`: all of the domain.
    pub vcpu: Option<u32>,
}

/// Why nothing was released.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ReleaseError {
    /// No domain of this name or UUID runs.
    #[error("no domain {domain} runs on this host")]
    NoDomain {
        /// What was asked for.
        domain: String,
    },
    /// The domain does not have this vCPU.
    #[error("domain {domain} has no vCPU {vcpu}")]
    NoVcpu {
        /// The domain.
        domain: String,
        /// The number asked for.
        vcpu: u32,
    },
}

/// What a new configuration comes to.
pub struct Renewal {
    /// How the loop runs.
    pub settings: Settings,
    /// What holds for every tick.
    pub terms: Terms,
    /// Another policy, or the same with other options; `None` if it is the same with the same ones.
    pub policy: Option<MadePolicy>,
    /// The keys whose change takes hold, to be said once it does.
    pub changed: Vec<&'static str>,
}

/// Reads the configuration again; `None`, once it has said why, if the old one is to stay.
pub type Reload<'a> = dyn FnMut() -> Option<Renewal> + 'a;

/// Does what is asked of the ledger; gives the numbers of the vCPUs that were left alone until now.
///
/// # Errors
/// If there is no such domain or vCPU.
pub fn release(ledger: &mut Ledger, asked: &Release) -> Result<Vec<u32>, ReleaseError> {
    let Some(domain) = ledger.find(&asked.domain) else {
        return Err(ReleaseError::NoDomain {
            domain: asked.domain.clone(),
        });
    };
    if let Some(number) = asked.vcpu
        && !ledger.has(domain, number)
    {
        return Err(ReleaseError::NoVcpu {
            domain: asked.domain.clone(),
            vcpu: number,
        });
    }
    let released = ledger.release(domain, asked.vcpu);
    Ok(released.iter().map(|vcpu| vcpu.number).collect())
}

/// What to type into a shell to release a vCPU. Names of domains may hold blanks, quotes and worse.
pub fn release_command(domain: &str, vcpu: u32) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.:+@%,".contains(c);
    if domain.chars().all(plain) && !domain.starts_with('-') {
        return format!("vcpu-scheduler release {domain}/{vcpu}");
    }
    let end_of_flags = if domain.starts_with('-') { "-- " } else { "" };
    let quoted = domain.replace('\'', r"'\''");
    format!("vcpu-scheduler release {end_of_flags}'{quoted}/{vcpu}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_release_can_be_typed_as_it_stands() {
        let cases = [
            ("web-1", "web-1/0"),
            ("日本", "日本/0"),
            ("my web", "'my web/0'"),
            ("it's", r"'it'\''s/0'"),
            ("$(reboot)", "'$(reboot)/0'"),
            ("-v", "-- '-v/0'"),
        ];
        for (domain, expected) in cases {
            assert_eq!(
                release_command(domain, 0),
                format!("vcpu-scheduler release {expected}")
            );
        }
    }
}
