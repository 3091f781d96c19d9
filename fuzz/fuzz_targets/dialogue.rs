//! The dialogue with any peer at all: it ends in time, says little, and never out of turn.
//!
//! Input: what is wanted of the dialogue, and a list of acts of the peer's, of time's, of the TLS
//! library's and of whoever stops the sweep. After them the peer is silent, so that whatever is still
//! open has to end by its own deadlines.

#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use smtpsweep::smtp::{
    Depth, Dialogue, DialogueConfig, Fqdn, Limits, Outcome, ReplyLimits, ReplyParser, Side, Stage,
    Timeouts,
};

/// What is wanted.
#[derive(Debug, Arbitrary)]
struct Wish {
    small: bool,
    starttls: bool,
    contact: bool,
    within_tls: bool,
    depth: u8,
    /// The probe from which on the judge is certain.
    certain_at: u8,
}

#[derive(Debug, Arbitrary)]
enum Act<'a> {
    /// A well-formed reply of so many lines.
    Reply {
        code: u8,
        lines: u8,
        text: &'a [u8],
    },
    /// A usual reply, cut short after so many octets.
    Part {
        code: u8,
        octets: u8,
    },
    Raw(&'a [u8]),
    /// An answer to EHLO that offers STARTTLS.
    Offer,
    /// The end of a TLS handshake, if one is under way.
    Tls {
        secured: bool,
    },
    /// No room for what the peer sends.
    Excess,
    /// The same octet over and over.
    Flood {
        octet: u8,
    },
    /// The same good reply so many times; 255: for ever.
    Recite {
        code: u8,
        times: u8,
    },
    Wait {
        ms: u16,
    },
    /// To the deadline and no further.
    Sleep {
        zero_window: bool,
    },
    Close,
    Reset,
    Interrupt,
}

const CODES: [&str; 16] = [
    "220", "250", "221", "421", "554", "500", "501", "502", "503", "450", "214", "354", "252",
    "334", "199", "550",
];

/// What may be said. None of these can begin a transaction.
const VERBS: [&str; 7] = ["EHLO", "HELO", "NOOP", "HELP", "XYZZY", "STARTTLS", "QUIT"];

/// What the driver reads at once, at most.
const READ: usize = 16_384;

/// Commands that a session may consist of.
const MOST_COMMANDS: usize = 10;

/// Small ones, which floods reach soon.
const SMALL: Limits = Limits {
    reply: ReplyLimits {
        line: 200,
        reply: 1_000,
        lines: 20,
    },
    transcript: 2_000,
    received: 8_000,
};

/// The dialogue, the clock, and what a bystander sees of the conversation.
struct Bench {
    dialogue: Dialogue,
    may_starttls: bool,
    /// Probes that the judge lets pass until it is certain.
    until_certain: u8,
    secured: bool,
    started: Instant,
    now: Instant,
    timeouts: Timeouts,
    limits: Limits,
    /// Reads along, so that what counts as a reply is not for the dialogue to say.
    bystander: ReplyParser,
    /// Whether the next command has a reason: something happened since the last one.
    reason: bool,
    greeted: bool,
    said: Vec<Vec<u8>>,
    received: usize,
    over: Option<Outcome>,
}

impl Bench {
    fn new(wish: &Wish) -> Self {
        let name: Fqdn = "probe.example.org".parse().expect("a valid name");
        let mut config = DialogueConfig::new(name);
        if wish.small {
            config.limits = SMALL;
        }
        config.starttls = wish.starttls;
        config.depth = [Depth::Behaviour, Depth::Ehlo, Depth::Banner][usize::from(wish.depth % 3)];
        if wish.contact {
            config.contact = Some("abuse@example.org".parse().expect("a valid contact"));
        }
        let (limits, now, timeouts) = (config.limits, Instant::now(), config.timeouts);
        let begin = if wish.within_tls {
            Dialogue::within_tls
        } else {
            Dialogue::new
        };
        Self {
            dialogue: begin(Arc::new(config), now),
            may_starttls: wish.starttls && !wish.within_tls,
            until_certain: wish.certain_at % 8,
            secured: wish.within_tls,
            started: now,
            now,
            timeouts,
            limits,
            bystander: ReplyParser::new(limits.reply),
            reason: false,
            greeted: false,
            said: Vec::new(),
            received: 0,
            over: None,
        }
    }

