//! The addresses to probe, numbered: index → address in some two nanoseconds.
//!
//! The ranges lie sorted, so the distance between index and address grows from one range to the
//! next. A table indexed by the high bits of the index holds, for each slot, the distance at its
//! beginning and the one index within it at which the distance changes; from there on the next
//! slot's distance holds. So a lookup reads two neighbouring entries, compares and adds: no branch
//! that could be guessed wrong, and one cache line. Only where several ranges begin within one slot
//! are the ranges themselves searched.
//!
//! There are two to four slots a range, but at least 1,024, which still fit the first-level cache,
//! and at most 4 Mi. Memory is 16 octets a range and 12 a slot: 0.6 MB for ten thousand ranges, 210
//! MB for ten million single addresses.

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
    #[inline]
    pub fn bits(self) -> u32 {
        self.0
    }
}

/// What is known of the indices that share their high bits.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The index from which on the next slot's distance holds, or [`Slot::NEVER`], or
    /// [`Slot::MANY`].
    turn: u32,
    /// Address less index at the slot's beginning.
    distance: u32,
}

impl Slot {
    /// No other range begins here. Beyond every index but 2^32 − 1, whose slot is the last and is
    /// followed by its own distance.
    const NEVER: u32 = u32::MAX;
    /// Several ranges begin here. Index 0 is no turn, since the first range begins there.
    const MANY: u32 = 0;
}

/// The set of all targets of a sweep, ascending, each with an index from 0.
#[derive(Debug, Clone)]
pub struct Space {
    ranges: RangeSet,
    /// For each range the index of its first address, and that address. Ascending in both. The
    /// addresses stand here a second time to save a cache miss in large spaces.
    starts: Vec<(u32, u32)>,
    len: u64,
    /// For each value of `index >> shift` a slot; one more at the end holds the last distance.
    slots: Vec<Slot>,
    /// For each slot the range in which its lowest index lies: asked where a slot has many.
    range_at: Vec<u32>,
    shift: u32,
    digest: [u8; 32],
}

impl Space {
    const MIN_SLOTS: u64 = 1 << 10;
    const MAX_SLOTS: u64 = 1 << 22;
    /// At most; the shift, a whole number, leaves more than half of them.
    const SLOTS_PER_RANGE: u64 = 4;

    /// The wanted addresses without the blocked ones. O(ranges).
    pub fn new(wanted: &RangeSet, blocked: &RangeSet) -> Self {
        let ranges = wanted.subtract(blocked);
        let mut starts = Vec::with_capacity(ranges.iter().len());
        let mut len = 0u64;
        for (first, last) in ranges.iter() {
            let index = u32::try_from(len)
                .expect("disjoint ranges before a non-empty one hold less than 2^32 addresses");
            starts.push((index, first));
            len += u64::from(last - first) + 1;
        }
        let most =
            (starts.len() as u64 * Self::SLOTS_PER_RANGE).clamp(Self::MIN_SLOTS, Self::MAX_SLOTS);
        let mut shift = 0;
        while len.saturating_sub(1) >> shift >= most {
            shift += 1;
        }
        let range_at = Self::ranges_at(&starts, len, shift);
        Self {
            slots: Self::slots(&starts, &range_at),
            digest: ranges.digest(),
            ranges,
            starts,
            len,
            range_at,
            shift,
        }
    }

    /// For each slot the range in which its lowest index lies, and the last range.
    fn ranges_at(starts: &[(u32, u32)], len: u64, shift: u32) -> Vec<u32> {
        let narrow = |range: usize| {
            u32::try_from(range).expect("at most 2^31 disjoint ranges fit in the address space")
        };
        let mut range = 0;
        let mut range_at: Vec<u32> = (0..=len.saturating_sub(1) >> shift)
            .map(|slot| {
                let lowest = slot << shift;
                while starts
                    .get(range + 1)
                    .is_some_and(|&(first, _)| u64::from(first) <= lowest)
                {
                    range += 1;
                }
                narrow(range)
            })
            .collect();
        range_at.push(narrow(starts.len().saturating_sub(1)));
        range_at
    }

