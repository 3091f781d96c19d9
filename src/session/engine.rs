//! The event loop: responders in, records out, one thread, no locks.
//!
//! Each turn: take in what the channel holds, open sessions up to the caps, hand over finished
//! records, then wait for sockets and deadlines, for 10 ms at most, because the channel of
//! responders and the stop switch wake nobody. With nothing open and nothing queued the loop
//! sleeps on the channel instead and costs some fifty wake-ups a second.
//!
//! **Records are never waited for**: they pass through an outbox, and while that is full no
//! session is opened.
//!
//! **A stop** ([`Stop`]) ends neither loop nor thread before the channel of responders is closed:
//! whoever sends into it may still be at work, and what it sends is to be recorded as well.
//!
//! **Memory**: peers that all send as much as one may would fill it together. While open sessions
//! hold more than [`MOST_HELD`], who sends on and has sent more than [`FAIR_SHARE`] is ended
//! as if it had exceeded a limit. What mail servers say in a whole session is hardly ever as much.
//!
//! **Shortage** (descriptors, ports, memory) is met by a pause while other sessions are open,
//! since their ends will cure it. With none open it is tried [`SHORTAGE_TRIES`] times before the
//! responder is recorded as a local error.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};
use socket2::SockRef;

use super::admission::Admission;
use super::adopt::{self, Adopter};
use super::live::{Live, Ready, Shared, Step};
use super::outbox::Outbox;
use super::slab::{Key, Slab};
use super::timers::Wheel;
use super::tls::TlsConfig;
use super::{Counters, Judge, SessionConfig, SessionError, SessionRecord, Stop, Watch, dial};
use crate::net::sys;
use crate::probe::Responder;
use crate::smtp::{Outcome, Transcript};

/// Asked before each dial whether the address may still be contacted.
type Admit = Arc<dyn Fn(Ipv4Addr) -> bool + Send + Sync>;

/// Begins a connection from a source address, if one is given.
type Dial = fn(&Responder, Option<Ipv4Addr>) -> io::Result<TcpStream>;

/// A connection that has begun.
struct Begun {
    stream: TcpStream,
    /// Whether it was made of a handshake so old that the peer may have forgotten it.
    adopted_late: bool,
}

/// Holds the sessions; see the head of this file.
pub struct Engine {
    config: SessionConfig,
    input: Receiver<Responder>,
    /// Whether the channel of responders has been closed and emptied.
    input_ended: bool,
    outbox: Outbox,
    admit: Admit,
    counters: Arc<Counters>,
    stop: Arc<AtomicU8>,
    /// Responders that will not be dialled; their records wait for room in the outbox.
    refused: VecDeque<Responder>,
    pub(super) dial: Dial,
    adopter: Option<Adopter>,
    poll: Poll,
    admission: Admission,
    sessions: Slab<Live>,
    timers: Wheel,
    /// Sessions that have more to read than one turn may.
    again: Vec<Key>,
    pub(super) shared: Shared,
    /// Octets of peers that open sessions hold, and how many they may.
    held: usize,
    pub(super) most_held: usize,
    /// No dialling before this instant, after a shortage.
    pause: Option<Instant>,
    /// Shortages in a row that no end of a session can cure.
    shortages: u32,
}

impl Engine {
    /// An engine that serves `input` once it is [`Self::run`]. `admit` is asked before each dial;
    /// `stop` holds a [`Stop`] and may be changed at any time.
    ///
    /// # Errors
    /// A cap of zero, a source address that is not this machine's, or no epoll.
    pub fn new(
        config: SessionConfig,
        input: Receiver<Responder>,
        output: Sender<SessionRecord>,
        admit: Arc<dyn Fn(Ipv4Addr) -> bool + Send + Sync>,
        counters: Arc<Counters>,
        stop: Arc<AtomicU8>,
    ) -> Result<Self, SessionError> {
        if config.max_sessions == 0 {
            return Err(SessionError::ZeroCap("the number of sessions at once"));
        }
        if config.per_24 == 0 {
            return Err(SessionError::ZeroCap("the number of sessions into one /24"));
        }
        if config.per_as.as_ref().is_some_and(|cap| cap.most == 0) {
            return Err(SessionError::ZeroCap("the number of sessions into one AS"));
        }
        if let Some(addr) = config.source {
            dial::check_source(addr).map_err(|error| SessionError::Source { addr, error })?;
        }
        let shared = Shared {
            dialogue: Arc::new(config.dialogue.clone()),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            window: |socket| sys::peer_window(&socket),
            watch: None,
            judge: None,
            tls: (config.dialogue.starttls || config.implicit_tls)
                .then(|| TlsConfig::new(config.sni.as_deref()))
                .transpose()?,
            implicit_tls: config.implicit_tls,
        };
        Ok(Self {
            admission: Admission::new(config.per_24, config.per_as.clone()),
            config,
            input,
            input_ended: false,
            outbox: Outbox::new(output),
            admit,
            counters,
            stop,
            refused: VecDeque::new(),
            dial: dial::dial,
            adopter: None,
            poll: Poll::new().map_err(SessionError::Poll)?,
            sessions: Slab::new(),
            timers: Wheel::new(Instant::now()),
            again: Vec::new(),
            shared,
            held: 0,
            most_held: MOST_HELD,
            pause: None,
            shortages: 0,
        })
    }

