//! When the next packets may leave: a token bucket that is told the time.
//!
//! It never sleeps and reads no clock. The caller says `now`, hears how many packets may leave, and
//! from [`TokenBucket::next`] when to ask again. So a test drives hours of it in milliseconds.
//!
//! **What it promises** at a rate r (packets/s), with B = 10 ms·r, rounded down, but at least 1:
//! - at any one instant at most B packets leave, however long nobody asked;
//! - in any window of length T at most r·T + B + 1 packets leave;
//! - nothing is lost to rounding, or to a caller who comes late by no more than 5 ms: the average
//!   is exactly r as long as the caller takes what is granted. What a caller who stays away longer
//!   did not use is gone, because a burst to catch up is what the limit is there to prevent.
//!
//! Arithmetic is in whole numbers, so there is no drift: rates have a resolution of 0.001
//! packets/s, time of 1 ns, and a packet is 10^12 units of credit (their product).

mod units;

use std::time::{Duration, Instant};

pub use units::{Bandwidth, PacketsPerSecond, RateError, wire_octets};

/// Units of credit in a packet: thousandths of a packet/s times nanoseconds in a second.
const PACKET: u64 = 1_000 * NANOS_PER_SECOND;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Grants packets at a rate. See the module's head for what it promises.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: PacketsPerSecond,
    /// What may leave, in units; below the burst and one packet, so that a grant never exceeds the
    /// burst and what is left after it is less than a packet.
    credit: u64,
    /// Up to when time has been turned into credit.
    settled: Instant,
}

impl TokenBucket {
    /// A bucket that lets the first packet go at once.
    pub fn new(rate: PacketsPerSecond, now: Instant) -> Self {
        Self {
            rate,
            credit: PACKET,
            settled: now,
        }
    }

    /// The rate.
    pub fn rate(&self) -> PacketsPerSecond {
        self.rate
    }

    /// Another rate from now on. What has been earned so far was earned at the old one.
    pub fn set_rate(&mut self, rate: PacketsPerSecond, now: Instant) {
        self.settle(now);
        self.rate = rate;
        self.credit = self.credit.min(self.most());
    }

    /// How many of the `want` packets may leave now; they count as gone.
    pub fn take(&mut self, now: Instant, want: usize) -> usize {
        self.settle(now);
        let ready = usize::try_from(self.credit / PACKET).unwrap_or(usize::MAX);
        let granted = want.min(ready);
        self.credit -= granted as u64 * PACKET;
        granted
    }

    /// Returns packets that were granted but did not leave. What exceeds a burst is gone.
    pub fn give_back(&mut self, packets: usize) {
        let more = (packets as u64).saturating_mul(PACKET);
        self.credit = self.credit.saturating_add(more).min(self.most());
    }

    /// When the next packet may leave: `now` if one may already, else the first instant at which
    /// [`TokenBucket::take`] grants one.
    pub fn next(&self, now: Instant) -> Instant {
        let lacking = PACKET.saturating_sub(self.credit);
        let at = self.settled + Duration::from_nanos(lacking.div_ceil(self.rate.milli()));
        at.max(now)
    }

