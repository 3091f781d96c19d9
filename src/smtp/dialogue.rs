//! One polite dialogue with one server, as a state machine without I/O.
//!
//! ```text
//! ExpectGreeting ─220─▶ ExpectReply ◀─┐ the next step of the plan
//!      │                    │  │ └─────┘
//!      │                    │  └─220 to STARTTLS─▶ ExpectTls ─secured─▶ ExpectReply
//!      │                    ▼ plan done, certain, trouble      └─failed─▶ Done
//!      └─another code──▶ ExpectQuit ─221, close, 5 s─▶ Done
//! ```
//!
//! Octets, closes, resets and instants go in; commands ([`Dialogue::poll_output`]), a deadline
//! ([`Dialogue::poll_timeout`]) and finally one [`Outcome`] with the [`Transcript`] come out.
//! After each `handle_*` call the driver asks, in this order: [`Dialogue::poll_judge`], whether what was
//! learnt suffices; `poll_output`, what to send; [`Dialogue::poll_tls`], whether to begin a TLS
//! handshake. It stops once [`Dialogue::is_done`] and nothing is left to send.
//!
//! What is said, and in which order, is the plan's (`plan`): one mechanism serves every step. Steps
//! that are not wanted are passed over, and QUIT follows the last one.
//!
//! Manners (RFC 5321 sections 3.1 and 4.3.1): not an octet leaves before the greeting is whole,
//! its last line included; no command before the reply to the previous one; and whoever has
//! greeted is told QUIT, whatever else happened, unless it reset the connection or failed to come
//! to TLS. A peer that never completes a greeting is left without a word. Whoever shows signs of
//! trouble (421, 521, 554, a reply that took [`PATIENCE`] longer than any before it) is asked
//! nothing more.
//!
//! Replies to commands not yet sent answer nothing: they are counted ([`Dialogue::unsolicited`]),
//! kept in the transcript, and passed over. So is the first 220 after EHLO, because some peers
//! greet twice; any later one is an answer. Where that first one was meant as the answer nothing
//! follows it, and HELO is tried before the peer is given up. Octets in clear text behind the 220 to
//! STARTTLS are recorded and never interpreted ([`Dialogue::injected`]; RFC 3207 section 6).
//!
//! Time and memory are bounded whatever the peer does: [`super::Timeouts`] and [`super::Limits`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::{self, PLAN};
use super::{
    Alert, Command, Depth, DialogueConfig, Outcome, Reply, ReplyParser, Side, Stage, Transcript,
};

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
    /// Octets in clear text behind the 220 to STARTTLS.
    injected: usize,
    /// Commands sent.
    commands: u8,
    unsolicited: u32,
    /// When the last command was sent.
    said_at: Instant,
    /// The longest time that a reply has taken, the greeting not counted.
    slowest: Duration,
    /// Replies of 5xx, the greeting not counted.
    errors: u8,
    flags: Flags,
}

/// What has come to light so far.
#[derive(Debug, Default)]
struct Flags {
    /// The 220 has come again.
    greeted_twice: bool,
    /// EHLO or HELO was accepted.
    introduced: bool,
    /// The reply to EHLO offered STARTTLS.
    offers_starttls: bool,
    /// The connection is within TLS.
    secured: bool,
    /// TLS came about in mid-dialogue, so that EHLO is due again.
    hello_again: bool,
    /// The peer wants to be left alone.
    troubled: bool,
    /// The judge has enough.
    certain: bool,
    /// HELP was an error.
    helpless: bool,
    /// A probe is queued that nobody was asked about.
    ask_judge: bool,
}

