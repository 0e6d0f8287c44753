//! Where the program is that hosts plugins.

use std::path::{Path, PathBuf};

/// The variable that names another program to host plugins.
pub const PROGRAM_VARIABLE: &str = "VCPU_POLICY_HOST";
/// The name of the program that hosts plugins.
const PROGRAM: &str = "vcpu-policy-host";
/// Where a distribution may put it, if not beside the scheduler.
const PROGRAM_FOLDERS: &[&str] = &["/usr/libexec/vcpu-scheduler", "/usr/lib/vcpu-scheduler"];

/// The program that hosts plugins: the one that the variable names, else the one beside this executable, else the
/// distribution's.
pub fn find() -> PathBuf {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) {
        return std::path::absolute(&named).unwrap_or_else(|_| named.into());
    }
    // Where the system does not tell which program this is, nothing is beside it: a bare name would be looked for in
    // whatever folders the variables say.
    let beside = std::env::current_exe().map(|own| own.with_file_name(PROGRAM));
    let elsewhere = PROGRAM_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(PROGRAM));
    let candidates: Vec<PathBuf> = beside.into_iter().chain(elsewhere).collect();
    let there = candidates.iter().find(|program| program.is_file());
    there.unwrap_or(&candidates[0]).clone()
}
