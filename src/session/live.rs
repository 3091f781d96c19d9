//! One open session: a socket, and the dialogue over it once it is connected.
//!
//! The law of edge-triggered readiness: an event is told once, so whoever gets it reads until
//! the socket is empty or asks for another turn ([`Step::Again`]). A read that does not fill the
//! buffer has emptied the socket (epoll(7)), unless the peer's close, or urgent data, is among what
//! was reported.
//!
//! **Who closes**: the server, if it will. Whoever closes first has to remember the connection and
//! its ports for a minute (TIME-WAIT), and RFC 5321 section 4.1.1.10 has the server close after its
//! reply to QUIT, so once that reply is there its close is awaited for [`CLOSING`]. Our own close is
//! always a FIN: a RST would free both sides at once, but take from the peer what it has not
//! read yet, QUIT for instance, and looks like an attack in its log.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::tls::{TlsClient, TlsConfig, TlsState};
use super::{Judge, Seen, SessionRecord, Watch, dial};
use crate::probe::Responder;
use crate::smtp::{
    Dialogue, DialogueConfig, Outcome, Side, Stage, TlsFailure, TlsStart, Transcript,
};

/// A session from its SYN to its end.
#[derive(Debug)]
pub(super) struct Live {
    stream: TcpStream,
    responder: Responder,
    started: Instant,
    started_us: u64,
    /// Whether the handshake was adopted so late that the peer may have forgotten it.
    pub(super) adopted_late: bool,
    phase: Phase,
    /// When the dialogue was over, if the peer's close is all that is awaited.
    parted: Option<Instant>,
    /// TLS over the connection, once it was begun.
    tls: Option<Box<TlsClient>>,
    /// Of our commands, what the socket has not yet taken.
    unsent: Vec<u8>,
    /// A write found the connection reset: what looks like a close now was a reset.
    reset: bool,
    /// What the system said, where that explains the outcome.
    error: Option<io::Error>,
}

#[derive(Debug)]
enum Phase {
    Connecting {
        deadline: Instant,
    },
    /// The handshake of implicit TLS goes on; the dialogue has not begun.
    Securing {
        deadline: Instant,
        connect_ms: u32,
    },
    Talking {
        dialogue: Box<Dialogue>,
        connect_ms: u32,
    },
    Failed {
        outcome: Outcome,
        connect_ms: Option<u32>,
    },
}

/// What a session wants after it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// To be called when something happens.
    Wait,
    /// Another turn soon: there is more to read than one turn may.
    Again,
    /// Nothing more: it has ended.
    End,
}

/// What epoll told of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    /// Whether there may be something to read, a close or an error included.
    pub(super) readable: bool,
    /// Whether a connection has been settled, or there is room to write again.
    pub(super) writable: bool,
    /// Whether the peer has closed its side, or sent urgent data: reads stop short of either, so a
    /// short one does not tell that the socket is empty.
    pub(super) closed: bool,
}

impl Ready {
    /// For a turn that a session asked for by [`Step::Again`].
    pub(super) const AGAIN: Self = Self {
        readable: true,
        writable: false,
        closed: true,
    };
}

/// What all sessions share.
pub(super) struct Shared {
    pub(super) dialogue: Arc<DialogueConfig>,
    pub(super) buffer: Box<[u8]>,
    /// The peer's receive window on a connected socket.
    pub(super) window: fn(BorrowedFd<'_>) -> Option<u32>,
    pub(super) watch: Option<Watch>,
    pub(super) judge: Option<Judge>,
    /// With what TLS is spoken, if it is wanted at all.
    pub(super) tls: Option<TlsConfig>,
    pub(super) implicit_tls: bool,
}

impl Shared {
    fn tell(&mut self, responder: &Responder, seen: Seen<'_>) {
        if let Some(watch) = &mut self.watch {
            watch(responder, seen);
        }
    }
}

impl Live {
    /// A session whose connection has just begun.
    pub(super) fn new(
        stream: TcpStream,
        responder: Responder,
        started_us: u64,
        deadline: Instant,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            responder,
            started: now,
            started_us,
            adopted_late: false,
            phase: Phase::Connecting { deadline },
            parted: None,
            tls: None,
            unsent: Vec::new(),
            reset: false,
            error: None,
        }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some(parted) = self.parted {
            return Some(parted + CLOSING);
        }
        match &self.phase {
            Phase::Connecting { deadline } | Phase::Securing { deadline, .. } => Some(*deadline),
            Phase::Talking { dialogue, .. } => dialogue.poll_timeout(),
            Phase::Failed { .. } => None,
        }
    }

