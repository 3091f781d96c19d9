//! Thousands of dialogues on one thread.
//!
//! [`Engine`] takes verified responders from a channel, opens at most
//! [`SessionConfig::max_sessions`] connections at a time and at most
//! [`SessionConfig::per_24`] into one /24, drives one [`crate::smtp::Dialogue`] over each, and
//! hands out a [`SessionRecord`] per responder.
//!
//! **Every responder sent into the channel ends in exactly one record**, on every path: refused
//! by `admit`, no descriptor left, stopped in the middle, or sent after the stop. The engine goes
//! on receiving until the channel is closed, whatever [`Stop`] says.
//!
//! **Backpressure**: the engine never blocks on a slow consumer of records; it stops opening
//! sessions instead, so its queue grows, and whoever finds responders has to pause. There are two
//! measures to pause on. [`Counters::queued_ready`] is the real backlog: a mark of about
//! [`SessionConfig::max_sessions`] suits it. [`Counters::queued_capped`] are those kept back by
//! the cap on their /24; to pause on them would let one /24 of tarpits stop a whole sweep, so
//! for them the only bound is memory (about a hundred octets each).
//!
//! **Whom it dials**: nobody but [`Responder`]s. In a sweep, only the verification of the cookie
//! makes one (`probe::Classifier`). The exception is [`Responder::dialled`], by which
//! `smtpsweep probe HOST` dials a host that has answered nothing yet; it takes a
//! `targets::Target`, which never is a blocked address.

mod admission;
mod adopt;
mod asn;
mod dial;
mod engine;
mod histogram;
mod live;
mod outbox;
mod record_only;
mod slab;
mod timers;
mod tls;
mod watch;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::probe::Responder;
use crate::smtp::{DialogueConfig, Outcome, TlsRecord, Transcript};

pub use adopt::{ADOPT_WITHIN, Adopter, Connect, WAIT_MARK};
pub use asn::{AsTable, AsTableError};
pub use engine::Engine;
pub use histogram::{Histogram, Timings};
pub use record_only::record_only;
pub use tls::{TlsClient, TlsConfig, TlsError, TlsState};
pub use watch::{Seen, Watch};

/// Sessions held open at once, unless told otherwise. Tarpits and greet delays make sessions last for
/// minutes, so there must be room for many; each costs less than a kilobyte here and a few in the
/// kernel.
pub const MAX_SESSIONS: usize = 32_768;

/// Sessions held open at once into one /24, unless told otherwise.
pub const MAX_SESSIONS_PER_24: usize = 8;

/// How sessions are held.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// What is said, and the bounds on time and size.
    pub dialogue: DialogueConfig,
    /// Sessions open at once, at least 1.
    pub max_sessions: usize,
    /// Sessions open at once into one /24, at least 1.
    pub per_24: usize,
    /// Sessions open at once into one autonomous system, where that matters.
    pub per_as: Option<AsCap>,
    /// The address to connect from; `None` leaves it to the routing table.
    pub source: Option<Ipv4Addr>,
    /// Whether TLS comes before the greeting (port 465), and not after STARTTLS if at all.
    pub implicit_tls: bool,
    /// The server name to say in TLS, if there is one.
    pub sni: Option<String>,
}

/// A cap on sessions into one autonomous system. Addresses that no prefix of the table holds have none.
#[derive(Debug, Clone)]
pub struct AsCap {
    /// Which AS an address belongs to.
    pub table: Arc<AsTable>,
    /// Sessions open at once into one of them, at least 1.
    pub most: usize,
}

impl SessionConfig {
    /// [`MAX_SESSIONS`] at once, [`MAX_SESSIONS_PER_24`] into one /24, from wherever the routing
    /// table says.
    pub fn new(dialogue: DialogueConfig) -> Self {
        Self {
            dialogue,
            max_sessions: MAX_SESSIONS,
            per_24: MAX_SESSIONS_PER_24,
            per_as: None,
            source: None,
            implicit_tls: false,
            sni: None,
        }
    }
}

