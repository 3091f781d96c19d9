//! Recorded dialogues (`tests/dialogues/*.txt`), each replayed with its pieces cut in three ways,
//! and arbitrary peers, whom every dialogue must survive with one outcome.
//!
//! A dialogue file is a list of lines: `S: text` a line of the server's (CR LF is added), `S+ text`
//! octets of the server's as they stand, `C: text` the line that we are to say next, `wait ms`,
//! `close`, `reset`, `interrupt`, `zero-window` (from now on the peer advertises none), `certain`
//! (from now on the judge has enough), `tls` and `tls-failed reason` (the handshake that is to be held
//! now ends so), `detail text` (what is known beside the outcome), and at the end `outcome name`.
//! Before all of them may stand `depth name` (`ehlo` if it does not), `contact text` and `starttls`.
//! `\r \n \0 \xNN` are escapes; `#` starts a comment line.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::smtp::{Limits, MAX_COMMANDS};

fn config() -> DialogueConfig {
    let name: crate::smtp::Fqdn = "probe.example.org".parse().expect("a valid name");
    DialogueConfig {
        depth: Depth::Ehlo,
        ..DialogueConfig::new(name)
    }
}

/// A dialogue with a clock and all it has said.
struct Bench {
    dialogue: Dialogue,
    now: Instant,
    said: VecDeque<Vec<u8>>,
    window: Option<u32>,
    /// Whether the judge, once asked, has enough.
    certain: bool,
    /// How often the judge was asked.
    asked: usize,
}

impl Bench {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: DialogueConfig) -> Self {
        let now = Instant::now();
        let dialogue = Dialogue::new(Arc::new(config), now);
        Self {
            dialogue,
            now,
            said: VecDeque::new(),
            window: None,
            certain: false,
            asked: 0,
        }
    }

    fn collect(&mut self) {
        if self.dialogue.poll_judge().is_some() {
            self.asked += 1;
            if self.certain {
                self.dialogue.handle_certain(self.now);
            }
        }
        assert!(self.dialogue.poll_judge().is_none(), "asked once");
        self.said.extend(self.dialogue.poll_output(self.now));
        assert_eq!(
            self.dialogue.poll_output(self.now),
            None,
            "one command at a time"
        );
    }

    fn hear(&mut self, octets: &[u8]) {
        self.dialogue.handle_input(self.now, octets);
        self.collect();
    }

    fn close(&mut self) {
        self.dialogue.handle_close(self.now);
        self.collect();
    }

    fn reset(&mut self) {
        self.dialogue.handle_reset(self.now);
        self.collect();
    }

    fn interrupt(&mut self) {
        self.dialogue.handle_interrupt(self.now);
        self.collect();
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.dialogue.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.dialogue.handle_timeout(due, self.window);
            self.collect();
        }
        self.now = end;
    }

    fn said(&mut self) -> Vec<String> {
        self.said
            .drain(..)
            .map(|s| String::from_utf8(s).expect("we speak ASCII"))
            .collect()
    }

    fn tls(&mut self, end: Result<(), &str>) {
        assert!(self.dialogue.poll_tls(), "no handshake is wanted");
        match end {
            Ok(()) => self.dialogue.handle_secured(self.now),
            Err(reason) => self.dialogue.handle_tls_failed(self.now, reason),
        }
        self.collect();
    }

    fn outcome(self) -> Outcome {
        assert!(self.dialogue.is_done());
        assert_eq!(self.dialogue.poll_timeout(), None);
        self.dialogue.finish().0
    }
}

/// How the server's octets are cut into pieces.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Lines,
    Octets,
    Joined,
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            octets.extend(c.to_string().bytes());
            continue;
        }
        match rest.next().expect("an escape") {
            'r' => octets.push(b'\r'),
            'n' => octets.push(b'\n'),
            '0' => octets.push(0),
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                octets.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
            }
            other => panic!("unknown escape {other:?}"),
        }
    }
    octets
}

/// The lines of a dialogue that say how it is held.
fn config_of(script: &str) -> DialogueConfig {
    let mut config = config();
    for line in script.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("depth", name) => {
                config.depth = [Depth::Banner, Depth::Ehlo, Depth::Behaviour]
                    .into_iter()
                    .find(|depth| depth.name() == name)
                    .expect("a depth");
            }
            ("contact", text) => config.contact = Some(text.parse().expect("a contact")),
            ("starttls", "") => config.starttls = true,
            _ => {}
        }
    }
    config
}

