//! From a received frame to a [`Reply`], or to the reason why it is none.
//!
//! What proves that a frame answers our SYN:
//!
//! - **SYN-ACK**: it comes from the port we probe, to the very source port of the cookie, and
//!   acknowledges the cookie's sequence number plus one.
//! - **RST**: the same, but some stacks acknowledge the sequence number itself, and some leave the
//!   ACK flag off while they fill the field. Both are accepted; the cookie is proved either way.
//! - **ICMP error**: it quotes our packet. Eight octets of TCP hold both ports and the sequence
//!   number, so the shortest quotation that RFC 792 allows proves the whole cookie.
//!
//! Checksums are not verified unless asked for. A frame that the network damaged was dropped by
//! the network card or will fail the cookie; a frame from a virtual peer (veth, bridge, loopback)
//! legitimately carries a checksum that hardware was to complete and never did. Verification
//! is for captures and for tests.
//!
//! On loopback our own SYNs arrive too. They go *to* the probed port, so they are
//! [`DropReason::WrongPort`].

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::{Cookies, DropReason, Reply, Responder, SynAckOptions};
use crate::wire::tcp::Flags;
use crate::wire::{WireError, ethernet, icmp, ipv4, tcp};

/// Whether checksums are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksums {
    /// They are not.
    #[default]
    Trust,
    /// A wrong one is a [`DropReason`].
    Verify,
}

/// Tells the answers to one sweep's SYNs from everything else.
#[derive(Debug, Clone)]
pub struct Classifier {
    saddr: Ipv4Addr,
    cookies: Cookies,
    sports: RangeInclusive<u16>,
    link_len: usize,
    checksums: Checksums,
}

impl Classifier {
    /// For answers to SYNs from `saddr` with `cookies`, in frames whose link header has `link_len`
    /// octets (14: Ethernet or loopback; 0: the frame starts with IP).
    pub fn new(saddr: Ipv4Addr, cookies: Cookies, link_len: usize) -> Self {
        let sports = cookies.sports();
        Self {
            saddr,
            cookies,
            sports,
            link_len,
            checksums: Checksums::Trust,
        }
    }

    /// The same, with that much trust in checksums.
    #[must_use]
    pub fn with_checksums(self, checksums: Checksums) -> Self {
        Self { checksums, ..self }
    }

    /// What `frame` means; it arrived `at_us` microseconds after the Unix epoch.
    ///
    /// # Errors
    /// The one reason why it is no answer to a SYN of ours.
    pub fn classify(&self, frame: &[u8], at_us: u64) -> Result<Reply, DropReason> {
        let ip =
            ipv4::Packet::new_checked(self.network_layer(frame)?).map_err(|err| match err {
                WireError::Truncated { .. } => DropReason::TooShort,
                WireError::Unsupported { .. } if self.link_len == 0 => DropReason::NotIpv4,
                _ => DropReason::BadIpHeader,
            })?;
        if ip.destination() != self.saddr {
            return Err(DropReason::NotForUs);
        }
        if ip.is_fragment() {
            return Err(DropReason::Fragment);
        }
        if usize::from(ip.total_len()) != ip.header_len() + ip.payload().len() {
            return Err(DropReason::CutShort);
        }
        let verify = self.checksums == Checksums::Verify;
        if verify && !ip.checksum_holds() {
            return Err(DropReason::IpChecksum);
        }
        match ip.protocol() {
            ipv4::PROTOCOL_TCP => self.classify_tcp(&ip, at_us),
            ipv4::PROTOCOL_ICMP => self.classify_icmp(&ip),
            _ => Err(DropReason::OtherProtocol),
        }
    }

