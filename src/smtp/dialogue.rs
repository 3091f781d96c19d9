//! One polite dialogue with one server, as a state machine without I/O.
//!
//! ```text
//! ExpectGreeting ─220─▶ ExpectEhlo ─2xx─▶ ExpectQuit ─221, close, 5 s─▶ Done
//!      │                    │ refused        ▲
//!      │                    ▼                │
//!      │                ExpectHelo ──any─────┤
//!      └──4xx, 5xx, other code───────────────┘
//! ```
//!
//! Octets, closes, resets and instants go in; commands ([`Dialogue::poll_output`]), a deadline
//! ([`Dialogue::poll_timeout`]) and finally one [`Outcome`] with the [`Transcript`] come out.
//! After each `handle_*` call the driver sends what `poll_output` yields, and stops once
//! [`Dialogue::is_done`] and nothing is left to send.
//!
//! Manners (RFC 5321 sections 3.1 and 4.3.1): not an octet leaves before the greeting is whole,
//! its last line included; no command before the reply to the previous one; and whoever has
//! greeted is told QUIT, whatever else happened, unless it reset the connection. A peer that
//! never completes a greeting is left without a word.
//!
//! Replies to commands not yet sent answer nothing: they are counted ([`Dialogue::unsolicited`]),
//! kept in the transcript, and passed over. So is the first 220 after EHLO, because some peers
//! greet twice; any later one is an answer. Where that first one was meant as the answer nothing
//! follows it, and HELO is tried before the peer is given up.
//!
//! Time and memory are bounded whatever the peer does: [`Timeouts`] and [`Limits`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Command, EhloName, Outcome, Reply, ReplyLimits, ReplyParser, Side, Stage, Transcript};

/// How long each part of a session may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the SYN to the established connection (used by the driver, not by the dialogue).
    pub connect: Duration,
    /// From the connection to the end of the greeting. Long, because greet delays are a common
    /// defence against those who do not wait.
    pub greeting: Duration,
    /// From a command to the end of its reply.
    pub step: Duration,
    /// From QUIT to its reply. Short, because nothing hangs on it.
    pub quit: Duration,
    /// From the connection to QUIT.
    pub session: Duration,
}

impl Timeouts {
    /// What they are unless told otherwise; the command line takes its defaults from here.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(10),
        greeting: Duration::from_secs(60),
        step: Duration::from_secs(30),
        quit: Duration::from_secs(5),
        session: Duration::from_secs(180),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How much a peer may send, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bounds on single replies.
    pub reply: ReplyLimits,
    /// Octets of the peer that a transcript keeps; more is counted as cut.
    pub transcript: usize,
    /// Octets after which a session is ended, however well formed they are.
    pub received: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reply: ReplyLimits::default(),
            transcript: 65_536,
            received: 262_144,
        }
    }
}

/// What all dialogues of a sweep share.
#[derive(Debug, Clone)]
pub struct DialogueConfig {
    /// The name under which we introduce ourselves.
    pub ehlo_name: EhloName,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Bounds on size.
    pub limits: Limits,
}

