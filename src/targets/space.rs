//! The addresses to probe, numbered: index → address in some nanoseconds.
//!
//! The ranges lie sorted; the cumulative count before each says which index it begins with. A table
//! indexed by the high bits of the index narrows the search to the few ranges that can hold it. The
//! table has some four slots a range, at most 64 Ki, so a handful of prefixes needs a few cache
//! lines and ten million single addresses need 12 octets each plus 256 KiB.

use std::net::Ipv4Addr;

use super::RangeSet;

/// An address that may be probed.
///
/// **Invariant**: only [`Space`] makes one, and a space holds no blocked address. Whatever sends
/// frames takes targets and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(u32);

impl Target {
    /// The address.
    pub fn addr(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0)
    }

    /// The address in host byte order.
    pub fn bits(self) -> u32 {
        self.0
    }
}

/// The set of all targets of a sweep, ascending, each with an index from 0.
#[derive(Debug, Clone)]
pub struct Space {
    ranges: RangeSet,
    /// The index of each range's first address. Below 2^32 always, because the ranges are disjoint
    /// and none is empty.
    first_index: Vec<u32>,
    len: u64,
    /// For each value of `index >> shift`, the range in which the lowest such index lies; one more
    /// slot at the end holds the last range.
    table: Vec<u32>,
    shift: u32,
    digest: [u8; 32],
}

impl Space {
    const MAX_SLOTS: u64 = 1 << 16;
    const SLOTS_PER_RANGE: u64 = 4;

    /// The wanted addresses without the blocked ones. O(ranges).
    pub fn new(wanted: &RangeSet, blocked: &RangeSet) -> Self {
        let ranges = wanted.subtract(blocked);
        let mut first_index = Vec::with_capacity(ranges.iter().len());
        let mut len = 0u64;
        for (first, last) in ranges.iter() {
            first_index.push(
                u32::try_from(len)
                    .expect("disjoint ranges before a non-empty one hold less than 2^32"),
            );
            len += u64::from(last - first) + 1;
        }
        let (table, shift) = Self::index_table(&first_index, len);
        let digest = ranges.digest();
        Self {
            ranges,
            first_index,
            len,
            table,
            shift,
            digest,
        }
    }

    /// The table and the shift that turns an index into a slot of it.
    fn index_table(first_index: &[u32], len: u64) -> (Vec<u32>, u32) {
        let wanted_slots = (first_index.len() as u64 * Self::SLOTS_PER_RANGE).min(Self::MAX_SLOTS);
        let mut shift = 0;
        while (len.saturating_sub(1) >> shift) >= wanted_slots.max(1) {
            shift += 1;
        }
        let slots = if len == 0 {
            0
        } else {
            ((len - 1) >> shift) + 1
        };
        let mut range = 0;
        let mut table: Vec<u32> = (0..slots)
            .map(|slot| {
                let lowest = slot << shift;
                while first_index
                    .get(range + 1)
                    .is_some_and(|&first| u64::from(first) <= lowest)
                {
                    range += 1;
                }
                u32::try_from(range).expect("at most 2^31 disjoint ranges fit in the address space")
            })
            .collect();
        table.push(u32::try_from(first_index.len().saturating_sub(1)).expect("as above"));
        (table, shift)
    }

