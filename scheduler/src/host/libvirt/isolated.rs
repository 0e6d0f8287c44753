//! CPUs that the kernel of this machine was told to keep free of ordinary work.
//!
//! The kernel lists them in two files: those of `isolcpus=` and of isolated cpuset partitions, and those that run
//! without a tick (`nohz_full=`). Whoever set a CPU aside so meant it for something, and not for any guest.

use std::fs;
use std::path::Path;

use tracing::warn;
use vcpu_policy_api::cpuset::{CpuListError, OsCpuSet};

/// Where the kernel lists them.
const FOLDER: &str = "/sys/devices/system/cpu";
const FILES: [&str; 2] = ["isolated", "nohz_full"];

/// The CPUs that this machine's kernel keeps free. A list that the kernel does not have is empty.
pub(super) fn isolated() -> OsCpuSet {
    let mut cpus = OsCpuSet::new();
    for file in FILES.map(|name| Path::new(FOLDER).join(name)) {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match list(&text) {
            Ok(listed) => cpus.unite(listed.as_ref()),
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                warn!(file = %file.display(), error, "isolated CPUs are not known");
            }
        }
    }
    cpus
}

/// The kernel's list: empty where there are none, or a word in parentheses where a kernel cannot have any.
fn list(text: &str) -> Result<OsCpuSet, CpuListError> {
    match text.trim() {
        "" | "(null)" => Ok(OsCpuSet::new()),
        list => list.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_understood() {
        for (text, cpus) in [
            ("", ""),
            ("\n", ""),
            (" (null)\n", ""),
            ("2-3,8\n", "2-3,8"),
            ("0-1,2", "0-2"),
        ] {
            assert_eq!(
                list(text).map(|cpus| cpus.to_string()).as_deref(),
                Ok(cpus),
                "{text:?}"
            );
        }
        assert!(list("all\n").is_err());
    }

    #[test]
    fn this_machines_lists_are_read() {
        let listed = |name: &str| fs::read_to_string(Path::new(FOLDER).join(name)).unwrap_or_default();
        for name in FILES {
            let expect = list(&listed(name)).expect("the kernel's list");
            assert!(expect.as_ref().is_subset(isolated().as_ref()), "{name}");
        }
    }
}
