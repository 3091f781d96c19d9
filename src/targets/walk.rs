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
    /// The cursor belongs to another number of passes.
    #[error("the cursor belongs to {cursor} probes a target, not {passes}")]
    OtherPasses {
        /// The passes in the cursor.
        cursor: usize,
        /// The passes asked for.
        passes: usize,
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
        self.fill_to(targets, max, self.steps)
    }

    /// The same, but at most up to where `end` steps are done.
    pub(super) fn fill_to(&mut self, targets: &mut Vec<Target>, max: usize, end: u64) -> usize {
        let (before, limit) = (targets.len(), end.min(self.steps));
        let mut left = limit.saturating_sub(self.done);
        if left == 0 {
            return 0;
        }
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
        self.done = limit - left;
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
#[path = "walk_tests.rs"]
mod tests;
