//! What a peer would answer: reply frames made from our own SYN frames.
//!
//! For the in-memory network and for tests. Each function reads a SYN frame (link header of 14
//! octets or none, told apart by the EtherType) and returns the frame that would come back, or
//! `None` when it was given no TCP segment inside IPv4.

use std::net::Ipv4Addr;

use crate::wire::{ethernet, icmp, ipv4, tcp};

/// The TTL of the answers: a host some hops away.
pub const ANSWER_TTL: u8 = 57;

/// The SYN-ACK of an open port: acknowledges the SYN, with Linux's window and options.
pub fn synack_for(frame: &[u8]) -> Option<Vec<u8>> {
    let syn = SynFrame::read(frame)?;
    let mut options = vec![2, 4, 0x05, 0xb4, 4, 2];
    let echo = tcp::Options::parse(syn.segment.options()).ts_val;
    if let Some(echo) = echo {
        options.extend([8, 10, 0, 0, 0x10, 0]);
        options.extend(echo.to_be_bytes());
        options.push(1);
    } else {
        options.extend([1, 1, 1]);
    }
    options.extend([3, 3, 7]);
    Some(syn.answer(&tcp::Repr {
        source_port: syn.segment.destination_port(),
        destination_port: syn.segment.source_port(),
        seq: !syn.segment.seq(),
        ack: syn.segment.seq().wrapping_add(1),
        flags: tcp::Flags::SYN_ACK,
        window: 65_160,
        options: &options,
    }))
}

/// The RST of a closed port.
pub fn rst_for(frame: &[u8]) -> Option<Vec<u8>> {
    let syn = SynFrame::read(frame)?;
    Some(syn.answer(&tcp::Repr {
        source_port: syn.segment.destination_port(),
        destination_port: syn.segment.source_port(),
        seq: 0,
        ack: syn.segment.seq().wrapping_add(1),
        flags: tcp::Flags(tcp::Flags::RST.0 | tcp::Flags::ACK.0),
        window: 0,
        options: &[],
    }))
}

/// "Destination unreachable" from the target itself, quoting `quote_len` octets of the TCP header
/// (8 is the least a router may quote).
pub fn icmp_unreachable_for(frame: &[u8], code: u8, quote_len: usize) -> Option<Vec<u8>> {
    let from = SynFrame::read(frame)?.ip.destination();
    icmp_error_for(frame, from, icmp::DESTINATION_UNREACHABLE, code, quote_len)
}

/// An ICMP error of any type from any router.
pub fn icmp_error_for(
    frame: &[u8],
    from: Ipv4Addr,
    icmp_type: u8,
    code: u8,
    quote_len: usize,
) -> Option<Vec<u8>> {
    let syn = SynFrame::read(frame)?;
    let quoted = ipv4::HEADER_LEN + quote_len.min(syn.ip.payload().len());
    let error = icmp::Repr {
        icmp_type,
        code,
        rest: 0,
        quote: &frame[syn.link_len..syn.link_len + quoted],
    };
    let mut reply = syn.envelope(from, ipv4::PROTOCOL_ICMP, error.len());
    let body = syn.link_len + ipv4::HEADER_LEN;
    error.emit(&mut icmp::Packet::new_unchecked(&mut reply[body..]));
    Some(reply)
}

/// A SYN frame taken apart.
struct SynFrame<'a> {
    frame: &'a [u8],
    link_len: usize,
    ip: ipv4::Packet<&'a [u8]>,
    segment: tcp::Packet<&'a [u8]>,
}

impl<'a> SynFrame<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let ethernet = ethernet::Frame::new_checked(frame)
            .is_ok_and(|link| link.ether_type() == ethernet::TYPE_IPV4);
        let link_len = if ethernet { ethernet::HEADER_LEN } else { 0 };
        let ip = ipv4::Packet::new_checked(&frame[link_len..]).ok()?;
        let at = link_len + ip.header_len();
        let end = frame.len().min(link_len + usize::from(ip.total_len()));
        let segment = tcp::Packet::new_checked(&frame[at..end]).ok()?;
        (ip.protocol() == ipv4::PROTOCOL_TCP).then_some(Self {
            frame,
            link_len,
            ip,
            segment,
        })
    }

    /// Link and IP header of a packet from `from` to the SYN's sender, and room for its payload.
    fn envelope(&self, from: Ipv4Addr, protocol: u8, payload_len: usize) -> Vec<u8> {
        let mut reply = vec![0; self.link_len + ipv4::HEADER_LEN + payload_len];
        if self.link_len > 0 {
            let link = ethernet::Repr::parse(&ethernet::Frame::new_unchecked(self.frame));
            let back = ethernet::Repr {
                destination: link.source,
                source: link.destination,
                ..link
            };
            back.emit(&mut ethernet::Frame::new_unchecked(&mut reply[..]));
        }
        let header = ipv4::Repr {
            source: from,
            destination: self.ip.source(),
            protocol,
            ttl: ANSWER_TTL,
            ident: 0,
            dont_fragment: true,
            payload_len: u16::try_from(payload_len).unwrap_or(u16::MAX),
        };
        header.emit(&mut ipv4::Packet::new_unchecked(
            &mut reply[self.link_len..],
        ));
        reply
    }

    fn answer(&self, segment: &tcp::Repr<'_>) -> Vec<u8> {
        let (from, to) = (self.ip.destination(), self.ip.source());
        let mut reply = self.envelope(from, ipv4::PROTOCOL_TCP, segment.header_len());
        let body = &mut reply[self.link_len + ipv4::HEADER_LEN..];
        segment.emit(&mut tcp::Packet::new_unchecked(body), from, to);
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nonsense_gets_no_answer_and_no_panic(frame in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = synack_for(&frame);
            let _ = rst_for(&frame);
            let _ = icmp_unreachable_for(&frame, 1, 8);
        }
    }

    #[test]
    fn an_arp_frame_gets_no_answer() {
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(synack_for(&frame), None);
    }
}
