//! Peers that misbehave below SMTP: a TCP of our own, one address a misconduct.
//!
//! The kernel accepts the packets and hands a copy to a raw socket; whoever starts this has to keep
//! its RSTs from leaving (it knows of no such connections), which are told from ours by [`MARK`].
//! Nothing is sent again unless the caller asks for it by sending again: the link loses nothing.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};

use smtpsweep::wire::tcp::Flags;
use smtpsweep::wire::{icmp, ipv4, tcp};
use socket2::{Domain, Protocol, Socket, Type};

/// The mark on every packet of ours.
pub(crate) const MARK: u32 = 7;

/// One way to misbehave. What is not said is done properly.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The outcome of a session that adopts the probe's handshake.
    pub(crate) outcome: &'static str,
    /// The outcome of one that dials.
    pub(crate) dialled: &'static str,
    syn: Act,
    open: Act,
    line: Act,
}

type Act = fn(&mut Peering, &Wire) -> io::Result<()>;

const fn peer(name: &'static str, outcome: &'static str) -> Peer {
    Peer {
        name,
        outcome,
        dialled: outcome,
        syn: syn_ack,
        open: greet,
        line: reply,
    }
}

/// One that is good to the probe and not to a second SYN.
const fn second(name: &'static str, dialled: &'static str) -> Peer {
    Peer {
        dialled,
        ..peer(name, "completed")
    }
}

/// All of them, in the order of their addresses.
#[rustfmt::skip]
pub(crate) const ALL: &[Peer] = &[
    peer("good-tcp", "completed"),
    Peer { syn: syn_ack_without_window, open: nothing, ..peer("zero-window", "zero_window") },
    Peer { syn: syn_ack_without_window, ..peer("zero-window-after-greeting", "dialogue_timeout") },
    Peer { syn: syn_ack_and_reset, ..peer("reset-after-syn-ack", "reset_before_greeting") },
    Peer { syn: to_probe_only, ..second("shuns-second-syn", "connect_timeout") },
    Peer { syn: reset_second, ..second("refuses-second-syn", "connect_refused") },
    Peer { syn: unreachable_second, ..second("icmp-to-second-syn", "connect_unreachable") },
    Peer { syn: simultaneous_open, ..peer("simultaneous-open", "completed") },
    Peer { syn: syn_ack_with_greeting, ..peer("greeting-in-syn-ack", "completed") },
    Peer { syn: bad_syn_ack_first, ..peer("wrong-ack-first", "completed") },
    Peer { syn: two_syn_acks, ..peer("two-syn-acks", "completed") },
    Peer { syn: syn_ack_of_mss_1, ..peer("mss-1", "completed") },
    Peer { syn: syn_ack_of_window_10, ..peer("ten-octet-window", "completed") },
    Peer { syn: syn_ack_of_window_1, ..peer("one-octet-window", "dialogue_timeout") },
    Peer { open: urgent_greeting, ..peer("urgent-data", "completed") },
    Peer { open: bad_resets, ..peer("resets-with-bad-seq", "completed") },
    Peer { open: icmp_errors, ..peer("icmp-errors-amid", "completed") },
    Peer { open: jumbled_greeting, ..peer("overlapping-segments", "completed") },
    Peer { open: strange_flags, ..peer("strange-flags", "completed") },
    Peer { open: greet_and_close, ..peer("fin-with-greeting", "closed_in_dialogue") },
    Peer { line: nothing, ..peer("acks-and-never-answers", "dialogue_timeout") },
    Peer { open: greet_and_go_deaf, ..peer("never-acks", "dialogue_timeout") },
];

/// Serves the addresses from `first` on until a signal comes; calls `ready` once it receives.
pub(crate) fn serve(first: Ipv4Addr, ready: impl FnOnce()) -> io::Result<()> {
    let wire = Wire::new()?;
    let door = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    door.set_recv_buffer_size(4 << 20)?;
    let mut all: HashMap<(Ipv4Addr, u16), Peering> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    ready();
    loop {
        let count = (&door).read(&mut buffer)?;
        let Ok(packet) = ipv4::Packet::new_checked(&buffer[..count]) else {
            continue;
        };
        let Ok(segment) = tcp::Packet::new_checked(packet.payload()) else {
            continue;
        };
        let place = packet.destination().to_bits().wrapping_sub(first.to_bits());
        let Some(peer) = ALL.get(place as usize) else {
            continue;
        };
        let key = (packet.destination(), segment.source_port());
        if segment.flags() == Flags::SYN {
            let peering = all
                .entry(key)
                .or_insert_with(|| Peering::new(peer, &packet, &segment));
            (peer.syn)(peering, &wire)?;
        } else if let Some(peering) = all.get_mut(&key)
            && peering.handle(&segment, &wire)? == After::Gone
        {
            all.remove(&key);
        }
    }
}