    fn act(&mut self, act: &Act<'_>) {
        match act {
            Act::Reply { code, lines, text } => {
                let code = CODES[usize::from(*code) % CODES.len()];
                let text: Vec<u8> = text
                    .iter()
                    .copied()
                    .filter(|b| !matches!(b, b'\r' | b'\n'))
                    .collect();
                let mut octets = Vec::new();
                for line in 0..=lines % 8 {
                    octets.extend_from_slice(code.as_bytes());
                    octets.push(if line == lines % 8 { b' ' } else { b'-' });
                    octets.extend_from_slice(&text);
                    octets.extend_from_slice(b"\r\n");
                }
                self.hear(&octets);
            }
            Act::Part { code, octets } => {
                let reply = format!(
                    "{}-mx.example.test\r\n",
                    CODES[usize::from(*code) % CODES.len()]
                );
                self.hear(&reply.as_bytes()[..usize::from(*octets) % reply.len()]);
            }
            Act::Raw(octets) => self.hear(octets),
            Act::Offer => self.hear(b"250-mx.example.test\r\n250 STARTTLS\r\n"),
            Act::Tls { secured } => self.end_handshake(*secured),
            Act::Excess => {
                self.reason = true;
                self.dialogue.handle_excess(self.now);
                self.collect();
            }
            Act::Flood { octet } => {
                // In reads of the size that the driver makes.
                for _ in 0..=self.limits.received / READ {
                    self.hear(&[*octet; READ]);
                }
            }
            Act::Recite { code, times } => {
                let reply = format!("{} x\r\n", CODES[usize::from(*code) % CODES.len()]);
                let endless = self.limits.received / reply.len() + 1;
                let times = if *times == 255 {
                    endless
                } else {
                    usize::from(*times)
                };
                self.hear(reply.repeat(times).as_bytes());
            }
            Act::Wait { ms } => self.wait(Duration::from_millis((*ms).into()), None),
            Act::Sleep { zero_window } => {
                if let Some(due) = self.dialogue.poll_timeout() {
                    self.wait(
                        due.saturating_duration_since(self.now),
                        Some(u32::from(!zero_window)),
                    );
                }
            }
            Act::Close => {
                self.reason = true;
                // A last line that lacks only its end is a reply as well.
                self.greeted |= self.bystander.finish().is_some();
                self.dialogue.handle_close(self.now);
                self.collect();
            }
            Act::Reset => {
                self.dialogue.handle_reset(self.now);
                assert!(
                    self.dialogue.poll_output(self.now).is_none(),
                    "spoke after a reset"
                );
                self.collect();
            }
            Act::Interrupt => {
                self.reason = true;
                self.dialogue.handle_interrupt(self.now);
                self.collect();
            }
        }
    }

    /// The peer sends. The bystander hears it all, also where the dialogue has ended.
    fn hear(&mut self, octets: &[u8]) {
        if self.dialogue.poll_tls() {
            // These are for the TLS library.
            return;
        }
        let mut rest = octets;
        while let Some(event) = self.bystander.feed(&mut rest) {
            self.reason = true;
            self.greeted |= event.is_ok();
        }
        self.received += octets.len();
        // Too much is a reason as well.
        self.reason |= self.received > self.limits.received;
        self.dialogue.handle_input(self.now, octets);
        self.collect();
    }

    fn end_handshake(&mut self, secured: bool) {
        let wanted = self.dialogue.poll_tls();
        if secured {
            self.dialogue.handle_secured(self.now);
        } else {
            self.dialogue.handle_tls_failed(self.now, "an alert");
        }
        if wanted {
            self.secured |= secured;
            self.reason = secured;
            self.bystander = ReplyParser::new(self.limits.reply);
        }
        self.collect();
        assert!(!self.dialogue.poll_tls(), "a handshake has one end");
    }

    fn wait(&mut self, time: Duration, window: Option<u32>) {
        self.now += time;
        let due = self
            .dialogue
            .poll_timeout()
            .is_some_and(|due| due <= self.now);
        self.reason |= due;
        self.dialogue.handle_timeout(self.now, window);
        self.collect();
    }

