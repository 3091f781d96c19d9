//! Thousands of dialogues on one thread.
//!
//! [`Engine`] takes verified responders from a channel, opens at most
//! [`SessionConfig::max_sessions`] connections at a time and at most
//! [`SessionConfig::per_24`] into one /24, drives one [`crate::smtp::Dialogue`] over each, and
//! hands out a [`SessionRecord`] per responder.
//!
//! **Every responder taken from the channel ends in exactly one record**, on every path: refused
//! by `admit`, no descriptor left, stopped in the middle. The engine never blocks on a slow
//! consumer of records; it stops opening sessions instead, so its queue grows, and whoever sends
//! probes pauses on [`Counters::queued`].

mod admission;
mod dial;
mod engine;
mod live;
mod record_only;
mod slab;
mod timers;

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::probe::Responder;
use crate::smtp::{DialogueConfig, Outcome, Transcript};

pub use engine::{Engine, Watch};
pub use record_only::record_only;

/// How sessions are held.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// What is said, and the bounds on time and size.
    pub dialogue: DialogueConfig,
    /// Sessions open at once, at least 1.
    pub max_sessions: usize,
    /// Sessions open at once into one /24, at least 1.
    pub per_24: usize,
    /// The address to connect from; `None` leaves it to the routing table.
    pub source: Option<Ipv4Addr>,
}

impl SessionConfig {
    /// 10,000 sessions at once, 16 into one /24, from wherever the routing table says.
    pub fn new(dialogue: DialogueConfig) -> Self {
        Self {
            dialogue,
            max_sessions: 10_000,
            per_24: 16,
            source: None,
        }
    }
}

/// What became of one responder.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Who it was.
    pub responder: Responder,
    /// How its session ended.
    pub outcome: Outcome,
    /// What the outcome's name does not say: an error of the system's, the fault in a reply.
    pub detail: Option<String>,
    /// All that was said; empty if no connection came about.
    pub transcript: Transcript,
    /// When the connection was begun, in Unix microseconds.
    pub started_us: u64,
    /// Milliseconds from there to the established connection, if it came about.
    pub connect_ms: Option<u32>,
    /// Milliseconds from there to the end.
    pub duration_ms: u32,
}

/// What the engine is to do; kept as a number in an atomic that its owner may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// Serve until the channel of responders is closed and all sessions are done.
    Run = 0,
    /// Finish what is queued and open, then end, even if the channel is still open. Who sends
    /// into it should have stopped before: what comes after the end is refused by the channel.
    Drain = 1,
    /// End now: open sessions say QUIT if they can, they and the queued responders are recorded
    /// as interrupted.
    Now = 2,
}

impl Stop {
    /// The mode that a number means; any number above 1 means [`Stop::Now`].
    pub const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Run,
            1 => Self::Drain,
            _ => Self::Now,
        }
    }
}

/// Counts of the engine's, written by it alone and read by anyone.
#[derive(Debug)]
pub struct Counters {
    queued: AtomicU64,
    open: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            queued: AtomicU64::new(0),
            open: AtomicU64::new(0),
            outcomes: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
        }
    }

    /// Responders that wait for their session, those still in the channel included. Renewed
    /// every 20 ms at the latest.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Sessions open now, those still connecting included.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Responders recorded.
    pub fn done(&self) -> u64 {
        self.outcomes
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Responders recorded with that outcome.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()].load(Ordering::Relaxed)
    }

    fn set(&self, queued: usize, open: usize) {
        self.queued.store(queued as u64, Ordering::Relaxed);
        self.open.store(open as u64, Ordering::Relaxed);
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the engine cannot start or go on. What peers do is never among these.
#[derive(Debug, Error)]
pub enum SessionError {
    /// epoll could not be set up or failed.
    #[error("wait for connections (epoll): {0}")]
    Poll(#[source] io::Error),
    /// A cap of zero.
    #[error("hold sessions: {0} must be at least 1")]
    ZeroCap(&'static str),
    /// The source address is not one of this machine's.
    #[error("open sessions from {addr}: {error} (is it an address of this machine?)")]
    Source {
        /// The address to connect from.
        addr: Ipv4Addr,
        /// What bind(2) said.
        #[source]
        error: io::Error,
    },
    /// The consumer of records went away.
    #[error("hand over session records: their consumer has ended; {0} records are lost")]
    ConsumerGone(u64),
}

#[cfg(test)]
mod tests;