    /// Has `watch` told of all that happens in any session, as it happens.
    #[must_use]
    pub fn watched_by(mut self, watch: Watch) -> Self {
        self.shared.watch = Some(watch);
        self
    }

    /// Has connections made of the responders' own handshakes where these are fresh enough.
    #[must_use]
    pub fn adopting(mut self, adopter: Adopter) -> Self {
        self.adopter = Some(adopter);
        self
    }

    /// Has `judge` asked, before each probe of a dialogue, whether what was learnt suffices.
    #[must_use]
    pub fn judged_by(mut self, judge: Judge) -> Self {
        self.shared.judge = Some(judge);
        self
    }

    /// Serves until the channel of responders is closed and every responder that came through it
    /// has been recorded; then the sender of records is dropped. [`Stop`] says how much is done
    /// until then, but does not end it: who stops the engine closes the channel as well.
    ///
    /// # Errors
    /// epoll fails, or the consumer of records goes away; nothing that a peer does.
    pub fn run(mut self) -> Result<(), SessionError> {
        let mut events = Events::with_capacity(EVENTS);
        let mut fired = Vec::new();
        loop {
            let stop = Stop::from_u8(self.stop.load(Ordering::Relaxed));
            if stop == Stop::Now {
                self.end_sessions();
                return self.refuse_until_closed();
            }
            self.take_in();
            if stop == Stop::Drain {
                self.refuse_waiting();
            }
            self.open_sessions();
            self.outbox.hand_over()?;
            self.publish();
            if self.is_idle() {
                if self.input_ended {
                    return Ok(());
                }
                self.sleep();
                continue;
            }
            if self.sessions.len() == 0 && !self.is_busy() && !self.outbox.is_empty() {
                self.outbox.hand_over_one(TURN)?;
                continue;
            }
            let timeout = if self.is_busy() { Duration::ZERO } else { TURN };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(SessionError::Poll(error));
                }
                _ => {}
            }
            self.serve_again();
            self.serve_ready(&events);
            self.serve_deadlines(&mut fired);
        }
    }
}