fn replay(script: &str, cut: Cut) {
    let mut bench = Bench::with(config_of(script));
    let mut heard = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    let mut outcome = None;
    for line in script
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (word, text) = line.split_at(line.find(' ').unwrap_or(line.len()));
        let text = text.strip_prefix(' ').unwrap_or(text);
        if let "S:" | "S+" = word {
            let mut octets = unescape(text);
            if word == "S:" {
                octets.extend(b"\r\n");
            }
            heard.extend(&octets);
            match cut {
                Cut::Lines => bench.hear(&octets),
                Cut::Octets => octets.chunks(1).for_each(|octet| bench.hear(octet)),
                Cut::Joined => held.extend(octets),
            }
            continue;
        }
        if !held.is_empty() {
            bench.hear(&std::mem::take(&mut held));
        }
        match word {
            "C:" => {
                let said = bench.said.pop_front();
                assert_eq!(
                    said,
                    Some([unescape(text), b"\r\n".to_vec()].concat()),
                    "{cut:?}: {line}"
                );
            }
            "wait" => bench.wait(Duration::from_millis(text.parse().expect("milliseconds"))),
            "close" => bench.close(),
            "reset" => bench.reset(),
            "interrupt" => bench.interrupt(),
            "zero-window" => bench.window = Some(0),
            "certain" => bench.certain = true,
            "tls" => bench.tls(Ok(())),
            "tls-failed" => bench.tls(Err(text)),
            "detail" => assert_eq!(bench.dialogue.detail(), Some(text), "{cut:?}"),
            "depth" | "contact" | "starttls" => {}
            "outcome" => outcome = Outcome::from_name(text),
            other => panic!("unknown word {other:?}"),
        }
    }
    assert!(
        bench.said.is_empty(),
        "{cut:?}: said without being expected: {:?}",
        bench.said
    );
    assert!(
        bench.dialogue.is_done(),
        "{cut:?}: the dialogue has not ended"
    );
    let (ended, transcript) = bench.dialogue.finish();
    assert_eq!(Some(ended), outcome, "{cut:?}");
    let kept: Vec<u8> = (transcript.pieces.into_iter())
        .filter(|piece| piece.side == Side::Server)
        .flat_map(|piece| piece.bytes)
        .collect();
    assert!(
        heard.starts_with(&kept),
        "the transcript keeps what was heard"
    );
}

#[test]
fn recorded_dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the folder of dialogues") {
        let path = entry.expect("a dialogue").path();
        let script = fs::read_to_string(&path).expect("a readable dialogue");
        for cut in [Cut::Lines, Cut::Octets, Cut::Joined] {
            println!("{} {cut:?}", path.display());
            replay(&script, cut);
        }
        count += 1;
    }
    assert!(count >= 20, "only {count} dialogues found");
}

#[test]
fn not_an_octet_before_the_greeting_is_whole() {
    let mut bench = Bench::new();
    for octet in b"220-wait for it\r\n220 mx.example.test ESMTP\r" {
        bench.hear(&[*octet]);
        bench.wait(Duration::from_millis(100));
        assert!(bench.said().is_empty());
    }
    bench.hear(b"\n");
    assert_eq!(bench.said(), ["EHLO probe.example.org\r\n"]);
}

#[test]
fn replies_ahead_of_their_commands_answer_nothing() {
    let mut bench = Bench::new();
    bench.hear(b"220 a\r\n250 b\r\n221 c\r\n");
    assert_eq!(bench.said(), ["EHLO probe.example.org\r\n"]);
    assert_eq!(bench.dialogue.unsolicited(), 2);
    bench.hear(b"250 d\r\n");
    assert_eq!(bench.said(), ["QUIT\r\n"]);
    bench.close();
    assert_eq!(bench.outcome(), Outcome::Completed);
}

#[test]
fn a_421_is_heeded_at_any_time_and_stops_a_command_not_yet_sent() {
    let mut bench = Bench::new();
    bench.hear(b"220 a\r\n421 too many\r\n");
    assert_eq!(bench.said(), ["QUIT\r\n"]);
    bench.close();
    assert_eq!(bench.outcome(), Outcome::ServiceClosing);
}

#[test]
fn a_late_answer_is_not_taken_for_that_to_quit() {
    let mut bench = Bench::new();
    bench.hear(b"220 a\r\n");
    bench.wait(Duration::from_secs(30));
    assert_eq!(bench.said(), ["EHLO probe.example.org\r\n", "QUIT\r\n"]);
    bench.hear(b"250 late\r\n");
    assert!(!bench.dialogue.is_done());
    bench.hear(b"221 bye\r\n");
    assert_eq!(bench.outcome(), Outcome::DialogueTimeout);
}

