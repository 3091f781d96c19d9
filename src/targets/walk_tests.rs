//! Every address once, in any shard, from any cursor.

use super::*;
use crate::targets::RangeSet;
use proptest::prelude::*;

/// A space of `len` addresses in ranges of 1 to 97, with gaps.
fn gappy(len: u32) -> Arc<Space> {
    let (mut ranges, mut at, mut left, mut size) = (Vec::new(), 7, len, 1);
    while left > 0 {
        let take = size.min(left);
        ranges.push((at, at + take - 1));
        at += take + 1 + size % 5;
        left -= take;
        size = size % 97 + 1;
    }
    Arc::new(Space::new(
        &RangeSet::from_ranges(ranges),
        &RangeSet::default(),
    ))
}

fn walk(
    space: &Arc<Space>,
    seed: u64,
    shard: Shard,
    cursor: Option<&Cursor>,
) -> Result<Walk, WalkError> {
    Walk::new(
        Arc::clone(space),
        &Permutation::new(space.len(), seed),
        shard,
        cursor,
    )
}

fn all(mut walk: Walk) -> Vec<u32> {
    let mut targets = Vec::new();
    while walk.fill(&mut targets, 1000) > 0 {}
    assert_eq!((walk.remaining(), walk.progress()), (0, 1.0));
    targets.into_iter().map(Target::bits).collect()
}

fn addresses(space: &Space) -> Vec<u32> {
    space
        .ranges()
        .iter()
        .flat_map(|(first, last)| first..=last)
        .collect()
}

/// Every address of the space once, and nothing else.
fn assert_bijection(mut walked: Vec<u32>, space: &Space) {
    walked.sort_unstable();
    assert_eq!(walked, addresses(space), "a space of {}", space.len());
}

#[test]
fn every_space_of_1_to_4096_addresses_is_visited_once_each() {
    for len in 1..=4096 {
        let space = gappy(len);
        assert_eq!(space.len(), u64::from(len));
        assert_bijection(
            all(walk(&space, u64::from(len) * 7919, Shard::WHOLE, None).unwrap()),
            &space,
        );
    }
}

#[test]
fn spaces_at_the_edges_of_the_primes_are_visited_once_each() {
    for len in [255, 256, 257, 65_535, 65_536, 65_537] {
        for seed in [0, 1, u64::MAX] {
            let space = gappy(len);
            assert_bijection(all(walk(&space, seed, Shard::WHOLE, None).unwrap()), &space);
        }
    }
}

#[test]
fn many_seeds_visit_a_small_space_once_each_and_in_different_orders() {
    // As many addresses as the group has elements, so no two starts look the same.
    let space = gappy(256);
    let mut orders: Vec<_> = (0..300)
        .map(|seed| {
            let order = all(walk(&space, seed, Shard::WHOLE, None).unwrap());
            assert_bijection(order.clone(), &space);
            order
        })
        .collect();
    orders.sort_unstable();
    orders.dedup();
    assert!(orders.len() > 290, "{} different orders", orders.len());
}

#[test]
fn shards_partition_the_space() {
    for len in [1, 2, 3, 10, 100, 255, 256, 257, 1000, 5000] {
        let space = gappy(len);
        for total in [1, 2, 3, 4, 7, 16, 100, 256, 257, 300] {
            let mut walked = Vec::new();
            for index in 0..total {
                walked.extend(all(walk(&space, 5, Shard { index, total }, None).unwrap()));
            }
            // Joined in the order of their indices, the shards are the undivided walk.
            assert_eq!(walked, all(walk(&space, 5, Shard::WHOLE, None).unwrap()));
            assert_bijection(walked, &space);
        }
    }
}

#[test]
fn an_empty_space_is_done_at_once() {
    let space = gappy(0);
    assert!(all(walk(&space, 1, Shard::WHOLE, None).unwrap()).is_empty());
}

#[test]
fn resumed_at_any_step_the_walk_continues_exactly() {
    let space = gappy(150);
    let shard = Shard { index: 1, total: 2 };
    let undisturbed = all(walk(&space, 3, shard, None).unwrap());
    for handed_out in 0..=undisturbed.len() {
        let mut first = walk(&space, 3, shard, None).unwrap();
        let mut targets = Vec::new();
        assert_eq!(first.fill(&mut targets, handed_out), handed_out);
        let cursor: Cursor = first.cursor().to_string().parse().unwrap();
        assert_eq!(cursor.done(), first.done());
        let rest = all(walk(&space, 3, shard, Some(&cursor)).unwrap());
        let joined: Vec<u32> = targets.iter().map(|t| t.bits()).chain(rest).collect();
        assert_eq!(joined, undisturbed);
    }
}

