//! What choosing the next target costs: `cargo bench --bench targets`.
//!
//! `full_walk` runs through all 2^32 steps once, which takes some 20 s; unoptimised builds skip it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use smtpsweep::rate::{PacketsPerSecond, TokenBucket};
use smtpsweep::targets::{
    Blocklist, Filled, Passes, Permutation, RangeSet, Shard, Space, Spacing, Target, Walk,
};

/// Targets a batch.
const BATCH: usize = 4096;

/// Targets that leave at once.
const BURST: usize = 256;

fn main() {
    divan::main();
}

/// A space of so many ranges, spread over all of IPv4. One range: all of IPv4.
fn space(ranges: u32) -> Arc<Space> {
    let stride = u32::MAX / ranges;
    let wanted =
        RangeSet::from_ranges((0..ranges).map(|i| (i * stride, i * stride + stride.max(2) - 2)));
    Arc::new(Space::new(&wanted, &RangeSet::default()))
}

/// All of IPv4 but the built-in blocklist.
fn public() -> Arc<Space> {
    Arc::new(Space::new(
        &RangeSet::everything(),
        Blocklist::builtin().ranges(),
    ))
}

/// All of IPv4 but the built-in blocklist and so many prefixes of 24 addresses' bits and less, here
/// and there, as a blocklist of opt-outs has them.
fn opted_out(prefixes: u32) -> Arc<Space> {
    let mut state = 7u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u32::try_from(state >> 32).expect("32 bits")
    };
    let blocked = RangeSet::from_ranges((0..prefixes).map(|_| {
        let hosts = (1u32 << (random() % 13)) - 1;
        let first = random() & !hosts;
        (first, first + hosts)
    }));
    let blocked = blocked.union(Blocklist::builtin().ranges());
    Arc::new(Space::new(&RangeSet::everything(), &blocked))
}

fn walk(space: &Arc<Space>) -> Walk {
    let permutation = Permutation::new(space.len(), 42);
    Walk::new(Arc::clone(space), &permutation, Shard::WHOLE, None)
        .expect("the permutation is the space's")
}

/// The step alone: in a space of one range almost nothing else is left.
#[divan::bench]
fn permutation_step(bencher: Bencher<'_, '_>) {
    fill(bencher, &space(1));
}

/// Step and lookup, as the sender does them.
#[divan::bench(args = [10, 10_000, 1_000_000])]
fn walk_fill(bencher: Bencher<'_, '_>, ranges: u32) {
    fill(bencher, &space(ranges));
}

/// The real thing: the public IPv4 space.
#[divan::bench]
fn walk_fill_public(bencher: Bencher<'_, '_>) {
    fill(bencher, &public());
}

/// The public IPv4 space less a blocklist of 10,000 prefixes.
#[divan::bench]
fn walk_fill_blocklist_10k(bencher: Bencher<'_, '_>) {
    fill(bencher, &opted_out(10_000));
}

/// Three probes a target, half a second apart, at a million probes a second.
#[divan::bench]
fn passes_fill(bencher: Bencher<'_, '_>) {
    let space = opted_out(10_000);
    let permutation = Permutation::new(space.len(), 42);
    let spacing = Spacing::time(Duration::from_millis(500));
    let mut passes = Passes::new(&space, &permutation, Shard::WHOLE, 3, spacing, None)
        .expect("the permutation is the space's");
    let (mut now, mut targets) = (Instant::now(), Vec::with_capacity(BURST));
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for _ in 0..BATCH / BURST {
            now += Duration::from_micros(BURST as u64);
            targets.clear();
            let filled = passes.fill(now, black_box(&mut targets), BURST);
            assert_eq!(filled, Filled::Targets(BURST));
        }
    });
}

/// Asking for a burst, which is 256 packets, with the clock that it takes.
#[divan::bench]
fn pacing(bencher: Bencher<'_, '_>) {
    let rate = PacketsPerSecond::new(PacketsPerSecond::MAX).expect("the highest rate");
    let mut bucket = TokenBucket::new(rate, Instant::now());
    bencher
        .counter(ItemsCount::new(BURST))
        .bench_local(|| bucket.take(Instant::now(), black_box(BURST)));
}

fn fill(bencher: Bencher<'_, '_>, space: &Arc<Space>) {
    let mut walk = walk(space);
    let mut targets = Vec::with_capacity(BATCH);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        targets.clear();
        walk.fill(black_box(&mut targets), BATCH)
    });
}

/// Index to address, for indices without order.
#[divan::bench(args = [1, 10, 10_000, 10_000_000])]
fn index_to_address(bencher: Bencher<'_, '_>, ranges: u32) {
    let space = space(ranges);
    // Never the same index again: repeated ones would be found in the cache.
    let mut state = 0u64;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let mut sum = 0u32;
        for _ in 0..BATCH {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let index = (mixed >> 31) % space.len();
            sum = sum.wrapping_add(space.target(index).map_or(0, Target::bits));
        }
        sum
    });
}

/// Whether an address that arrived from outside is a target.
#[divan::bench(args = [10, 10_000])]
fn admit(bencher: Bencher<'_, '_>, ranges: u32) {
    let space = space(ranges);
    let addresses: Vec<u32> = (0..4096u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        black_box(&addresses)
            .iter()
            .filter(|&&a| space.admit(a.into()).is_some())
            .count()
    });
}

/// Every public address once.
#[divan::bench(sample_count = 1, sample_size = 1, ignore = cfg!(debug_assertions))]
fn full_walk(bencher: Bencher<'_, '_>) {
    let space = public();
    bencher
        .counter(ItemsCount::new(space.len()))
        .bench_local(|| {
            let mut walk = walk(&space);
            let mut targets: Vec<Target> = Vec::with_capacity(BATCH);
            let mut sum = 0u64;
            while walk.fill(&mut targets, BATCH) > 0 {
                sum += targets.iter().map(|t| u64::from(t.bits())).sum::<u64>();
                targets.clear();
            }
            // Each address once: their sum is known.
            let (first_plus_last, half) = (|(a, b): (u32, u32)| u128::from(a) + u128::from(b), 2);
            let expected: u128 = space
                .ranges()
                .iter()
                .map(|r| first_plus_last(r) * u128::from(r.1 - r.0 + 1) / half)
                .sum();
            assert_eq!(u128::from(sum), expected);
        });
}
