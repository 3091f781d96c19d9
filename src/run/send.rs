//! The sender: walk → token bucket → transmit, held back while sessions are behind.
//!
//! Each sender thread owns an interval of the walk, its share of the rate, and a transmitter. A
//! target counts as sent only once the backend says that its frame has left; what a backend
//! refuses for now (a full queue) is offered again, and what a failed backend had accepted but not
//! sent goes to the packet socket instead. So nothing is skipped and nothing sent twice.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Finish, Shared};
use crate::net::{NetError, Transmit, sys};
use crate::rate::{PacketsPerSecond, TokenBucket};
use crate::session::Counters;
use crate::status::say;
use crate::targets::{Filled, Passes, PassesCursor, Target, Walk};

/// Targets taken from the walk at once; also the most that leave in one go.
const BATCH: usize = 256;

/// How long the sender looks away while sessions are behind.
const HOLD: Duration = Duration::from_millis(2);

/// How long it does while the link's queue is full. A network card's ring of 256 frames is empty
/// after 170 µs at 1 Gbit/s, and must not run dry.
const FULL: Duration = Duration::from_micros(50);

/// Shortest sleep between packets. What falls due meanwhile leaves together: 6 packets at 100,000 a
/// second, 60 at a million. Sleeping for each packet would cost more than sending it, and waiting
/// awake a whole core.
const TICK: Duration = Duration::from_micros(60);

/// Longest sleep, so that a stop is seen soon at the slowest rates.
const NAP: Duration = Duration::from_millis(50);

/// Probes that may be under way, in a backend that sends by itself. Where the kernel keeps such a one
/// from its processor they leave together afterwards.
const UNDER_WAY: usize = 256;

/// The same at rates at which these are less than so much time's worth.
const UNDER_WAY_TIME: Duration = Duration::from_millis(2);

/// Responders that may wait for others in their /24: some 100 MB of memory.
const CAPPED_MARK: u64 = 1_000_000;

/// How often the cursor is told, for the survey file.
const TELL: Duration = Duration::from_millis(200);

/// How long the last accepted frames may take to leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a sender did. How many probes left is in [`Shared`], also if the sender fails.
#[derive(Debug)]
pub(super) struct Sent {
    /// Whether the walk came to its end (or to `--max-targets`).
    pub complete: bool,
    /// Time spent sending.
    pub time: Duration,
    /// Time within it during which sessions held the sender back.
    pub held_back: Duration,
    /// What ended it early, if the network did.
    pub ended: Result<(), NetError>,
}

/// When to stop early; shared by all senders.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Probes that may still be sent (`--max-targets`).
    budget: Option<AtomicU64>,
    /// The moment after which nothing is sent (`--max-runtime`).
    deadline: Option<Instant>,
    /// Responders after which nothing is sent (`--max-results`).
    max_results: Option<u64>,
}

impl Limits {
    pub(super) fn new(
        max_targets: Option<u64>,
        deadline: Option<Instant>,
        max_results: Option<u64>,
    ) -> Self {
        Self {
            budget: max_targets.map(AtomicU64::new),
            deadline,
            max_results,
        }
    }

    /// Takes up to `want` probes out of the budget.
    fn reserve(&self, want: usize) -> usize {
        let Some(budget) = &self.budget else {
            return want;
        };
        let want = want as u64;
        let taken = budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left - left.min(want))
            })
            .map_or(0, |left| left.min(want));
        usize::try_from(taken).unwrap_or(0)
    }

    /// Puts probes that were not sent back into the budget.
    fn give_back(&self, count: usize) {
        if let Some(budget) = &self.budget {
            budget.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// The limit that is reached, if one is.
    fn reached(&self, now: Instant, responders: u64) -> Option<Finish> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(Finish::Limit("max-runtime"));
        }
        self.max_results
            .is_some_and(|most| responders >= most)
            .then_some(Finish::Limit("max-results"))
    }
}

/// Opens what takes over from a backend that failed.
pub(super) type Fallback = Box<dyn FnMut() -> Result<Box<dyn Transmit>, NetError> + Send>;

