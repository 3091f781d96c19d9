//! The reply parser: what it yields depends neither on how the input was cut nor on luck, and what
//! it holds is bounded.
//!
//! Input: an octet that chooses the limits, an octet with the number of cuts, the cuts, and then
//! what the peer sends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtpsweep::smtp::{Reply, ReplyFault, ReplyLimits, ReplyParser};

type Event = Result<Reply, ReplyFault>;

const LIMITS: [ReplyLimits; 3] = [
    ReplyLimits {
        line: 12,
        reply: 40,
        lines: 4,
    },
    ReplyLimits {
        line: 600,
        reply: 700,
        lines: 256,
    },
    ReplyLimits {
        line: 4_096,
        reply: 65_536,
        lines: 256,
    },
];

/// All events of `pieces` and of the close after them, and whether a reply was under way then.
fn events<'a>(
    limits: ReplyLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, bool) {
    let mut parser = ReplyParser::new(limits);
    let mut events: Vec<Event> = Vec::new();
    for mut piece in pieces {
        while let Some(event) = parser.feed(&mut piece) {
            assert!(
                !events.last().is_some_and(Result::is_err),
                "nothing follows a fault"
            );
            events.push(event);
        }
        assert!(piece.is_empty(), "what is fed is used up");
    }
    let amid = parser.is_amid_reply();
    events.extend(parser.finish().map(Ok));
    (events, amid)
}

fn check(limits: ReplyLimits, event: &Event) {
    match event {
        Ok(reply) => {
            assert!((100..600).contains(&reply.code));
            assert!((1..=limits.lines).contains(&reply.lines.len()));
            let octets: usize = reply.lines.iter().map(Vec::len).sum();
            assert!(octets <= limits.reply);
            assert!(
                reply
                    .lines
                    .iter()
                    .all(|line| line.len() <= limits.line && !line.contains(&b'\n'))
            );
            if let Some((class, ..)) = reply.enhanced {
                assert_eq!(u16::from(class), reply.code / 100);
            }
        }
        Err(fault) => assert!(fault.bytes.len() <= limits.line + 1),
    }
}

fuzz_target!(|data: &[u8]| {
    let [choice, count, rest @ ..] = data else {
        return;
    };
    let limits = LIMITS[usize::from(*choice) % LIMITS.len()];
    let (cuts, input) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let whole = events(limits, [input]);
    for event in &whole.0 {
        check(limits, event);
    }
    assert_eq!(whole, events(limits, input.chunks(1)), "octet by octet");
    let mut left = input;
    let pieces = cuts.iter().map(|cut| {
        let (piece, rest) = left.split_at(left.len().min(usize::from(*cut)));
        left = rest;
        piece
    });
    let mut pieces: Vec<&[u8]> = pieces.collect();
    pieces.push(left);
    assert_eq!(whole, events(limits, pieces), "in pieces");
});
