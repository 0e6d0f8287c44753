//! What shows only in the light of the whole configuration.

use vcpu_policy_api::cpuset::OsCpuSet;

use super::{ContentError, Effective};

impl Effective {
    /// Checks that what is said can be on a host of these CPUs.
    ///
    /// # Errors
    /// If nothing of it is left for guests.
    pub fn check_host(&self, cpus: &OsCpuSet) -> Result<(), ContentError> {
        let reserved = self.reserved_cpus.get();
        if cpus.iter().any(|cpu| !reserved.contains(cpu)) {
            return Ok(());
        }
        Err(ContentError::Value {
            path: "host.reserved-cpus".to_owned(),
            problem: format!(
                "{reserved} leaves none of the host's CPUs {cpus}; expected one that is not reserved"
            ),
        })
    }
}

/// Checks that what is said fits together.
pub(super) fn check(effective: &Effective) -> Result<(), ContentError> {
    let refuse = |path: String, problem: String| Err(ContentError::Value { path, problem });
    let rules = &effective.domains.0;
    for (at, rule) in rules.iter().enumerate() {
        if let Some(first) = rules[..at].iter().position(|other| other.matches == rule.matches) {
            return refuse(
                format!("domains[{at}].match"),
                format!("the same as in domains[{first}], which comes first and holds; expected each once"),
            );
        }
        let reserved = effective.reserved_cpus.get();
        if let Some(cpus) = &rule.wish.cpus
            && cpus.iter().all(|cpu| reserved.contains(cpu))
        {
            return refuse(
                format!("domains[{at}].cpus"),
                format!(
                    "all of {cpus} is reserved (host.reserved-cpus: {reserved}); expected a CPU that is not"
                ),
            );
        }
    }
    let plugins = &effective.plugins.0;
    for (at, plugin) in plugins.iter().enumerate() {
        if let Some(first) = plugins[..at].iter().position(|other| other.path == plugin.path) {
            return refuse(
                format!("plugins[{at}].path"),
                format!("the same as in plugins[{first}]; expected each once"),
            );
        }
    }
    Ok(())
}
