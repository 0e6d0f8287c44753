//! What shows only in the light of the whole configuration.

use super::{ContentError, Effective};

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