    fn network_layer<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], DropReason> {
        if self.link_len == 0 {
            return Ok(frame);
        }
        let link = ethernet::Frame::new_checked(frame).map_err(|_| DropReason::TooShort)?;
        match link.ether_type() {
            ethernet::TYPE_IPV4 => Ok(&frame[ethernet::HEADER_LEN..]),
            ethernet::TYPE_VLAN | ethernet::TYPE_QINQ => Err(DropReason::VlanTag),
            _ => Err(DropReason::NotIpv4),
        }
    }

    fn classify_tcp(&self, ip: &ipv4::Packet<&[u8]>, at_us: u64) -> Result<Reply, DropReason> {
        let segment = tcp::Packet::new_checked(ip.payload()).map_err(|err| match err {
            WireError::Truncated { .. } => DropReason::TooShort,
            _ => DropReason::BadTcpHeader,
        })?;
        let our_port = segment.destination_port();
        if segment.source_port() != self.cookies.dport() || !self.sports.contains(&our_port) {
            return Err(DropReason::WrongPort);
        }
        let flags = segment.flags();
        let reset = flags.contains(Flags::RST);
        let open = flags.contains(Flags::SYN_ACK) && !flags.contains(Flags::FIN);
        if !reset && !open {
            return Err(DropReason::UnexpectedFlags);
        }
        if self.checksums == Checksums::Verify
            && !segment.checksum_holds(ip.source(), ip.destination())
        {
            return Err(DropReason::TcpChecksum);
        }

        let addr = ip.source();
        let cookie = self.cookies.of(self.saddr, addr);
        let acknowledged = segment.ack();
        let after = cookie.seq.wrapping_add(1);
        let proved = acknowledged == after || (reset && acknowledged == cookie.seq);
        if our_port != cookie.sport || !proved {
            return Err(DropReason::BadCookie);
        }
        if reset {
            return Ok(Reply::Reset {
                addr,
                ttl: ip.ttl(),
            });
        }
        Ok(Reply::SynAck(Responder {
            addr,
            dport: segment.source_port(),
            our_port,
            our_seq: cookie.seq,
            their_seq: segment.seq(),
            window: segment.window(),
            ttl: ip.ttl(),
            ip_id: ip.ident(),
            options: SynAckOptions::parse(segment.options()),
            seen_us: at_us,
        }))
    }

    fn classify_icmp(&self, ip: &ipv4::Packet<&[u8]>) -> Result<Reply, DropReason> {
        let message = icmp::Packet::new_checked(ip.payload()).map_err(|_| DropReason::TooShort)?;
        if !icmp::ERROR_TYPES.contains(&message.icmp_type()) {
            return Err(DropReason::IcmpNotError);
        }
        if self.checksums == Checksums::Verify && !message.checksum_holds() {
            return Err(DropReason::IcmpChecksum);
        }
        let quoted = ipv4::Packet::new_checked(message.quote()).map_err(|err| match err {
            WireError::Truncated { .. } => DropReason::QuoteTooShort,
            _ => DropReason::QuoteNotOurs,
        })?;
        // `payload` stops at the quoted total length, which a router may have rewritten (some
        // deliver it in host order); our SYN is never shorter than 8 octets, so read past it.
        let transport = &message.quote()[quoted.header_len()..];
        if transport.len() < icmp::QUOTE_MIN {
            return Err(DropReason::QuoteTooShort);
        }
        let start = tcp::Packet::new_unchecked(transport);
        if quoted.source() != self.saddr
            || quoted.protocol() != ipv4::PROTOCOL_TCP
            || quoted.fragment_offset() != 0
            || start.destination_port() != self.cookies.dport()
            || !self.sports.contains(&start.source_port())
        {
            return Err(DropReason::QuoteNotOurs);
        }
        let addr = quoted.destination();
        let cookie = self.cookies.of(self.saddr, addr);
        if start.source_port() != cookie.sport || start.seq() != cookie.seq {
            return Err(DropReason::QuoteBadCookie);
        }
        Ok(Reply::Unreachable {
            addr,
            from: ip.source(),
            icmp_type: message.icmp_type(),
            icmp_code: message.code(),
        })
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
