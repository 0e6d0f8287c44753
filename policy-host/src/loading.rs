//! From a library's descriptor to the policies in it.

use std::os::fd::OwnedFd;
use std::path::Path;

use vcpu_policy_api::policy::PolicyError;

use crate::offer::Offered;

/// Loads a library and gives its policies; `name` is for messages.
///
/// # Errors
/// If the library cannot be loaded, or is not one of policies.
pub fn load(_library: OwnedFd, name: &Path) -> Result<Vec<Offered>, PolicyError> {
    Err(PolicyError::new(format_args!(
        "{} cannot be loaded: this build knows no plugin interface",
        name.display()
    )))
}
