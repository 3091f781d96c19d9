//! The system calls that a running sweep makes; all others fail with EPERM.
//!
//! A refusal and not a kill: a C library that tries something newer first then falls back, and a
//! sweep does not die of a call that nobody thought of.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[i64] = &[
    // Files: the survey, its side files, standard streams, /proc.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fchown,
    libc::SYS_fchmod,
    libc::SYS_unlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fstatfs,
    libc::SYS_ioctl,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads, signals, time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_prctl,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    // The network.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
];

/// Calls that only older architectures still have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_unlink,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_pipe,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Commands of bpf(2) on what is open already: maps are read and written, programs run.
const BPF_COMMANDS: [u64; 8] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    10, // BPF_PROG_TEST_RUN
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
    26, // BPF_MAP_UPDATE_BATCH
];

/// Families of sockets that a running sweep opens: sessions, and the packet socket that takes over
/// from a backend that failed.
const FAMILIES: [u64; 2] = [libc::AF_INET as u64, libc::AF_PACKET as u64];

/// Puts the filter in force in every thread; says so.
pub(super) fn restrict() -> anyhow::Result<String> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok("no seccomp on this architecture".to_owned());
    };
    for filter in [not_there(arch)?, allowed(arch)?] {
        apply_filter_all_threads(&filter)?;
    }
    Ok("seccomp".to_owned())
}

/// clone3 hides its flags in memory, where no filter can look: with it gone, the C library takes
/// clone.
fn not_there(arch: TargetArch) -> anyhow::Result<BpfProgram> {
    let enosys = SeccompAction::Errno(u32::try_from(libc::ENOSYS)?);
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        enosys,
        arch,
    )?)
}

fn allowed(arch: TargetArch) -> anyhow::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(OLDER)
        .map(|&call| (call, Vec::new()))
        .collect();
    // Answered by the other filter.
    rules.insert(libc::SYS_clone3, Vec::new());
    let threads = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![masked(0, threads, threads)?]);
    // No memory becomes code.
    let code = libc::PROT_EXEC as u64;
    rules.insert(libc::SYS_mmap, vec![masked(2, code, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, code, 0)?]);
    rules.insert(libc::SYS_socket, one_of(&FAMILIES)?);
    rules.insert(libc::SYS_bpf, one_of(&BPF_COMMANDS)?);
    // Limits are read only: the third argument, the new limit, is NULL.
    rules.insert(
        libc::SYS_prlimit64,
        vec![rule(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?],
    );
    let eperm = SeccompAction::Errno(u32::try_from(libc::EPERM)?);
    compile(SeccompFilter::new(
        rules,
        eperm,
        SeccompAction::Allow,
        arch,
    )?)
}

fn compile(filter: SeccompFilter) -> anyhow::Result<BpfProgram> {
    filter.try_into().context("the filter does not compile")
}

/// Whether the first argument is one of those.
fn one_of(values: &[u64]) -> anyhow::Result<Vec<SeccompRule>> {
    values
        .iter()
        .map(|&value| rule(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value))
        .collect()
}

/// Whether the masked bits of an argument have that value.
fn masked(argument: u8, mask: u64, value: u64) -> anyhow::Result<SeccompRule> {
    rule(
        argument,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )
}

fn rule(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> anyhow::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, length, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}
