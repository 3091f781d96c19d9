//! The packet-socket backend (packet(7)): works on every interface Linux has.
//!
//! **Sending.** Frames are prepared once and patched in place; up to 256 go out in one
//! `sendmmsg`. The socket is bound with protocol 0, so it receives nothing, and needs no address
//! per frame. Frames bypass the interface's queueing discipline, and with it every tap: `tcpdump` on
//! the sending machine does not see the probes. Two kinds of link differ:
//!
//! - Links without a header: the driver cannot see from the frame that it is IPv4, so an address
//!   that says so goes with each.
//! - Loopback: a frame put on `lo` by a packet socket has not been routed, and the kernel then
//!   refuses 127.0.0.0/8 as martian. There the SYNs leave through a raw IP socket that is tied to
//!   `lo`, and the kernel writes the same header again.
//!
//! **Receiving.** A filter in the kernel passes only what may be an answer (`filter.rs`) into a
//! memory-mapped ring of blocks (`TPACKET_V3`). The socket is bound only after filter and ring are
//! in place, so no stray frame enters. It is bound for every protocol, since the kernel shows frames
//! to such sockets first of all: before any rule of a firewall, that of the ingress hook included, so
//! that what is kept from the kernel's TCP there still reaches us. It never sees what this machine
//! sends.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::filter::Interest;
use super::sys::{self, BATCH, Destination, FrameBatch, Geometry, Ring};
use super::{Link, LinkKind, NetError, Receive, RxStats, Transmit};
use crate::probe::{SMTP_PORT, Syn};
use crate::targets::Target;
use crate::wire::ethernet;

/// Octets that the kernel may hold for the card. The default of some 200 KiB is 270 frames, too
/// few to bridge the time to a card's next completion interrupt at a million frames a second.
const SEND_BUFFER: usize = 4 << 20;

/// How long a full send queue may hold us up before the caller gets to look around.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// Sends SYNs through a packet socket.
pub struct PacketTransmit {
    socket: Socket,
    batch: FrameBatch,
    syn: Syn,
    sent: u64,
    interface: String,
}

impl PacketTransmit {
    /// Opens a socket on `link` for `syn`, whose link header must be the link's.
    ///
    /// # Errors
    /// [`NetError::Permission`] without `CAP_NET_RAW`; [`NetError::System`] otherwise.
    pub fn open(link: &Link, syn: Syn) -> Result<Self, NetError> {
        let failed = |operation| move |err| NetError::system(operation, &link.interface, err);
        let (socket, skip, destination) = match link.kind {
            LinkKind::Loopback => {
                let socket = raw_socket(link).map_err(failed("open a raw IP socket"))?;
                (socket, link.header_len(), Destination::hosts())
            }
            LinkKind::Ethernet { .. } => {
                let socket = packet_socket().map_err(failed("open a packet socket"))?;
                (socket, 0, Destination::Bound)
            }
            LinkKind::Raw => {
                let socket = packet_socket().map_err(failed("open a packet socket"))?;
                let destination = Destination::link(link.index, ethernet::TYPE_IPV4)
                    .map_err(failed("address a packet socket"))?;
                (socket, 0, destination)
            }
        };
        if link.kind != LinkKind::Loopback {
            sys::bind_packet(socket.as_fd(), link.index, 0)
                .map_err(failed("bind a packet socket"))?;
        }
        // Straight to the driver: a seventh more frames a second, the transmit queue of the core
        // that sends (so that threads on cores of their own share none), and a full queue is
        // reported instead of hidden in a queueing discipline. Kernels before 3.14 lack it.
        let _ = sys::bypass_queueing(socket.as_fd());
        // A smaller buffer than asked for still works.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket
            .set_write_timeout(Some(SEND_PATIENCE))
            .map_err(failed("set a send timeout"))?;
        let mut batch = FrameBatch::new(syn.frame_len(), skip, destination);
        for frame in batch.frames_mut().chunks_mut(syn.frame_len()) {
            syn.prepare(frame);
        }
        Ok(Self {
            socket,
            batch,
            syn,
            sent: 0,
            interface: link.interface.clone(),
        })
    }
}

impl Transmit for PacketTransmit {
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError> {
        let mut total = 0;
        for chunk in targets.chunks(BATCH) {
            let frame_len = self.syn.frame_len();
            self.syn
                .stamp_batch(self.batch.frames_mut(), frame_len, chunk);
            self.batch.address(chunk.iter().map(|target| target.addr()));
            let sent = match self.batch.send(self.socket.as_fd(), chunk.len()) {
                Ok(sent) => sent,
                // What went out before counts; the error, if it lasts, comes again.
                Err(err) if total > 0 || is_transient(&err) => return Ok(total),
                // Not `NetError::system`: a firewall's refusal is no missing capability.
                Err(source) => {
                    let interface = self.interface.clone();
                    return Err(NetError::System {
                        operation: "send",
                        interface,
                        source,
                    });
                }
            };
            total += sent;
            self.sent += sent as u64;
            if sent < chunk.len() {
                break;
            }
        }
        Ok(total)
    }

