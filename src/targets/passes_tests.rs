//! Passes in virtual time: how often each target comes, and how far apart.

use super::*;
use crate::targets::RangeSet;
use std::collections::HashMap;

const ADDRESSES: u32 = 3000;

fn space() -> Arc<Space> {
    let wanted = RangeSet::from_ranges([(10, 9 + ADDRESSES)]);
    Arc::new(Space::new(&wanted, &RangeSet::default()))
}

fn passes(count: u8, spacing: Spacing, cursor: Option<&PassesCursor>) -> Passes {
    let space = space();
    let permutation = Permutation::new(space.len(), 4);
    Passes::new(&space, &permutation, Shard::WHOLE, count, spacing, cursor).unwrap()
}

fn one_walk() -> Vec<Target> {
    let space = space();
    let permutation = Permutation::new(space.len(), 4);
    let mut walk = Walk::new(space, &permutation, Shard::WHOLE, None).unwrap();
    let mut targets = Vec::new();
    while walk.fill(&mut targets, 1000) > 0 {}
    targets
}

/// Sends at 1,000 probes a second until all is done (or `most` are sent), in batches of
/// `batch`; says when each probe was handed out and by when it was surely sent.
fn sent(
    passes: &mut Passes,
    batch: usize,
    most: usize,
    now: &mut Instant,
) -> Vec<(Target, Instant, Instant)> {
    let (mut sent, mut targets) = (Vec::new(), Vec::new());
    while sent.len() < most {
        targets.clear();
        match passes.fill(*now, &mut targets, batch) {
            Filled::Targets(count) => {
                assert_eq!(count, targets.len());
                let begun = *now;
                for target in &targets {
                    *now += Duration::from_millis(1);
                    sent.push((*target, begun, *now));
                }
            }
            Filled::NotBefore(then) => {
                assert!(then > *now, "a wait for nothing");
                *now = then;
            }
            Filled::Done => break,
        }
        for pass in &passes.passes {
            assert!(pass.marks.len() <= MARKS as usize + 2, "memory is bounded");
        }
    }
    sent
}

/// For each target the times of its probes, handed out and sent.
fn by_target(sent: &[(Target, Instant, Instant)]) -> HashMap<Target, Vec<(Instant, Instant)>> {
    let mut times: HashMap<_, Vec<_>> = HashMap::new();
    for &(target, begun, ended) in sent {
        times.entry(target).or_default().push((begun, ended));
    }
    times
}

#[test]
fn one_pass_is_a_walk() {
    let spacing = Spacing::time(Duration::from_secs(9));
    let all = sent(
        &mut passes(1, spacing, None),
        77,
        usize::MAX,
        &mut Instant::now(),
    );
    let targets: Vec<Target> = all.iter().map(|probe| probe.0).collect();
    assert_eq!(targets, one_walk());
}

#[test]
fn full_passes_are_the_walk_again_and_again() {
    let mut passes = passes(3, Spacing::FULL_PASS, None);
    let all = sent(&mut passes, 256, usize::MAX, &mut Instant::now());
    let targets: Vec<Target> = all.iter().map(|probe| probe.0).collect();
    assert_eq!(targets, one_walk().repeat(3));
    assert!((passes.progress() - 1.0).abs() < 1e-9);
}

#[test]
fn repeats_keep_their_distance() {
    let at_least = Duration::from_millis(500);
    let mut passes = passes(3, Spacing::time(at_least), None);
    let all = sent(&mut passes, 10, usize::MAX, &mut Instant::now());
    let times = by_target(&all);
    assert_eq!(times.len(), ADDRESSES as usize);
    // A sixty-fourth, and the batches that stand in between.
    let at_most = at_least + at_least / MARKS + Duration::from_millis(60);
    for (target, probes) in times {
        assert_eq!(probes.len(), 3, "{target:?}");
        for pair in probes.windows(2) {
            assert!(pair[1].0 >= pair[0].1 + at_least, "{target:?} too early");
            assert!(pair[1].0 <= pair[0].0 + at_most, "{target:?} too late");
        }
    }
}

