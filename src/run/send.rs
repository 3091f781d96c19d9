//! The sender: walk → token bucket → transmit, held back while sessions are behind.
//!
//! A target counts as sent only when the backend says that its frame was taken; what the kernel
//! refuses for now (a full queue) is offered again, so nothing is skipped and nothing sent twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use crate::net::{NetError, Transmit, sys};
use crate::rate::{PacketsPerSecond, TokenBucket};
use crate::session::Counters;
use crate::targets::{Cursor, Target, Walk};

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

/// What the sender did.
#[derive(Debug)]
pub(super) struct Sent {
    /// Probes that left.
    pub sent: u64,
    /// Where the walk stands: everything before it was sent.
    pub cursor: String,
    /// Whether the walk came to its end (or to `--max-targets`).
    pub complete: bool,
    /// Time spent sending.
    pub time: Duration,
    /// Time within it during which sessions held the sender back.
    pub held_back: Duration,
}

/// Everything the sender's thread owns.
pub(super) struct Sender {
    pub walk: Walk,
    pub transmit: Box<dyn Transmit>,
    pub rate: PacketsPerSecond,
    pub limit: Option<u64>,
    pub backlog_mark: u64,
    pub shared: Arc<Shared>,
    pub sessions: Arc<Counters>,
}

impl Sender {
    /// Sends until the walk ends, the limit is reached or a stop is asked for.
    pub(super) fn run(mut self) -> Result<Sent, NetError> {
        // The default of 50 µs would double the gaps at 10,000 packets a second.
        sys::fine_sleep();
        let started = Instant::now();
        let mut bucket = TokenBucket::new(self.rate, started);
        let mut batch = Batch::default();
        let (mut sent, mut held_back, mut complete) = (0u64, Duration::ZERO, false);
        while !self.shared.stop_sending.load(Ordering::Relaxed) {
            if self.behind() {
                self.shared.held_back.store(true, Ordering::Relaxed);
                let held = Instant::now();
                thread::sleep(HOLD);
                held_back += held.elapsed();
                continue;
            }
            self.shared.held_back.store(false, Ordering::Relaxed);
            let left = self.limit.map_or(u64::MAX, |limit| limit - sent);
            if left == 0 || !batch.ready(&mut self.walk) {
                complete = true;
                break;
            }
            let now = Instant::now();
            let want = batch
                .rest()
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let granted = bucket.take(now, want);
            if granted == 0 {
                let gap = bucket.next(now).saturating_duration_since(now);
                thread::sleep(gap.clamp(TICK, NAP));
                continue;
            }
            let taken = self.transmit.send(&batch.rest()[..granted])?;
            bucket.give_back(granted - taken);
            batch.advance(taken);
            sent += taken as u64;
            self.shared.sent.store(sent, Ordering::Relaxed);
            if taken < granted {
                thread::sleep(FULL);
            }
        }
        Ok(Sent {
            sent,
            cursor: batch.cursor(&self.walk),
            complete,
            time: started.elapsed(),
            held_back,
        })
    }

    /// Whether so many responders wait that no more should be found for now.
    fn behind(&self) -> bool {
        let found = self.shared.responders.load(Ordering::Relaxed);
        let waiting = found.saturating_sub(self.sessions.done() + self.sessions.open());
        waiting >= self.backlog_mark
    }
}

/// The targets taken from the walk and not yet sent.
#[derive(Default)]
struct Batch {
    targets: Vec<Target>,
    next: usize,
    begins_at: Option<Cursor>,
}

impl Batch {
    /// Makes sure that there is something to send; false at the end of the walk.
    fn ready(&mut self, walk: &mut Walk) -> bool {
        if self.next < self.targets.len() {
            return true;
        }
        self.targets.clear();
        self.next = 0;
        self.begins_at = Some(walk.cursor());
        walk.fill(&mut self.targets, BATCH) > 0
    }

    fn rest(&self) -> &[Target] {
        &self.targets[self.next..]
    }

    fn advance(&mut self, count: usize) {
        self.next += count;
    }

    /// The walk's position up to which everything was sent. A batch that was cut short counts
    /// from its beginning, so that a sweep that goes on from here skips nothing.
    fn cursor(&self, walk: &Walk) -> String {
        match &self.begins_at {
            Some(begin) if self.next < self.targets.len() => begin.to_string(),
            _ => walk.cursor().to_string(),
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
