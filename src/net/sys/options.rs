//! Socket options and addresses that socket2 lacks: packet sockets (packet(7)) and `TCP_INFO`
//! (tcp(7)).

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// For [`bind_packet`]: frames of every EtherType (`ETH_P_ALL`, linux/if_ether.h).
pub(in crate::net) const EVERY_PROTOCOL: u16 = 3;

/// Binds packet socket `fd` to interface `index`. `protocol` is the EtherType of the frames it
/// receives; with 0 it receives none.
pub(in crate::net) fn bind_packet(fd: BorrowedFd<'_>, index: u32, protocol: u16) -> io::Result<()> {
    let address = link_address(index, protocol)?;
    // SAFETY: the pointer is to a live sockaddr_ll of the length given, which bind only reads.
    let status = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            length_of(&address),
        )
    };
    check(status)
}

/// The packet-socket address of interface `index` with EtherType `protocol`.
pub(super) fn link_address(index: u32, protocol: u16) -> io::Result<libc::sockaddr_ll> {
    let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    Ok(libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    })
}

/// Keeps the frames this machine sends away from `fd` (Linux 4.20).
pub(in crate::net) fn ignore_outgoing(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_packet_option(fd, libc::PACKET_IGNORE_OUTGOING, &1i32)
}

/// Has frames go straight to the driver, past the interface's queueing discipline (Linux 3.14).
pub(in crate::net) fn bypass_queueing(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_packet_option(fd, libc::PACKET_QDISC_BYPASS, &1i32)
}

/// What a packet socket counted since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct PacketStatistics {
    /// Frames that passed the filter, dropped ones included.
    pub(in crate::net) packets: u32,
    /// Frames for which the ring had no room.
    pub(in crate::net) drops: u32,
}

/// Reads and resets the counters of a `TPACKET_V3` socket.
pub(in crate::net) fn packet_statistics(fd: BorrowedFd<'_>) -> io::Result<PacketStatistics> {
    let mut counters = libc::tpacket_stats_v3 {
        tp_packets: 0,
        tp_drops: 0,
        tp_freeze_q_cnt: 0,
    };
    let mut length = length_of(&counters);
    // SAFETY: the pointers are to a live structure and to its length, which bounds what is written.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counters).cast(),
            &raw mut length,
        )
    };
    check(status)?;
    Ok(PacketStatistics {
        packets: counters.tp_packets,
        drops: counters.tp_drops,
    })
}

/// Sets an option of level `SOL_PACKET` whose value the kernel reads as a `T`.
pub(super) fn set_packet_option<T>(fd: BorrowedFd<'_>, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer is to a live `T` of the length given, which setsockopt only reads.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            std::ptr::from_ref(value).cast(),
            length_of(value),
        )
    };
    check(status)
}

/// The window that the peer of a TCP connection offers now, in octets and scaled (`TCP_INFO`,
/// field `tcpi_snd_wnd`). `None` where the kernel does not tell (before Linux 5.4) or the socket
/// is no TCP socket. A peer that completed the handshake with 0 lets nobody talk.
pub fn peer_window(socket: &impl AsFd) -> Option<u32> {
    // SAFETY: tcp_info is plain integers, for which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = length_of(&info);
    // SAFETY: the pointers are to a live structure and to its length, which bounds what is written.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let needed = std::mem::offset_of!(libc::tcp_info, tcpi_snd_wnd) + size_of::<u32>();
    (status == 0 && usize::try_from(length).is_ok_and(|have| have >= needed))
        .then_some(info.tcpi_snd_wnd)
}

/// Leaves the choice of the local port to `connect`, which knows the peer and so may share one
/// port among many peers; must precede `bind` to an address with port 0 (ip(7),
/// `IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// What setsockopt(2) reports.
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a live c_int of the length given, which setsockopt only reads.
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length_of(&on),
        )
    };
    check(status)
}

/// The size of `value` as the socket calls take it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "structures here are below 1 KiB"
)]
pub(super) fn length_of<T>(value: &T) -> libc::socklen_t {
    size_of_val(value) as libc::socklen_t
}

pub(super) fn check(status: i32) -> io::Result<()> {
    if status == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn the_window_of_a_live_peer_is_known_and_a_udp_socket_has_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(peer_window(&stream).unwrap() > 0);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(peer_window(&udp), None);
    }

    #[test]
    fn the_window_field_stands_where_the_kernel_puts_it() {
        // struct tcp_info in the kernel's uapi/linux/tcp.h: 228 octets precede tcpi_snd_wnd.
        assert_eq!(std::mem::offset_of!(libc::tcp_info, tcpi_snd_wnd), 228);
    }
}
