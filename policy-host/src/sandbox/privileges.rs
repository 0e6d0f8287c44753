//! The rights of the user, and of root.

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use rustix::thread::{Gid, Uid};

use super::{SandboxError, step};

/// The user and the group that root becomes: the kernel's overflow id, which owns nothing and which every system has
/// (as `nobody`).
const NOBODY: u32 = 65_534;

/// Gives up root for [`NOBODY`] if it is root, all capabilities, and the way back to either.
///
/// The calls change the calling thread, which is the only one there is.
pub(super) fn drop() -> Result<(), SandboxError> {
    if geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).map_err(step("give up root's groups"))?;
        set_thread_res_gid(group, group, group).map_err(step("give up root's group"))?;
        set_thread_res_uid(user, user, user).map_err(step("give up root"))?;
    }
    // A service that is not root may still have been given capabilities. A kernel without ambient ones says so.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(step("give up its capabilities"))?;
    set_no_new_privs(true).map_err(step("rule out new privileges"))
}