#[test]
fn a_distance_longer_than_the_pass_is_waited_for() {
    let at_least = Duration::from_secs(60);
    for full_pass in [false, true] {
        let spacing = Spacing {
            full_pass,
            at_least,
        };
        let mut now = Instant::now();
        let begun = now;
        let all = sent(&mut passes(2, spacing, None), 256, usize::MAX, &mut now);
        let times = by_target(&all);
        assert_eq!(times.len(), ADDRESSES as usize);
        for probes in times.values() {
            assert_eq!(probes.len(), 2);
            assert!(probes[1].0 >= probes[0].1 + at_least);
        }
        // Two passes of 3 s and the wait; after a full pass it begins at its end.
        let most = if full_pass { 67 } else { 65 };
        assert!(now - begun <= Duration::from_secs(most));
    }
}

#[test]
fn interrupted_anywhere_every_target_still_comes_so_often() {
    for spacing in [
        Spacing::FULL_PASS,
        Spacing::time(Duration::from_millis(700)),
    ] {
        let mut now = Instant::now();
        let (mut cursor, mut all) = (None, Vec::new());
        for part in (0..).map(|part| 1 + part * 331 % 900) {
            let mut passes = passes(2, spacing, cursor.as_ref());
            let before = all.len();
            all.extend(sent(&mut passes, 50, part, &mut now));
            if all.len() == before {
                break;
            }
            cursor = Some(passes.cursor().to_string().parse().unwrap());
        }
        let times = by_target(&all);
        assert_eq!(times.len(), ADDRESSES as usize);
        for probes in times.values() {
            assert_eq!(probes.len(), 2);
            assert!(probes[1].0 >= probes[0].1 + spacing.at_least);
        }
    }
}

#[test]
fn a_clone_finds_the_place_within_a_batch() {
    let mut now = Instant::now();
    let mut passes = passes(2, Spacing::time(Duration::from_millis(20)), None);
    sent(&mut passes, 50, 400, &mut now);
    for _ in 0..20 {
        let (begin, mut batch) = (passes.clone(), Vec::new());
        passes.fill(now, &mut batch, 64);
        for count in 1..=batch.len() {
            let (mut at, mut first) = (begin.clone(), Vec::new());
            assert_eq!(at.fill(now, &mut first, count), Filled::Targets(count));
            assert_eq!(first, batch[..count]);
            let (mut rest, left) = (Vec::new(), batch.len() - count);
            if left > 0 {
                assert_eq!(at.fill(now, &mut rest, left), Filled::Targets(left));
                assert_eq!(rest, batch[count..]);
            }
        }
        now += Duration::from_millis(64);
    }
}

#[test]
fn nothing_to_do_is_done_at_once() {
    let space = Arc::new(Space::new(&RangeSet::default(), &RangeSet::default()));
    let permutation = Permutation::new(0, 4);
    let spacing = Spacing::time(Duration::from_secs(1));
    let mut passes = Passes::new(&space, &permutation, Shard::WHOLE, 3, spacing, None).unwrap();
    let mut now = Instant::now();
    assert!(sent(&mut passes, 9, usize::MAX, &mut now).is_empty());
}

#[test]
fn cursors_are_one_token_and_those_of_one_pass_plain() {
    let mut now = Instant::now();
    let mut one = passes(1, Spacing::FULL_PASS, None);
    sent(&mut one, 10, 100, &mut now);
    let text = one.cursor().to_string();
    assert_eq!(text.parse::<Cursor>().as_ref(), Ok(one.cursor().first()));

    let mut three = passes(3, Spacing::time(Duration::from_millis(20)), None);
    sent(&mut three, 10, 100, &mut now);
    let text = three.cursor().to_string();
    assert_eq!(text.matches('+').count(), 2);
    assert!(!text.contains(char::is_whitespace));
    assert_eq!(text.parse(), Ok(three.cursor()));
    let json = serde_json::to_string(&three.cursor()).unwrap();
    assert_eq!(json, format!("\"{text}\""));
    for wrong in [
        text.clone() + "+",
        text.clone() + "+x",
        text.clone() + "+01",
    ] {
        let part = CursorError::Part { part: "repeats" };
        assert_eq!(wrong.parse::<PassesCursor>(), Err(part));
    }
    let (space, cursor) = (space(), three.cursor());
    let permutation = Permutation::new(space.len(), 4);
    let refused = Passes::new(
        &space,
        &permutation,
        Shard::WHOLE,
        2,
        Spacing::FULL_PASS,
        Some(&cursor),
    );
    assert_eq!(
        refused.unwrap_err(),
        WalkError::OtherPasses {
            cursor: 3,
            passes: 2
        }
    );
}
