//! Who has answered already: one bit per IPv4 address, in pages made on demand.
//!
//! A page covers one /16 (8 KiB). A sweep of 131,072 addresses touches two pages; one of the whole
//! Internet stays below 512 MiB plus half a mebibyte of page table, however many answer. Exact: no
//! window after which a late duplicate counts anew, and no false positive as a Bloom filter has.
//! A lookup is two memory accesses.

/// Addresses in a page.
const PAGE_BITS: usize = 1 << 16;

type Page = Box<[u64; PAGE_BITS / 64]>;

/// A set of IPv4 addresses.
#[derive(Debug, Clone)]
pub struct Dedup {
    pages: Vec<Option<Page>>,
    len: u64,
}

impl Default for Dedup {
    fn default() -> Self {
        Self::new()
    }
}

impl Dedup {
    /// An empty set (512 KiB).
    pub fn new() -> Self {
        Self {
            pages: vec![None; 1 << 16],
            len: 0,
        }
    }

    /// Puts `addr` (host order) in; whether it was not there before.
    pub fn first(&mut self, addr: u32) -> bool {
        let (page, word, mask) = place(addr);
        // `page` is below 2^16 and `word` below 1024 by construction in `place`.
        let bits = self.pages[page].get_or_insert_with(|| Box::new([0; PAGE_BITS / 64]));
        let fresh = bits[word] & mask == 0;
        bits[word] |= mask;
        self.len += u64::from(fresh);
        fresh
    }

    /// Whether `addr` (host order) is in.
    pub fn contains(&self, addr: u32) -> bool {
        let (page, word, mask) = place(addr);
        self.pages[page]
            .as_ref()
            .is_some_and(|bits| bits[word] & mask != 0)
    }

    /// Addresses in the set.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nobody is in.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets of memory taken by pages.
    pub fn page_octets(&self) -> usize {
        self.pages.iter().flatten().count() * size_of::<[u64; PAGE_BITS / 64]>()
    }
}

/// Page, word within the page, bit within the word.
const fn place(addr: u32) -> (usize, usize, u64) {
    (
        (addr >> 16) as usize,
        ((addr >> 6) & 0x3ff) as usize,
        1 << (addr & 63),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn every_bit_of_a_page_is_its_own() {
        let mut dedup = Dedup::new();
        for addr in 0x0a00_0000..0x0a01_0000 {
            assert!(!dedup.contains(addr));
            assert!(dedup.first(addr));
            assert!(!dedup.first(addr));
        }
        assert_eq!(dedup.len(), 65_536);
        assert_eq!(dedup.page_octets(), 8192);
        assert!(!dedup.contains(0x0a01_0000) && !dedup.contains(0x09ff_ffff));
    }

    #[test]
    fn the_ends_of_the_space() {
        let mut dedup = Dedup::new();
        assert!(dedup.is_empty());
        assert!(dedup.first(0) && dedup.first(u32::MAX));
        assert!(dedup.contains(0) && dedup.contains(u32::MAX) && !dedup.contains(1));
    }

    #[test]
    fn memory_is_bounded_by_the_space() {
        // One address of every /16 makes every page: 2^16 pages of 2^13 octets are 512 MiB.
        assert_eq!(
            (1usize << 16) * size_of::<[u64; PAGE_BITS / 64]>(),
            512 << 20
        );
        let mut dedup = Dedup::new();
        for page in 0..100u32 {
            dedup.first(page << 16);
            dedup.first((page << 16) + 77);
        }
        assert_eq!(dedup.page_octets(), 100 * 8192);
    }

    proptest! {
        #[test]
        fn equals_a_hash_set(addrs in prop::collection::vec(prop_oneof![0u32..300, any::<u32>()], 0..300)) {
            let (mut dedup, mut set) = (Dedup::new(), HashSet::new());
            for addr in addrs {
                prop_assert_eq!(dedup.first(addr), set.insert(addr));
            }
            prop_assert_eq!(dedup.len(), set.len() as u64);
        }
    }
}
