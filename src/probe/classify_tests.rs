//! What passes the classifier and what does not, frame by frame.

use super::*;
use crate::probe::answer::{self, icmp_error_for, icmp_unreachable_for, rst_for, synack_for};
use crate::probe::{CookieKey, Syn, SynLayout};
use crate::targets::{RangeSet, Space, Target};
use crate::wire::checksum;
use proptest::prelude::*;

const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const THEM: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const LINK: [u8; 14] = [2, 0, 0x5e, 0x10, 0, 1, 2, 0, 0x5e, 0x10, 0, 2, 8, 0];

fn cookies() -> Cookies {
    Cookies::new(CookieKey::derive(7, &[7; 16]), 40_000..=49_999, 25)
}

fn classifier(link_len: usize) -> Classifier {
    Classifier::new(US, cookies(), link_len).with_checksums(Checksums::Verify)
}

fn target(addr: Ipv4Addr) -> Target {
    let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
    let wanted = RangeSet::from_ranges([(addr.to_bits(), addr.to_bits())]);
    Space::new(&wanted, &nothing).target(0).unwrap()
}

fn syn_to(link: &[u8], addr: Ipv4Addr) -> Vec<u8> {
    let syn = Syn::new(link, US, 255, SynLayout::Linux, cookies());
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    syn.stamp(&mut frame, target(addr));
    frame
}

fn syn() -> Vec<u8> {
    syn_to(&LINK, THEM)
}

fn synack() -> Vec<u8> {
    synack_for(&syn()).unwrap()
}

fn verdict(frame: &[u8]) -> Result<Reply, DropReason> {
    classifier(14).classify(frame, 1_700_000_000_000_000)
}

/// Rewrites octets of an Ethernet frame's IP header and sets its checksum right again.
fn with_ip(mut frame: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    edit(&mut frame[14..]);
    let header_len = usize::from(frame[14] & 0xf) * 4;
    if (20..=frame.len() - 14).contains(&header_len) {
        ipv4::Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    }
    frame
}

/// Rewrites octets of the TCP header behind Ethernet and IP and sets its checksum right again.
fn with_tcp(mut frame: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    edit(&mut frame[34..]);
    let ip = ipv4::Packet::new_unchecked(&frame[14..]);
    let (source, destination) = (ip.source(), ip.destination());
    tcp::Packet::new_unchecked(&mut frame[34..]).fill_checksum(source, destination);
    frame
}

