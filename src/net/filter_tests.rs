//! The filter, run over frames by a small interpreter of classic BPF.

use super::*;
use crate::probe::answer::{icmp_error_for, rst_for, synack_for};
use crate::probe::{Classifier, CookieKey, Cookies, DropReason, Syn, SynLayout};
use crate::targets::{RangeSet, Space};
use proptest::prelude::*;

const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const LINK: [u8; 14] = [2, 0, 0x5e, 0x10, 0, 1, 2, 0, 0x5e, 0x10, 0, 2, 8, 0];

/// Runs a program as the kernel does; a load beyond the frame rejects it.
fn run(program: &[Instruction], frame: &[u8]) -> u32 {
    let load = |at: u32, len: usize| -> Option<u32> {
        let at = usize::try_from(at).ok()?;
        let octets = frame.get(at..at.checked_add(len)?)?;
        Some(
            octets
                .iter()
                .fold(0, |value, octet| value << 8 | u32::from(*octet)),
        )
    };
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    loop {
        let Instruction {
            code,
            if_true,
            if_false,
            operand: k,
        } = program[at];
        at += 1;
        let loaded = match code {
            LOAD_WORD => load(k, 4),
            LOAD_HALF => load(k, 2),
            LOAD_OCTET => load(k, 1),
            LOAD_HALF_INDEXED => load(x + k, 2),
            LOAD_OCTET_INDEXED => load(x + k, 1),
            LOAD_X_HEADER_LEN => load(k, 1).map(|octet| {
                x = (octet & 0xf) * 4;
                a
            }),
            AND => Some(a & k),
            RETURN => return k,
            EQUAL | ABOVE | AT_LEAST | ANY_BIT => {
                let holds = match code {
                    EQUAL => a == k,
                    ABOVE => a > k,
                    AT_LEAST => a >= k,
                    _ => a & k != 0,
                };
                at += usize::from(if holds { if_true } else { if_false });
                Some(a)
            }
            other => panic!("instruction {other:#x}"),
        };
        match loaded {
            Some(value) => a = value,
            None => return REJECT,
        }
    }
}

fn cookies() -> Cookies {
    Cookies::new(CookieKey::derive(7, &[7; 16]), 40_000..=49_999, 25)
}

fn syn(link: &[u8]) -> Vec<u8> {
    let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
    let space = Space::new(
        &RangeSet::from_ranges([(0x0a01_0203, 0x0a01_0203)]),
        &nothing,
    );
    let syn = Syn::new(link, US, 255, SynLayout::Linux, cookies());
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    syn.stamp(&mut frame, space.target(0).unwrap());
    frame
}

fn program(link_len: u32) -> Vec<Instruction> {
    Interest {
        link_len,
        saddr: US,
        sports: 40_000..=49_999,
        dport: 25,
    }
    .program()
}

fn passes(frame: &[u8]) -> bool {
    run(&program(14), frame) == ACCEPT
}

#[test]
fn answers_pass_on_either_kind_of_link() {
    for link in [&LINK[..], &[]] {
        let program = program(u32::try_from(link.len()).unwrap());
        let syn = syn(link);
        let router = Ipv4Addr::new(10, 255, 0, 1);
        assert_eq!(run(&program, &synack_for(&syn).unwrap()), ACCEPT);
        assert_eq!(run(&program, &rst_for(&syn).unwrap()), ACCEPT);
        for kind in 0..=255 {
            let error = icmp_error_for(&syn, router, kind, 1, 8).unwrap();
            let want = if [3, 4, 5, 11, 12].contains(&kind) {
                ACCEPT
            } else {
                REJECT
            };
            assert_eq!(run(&program, &error), want, "ICMP type {kind}");
        }
    }
}

#[test]
fn our_own_syn_does_not_pass() {
    assert!(!passes(&syn(&LINK)));
}

#[test]
fn each_condition_counts() {
    let answer = synack_for(&syn(&LINK)).unwrap();
    assert!(passes(&answer));
    let edits: [(&str, usize, u8); 9] = [
        ("EtherType", 13, 0x06),
        ("destination", 33, 3),
        ("more fragments", 20, 0x20),
        ("fragment offset", 21, 1),
        ("protocol", 23, 17),
        ("source port", 35, 80),
        ("port below the range", 36, 0x10),
        ("port above the range", 36, 0xf0),
        ("flags", 47, 0x10),
    ];
    for (what, at, value) in edits {
        let mut frame = answer.clone();
        frame[at] = value;
        assert!(!passes(&frame), "{what}");
    }
}

#[test]
fn the_ends_of_the_port_range_are_in_it() {
    for (port, want) in [
        (39_999u16, false),
        (40_000, true),
        (49_999, true),
        (50_000, false),
    ] {
        let mut frame = synack_for(&syn(&LINK)).unwrap();
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        assert_eq!(passes(&frame), want, "{port}");
    }
}

#[test]
fn every_set_of_flags() {
    for flags in 0..=255u8 {
        let mut frame = synack_for(&syn(&LINK)).unwrap();
        frame[47] = flags;
        assert_eq!(
            passes(&frame),
            flags & 0x04 != 0 || flags & 0x12 == 0x12,
            "{flags:#x}"
        );
    }
}

#[test]
fn ip_options_are_skipped() {
    let mut frame = synack_for(&syn(&LINK)).unwrap();
    frame.splice(34..34, [1; 8]);
    frame[14] = 0x47;
    assert!(passes(&frame));
}

#[test]
fn a_frame_without_link_header_must_be_version_4() {
    let mut frame = synack_for(&syn(&[])).unwrap();
    frame[0] = 0x65;
    assert_eq!(run(&program(0), &frame), REJECT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The filter may pass what the classifier drops, never the reverse.
    #[test]
    fn it_stops_nothing_that_the_classifier_wants(
        kind in 0..3u8,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let syn = syn(&LINK);
        let mut frame = match kind {
            0 => synack_for(&syn),
            1 => rst_for(&syn),
            _ => icmp_error_for(&syn, US, 3, 1, 8),
        }.unwrap();
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        let classifier = Classifier::new(US, cookies(), 14);
        for frame in [&frame[..], &frame[..cut.index(frame.len())]] {
            match classifier.classify(frame, 0) {
                Ok(_) => prop_assert!(passes(frame)),
                Err(DropReason::BadCookie) => prop_assert!(passes(frame)),
                Err(_) => {}
            }
        }
    }
}
