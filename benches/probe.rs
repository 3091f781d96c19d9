//! The costs per probe and per answer: cookie, patching the frame, classifying, duplicates.
//!
//! `cargo bench --bench probe`; figures are per item.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use smtpsweep::net::{Discard, DryRun, Transmit};
use smtpsweep::probe::answer::{icmp_unreachable_for, synack_for};
use smtpsweep::probe::{Classifier, CookieKey, Cookies, Dedup, Syn, SynLayout};
use smtpsweep::targets::{Blocklist, Permutation, RangeSet, Shard, Space, Target, Walk};

const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Items per sample, so that the timer's own cost vanishes.
const ITEMS: usize = 4096;

fn main() {
    divan::main();
}

fn cookies() -> Cookies {
    Cookies::new(CookieKey::derive(7, &[7; 16]), 40_000..=49_999, 25)
}

fn syn() -> Syn {
    let link = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    Syn::new(&link, US, 255, SynLayout::Linux, cookies())
}

/// Addresses all over 10.0.0.0/8, as a permuted walk yields them.
fn targets() -> Vec<Target> {
    let wanted = RangeSet::from_ranges([(0x0a00_0000, 0x0aff_ffff)]);
    let space = Space::new(
        &wanted,
        &RangeSet::from_ranges(std::iter::empty::<(u32, u32)>()),
    );
    let index = |at: usize| (at as u64 * 2_654_435_761) % (1 << 24);
    (0..ITEMS)
        .map(|at| space.target(index(at)).expect("an index within the space"))
        .collect()
}

fn frames(answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let syn = syn();
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    let answers = targets().into_iter().map(|target| {
        syn.stamp(&mut frame, target);
        answer(&frame).expect("an answer to a SYN")
    });
    answers.collect()
}

#[divan::bench]
fn cookie(bencher: Bencher<'_, '_>) {
    let (cookies, targets) = (cookies(), targets());
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for target in &targets {
            black_box(cookies.of(US, target.addr()));
        }
    });
}

#[divan::bench]
fn stamp(bencher: Bencher<'_, '_>) {
    let (syn, targets) = (syn(), targets());
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for target in &targets {
            syn.stamp(black_box(&mut frame), *target);
        }
    });
}

/// Frames that the sender stamps at once.
const BATCH: usize = 256;

#[divan::bench]
fn cookie_batch(bencher: Bencher<'_, '_>) {
    let (cookies, targets) = (cookies(), targets());
    let mut made = vec![cookies.of(US, US); BATCH];
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for targets in targets.chunks(BATCH) {
            cookies.of_batch(US, targets, black_box(&mut made));
        }
    });
}

/// Prepared frames that lie in a row.
fn frames_of(syn: &Syn) -> Vec<u8> {
    let mut frames = vec![0; syn.frame_len() * BATCH];
    for frame in frames.chunks_mut(syn.frame_len()) {
        syn.prepare(frame);
    }
    frames
}

#[divan::bench]
fn stamp_batch(bencher: Bencher<'_, '_>) {
    let (syn, targets) = (syn(), targets());
    let mut frames = frames_of(&syn);
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for targets in targets.chunks(BATCH) {
            syn.stamp_batch(black_box(&mut frames), syn.frame_len(), targets);
        }
    });
}

/// A walk over public IPv4 less a blocklist of so many prefixes.
fn walk(prefixes: u32) -> Walk {
    let blocked = (0..prefixes).map(|i| i.wrapping_mul(0x9e37_79b9) & !0xff);
    let blocked = RangeSet::from_ranges(blocked.map(|first| (first, first + 0xff)));
    let blocked = blocked.union(Blocklist::builtin().ranges());
    let space = Arc::new(Space::new(&RangeSet::everything(), &blocked));
    let permutation = Permutation::new(space.len(), 42);
    Walk::new(space, &permutation, Shard::WHOLE, None).expect("a whole walk")
}