/// Everything a sender's thread owns.
pub(super) struct Sender {
    /// Which of the senders this is, from 0.
    pub(super) thread: usize,
    pub(super) walk: Passes,
    pub(super) transmit: Box<dyn Transmit>,
    pub(super) fallback: Option<Fallback>,
    pub(super) rate: PacketsPerSecond,
    pub(super) core: Option<u32>,
    pub(super) limits: Arc<Limits>,
    pub(super) backlog_mark: u64,
    /// How long a responder may wait for its session, where its handshake waits as well.
    pub(super) wait_mark: Option<Duration>,
    pub(super) shared: Arc<Shared>,
    pub(super) sessions: Arc<Counters>,
}

impl Sender {
    /// Sends until the walk ends, a limit is reached or a stop is asked for. A sender that fails
    /// stops the others: the sweep cannot become complete any more.
    pub(super) fn run(self) -> Sent {
        // The default of 50 µs would double the gaps at 10,000 packets a second.
        sys::fine_sleep();
        let started = Instant::now();
        let (thread, core, shared) = (self.thread, self.core, Arc::clone(&self.shared));
        let mut pace = Pace {
            bucket: TokenBucket::new(self.rate, started),
            most_under_way: most_under_way(self.rate),
            limits: Arc::clone(&self.limits),
            backlog_mark: self.backlog_mark,
            wait_mark: self.wait_mark,
            sessions: self.sessions,
            held_back: Duration::ZERO,
            thread,
        };
        let mut outgoing = Outgoing::new(
            self.walk,
            self.transmit,
            self.fallback,
            &shared,
            &self.limits,
        );
        let complete = match core {
            Some(core) => sys::pin_to_cpu(core).map_err(|source| NetError::Pin { core, source }),
            None => Ok(()),
        }
        .and_then(|()| pace.send(&mut outgoing, &shared));
        if complete.is_err() {
            shared.stop_sending.store(true, Ordering::Relaxed);
        }
        shared.progress().cursors[thread] = outgoing.cursor();
        Sent {
            complete: *complete.as_ref().unwrap_or(&false),
            time: started.elapsed(),
            held_back: pace.held_back,
            ended: complete.map(drop),
        }
    }
}

/// When the next probes may leave.
struct Pace {
    bucket: TokenBucket,
    most_under_way: usize,
    limits: Arc<Limits>,
    backlog_mark: u64,
    wait_mark: Option<Duration>,
    sessions: Arc<Counters>,
    held_back: Duration,
    thread: usize,
}

impl Pace {
    /// The sender's loop; true if the walk came to its end.
    fn send(&mut self, outgoing: &mut Outgoing<'_>, shared: &Shared) -> Result<bool, NetError> {
        let mut told = Instant::now();
        let mut complete = false;
        while !shared.stop_sending.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now - told >= TELL {
                told = now;
                shared.progress().cursors[self.thread] = outgoing.cursor();
            }
            let responders = shared.responders.load(Ordering::Relaxed);
            if let Some(limit) = self.limits.reached(now, responders) {
                shared.stop_at(limit);
                break;
            }
            let late = |mark| self.sessions.longest_wait() >= mark;
            if behind(shared, &self.sessions, self.backlog_mark) || self.wait_mark.is_some_and(late)
            {
                shared.held_back.store(true, Ordering::Relaxed);
                thread::sleep(HOLD);
                self.held_back += now.elapsed();
                outgoing.note_left()?;
                continue;
            }
            shared.held_back.store(false, Ordering::Relaxed);
            if outgoing.in_flight.len() >= self.most_under_way {
                outgoing.note_left()?;
                if outgoing.in_flight.len() >= self.most_under_way {
                    thread::sleep(TICK);
                    continue;
                }
            }
            let ready = match outgoing.ready(now) {
                Filled::NotBefore(due) => {
                    outgoing.note_left()?;
                    thread::sleep(due.saturating_duration_since(now).clamp(TICK, NAP));
                    continue;
                }
                Filled::Targets(count) => count,
                Filled::Done => 0,
            };
            let allowed = self.limits.reserve(ready);
            if allowed == 0 {
                if !outgoing.settle()? {
                    continue;
                }
                complete = true;
                break;
            }
            let granted = self.bucket.take(now, allowed);
            let taken = if granted > 0 {
                outgoing.send(granted)?
            } else {
                0
            };
            self.limits.give_back(allowed - taken);
            self.bucket.give_back(granted - taken);
            if granted == 0 {
                outgoing.note_left()?;
                let gap = self.bucket.next(now).saturating_duration_since(now);
                thread::sleep(gap.clamp(TICK, NAP));
            } else if taken < granted {
                thread::sleep(outgoing.breather());
            }
        }
        outgoing.settle()?;
        Ok(complete)
    }
}