/// Rewrites octets of the ICMP message behind Ethernet and IP and sets its checksum right again.
fn with_icmp(mut frame: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    edit(&mut frame[34..]);
    frame[36..38].fill(0);
    let sum = checksum::finish(checksum::add(0, &frame[34..]));
    frame[36..38].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_synack_makes_a_responder() {
    let Ok(Reply::SynAck(responder)) = verdict(&synack()) else {
        panic!("no responder")
    };
    let cookie = cookies().of(US, THEM);
    assert_eq!(responder.addr(), THEM);
    assert_eq!(
        (responder.dport(), responder.our_port()),
        (25, cookie.sport)
    );
    assert_eq!(
        (responder.our_seq(), responder.their_seq()),
        (cookie.seq, !cookie.seq)
    );
    assert_eq!(
        (responder.window(), responder.ttl()),
        (65_160, answer::ANSWER_TTL)
    );
    assert_eq!(responder.seen_us(), 1_700_000_000_000_000);
    let options = responder.options();
    assert_eq!(
        (options.mss, options.wscale, options.sack_perm),
        (Some(1460), Some(7), true)
    );
    assert_eq!(
        options.ts_ecr,
        Some(cookies().of(US, Ipv4Addr::UNSPECIFIED).seq)
    );
}

#[test]
fn frames_without_link_header() {
    let reply = synack_for(&syn_to(&[], THEM)).unwrap();
    assert!(matches!(
        classifier(0).classify(&reply, 0),
        Ok(Reply::SynAck(_))
    ));
    let mut ipv6 = reply;
    ipv6[0] = 0x60;
    assert_eq!(classifier(0).classify(&ipv6, 0), Err(DropReason::NotIpv4));
}

#[test]
fn data_and_urgency_on_a_synack_do_not_matter() {
    let mut frame = synack();
    frame.extend(b"220 early\r\n");
    let frame = with_ip(frame, |ip| ip[3] += 11);
    let frame = with_tcp(frame, |tcp| tcp[13] |= 0x08 | 0x40);
    assert!(matches!(verdict(&frame), Ok(Reply::SynAck(_))));
}

#[test]
fn ethernet_padding_does_not_matter() {
    let mut frame = rst_for(&syn()).unwrap();
    frame.resize(60, 0);
    assert!(matches!(verdict(&frame), Ok(Reply::Reset { .. })));
}

#[test]
fn resets_of_every_custom() {
    let rst = rst_for(&syn()).unwrap();
    let reset = Ok(Reply::Reset {
        addr: THEM,
        ttl: answer::ANSWER_TTL,
    });
    assert_eq!(verdict(&rst), reset);
    let seq = cookies().of(US, THEM).seq;
    let acks_seq = with_tcp(rst.clone(), |tcp| {
        tcp[8..12].copy_from_slice(&seq.to_be_bytes())
    });
    assert_eq!(verdict(&acks_seq), reset);
    let no_ack_flag = with_tcp(rst.clone(), |tcp| tcp[13] = 0x04);
    assert_eq!(verdict(&no_ack_flag), reset);
    let acks_nothing = with_tcp(rst, |tcp| tcp[8..12].fill(0));
    assert_eq!(verdict(&acks_nothing), Err(DropReason::BadCookie));
}

#[test]
fn every_unreachable_code_and_quote_length() {
    let all = syn().len() - 34;
    for code in 0..=15 {
        for quote_len in [8, 12, 20, all] {
            let frame = icmp_unreachable_for(&syn(), code, quote_len).unwrap();
            let want = Reply::Unreachable {
                addr: THEM,
                from: THEM,
                icmp_type: 3,
                icmp_code: code,
            };
            assert_eq!(verdict(&frame), Ok(want));
        }
    }
}

#[test]
fn other_icmp_errors_keep_type_code_and_router() {
    for icmp_type in [4, 5, 11, 12] {
        let frame = icmp_error_for(&syn(), ROUTER, icmp_type, 1, 8).unwrap();
        let want = Reply::Unreachable {
            addr: THEM,
            from: ROUTER,
            icmp_type,
            icmp_code: 1,
        };
        assert_eq!(verdict(&frame), Ok(want));
    }
    for icmp_type in [0, 8, 9, 13, 40] {
        let frame = icmp_error_for(&syn(), ROUTER, icmp_type, 0, 8).unwrap();
        assert_eq!(verdict(&frame), Err(DropReason::IcmpNotError));
    }
}

#[test]
fn quotes_that_prove_nothing() {
    let error = |quote_len| icmp_unreachable_for(&syn(), 1, quote_len).unwrap();
    for short in 0..8 {
        assert_eq!(verdict(&error(short)), Err(DropReason::QuoteTooShort));
    }
    // The quotation starts 8 octets into the message, its TCP header 28 octets.
    let edits: [(usize, u8, DropReason); 7] = [
        (8, 0x60, DropReason::QuoteNotOurs),
        (8 + 9, 17, DropReason::QuoteNotOurs),
        (8 + 15, 9, DropReason::QuoteNotOurs),
        (8 + 7, 1, DropReason::QuoteNotOurs),
        (28 + 3, 80, DropReason::QuoteNotOurs),
        (28 + 4, 0, DropReason::QuoteBadCookie),
        (8 + 19, 4, DropReason::QuoteBadCookie),
    ];
    for (at, value, want) in edits {
        let frame = with_icmp(error(8), |icmp| {
            icmp[at] = if icmp[at] == value {
                value ^ 0xff
            } else {
                value
            };
        });
        assert_eq!(verdict(&frame), Err(want), "octet {at}");
    }
}

#[test]
fn a_quote_with_ip_options_and_one_cut_inside_them() {
    let mut syn = syn();
    syn.splice(34..34, [1, 1, 1, 0]);
    let syn = with_ip(syn, |ip| {
        ip[0] = 0x46;
        ip[3] += 4;
    });
    let mut quote = syn[14..14 + 24 + 8].to_vec();
    let error = |quote: &[u8]| {
        let mut frame = icmp_unreachable_for(&self::syn(), 1, 8).unwrap();
        frame.truncate(42);
        frame.extend(quote);
        let frame = with_ip(frame, |ip| ip[3] = u8::try_from(28 + quote.len()).unwrap());
        with_icmp(frame, |_| ())
    };
    assert!(matches!(
        verdict(&error(&quote)),
        Ok(Reply::Unreachable { .. })
    ));
    quote.truncate(22);
    assert_eq!(verdict(&error(&quote)), Err(DropReason::QuoteTooShort));
}

#[test]
fn ip_options_on_the_reply_are_passed_over() {
    let mut frame = synack();
    frame.splice(34..34, [0x94, 4, 0, 0]);
    let frame = with_ip(frame, |ip| {
        ip[0] = 0x46;
        ip[3] += 4;
    });
    assert!(matches!(verdict(&frame), Ok(Reply::SynAck(_))));
}

#[test]
fn each_drop_reason_has_its_frame() {
    let cases: [(DropReason, Vec<u8>); 17] = [
        (DropReason::TooShort, synack()[..20].to_vec()),
        (DropReason::VlanTag, {
            let mut frame = synack();
            frame.splice(12..12, [0x81, 0, 0, 5]);
            frame
        }),
        (DropReason::NotIpv4, {
            let mut frame = synack();
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame
        }),
        (
            DropReason::BadIpHeader,
            with_ip(synack(), |ip| ip[0] = 0x44),
        ),
        (
            DropReason::BadIpHeader,
            with_ip(synack(), |ip| ip[0] = 0x65),
        ),
        (DropReason::IpChecksum, {
            let mut frame = synack();
            frame[24] ^= 1;
            frame
        }),
        (DropReason::NotForUs, with_ip(synack(), |ip| ip[19] = 3)),
        (DropReason::Fragment, with_ip(synack(), |ip| ip[6] = 0x20)),
        (DropReason::CutShort, with_ip(synack(), |ip| ip[3] += 1)),
        (
            DropReason::OtherProtocol,
            with_ip(synack(), |ip| ip[9] = 17),
        ),
        (
            DropReason::BadTcpHeader,
            with_tcp(synack(), |tcp| tcp[12] = 0x40),
        ),
        (DropReason::TcpChecksum, {
            let mut frame = synack();
            frame[50] ^= 1;
            frame
        }),
        (DropReason::WrongPort, with_tcp(synack(), |tcp| tcp[1] = 80)),
        (
            DropReason::UnexpectedFlags,
            with_tcp(synack(), |tcp| tcp[13] = 0x10),
        ),
        (
            DropReason::BadCookie,
            with_tcp(synack(), |tcp| tcp[11] ^= 1),
        ),
        (DropReason::IcmpChecksum, {
            let mut frame = icmp_unreachable_for(&syn(), 1, 8).unwrap();
            frame[36] ^= 1;
            frame
        }),
        (DropReason::QuoteNotOurs, {
            with_icmp(icmp_unreachable_for(&syn(), 1, 8).unwrap(), |icmp| {
                icmp[8] = 0x44
            })
        }),
    ];
    for (want, frame) in cases {
        assert_eq!(verdict(&frame), Err(want), "{}", want.name());
    }
}

#[test]
fn flags_that_are_no_answer() {
    let open = [0x12, 0x1a, 0x52, 0xd2];
    for flags in 0..=255u8 {
        let result = verdict(&with_tcp(synack(), |tcp| tcp[13] = flags));
        match result {
            Ok(Reply::Reset { .. }) => assert_ne!(flags & 0x04, 0),
            Ok(Reply::SynAck(_)) => assert_eq!(flags & 0x17, 0x12),
            Err(DropReason::UnexpectedFlags) => {
                assert!(!open.contains(&flags) && flags & 0x04 == 0);
            }
            other => panic!("flags {flags:#x}: {other:?}"),
        }
    }
}

#[test]
fn our_own_syn_seen_on_loopback_is_no_answer() {
    let home = Ipv4Addr::LOCALHOST;
    let classifier = Classifier::new(home, cookies(), 14);
    let syn = Syn::new(&LINK, home, 255, SynLayout::Linux, cookies());
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    syn.stamp(&mut frame, target(home));
    assert_eq!(classifier.classify(&frame, 0), Err(DropReason::WrongPort));
    let reply = synack_for(&frame).unwrap();
    assert!(matches!(
        classifier.classify(&reply, 0),
        Ok(Reply::SynAck(_))
    ));
}

#[test]
fn a_synack_under_another_key_or_to_another_port_of_the_range_is_forged() {
    let other = Cookies::new(CookieKey::derive(8, &[7; 16]), 40_000..=49_999, 25);
    let stranger = Classifier::new(US, other, 14);
    assert_eq!(stranger.classify(&synack(), 0), Err(DropReason::BadCookie));
    let port = cookies().of(US, THEM).sport;
    let near = if port == 49_999 { port - 1 } else { port + 1 };
    let moved = with_tcp(synack(), |tcp| {
        tcp[2..4].copy_from_slice(&near.to_be_bytes())
    });
    assert_eq!(verdict(&moved), Err(DropReason::BadCookie));
    // A right answer to the SYN of a neighbour proves nothing about this address.
    let spoofed = with_tcp(with_ip(synack(), |ip| ip[15] = 4), |_| ());
    assert_eq!(verdict(&spoofed), Err(DropReason::BadCookie));
}

#[test]
fn checksums_are_trusted_unless_told_otherwise() {
    let mut frame = synack();
    frame[50] ^= 1;
    frame[24] ^= 1;
    let trusting = Classifier::new(US, cookies(), 14);
    assert!(matches!(trusting.classify(&frame, 0), Ok(Reply::SynAck(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass(
        frame in prop::collection::vec(any::<u8>(), 0..200), link_len in prop_oneof![Just(0usize), Just(14)],
    ) {
        let trusting = Classifier::new(US, cookies(), link_len);
        prop_assert!(trusting.classify(&frame, 0).is_err());
        prop_assert!(classifier(link_len).classify(&frame, 0).is_err());
    }

    #[test]
    fn mutated_answers_never_panic_and_never_name_a_stranger(
        kind in 0..3u8,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frame = match kind {
            0 => synack(),
            1 => rst_for(&syn()).unwrap(),
            _ => icmp_unreachable_for(&syn(), 1, 20).unwrap(),
        };
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        let trusting = Classifier::new(US, cookies(), 14);
        if let Ok(reply) = trusting.classify(&frame, 0) {
            prop_assert_eq!(reply.addr(), THEM);
        }
        if let Ok(reply) = classifier(14).classify(&frame, 0) {
            prop_assert_eq!(reply.addr(), THEM);
        }
    }
}
