//! `TCP_REPAIR` (linux/tcp.h): sockets set up by hand for a connection whose handshake somebody
//! else has held. Made for moving connections between machines; all of it wants `CAP_NET_ADMIN`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::options::{check, length_of};

/// Which of a connection's two sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// The next one we send.
    Send,
    /// The next one the peer sends.
    Receive,
}

/// What the two sides agreed on in the handshake, as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairOption {
    /// The peer's largest segment.
    MaxSegment(u16),
    /// By how many bits the peer's window and ours are to be shifted.
    WindowScales {
        /// The peer's.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// Selective acknowledgements may be sent.
    SackPermitted,
    /// Segments carry timestamps.
    Timestamps,
}

/// The two windows of a connection, in octets (`struct tcp_repair_window`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Windows {
    /// Sequence number of the segment that told the peer's window.
    pub told_at: u32,
    /// The peer's window.
    pub theirs: u32,
    /// The largest it ever had.
    pub theirs_max: u32,
    /// Ours.
    pub ours: u32,
    /// The acknowledgement number with which we told ours.
    pub ours_told_at: u32,
}

#[repr(C)]
struct RawOption {
    code: u32,
    value: u32,
}

/// Begins to repair: `connect` then sends nothing and succeeds at once.
///
/// # Errors
/// EPERM without `CAP_NET_ADMIN`; what else setsockopt(2) reports.
pub fn begin_repair(socket: &impl AsFd) -> io::Result<()> {
    set(socket, TCP_REPAIR, &TCP_REPAIR_ON)
}

/// Ends it without the window probe that the kernel sends otherwise (Linux 4.19).
///
/// # Errors
/// What setsockopt(2) reports.
pub fn end_repair(socket: &impl AsFd) -> io::Result<()> {
    set(socket, TCP_REPAIR, &TCP_REPAIR_OFF_NO_WP)
}

/// Sets a sequence number, before `connect`.
///
/// # Errors
/// What setsockopt(2) reports.
pub fn set_sequence(socket: &impl AsFd, queue: Queue, next: u32) -> io::Result<()> {
    let which: libc::c_int = match queue {
        Queue::Receive => 1,
        Queue::Send => 2,
    };
    set(socket, TCP_REPAIR_QUEUE, &which)?;
    set(socket, TCP_QUEUE_SEQ, &next)
}

/// Sets what was agreed on, after `connect`.
///
/// # Errors
/// What setsockopt(2) reports.
pub fn set_agreed(socket: &impl AsFd, option: RepairOption) -> io::Result<()> {
    let (code, value) = match option {
        RepairOption::MaxSegment(octets) => (2, u32::from(octets)),
        RepairOption::WindowScales { theirs, ours } => {
            (3, u32::from(ours) << 16 | u32::from(theirs))
        }
        RepairOption::SackPermitted => (4, 0),
        RepairOption::Timestamps => (8, 0),
    };
    set(socket, TCP_REPAIR_OPTIONS, &RawOption { code, value })
}

/// Sets the clock of our timestamps to `now` (even: since Linux 6.7 the last bit would choose
/// microseconds).
///
/// # Errors
/// What setsockopt(2) reports.
pub fn set_timestamp_clock(socket: &impl AsFd, now: u32) -> io::Result<()> {
    set(socket, TCP_TIMESTAMP, &(now & !1))
}

/// Sets the windows, after `connect`.
///
/// # Errors
/// What setsockopt(2) reports.
pub fn set_windows(socket: &impl AsFd, windows: &Windows) -> io::Result<()> {
    set(socket, TCP_REPAIR_WINDOW, windows)
}

/// Sets a TCP option; the kernel reads no more than `value`'s octets.
fn set<T>(socket: &impl AsFd, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer is to a live `T` of the length given, which setsockopt only reads; all
    // types used here are integers or structures of 32-bit integers, without padding.
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            std::ptr::from_ref(value).cast(),
            length_of(value),
        )
    };
    check(status)
}

const TCP_REPAIR: libc::c_int = 19;
const TCP_REPAIR_QUEUE: libc::c_int = 20;
const TCP_QUEUE_SEQ: libc::c_int = 21;
const TCP_REPAIR_OPTIONS: libc::c_int = 22;
const TCP_TIMESTAMP: libc::c_int = 24;
const TCP_REPAIR_WINDOW: libc::c_int = 29;
const TCP_REPAIR_ON: libc::c_int = 1;
const TCP_REPAIR_OFF_NO_WP: libc::c_int = -1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernel_wants_them() {
        // struct tcp_repair_window: five 32-bit numbers; struct tcp_repair_opt: two.
        assert_eq!((size_of::<Windows>(), size_of::<RawOption>()), (20, 8));
    }

    #[test]
    fn what_is_no_tcp_socket_cannot_be_repaired() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(begin_repair(&udp).is_err());
        assert!(set_sequence(&udp, Queue::Send, 1).is_err());
    }
}
