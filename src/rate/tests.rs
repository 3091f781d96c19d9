//! The bucket under callers of every kind, in virtual time.

use super::*;
use proptest::prelude::*;

const RATES: [f64; 26] = [
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
    1_999.0,
    9_999.0,
    10_000.0,
    148_809.5,
    1_000_000.0,
    1_488_095.2,
    3_333_333.3,
    10_000_000.0,
    14_880_952.4,
    20_000_000.0,
    100_000_000.0,
];

fn rate(packets_per_second: f64) -> PacketsPerSecond {
    PacketsPerSecond::new(packets_per_second).unwrap()
}

fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

/// What the module's head calls b.
fn burst(r: f64) -> usize {
    let fits = |b: &usize| *b as f64 * 1e3 <= r;
    (1..=256).rev().find(fits).unwrap_or(1)
}

/// Numbers in 0 .. 1 without order, from a fixed sequence.
fn random() -> impl FnMut() -> f64 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Grants and their instants, from the first on.
type Grants = Vec<(Duration, usize)>;

/// A caller for so long who asks whenever the bucket says, but comes `late` each time.
fn called(
    r: f64,
    over: Duration,
    mut late: impl FnMut(Duration) -> Duration,
    mut want: impl FnMut() -> usize,
) -> Grants {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(rate(r), start);
    let (mut now, mut grants) = (start, Vec::new());
    while now < start + over {
        match bucket.take(now, want()) {
            0 => {
                let next = bucket.next(now);
                assert!(next > now, "{r}: nothing granted when it was promised");
                now = next + late(now - start);
            }
            granted => grants.push((now - start, granted)),
        }
    }
    grants
}

/// Some seconds, in which there are at least 20 packets, and three million at most.
fn a_while(r: f64) -> Duration {
    seconds((20.0 / r).max(1.0).min(3e6 / r))
}

/// Asserts that the rate was kept to 1 % (and to the burst).
fn assert_exact(r: f64, grants: &Grants, over: Duration) {
    let granted: usize = grants.iter().map(|(_, granted)| granted).sum();
    let expected = r * over.as_secs_f64();
    let error = (granted as f64 - expected).abs();
    assert!(
        error <= (expected * 0.01).max(burst(r) as f64),
        "{r}: {granted} granted, {expected} expected"
    );
}

/// Asserts that in no window more left than the module's head promises.
fn assert_bounded(r: f64, grants: &Grants) {
    let (b, reserve) = (burst(r) as f64, (r / 100.0).floor().max(1.0));
    // The bound for windows of every length: the lowest value that (granted so far − rate·time) had
    // before limits what it may be from then on.
    for (rate, allowance) in [(r, reserve + 1.0), (4.0 * r, b)] {
        let (mut sum, mut lowest) = (0.0, f64::INFINITY);
        for &(at, granted) in grants {
            let earned = rate * at.as_secs_f64();
            lowest = f64::min(lowest, sum - earned);
            sum += granted as f64;
            let excess = sum - earned - lowest;
            assert!(
                excess <= allowance + 1e-3,
                "{r}: {excess} above {rate}/s, {allowance} allowed"
            );
        }
    }
}

#[test]
fn a_punctual_caller_gets_the_rate_exactly_and_evenly() {
    for r in RATES {
        let over = a_while(r);
        let grants = called(r, over, |_| Duration::ZERO, || usize::MAX);
        let expected = r * over.as_secs_f64() / burst(r) as f64;
        assert!((grants.len() as f64 - expected).abs() <= 1.0 + 1e-6, "{r}");
        for (at, pair) in grants.windows(2).enumerate() {
            assert_eq!(pair[0].1, burst(r), "{r}");
            // Rounded up to the nanosecond at which the grant is due, and never adding up.
            let due = (at + 1) as f64 * burst(r) as f64 / r;
            let off = pair[1].0.as_secs_f64() - due;
            assert!((-1e-9..=2e-9).contains(&off), "{r}: {off} s");
            let gap = (pair[1].0 - pair[0].0).as_secs_f64();
            assert!((gap - burst(r) as f64 / r).abs() < 2e-9, "{r}");
        }
    }
}

#[test]
fn bursts_are_small_whatever_the_caller_wants() {
    for (r, b) in [
        (1.0, 1),
        (1_999.0, 1),
        (2_000.0, 2),
        (50_000.0, 50),
        (256_000.0, 256),
        (100_000_000.0, 256),
    ] {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate(r), start);
        assert_eq!(bucket.burst(), b);
        for idle in [0.0, 1.0, 100.0, 1e12] {
            let now = start + seconds(idle);
            let at_once: usize = (0..5).map(|_| bucket.take(now, usize::MAX)).sum();
            assert_eq!(at_once, b, "{r} after {idle} s");
        }
    }
}

