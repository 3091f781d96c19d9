//! The third step of the handshake: what our SYN offered, what the SYN-ACK took of it, and the ACK
//! that makes a connection of the two.
//!
//! RFC 9293 section 3.5; window scale and timestamps hold if both sides sent them (RFC 7323).

use std::net::Ipv4Addr;

use super::{Responder, SynAckOptions};
use crate::wire::{ipv4, tcp};

/// What the sweep's SYN offers every peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Our window, in octets: that of a SYN is never scaled.
    pub window: u16,
    /// Its TCP options.
    pub options: tcp::Options,
}

/// What a connection goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The peer's largest segment, in octets.
    pub mss: u16,
    /// Bits by which the peer's window and ours are to be shifted from now on.
    pub scales: Option<Scales>,
    /// Whether selective acknowledgements may be sent.
    pub sack: bool,
    /// The timestamps of our ACK, if segments carry them.
    pub clocks: Option<Clocks>,
    /// Our window, in octets.
    pub window: u16,
}

/// Window scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scales {
    /// The peer's.
    pub theirs: u8,
    /// Ours.
    pub ours: u8,
}

/// Timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Ours: above the SYN's, and even.
    pub ours: u32,
    /// The peer's, as its SYN-ACK told it.
    pub theirs: u32,
}

impl Offer {
    /// What an offer and the answer to it come to.
    pub fn agree(&self, answer: &SynAckOptions) -> Agreed {
        let ours = &self.options;
        Agreed {
            // What a peer takes that does not say (RFC 9293 section 3.7.1).
            mss: answer.mss.filter(|mss| *mss > 0).unwrap_or(536),
            scales: ours.wscale.zip(answer.wscale).map(|(ours, theirs)| Scales {
                ours,
                theirs: theirs.min(MAX_SCALE),
            }),
            sack: ours.sack_perm && answer.sack_perm,
            clocks: ours.ts_val.zip(answer.ts_val).map(|(ours, theirs)| Clocks {
                ours: ours.wrapping_add(2) & !1,
                theirs,
            }),
            window: self.window,
        }
    }
}

impl Agreed {
    /// The ACK to a responder's SYN-ACK from `saddr`, as an IPv4 packet.
    pub fn ack(&self, saddr: Ipv4Addr, responder: &Responder) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(clocks) = self.clocks {
            options.extend([1, 1, 8, 10]);
            options.extend(clocks.ours.to_be_bytes());
            options.extend(clocks.theirs.to_be_bytes());
        }
        let segment = tcp::Repr {
            source_port: responder.our_port(),
            destination_port: responder.dport(),
            seq: responder.our_seq().wrapping_add(1),
            ack: responder.their_seq().wrapping_add(1),
            flags: tcp::Flags::ACK,
            window: self.window >> self.scales.map_or(0, |scales| scales.ours),
            options: &options,
        };
        let header = ipv4::Repr {
            source: saddr,
            destination: responder.addr(),
            protocol: ipv4::PROTOCOL_TCP,
            ttl: TTL,
            ident: 0,
            dont_fragment: true,
            // 20 octets, or 32.
            payload_len: u16::try_from(segment.header_len()).unwrap_or(u16::MAX),
        };
        let mut packet = vec![0; ipv4::HEADER_LEN + segment.header_len()];
        let (ip, transport) = packet.split_at_mut(ipv4::HEADER_LEN);
        header.emit(&mut ipv4::Packet::new_unchecked(ip));
        segment.emit(
            &mut tcp::Packet::new_unchecked(transport),
            saddr,
            responder.addr(),
        );
        packet
    }
}

/// The largest shift there is (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;

