//! Giving up every right that parsing PDFs does not need.
//!
//! Done after PDFium is loaded and before the first byte of a PDF is seen, in this order: death with the host; limits of memory and files; no new privileges; no file system (landlock);
//! and last, since it forbids the calls before it, a short list of system calls (seccomp).
//!
//! The list has three answers. What parsing, drawing and talking to the host need is allowed, with arguments checked
//! where they matter: no memory may become executable, and signals go to oneself only, for `abort`. What no honest code
//! here ever calls (starting processes, sockets, tracing, loading code into the kernel) kills the process, so that an
//! attacker gets no second try. Everything else fails with "operation not permitted", because libraries try harmless
//! things, such as looking for a font or a time zone, and cope.

use std::collections::BTreeMap;
use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, Signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::protocol::{Lock, Sandbox, Start};

/// Descriptors open at one time: the standard three and those of an order.
const FILES: u64 = 16;

pub(super) fn enter(start: &Start) -> io::Result<Sandbox> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The host may have died before the line above; then nobody sends that signal any more.
    let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_nonzero);
    if parent.map(|p| p.get().unsigned_abs()) != Some(start.host) {
        return Err(io::Error::other("the host is gone"));
    }
    // Where memory runs out for the whole machine, a worker goes before the host. Not every container allows it.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    limit_memory(start)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(Sandbox {
        landlock: no_file_system(),
        seccomp: few_system_calls(),
    })
}

/// Private memory is what a hostile PDF can make grow, so it is counted exactly. Address space is bounded far above it,
/// because the PDF and the page images are mapped, too.
fn limit_memory(start: &Start) -> io::Result<()> {
    let limits = [
        (Resource::Data, start.heap_bytes),
        (Resource::As, start.address_bytes),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
    ];
    for (resource, limit) in limits {
        // A limit set on the host already, lower than ours, stays.
        let present = rustix::process::getrlimit(resource);
        let limit = Some(present.maximum.map_or(limit, |maximum| maximum.min(limit)));
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: limit,
                maximum: limit,
            },
        )?;
    }
    Ok(())
}

fn no_file_system() -> Lock {
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|rules| rules.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted.map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => Lock::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Lock::Partial,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Lock::None,
    }
}

fn few_system_calls() -> Lock {
    match filters() {
        Ok(filters) => {
            let set = filters.iter().map(|f| seccompiler::apply_filter(f).is_ok());
            match set.filter(|ok| *ok).count() {
                0 => Lock::None,
                n if n == filters.len() => Lock::Full,
                _ => Lock::Partial,
            }
        }
        Err(_) => Lock::None,
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filter that kills, then the one that refuses; the kernel follows the stricter.
fn filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let hostile: Rules = HOSTILE.iter().map(|call| (*call, Vec::new())).collect();
    let mut needed: Rules = NEEDED.iter().map(|call| (*call, Vec::new())).collect();
    let not_executable = || {
        let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
        condition(2, SeccompCmpOp::MaskedEq(exec), 0)
    };
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        needed.insert(call, vec![not_executable()?]);
    }
    let own = u64::from(std::process::id());
    needed.insert(libc::SYS_tgkill, vec![condition(0, SeccompCmpOp::Eq, own)?]);
    Ok([
        SeccompFilter::new(hostile, SeccompAction::Allow, SeccompAction::KillProcess, arch)?.try_into()?,
        SeccompFilter::new(
            needed,
            SeccompAction::Errno(libc::EPERM.unsigned_abs()),
            SeccompAction::Allow,
            arch,
        )?
        .try_into()?,
    ])
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

/// Reading orders, writing answers, memory, time, and dying properly.
const NEEDED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What nobody calls here but an attacker.
const HOSTILE: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
];
