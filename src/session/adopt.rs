//! A connection made of the handshake that the sweep's SYN began: the second way beside
//! [`super::dial`] to come to one.
//!
//! The kernel knows nothing of our SYN. So the socket is set up by hand, as if it had been moved
//! here from another machine (`TCP_REPAIR`): addresses and ports, both sequence numbers, the
//! options that SYN and SYN-ACK agree on, the windows. None of that sends a packet. Then the ACK
//! goes out through a raw socket, and to both ends it is a connection like any other: one
//! handshake on the wire, no RST, no second SYN.
//!
//! Needs `CAP_NET_ADMIN`, and [`crate::net::Firewall`] in force from before the first SYN, or the
//! kernel resets what is to be adopted. That rule lets everything pass once there is a socket:
//! should our ACK be lost, the peer sends its SYN-ACK again and the kernel repeats the ACK.
//!
//! The ACK leaves by way of the kernel's routing and its packet filter, not as a frame like the
//! SYN: so it takes the way that the rest of the connection will take, on every kind of link, and
//! a stateful filter on this machine learns of the connection before the peer's greeting arrives.
//!
//! **Peers do not wait for ever** with their half of a handshake: three seconds with the shortest
//! setting in use (one SYN-ACK retransmission), 63 with Linux's default. So sweeps hold the sender back as
//! soon as somebody has waited for [`WAIT_MARK`], and who has waited longer than [`ADOPT_WITHIN`]
//! all the same (behind tarpits in its /24, say) is dialled: a second handshake beats a host lost. A peer
//! that answers the adoption of a handshake older than [`FORGOTTEN_AFTER`] with nothing but RST had
//! forgotten it, and is dialled as well; no session has been held with it by then.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::sys::{self, Queue, RepairOption, Windows};
use crate::probe::{Agreed, Offer, Responder};

/// How sessions come to their connections (`--connect`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connect {
    /// Adopt where that is possible, else dial.
    #[default]
    Auto,
    /// Make connections of the sweep's own handshakes.
    Adopt,
    /// Open new ones.
    Dial,
}

impl Connect {
    /// The word for it on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Adopt => "adopt",
            Self::Dial => "dial",
        }
    }
}

impl FromStr for Connect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Adopt, Self::Dial]
            .into_iter()
            .find(|connect| connect.name() == text)
            .ok_or_else(|| format!("there is no way to connect called {text}"))
    }
}

/// How long a handshake may have waited to be adopted.
pub const ADOPT_WITHIN: Duration = Duration::from_secs(5);

/// After that time peers begin to repeat their SYN-ACK, and to forget the handshake where that fails
/// (Linux does, if its queues are full just then).
const FORGOTTEN_AFTER: Duration = Duration::from_millis(900);

/// Whether the peer may not know of the responder's handshake any more at `now_us`.
pub(super) fn may_be_forgotten(responder: &Responder, now_us: u64) -> bool {
    waited(responder, now_us) >= FORGOTTEN_AFTER
}

/// How long responders may wait until no more should be found for now.
pub const WAIT_MARK: Duration = Duration::from_millis(500);

/// Makes connections of handshakes.
pub struct Adopter {
    saddr: Ipv4Addr,
    offer: Offer,
    /// For the ACKs.
    raw: Socket,
}

impl Adopter {
    /// For responders to SYNs from `saddr` that made that offer.
    ///
    /// # Errors
    /// No privilege (EPERM), a kernel that cannot do it, or an address that is not this machine's.
    pub fn open(saddr: Ipv4Addr, offer: Offer) -> io::Result<Self> {
        let trial = blank(saddr, 0)?;
        sys::end_repair(&trial)?;
        let raw = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )?;
        raw.bind(&SocketAddrV4::new(saddr, 0).into())?;
        Ok(Self { saddr, offer, raw })
    }

    /// Whether the responder's handshake is fresh enough at `now_us`, in Unix microseconds.
    pub(super) fn is_fresh(&self, responder: &Responder, now_us: u64) -> bool {
        waited(responder, now_us) < ADOPT_WITHIN
    }

    /// Makes the connection; it stands when this returns.
    ///
    /// # Errors
    /// What the system says; nothing was sent then, and the peer still waits.
    pub(super) fn adopt(&self, responder: &Responder) -> io::Result<TcpStream> {
        let agreed = self.offer.agree(responder.options());
        // Until the end of repair, to drop the socket is to forget it: it sends nothing.
        let socket = blank(self.saddr, responder.our_port())?;
        sys::set_sequence(&socket, Queue::Send, responder.our_seq().wrapping_add(1))?;
        sys::set_sequence(
            &socket,
            Queue::Receive,
            responder.their_seq().wrapping_add(1),
        )?;
        let peer = SocketAddrV4::new(responder.addr(), responder.dport());
        socket.connect(&peer.into())?;
        set_agreed(&socket, &agreed, responder)?;
        socket.set_tcp_nodelay(true)?;
        sys::end_repair(&socket)?;
        let ack = agreed.ack(self.saddr, responder);
        if let Err(error) = self.raw.send_to(&ack, &peer.into()) {
            sys::begin_repair(&socket)?;
            return Err(error);
        }
        Ok(TcpStream::from_std(socket.into()))
    }
}

impl fmt::Debug for Adopter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopter")
            .field("saddr", &self.saddr)
            .finish_non_exhaustive()
    }
}

/// How long the responder has been waiting at `now_us`, in Unix microseconds.
pub(super) fn waited(responder: &Responder, now_us: u64) -> Duration {
    Duration::from_micros(now_us.saturating_sub(responder.seen_us()))
}

/// Whether descriptors or memory are short, which passes and would meet a dialled connection, too.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// A socket in repair, bound to our end. In repair it may share the port with any other.
fn blank(saddr: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    sys::begin_repair(&socket)?;
    socket.bind(&SocketAddrV4::new(saddr, port).into())?;
    Ok(socket)
}

fn set_agreed(socket: &Socket, agreed: &Agreed, responder: &Responder) -> io::Result<()> {
    sys::set_agreed(socket, RepairOption::MaxSegment(agreed.mss))?;
    if let Some(scales) = agreed.scales {
        let (theirs, ours) = (scales.theirs, scales.ours);
        sys::set_agreed(socket, RepairOption::WindowScales { theirs, ours })?;
    }
    if agreed.sack {
        sys::set_agreed(socket, RepairOption::SackPermitted)?;
    }
    if let Some(clocks) = agreed.clocks {
        sys::set_agreed(socket, RepairOption::Timestamps)?;
        sys::set_timestamp_clock(socket, clocks.ours)?;
    }
    let theirs = u32::from(responder.window());
    let windows = Windows {
        told_at: responder.their_seq(),
        theirs,
        theirs_max: theirs,
        ours: u32::from(agreed.window),
        ours_told_at: responder.their_seq().wrapping_add(1),
    };
    sys::set_windows(socket, &windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_command_line() {
        for connect in [Connect::Auto, Connect::Adopt, Connect::Dial] {
            assert_eq!(connect.name().parse(), Ok(connect));
        }
        assert!("borrow".parse::<Connect>().is_err());
    }

    #[test]
    fn a_clock_set_back_makes_nobody_wait() {
        let responder = crate::session::tests::responder([127, 0, 0, 1], 25);
        assert_eq!(waited(&responder, 7), Duration::from_micros(7));
        assert!(waited(&responder, 0) < ADOPT_WITHIN);
    }
}