/// From the walk to frames that are ready to leave: permutation, lookup, cookie, header fields,
/// checksums.
#[divan::bench(args = [0, 10_000])]
fn chain(bencher: Bencher<'_, '_>, prefixes: u32) {
    let (mut walk, syn) = (walk(prefixes), syn());
    let (mut frames, mut targets) = (frames_of(&syn), Vec::with_capacity(BATCH));
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for _ in 0..ITEMS / BATCH {
            targets.clear();
            walk.fill(&mut targets, BATCH);
            syn.stamp_batch(black_box(&mut frames), syn.frame_len(), &targets);
        }
    });
}

/// The same through the seam to the network, as `--dryrun` runs it.
fn dry_run(bencher: Bencher<'_, '_>, mut transmit: impl Transmit) {
    let (mut walk, mut targets) = (walk(10_000), Vec::with_capacity(BATCH));
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for _ in 0..ITEMS / BATCH {
            targets.clear();
            walk.fill(&mut targets, BATCH);
            transmit.send(&targets).expect("room for all");
        }
    });
}

#[divan::bench]
fn dry_run_discard(bencher: Bencher<'_, '_>) {
    dry_run(bencher, Discard::new(syn()));
}

#[divan::bench]
fn dry_run_print(bencher: Bencher<'_, '_>) {
    dry_run(bencher, DryRun::new(syn(), io::sink()));
}

fn classify(bencher: Bencher<'_, '_>, frames: &[Vec<u8>]) {
    let classifier = Classifier::new(US, cookies(), 14);
    assert!(
        frames
            .iter()
            .all(|frame| classifier.classify(frame, 0).is_ok())
    );
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for frame in frames {
            let _ = black_box(classifier.classify(black_box(frame), 0));
        }
    });
}

#[divan::bench]
fn classify_synack(bencher: Bencher<'_, '_>) {
    classify(bencher, &frames(synack_for));
}

#[divan::bench]
fn classify_icmp(bencher: Bencher<'_, '_>) {
    classify(bencher, &frames(|frame| icmp_unreachable_for(frame, 13, 8)));
}

/// Validation with the duplicate filter, as the receiver does it: of every answer from
/// 10.0.0.0/12, in the order of a walk; or of some from all over IPv4, where each falls on memory
/// that no cache holds.
#[divan::bench(args = ["10.0.0.0/12", "0.0.0.0/0"])]
fn classify_and_dedup(bencher: Bencher<'_, '_>, network: &str) {
    const ANSWERS: usize = 1 << 16;
    let wanted = match network {
        "10.0.0.0/12" => RangeSet::from_ranges([(0x0a00_0000, 0x0a0f_ffff)]),
        _ => RangeSet::everything(),
    };
    let space = Arc::new(Space::new(&wanted, &RangeSet::default()));
    let permutation = Permutation::new(space.len(), 42);
    let mut walk = Walk::new(space, &permutation, Shard::WHOLE, None).expect("a whole walk");
    let (mut targets, syn) = (Vec::new(), syn());
    walk.fill(&mut targets, ANSWERS);
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    // In a row, as in a receive ring.
    let mut ring = Vec::new();
    for target in &targets {
        syn.stamp(&mut frame, *target);
        ring.extend(synack_for(&frame).expect("an answer to a SYN"));
    }
    let frame_len = ring.len() / ANSWERS;
    let classifier = Classifier::new(US, cookies(), 14);
    let mut dedup = Dedup::new();
    bencher.counter(ItemsCount::new(ANSWERS)).bench_local(|| {
        let fresh = ring.chunks_exact(frame_len).filter(|frame| {
            let reply = classifier.classify(frame, 0).expect("a valid answer");
            dedup.first(reply.addr().to_bits())
        });
        fresh.count()
    });
}

#[divan::bench]
fn dedup(bencher: Bencher<'_, '_>) {
    let targets = targets();
    let mut dedup = Dedup::new();
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        for target in &targets {
            black_box(dedup.first(target.bits()));
        }
    });
}