/// Responders in.
impl Engine {
    /// Moves what the channel holds to the queues, up to a batch.
    fn take_in(&mut self) {
        for _ in 0..INTAKE {
            match self.input.try_recv() {
                Ok(responder) => self.admission.offer(responder),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.input_ended = true;
                    return;
                }
            }
        }
    }

    /// Waits for a responder with nothing else to do.
    fn sleep(&mut self) {
        match self.input.recv_timeout(IDLE_TURN) {
            Ok(responder) => self.admission.offer(responder),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.input_ended = true,
        }
    }

    fn may_open(&self) -> bool {
        self.admission.has_next()
            && self.sessions.len() < self.config.max_sessions
            && !self.outbox.is_full()
            && self.pause.is_none()
    }

    fn open_sessions(&mut self) {
        let now = Instant::now();
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
        }
        for _ in 0..DIALS {
            if !self.may_open() {
                return;
            }
            let Some(responder) = self.admission.next() else {
                return;
            };
            if (self.admit)(responder.addr()) {
                self.open(responder);
            } else {
                self.admission.release(responder.addr());
                self.record_undialled(responder, Outcome::Blocked, None);
            }
        }
    }

    fn open(&mut self, responder: Responder) {
        let begun = self.begin(&responder);
        self.hold_or_record(responder, begun);
    }

    /// Dials a responder whose peer had forgotten the handshake that was to be adopted.
    fn open_anew(&mut self, responder: Responder) {
        let begun = self.dial(&responder);
        self.hold_or_record(responder, begun);
    }

    fn hold_or_record(&mut self, responder: Responder, begun: io::Result<Begun>) {
        let now = Instant::now();
        match begun.and_then(|begun| self.hold(responder, begun, now)) {
            Ok(()) => self.shortages = 0,
            Err(error) if dial::is_shortage(&error) && self.may_retry() => {
                self.pause = Some(now + SHORTAGE_PAUSE);
                self.admission.put_back(responder);
            }
            Err(error) => {
                let outcome = match dial::refusal(&error) {
                    Outcome::ResetBeforeGreeting => Outcome::ConnectRefused,
                    outcome => outcome,
                };
                self.admission.release(responder.addr());
                self.record_undialled(responder, outcome, Some(error.to_string()));
            }
        }
    }

    /// Adopts the responder's handshake, or dials where that is not wanted or not possible.
    fn begin(&self, responder: &Responder) -> io::Result<Begun> {
        let fresh = |adopter: &&Adopter| adopter.is_fresh(responder, unix_us());
        if let Some(adopter) = self.adopter.as_ref().filter(fresh) {
            match adopter.adopt(responder) {
                Ok(stream) => {
                    self.counters.count_connection(true);
                    return Ok(Begun {
                        stream,
                        adopted_late: adopt::may_be_forgotten(responder, unix_us()),
                    });
                }
                Err(error) if adopt::is_shortage(&error) => return Err(error),
                // Such as a connection of that port to that host from a sweep a minute ago.
                Err(_) => {}
            }
        }
        self.dial(responder)
    }

    fn dial(&self, responder: &Responder) -> io::Result<Begun> {
        let stream = (self.dial)(responder, self.config.source)?;
        self.counters.count_connection(false);
        Ok(Begun {
            stream,
            adopted_late: false,
        })
    }

    /// Puts a connection that has begun among the sessions.
    fn hold(&mut self, responder: Responder, begun: Begun, now: Instant) -> io::Result<()> {
        let Begun {
            stream,
            adopted_late,
        } = begun;
        let deadline = now + self.config.dialogue.timeouts.connect;
        // An octet that the peer calls urgent is one of its octets like any other.
        SockRef::from(&stream).set_out_of_band_inline(true)?;
        let mut live = Live::new(stream, responder, unix_us(), deadline, now);
        live.adopted_late = adopted_late;
        let token = self.sessions.next_key().token();
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.poll
            .registry()
            .register(live.stream(), token, interest)?;
        let key = self.sessions.insert(live);
        self.timers.arm(key.index, deadline);
        Ok(())
    }

    /// Whether a shortage may pass: surely while sessions are open, else for a few tries.
    fn may_retry(&mut self) -> bool {
        if self.sessions.len() > 0 {
            return true;
        }
        self.shortages = self.shortages.saturating_add(1);
        self.shortages < SHORTAGE_TRIES
    }
}

/// Sessions.
impl Engine {
    fn serve_ready(&mut self, events: &Events) {
        let now = Instant::now();
        for event in events {
            let ready = Ready {
                readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                writable: event.is_writable(),
                closed: event.is_read_closed() || event.is_error() || event.is_priority(),
            };
            self.serve(Key::from_token(event.token()), now, |live, shared| {
                live.handle_ready(now, ready, shared)
            });
        }
    }

    fn serve_again(&mut self) {
        let now = Instant::now();
        for key in std::mem::take(&mut self.again) {
            self.serve(key, now, |live, shared| {
                live.handle_ready(now, Ready::AGAIN, shared)
            });
        }
    }

    fn serve_deadlines(&mut self, fired: &mut Vec<u32>) {
        let now = Instant::now();
        self.timers.expire(now, fired);
        for index in fired.drain(..) {
            if let Some(key) = self.sessions.tenant(index) {
                self.serve(key, now, |live, shared| live.handle_timeout(now, shared));
            }
        }
    }

    /// Serves one session, if it is still there, and sees to its timer and to its end.
    fn serve(&mut self, key: Key, now: Instant, turn: impl FnOnce(&mut Live, &mut Shared) -> Step) {
        let Some(live) = self.sessions.value(key) else {
            return;
        };
        let before = live.held();
        let mut step = turn(live, &mut self.shared);
        let held = live.held();
        self.held = self.held + held - before;
        if self.held > self.most_held && held > before.max(FAIR_SHARE) && step != Step::End {
            step = live.shed(now, &mut self.shared);
        }
        match step {
            Step::End => return self.end(key, now),
            Step::Again => self.again.push(key),
            Step::Wait => {}
        }
        if let Some(deadline) = live.deadline() {
            self.timers.arm(key.index, deadline);
        }
    }

