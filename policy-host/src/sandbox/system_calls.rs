//! Which system calls are left.
//!
//! Two filters that add up. While the library is loaded, what no library has any business with is taken away: new
//! processes and threads, sockets, other processes, shared memory, changes to files, the kernel's own doors. After that only what pure
//! computing needs is left.
//!
//! A refused call fails with EPERM rather than ending the process: runtimes probe for things they can do without, and
//! a policy that does so works on. What only an attack does (running another program, tracing, loading kernel code)
//! ends the process at once, so that the log says SIGSYS and the operator knows.

mod lists;

use std::collections::BTreeMap;

use libc::c_long;
use lists::{ALLOWED, ALLOWED_OLDER, FATAL, REFUSED, REFUSED_OLDER};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The bit that marks the calls of x86-64's second, 32-bit pointer ABI.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// What holds while the library is loaded; says what this kernel has not.
pub(super) fn restrict() -> Option<String> {
    let done = build(all(FATAL), SeccompAction::Allow, SeccompAction::KillProcess)
        .and_then(install)
        .and_then(|()| {
            // glibc takes this answer for an older kernel's and falls back to the call that is refused below.
            let clone3 = all(&[libc::SYS_clone3]);
            build(
                clone3,
                SeccompAction::Allow,
                SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
            )
        })
        .and_then(install)
        .and_then(|()| build(refused()?, SeccompAction::Allow, EPERM))
        .and_then(install);
    done.err()
}

/// What holds from now on: only what pure computing needs is left. Says what this kernel has not.
pub(crate) fn tighten() -> Option<String> {
    let done = allowed()
        .and_then(|rules| build(rules, EPERM, SeccompAction::Allow))
        .and_then(install);
    done.err()
}

const EPERM: SeccompAction = SeccompAction::Errno(libc::EPERM.unsigned_abs());

fn refused() -> Result<Rules, String> {
    let mut rules = all(REFUSED);
    rules.append(&mut all(REFUSED_OLDER));
    // The number of this process is 32 bits of the argument.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![argument(0, SeccompCmpOp::Ne, own_pid())?]);
    }
    // Limits of other processes; 0 is this one.
    rules.insert(libc::SYS_prlimit64, vec![argument(0, SeccompCmpOp::Ne, 0)?]);
    // Outliving the scheduler.
    let on_parents_death = u64::from(libc::PR_SET_PDEATHSIG.unsigned_abs());
    rules.insert(
        libc::SYS_prctl,
        vec![argument(0, SeccompCmpOp::Eq, on_parents_death)?],
    );
    // Having the kernel signal someone else when a descriptor is ready.
    let owner = |commands: &[u64]| {
        let rules = commands
            .iter()
            .map(|&command| argument(1, SeccompCmpOp::Eq, command));
        rules.collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_fcntl, owner(&[F_SETOWN, F_SETSIG, F_SETOWN_EX])?);
    rules.insert(libc::SYS_ioctl, owner(&[FIOSETOWN, SIOCSPGRP])?);
    // Opening to write, to make or to empty a file.
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, to_write(1)?);
    rules.insert(libc::SYS_openat, to_write(2)?);
    #[cfg(target_arch = "x86_64")]
    {
        let fatal = FATAL.iter().copied().chain([libc::SYS_clone3]);
        let same: Vec<i64> = rules
            .keys()
            .copied()
            .chain(fatal)
            .map(|call| call | X32)
            .collect();
        rules.extend(same.into_iter().map(|call| (call, Vec::new())));
        // Calls that have a number of their own there.
        rules.extend((512..548).map(|call| (call | X32, Vec::new())));
    }
    Ok(rules)
}

/// The kernel's names, of `asm-generic/fcntl.h` and `asm-generic/sockios.h`.
const F_SETOWN: u64 = 8;
const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;

/// Any of the flags, in this argument, with which opening a file may change something.
fn to_write(number: u8) -> Result<Vec<SeccompRule>, String> {
    let flags = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC];
    let rule = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        argument(number, SeccompCmpOp::MaskedEq(flag), flag)
    };
    flags.into_iter().map(rule).collect()
}

fn allowed() -> Result<Rules, String> {
    let mut rules = all(ALLOWED);
    rules.append(&mut all(ALLOWED_OLDER));
    let code = u64::from(libc::PROT_EXEC.unsigned_abs());
    // Memory, but no new code.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![argument(2, SeccompCmpOp::MaskedEq(code), 0)?]);
    }
    // Signals to oneself: that is how aborting works.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![argument(0, SeccompCmpOp::Eq, own_pid())?]);
    }
    Ok(rules)
}

fn all(calls: &[c_long]) -> Rules {
    calls.iter().map(|&call| (call, Vec::new())).collect()
}

fn own_pid() -> u64 {
    u64::from(std::process::id())
}

/// A rule on the lower half of an argument.
fn argument(number: u8, compare: SeccompCmpOp, with: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, compare, with)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| unavailable(&error))
}

fn build(rules: Rules, otherwise: SeccompAction, on_match: SeccompAction) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| unavailable(&error))?;
    SeccompFilter::new(rules, otherwise, on_match, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| unavailable(&error))
}

#[expect(clippy::needless_pass_by_value, reason = "it ends a chain of values")]
fn install(filter: BpfProgram) -> Result<(), String> {
    apply_filter_all_threads(&filter).map_err(|error| unavailable(&error))
}

fn unavailable(error: &dyn std::fmt::Display) -> String {
    format!("system calls are not restricted: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Installing a filter would bind the test's own process; that the filters can be built is what is seen here.
    #[test]
    fn the_filters_can_be_built() {
        for (rules, action) in [
            (Ok(all(FATAL)), SeccompAction::KillProcess),
            (refused(), EPERM),
            (allowed(), SeccompAction::Allow),
        ] {
            let rules = rules.expect("sound rules");
            assert!(!rules.is_empty());
            build(rules, SeccompAction::Log, action).expect("a program");
        }
    }

    /// Whatever is taken away is so in the second, 32-bit pointer ABI as well, whose kernels number calls differently.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn nothing_can_be_called_by_another_number() {
        let rules = refused().expect("sound rules");
        for call in [FATAL, REFUSED, REFUSED_OLDER, &[libc::SYS_clone3]].concat() {
            let rule = rules.get(&(call | X32));
            assert!(rule.is_some_and(Vec::is_empty), "{call}");
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let refused: Vec<_> = [FATAL, REFUSED, REFUSED_OLDER].concat();
        assert!(
            [ALLOWED, ALLOWED_OLDER]
                .concat()
                .iter()
                .all(|call| !refused.contains(call))
        );
    }
}
