//! How long things took, over all sessions: counts in buckets that double in width.
//!
//! Four spans of every session, in milliseconds: until the connection stood, from there to the
//! server's first octet, from each command to the last octet of its reply, and the whole. They tell
//! whether the limits on time fit the peers: a limit that cuts off the foot of a hill is too short.
//!
//! Written by the engine's thread alone, read by anyone; a hundred numbers, however long the sweep.

use std::sync::atomic::{AtomicU64, Ordering};

use super::SessionRecord;
use crate::smtp::{Side, Transcript};

/// Counts by powers of two: the first bucket takes 0 ms, the next 1 ms, then 2–3, 4–7 and so on;
/// the last all that is longer.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
}

impl Histogram {
    /// Up to 2^18 ms (four minutes, longer than a session) and one for what is beyond.
    pub const BUCKETS: usize = 20;

    /// Nothing counted.
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; Self::BUCKETS],
        }
    }

    fn count(&self, ms: u32) {
        let bucket = (u32::BITS - ms.leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// The buckets that are not empty, shortest first: milliseconds that all in it fell short of
    /// (`None`: no bound), and how many.
    pub fn filled(&self) -> Vec<(Option<u64>, u64)> {
        self.buckets
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .enumerate()
            .filter(|(_, count)| *count > 0)
            .map(|(bucket, count)| ((bucket < Self::BUCKETS - 1).then_some(1 << bucket), count))
            .collect()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The four spans.
#[derive(Debug, Default)]
pub struct Timings {
    /// From the SYN to the established connection, where it came about.
    pub connect: Histogram,
    /// From there to the server's first octet, where there was one.
    pub greeting_delay: Histogram,
    /// From each command to the last octet of its reply, where there was one; QUIT included.
    pub step: Histogram,
    /// From the SYN to the end, however it came.
    pub session: Histogram,
}

impl Timings {
    /// Nothing counted.
    pub const fn new() -> Self {
        Self {
            connect: Histogram::new(),
            greeting_delay: Histogram::new(),
            step: Histogram::new(),
            session: Histogram::new(),
        }
    }

    /// Each with the name under which it is stored.
    pub fn named(&self) -> [(&'static str, &Histogram); 4] {
        [
            ("connect_ms", &self.connect),
            ("greeting_delay_ms", &self.greeting_delay),
            ("step_ms", &self.step),
            ("session_ms", &self.session),
        ]
    }

    /// Counts a session to which a connection was begun.
    pub(super) fn count(&self, record: &SessionRecord) {
        if let Some(ms) = record.connect_ms {
            self.connect.count(ms);
        }
        if let Some(ms) = record.transcript.greeting_delay_ms() {
            self.greeting_delay.count(ms);
        }
        steps(&record.transcript, |ms| self.step.count(ms));
        self.session.count(record.duration_ms);
    }
}

/// Tells for each command that was answered how long that took.
fn steps(transcript: &Transcript, mut tell: impl FnMut(u32)) {
    let mut pieces = transcript.pieces.iter().peekable();
    while let Some(command) = pieces.next() {
        if command.side != Side::Client {
            continue;
        }
        let mut answered = None;
        while let Some(answer) = pieces.next_if(|piece| piece.side == Side::Server) {
            answered = Some(answer.at_ms);
        }
        if let Some(at_ms) = answered {
            tell(at_ms.saturating_sub(command.at_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::{Piece, Stage};

    #[test]
    fn buckets_double() {
        let histogram = Histogram::new();
        for ms in [0, 1, 2, 3, 4, 262_143, 262_144, u32::MAX] {
            histogram.count(ms);
        }
        assert_eq!(
            histogram.filled(),
            [
                (Some(1), 1),
                (Some(2), 1),
                (Some(4), 2),
                (Some(8), 1),
                (Some(262_144), 1),
                (None, 2)
            ]
        );
    }

    #[test]
    fn a_step_lasts_to_the_end_of_its_reply() {
        let piece = |at_ms, side| Piece {
            at_ms,
            side,
            stage: Stage::Ehlo,
            bytes: vec![b'x'],
        };
        let (us, them) = (Side::Client, Side::Server);
        let transcript = Transcript {
            pieces: vec![
                piece(5, them),
                piece(6, us),
                piece(8, them),
                piece(16, them),
                piece(20, us),
                piece(25, us),
                piece(25, them),
                piece(30, us),
            ],
            cut: 0,
        };
        let mut told = Vec::new();
        steps(&transcript, |ms| told.push(ms));
        assert_eq!(told, [10, 0], "what was not answered took no time");
    }
}