/// How many probes may be under way at a rate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive and below 2^27"
)]
fn most_under_way(rate: PacketsPerSecond) -> usize {
    UNDER_WAY.max((rate.value() * UNDER_WAY_TIME.as_secs_f64()) as usize)
}

/// Whether so many responders wait that no more should be found for now. Those that wait only for
/// others in their /24 must not stop the sweep: one tarpit network would; so of them far more may.
fn behind(shared: &Shared, sessions: &Counters, mark: u64) -> bool {
    let found = shared.responders.load(Ordering::Relaxed);
    let waiting = found.saturating_sub(sessions.done() + sessions.open());
    let capped = sessions.queued_capped();
    waiting.saturating_sub(capped) >= mark || capped >= CAPPED_MARK
}

/// The targets on their way: taken from the walk, accepted by the backend, left.
struct Outgoing<'run> {
    walk: Passes,
    transmit: Box<dyn Transmit>,
    fallback: Option<Fallback>,
    shared: &'run Shared,
    limits: &'run Limits,
    /// Taken from the walk; those before `next` were accepted.
    batch: Vec<Target>,
    next: usize,
    /// Whether the batch is of the first pass, so that each of it is a new target.
    first_pass: bool,
    /// Accepted, not known to have left, each with whether it is its target's first probe.
    in_flight: VecDeque<(Target, bool)>,
    /// What a backend that failed had accepted but not sent, to go before all else.
    again: VecDeque<(Target, bool)>,
    /// Probes accepted by the present backend, and how many of them have left.
    accepted: u64,
    left: u64,
    /// The walk's cursor before each batch, with the number of probes accepted by then; the first
    /// is the last before which everything has left.
    marks: VecDeque<(u64, PassesCursor)>,
}

impl<'run> Outgoing<'run> {
    fn new(
        walk: Passes,
        transmit: Box<dyn Transmit>,
        fallback: Option<Fallback>,
        shared: &'run Shared,
        limits: &'run Limits,
    ) -> Self {
        Self {
            marks: VecDeque::from([(0, walk.cursor())]),
            walk,
            transmit,
            fallback,
            shared,
            limits,
            batch: Vec::with_capacity(BATCH),
            next: 0,
            first_pass: true,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            accepted: 0,
            left: 0,
        }
    }

    /// How many targets are ready to be sent, or until when there are none.
    fn ready(&mut self, now: Instant) -> Filled {
        if self.next < self.batch.len() {
            return Filled::Targets(self.batch.len() - self.next);
        }
        self.batch.clear();
        self.next = 0;
        if let Some((_, first_pass)) = self.again.front().copied() {
            let alike = |(target, new): &(Target, bool)| (*new == first_pass).then_some(*target);
            self.batch
                .extend(self.again.iter().map_while(alike).take(BATCH));
            self.again.drain(..self.batch.len());
            self.first_pass = first_pass;
            return Filled::Targets(self.batch.len());
        }
        let cursor = self.walk.cursor();
        let filled = self.walk.fill(now, &mut self.batch, BATCH);
        if let Filled::Targets(_) = filled {
            self.first_pass = self.walk.filled_by() == 0;
            self.marks.push_back((self.accepted, cursor));
        }
        filled
    }

    /// Offers the next `count` targets to the backend; returns how many it accepted.
    fn send(&mut self, count: usize) -> Result<usize, NetError> {
        let offered = &self.batch[self.next..self.next + count];
        let taken = match self.transmit.send(offered) {
            Ok(taken) => taken,
            Err(error) => return self.fall_back(error).map(|()| 0),
        };
        let first_pass = self.first_pass;
        self.in_flight
            .extend(offered[..taken].iter().map(|target| (*target, first_pass)));
        self.next += taken;
        self.accepted += taken as u64;
        self.note_left()?;
        Ok(taken)
    }