#[derive(PartialEq, Eq)]
enum After {
    Stays,
    Gone,
}

/// Our end of one connection.
pub(crate) struct Peering {
    peer: &'static Peer,
    us: (Ipv4Addr, u16),
    them: (Ipv4Addr, u16),
    /// The next octet we send, and the next that is expected of them.
    next: u32,
    expected: u32,
    window: u16,
    opened: bool,
    deaf: bool,
    closed: bool,
    /// Whether it has reset the connection, and answers everything with RST.
    gone: bool,
    heard: Vec<u8>,
}

impl Peering {
    fn new(peer: &'static Peer, packet: &ipv4::Packet<&[u8]>, syn: &tcp::Packet<&[u8]>) -> Self {
        Self {
            peer,
            us: (packet.destination(), syn.destination_port()),
            them: (packet.source(), syn.source_port()),
            next: !syn.seq(),
            expected: syn.seq().wrapping_add(1),
            window: 65_535,
            opened: false,
            deaf: false,
            closed: false,
            gone: false,
            heard: Vec::new(),
        }
    }

    fn handle(&mut self, segment: &tcp::Packet<&[u8]>, wire: &Wire) -> io::Result<After> {
        let flags = segment.flags();
        if flags.contains(Flags::RST) {
            let gone = segment.seq() == self.expected;
            return Ok(if gone { After::Gone } else { After::Stays });
        }
        if self.gone {
            self.put_at(wire, segment.ack(), Flags::RST, b"")?;
        }
        if self.deaf || self.gone {
            return Ok(After::Stays);
        }
        if !self.opened && segment.ack() == self.next {
            self.opened = true;
            (self.peer.open)(self, wire)?;
            if self.deaf {
                return Ok(After::Stays);
            }
        }
        let (octets, fin) = (segment.payload(), flags.contains(Flags::FIN));
        if segment.seq() != self.expected || (octets.len() > usize::from(self.window)) {
            // A probe of our window, or something again.
            self.put(wire, Flags::ACK, b"")?;
            return Ok(After::Stays);
        }
        if !octets.is_empty() {
            self.expected = self.expected.wrapping_add(length(octets));
            self.heard.extend_from_slice(octets);
            self.put(wire, Flags::ACK, b"")?;
            while let Some(end) = self.heard.iter().position(|octet| *octet == b'\n') {
                (self.peer.line)(self, wire)?;
                self.heard.drain(..=end);
            }
        }
        if fin {
            self.expected = self.expected.wrapping_add(1);
            let last = if self.closed { Flags::ACK } else { FIN_ACK };
            self.put(wire, last, b"")?;
            return Ok(After::Gone);
        }
        Ok(After::Stays)
    }

    /// Sends octets that come next.
    fn say(&mut self, wire: &Wire, octets: &[u8]) -> io::Result<()> {
        self.put(wire, Flags::ACK, octets)?;
        self.next = self.next.wrapping_add(length(octets));
        Ok(())
    }

    /// Sends octets that come next, and closes.
    fn say_last(&mut self, wire: &Wire, octets: &[u8]) -> io::Result<()> {
        self.put(wire, FIN_ACK, octets)?;
        self.next = self.next.wrapping_add(length(octets) + 1);
        self.closed = true;
        Ok(())
    }

    /// Sends a segment with the next sequence number, and moves nothing on.
    fn put(&self, wire: &Wire, flags: Flags, octets: &[u8]) -> io::Result<()> {
        self.put_at(wire, self.next, flags, octets)
    }

    fn put_at(&self, wire: &Wire, seq: u32, flags: Flags, octets: &[u8]) -> io::Result<()> {
        wire.segment(self, &self.repr(seq, flags, &[]), 0, octets)
    }

    fn repr<'a>(&self, seq: u32, flags: Flags, options: &'a [u8]) -> tcp::Repr<'a> {
        tcp::Repr {
            source_port: self.us.1,
            destination_port: self.them.1,
            seq,
            ack: self.expected,
            flags,
            window: self.window,
            options,
        }
    }

    /// Whether the caller's port is one of the kernel's: its probe has come already.
    fn is_second(&self) -> bool {
        self.them.1 >= 32_768
    }
}

