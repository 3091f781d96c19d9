//! The parser on well-formed, odd and hostile input; above all: cutting must not matter.

use proptest::prelude::*;

use super::*;

type Event = Result<Reply, ReplyFault>;

const SMALL: ReplyLimits = ReplyLimits {
    line: 12,
    reply: 40,
    lines: 4,
};

/// All events of `pieces` fed one after another, then of the peer's close.
fn events<'a>(limits: ReplyLimits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut parser = ReplyParser::new(limits);
    let mut events = Vec::new();
    for mut piece in pieces {
        while let Some(event) = parser.feed(&mut piece) {
            events.push(event);
        }
        assert!(piece.is_empty(), "what is fed is used up");
    }
    events.extend(parser.finish().map(Ok));
    events
}

fn whole(input: &[u8]) -> Vec<Event> {
    events(ReplyLimits::default(), [input])
}

fn only(input: &[u8]) -> Reply {
    let mut events = whole(input);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0).expect("a reply")
}

fn fault(limits: ReplyLimits, input: &[u8]) -> ReplyFault {
    events(limits, [input])
        .pop()
        .expect("an event")
        .expect_err("a fault")
}

#[test]
fn one_line() {
    let reply = only(b"220 mx.example.test ESMTP\r\n");
    assert_eq!(reply.code, 220);
    assert_eq!(reply.lines, [b"mx.example.test ESMTP"]);
    assert_eq!(reply.enhanced, None);
    assert!(reply.quirks.is_empty());
}

#[test]
fn many_lines_make_one_reply() {
    let reply = only(b"250-mx.example.test\r\n250-SIZE 10240000\r\n250 HELP\r\n");
    assert_eq!(reply.code, 250);
    assert_eq!(
        reply.lines,
        [&b"mx.example.test"[..], b"SIZE 10240000", b"HELP"]
    );
}

#[test]
fn replies_follow_one_another() {
    let codes: Vec<u16> = whole(b"220 a\r\n250-b\r\n250 c\r\n221 d\r\n")
        .into_iter()
        .map(|event| event.expect("a reply").code)
        .collect();
    assert_eq!(codes, [220, 250, 221]);
}

#[test]
fn oddities_are_tolerated_and_recorded() {
    let cases: [(&[u8], &[u8], Quirks); 8] = [
        (b"220 a\n", b"a", Quirks::BARE_LF),
        (b"220 a\rb\r\n", b"a\rb", Quirks::BARE_CR),
        (b"220 a\r\r\n", b"a\r", Quirks::BARE_CR),
        (b"220\r\n", b"", Quirks::CODE_ONLY),
        (b"220\ta\r\n", b"\ta", Quirks::ODD_SEPARATOR),
        (b"220 \xe9\r\n", b"\xe9", Quirks::EIGHT_BIT),
        (b"220 a\0b\r\n", b"a\0b", Quirks::NUL),
        (b"220 a", b"a", Quirks::UNTERMINATED),
    ];
    for (input, text, quirk) in cases {
        let reply = only(input);
        assert_eq!(reply.code, 220);
        assert_eq!(reply.lines, [text]);
        assert_eq!(reply.quirks, quirk, "{input:?}");
        assert_eq!(reply.quirks.names().count(), 1);
    }
}

#[test]
fn the_last_code_counts_and_the_mixture_is_recorded() {
    let reply = only(b"220-mx.example.test\r\n550 5.7.1 blocked\r\n");
    assert_eq!(reply.code, 550);
    assert_eq!(reply.quirks, Quirks::MIXED_CODES);
    assert!(only(b"220-a\r\n220 b\r\n").quirks.is_empty());
}

#[test]
fn quirks_of_one_reply_do_not_stain_the_next() {
    let second = whole(b"220 a\n250 b\r\n")
        .pop()
        .expect("two replies")
        .expect("a reply");
    assert!(second.quirks.is_empty());
}

#[test]
fn enhanced_codes_must_agree_with_the_reply_code() {
    assert_eq!(only(b"550 5.7.1 no\r\n").enhanced, Some((5, 7, 1)));
    assert_eq!(only(b"421 4.3.200\r\n").enhanced, Some((4, 3, 200)));
    for none in [
        &b"550 4.7.1 no\r\n"[..],
        b"550 5.7 no\r\n",
        b"550 5.7.1.2 no\r\n",
        b"550 5.7.1000 no\r\n",
        b"550 5.7.x no\r\n",
        b"354 3.0.0 go\r\n",
        b"550 5..1 no\r\n",
        b"550\r\n",
    ] {
        assert_eq!(only(none).enhanced, None, "{none:?}");
    }
}