    /// The most credit there can be.
    fn most(&self) -> u64 {
        (self.rate.burst() + 1) * PACKET - 1
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
        self.credit = self.credit.saturating_add(earned).min(self.most());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: [f64; 24] = [
        1.0,
        1.5,
        2.0,
        3.0,
        7.0,
        10.0,
        33.3,
        50.0,
        99.0,
        100.0,
        101.0,
        150.0,
        199.0,
        1_000.0,
        1_234.567,
        9_999.0,
        10_000.0,
        148_809.5,
        1_000_000.0,
        1_488_095.2,
        3_333_333.3,
        10_000_000.0,
        14_880_952.4,
        20_000_000.0,
    ];

    fn rate(packets_per_second: f64) -> PacketsPerSecond {
        PacketsPerSecond::new(packets_per_second).unwrap()
    }

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    /// Irregular gaps up to `most`, from a fixed sequence.
    fn gaps(most: Duration) -> impl Iterator<Item = Duration> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            most.mul_f64((state >> 11) as f64 / (1u64 << 53) as f64)
        })
    }

    /// Asserts that `granted` in `over` is the rate to 1 % (and to the packet).
    fn assert_exact(rate: f64, granted: usize, over: Duration) {
        let expected = rate * over.as_secs_f64();
        let error = (granted as f64 - expected).abs();
        assert!(
            error <= (expected * 0.01).max(1.0),
            "{rate}: {granted} granted, {expected} expected"
        );
    }

    #[test]
    fn a_caller_who_waits_as_told_gets_exactly_the_rate() {
        for r in RATES {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate(r), start);
            // At least 20 packets, and half a million at most.
            let over = seconds((20.0 / r).max(1.0).min(5e5 / r));
            let (mut now, mut granted) = (start, 0);
            while now < start + over {
                let taken = bucket.take(now, 64);
                granted += taken;
                let next = bucket.next(now);
                assert!(taken > 0, "{r}: nothing granted at the promised instant");
                assert!(next >= now);
                now = next;
            }
            assert_exact(r, granted, over);
        }
    }

    #[test]
    fn irregular_callers_get_the_rate_too() {
        for r in RATES {
            for most_ms in [0.05, 1.0, 5.0] {
                let start = Instant::now();
                let mut bucket = TokenBucket::new(rate(r), start);
                let over = seconds((20.0 / r).max(1.0));
                let (mut now, mut granted) = (start, 0);
                for gap in gaps(seconds(most_ms / 1e3)) {
                    if now + gap >= start + over {
                        break;
                    }
                    now += gap;
                    granted += bucket.take(now, usize::MAX);
                }
                assert_exact(r, granted, over);
            }
        }
    }

    #[test]
    fn no_instant_has_more_than_ten_milliseconds_worth() {
        for r in RATES {
            let burst = usize::try_from(rate(r).burst()).unwrap();
            assert!(burst == 1 || burst as f64 <= r / 100.0);
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate(r), start);
            assert_eq!(bucket.take(start, usize::MAX), 1, "the start is no burst");
            for idle in [seconds(1.0), seconds(100.0), Duration::from_secs(1 << 40)] {
                let now = bucket.settled + idle;
                let at_once: usize = (0..5).map(|_| bucket.take(now, usize::MAX)).sum();
                if idle.as_secs_f64() * r >= 2.0 {
                    assert_eq!(at_once, burst, "{r} after {idle:?}");
                }
            }
        }
    }

    #[test]
    fn no_window_has_more_than_its_share_and_a_burst() {
        for r in [1.0, 99.0, 150.0, 10_000.0, 1_000_000.0] {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate(r), start);
            let mut now = start;
            let mut grants: Vec<(f64, f64)> = Vec::new();
            for gap in gaps(seconds(0.05)).take(400) {
                now += gap;
                grants.push((
                    (now - start).as_secs_f64(),
                    bucket.take(now, usize::MAX) as f64,
                ));
            }
            let burst = (r / 100.0).floor().max(1.0);
            for from in 0..grants.len() {
                let mut sum = 0.0;
                for &(at, granted) in &grants[from..] {
                    sum += granted;
                    let window = at - grants[from].0;
                    assert!(
                        sum <= r * window + burst + 1.0 + 1e-6,
                        "{r}: {sum} in {window} s"
                    );
                }
            }
        }
    }

    #[test]
    fn what_did_not_leave_may_leave_later() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate(10_000.0), start);
        let now = start + seconds(0.01);
        assert_eq!(bucket.take(now, 100), 100);
        bucket.give_back(30);
        assert_eq!(bucket.take(now, 100), 30);
        assert_eq!(bucket.take(now, 100), 0);
        bucket.give_back(usize::MAX);
        assert_eq!(bucket.take(now, usize::MAX), 100);
    }

    #[test]
    fn a_new_rate_holds_from_the_moment_it_is_set() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate(1_000_000.0), start);
        let now = start + seconds(1.0);
        bucket.set_rate(rate(10.0), now);
        assert_eq!(bucket.rate(), rate(10.0));
        assert_eq!(bucket.take(now, usize::MAX), 1);
        // What was left is less than a packet, so the next is due within a tenth of a second.
        let next = bucket.next(now);
        assert!(next > now && next <= now + seconds(0.1));
        assert_eq!(bucket.take(next, usize::MAX), 1);
        assert_eq!(bucket.next(next), next + seconds(0.1));
    }

    #[test]
    fn time_that_runs_backwards_does_no_harm() {
        let start = Instant::now() + seconds(10.0);
        let mut bucket = TokenBucket::new(rate(100.0), start);
        assert_eq!(bucket.take(start - seconds(5.0), 9), 1);
        assert_eq!(bucket.take(start - seconds(5.0), 9), 0);
        assert_eq!(bucket.next(start - seconds(5.0)), start + seconds(0.01));
        assert_eq!(bucket.take(start + seconds(0.01), 9), 1);
    }

    proptest! {
        #[test]
        fn any_rate_grants_what_it_promised_when_it_promised(
            r in 0.1f64..1e8, wants in prop::collection::vec((0usize..3000, 0u64..20_000_000), 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate(r), start);
            let mut now = start;
            for (want, late_ns) in wants {
                let taken = bucket.take(now, want);
                prop_assert!(taken <= want);
                let next = bucket.next(now);
                if next > now {
                    let just_before = next - Duration::from_nanos(1);
                    prop_assert_eq!(bucket.clone().take(just_before, 1), 0);
                }
                prop_assert_eq!(bucket.clone().take(next, 1), 1);
                now = next + Duration::from_nanos(late_ns);
            }
        }
    }
}