fn nothing(_: &mut Peering, _: &Wire) -> io::Result<()> {
    Ok(())
}

fn syn_ack(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    syn_ack_with(peering, wire, &[], b"")
}

/// A SYN may come again: the SYN-ACK is the same then.
fn syn_ack_with(
    peering: &mut Peering,
    wire: &Wire,
    options: &[u8],
    octets: &[u8],
) -> io::Result<()> {
    let seq = peering.expected.wrapping_sub(1);
    let repr = peering.repr(!seq, Flags::SYN_ACK, options);
    wire.segment(peering, &repr, 0, octets)?;
    peering.next = (!seq).wrapping_add(1);
    Ok(())
}

fn syn_ack_without_window(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.window = 0;
    syn_ack(peering, wire)
}

fn syn_ack_of_window_10(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.window = 10;
    syn_ack(peering, wire)
}

/// The kernel sends an octet at a time then, some five a second.
fn syn_ack_of_window_1(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.window = 1;
    syn_ack(peering, wire)
}

fn syn_ack_of_mss_1(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    syn_ack_with(peering, wire, &[2, 4, 0, 1], b"")
}

fn syn_ack_and_reset(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    syn_ack(peering, wire)?;
    peering.gone = true;
    peering.put(wire, RST_ACK, b"")
}

/// The greeting comes before the caller could have asked for it, and once more afterwards, since
/// it may have been thrown away.
fn syn_ack_with_greeting(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    syn_ack_with(peering, wire, &[], GREETING)
}

fn two_syn_acks(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    syn_ack(peering, wire)?;
    let other = peering.next.wrapping_add(77_777);
    peering.put_at(wire, other, Flags::SYN_ACK, b"")
}

fn bad_syn_ack_first(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.expected = peering.expected.wrapping_add(99);
    peering.put(wire, Flags::SYN_ACK, b"")?;
    peering.expected = peering.expected.wrapping_sub(99);
    syn_ack(peering, wire)
}

fn to_probe_only(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    if peering.is_second() {
        Ok(())
    } else {
        syn_ack(peering, wire)
    }
}

fn reset_second(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    if peering.is_second() {
        peering.put(wire, RST_ACK, b"")
    } else {
        syn_ack(peering, wire)
    }
}

fn unreachable_second(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    if peering.is_second() {
        wire.icmp_error(peering, 13, 0)
    } else {
        syn_ack(peering, wire)
    }
}

/// To a SYN a SYN: both ends open. The caller acknowledges, and so do we.
fn simultaneous_open(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    if !peering.is_second() {
        return syn_ack(peering, wire);
    }
    let seq = !peering.expected.wrapping_sub(1);
    let mut syn = peering.repr(seq, Flags::SYN, &[]);
    syn.ack = 0;
    wire.segment(peering, &syn, 0, b"")?;
    // Its SYN-ACK, which comes next, opens the connection like an ACK.
    peering.next = seq.wrapping_add(1);
    Ok(())
}

fn greet(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.say(wire, GREETING)
}

fn urgent_greeting(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    let urgent = peering.repr(peering.next, Flags(Flags::ACK.0 | URG), &[]);
    wire.segment(peering, &urgent, 9, GREETING)?;
    peering.next = peering.next.wrapping_add(length(GREETING));
    Ok(())
}

/// None of these may end a connection (RFC 5961): far outside the window, and inside it.
fn bad_resets(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    for away in [1 << 30, 1 << 31, 1_000] {
        peering.put_at(wire, peering.next.wrapping_add(away), Flags::RST, b"")?;
    }
    greet(peering, wire)
}

/// Once a connection stands these are advice (RFC 5927), the impossibly small path MTU too.
fn icmp_errors(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    for code in [0, 1, 2, 3, 13] {
        wire.icmp_error(peering, code, 0)?;
    }
    wire.icmp_error(peering, 4, 1)?;
    greet(peering, wire)
}

/// The end first, then parts that overlap, some with other octets at a place already told.
fn jumbled_greeting(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    let at = peering.next;
    peering.put_at(wire, at.wrapping_add(10), Flags::ACK, &GREETING[10..])?;
    peering.put_at(wire, at.wrapping_add(10), Flags::ACK, &[b'x'; 5])?;
    peering.put_at(wire, at.wrapping_sub(3), Flags::ACK, b"???220 ")?;
    peering.put_at(wire, at, Flags::ACK, &GREETING[..20])?;
    peering.next = at.wrapping_add(length(GREETING));
    Ok(())
}