    fn left(&mut self) -> Result<u64, NetError> {
        Ok(self.sent)
    }
}

/// Whether the same call may succeed a moment later.
fn is_transient(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::ENOMEM)
    )
}

/// A packet socket that receives nothing until it is bound.
fn packet_socket() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW, None)
}

/// A raw IP socket whose packets carry our own header and cannot leave but through `link`.
fn raw_socket(link: &Link) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(Protocol::from(libc::IPPROTO_RAW)),
    )?;
    socket.bind_device(Some(link.interface.as_bytes()))?;
    // 127.255.255.255 is an address like any other to a sweep.
    socket.set_broadcast(true)?;
    Ok(socket)
}

/// How much a receive ring holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize {
    /// Octets of a block, a power of two of at least 4096.
    pub block_len: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Milliseconds after which a block that is not full is handed over: the delay that a lone
    /// answer may suffer.
    pub retire_ms: u32,
}

impl Default for RingSize {
    /// 32 MiB: some 200,000 answers, a tenth of a second at two million a second.
    fn default() -> Self {
        Self {
            block_len: 1 << 19,
            blocks: 64,
            retire_ms: 8,
        }
    }
}

/// Receives what may be answers through a packet socket.
pub struct PacketReceive {
    // Before the socket, so that the mapping goes first.
    ring: Ring,
    socket: Socket,
    stats: RxStats,
    interface: String,
}

impl PacketReceive {
    /// Opens a receiver on `link` for answers from port 25 to the ports `sports`, with the default
    /// ring.
    ///
    /// # Errors
    /// [`NetError::Permission`] without `CAP_NET_RAW`; [`NetError::System`] otherwise.
    pub fn open(link: &Link, sports: RangeInclusive<u16>) -> Result<Self, NetError> {
        Self::open_with(link, sports, SMTP_PORT, RingSize::default())
    }

    /// The same for another probed port and ring. A machine short of memory gets a smaller ring, by
    /// halves down to a sixteenth.
    ///
    /// # Errors
    /// As [`PacketReceive::open`].
    pub fn open_with(
        link: &Link,
        sports: RangeInclusive<u16>,
        dport: u16,
        size: RingSize,
    ) -> Result<Self, NetError> {
        let failed = |operation| move |err| NetError::system(operation, &link.interface, err);
        let link_len = if link.header_len() == 0 { 0 } else { 14 };
        let interest = Interest {
            link_len,
            saddr: link.source,
            sports,
            dport,
        };
        let filter: Vec<SockFilter> = interest
            .program()
            .into_iter()
            .map(SockFilter::from)
            .collect();

        let mut geometry = Geometry {
            block_len: size.block_len,
            blocks: size.blocks,
            retire_ms: size.retire_ms,
        };
        let (socket, ring) = loop {
            let socket = packet_socket().map_err(failed("open a packet socket"))?;
            socket
                .attach_filter(&filter)
                .map_err(failed("attach a packet filter"))?;
            match Ring::new(socket.as_fd(), geometry) {
                Ok(ring) => break (socket, ring),
                Err(err)
                    if err.raw_os_error() == Some(libc::ENOMEM)
                        && geometry.blocks > size.blocks.div_ceil(16) =>
                {
                    geometry.blocks = geometry.blocks.div_ceil(2);
                }
                Err(err) => return Err(failed("make a receive ring")(err)),
            }
        };
        // Lacking before Linux 4.20; there the filter is what drops our own frames.
        let _ = sys::ignore_outgoing(socket.as_fd());
        sys::bind_packet(socket.as_fd(), link.index, sys::EVERY_PROTOCOL)
            .map_err(failed("bind a packet socket"))?;
        let interface = link.interface.clone();
        Ok(Self {
            ring,
            socket,
            stats: RxStats::default(),
            interface,
        })
    }
}

impl Receive for PacketReceive {
    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<usize, NetError> {
        let frames = self.ring.drain(each);
        if frames > 0 || timeout.is_zero() {
            return Ok(frames);
        }
        let failed = |err| NetError::system("receive", &self.interface, err);
        if !sys::wait_readable(self.socket.as_fd(), timeout).map_err(failed)? {
            return Ok(0);
        }
        // Frames before bad news: what arrived before the interface went is still an answer.
        let frames = self.ring.drain(each);
        match self.socket.take_error().map_err(failed)? {
            Some(err) if frames == 0 => Err(failed(err)),
            _ => Ok(frames),
        }
    }

    fn stats(&mut self) -> Result<RxStats, NetError> {
        let fresh = sys::packet_statistics(self.socket.as_fd())
            .map_err(|err| NetError::system("read statistics", &self.interface, err))?;
        self.stats.received += u64::from(fresh.packets.saturating_sub(fresh.drops));
        self.stats.dropped += u64::from(fresh.drops);
        Ok(self.stats)
    }
}