/// Named for what is awaited.
#[derive(Debug, Clone, Copy)]
enum State {
    ExpectGreeting,
    /// The reply to a step of the plan, by its place there. The command may not be sent yet.
    ExpectReply(usize),
    /// The end of the handshake that the driver holds.
    ExpectTls(usize),
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
            injected: 0,
            commands: 0,
            unsolicited: 0,
            said_at: now,
            slowest: Duration::ZERO,
            errors: 0,
            flags: Flags::default(),
            config,
        }
    }

    /// A dialogue within TLS from its first octet (port 465), whose handshake ended at `now`.
    pub fn within_tls(config: Arc<DialogueConfig>, now: Instant) -> Self {
        let mut dialogue = Self::new(config, now);
        dialogue.flags.secured = true;
        dialogue
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
        while !self.poll_tls()
            && let Some(event) = self.parser.feed(&mut rest)
        {
            match event {
                Ok(reply) => self.handle_reply(now, &reply),
                Err(fault) => self.handle_fault(now, fault.kind.to_string()),
            }
            if self.is_done() {
                return;
            }
        }
        if self.poll_tls() && !rest.is_empty() {
            self.injected += rest.len();
            self.detail = Some(format!(
                "{} octets in clear text behind the reply to STARTTLS",
                self.injected
            ));
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
            State::ExpectReply(_) => {
                self.output = Some(Command::Quit);
                self.end(Outcome::ClosedInDialogue);
            }
            State::ExpectTls(_) => self.handle_tls_failed(now, "closed by the peer"),
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// The peer reset the connection.
    pub fn handle_reset(&mut self, now: Instant) {
        self.output = None;
        match self.state {
            State::ExpectGreeting => {
                self.note_partial_greeting();
                self.end(Outcome::ResetBeforeGreeting);
            }
            State::ExpectReply(_) => self.end(Outcome::ResetInDialogue),
            State::ExpectTls(_) => self.handle_tls_failed(now, "reset by the peer"),
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
            // What was taken for a second banner may have been the answer.
            State::ExpectReply(at)
                if PLAN[at] == Stage::Ehlo
                    && self.flags.greeted_twice
                    && now < self.session_end() =>
            {
                self.proceed(now, at + 1);
            }
            State::ExpectReply(_) => self.quit(now, Outcome::DialogueTimeout, 1),
            State::ExpectTls(_) => self.handle_tls_failed(now, "no end of the handshake in time"),
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// All peers together have sent more than may be held, and this one has its part in it: as if it
    /// had exceeded a limit of its own.
    pub fn handle_excess(&mut self, now: Instant) {
        self.handle_fault(now, "more octets than there is room for".to_owned());
    }

    /// The sweep is being stopped: ends at once, with a QUIT to send to whoever has greeted. An
    /// outcome that was settled before stands.
    pub fn handle_interrupt(&mut self, _now: Instant) {
        match self.state {
            State::ExpectGreeting | State::ExpectTls(_) => self.end(Outcome::Interrupted),
            State::ExpectReply(_) => {
                self.output = Some(Command::Quit);
                self.end(Outcome::Interrupted);
            }
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::Done(_) => {}
        }
    }

    /// Asked by [`Self::poll_judge`]: what was learnt suffices. The probe that was about to be
    /// said, and all others, are left out.
    pub fn handle_certain(&mut self, now: Instant) {
        if let State::ExpectReply(at) = self.state
            && self.output.is_some()
        {
            self.flags.certain = true;
            self.proceed(now, at);
        }
    }

    /// Asked by [`Self::poll_tls`]: the handshake is done, and from now on octets come and go within
    /// TLS.
    pub fn handle_secured(&mut self, now: Instant) {
        if let State::ExpectTls(at) = self.state {
            // What has come in clear text is not carried over (RFC 3207 section 4.2).
            self.parser = ReplyParser::new(self.config.limits.reply);
            self.flags.secured = true;
            self.flags.hello_again = true;
            self.proceed(now, at + 1);
        }
    }

    /// Asked by [`Self::poll_tls`]: the handshake failed, for that reason. Neither clear text nor TLS
    /// is spoken any more, so not even QUIT can be said.
    pub fn handle_tls_failed(&mut self, _now: Instant, reason: &str) {
        if matches!(self.state, State::ExpectTls(_)) {
            self.detail = Some(match self.detail.take() {
                Some(before) => format!("{before}; {reason}"),
                None => reason.to_owned(),
            });
            self.end(Outcome::TlsFailed);
        }
    }
}

/// Outputs.
impl Dialogue {
    /// The record so far, if it is worth asking whether that suffices: a probe is about to be said.
    /// Each one is asked about once; [`Self::handle_certain`] is the answer that leaves it out.
    pub fn poll_judge(&mut self) -> Option<&Transcript> {
        std::mem::take(&mut self.flags.ask_judge).then_some(&self.transcript)
    }

    /// The octets to send next, if any. They count as sent at `now`.
    pub fn poll_output(&mut self, now: Instant) -> Option<Vec<u8>> {
        let command = self.output.take()?;
        self.flags.ask_judge = false;
        self.stage = match self.state {
            State::ExpectReply(at) => PLAN[at],
            _ => command.stage(),
        };
        self.said_at = now;
        self.commands += 1;
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

    /// Whether the driver is to hold a TLS handshake now, and to tell how it went by
    /// [`Self::handle_secured`] or [`Self::handle_tls_failed`]. What the peer sends meanwhile is TLS's
    /// and not the dialogue's, but closes, resets and timeouts are.
    pub fn poll_tls(&self) -> bool {
        matches!(self.state, State::ExpectTls(_))
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

    /// Commands sent, QUIT included.
    pub fn commands(&self) -> u8 {
        self.commands
    }

    /// Octets of the peer's that are kept.
    pub fn held(&self) -> usize {
        self.received.min(self.config.limits.transcript)
    }

    /// Replies that answered no command of ours.
    pub fn unsolicited(&self) -> u32 {
        self.unsolicited
    }

    /// Octets that came in clear text after the 220 to STARTTLS: somebody put them there, in the
    /// hope that they would be taken for the server's words within TLS.
    pub fn injected(&self) -> usize {
        self.injected
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
        self.flags.greeted_twice |= repeated;
        if self.output.is_some() || repeated {
            return self.handle_unsolicited(now, reply);
        }
        match self.state {
            State::ExpectGreeting => match reply.code {
                220 => self.proceed(now, 0),
                400..500 => self.quit(now, Outcome::Greeting4xx, 0),
                500..600 => self.quit(now, Outcome::Greeting5xx, 0),
                _ => self.quit(now, Outcome::GreetingOdd, 0),
            },
            State::ExpectReply(_) if is_closing(reply) => {
                self.quit(now, Outcome::ServiceClosing, 0);
            }
            State::ExpectReply(at) => self.handle_answer(now, at, reply),
            State::ExpectQuit { outcome, owed } if owed > 0 && !is_closing(reply) => {
                self.state = State::ExpectQuit {
                    outcome,
                    owed: owed - 1,
                };
            }
            State::ExpectQuit { outcome, .. } => self.end(outcome),
            State::ExpectTls(_) | State::Done(_) => {}
        }
    }

    /// The answer to a step of the plan.
    fn handle_answer(&mut self, now: Instant, at: usize, reply: &Reply) {
        let stage = PLAN[at];
        let took = now.saturating_duration_since(self.said_at);
        let is_hello = matches!(stage, Stage::Ehlo | Stage::Helo);
        self.flags.troubled |= !is_hello && took > self.slowest + PATIENCE;
        self.slowest = self.slowest.max(took);
        if reply.code / 100 == 5 {
            self.errors = self.errors.saturating_add(1);
            self.flags.troubled |= matches!(reply.code, 521 | 554);
        }
        match stage {
            Stage::Ehlo | Stage::Helo if reply.code / 100 == 2 => {
                self.flags.introduced = true;
                self.flags.offers_starttls = offers_starttls(reply);
            }
            Stage::Helo => return self.quit(now, Outcome::EhloRejected, 0),
            Stage::Help => self.flags.helpless = reply.code / 100 == 5,
            Stage::Starttls if reply.code == 220 => {
                self.state = State::ExpectTls(at);
                self.deadline = self.step_end(now);
                return;
            }
            _ => {}
        }
        self.proceed(now, at + 1);
    }

    /// Queues the first step from that place of the plan on that is wanted, or else QUIT.
    fn proceed(&mut self, now: Instant, from: usize) {
        let wanted = (from..PLAN.len()).find(|at| self.wants(PLAN[*at]));
        let Some(at) = wanted else {
            let introduced = self.flags.introduced || self.config.depth == Depth::Banner;
            let outcome = if introduced {
                Outcome::Completed
            } else {
                Outcome::EhloRejected
            };
            return self.quit(now, outcome, 0);
        };
        self.output = Some(self.command(PLAN[at]));
        self.flags.ask_judge = plan::is_probe(PLAN[at]);
        self.deadline = self.step_end(now);
        self.state = State::ExpectReply(at);
    }

    /// Whether to take a step, after all that has come to light.
    fn wants(&self, stage: Stage) -> bool {
        let (config, flags) = (&self.config, &self.flags);
        if config.depth == Depth::Banner || flags.troubled {
            return false;
        }
        match stage {
            Stage::Ehlo => true,
            Stage::Helo => !flags.introduced,
            Stage::Noop => config.contact.is_some(),
            Stage::Starttls => config.starttls && flags.offers_starttls && !flags.secured,
            Stage::TlsEhlo => flags.hello_again,
            probe => {
                let spent = plan::provokes_error(probe) && self.errors >= plan::ERROR_BUDGET;
                let known = flags.certain || (probe == Stage::Unknown && flags.helpless);
                config.depth == Depth::Behaviour && !spent && !known
            }
        }
    }

    /// What is said at a step.
    fn command(&self, stage: Stage) -> Command {
        match stage {
            Stage::Ehlo | Stage::TlsEhlo => Command::Ehlo(self.config.ehlo_name.clone()),
            Stage::Helo => Command::Helo(self.config.ehlo_name.clone()),
            Stage::Noop => Command::Noop(self.config.contact.clone()),
            Stage::Help => Command::Help,
            Stage::Unknown => Command::Unknown(self.config.contact.clone()),
            Stage::Nul => Command::Nul,
            Stage::HeloNoarg => Command::HeloNoarg,
            Stage::Overlong => Command::Overlong,
            Stage::Starttls => Command::StartTls,
            Stage::Greeting | Stage::Tls | Stage::Quit => Command::Quit,
        }
    }

    /// A reply that nobody asked for is passed over, unless it is a 421, which the server may send
    /// at any time. A 221 here is no farewell: it comes from a peer that recites all its lines.
    fn handle_unsolicited(&mut self, now: Instant, reply: &Reply) {
        self.unsolicited = self.unsolicited.saturating_add(1);
        if matches!(self.state, State::ExpectReply(_)) && reply.code == 421 {
            self.quit(now, Outcome::ServiceClosing, 0);
        }
    }

    /// What the peer sent is no reply, or too much.
    fn handle_fault(&mut self, now: Instant, what: String) {
        match self.state {
            State::ExpectGreeting => {
                let said = self.transcript.server(Stage::Greeting);
                let alert = said.as_deref().and_then(Alert::of_server);
                self.detail = Some(alert.map_or(what, |alert| {
                    format!("a TLS alert: {} ({})", alert.name(), alert.number)
                }));
                self.end(Outcome::NotSmtp);
            }
            State::ExpectReply(_) => {
                self.detail = Some(what);
                self.quit(now, Outcome::ProtocolError, 1);
            }
            State::ExpectTls(_) => self.handle_tls_failed(now, &what),
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
        self.flags.ask_judge = false;
        self.deadline = now + self.config.timeouts.quit;
        self.state = State::ExpectQuit { outcome, owed };
    }

    fn step_end(&self, now: Instant) -> Instant {
        (now + self.config.timeouts.step).min(self.session_end())
    }

    fn session_end(&self) -> Instant {
        self.started + self.config.timeouts.session
    }

    fn end(&mut self, outcome: Outcome) {
        self.flags.ask_judge = false;
        self.state = State::Done(outcome);
    }

    /// 220 greets and should answer no command but STARTTLS: the first one after the greeting is
    /// taken for a second banner.
    fn is_repeated_greeting(&self, reply: &Reply) -> bool {
        let awaits_ehlo = matches!(self.state, State::ExpectReply(at) if PLAN[at] == Stage::Ehlo);
        reply.code == 220 && !self.flags.greeted_twice && awaits_ehlo
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

/// Whether a reply to EHLO has the keyword (RFC 3207 section 4). Its first line holds no keyword.
fn offers_starttls(reply: &Reply) -> bool {
    reply.lines.iter().skip(1).any(|line| {
        let word = line.split(|b| b.is_ascii_whitespace()).next();
        word.is_some_and(|word| word.eq_ignore_ascii_case(b"STARTTLS"))
    })
}

/// How much longer than the slowest reply before it one may take without being a sign of trouble:
/// Courier answers errors 8, 16, 32 s later, postscreen drains for 10 s.
const PATIENCE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests;