    /// The slots: what [`Space::ranges_at`] says, in the form that is looked up.
    fn slots(starts: &[(u32, u32)], range_at: &[u32]) -> Vec<Slot> {
        let distance = |range: u32| match starts.get(range as usize) {
            Some(&(index, first)) => first - index,
            None => 0,
        };
        let slot = |pair: &[u32]| Slot {
            // A range that begins just where the next slot does is the next slot's first, and
            // counts, as it must: that slot's distance is not the one before.
            turn: match pair[1] - pair[0] {
                0 => Slot::NEVER,
                1 => starts[pair[1] as usize].0,
                _ => Slot::MANY,
            },
            distance: distance(pair[0]),
        };
        let end = Slot {
            turn: Slot::NEVER,
            distance: range_at.last().map_or(0, |&last| distance(last)),
        };
        range_at.windows(2).map(slot).chain([end]).collect()
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
        #[expect(
            clippy::cast_possible_truncation,
            reason = "index < len <= 2^32, so it has 32 bits"
        )]
        (index < self.len).then(|| self.nth(index as u32))
    }

    /// Appends the targets of those of the indices that are below [`Space::len`].
    ///
    /// # Panics
    /// With more than [`BLOCK`] indices.
    #[inline]
    pub(super) fn append(&self, indices: &[u64], targets: &mut Vec<Target>) {
        let Some(highest) = self.len.checked_sub(1) else {
            return;
        };
        // Whether an index is below the length is as good as random: it moves the place of the next
        // target, but no branch depends on it.
        let (mut found, mut count) = ([Target(0); BLOCK], 0);
        for &index in indices {
            #[expect(clippy::cast_possible_truncation, reason = "highest < 2^32")]
            let target = self.nth(index.min(highest) as u32);
            found[count] = target;
            count += usize::from(index <= highest);
        }
        targets.extend_from_slice(&found[..count]);
    }

    /// The target of an index that is below the length.
    #[inline]
    fn nth(&self, index: u32) -> Target {
        let at = (index >> self.shift) as usize;
        let [slot, next] = [self.slots[at], self.slots[at + 1]];
        if slot.turn == Slot::MANY {
            return self.nth_of_many(index, at);
        }
        let turned = next.distance.wrapping_sub(slot.distance) & mask(index >= slot.turn);
        Target(index.wrapping_add(slot.distance).wrapping_add(turned))
    }

    /// The same where several ranges begin within the slot.
    #[cold]
    fn nth_of_many(&self, index: u32, at: usize) -> Target {
        let (low, high) = (self.range_at[at] as usize, self.range_at[at + 1] as usize);
        // The range is the last of low ..= high that begins at or below the index.
        let later = &self.starts[low + 1..=high];
        let range = low + later.partition_point(|&(first, _)| first <= index);
        let (first, address) = self.starts[range];
        Target(address + (index - first))
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

/// The most indices that [`Space::append`] takes.
pub(super) const BLOCK: usize = 64;

/// All ones if it holds, else zero.
#[inline]
const fn mask(holds: bool) -> u32 {
    (holds as u32).wrapping_neg()
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
        // 200,000 ranges of 1, 2 and 3 addresses, and a large range whose size makes the slots so
        // wide that all the small ones share a few.
        let mut ranges: Vec<(u32, u32)> = (0..200_000u32).map(|i| (i * 8, i * 8 + i % 3)).collect();
        let small = space(&ranges);
        ranges.push((1 << 30, u32::MAX));
        let large = space(&ranges);
        assert!(large.shift > 10);
        for index in 0..small.len() {
            assert_eq!(large.target(index), small.target(index));
        }
        assert_numbered(&small);
        assert!(large.slots.len() as u64 <= Space::MAX_SLOTS + 1);
    }

    #[test]
    fn the_table_of_a_small_space_is_small() {
        assert!(space(&[(0, u32::MAX - 1)]).slots.len() <= 1025);
        assert_eq!(space(&[(9, 9)]).slots.len(), 2);
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