    /// Takes what is to be sent, as the driver does after each event, and looks at it closely.
    fn collect(&mut self) {
        let mut asked = 0;
        while let Some(record) = self.dialogue.poll_judge() {
            let last = record.pieces.last();
            assert!(last.is_some_and(|piece| piece.side == Side::Server || self.reason));
            asked += 1;
            assert!(asked <= 1, "asked twice about one probe");
            if self.until_certain == 0 {
                self.dialogue.handle_certain(self.now);
            }
            self.until_certain = self.until_certain.saturating_sub(1);
        }
        let mut at_once = 0;
        while let Some(octets) = self.dialogue.poll_output(self.now) {
            at_once += 1;
            assert!(self.over.is_none(), "spoke after the end");
            assert!(self.greeted, "spoke before the greeting was whole");
            assert!(self.reason, "spoke before the reply to the last command");
            assert!(
                self.said.last().is_none_or(|last| last != b"QUIT\r\n"),
                "spoke after QUIT"
            );
            let text = String::from_utf8_lossy(&octets);
            let line = text.strip_suffix("\r\n").expect("a whole line");
            assert!(!line.contains(['\r', '\n']), "one line at a time: {line:?}");
            let verb = line.split(' ').next().unwrap_or_default();
            assert!(VERBS.contains(&verb), "{line:?}");
            assert!(
                verb != "STARTTLS" || (self.may_starttls && !self.secured),
                "unasked"
            );
            let hello = verb == "EHLO" && self.may_starttls && self.secured;
            assert!(hello || !self.said.contains(&octets), "{line:?} again");
            assert!(
                !self.dialogue.poll_tls(),
                "spoke in clear text amid a handshake"
            );
            self.said.push(octets);
            assert_eq!(usize::from(self.dialogue.commands()), self.said.len());
            assert!(self.said.len() <= MOST_COMMANDS);
        }
        assert!(at_once <= 1, "pipelined");
        if at_once > 0 {
            self.reason = false;
        }
        if let Some(due) = self.dialogue.poll_timeout() {
            assert!(!self.dialogue.is_done());
            let most = self.timeouts.session + self.timeouts.quit;
            assert!(
                due <= self.started + most || due <= self.now,
                "no end in sight"
            );
        } else {
            assert!(self.dialogue.is_done());
            self.over.get_or_insert(Outcome::Interrupted);
        }
    }

    fn end(mut self) {
        let mut steps = 0;
        while let Some(due) = self.dialogue.poll_timeout() {
            self.wait(due.saturating_duration_since(self.now), None);
            steps += 1;
            assert!(steps <= MOST_COMMANDS, "each deadline ends something");
        }
        let (greeted, limits) = (self.greeted, self.limits);
        let detail = self.dialogue.detail().map_or(0, str::len);
        assert!(detail <= 200, "a detail of {detail} octets");
        let (outcome, transcript) = self.dialogue.finish();
        if outcome.is_smtp() {
            assert!(greeted, "{outcome} without a greeting");
        }
        let of = |side: Side| {
            let pieces = transcript
                .pieces
                .iter()
                .filter(move |piece| piece.side == side);
            pieces.map(|piece| piece.bytes.len()).sum::<usize>()
        };
        assert!(of(Side::Server) <= limits.transcript);
        assert_eq!(
            of(Side::Client),
            self.said.iter().map(Vec::len).sum::<usize>()
        );
        let most_pieces = 512 + 2 * MOST_COMMANDS;
        assert!(
            transcript.pieces.len() <= most_pieces,
            "{} pieces",
            transcript.pieces.len()
        );
        assert!(transcript.pieces.is_sorted_by_key(|piece| piece.at_ms));
        let first = transcript.pieces.first();
        assert!(
            first.is_none_or(|piece| piece.side == Side::Server && piece.stage == Stage::Greeting)
        );
    }
}

fuzz_target!(|input: (Wish, Vec<Act<'_>>)| {
    let (wish, acts) = input;
    let mut bench = Bench::new(&wish);
    for act in acts.iter().take(64) {
        bench.act(act);
    }
    bench.end();
});