#[test]
fn a_late_caller_gets_the_rate_too() {
    for r in RATES {
        let (over, mut random) = (a_while(r), random());
        // Up to half a burst late each time, as after a sleep.
        let half = burst(r) as f64 / r / 2.0;
        let grants = called(r, over, |_| seconds(random() * half), || usize::MAX);
        assert_exact(r, &grants, over);
        assert_bounded(r, &grants);
    }
}

#[test]
fn a_caller_who_is_kept_off_the_processor_gets_the_rate_too() {
    for r in RATES.into_iter().filter(|r| *r >= 1_000.0) {
        for stall in [0.001, 0.005, 0.0085] {
            // Stalls as long as the runs between them.
            let over = a_while(r);
            let mut until = stall;
            let late = |now: Duration| {
                if now.as_secs_f64() < until {
                    return Duration::ZERO;
                }
                until = now.as_secs_f64() + 2.0 * stall;
                seconds(stall)
            };
            let grants = called(r, over, late, || usize::MAX);
            // The end may fall into a stall.
            let whole = grants.last().unwrap().0;
            assert_exact(r, &grants, whole);
            assert_bounded(r, &grants);
        }
    }
}

#[test]
fn a_caller_with_little_to_send_at_a_time_gets_the_rate_too() {
    for r in RATES {
        let over = a_while(r);
        let b = burst(r);
        let mut wants = [1, b / 2 + 1, 2 * b, 3, b / 3 + 1].into_iter().cycle();
        let grants = called(r, over, |_| Duration::ZERO, || wants.next().unwrap());
        assert_exact(r, &grants, over);
        assert_bounded(r, &grants);
    }
}

#[test]
fn what_was_not_used_in_time_is_gone() {
    for r in [1.0, 99.0, 150.0, 10_000.0, 1_000_000.0] {
        let mut random = random();
        // Away for up to 50 ms, or two packets' time, again and again.
        let away = f64::max(0.05, 2.0 / r);
        let over = seconds(400.0 * away);
        let grants = called(r, over, |_| seconds(random() * away), || usize::MAX);
        assert_bounded(r, &grants);
        let granted: usize = grants.iter().map(|(_, granted)| granted).sum();
        assert!((granted as f64) < 0.9 * r * over.as_secs_f64(), "{r}");
    }
}

#[test]
fn few_wait_for_no_more_than_themselves() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(rate(100_000.0), start);
    assert_eq!(bucket.take(start, 100), 100);
    let now = start + seconds(0.00003);
    assert_eq!(bucket.take(now, 4), 0);
    assert_eq!(bucket.take(now, 3), 3);
    assert_eq!(bucket.take(now, 0), 0);
    // Reckoned as a burst: then whatever is wanted is there.
    assert_eq!(bucket.next(now), now + seconds(0.001));
}

#[test]
fn what_did_not_leave_may_leave_later() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(rate(100_000.0), start);
    assert_eq!(bucket.take(start, 100), 100);
    bucket.give_back(30);
    assert_eq!(bucket.take(start, 31), 0);
    assert_eq!(bucket.take(start, 30), 30);
    bucket.give_back(usize::MAX);
    assert_eq!(bucket.take(start, usize::MAX), 100);
    assert_eq!(bucket.take(start, usize::MAX), 0);
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
    // The last of what was left, caught up at four times the rate at most; then the rate alone.
    let after = bucket.next(next);
    assert!(after >= next + seconds(0.025) && after <= next + seconds(0.1));
    assert_eq!(bucket.take(after, usize::MAX), 1);
    let last = bucket.next(after);
    assert_eq!(bucket.take(last, usize::MAX), 1);
    assert_eq!(bucket.next(last), last + seconds(0.1));
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
            prop_assert!(taken == 0 || taken == want.min(bucket.burst()));
            let next = bucket.next(now);
            if next > now {
                let just_before = next - Duration::from_nanos(1);
                prop_assert_eq!(bucket.clone().take(just_before, usize::MAX), 0);
            }
            prop_assert_eq!(bucket.clone().take(next, usize::MAX), bucket.burst());
            now = next + Duration::from_nanos(late_ns);
        }
    }
}
