//! Which system calls are left.
//!
//! Two filters that add up. While the library is loaded, what no library has any business with is taken away: new
//! processes and threads, sockets, other processes, shared memory, the kernel's own doors. After that only what pure
//! computing needs is left.
//!
//! A refused call fails with EPERM rather than ending the process: runtimes probe for things they can do without, and
//! a policy that does so works on. What only an attack does (running another program, tracing, loading kernel code)
//! ends the process at once, so that the log says SIGSYS and the operator knows.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Ends the process.
const FATAL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
];

/// Fails, from before the library is loaded.
const REFUSED: &[c_long] = &[
    // New processes, and threads, which would escape the deadline's attribution and the second filter.
    libc::SYS_clone,
    // Sockets and other ways to other processes.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_memfd_create,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // The placement and the rights of other processes of the same user, guests among them.
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Leaving the process group that the scheduler ends.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Doors of the kernel.
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
    libc::SYS_inotify_init1,
];

/// The same where the architecture has older calls for it.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLDER: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_inotify_init];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLDER: &[c_long] = &[];

/// Left over for pure computing and the channel to the scheduler.
const ALLOWED: &[c_long] = &[
    // The channel, and standard error.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_ppoll,
    // Memory; mapping is below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Time, chance, and who one is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // (Callers rely on it that these cannot fail.)
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcpu,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrusage,
    // Locks, signals to oneself (below), and the end.
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The same where the architecture has older calls for it.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[c_long] = &[libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[c_long] = &[];

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
    #[cfg(target_arch = "x86_64")]
    {
        let same: Vec<i64> = rules.keys().map(|call| call | X32).collect();
        rules.extend(same.into_iter().map(|call| (call, Vec::new())));
        // Calls that have a number of their own there.
        rules.extend((512..548).map(|call| (call | X32, Vec::new())));
    }
    Ok(rules)
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
