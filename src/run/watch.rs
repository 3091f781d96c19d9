//! The sweep's overseer: every 50 ms it turns signals, limits and ended threads into "stop
//! sending", "stop receiving" and "end sessions now", and once a second it prints the status line.
//!
//! The order of an end, whatever its cause: the sender stops; the receiver goes on for the
//! cooldown; its end closes the sessions' input; the sessions' end closes the writer's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Finish, Shared, Threads};
use crate::config::ScanPlan;
use crate::session::{Counters, Stop};
use crate::status::{Snapshot, StatusLine, say};

/// How often signals, limits and ended threads are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How often there is a status line.
const EVERY: Duration = Duration::from_secs(1);

/// How long open sessions may go on after a signal and the cooldown. Most need less than a second; the
/// others are tarpits for the most part, and whoever signals (a person, an init system) soon kills.
const GRACE: Duration = Duration::from_secs(10);

/// What the overseer reads and writes.
pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) sessions: Arc<Counters>,
    pub(super) stop: Arc<AtomicU8>,
    pub(super) started: Instant,
    signals: Signals,
    finish: Finish,
    signalled: u32,
    cooldown_end: Option<Instant>,
}

impl Watch {
    /// Takes over SIGINT, SIGTERM and SIGHUP (the terminal went away).
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub(super) fn new(started: Instant) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::default(),
            sessions: Arc::default(),
            stop: Arc::new(AtomicU8::new(Stop::Run as u8)),
            started,
            signals: Signals::new([SIGINT, SIGTERM, SIGHUP])?,
            finish: Finish::Complete,
            signalled: 0,
            cooldown_end: None,
        })
    }

    /// Oversees the threads until the last of them, the writer, has ended.
    pub(super) fn until_done(&mut self, plan: &ScanPlan, threads: &Threads) -> Finish {
        let mut status = StatusLine::default();
        let mut next_status = self.started + EVERY;
        while !threads.writer.is_finished() || !threads.engine.is_finished() {
            thread::sleep(TICK);
            let now = Instant::now();
            self.heed_signals(plan, now);
            self.heed_limits();
            self.heed_threads(plan, threads, now);
            if now >= next_status {
                // A machine that stood still gets one line for it, not one for every second missed.
                next_status = (next_status + EVERY).max(now);
                if !plan.quiet {
                    say(format_args!(
                        "{}",
                        status.line(&self.snapshot(plan, threads, now))
                    ));
                }
            }
        }
        self.finish
    }

    /// The first signal stops the sending; the next ends everything at once.
    fn heed_signals(&mut self, plan: &ScanPlan, now: Instant) {
        for signal in self.signals.pending() {
            self.signalled += 1;
            self.finish = Finish::Signal(signal);
            self.shared.stop_sending.store(true, Ordering::Relaxed);
            if self.signalled > 1 {
                self.cooldown_end = Some(now);
                self.stop.store(Stop::Now as u8, Ordering::Relaxed);
            } else if !plan.quiet {
                let cooldown = self
                    .cooldown_end
                    .map_or(plan.cooldown, |end| end.saturating_duration_since(now));
                say(format_args!(
                    "{}: no more probes; waiting {:.0} s for replies, then {:.0} s at most for the \
                     sessions ({} open, {} waiting); again: stop at once",
                    self.finish.describe(),
                    cooldown.as_secs_f64(),
                    GRACE.as_secs_f64(),
                    self.sessions.open(),
                    self.sessions.queued()
                ));
            }
        }
    }

    /// The senders look at the limits themselves, between any two batches.
    fn heed_limits(&mut self) {
        if let (Finish::Complete, Some(limit)) = (self.finish, self.shared.limit.get()) {
            self.finish = *limit;
        }
    }

    /// A stage that ended early failed: without it, what the others do would be lost.
    fn heed_threads(&mut self, plan: &ScanPlan, threads: &Threads, now: Instant) {
        if threads.writer.is_finished() || threads.engine.is_finished() {
            self.cooldown_end = Some(now);
            self.stop.store(Stop::Now as u8, Ordering::Relaxed);
        }
        if self.cooldown_end.is_some() || threads.receiver.is_finished() {
            self.shared.stop_sending.store(true, Ordering::Relaxed);
        }
        if senders_ended(threads) || self.cooldown_end.is_some() {
            let end = *self.cooldown_end.get_or_insert(now + plan.cooldown);
            if now >= end {
                self.shared.stop_receiving.store(true, Ordering::Relaxed);
                if self.signalled == 1 {
                    // Open sessions may end; those that wait would make it a matter of hours.
                    let stop = if now < end + GRACE {
                        Stop::Drain
                    } else {
                        Stop::Now
                    };
                    self.stop.store(stop as u8, Ordering::Relaxed);
                }
            }
        }
    }

    fn snapshot(&self, plan: &ScanPlan, threads: &Threads, now: Instant) -> Snapshot {
        Snapshot {
            elapsed: now - self.started,
            sending: !senders_ended(threads),
            cooldown_left: self
                .cooldown_end
                .map(|end| end.saturating_duration_since(now)),
            sent: self.shared.sent.load(Ordering::Relaxed),
            to_send: plan.to_send() * u64::from(plan.probes),
            responders: self.shared.responders.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            queued: self.sessions.queued(),
            open: self.sessions.open(),
            done: self.sessions.done(),
            held_back: self.shared.held_back.load(Ordering::Relaxed),
        }
    }
}

fn senders_ended(threads: &Threads) -> bool {
    threads.senders.iter().all(JoinHandle::is_finished)
}

impl ScanPlan {
    /// Probes this run will send if nothing stops it; an estimate where there are shards.
    fn to_send(&self) -> u64 {
        let ours = self.space.len().div_ceil(u64::from(self.shard.total));
        self.our_max_targets().map_or(ours, |limit| ours.min(limit))
    }
}