/// Linux's own, which the rest of the connection has.
const TTL: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::answer::synack_for;
    use crate::probe::{Classifier, CookieKey, Cookies, Reply, Syn, SynLayout};
    use crate::targets::{RangeSet, Space};
    use pnet_packet::Packet as _;
    use pnet_packet::ipv4::{Ipv4Packet, checksum as ip_checksum};
    use pnet_packet::tcp::{TcpPacket, ipv4_checksum};

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
    const THEM: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

    /// The offer of a sweep, and a responder to it.
    fn handshake(layout: SynLayout) -> (Offer, Responder) {
        let cookies = Cookies::new(CookieKey::derive(7, &[7; 16]), 16_384..=32_767, 25);
        let syn = Syn::new(&[], US, Syn::DEFAULT_TTL, layout, cookies.clone());
        let only = RangeSet::from_ranges([(THEM.to_bits(), THEM.to_bits())]);
        let target = Space::new(&only, &RangeSet::default()).target(0).unwrap();
        let mut frame = vec![0; syn.frame_len()];
        syn.prepare(&mut frame);
        syn.stamp(&mut frame, target);
        let answer = synack_for(&frame).unwrap();
        let Ok(Reply::SynAck(responder)) = Classifier::new(US, cookies, 0).classify(&answer, 0)
        else {
            panic!("no responder");
        };
        (syn.offer(), responder)
    }

    #[test]
    fn what_is_agreed_is_what_both_have_sent() {
        let (offer, responder) = handshake(SynLayout::Linux);
        let agreed = offer.agree(responder.options());
        let scales = Scales { theirs: 7, ours: 7 };
        assert_eq!((agreed.mss, agreed.scales), (1460, Some(scales)));
        assert!(agreed.sack);
        let clocks = agreed.clocks.unwrap();
        assert_eq!(clocks.theirs, 0x1000);
        let ours = offer.options.ts_val.unwrap();
        assert!(clocks.ours.wrapping_sub(ours) < 3 && clocks.ours != ours && clocks.ours % 2 == 0);

        let bare = offer.agree(&SynAckOptions::default());
        assert_eq!((bare.mss, bare.scales, bare.clocks), (536, None, None));
        assert!(!bare.sack);
        let odd = SynAckOptions {
            mss: Some(0),
            wscale: Some(255),
            ..SynAckOptions::default()
        };
        let odd = offer.agree(&odd);
        assert_eq!((odd.mss, odd.scales.unwrap().theirs), (536, 14));

        let (small, responder) = handshake(SynLayout::SmallestProbes);
        let answered_all = SynAckOptions {
            wscale: Some(7),
            sack_perm: true,
            ts_val: Some(1),
            ..*responder.options()
        };
        let small = small.agree(&answered_all);
        assert_eq!((small.scales, small.clocks), (None, None));
        assert!(!small.sack);
    }

    #[test]
    fn the_ack_is_one_as_others_read_it() {
        for (layout, window) in [
            (SynLayout::Linux, 64_240 >> 7),
            (SynLayout::Bsd, 65_535 >> 6),
            (SynLayout::Windows, 65_535 >> 8),
            (SynLayout::SmallestProbes, 65_535),
        ] {
            let (offer, responder) = handshake(layout);
            let packet = offer.agree(responder.options()).ack(US, &responder);
            let ip = Ipv4Packet::new(&packet).unwrap();
            assert_eq!(ip.get_checksum(), ip_checksum(&ip));
            assert_eq!((ip.get_source(), ip.get_destination()), (US, THEM));
            assert_eq!(usize::from(ip.get_total_length()), packet.len());
            let tcp = TcpPacket::new(ip.payload()).unwrap();
            assert_eq!(tcp.get_checksum(), ipv4_checksum(&tcp, &US, &THEM));
            assert_eq!(tcp.get_flags(), 0x10);
            assert_eq!(tcp.get_sequence(), responder.our_seq().wrapping_add(1));
            let their_seq = responder.their_seq();
            assert_eq!(tcp.get_acknowledgement(), their_seq.wrapping_add(1));
            assert_eq!(
                (tcp.get_source(), tcp.get_destination()),
                (responder.our_port(), 25)
            );
            // The other side does not scale in this answer unless asked; see `synack_for`.
            let scaled = offer.options.wscale.is_some();
            let expected = if scaled { window } else { 65_535 };
            assert_eq!(tcp.get_window(), expected, "{layout:?}");
            let stamped = tcp::Options::parse(tcp.get_options_raw()).ts_ecr;
            assert_eq!(stamped.is_some(), offer.options.ts_val.is_some());
        }
    }
}