#[test]
fn a_session_at_its_end_tries_no_helo() {
    let mut config = config();
    config.timeouts.session = config.timeouts.step;
    let mut bench = Bench::with(config);
    bench.hear(b"220 a\r\n");
    bench.hear(b"220 b\r\n");
    bench.wait(Duration::from_secs(36));
    assert_eq!(bench.said(), ["EHLO probe.example.org\r\n", "QUIT\r\n"]);
    assert_eq!(bench.outcome(), Outcome::DialogueTimeout);
}

#[test]
fn transcripts_tell_time_side_and_stage() {
    let mut bench = Bench::new();
    bench.wait(Duration::from_millis(250));
    bench.hear(b"220 a\r\n");
    bench.wait(Duration::from_millis(10));
    bench.hear(b"502 b\r\n");
    bench.hear(b"250 c\r\n");
    bench.wait(Duration::from_millis(5));
    bench.hear(b"221 d\r\n");
    let (_, transcript) = bench.dialogue.finish();
    let pieces: Vec<_> = transcript
        .pieces
        .iter()
        .map(|p| {
            (
                p.at_ms,
                p.side,
                p.stage,
                String::from_utf8_lossy(&p.bytes).into_owned(),
            )
        })
        .collect();
    let piece = |at, side, stage, text: &str| (at, side, stage, text.to_owned());
    assert_eq!(
        pieces,
        [
            piece(250, Side::Server, Stage::Greeting, "220 a\r\n"),
            piece(250, Side::Client, Stage::Ehlo, "EHLO probe.example.org\r\n"),
            piece(260, Side::Server, Stage::Ehlo, "502 b\r\n"),
            piece(260, Side::Client, Stage::Helo, "HELO probe.example.org\r\n"),
            piece(260, Side::Server, Stage::Helo, "250 c\r\n"),
            piece(260, Side::Client, Stage::Quit, "QUIT\r\n"),
            piece(265, Side::Server, Stage::Quit, "221 d\r\n"),
        ]
    );
}

#[test]
fn a_flood_of_good_replies_ends_with_quit_and_a_counted_cut() {
    let mut bench = Bench::new();
    // At once, so that none of them can be an answer.
    bench.hear(&b"220 again and again\r\n".repeat(20_000));
    assert_eq!(bench.said(), ["QUIT\r\n"]);
    assert!(bench.dialogue.detail().is_some());
    let (outcome, transcript) = bench.dialogue.finish();
    assert_eq!(outcome, Outcome::ProtocolError);
    let kept: usize = Stage::ALL
        .iter()
        .filter_map(|s| transcript.server(*s))
        .map(|b| b.len())
        .sum();
    assert_eq!(kept, Limits::default().transcript);
    assert!(transcript.cut > 0);
}

#[test]
fn faults_are_described() {
    let mut bench = Bench::new();
    bench.hear(b"SSH-2.0-x\r\n");
    assert_eq!(bench.dialogue.detail(), Some("octets that are no reply"));
    let mut bench = Bench::new();
    bench.hear(b"220");
    bench.wait(Duration::from_secs(60));
    assert_eq!(
        bench.dialogue.detail(),
        Some("3 octets of an unfinished greeting")
    );
    assert_eq!(bench.outcome(), Outcome::PartialGreeting);
}

