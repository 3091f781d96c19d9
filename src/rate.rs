//! When the next packets may leave: a token bucket that is told the time.
//!
//! It never sleeps and reads no clock. The caller says `now`, hears how many packets may leave, and
//! from [`TokenBucket::next`] when to ask again. So a test drives hours of it in milliseconds.
//!
//! **What it promises** at a rate r (packets/s), with a burst b = 1 ms·r, rounded down, but 1 to 256,
//! and a reserve B = 10 ms·r, rounded down, but at least 1:
//! - packets are granted b at a time (or as few as are wanted), b/r apart: evenly at low rates, and
//!   with no more than 1 ms or 256 packets between one system call and the next at high ones;
//! - at any one instant at most b packets leave, however long nobody asked;
//! - in any window of length T at most r·T + B + 1 packets leave, and at most 4·r·T + b: a caller
//!   who was late catches up at four times the rate, not all at once;
//! - nothing is lost to rounding, or to a caller who comes late by no more than 5 ms and then asks
//!   whenever [`TokenBucket::next`] says: the average is exactly r as long as the caller takes what
//!   is granted. What a caller who stays away longer did not use is gone, because "1 % over a
//!   second" holds for too much as well.
//!
//! Arithmetic is in whole numbers, so there is no drift: rates have a resolution of 0.001
//! packets/s, time of 1 ns, and a packet is 10^12 units of credit (their product).

mod units;

use std::time::{Duration, Instant};

pub use units::{Bandwidth, PacketsPerSecond, RateError, wire_octets};

/// Units of credit in a packet: thousandths of a packet/s times nanoseconds in a second.
const PACKET: u64 = 1_000 * NANOS_PER_SECOND;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How many times faster than the rate a late caller may catch up. A sender that another program
/// keeps off its processor for half of the time still reaches the rate; yet it never sends more at
/// once than it always does.
const CATCH_UP: u64 = 4;

/// Grants packets at a rate. See the module's head for what it promises.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: PacketsPerSecond,
    /// What may leave by the rate, in units; below the reserve and one packet.
    credit: u64,
    /// What may leave by the rate at which is caught up, in units; at most a burst.
    surge: u64,
    /// Up to when time has been turned into credit.
    settled: Instant,
}

impl TokenBucket {
    /// A bucket that lets the first burst go at once.
    pub fn new(rate: PacketsPerSecond, now: Instant) -> Self {
        let burst = rate.burst() * PACKET;
        Self {
            rate,
            credit: burst,
            surge: burst,
            settled: now,
        }
    }

    /// The rate.
    pub fn rate(&self) -> PacketsPerSecond {
        self.rate
    }

    /// How many packets are granted at once at most: 1 ..= 256.
    pub fn burst(&self) -> usize {
        usize::try_from(self.rate.burst()).unwrap_or(usize::MAX)
    }

    /// Another rate from now on. What has been earned so far was earned at the old one.
    pub fn set_rate(&mut self, rate: PacketsPerSecond, now: Instant) {
        self.settle(now);
        self.rate = rate;
        self.limit();
    }

    /// How many of the `want` packets may leave now; they count as gone. All of them, or a burst
    /// if that is less; or none, as long as there is not credit for so many.
    pub fn take(&mut self, now: Instant, want: usize) -> usize {
        self.settle(now);
        let granted = want.min(self.burst());
        let cost = granted as u64 * PACKET;
        if cost > self.credit.min(self.surge) {
            return 0;
        }
        self.credit -= cost;
        self.surge -= cost;
        granted
    }

    /// Returns packets that were granted but did not leave. What exceeds the reserve is gone.
    pub fn give_back(&mut self, packets: usize) {
        let more = (packets as u64).saturating_mul(PACKET);
        self.credit = self.credit.saturating_add(more);
        self.surge = self.surge.saturating_add(more);
        self.limit();
    }

    /// When a burst may leave: `now` if it may already, else the first instant at which
    /// [`TokenBucket::take`] grants one.
    pub fn next(&self, now: Instant) -> Instant {
        let burst = self.rate.burst() * PACKET;
        let wait = |have: u64, rate: u64| burst.saturating_sub(have).div_ceil(rate);
        let milli = self.rate.milli();
        let nanos = wait(self.credit, milli).max(wait(self.surge, milli * CATCH_UP));
        (self.settled + Duration::from_nanos(nanos)).max(now)
    }

    /// Takes away what exceeds reserve and burst. One packet more than the reserve, but for a unit,
    /// so that the part of a packet that has been earned is never lost to the limit.
    fn limit(&mut self) {
        let most = (self.rate.reserve() + 1) * PACKET - 1;
        self.credit = self.credit.min(most);
        self.surge = self.surge.min(self.rate.burst() * PACKET);
    }

    fn settle(&mut self, now: Instant) {
        // An instant before the last one (two threads' clocks) earns nothing and takes nothing.
        let Some(elapsed) = now.checked_duration_since(self.settled) else {
            return;
        };
        self.settled = now;
        let earned = elapsed
            .as_nanos()
            .saturating_mul(u128::from(self.rate.milli()));
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        self.credit = self.credit.saturating_add(earned);
        self.surge = self.surge.saturating_add(earned.saturating_mul(CATCH_UP));
        self.limit();
    }
}

#[cfg(test)]
mod tests;