    /// How many targets there are: 0 ..= 2^32.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The target of an index, `None` from [`Space::len`] on.
    #[inline]
    pub fn target(&self, index: u64) -> Option<Target> {
        if index >= self.len {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "index < len <= 2^32, so it has 32 bits"
        )]
        let (index, slot) = (index as u32, (index >> self.shift) as usize);
        let (low, high) = (self.table[slot] as usize, self.table[slot + 1] as usize);
        // The range is the last of low ..= high that begins at or below the index.
        let range = low + self.first_index[low + 1..=high].partition_point(|&first| first <= index);
        Some(Target(
            self.ranges.as_slice()[range].0 + (index - self.first_index[range]),
        ))
    }

    /// The target of an address, if the space holds it: for replies, and for whatever else arrives
    /// from outside. O(log ranges).
    #[inline]
    pub fn admit(&self, address: Ipv4Addr) -> Option<Target> {
        let address = u32::from(address);
        self.ranges.contains(address).then_some(Target(address))
    }

    /// The addresses, as a set.
    pub fn ranges(&self) -> &RangeSet {
        &self.ranges
    }

    /// SHA-256 of the addresses (see [`RangeSet::digest`]): names the space in cursors.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every index against the ranges counted out.
    fn assert_numbered(space: &Space) {
        let mut index = 0;
        for (first, last) in space.ranges().iter() {
            for address in first..=last {
                let target = space.target(index).unwrap();
                assert_eq!(target.bits(), address, "index {index}");
                assert_eq!(space.admit(target.addr()), Some(target));
                index += 1;
            }
        }
        assert_eq!(index, space.len());
        assert_eq!(space.target(index), None);
        assert_eq!(space.target(u64::MAX), None);
    }

    fn space(ranges: &[(u32, u32)]) -> Space {
        Space::new(
            &RangeSet::from_ranges(ranges.iter().copied()),
            &RangeSet::default(),
        )
    }

    #[test]
    fn empty_spaces_have_no_target() {
        let empty = space(&[]);
        assert!(empty.is_empty());
        assert_eq!(empty.target(0), None);
        assert_eq!(empty.admit(Ipv4Addr::LOCALHOST), None);
        assert!(Space::new(&RangeSet::everything(), &RangeSet::everything()).is_empty());
    }

    #[test]
    fn the_whole_address_space_is_its_own_numbering() {
        let all = space(&[(0, u32::MAX)]);
        assert_eq!(all.len(), 1 << 32);
        for index in [0, 1, 65_535, 65_536, 1 << 31, (1 << 32) - 1] {
            assert_eq!(u64::from(all.target(index).unwrap().bits()), index);
        }
        assert_eq!(all.target(1 << 32), None);
    }

    #[test]
    fn blocked_addresses_are_neither_numbered_nor_admitted() {
        let blocked = RangeSet::from_ranges([(0, 0xff), (0x1000, 0x1fff), (u32::MAX, u32::MAX)]);
        let space = Space::new(
            &RangeSet::from_ranges([(0x80, 0x2fff), (u32::MAX - 9, u32::MAX)]),
            &blocked,
        );
        assert_eq!(space.len(), 0x0f00 + 0x1000 + 9);
        assert_numbered(&space);
        for address in [0x80, 0xff, 0x1000, 0x1fff, u32::MAX, 0x3000] {
            assert_eq!(space.admit(Ipv4Addr::from(address)), None);
        }
    }

    #[test]
    fn more_ranges_than_slots_are_numbered_too() {
        // 200,000 ranges of 1, 2 and 3 addresses, and one large range amid them.
        let mut ranges: Vec<(u32, u32)> = (0..200_000u32).map(|i| (i * 8, i * 8 + i % 3)).collect();
        ranges.push((1 << 30, (1 << 30) + 100_000));
        assert_numbered(&space(&ranges));
        assert!(space(&ranges).table.len() <= 65_537);
    }

    #[test]
    fn the_table_of_a_small_space_is_small() {
        assert!(space(&[(0, u32::MAX - 1)]).table.len() <= 5);
        assert!(space(&[(9, 9)]).table.len() <= 5);
    }

    #[test]
    fn equal_spaces_have_equal_digests_and_others_not() {
        let cut = Space::new(
            &RangeSet::from_ranges([(0, 9)]),
            &RangeSet::from_ranges([(5, 9)]),
        );
        assert_eq!(cut.digest(), space(&[(0, 2), (3, 4)]).digest());
        assert_ne!(cut.digest(), space(&[(0, 5)]).digest());
        assert_ne!(space(&[]).digest(), space(&[(0, 0)]).digest());
    }

    proptest! {
        #[test]
        fn any_space_is_numbered(
            wanted in prop::collection::vec((0u32..3000, 0u32..3000), 0..40),
            blocked in prop::collection::vec((0u32..3000, 0u32..60), 0..40),
            base in prop::sample::select(vec![0u32, 1 << 20, u32::MAX - 3059]),
        ) {
            let wanted = RangeSet::from_ranges(wanted.into_iter().map(|(a, b)| (base + a, base + b)));
            let blocked = RangeSet::from_ranges(blocked.into_iter().map(|(a, n)| (base + a, base + a + n)));
            let space = Space::new(&wanted, &blocked);
            assert_numbered(&space);
            prop_assert!(space.ranges().intersect(&blocked).is_empty());
            prop_assert_eq!(space.len() + wanted.intersect(&blocked).len(), wanted.len());
        }
    }
}