    fn end(&mut self, key: Key, now: Instant) {
        let Some(live) = self.sessions.remove(key) else {
            return;
        };
        self.held -= live.held();
        self.timers.disarm(key.index);
        let adopted_late = live.adopted_late;
        let record = live.finish(now);
        let goes_on = Stop::from_u8(self.stop.load(Ordering::Relaxed)) == Stop::Run;
        if adopted_late && goes_on && is_unheard(&record) {
            return self.open_anew(record.responder);
        }
        self.admission.release(record.responder.addr());
        self.counters.timings().count(&record);
        self.record(record);
    }
}

/// Stopped.
impl Engine {
    /// Ends the open sessions, with QUIT where that is possible at once.
    fn end_sessions(&mut self) {
        let now = Instant::now();
        for key in self.sessions.keys() {
            if let Some(live) = self.sessions.value(key) {
                live.interrupt(now, &mut self.shared);
            }
            self.end(key, now);
        }
    }

    /// Records those who wait as interrupted, as far as the outbox has room.
    fn refuse_waiting(&mut self) {
        if self.admission.waiting() > 0 {
            self.refused.extend(self.admission.drain());
        }
        while !self.outbox.is_full()
            && let Some(responder) = self.refused.pop_front()
        {
            self.record_undialled(responder, Outcome::Interrupted, None);
        }
    }

    /// Records those who wait, and then those who still come, as interrupted, until the channel
    /// is closed. Nothing else is left to do, so the consumer of records is waited for.
    fn refuse_until_closed(&mut self) -> Result<(), SessionError> {
        loop {
            self.refuse_waiting();
            self.outbox.hand_over_all()?;
            self.publish();
            if self.refused.is_empty() {
                match self.input.recv() {
                    Ok(responder) => self.refused.push_back(responder),
                    Err(RecvError) => return Ok(()),
                }
            }
        }
    }
}

/// Records out.
impl Engine {
    fn record(&mut self, record: SessionRecord) {
        let commands = record.transcript.commands();
        self.counters.count(record.outcome, commands);
        self.outbox.push(record);
    }

    /// Records a responder to whom no connection was begun.
    fn record_undialled(&mut self, responder: Responder, outcome: Outcome, detail: Option<String>) {
        self.record(SessionRecord {
            responder,
            outcome,
            detail,
            transcript: Transcript::default(),
            tls: None,
            started_us: unix_us(),
            connect_ms: None,
            duration_ms: 0,
        });
    }

    fn publish(&self) {
        let ready = self.admission.ready() + self.refused.len() + self.input.len();
        self.counters
            .set(ready, self.admission.capped(), self.sessions.len());
        let waited = |responder| adopt::waited(responder, unix_us());
        let longest = self.admission.peek().map_or(Duration::ZERO, waited);
        self.counters.set_longest_wait(longest);
    }

    /// Whether nothing is under way.
    fn is_idle(&self) -> bool {
        self.sessions.len() == 0
            && self.admission.waiting() == 0
            && self.refused.is_empty()
            && self.outbox.is_empty()
    }

    /// Whether there is something to do before anything new happens.
    fn is_busy(&self) -> bool {
        let may_refuse = !self.refused.is_empty() && !self.outbox.is_full();
        !self.again.is_empty() || self.may_open() || may_refuse
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("open", &self.sessions.len())
            .field("waiting", &self.admission.waiting())
            .field("outbox", &self.outbox.len())
            .finish_non_exhaustive()
    }
}

/// Whether a reset is all that came of a session.
fn is_unheard(record: &SessionRecord) -> bool {
    record.outcome == Outcome::ResetBeforeGreeting
        && record.transcript.pieces.is_empty()
        && record.tls.is_none()
}

fn unix_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The longest wait for sockets.
const TURN: Duration = Duration::from_millis(10);
/// The longest wait for a responder with nothing open.
const IDLE_TURN: Duration = Duration::from_millis(20);
/// Events taken from epoll at once.
const EVENTS: usize = 1_024;
/// Octets read at once.
const BUFFER: usize = 16_384;
/// Octets of peers that open sessions hold before the greedy ones are ended; in memory they take
/// about twice that, since a reply under way is held as text as well.
const MOST_HELD: usize = 128 << 20;
/// Octets that a session may always hold.
const FAIR_SHARE: usize = 8_192;
/// Responders taken from the channel in one turn.
const INTAKE: usize = 4_096;
/// Sessions opened in one turn, so that the open ones are served in between.
const DIALS: usize = 128;
/// How long to open no session after a shortage.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// Shortages in a row, none of them curable by the end of a session, before one is recorded.
const SHORTAGE_TRIES: u32 = 5;
