//! Shards: "part i of n" of a sweep, the same on any machine.
//!
//! The walk's steps 0 .. p−1 are cut into n contiguous intervals whose lengths differ by at most
//! one. Each shard is a walk of its own; together they are the whole, and no two share a step.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

/// One part of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Which part, from 0.
    pub index: u16,
    /// Of how many, at least 1.
    pub total: u16,
}

/// A shard that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ShardError {
    /// No shards at all.
    #[error("the number of shards must be at least 1")]
    NoShards,
    /// An index beyond the last shard.
    #[error("shard {index} does not exist: with {total} shards the last is {}", total - 1)]
    NoSuchShard {
        /// The index asked for.
        index: u16,
        /// The number of shards.
        total: u16,
    },
    /// More parts than a shard's number can tell apart.
    #[error("{whole} parts (shards times sender threads) are too many; at most 65535 are possible")]
    TooMany {
        /// How many there would be.
        whole: u32,
    },
}

impl Shard {
    /// The sweep undivided.
    pub const WHOLE: Self = Self { index: 0, total: 1 };

    /// Part `index` (from 0) of `total`.
    ///
    /// # Errors
    /// If there is no such part.
    pub fn new(index: u16, total: u16) -> Result<Self, ShardError> {
        let shard = Self { index, total };
        shard.check().map(|()| shard)
    }

    /// The fields are public, so whoever takes a shard asks whether it can be.
    pub(super) fn check(self) -> Result<(), ShardError> {
        let Self { index, total } = self;
        match total {
            0 => Err(ShardError::NoShards),
            _ if index >= total => Err(ShardError::NoSuchShard { index, total }),
            _ => Ok(()),
        }
    }

    /// Part `index` of this part, cut in `total`: together the parts are this one.
    ///
    /// # Errors
    /// If there is no such part, or the cuts exceed 65,535 in all.
    pub fn split(self, index: u16, total: u16) -> Result<Self, ShardError> {
        let whole = u32::from(self.total) * u32::from(total);
        let part = u32::from(self.index) * u32::from(total) + u32::from(index);
        match (u16::try_from(part), u16::try_from(whole)) {
            (Ok(part), Ok(whole)) => Self::new(part, whole),
            _ => Err(ShardError::TooMany { whole }),
        }
    }

    /// This part's interval of the steps 0 .. `steps`. `steps` is at most 2^33, the total below
    /// 2^16: no overflow. The shard must have passed [`Shard::check`].
    pub(super) fn interval(self, steps: u64) -> Range<u64> {
        let cut = |index: u64| steps * index / u64::from(self.total);
        cut(u64::from(self.index))..cut(u64::from(self.index) + 1)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl fmt::Display for Shard {
    /// `index/total`, counted from 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_contiguous_near_equal_and_complete() {
        for steps in (0..300).chain([65_536, 16_777_258, 1 << 28, (1 << 32) + 14]) {
            for total in (1..=40).chain([255, 256, 257, 1000, u16::MAX]) {
                let (mut end, mut shortest, mut longest) = (0, u64::MAX, 0);
                for index in 0..total {
                    let interval = Shard::new(index, total).unwrap().interval(steps);
                    assert_eq!(interval.start, end);
                    end = interval.end;
                    let length = end - interval.start;
                    (shortest, longest) = (shortest.min(length), longest.max(length));
                }
                assert_eq!(end, steps);
                assert!(longest - shortest <= 1, "{steps} steps in {total}");
            }
        }
    }

    #[test]
    fn the_parts_of_a_part_are_that_part() {
        for steps in [1, 256, 65_536, (1 << 32) + 14] {
            for (total, threads) in [(1, 1), (1, 7), (3, 4), (10, 13)] {
                for index in 0..total {
                    let whole = Shard::new(index, total).unwrap();
                    let mut next = whole.interval(steps).start;
                    for thread in 0..threads {
                        let part = whole.split(thread, threads).unwrap().interval(steps);
                        assert_eq!(part.start, next);
                        next = part.end;
                    }
                    assert_eq!(next, whole.interval(steps).end);
                }
            }
        }
        assert!(Shard::new(0, 40_000).unwrap().split(0, 2).is_err());
    }

    #[test]
    fn impossible_shards_are_refused_with_the_reason() {
        assert_eq!(Shard::new(0, 0), Err(ShardError::NoShards));
        assert_eq!(
            Shard::new(3, 3).unwrap_err().to_string(),
            "shard 3 does not exist: with 3 shards the last is 2"
        );
        assert_eq!(Shard::new(2, 3).unwrap().to_string(), "2/3");
    }
}
