//! The calls of bpf(2) that the `live` backend needs: a map, programs, what they hang on, and test
//! runs.
//!
//! Layouts and numbers are those of `union bpf_attr` in the kernel's uapi/linux/bpf.h. The kernel
//! takes a shorter structure than its own as if filled up with zeros.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a program is for, and so what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum ProgramKind {
    /// Sees frames before the network stack does.
    Xdp,
    /// Sees the arguments of a tracepoint in the kernel.
    RawTracepoint,
}

/// Why the kernel would not load a program.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", tail(log))]
pub(in crate::net) struct LoadError {
    /// What bpf(2) reported.
    pub(in crate::net) source: io::Error,
    /// The end of what the verifier said.
    pub(in crate::net) log: String,
}

/// The last words of the verifier, where it said any.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    let last = lines
        .iter()
        .rev()
        .find(|line| !line.starts_with("processed"));
    last.map(|line| format!(" (verifier: {line})"))
        .unwrap_or_default()
}

/// Makes an array map of one element of `value_len` octets that can be mapped into memory.
pub(in crate::net) fn create_shared_array(value_len: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let mut attr = Attr {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: value_len,
        max_entries: 1,
        map_flags: F_MMAPABLE,
    };
    // SAFETY: BPF_MAP_CREATE reads the structure and nothing it points to.
    let fd = unsafe { bpf(MAP_CREATE, &mut attr) }?;
    // SAFETY: a fresh descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program. Its licence, as far as the kernel asks, is that of this crate; so it may call
/// no helper that the kernel reserves to the GPL.
pub(in crate::net) fn load_program(kind: ProgramKind, code: &[u64]) -> Result<OwnedFd, LoadError> {
    let refused = |source| LoadError {
        source,
        log: String::new(),
    };
    match load_with(kind, code, &mut []) {
        Ok(fd) => Ok(fd),
        // Only the verifier's own refusals are worth asking again for its reasons.
        Err(source) if !matches!(source.raw_os_error(), Some(libc::EACCES | libc::EINVAL)) => {
            Err(refused(source))
        }
        Err(source) => {
            let mut log = vec![0; 1 << 16];
            // The second answer is the first, or a buffer too small for the whole log.
            let _ = load_with(kind, code, &mut log);
            let end = log.iter().position(|octet| *octet == 0).unwrap_or(0);
            Err(LoadError {
                log: String::from_utf8_lossy(&log[..end]).into_owned(),
                ..refused(source)
            })
        }
    }
}

fn load_with(kind: ProgramKind, code: &[u64], log: &mut [u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
    }
    let mut attr = Attr {
        prog_type: match kind {
            ProgramKind::Xdp => PROG_TYPE_XDP,
            ProgramKind::RawTracepoint => PROG_TYPE_RAW_TRACEPOINT,
        },
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: code.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log_buf: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr().addr() as u64
        },
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"smtpsweep\0\0\0\0\0\0\0",
    };
    // SAFETY: BPF_PROG_LOAD reads `insn_cnt` instructions and a terminated string, and writes at
    // most `log_size` octets of the log; all three are borrowed until the call returns.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: a fresh descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `program` whenever the kernel passes the tracepoint `name`, until the descriptor is closed.
pub(in crate::net) fn attach_raw_tracepoint(
    name: &std::ffi::CStr,
    program: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        name: u64,
        prog_fd: i32,
        pad: u32,
    }
    let mut attr = Attr {
        name: name.as_ptr().addr() as u64,
        prog_fd: program.as_raw_fd(),
        pad: 0,
    };
    // SAFETY: BPF_RAW_TRACEPOINT_OPEN reads the structure and the terminated name, both borrowed.
    let fd = unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut attr) }?;
    // SAFETY: a fresh descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs the XDP `program` on every frame that interface `index` receives, in its driver, until the
/// descriptor is closed.
pub(in crate::net) fn attach_xdp(program: BorrowedFd<'_>, index: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: i32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr {
        prog_fd: program.as_raw_fd(),
        target_ifindex: index,
        attach_type: ATTACH_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: BPF_LINK_CREATE for XDP reads the structure and nothing it points to.
    let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
    // SAFETY: a fresh descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the XDP `program` have `repeat` real frames that begin as copies of `frame`, `batch` at a
/// time (at most [`LIVE_BATCH_MAX`]), and does with each what the program says
/// (`BPF_F_TEST_XDP_ON_LIVE_FRAMES`, Documentation/bpf/bpf_prog_run.rst; Linux 5.18). Returns when
/// all are through, or with `EINTR` after a signal to this thread.
pub(in crate::net) fn run_live_frames(
    program: BorrowedFd<'_>,
    frame: &[u8],
    repeat: u32,
    batch: u32,
) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        prog_fd: i32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        pad: u32,
    }
    let mut attr = Attr {
        prog_fd: program.as_raw_fd(),
        retval: 0,
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_size_out: 0,
        data_in: frame.as_ptr().addr() as u64,
        data_out: 0,
        repeat,
        duration: 0,
        ctx_size_in: 0,
        ctx_size_out: 0,
        ctx_in: 0,
        ctx_out: 0,
        flags: F_TEST_XDP_ON_LIVE_FRAMES,
        cpu: 0,
        batch_size: batch,
        pad: 0,
    };
    // SAFETY: BPF_PROG_TEST_RUN reads `data_size_in` octets of the frame, which is borrowed; it
    // writes results into the structure, which is ours.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }.map(|_| ())
}

/// bpf(2). Results are at least 0.
///
/// # Safety
/// `attr` must be laid out as `command` wants it, and what it points to must live and be as long
/// as it says.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: upheld by the caller.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(status).map_err(io::Error::other)
}

/// Frames in a batch at most (`TEST_XDP_MAX_BATCH` in net/bpf/test_run.c).
pub(in crate::net) const LIVE_BATCH_MAX: u32 = 256;

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_XDP: u32 = 6;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const ATTACH_XDP: u32 = 37;
const F_MMAPABLE: u32 = 1 << 10;
const F_TEST_XDP_ON_LIVE_FRAMES: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_has_the_last_word() {
        let err = LoadError {
            source: io::Error::from_raw_os_error(libc::EACCES),
            log: "0: (79) r1 = *(u64 *)(r2 +0)\nR2 !read_ok\nprocessed 1 insns\n\n".to_owned(),
        };
        let text = err.to_string();
        assert!(text.ends_with(" (verifier: R2 !read_ok)"), "{text}");
        let silent = LoadError {
            source: io::Error::from_raw_os_error(libc::EPERM),
            log: String::new(),
        };
        assert!(!silent.to_string().contains("verifier"));
    }
}
