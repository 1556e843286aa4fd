//! Drops every privilege that parsing PDFs does not need.
//!
//! The worker enters its sandbox after it has loaded PDFium and before it reads the first byte of a PDF. It first asks the kernel to
//! kill it when the host dies. Then it limits memory and files, disables new privileges and denies the file system (landlock). The
//! filters of system calls (seccomp) come last, because they forbid the calls before them.
//!
//! A system call has one of three results. Calls that parsing, drawing and communication with the host need are allowed. Arguments
//! are checked where they matter: no memory may become executable, and a signal may only go to the worker itself, for `abort`.
//! Calls that honest code here never makes (starting processes, sockets, tracing, loading kernel code) kill the process, so that an
//! attacker has no second attempt. All other calls fail with "operation not permitted", because libraries make harmless calls, for
//! example to look for a font or a time zone, and handle the error.
//!
//! The module also prepares the process before that ([`close_inherited_descriptors`], [`retain_freed_memory`]), and tries the
//! operations that the sandbox must block, so that tests and `doctor` can verify that it does ([`does_forbidden_operation_succeed`]).

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::process::Command;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use memmap2::MmapOptions;
use rustix::process::{Resource, Rlimit, Signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::protocol::{EnforcementLevel, SandboxProbe, SandboxStatus, WorkerConfig};

/// Maximum number of open descriptors: the three standard ones and those of a request.
const MAX_OPEN_FILES: u64 = 16;

/// Bytes of freed memory that the allocator retains; larger blocks are still returned at once. It is the maximum of glibc.
const RETAINED_FREE_BYTES: libc::c_int = 32 << 20;

/// Closes every descriptor except the three standard ones.
pub(super) fn close_inherited_descriptors() {
    // SAFETY: this program has not opened a descriptor yet, so none that is closed here is in use. On a kernel without this system
    // call nothing happens.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Makes the allocator retain freed memory between pages. By default the C library returns large blocks to the system when they
/// are freed and requests them again for the next page. The kernel then has to clear them each time, which takes a tenth to a
/// quarter of the time of a page.
pub(super) fn retain_freed_memory() {
    // SAFETY: sets parameters of the allocator; no other thread runs.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETAINED_FREE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, RETAINED_FREE_BYTES);
    }
}

/// Enters the sandbox and returns which parts of it the kernel enforces.
pub(super) fn enter_sandbox(start: &WorkerConfig) -> io::Result<SandboxStatus> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The host may have died before the line above; then the signal never comes.
    let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_nonzero);
    if parent.map(|p| p.get().unsigned_abs()) != Some(start.host_pid) {
        return Err(io::Error::other("the host has ended"));
    }
    // If the machine runs out of memory, the kernel kills a worker before the host. Not every container allows this setting.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    set_resource_limits(start)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(SandboxStatus {
        landlock: apply_landlock_rules(),
        seccomp: apply_syscall_filters(),
    })
}

/// Sets the resource limits. A hostile PDF can increase private memory, so that limit is exact. The limit of address space is far
/// higher, because the PDF and the page images are mapped as well.
fn set_resource_limits(start: &WorkerConfig) -> io::Result<()> {
    let limits = [
        (Resource::Data, start.max_heap_bytes),
        (Resource::As, start.max_extra_address_bytes),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, MAX_OPEN_FILES),
    ];
    for (resource, limit) in limits {
        // A lower limit that the host has already set stays.
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

/// Denies the file system and, where the kernel supports it, TCP, abstract Unix sockets of other processes and signals to them.
fn apply_landlock_rules() -> EnforcementLevel {
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|rules| rules.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted.map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => EnforcementLevel::Full,
        Ok(RulesetStatus::PartiallyEnforced) => EnforcementLevel::Partial,
        Ok(RulesetStatus::NotEnforced) | Err(_) => EnforcementLevel::None,
    }
}

fn apply_syscall_filters() -> EnforcementLevel {
    match build_syscall_filters() {
        Ok(filters) => {
            let set = filters.iter().map(|f| seccompiler::apply_filter(f).is_ok());
            match set.filter(|ok| *ok).count() {
                0 => EnforcementLevel::None,
                n if n == filters.len() => EnforcementLevel::Full,
                _ => EnforcementLevel::Partial,
            }
        }
        Err(_) => EnforcementLevel::None,
    }
}

type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Builds the filter that kills, then the filter that returns an error. The kernel applies the stricter result.
fn build_syscall_filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let hostile: SyscallRules = FATAL_SYSCALLS.iter().map(|call| (*call, Vec::new())).collect();
    let mut needed: SyscallRules = ALLOWED_SYSCALLS.iter().map(|call| (*call, Vec::new())).collect();
    let not_executable = || {
        let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
        argument_rule(2, SeccompCmpOp::MaskedEq(exec), 0)
    };
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        needed.insert(call, vec![not_executable()?]);
    }
    let own_pid = u64::from(std::process::id());
    needed.insert(
        libc::SYS_tgkill,
        vec![argument_rule(0, SeccompCmpOp::Eq, own_pid)?],
    );
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

fn argument_rule(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

/// Allowed calls: reading requests, writing responses, memory, time, and ending the process.
const ALLOWED_SYSCALLS: &[i64] = &[
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

/// Calls that kill the process: only an attacker makes them.
const FATAL_SYSCALLS: &[i64] = &[
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

/// Tries an operation and returns whether it succeeded, that is, whether the sandbox failed to block it. The worker has at most
/// `heap_bytes` of private memory. The sandbox may also kill the worker, which counts as blocked.
pub(super) fn does_forbidden_operation_succeed(probe: SandboxProbe, heap_bytes: u64) -> bool {
    match probe {
        SandboxProbe::OpenFile => {
            File::open("/proc/self/status").is_ok() || File::open("/etc/passwd").is_ok()
        }
        SandboxProbe::CreateSocket => std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok(),
        SandboxProbe::SpawnProcess => Command::new("/bin/true").spawn().is_ok(),
        SandboxProbe::SignalProcess => {
            let host = rustix::process::getppid();
            host.is_some_and(|host| rustix::process::test_kill_process(host).is_ok())
        }
        SandboxProbe::MapExecutableMemory => MmapOptions::new()
            .len(4096)
            .map_anon()
            .is_ok_and(|map| map.make_exec().is_ok()),
        SandboxProbe::ExceedMemoryLimit => {
            // The limit is a parameter because the sandbox forbids reading it. `black_box` hides the allocation from the optimizer, which
            // would otherwise remove it as unused and report success.
            let mut allocation = std::hint::black_box(Vec::<u8>::new());
            usize::try_from(heap_bytes).is_ok_and(|bytes| {
                std::hint::black_box(&mut allocation)
                    .try_reserve_exact(bytes)
                    .is_ok()
            }) && std::hint::black_box(&allocation).capacity() > 0
        }
    }
}