fn strange_flags(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.put(wire, Flags(0), b"no flag at all")?;
    peering.put(wire, Flags::SYN, b"")?;
    peering.put(wire, Flags::SYN_ACK, b"")?;
    let mut early = peering.repr(peering.next, Flags::ACK, &[]);
    early.ack = peering.expected.wrapping_add(1 << 20);
    wire.segment(peering, &early, 0, b"an answer to what was not said")?;
    greet(peering, wire)
}

fn greet_and_close(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.say_last(wire, GREETING)
}

fn greet_and_go_deaf(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    peering.deaf = true;
    greet(peering, wire)
}

fn reply(peering: &mut Peering, wire: &Wire) -> io::Result<()> {
    let verb = peering.heard.get(..4).unwrap_or_default();
    let reply: &[u8] = match verb {
        b"EHLO" => b"250-raw.example.test\r\n250 SIZE 1000000\r\n",
        b"HELO" => b"250 raw.example.test\r\n",
        b"QUIT" => return peering.say_last(wire, b"221 2.0.0 bye\r\n"),
        _ => b"500 5.5.2 what?\r\n",
    };
    peering.say(wire, reply)
}

/// Where packets leave.
pub(crate) struct Wire(Socket);

impl Wire {
    fn new() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )?;
        socket.set_mark(MARK)?;
        Ok(Self(socket))
    }

    fn segment(
        &self,
        peering: &Peering,
        repr: &tcp::Repr<'_>,
        urgent: u16,
        octets: &[u8],
    ) -> io::Result<()> {
        let header = tcp::HEADER_LEN + repr.options.len();
        let mut segment = vec![0; header + octets.len()];
        segment[header..].copy_from_slice(octets);
        let (us, them) = (peering.us.0, peering.them.0);
        repr.emit(&mut tcp::Packet::new_unchecked(&mut segment[..]), us, them);
        segment[18..20].copy_from_slice(&urgent.to_be_bytes());
        tcp::Packet::new_unchecked(&mut segment[..]).fill_checksum(us, them);
        self.packet(us, them, ipv4::PROTOCOL_TCP, &segment)
    }

    /// "Destination unreachable" about the caller's last segment.
    fn icmp_error(&self, peering: &Peering, code: u8, mtu: u32) -> io::Result<()> {
        let (us, them) = (peering.us, peering.them);
        let mut quote = vec![0; ipv4::HEADER_LEN + icmp::QUOTE_MIN];
        header(them.0, us.0, ipv4::PROTOCOL_TCP, 20)
            .emit(&mut ipv4::Packet::new_unchecked(&mut quote[..]));
        let tcp = &mut quote[ipv4::HEADER_LEN..];
        tcp[..2].copy_from_slice(&them.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&us.1.to_be_bytes());
        tcp[4..].copy_from_slice(&peering.expected.wrapping_sub(1).to_be_bytes());
        let error = icmp::Repr {
            icmp_type: 3,
            code,
            rest: mtu,
            quote: &quote,
        };
        let mut message = vec![0; error.len()];
        error.emit(&mut icmp::Packet::new_unchecked(&mut message[..]));
        self.packet(us.0, them.0, ipv4::PROTOCOL_ICMP, &message)
    }

    fn packet(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![0; ipv4::HEADER_LEN + body.len()];
        packet[ipv4::HEADER_LEN..].copy_from_slice(body);
        header(from, to, protocol, body.len())
            .emit(&mut ipv4::Packet::new_unchecked(&mut packet[..]));
        self.0
            .send_to(&packet, &SocketAddrV4::new(to, 0).into())
            .map(drop)
    }
}

fn header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload_len: usize) -> ipv4::Repr {
    ipv4::Repr {
        source,
        destination,
        protocol,
        ttl: 60,
        ident: 0,
        dont_fragment: true,
        payload_len: u16::try_from(payload_len).unwrap_or(u16::MAX),
    }
}

/// Of a segment's octets, or of a line's.
fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

const GREETING: &[u8] = b"220 raw.example.test ESMTP\r\n";
const FIN_ACK: Flags = Flags(Flags::FIN.0 | Flags::ACK.0);
const RST_ACK: Flags = Flags(Flags::RST.0 | Flags::ACK.0);
const URG: u8 = 0x20;
