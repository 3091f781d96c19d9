//! Received frames: the lenses never leave their buffer, what is parsed and written again is the
//! same, and nothing is an answer unless it proves the cookie.
//!
//! Input: an octet that says what to begin with, nothing or a true answer to our SYN; then either
//! the frame, or places of the answer to change (place, octet) and how much to cut off.

#![no_main]

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use smtpsweep::probe::answer::{icmp_unreachable_for, rst_for, synack_for};
use smtpsweep::probe::{Checksums, Classifier, CookieKey, Cookies, Reply, Syn, SynLayout};
use smtpsweep::targets::{RangeSet, Space};
use smtpsweep::wire::{arp, ethernet, icmp, ipv4, tcp};

const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const THEM: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const LINK: [u8; 14] = [2, 0, 0x5e, 0x10, 0, 1, 2, 0, 0x5e, 0x10, 0, 2, 8, 0];

fn cookies() -> Cookies {
    Cookies::new(CookieKey::derive(7, &[7; 16]), 16_384..=32_767, 25)
}

static COOKIES: LazyLock<Cookies> = LazyLock::new(cookies);

/// True answers, with a link header and without.
static ANSWERS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
    let wanted = RangeSet::from_ranges([(THEM.to_bits(), THEM.to_bits())]);
    let target = Space::new(&wanted, &nothing).target(0).expect("one target");
    let mut answers = Vec::new();
    for link in [&LINK[..], &[]] {
        let syn = Syn::new(link, US, 255, SynLayout::Linux, cookies());
        let mut frame = vec![0; syn.frame_len()];
        syn.prepare(&mut frame);
        syn.stamp(&mut frame, target);
        answers.extend(synack_for(&frame));
        answers.extend(rst_for(&frame));
        answers.extend(icmp_unreachable_for(&frame, 1, 8));
        answers.extend(icmp_unreachable_for(&frame, 13, 40));
    }
    answers
});

fn changed(kind: u8, changes: &[u8]) -> Vec<u8> {
    let mut frame = ANSWERS[usize::from(kind) % ANSWERS.len()].clone();
    let (pairs, rest) = changes.as_chunks::<2>();
    for [place, octet] in pairs {
        if let Some(slot) = frame.get_mut(usize::from(*place)) {
            *slot = *octet;
        }
    }
    if let [cut] = rest {
        frame.truncate(frame.len().saturating_sub(usize::from(*cut)));
    }
    frame
}

/// Who answers proved to have seen the SYN, by this frame's own words.
fn is_proved(frame: &[u8], link_len: usize, reply: &Reply) -> bool {
    let ip = ipv4::Packet::new_checked(&frame[link_len..]).expect("a classified frame");
    let cookie = COOKIES.of(US, reply.addr());
    match reply {
        Reply::SynAck(_) | Reply::Reset { .. } => {
            let segment = tcp::Packet::new_checked(ip.payload()).expect("a classified segment");
            let reset = matches!(reply, Reply::Reset { .. });
            ip.source() == reply.addr()
                && (segment.source_port(), segment.destination_port()) == (25, cookie.sport)
                && (segment.ack() == cookie.seq.wrapping_add(1)
                    || (reset && segment.ack() == cookie.seq))
        }
        Reply::Unreachable { addr, .. } => {
            // Without the lenses: the quoted destination, source port and sequence number.
            let quote = &ip.payload()[icmp::HEADER_LEN..];
            let at = usize::from(quote[0] & 0xf) * 4;
            quote[16..20] == addr.octets()
                && quote[at..at + 2] == cookie.sport.to_be_bytes()
                && quote[at + 4..at + 8] == cookie.seq.to_be_bytes()
        }
    }
}

fn classify(frame: &[u8], link_len: usize) {
    let trusting = Classifier::new(US, cookies(), link_len);
    let verdict = trusting.classify(frame, 1);
    if let Ok(reply) = &verdict {
        assert!(is_proved(frame, link_len, reply), "{reply:?}");
    }
    let verifying = trusting
        .with_checksums(Checksums::Verify)
        .classify(frame, 1);
    if verifying.is_ok() {
        assert_eq!(verifying, verdict, "verification only takes away");
    }
}

/// Every accessor of every lens; and what is written again reads the same.
fn read(bytes: &[u8]) {
    if let Ok(frame) = ethernet::Frame::new_checked(bytes) {
        let repr = ethernet::Repr::parse(&frame);
        let mut again = [0xa5; ethernet::HEADER_LEN];
        repr.emit(&mut ethernet::Frame::new_unchecked(&mut again[..]));
        assert_eq!(
            ethernet::Repr::parse(&ethernet::Frame::new_unchecked(&again[..])),
            repr
        );
    }
    if let Ok(packet) = arp::Packet::new_checked(bytes)
        && let Ok(repr) = arp::Repr::parse(&packet)
    {
        let mut again = [0xa5; 64];
        repr.emit(&mut arp::Packet::new_unchecked(&mut again[..]));
        let again = arp::Packet::new_checked(&again[..]).expect("an emitted packet");
        assert_eq!(arp::Repr::parse(&again), Ok(repr));
    }
    if let Ok(packet) = ipv4::Packet::new_checked(bytes) {
        let _ = (
            packet.is_fragment(),
            packet.fragment_offset(),
            packet.checksum_holds(),
        );
        let _ = ipv4::Repr::parse(&packet);
        assert!(packet.header_len() + packet.payload().len() <= bytes.len());
    }
    if let Ok(segment) = tcp::Packet::new_checked(bytes) {
        let whole = tcp::Packet::new_unchecked(&bytes);
        let repr = tcp::Repr::parse(&whole);
        let _ = (segment.checksum_holds(US, THEM), segment.payload().len());
        assert!(tcp::options(repr.options).count() <= 40);
        let _ = tcp::Options::parse(repr.options);
    }
    if let Ok(message) = icmp::Packet::new_checked(bytes) {
        let whole = icmp::Packet::new_unchecked(&bytes);
        let repr = icmp::Repr::parse(&whole);
        let _ = (message.checksum_holds(), repr.quote.len());
    }
}

fuzz_target!(|data: &[u8]| {
    let [kind, rest @ ..] = data else { return };
    let frame = if *kind < 128 {
        changed(*kind, rest)
    } else {
        rest.to_vec()
    };
    classify(&frame, 14);
    classify(&frame, 0);
    read(&frame);
    read(frame.get(ethernet::HEADER_LEN..).unwrap_or_default());
});