    /// Reads back how many probes have left.
    fn note_left(&mut self) -> Result<(), NetError> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        match self.transmit.left() {
            Ok(left) => self.have_left(left),
            Err(error) => self.fall_back(error)?,
        }
        Ok(())
    }

    fn have_left(&mut self, left: u64) {
        let news = left.saturating_sub(self.left);
        let count = usize::try_from(news)
            .unwrap_or(usize::MAX)
            .min(self.in_flight.len());
        let new = self
            .in_flight
            .drain(..count)
            .filter(|(_, new)| *new)
            .count();
        self.left += count as u64;
        self.shared.sent.fetch_add(count as u64, Ordering::Relaxed);
        self.shared.targets.fetch_add(new as u64, Ordering::Relaxed);
        while self.marks.get(1).is_some_and(|mark| mark.0 <= self.left) {
            self.marks.pop_front();
        }
    }

    /// Waits for what is under way; false if that had to be handed to another backend, so that
    /// there is more to send.
    fn settle(&mut self) -> Result<bool, NetError> {
        if self.in_flight.is_empty() {
            return Ok(true);
        }
        match self.transmit.settle(PATIENCE) {
            Ok(left) => self.have_left(left),
            Err(error) => return self.fall_back(error).map(|()| false),
        }
        if self.in_flight.is_empty() {
            return Ok(true);
        }
        let stuck = self.in_flight.len();
        self.fall_back(NetError::Stuck { stuck }).map(|()| false)
    }

    /// Replaces a backend that failed; what it had accepted but not sent is sent again.
    fn fall_back(&mut self, error: NetError) -> Result<(), NetError> {
        let Some(mut open) = self.fallback.take() else {
            return Err(error);
        };
        if let NetError::Vanished { unsent, .. } = &error {
            // It knows exactly; what it did send need not be the first it was given.
            let unsent: HashSet<u32> = unsent.iter().map(|target| target.bits()).collect();
            let (stuck, sent): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.in_flight)
                .into_iter()
                .partition(|(target, _)| unsent.contains(&target.bits()));
            self.in_flight = sent;
            self.have_left(self.accepted - stuck.len() as u64);
            self.in_flight = stuck;
        } else if let Ok(left) = self.transmit.left() {
            self.have_left(left);
        }
        self.limits.give_back(self.in_flight.len());
        self.transmit = open()?;
        say(format_args!("{error}; going on with the packet socket"));
        let first_pass = self.first_pass;
        let rest = self
            .batch
            .drain(self.next..)
            .map(|target| (target, first_pass));
        self.again.extend(self.in_flight.drain(..).chain(rest));
        self.next = self.batch.len();
        // The new backend counts from zero; what is sent again lies behind the first mark.
        self.marks.truncate(1);
        if let Some(mark) = self.marks.front_mut() {
            mark.0 = 0;
        }
        (self.accepted, self.left) = (0, 0);
        Ok(())
    }

    /// How long to look away from a backend that has no room: little while frames are under way.
    fn breather(&self) -> Duration {
        if self.in_flight.is_empty() {
            FULL
        } else {
            Duration::from_micros(20)
        }
    }

    /// The walk's position up to which everything has left.
    fn cursor(&self) -> String {
        let all_left =
            self.in_flight.is_empty() && self.again.is_empty() && self.next == self.batch.len();
        match self.marks.front() {
            Some((_, cursor)) if !all_left => cursor.to_string(),
            _ => self.walk.cursor().to_string(),
        }
    }
}

/// Sends a whole walk as fast as the backend takes it (the dry run). Returns the count.
pub(super) fn without_pacing(
    walk: &mut Walk,
    transmit: &mut dyn Transmit,
    limit: Option<u64>,
) -> Result<u64, NetError> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut sent = 0;
    loop {
        batch.clear();
        let left = limit.map_or(u64::MAX, |limit| limit - sent);
        let want = BATCH.min(usize::try_from(left).unwrap_or(BATCH));
        if want == 0 || walk.fill(&mut batch, want) == 0 {
            return Ok(sent);
        }
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let taken = transmit.send(rest)?;
            rest = &rest[taken..];
            sent += taken as u64;
        }
    }
}