/// What a peer, the driver, or time may do.
#[derive(Debug, Clone)]
enum Act {
    Say(Vec<u8>),
    Wait(u64),
    Close,
    Reset,
    Interrupt,
    Certain,
    Tls(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let say = prop_oneof![
        6 => prop::sample::select(vec![
            "220 a\r\n", "220-a\r\n", "250 b\r\n", "250-b\r\n", "221 c\r\n", "421 d\r\n", "554 e\r\n",
            "450 f\r\n", "500 g\n", "354 h\r\n", "220", "\r\n", "SSH-2.0",
            "250-b\r\n250 STARTTLS\r\n", "220 go\r\n250 injected\r\n",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 1_usize..100_000).prop_map(|(octet, n)| vec![octet; n]),
    ];
    let act = prop_oneof![
        16 => prop::sample::select(vec![
            "220 a\r\n", "250-b\r\n250 STARTTLS\r\n", "250 b\r\n", "214 c\r\n", "500 d\r\n"
        ]).prop_map(|s| Act::Say(s.as_bytes().to_vec())),
        8 => say.prop_map(Act::Say),
        2 => (0_u64..40_000).prop_map(Act::Wait),
        1 => Just(Act::Close),
        1 => Just(Act::Reset),
        1 => Just(Act::Interrupt),
        1 => Just(Act::Certain),
        3 => any::<bool>().prop_map(Act::Tls),
    ];
    prop::collection::vec(act, 0..24)
}

fn configs() -> impl Strategy<Value = DialogueConfig> {
    let depth = prop::sample::select(vec![
        Depth::Behaviour,
        Depth::Behaviour,
        Depth::Ehlo,
        Depth::Banner,
    ]);
    (depth, any::<bool>(), any::<bool>()).prop_map(|(depth, starttls, named)| DialogueConfig {
        depth,
        starttls,
        contact: named.then(|| "abuse@example.org".parse().expect("a contact")),
        ..config()
    })
}

/// Whole replies among the octets of a server, counted naively.
fn replies_in(octets: &[u8]) -> usize {
    octets
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| line.ends_with(b"\n") && line.get(3) != Some(&b'-'))
        .count()
}

proptest! {
    #[test]
    fn any_peer_ends_in_one_outcome_in_bounded_time(config in configs(), acts in acts()) {
        let mut bench = Bench::with(config);
        let started = bench.now;
        let mut settled = None;
        let (mut reset, mut tls_failed) = (false, false);
        for act in &acts {
            let done = bench.dialogue.is_done();
            let before = bench.said.len();
            match act {
                Act::Say(octets) => {
                    bench.hear(octets);
                    prop_assert!(bench.said.len() <= before + 1, "never pipelines");
                }
                Act::Wait(ms) => bench.wait(Duration::from_millis(*ms)),
                Act::Close => bench.close(),
                Act::Reset => { reset |= !done; bench.reset(); }
                Act::Interrupt => bench.interrupt(),
                Act::Certain => bench.certain = true,
                Act::Tls(well) if bench.dialogue.poll_tls() => bench.tls(well.then_some(()).ok_or("no")),
                Act::Tls(_) => {}
            }
            tls_failed |= bench.dialogue.poll_tls();
            if bench.dialogue.is_done() {
                let state = format!("{:?}", bench.dialogue.state);
                prop_assert_eq!(settled.get_or_insert_with(|| state.clone()), &state, "an outcome is final");
            }
        }
        // Whatever has not ended by now ends by its deadlines alone.
        let mut steps = 0;
        while let Some(due) = bench.dialogue.poll_timeout() {
            prop_assert!(due <= started + Duration::from_secs(185), "session and QUIT timeout");
            bench.now = bench.now.max(due);
            bench.dialogue.handle_timeout(bench.now, None);
            bench.collect();
            steps += 1;
            prop_assert!(steps <= 3, "EHLO, HELO, QUIT");
        }
        prop_assert_eq!(bench.dialogue.poll_output(bench.now), None);
        let commands = usize::from(bench.dialogue.commands());
        let said = bench.said();
        prop_assert_eq!(said.len(), commands);
        let (outcome, transcript) = bench.dialogue.finish();
        let quits = said.iter().filter(|s| *s == "QUIT\r\n").count();
        prop_assert!(commands <= MAX_COMMANDS && quits <= 1);
        if outcome.is_smtp() && !reset && !tls_failed {
            prop_assert_eq!(said.last().map(String::as_str), Some("QUIT\r\n"));
        }
        for line in &said {
            let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
            prop_assert!(
                ["EHLO", "HELO", "NOOP", "HELP", "XYZZY", "STARTTLS", "QUIT"].contains(&verb.as_str()),
                "{}", line
            );
            prop_assert_eq!(line.bytes().filter(|b| *b == b'\n').count(), 1);
        }
        // Each command but QUIT follows as many replies as there were commands before it, and the
        // greeting.
        let (mut heard, mut spoken) = (Vec::new(), 0);
        for piece in &transcript.pieces {
            match piece.side {
                Side::Server => heard.extend(&piece.bytes),
                Side::Client => {
                    if piece.stage != Stage::Quit && piece.stage != Stage::Helo {
                        prop_assert!(replies_in(&heard) > spoken, "{:?}", transcript);
                    }
                    spoken += 1;
                }
            }
        }
        let first = transcript.pieces.first().map(|p| p.side);
        prop_assert!(first != Some(Side::Client), "the server speaks first");
        let kept: usize = transcript.pieces.iter().map(|p| p.bytes.len()).sum();
        prop_assert!(kept <= 65_536 + 10 * 700);
    }
}
