//! Files, the network, and processes outside: what landlock takes away.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// What may be read while a library is loaded: the places where the libraries it needs are. Those that are not there
/// are passed over.
const READABLE: &[&str] = &[
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/gnu/store",
    "/nix/store",
];

/// The newest of landlock's versions whose restrictions are asked for: 1 files, 4 TCP, 5 device control, 6 signals and
/// abstract sockets.
const NEWEST: ABI = ABI::V6;

/// No writing, no reading but of libraries, no TCP, no signal to another process; says what this kernel has not.
pub(super) fn restrict() -> Option<String> {
    match rules() {
        Ok((RulesetStatus::FullyEnforced, _)) => None,
        Ok((RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. })) => {
            let version = effective_abi as i32;
            Some(format!(
                "landlock of this kernel is of version {version} and lacks some restrictions of version {}",
                NEWEST as i32
            ))
        }
        Ok(_) => Some("this kernel has no landlock: reading files is not restricted".to_owned()),
        Err(error) => Some(format!(
            "landlock failed ({error}): reading files is not restricted"
        )),
    }
}

fn rules() -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, AccessFs::from_read(NEWEST)))?
        .restrict_self()?;
    Ok((status.ruleset, status.landlock))
}