/// Told what a peer has said so far; says whether more would be asked in vain. It runs on the engine's
/// thread before each probe, so it must be quick.
pub type Judge = Box<dyn FnMut(&Transcript) -> bool + Send>;

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
    /// What came of TLS, if it was begun.
    pub tls: Option<Box<TlsRecord>>,
    /// When the connection was begun, in Unix microseconds.
    pub started_us: u64,
    /// Milliseconds from there to the established connection, if it came about.
    pub connect_ms: Option<u32>,
    /// Milliseconds from there to the end.
    pub duration_ms: u32,
}

/// What the engine is to do; kept as a number in an atomic that its owner may raise at any time.
/// In each mode the engine serves until the channel of responders is closed: who stops it should
/// have responders stop coming, and close the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// Hold a session with every responder.
    Run = 0,
    /// Let open sessions come to their own ends, but dial nobody any more: who waits, and who
    /// still comes, is recorded as interrupted at once. Not to be taken back.
    Drain = 1,
    /// End open sessions as well, with QUIT where that is possible at once: all are recorded as
    /// interrupted.
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
    ready: AtomicU64,
    capped: AtomicU64,
    open: AtomicU64,
    longest_wait_us: AtomicU64,
    adopted: AtomicU64,
    dialled: AtomicU64,
    commands: AtomicU64,
    spoken: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    timings: Timings,
}

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            ready: AtomicU64::new(0),
            capped: AtomicU64::new(0),
            open: AtomicU64::new(0),
            longest_wait_us: AtomicU64::new(0),
            adopted: AtomicU64::new(0),
            dialled: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            spoken: AtomicU64::new(0),
            outcomes: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
            timings: Timings::new(),
        }
    }

    /// Responders that wait for their session, for whatever reason: [`Self::queued_ready`] and
    /// [`Self::queued_capped`].
    pub fn queued(&self) -> u64 {
        self.queued_ready() + self.queued_capped()
    }

    /// Responders that wait for nothing but room for one more session, those still in the channel
    /// included. Renewed every 20 ms at the latest.
    pub fn queued_ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Responders that wait for sessions in their own /24 to end, because these, or those that
    /// wait before them, make up its cap. Renewed every 20 ms at the latest.
    pub fn queued_capped(&self) -> u64 {
        self.capped.load(Ordering::Relaxed)
    }

    /// Sessions open now, those still connecting included.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How long the one who is next has been waiting for room for one more session, since its
    /// SYN-ACK came. Renewed every 20 ms at the latest.
    pub fn longest_wait(&self) -> Duration {
        Duration::from_micros(self.longest_wait_us.load(Ordering::Relaxed))
    }

    /// Connections made of the sweep's own handshakes.
    pub fn adopted(&self) -> u64 {
        self.adopted.load(Ordering::Relaxed)
    }

    /// Connections begun anew.
    pub fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
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

    /// Commands said in sessions that are recorded.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Responders recorded to whom a command was said.
    pub fn spoken_to(&self) -> u64 {
        self.spoken.load(Ordering::Relaxed)
    }

    /// How long the sessions took that had begun to connect.
    pub const fn timings(&self) -> &Timings {
        &self.timings
    }

    fn set(&self, ready: usize, capped: usize, open: usize) {
        self.ready.store(ready as u64, Ordering::Relaxed);
        self.capped.store(capped as u64, Ordering::Relaxed);
        self.open.store(open as u64, Ordering::Relaxed);
    }

    fn set_longest_wait(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.longest_wait_us.store(us, Ordering::Relaxed);
    }

    fn count_connection(&self, adopted: bool) {
        let counter = if adopted {
            &self.adopted
        } else {
            &self.dialled
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One more responder recorded, to whom so many commands were said.
    fn count(&self, outcome: Outcome, commands: usize) {
        self.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
        let commands = commands as u64;
        self.commands.fetch_add(commands, Ordering::Relaxed);
        self.spoken
            .fetch_add(u64::from(commands > 0), Ordering::Relaxed);
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
    /// TLS was wanted and cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The consumer of records went away.
    #[error("hand over session records: their consumer has ended; {0} records are lost")]
    ConsumerGone(u64),
}

#[cfg(test)]
mod tests;