#[test]
fn every_cursor_of_a_walk_is_a_place_to_resume_at() {
    let space = gappy(150);
    let whole = all(walk(&space, 9, Shard::WHOLE, None).unwrap());
    for done in 0..=256 {
        let cursor = Cursor {
            done,
            ..walk(&space, 9, Shard::WHOLE, None).unwrap().cursor()
        };
        let rest = all(walk(&space, 9, Shard::WHOLE, Some(&cursor)).unwrap());
        assert!(whole.ends_with(&rest));
    }
}

#[test]
fn a_cursor_of_another_walk_is_refused() {
    let space = gappy(100);
    let cursor = walk(&space, 3, Shard::WHOLE, None).unwrap().cursor();
    let refused = |space: &Arc<Space>, seed, shard, cursor: &Cursor| {
        walk(space, seed, shard, Some(cursor)).unwrap_err()
    };
    assert_eq!(
        refused(&gappy(101), 3, Shard::WHOLE, &cursor),
        WalkError::OtherSpace
    );
    // As many addresses, but others.
    let other = Space::new(&RangeSet::from_ranges([(0, 99)]), &RangeSet::default());
    assert_eq!(
        refused(&Arc::new(other), 3, Shard::WHOLE, &cursor),
        WalkError::OtherSpace
    );
    assert_eq!(
        refused(&space, 4, Shard::WHOLE, &cursor),
        WalkError::OtherSeed { cursor: 3, seed: 4 }
    );
    let half = Shard { index: 0, total: 2 };
    assert_eq!(
        refused(&space, 3, half, &cursor),
        WalkError::OtherShard {
            cursor: Shard::WHOLE,
            shard: half
        }
    );
    let beyond = Cursor {
        done: 257,
        ..cursor
    };
    assert_eq!(
        refused(&space, 3, Shard::WHOLE, &beyond),
        WalkError::BeyondEnd {
            done: 257,
            steps: 256
        }
    );
}

#[test]
fn permutations_and_shards_that_do_not_fit_are_refused() {
    let space = gappy(100);
    let other = Walk::new(
        Arc::clone(&space),
        &Permutation::new(99, 1),
        Shard::WHOLE,
        None,
    );
    assert_eq!(
        other.unwrap_err(),
        WalkError::OtherLength {
            permutation: 99,
            space: 100
        }
    );
    for shard in [Shard { index: 0, total: 0 }, Shard { index: 2, total: 2 }] {
        assert!(matches!(
            walk(&space, 1, shard, None),
            Err(WalkError::Shard(_))
        ));
    }
}

#[test]
fn shards_of_the_whole_address_space_join_without_gap() {
    // Each shard's last step leads to the next shard's first.
    let space = Arc::new(Space::new(&RangeSet::everything(), &RangeSet::default()));
    let permutation = Permutation::new(space.len(), 1);
    let total = 12;
    let mut steps = 0;
    for index in 0..total {
        let shard = Shard { index, total };
        let fresh = Walk::new(Arc::clone(&space), &permutation, shard, None).unwrap();
        let end = Cursor {
            done: fresh.steps(),
            ..fresh.cursor()
        };
        let ended = Walk::new(Arc::clone(&space), &permutation, shard, Some(&end)).unwrap();
        let next = Shard {
            index: (index + 1) % total,
            total,
        };
        let next = Walk::new(Arc::clone(&space), &permutation, next, None).unwrap();
        assert_eq!(ended.element, next.element);
        steps += fresh.steps();
    }
    assert_eq!(steps, permutation.prime() - 1);
}

proptest! {
    #[test]
    fn however_often_interrupted_the_walk_is_the_same(
        len in 1u32..3000, seed in any::<u64>(), sizes in prop::collection::vec(0usize..500, 1..8),
    ) {
        let space = gappy(len);
        let undisturbed = all(walk(&space, seed, Shard::WHOLE, None).unwrap());
        let mut walked = Vec::new();
        let mut cursor = None;
        for size in sizes {
            let mut part = walk(&space, seed, Shard::WHOLE, cursor.as_ref()).unwrap();
            part.fill(&mut walked, size);
            cursor = Some(part.cursor());
        }
        let mut walked: Vec<u32> = walked.into_iter().map(Target::bits).collect();
        walked.extend(all(walk(&space, seed, Shard::WHOLE, cursor.as_ref()).unwrap()));
        prop_assert_eq!(walked, undisturbed);
    }
}
