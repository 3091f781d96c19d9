//! The walk over one shard of a space: targets in the order of a [`Permutation`].
//!
//! A walk is its place and nothing else: current element and steps done. Taking it up again from a
//! [`Cursor`] continues exactly where it stood, whatever the step. Steps whose element lies beyond
//! the space yield nothing; so progress is counted in steps, which are known in advance, and not in
//! targets.

use std::sync::Arc;

use thiserror::Error;

use super::group::Multiplier;
use super::space::BLOCK;
use super::{Cursor, Permutation, Shard, ShardError, Space, Target};

/// Why a walk cannot begin, or cannot be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WalkError {
    /// The permutation was made for another space.
    #[error("the permutation has {permutation} indices, but the space has {space} addresses")]
    OtherLength {
        /// Indices of the permutation.
        permutation: u64,
        /// Addresses of the space.
        space: u64,
    },
    /// The shard cannot be.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The cursor belongs to another set of addresses.
    #[error(
        "the cursor belongs to another set of addresses: resume with the same targets and blocklists"
    )]
    OtherSpace,
    /// The cursor belongs to another order.
    #[error("the cursor belongs to seed {cursor}, not {seed}")]
    OtherSeed {
        /// The seed in the cursor.
        cursor: u64,
        /// The seed of the permutation.
        seed: u64,
    },
    /// The cursor belongs to another shard.
    #[error("the cursor belongs to shard {cursor}, not {shard}")]
    OtherShard {
        /// The shard in the cursor.
        cursor: Shard,
        /// The shard asked for.
        shard: Shard,
    },
    /// The cursor is beyond the end of the walk.
    #[error("the cursor says {done} steps are done, but the walk has only {steps}")]
    BeyondEnd {
        /// The steps in the cursor.
        done: u64,
        /// The steps of the walk.
        steps: u64,
    },
}

/// Steps that are taken side by side. A step waits some ten cycles for its multiplications, but a
/// new one may begin every three; more than four lanes would no longer fit the registers.
const LANES: usize = 4;

/// The index of an element: elements begin at 1.
#[inline]
const fn index_of(element: u64) -> u64 {
    element - 1
}

/// A walk over the targets of one shard, each exactly once.
#[derive(Debug, Clone)]
pub struct Walk {
    space: Arc<Space>,
    seed: u64,
    shard: Shard,
    step: Multiplier,
    /// [`LANES`] steps at once.
    leap: Multiplier,
    /// The element of the next step.
    element: u64,
    done: u64,
    steps: u64,
}

impl Walk {
    /// The walk over `shard` of the space, from its beginning or from where the cursor stands.
    ///
    /// # Errors
    /// If the permutation is of another length than the space, the shard cannot be, or the cursor
    /// belongs to another walk.
    pub fn new(
        space: Arc<Space>,
        permutation: &Permutation,
        shard: Shard,
        cursor: Option<&Cursor>,
    ) -> Result<Self, WalkError> {
        if permutation.len() != space.len() {
            return Err(WalkError::OtherLength {
                permutation: permutation.len(),
                space: space.len(),
            });
        }
        shard.check()?;
        let interval = shard.interval(permutation.steps());
        let steps = interval.end - interval.start;
        let seed = permutation.seed();
        let done = match cursor {
            None => 0,
            Some(cursor) if cursor.space != space.digest() => return Err(WalkError::OtherSpace),
            Some(cursor) if cursor.seed != seed => {
                return Err(WalkError::OtherSeed {
                    cursor: cursor.seed,
                    seed,
                });
            }
            Some(cursor) if cursor.shard != shard => {
                return Err(WalkError::OtherShard {
                    cursor: cursor.shard,
                    shard,
                });
            }
            Some(cursor) if cursor.done > steps => {
                return Err(WalkError::BeyondEnd {
                    done: cursor.done,
                    steps,
                });
            }
            Some(cursor) => cursor.done,
        };
        let element = permutation.element(interval.start + done);
        Ok(Self {
            space,
            seed,
            shard,
            step: permutation.leap(1),
            leap: permutation.leap(LANES as u64),
            element,
            done,
            steps,
        })
    }

    /// Appends the next targets, at most `max`, and says how many: 0 only when the walk is done
    /// (or `max` is 0).
    ///
    /// One call may take up to 257 steps a target, in a space just too large for a smaller prime.
    pub fn fill(&mut self, targets: &mut Vec<Target>, max: usize) -> usize {
        let (before, mut left) = (targets.len(), self.steps - self.done);
        let mut lanes = self.lanes();
        loop {
            // Never more steps than there is room for targets: none that was found is dropped.
            let room = max - (targets.len() - before);
            let block = usize::try_from(left).map_or(room, |left| left.min(room));
            let leaps = block.min(BLOCK) / LANES;
            if leaps == 0 {
                break;
            }
            let mut indices = [0; BLOCK];
            for row in indices.chunks_exact_mut(LANES).take(leaps) {
                for (index, lane) in row.iter_mut().zip(&mut lanes) {
                    *index = index_of(*lane);
                    *lane = self.leap.times(*lane);
                }
            }
            self.space.append(&indices[..leaps * LANES], targets);
            left -= (leaps * LANES) as u64;
        }
        let mut element = lanes[0];
        while left > 0 && targets.len() - before < max {
            targets.extend(self.space.target(index_of(element)));
            element = self.step.times(element);
            left -= 1;
        }
        self.element = element;
        self.done = self.steps - left;
        targets.len() - before
    }

    /// The elements of the next [`LANES`] steps.
    fn lanes(&self) -> [u64; LANES] {
        let mut element = self.element;
        [(); LANES].map(|()| {
            let lane = element;
            element = self.step.times(element);
            lane
        })
    }

    /// The place of the walk: everything that [`Walk::fill`] ever handed out lies before it.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            space: self.space.digest(),
            seed: self.seed,
            shard: self.shard,
            done: self.done,
        }
    }

    /// The space that is walked.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// How many steps the walk has in all, skipped ones included.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many of them are done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// How many of them remain.
    pub fn remaining(&self) -> u64 {
        self.steps - self.done
    }

    /// The share of the walk that is done, 0 ..= 1.
    pub fn progress(&self) -> f64 {
        if self.steps == 0 {
            1.0
        } else {
            self.done as f64 / self.steps as f64
        }
    }
}

#[cfg(test)]
mod tests {
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
}