    /// The socket is ready.
    pub(super) fn handle_ready(&mut self, now: Instant, ready: Ready, shared: &mut Shared) -> Step {
        if matches!(self.phase, Phase::Connecting { .. }) {
            return self.settle_connection(now, ready, shared);
        }
        if self.parted.is_some() {
            return self.discard(ready, shared);
        }
        if ready.writable && !self.unsent.is_empty() {
            self.send(now, shared);
        }
        if ready.readable {
            self.receive(now, ready.closed, shared)
        } else {
            self.step()
        }
    }

    /// The deadline has come.
    pub(super) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) -> Step {
        if let Some(parted) = self.parted {
            return if now < parted + CLOSING {
                Step::Wait
            } else {
                Step::End
            };
        }
        match &mut self.phase {
            Phase::Connecting { deadline } | Phase::Securing { deadline, .. }
                if now < *deadline =>
            {
                Step::Wait
            }
            Phase::Connecting { .. } => self.fail(Outcome::ConnectTimeout),
            Phase::Securing { .. } => {
                self.give_up_tls(TlsFailure::Timeout, shared);
                self.fail(Outcome::TlsFailed)
            }
            Phase::Talking { dialogue, .. } => {
                if dialogue.poll_timeout().is_some_and(|due| due <= now) {
                    if dialogue.poll_tls()
                        && let Some(tls) = &mut self.tls
                    {
                        tls.give_up(TlsFailure::Timeout);
                        shared.tell(&self.responder, Seen::Tls(tls.record()));
                    }
                    dialogue.handle_timeout(now, (shared.window)(self.stream.as_fd()));
                    self.send(now, shared);
                }
                self.step()
            }
            Phase::Failed { .. } => Step::End,
        }
    }

    /// The sweep is being stopped: says QUIT if that is possible at once.
    pub(super) fn interrupt(&mut self, now: Instant, shared: &mut Shared) {
        match &mut self.phase {
            Phase::Connecting { .. } | Phase::Securing { .. } => {
                self.fail(Outcome::Interrupted);
            }
            Phase::Talking { dialogue, .. } => {
                dialogue.handle_interrupt(now);
                self.send(now, shared);
            }
            Phase::Failed { .. } => {}
        }
    }

    /// Octets of the peer's that are kept.
    pub(super) fn held(&self) -> usize {
        match &self.phase {
            Phase::Talking { dialogue, .. } => dialogue.held(),
            _ => 0,
        }
    }

    /// The peer has sent more than its share, and there is no room for it.
    pub(super) fn shed(&mut self, now: Instant, shared: &mut Shared) -> Step {
        if let Phase::Talking { dialogue, .. } = &mut self.phase {
            dialogue.handle_excess(now);
            self.send(now, shared);
        }
        self.step()
    }

    /// The record; the socket is closed.
    pub(super) fn finish(self, now: Instant) -> SessionRecord {
        let tls = self.tls.map(|tls| Box::new(tls.finish()));
        let broken = tls.as_ref().filter(|tls| tls.failure.is_some());
        let error = self.error.map(|error| error.to_string());
        let error = error.or_else(|| broken.map(|tls| format!("TLS: {tls}")));
        let (outcome, detail, transcript, connect_ms) = match self.phase {
            Phase::Connecting { .. } => (Outcome::Interrupted, error, Transcript::default(), None),
            Phase::Securing { connect_ms, .. } => {
                let connect_ms = Some(connect_ms);
                (
                    Outcome::Interrupted,
                    error,
                    Transcript::default(),
                    connect_ms,
                )
            }
            Phase::Failed {
                outcome,
                connect_ms,
            } => (outcome, error, Transcript::default(), connect_ms),
            Phase::Talking {
                dialogue,
                connect_ms,
            } => {
                let detail = dialogue.detail().map(str::to_owned).or(error);
                let (outcome, transcript) = dialogue.finish();
                (outcome, detail, transcript, Some(connect_ms))
            }
        };
        SessionRecord {
            responder: self.responder,
            outcome,
            detail,
            transcript,
            tls,
            started_us: self.started_us,
            connect_ms,
            duration_ms: millis(self.started, self.parted.unwrap_or(now)),
        }
    }

    /// A socket that was connecting is ready: to read from it tells how it went, and unlike
    /// `SO_ERROR` does not take a reset for the whole story when a greeting came before it.
    fn settle_connection(&mut self, now: Instant, ready: Ready, shared: &mut Shared) -> Step {
        let read = loop {
            match self.stream.read(&mut shared.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ready.writable {
                    self.connected(now, shared);
                }
                Step::Wait
            }
            Err(error) => {
                let outcome = dial::refusal(&error);
                if outcome == Outcome::ResetBeforeGreeting {
                    self.connected(now, shared);
                    return self.lost(now, error, shared);
                }
                self.error = Some(error);
                self.fail(outcome)
            }
            Ok(count) => {
                self.connected(now, shared);
                match self.heard(now, count, ready.closed, shared) {
                    Some(step) => step,
                    None => self.receive(now, ready.closed, shared),
                }
            }
        }
    }

    fn connected(&mut self, now: Instant, shared: &mut Shared) {
        shared.tell(&self.responder, Seen::Connected);
        let connect_ms = millis(self.started, now);
        if shared.implicit_tls {
            self.phase = Phase::Securing {
                deadline: now + shared.dialogue.timeouts.step,
                connect_ms,
            };
            self.begin_tls(now, TlsStart::Implicit, shared);
            self.send(now, shared);
            return;
        }
        let dialogue = Box::new(Dialogue::new(Arc::clone(&shared.dialogue), now));
        self.phase = Phase::Talking {
            dialogue,
            connect_ms,
        };
    }

    /// Reads, and answers, until the socket is empty or the turn is over.
    fn receive(&mut self, now: Instant, closed: bool, shared: &mut Shared) -> Step {
        for _ in 0..READS_PER_TURN {
            match self.stream.read(&mut shared.buffer) {
                Ok(count) => {
                    if let Some(step) = self.heard(now, count, closed, shared) {
                        return step;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.step(),
                Err(error) => return self.lost(now, error, shared),
            }
        }
        Step::Again
    }

    /// A read put `count` octets into the buffer; `None`: there may be more to read.
    fn heard(
        &mut self,
        now: Instant,
        count: usize,
        closed: bool,
        shared: &mut Shared,
    ) -> Option<Step> {
        if count == 0 {
            self.give_up_tls(TlsFailure::Closed, shared);
            let Phase::Talking { dialogue, .. } = &mut self.phase else {
                return Some(self.fail(Outcome::TlsFailed));
            };
            if self.reset {
                shared.tell(&self.responder, Seen::Lost);
                dialogue.handle_reset(now);
            } else {
                shared.tell(&self.responder, Seen::Closed);
                dialogue.handle_close(now);
                self.send(now, shared);
            }
            return Some(Step::End);
        }
        if self.tls.is_some() {
            self.heard_in_tls(now, count, shared);
        } else if let Phase::Talking { dialogue, .. } = &mut self.phase {
            let octets = &shared.buffer[..count];
            if let Some(watch) = &mut shared.watch {
                watch(&self.responder, Seen::Octets(Side::Server, octets));
            }
            dialogue.handle_input(now, octets);
            if dialogue.poll_tls() {
                self.begin_tls(now, TlsStart::Starttls, shared);
            }
        }
        let answered_quit = matches!(
            &self.phase,
            Phase::Talking { dialogue, .. } if dialogue.is_done() && dialogue.stage() == Stage::Quit
        );
        let emptied = count < shared.buffer.len();
        let sent = self.send(now, shared);
        match self.step() {
            Step::End if answered_quit && !closed => {
                self.parted = Some(now);
                Some(if emptied { Step::Wait } else { Step::Again })
            }
            Step::Wait if closed || !emptied || !sent => None,
            step => Some(step),
        }
    }

    /// The dialogue is over: reads to the peer's close and keeps nothing, for octets left unread
    /// would turn our own close into a RST.
    fn discard(&mut self, ready: Ready, shared: &mut Shared) -> Step {
        if !ready.readable {
            return Step::Wait;
        }
        for _ in 0..READS_PER_TURN {
            match self.stream.read(&mut shared.buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
                Ok(0) | Err(_) => return Step::End,
            }
        }
        Step::Again
    }

    /// The connection is gone.
    fn lost(&mut self, now: Instant, error: io::Error, shared: &mut Shared) -> Step {
        shared.tell(&self.responder, Seen::Lost);
        self.give_up_tls(TlsFailure::Reset, shared);
        if let Phase::Securing { .. } = self.phase {
            self.fail(Outcome::TlsFailed);
        }
        if let Phase::Talking { dialogue, .. } = &mut self.phase {
            match error.kind() {
                io::ErrorKind::BrokenPipe => dialogue.handle_close(now),
                io::ErrorKind::ConnectionReset => dialogue.handle_reset(now),
                _ => {
                    dialogue.handle_reset(now);
                    self.error = Some(error);
                }
            }
        }
        Step::End
    }

    /// Sends what the dialogue has to say, as far as the socket takes it; `false` if the
    /// connection turned out to be broken, of which reading tells the rest.
    fn send(&mut self, now: Instant, shared: &mut Shared) -> bool {
        if let Phase::Talking { dialogue, .. } = &mut self.phase {
            let judge = shared.judge.as_mut();
            if judge.is_some_and(|judge| dialogue.poll_judge().is_some_and(judge)) {
                dialogue.handle_certain(now);
            }
            while let Some(octets) = dialogue.poll_output(now) {
                shared.tell(&self.responder, Seen::Octets(Side::Client, &octets));
                match &mut self.tls {
                    Some(tls) => tls.write(&octets),
                    None => self.unsent.extend(octets),
                }
            }
            if dialogue.is_done()
                && let Some(tls) = &mut self.tls
            {
                tls.close();
            }
        }
        if let Some(tls) = &mut self.tls {
            self.unsent.extend(tls.output());
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    self.reset |= error.kind() == io::ErrorKind::ConnectionReset;
                    self.unsent.clear();
                    return false;
                }
            }
        }
        true
    }

    fn fail(&mut self, outcome: Outcome) -> Step {
        let connect_ms = match self.phase {
            Phase::Securing { connect_ms, .. } => Some(connect_ms),
            _ => None,
        };
        self.phase = Phase::Failed {
            outcome,
            connect_ms,
        };
        Step::End
    }

    fn step(&self) -> Step {
        match &self.phase {
            Phase::Talking { dialogue, .. } if !dialogue.is_done() => Step::Wait,
            Phase::Connecting { .. } | Phase::Securing { .. } => Step::Wait,
            _ => Step::End,
        }
    }
}