#[test]
fn what_is_no_reply_is_told_at_the_first_octet_that_shows_it() {
    for (input, bytes) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], &b"S"[..]),
        (b"\x16\x03\x01\x00", b"\x16"),
        (b"HTTP/1.1 400\r\n", b"H"),
        (b"2x0 a\r\n", b"2x"),
        (b"22\r\n", b"22\r"),
        (b"620 a\r\n", b"6"),
        (b"020 a\r\n", b"0"),
        (b"2024-11-01 x\r\n", b"2024"),
        (b"\r\n220 a\r\n", b"\r"),
    ] {
        let expected = ReplyFault {
            kind: FaultKind::NotAReply,
            bytes: bytes.to_vec(),
        };
        assert_eq!(whole(input), [Err(expected)]);
    }
    let broken = fault(ReplyLimits::default(), b"220-a\r\nwelcome\r\n220 b\r\n");
    assert_eq!(
        broken,
        ReplyFault {
            kind: FaultKind::BrokenContinuation,
            bytes: b"w".to_vec()
        }
    );
}

#[test]
fn limits_hold_to_the_octet() {
    assert!(
        events(SMALL, [&b"220 45678901\r\n"[..]])[0].is_err(),
        "CR counts"
    );
    assert!(events(SMALL, [&b"220 4567890\r\n"[..]])[0].is_ok());
    let long = fault(SMALL, b"220 456789012 and more");
    assert_eq!(
        long,
        ReplyFault {
            kind: FaultKind::LineTooLong,
            bytes: b"220 456789012".to_vec()
        }
    );
    let large = fault(
        ReplyLimits { lines: 99, ..SMALL },
        b"220-567890\r\n".repeat(9).as_slice(),
    );
    assert_eq!(large.kind, FaultKind::ReplyTooLong);
    let lines = fault(SMALL, b"220-\r\n".repeat(9).as_slice());
    assert_eq!(lines.kind, FaultKind::TooManyLines);
    assert!(
        events(SMALL, [&b"220-\r\n220-\r\n220-\r\n220 \r\n"[..]])[0].is_ok(),
        "four lines fit"
    );
}

#[test]
fn a_fault_ends_the_parser() {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    assert!(
        parser
            .feed(&mut &b"x"[..])
            .is_some_and(|event| event.is_err())
    );
    assert_eq!(parser.feed(&mut &b"220 a\r\n"[..]), None);
    assert_eq!(parser.finish(), None);
}

#[test]
fn a_close_completes_only_a_last_line() {
    for nothing in [&b""[..], b"2", b"22", b"220-a", b"220-", b"220-a\r\n"] {
        assert_eq!(whole(nothing), [], "{nothing:?}");
    }
    assert_eq!(only(b"220").quirks, {
        let mut both = Quirks::UNTERMINATED;
        both.add(Quirks::CODE_ONLY);
        both
    });
}

#[test]
fn amid_a_reply_from_its_first_octet_to_its_last() {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    for (piece, amid) in [
        (&b""[..], false),
        (b"2", true),
        (b"20-a\r\n", true),
        (b"220 b\r\n", false),
    ] {
        parser.feed(&mut &*piece);
        assert_eq!(parser.is_amid_reply(), amid, "{piece:?}");
    }
}

/// Input that is often nearly a reply: fragments of replies, and now and then anything.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        8 => prop::sample::select(vec![
            &b"220"[..], b"250", b"554", b" ", b"-", b"\r\n", b"\n", b"\r", b"x", b"\0", b"5.7.1 ",
            b"\xff", b"2", b"mx.example.test", b"220 a\r\n", b"250-b\r\n",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn cutting_does_not_matter(
        input in hostile(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        small in any::<bool>(),
    ) {
        let limits = if small { SMALL } else { ReplyLimits::default() };
        let whole = events(limits, [input.as_slice()]);
        let octets = events(limits, input.chunks(1));
        prop_assert_eq!(&whole, &octets);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        at.extend([0, input.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &input[pair[0]..pair[1]]);
        prop_assert_eq!(whole, events(limits, pieces));
    }

    #[test]
    fn what_is_held_is_bounded(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut parser = ReplyParser::new(SMALL);
        let mut rest = input.as_slice();
        while parser.feed(&mut rest).is_some() {
            prop_assert!(parser.lines.len() <= SMALL.lines);
        }
        let held = parser.line.len() + parser.lines.iter().map(Vec::len).sum::<usize>();
        prop_assert!(held <= SMALL.reply + 4);
    }

    #[test]
    fn every_well_formed_reply_is_read_back(
        code in 200_u16..600,
        lines in prop::collection::vec("[ -~]{0,60}", 1..6),
    ) {
        let last = lines.len() - 1;
        let wire: String = lines.iter().enumerate()
            .map(|(i, text)| format!("{code}{}{text}\r\n", if i == last { ' ' } else { '-' }))
            .collect();
        let reply = only(wire.as_bytes());
        prop_assert_eq!(reply.code, code);
        prop_assert!(reply.quirks.is_empty());
        let texts: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        prop_assert_eq!(reply.lines, texts);
    }
}