impl DialogueConfig {
    /// The default bounds, under that name.
    pub fn new(ehlo_name: impl Into<EhloName>) -> Self {
        Self {
            ehlo_name: ehlo_name.into(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

/// The state machine; see the head of this file.
#[derive(Debug)]
pub struct Dialogue {
    config: Arc<DialogueConfig>,
    state: State,
    parser: ReplyParser,
    /// The command that waits to be sent.
    output: Option<Command>,
    /// The step that the peer's octets belong to.
    stage: Stage,
    transcript: Transcript,
    detail: Option<String>,
    started: Instant,
    deadline: Instant,
    /// Octets received in all.
    received: usize,
    unsolicited: u32,
    /// Whether the 220 has come again.
    greeted_twice: bool,
}

/// Named for what is awaited.
#[derive(Debug, Clone, Copy)]
enum State {
    ExpectGreeting,
    ExpectEhlo,
    ExpectHelo,
    /// QUIT is said or about to be, and the outcome is settled. `owed`: replies to earlier
    /// commands that may still come before that to QUIT.
    ExpectQuit {
        outcome: Outcome,
        owed: u8,
    },
    Done(Outcome),
}

/// Outside events.
impl Dialogue {
    /// A dialogue over a connection established at `now`.
    pub fn new(config: Arc<DialogueConfig>, now: Instant) -> Self {
        let deadline = now + config.timeouts.greeting.min(config.timeouts.session);
        Self {
            state: State::ExpectGreeting,
            parser: ReplyParser::new(config.limits.reply),
            output: None,
            stage: Stage::Greeting,
            transcript: Transcript::default(),
            detail: None,
            started: now,
            deadline,
            received: 0,
            unsolicited: 0,
            greeted_twice: false,
            config,
        }
    }

    /// The peer sent `octets`.
    pub fn handle_input(&mut self, now: Instant, octets: &[u8]) {
        if self.is_done() {
            return;
        }
        let room = self.config.limits.transcript.saturating_sub(self.received);
        self.transcript
            .record(self.at_ms(now), Side::Server, self.stage, octets, room);
        self.received = self.received.saturating_add(octets.len());
        let mut rest = octets;
        while let Some(event) = self.parser.feed(&mut rest) {
            match event {
                Ok(reply) => self.handle_reply(now, &reply),
                Err(fault) => self.handle_fault(now, fault.kind.to_string()),
            }
            if self.is_done() {
                return;
            }
        }
        if self.received > self.config.limits.received {
            self.handle_fault(
                now,
                format!("more than {} octets", self.config.limits.received),
            );
        }
    }

    /// The peer closed its side of the connection. It may still read, so who has greeted is told
    /// QUIT, but an answer can no longer come.
    pub fn handle_close(&mut self, now: Instant) {
        if let Some(reply) = self.parser.finish() {
            self.handle_reply(now, &reply);
        }
        match self.state {
            State::ExpectGreeting => {
                self.note_partial_greeting();
                self.end(Outcome::ClosedBeforeGreeting);
            }
            State::ExpectEhlo | State::ExpectHelo => {
                self.output = Some(Command::Quit);
                self.end(Outcome::ClosedInDialogue);
            }
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// The peer reset the connection.
    pub fn handle_reset(&mut self, _now: Instant) {
        self.output = None;
        match self.state {
            State::ExpectGreeting => {
                self.note_partial_greeting();
                self.end(Outcome::ResetBeforeGreeting);
            }
            State::ExpectEhlo | State::ExpectHelo => self.end(Outcome::ResetInDialogue),
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// Time has passed; does nothing before [`Self::poll_timeout`]. `window` is the receive window
    /// that the peer advertises, in octets, if it is known.
    pub fn handle_timeout(&mut self, now: Instant, window: Option<u32>) {
        if self.is_done() || now < self.deadline {
            return;
        }
        if window == Some(0) {
            self.detail
                .get_or_insert_with(|| "the peer's receive window is zero".to_owned());
        }
        match self.state {
            State::ExpectGreeting if window == Some(0) => self.end(Outcome::ZeroWindow),
            State::ExpectGreeting if self.received == 0 => self.end(Outcome::NoGreeting),
            State::ExpectGreeting => {
                self.note_partial_greeting();
                self.end(Outcome::PartialGreeting);
            }
            State::ExpectEhlo if self.greeted_twice && now < self.session_end() => {
                self.say_helo(now);
            }
            State::ExpectEhlo | State::ExpectHelo => self.quit(now, Outcome::DialogueTimeout, 1),
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// The sweep is being stopped: ends at once, with a QUIT to send to whoever has greeted. An
    /// outcome that was settled before stands.
    pub fn handle_interrupt(&mut self, _now: Instant) {
        match self.state {
            State::ExpectGreeting => self.end(Outcome::Interrupted),
            State::ExpectEhlo | State::ExpectHelo => {
                self.output = Some(Command::Quit);
                self.end(Outcome::Interrupted);
            }
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }
}

/// Outputs.
impl Dialogue {
    /// The octets to send next, if any. They count as sent at `now`.
    pub fn poll_output(&mut self, now: Instant) -> Option<Vec<u8>> {
        let command = self.output.take()?;
        self.stage = command.stage();
        let octets = command.bytes();
        self.transcript.record(
            self.at_ms(now),
            Side::Client,
            self.stage,
            &octets,
            usize::MAX,
        );
        Some(octets)
    }

    /// When [`Self::handle_timeout`] is due; `None` once done.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_done()).then_some(self.deadline)
    }

    /// Whether the outcome is final. A last QUIT may still be there to send.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    /// What the outcome's name does not say: what was wrong with the peer's octets, for example.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Replies that answered no command of ours.
    pub fn unsolicited(&self) -> u32 {
        self.unsolicited
    }

    /// The step that the peer's next octets will be recorded under.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The outcome and the record. A dialogue that is not done was interrupted.
    pub fn finish(self) -> (Outcome, Transcript) {
        let outcome = match self.state {
            State::Done(outcome) | State::ExpectQuit { outcome, .. } => outcome,
            _ => Outcome::Interrupted,
        };
        (outcome, self.transcript)
    }
}

/// Transitions.
impl Dialogue {
    fn handle_reply(&mut self, now: Instant, reply: &Reply) {
        let repeated = self.is_repeated_greeting(reply);
        self.greeted_twice |= repeated;
        if self.output.is_some() || repeated {
            return self.handle_unsolicited(now, reply);
        }
        match self.state {
            State::ExpectGreeting => match reply.code {
                220 => {
                    let name = self.config.ehlo_name.clone();
                    self.state = self.say(now, Command::Ehlo(name), State::ExpectEhlo);
                }
                400..500 => self.quit(now, Outcome::Greeting4xx, 0),
                500..600 => self.quit(now, Outcome::Greeting5xx, 0),
                _ => self.quit(now, Outcome::GreetingOdd, 0),
            },
            State::ExpectEhlo | State::ExpectHelo if is_closing(reply) => {
                self.quit(now, Outcome::ServiceClosing, 0);
            }
            State::ExpectEhlo | State::ExpectHelo if reply.code / 100 == 2 => {
                self.quit(now, Outcome::Completed, 0);
            }
            State::ExpectEhlo => self.say_helo(now),
            State::ExpectHelo => self.quit(now, Outcome::EhloRejected, 0),
            State::ExpectQuit { outcome, owed } if owed > 0 && !is_closing(reply) => {
                self.state = State::ExpectQuit {
                    outcome,
                    owed: owed - 1,
                };
            }
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// A reply that nobody asked for is passed over, unless it is a 421, which the server may send
    /// at any time. A 221 here is no farewell: it comes from a peer that recites all its lines.
    fn handle_unsolicited(&mut self, now: Instant, reply: &Reply) {
        self.unsolicited = self.unsolicited.saturating_add(1);
        if matches!(self.state, State::ExpectEhlo | State::ExpectHelo) && reply.code == 421 {
            self.quit(now, Outcome::ServiceClosing, 0);
        }
    }

    /// What the peer sent is no reply, or too much.
    fn handle_fault(&mut self, now: Instant, what: String) {
        match self.state {
            State::ExpectGreeting => {
                self.detail = Some(what);
                self.end(Outcome::NotSmtp);
            }
            State::ExpectEhlo | State::ExpectHelo => {
                self.detail = Some(what);
                self.quit(now, Outcome::ProtocolError, 1);
            }
            State::ExpectQuit { outcome, .. } => {
                // An unreadable answer to QUIT is an answer; but QUIT has to be said first.
                if self.output.is_none() {
                    self.end(outcome);
                }
            }
            State::Done(_) => {}
        }
    }

    /// Queues QUIT and settles the outcome. What is not yet sent is never sent.
    fn quit(&mut self, now: Instant, outcome: Outcome, owed: u8) {
        self.output = Some(Command::Quit);
        self.deadline = now + self.config.timeouts.quit;
        self.state = State::ExpectQuit { outcome, owed };
    }

    /// Queues a command; `next` awaits its reply.
    fn say(&mut self, now: Instant, command: Command, next: State) -> State {
        self.output = Some(command);
        self.deadline = (now + self.config.timeouts.step).min(self.session_end());
        next
    }

    fn say_helo(&mut self, now: Instant) {
        let name = self.config.ehlo_name.clone();
        self.state = self.say(now, Command::Helo(name), State::ExpectHelo);
    }

    fn session_end(&self) -> Instant {
        self.started + self.config.timeouts.session
    }

    fn end(&mut self, outcome: Outcome) {
        self.state = State::Done(outcome);
    }

    /// 220 greets and should answer no command: the first one after the greeting is taken for a
    /// second banner.
    fn is_repeated_greeting(&self, reply: &Reply) -> bool {
        reply.code == 220 && !self.greeted_twice && matches!(self.state, State::ExpectEhlo)
    }

    fn note_partial_greeting(&mut self) {
        if self.received > 0 {
            self.detail = Some(format!(
                "{} octets of an unfinished greeting",
                self.received
            ));
        }
    }

    fn at_ms(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        u32::try_from(elapsed).unwrap_or(u32::MAX)
    }
}

/// 421, and 221 where it answers no QUIT: the server closes the channel (RFC 5321 section 3.8).
fn is_closing(reply: &Reply) -> bool {
    matches!(reply.code, 421 | 221)
}

#[cfg(test)]
mod tests;