/// TLS.
impl Live {
    fn begin_tls(&mut self, now: Instant, start: TlsStart, shared: &Shared) {
        let begun = match &shared.tls {
            Some(config) => TlsClient::new(config, start, now).map_err(|e| e.to_string()),
            None => Err("not set up".to_owned()),
        };
        match begun {
            Ok(client) => self.tls = Some(Box::new(client)),
            Err(error) => {
                self.error = Some(io::Error::other(format!("TLS: {error}")));
                match &mut self.phase {
                    Phase::Talking { dialogue, .. } => dialogue.handle_tls_failed(now, &error),
                    _ => drop(self.fail(Outcome::LocalError)),
                }
            }
        }
    }

    /// A read put `count` octets into the buffer, and TLS takes them.
    fn heard_in_tls(&mut self, now: Instant, count: usize, shared: &mut Shared) {
        let Some(tls) = &mut self.tls else {
            return;
        };
        let before = tls.state();
        tls.handle_input(now, &shared.buffer[..count]);
        if before == TlsState::Handshaking && tls.state() != before {
            shared.tell(&self.responder, Seen::Tls(tls.record()));
            let secured = tls.state() != TlsState::Failed;
            match &mut self.phase {
                Phase::Talking { dialogue, .. } if secured => dialogue.handle_secured(now),
                Phase::Talking { dialogue, .. } => {
                    dialogue.handle_tls_failed(now, &format!("TLS: {}", tls.record()));
                }
                Phase::Securing { connect_ms, .. } if secured => {
                    let config = Arc::clone(&shared.dialogue);
                    self.phase = Phase::Talking {
                        dialogue: Box::new(Dialogue::within_tls(config, now)),
                        connect_ms: *connect_ms,
                    };
                }
                _ => drop(self.fail(Outcome::TlsFailed)),
            }
        }
        let (Some(tls), Phase::Talking { dialogue, .. }) = (&mut self.tls, &mut self.phase) else {
            return;
        };
        // The encrypted octets are TLS's by now, so the buffer is free for the text.
        while let count @ 1.. = tls.read(&mut shared.buffer) {
            let octets = &shared.buffer[..count];
            if let Some(watch) = &mut shared.watch {
                watch(&self.responder, Seen::Octets(Side::Server, octets));
            }
            dialogue.handle_input(now, octets);
        }
        match tls.state() {
            TlsState::Closed => dialogue.handle_close(now),
            // Not even QUIT can be said any more.
            TlsState::Failed => dialogue.handle_reset(now),
            TlsState::Handshaking | TlsState::Open => {}
        }
    }

    /// The connection or the time is over; a handshake that goes on has failed by that.
    fn give_up_tls(&mut self, failure: TlsFailure, shared: &mut Shared) {
        if let Some(tls) = &mut self.tls
            && tls.state() == TlsState::Handshaking
        {
            tls.give_up(failure);
            shared.tell(&self.responder, Seen::Tls(tls.record()));
        }
    }
}

fn millis(from: Instant, to: Instant) -> u32 {
    u32::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u32::MAX)
}

/// How long the peer's close is awaited after its reply to QUIT. It comes right behind the reply if
/// it comes at all.
const CLOSING: Duration = Duration::from_secs(1);
/// Reads in one turn: with the buffer's size this bounds how long one peer can keep the others
/// waiting.
const READS_PER_TURN: usize = 4;
