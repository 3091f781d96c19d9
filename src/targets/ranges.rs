//! Sets of IPv4 addresses as sorted, disjoint, inclusive ranges.
//!
//! Why ranges and not a bitmap or a trie: memory is in proportion to what the user wrote (8 octets
//! a range; a bitmap is 512 MiB whatever one asks for), every operation of the algebra is one
//! linear merge, and the sorted form is what an index table is built on.
//!
//! **Invariant** of [`RangeSet`]: ascending, and between any two neighbours lies at least one
//! address that is in neither. So equal sets have equal representations, and equal digests.

use std::fmt;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

/// A set of IPv4 addresses.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct RangeSet {
    ranges: Vec<(u32, u32)>,
}

impl RangeSet {
    /// The set of the addresses in any of these inclusive ranges, in any order, overlapping or
    /// not. A pair whose first is above its last holds no address.
    ///
    /// O(n log n); memory stays in proportion to the ranges that remain after merging, not to the
    /// number of pairs given.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut builder = Builder::default();
        for (first, last) in ranges {
            builder.push(first, last);
        }
        builder.finish()
    }

    /// All 2^32 addresses.
    pub fn everything() -> Self {
        Self {
            ranges: vec![(0, u32::MAX)],
        }
    }

    /// How many addresses the set holds: 0 ..= 2^32.
    pub fn len(&self) -> u64 {
        self.ranges
            .iter()
            .map(|&(first, last)| u64::from(last - first) + 1)
            .sum()
    }

    /// Whether the set holds no address.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the address is in the set. O(log ranges).
    pub fn contains(&self, address: u32) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= address);
        after > 0 && address <= self.ranges[after - 1].1
    }

    /// The ranges, ascending, disjoint, both ends inclusive.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().copied()
    }

    /// The addresses in either set. O(ranges of both).
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut a, mut b) = (&self.ranges[..], &other.ranges[..]);
        let mut out = Builder::default();
        loop {
            let next = match (a.first(), b.first()) {
                (Some(&x), Some(&y)) if y < x => take_first(&mut b, y),
                (Some(&x), _) => take_first(&mut a, x),
                (None, Some(&y)) => take_first(&mut b, y),
                (None, None) => break,
            };
            out.push(next.0, next.1);
        }
        out.finish()
    }

    /// The addresses in both sets. O(ranges of both).
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut a, mut b) = (&self.ranges[..], &other.ranges[..]);
        let mut out = Builder::default();
        while let (Some(&(a_first, a_last)), Some(&(b_first, b_last))) = (a.first(), b.first()) {
            // A pair that does not overlap is reversed, and the builder takes it for nothing.
            out.push(a_first.max(b_first), a_last.min(b_last));
            if a_last < b_last {
                a = &a[1..];
            } else {
                b = &b[1..];
            }
        }
        out.finish()
    }

    /// The addresses of this set that are not in the other. O(ranges of both).
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.intersect(&other.complement())
    }

    /// The addresses that are not in the set.
    fn complement(&self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut free_from = 0u32;
        for &(first, last) in &self.ranges {
            if first > free_from {
                ranges.push((free_from, first - 1));
            }
            let Some(after) = last.checked_add(1) else {
                return Self { ranges };
            };
            free_from = after;
        }
        ranges.push((free_from, u32::MAX));
        Self { ranges }
    }

    /// SHA-256 of the set: equal sets, and only they, have equal digests.
    ///
    /// Hashed are the ranges ascending, each as first and last address in network byte order.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // Fed in blocks: a call per range would cost more than the hashing.
        let mut block = Vec::with_capacity(8 * 512);
        for ranges in self.ranges.chunks(512) {
            block.clear();
            for &(first, last) in ranges {
                block.extend_from_slice(&first.to_be_bytes());
                block.extend_from_slice(&last.to_be_bytes());
            }
            hash.update(&block);
        }
        hash.finalize().into()
    }
}

fn take_first(ranges: &mut &[(u32, u32)], first: (u32, u32)) -> (u32, u32) {
    *ranges = &ranges[1..];
    first
}

impl FromIterator<(u32, u32)> for RangeSet {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(ranges: I) -> Self {
        Self::from_ranges(ranges)
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        let mut set = f.debug_set();
        for &(first, last) in self.ranges.iter().take(SHOWN) {
            set.entry(&format_args!(
                "{}-{}",
                Ipv4Addr::from(first),
                Ipv4Addr::from(last)
            ));
        }
        if self.ranges.len() > SHOWN {
            set.entry(&format_args!("{} more", self.ranges.len() - SHOWN));
        }
        set.finish()
    }
}

/// Gathers ranges in any order into a [`RangeSet`].
///
/// Whenever the pending ranges reach twice what the last merge left (and at least
/// [`Builder::FIRST_MERGE`]), they are merged in place. So a list that says the same million
/// addresses a thousand times needs the memory of two million ranges, and the sorting stays
/// O(n log n) in all.
pub(super) struct Builder {
    ranges: Vec<(u32, u32)>,
    /// Whether `ranges` already satisfies the invariant of [`RangeSet`].
    merged: bool,
    merge_at: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            ranges: Vec::new(),
            merged: true,
            merge_at: Self::FIRST_MERGE,
        }
    }
}

impl Builder {
    const FIRST_MERGE: usize = 1 << 20;

    /// Adds the addresses `first ..= last`; none if they are reversed.
    #[inline]
    pub(super) fn push(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        if let Some(end) = self.ranges.last_mut() {
            // Ascending input, by far the commonest, is merged as it comes and never sorted.
            if first >= end.0 && first <= end.1.saturating_add(1) {
                end.1 = end.1.max(last);
                return;
            }
            if first < end.0 {
                self.merged = false;
            }
        }
        if self.ranges.len() >= self.merge_at {
            self.merge();
            self.merge_at = (self.ranges.len() * 2).max(Self::FIRST_MERGE);
        }
        self.ranges.push((first, last));
    }

    /// The set of everything pushed.
    pub(super) fn finish(mut self) -> RangeSet {
        self.merge();
        self.ranges.shrink_to_fit();
        RangeSet {
            ranges: self.ranges,
        }
    }

    fn merge(&mut self) {
        if self.merged {
            return;
        }
        // One 64-bit key sorts faster than a pair compared field by field.
        self.ranges
            .sort_unstable_by_key(|&(first, last)| u64::from(first) << 32 | u64::from(last));
        let mut kept = 0;
        for at in 1..self.ranges.len() {
            let (first, last) = self.ranges[at];
            if first <= self.ranges[kept].1.saturating_add(1) {
                self.ranges[kept].1 = self.ranges[kept].1.max(last);
            } else {
                kept += 1;
                self.ranges[kept] = (first, last);
            }
        }
        self.ranges.truncate(kept + 1);
        self.merged = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A world of 96 addresses at each end of the real one, as a bitset.
    const WORLD: u32 = 96;

    fn naive(ranges: &[(u32, u32)]) -> Vec<bool> {
        let mut bits = vec![false; WORLD as usize];
        for &(first, last) in ranges {
            for at in first..=last.min(WORLD - 1) {
                bits[at as usize] = true;
            }
        }
        bits
    }

    fn assert_invariant(set: &RangeSet) {
        for pair in set.ranges.windows(2) {
            assert!(u64::from(pair[0].1) + 1 < u64::from(pair[1].0), "{set:?}");
        }
        assert!(set.iter().all(|(first, last)| first <= last));
    }

    /// The set `base + ranges` says the same as the bits, about every address of the world.
    fn assert_is(set: &RangeSet, base: u32, bits: &[bool]) {
        assert_invariant(set);
        for (at, &bit) in (0u32..).zip(bits) {
            assert_eq!(set.contains(base + at), bit, "address {at} of {set:?}");
        }
        assert_eq!(set.len(), bits.iter().filter(|&&b| b).count() as u64);
        assert_eq!(set.is_empty(), bits.iter().all(|&b| !b));
    }

    fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0..WORLD, 0..WORLD), 0..24)
    }

    proptest! {
        #[test]
        fn the_algebra_equals_a_bitset(a in ranges(), b in ranges(), high in any::<bool>()) {
            // Once at the bottom of the address space and once at its very top.
            let base = if high { u32::MAX - (WORLD - 1) } else { 0 };
            let set = |r: &[(u32, u32)]| RangeSet::from_ranges(r.iter().map(|&(x, y)| (base + x, base + y)));
            let (x, y) = (set(&a), set(&b));
            let (p, q) = (naive(&a), naive(&b));
            let zip = |f: fn(bool, bool) -> bool| -> Vec<bool> {
                p.iter().zip(&q).map(|(&p, &q)| f(p, q)).collect()
            };
            assert_is(&x, base, &p);
            assert_is(&x.union(&y), base, &zip(|p, q| p | q));
            assert_is(&x.intersect(&y), base, &zip(|p, q| p & q));
            assert_is(&x.subtract(&y), base, &zip(|p, q| p & !q));
            prop_assert_eq!(x == y, p == q);
            prop_assert_eq!(x.digest() == y.digest(), p == q);
        }

        #[test]
        fn the_order_of_input_is_of_no_consequence(mut a in ranges()) {
            let forward = RangeSet::from_ranges(a.iter().copied());
            a.reverse();
            prop_assert_eq!(RangeSet::from_ranges(a), forward);
        }
    }

    #[test]
    fn the_ends_of_the_address_space_hold() {
        let all = RangeSet::everything();
        assert_eq!(all.len(), 1 << 32);
        assert!(all.contains(0) && all.contains(u32::MAX));
        assert!(all.subtract(&all).is_empty());
        assert_eq!(RangeSet::default().union(&all), all);
        let ends = RangeSet::from_ranges([(u32::MAX, u32::MAX), (0, 0)]);
        assert_eq!(
            all.subtract(&ends).iter().collect::<Vec<_>>(),
            [(1, u32::MAX - 1)]
        );
        assert_eq!(RangeSet::from_ranges([(0, 5), (3, u32::MAX), (7, 9)]), all);
    }

    #[test]
    fn reversed_ranges_hold_nothing() {
        assert!(RangeSet::from_ranges([(2, 1), (u32::MAX, 0)]).is_empty());
    }

    #[test]
    fn neighbours_become_one_range() {
        let set = RangeSet::from_ranges([(7, 9), (1, 3), (4, 6), (11, 12)]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 9), (11, 12)]);
    }

    #[test]
    fn repetition_costs_no_memory() {
        let mut builder = Builder::default();
        for _ in 0..40 {
            for address in (0..200_000u32).rev().step_by(2) {
                builder.push(address, address);
            }
        }
        assert!(builder.ranges.capacity() <= 4 * Builder::FIRST_MERGE);
        assert_eq!(builder.finish().len(), 100_000);
    }

    #[test]
    fn debug_output_is_short_however_large_the_set() {
        let set = RangeSet::from_ranges((0..1000).map(|i| (i * 2, i * 2)));
        assert!(format!("{set:?}").ends_with("0.0.0.30-0.0.0.30, 984 more}"));
    }
}
