//! The order in which a space is swept: a permutation of its indices that a seed decides.
//!
//! Neighbouring addresses share networks, and a sweep in ascending order would fall on one network
//! after the other. So the index of the n-th probe is element(n) − 1, where element(n) = start·g^n
//! runs through a cyclic group (see `group.rs`); elements beyond the space are
//! skipped. No state but the current element, hence shards and cursors for nothing.
//!
//! **Every** generator of the group and every start can come out of a seed. zmap draws only
//! generators up to 2^22, from which others recognised its sweeps on the wire and even their
//! progress (Mazel and Strullu, arXiv 1908.04193); for 2^32+15 we have 9.1·10^8 of them.

use sha2::{Digest, Sha256};

use super::group::{Group, Multiplier};

/// A permutation of the indices 0 .. len.
///
/// It depends on the seed and on the group alone, so it is the same on every machine.
#[derive(Debug, Clone)]
pub struct Permutation {
    len: u64,
    seed: u64,
    group: Group,
    generator: u64,
    start: u64,
}

impl Permutation {
    /// The permutation of 0 .. len that this seed decides.
    ///
    /// # Panics
    /// If `len` exceeds 2^32, which the length of no [`Space`](super::Space) does.
    pub fn new(len: u64, seed: u64) -> Self {
        assert!(len <= 1 << 32, "there are only 2^32 addresses, not {len}");
        let group = Group::for_len(len).expect("the largest group has more than 2^32 elements");
        let mut draws = Draws {
            group,
            seed,
            count: 0,
        };
        let generator = draws.element_that(|element| group.is_generator(element));
        let start = draws.element_that(|_| true);
        Self {
            len,
            seed,
            group,
            generator,
            start,
        }
    }

    /// How many indices are permuted.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no index at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The seed it came from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The prime p of the group.
    pub fn prime(&self) -> u64 {
        self.group.prime
    }

    /// The generator g of the group.
    pub fn generator(&self) -> u64 {
        self.generator
    }

    /// How many steps the whole walk has, those that are skipped included: p − 1.
    pub fn steps(&self) -> u64 {
        self.group.order()
    }

    /// The element at which the walk is after `exponent` steps: start·g^exponent mod p.
    pub(super) fn element(&self, exponent: u64) -> u64 {
        self.group
            .multiply(self.start, self.group.power(self.generator, exponent))
    }

    /// So many steps of the walk at once.
    pub(super) fn leap(&self, steps: u64) -> Multiplier {
        Multiplier::new(self.group, self.group.power(self.generator, steps))
    }
}

/// Elements drawn from the seed: SHA-256 over a name, the prime, the seed and a counter.
struct Draws {
    group: Group,
    seed: u64,
    count: u64,
}

impl Draws {
    /// The next drawn element for which `holds` is true. The share of generators in each of our
    /// groups is above one in five, so a handful of draws is enough.
    fn element_that(&mut self, holds: impl Fn(u64) -> bool) -> u64 {
        loop {
            let hash = Sha256::new()
                .chain_update(b"smtpsweep permutation 1")
                .chain_update(self.group.prime.to_be_bytes())
                .chain_update(self.seed.to_be_bytes())
                .chain_update(self.count.to_be_bytes())
                .finalize();
            self.count += 1;
            let number = hash
                .iter()
                .take(16)
                .fold(0u128, |n, &byte| n << 8 | u128::from(byte));
            // 128 bits modulo at most 33: the bias is below 2^-95.
            let rest = number % u128::from(self.group.order());
            let element =
                u64::try_from(rest).expect("a remainder of a 64-bit modulus has 64 bits") + 1;
            if holds(element) {
                return element;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::group::GROUPS;
    use std::collections::HashSet;

    #[test]
    fn the_generator_generates_for_every_prime_and_many_seeds() {
        for group in GROUPS {
            for seed in (0..200).chain([u64::MAX]) {
                let permutation = Permutation::new(group.order().min(1 << 32), seed);
                assert_eq!(permutation.prime(), group.prime);
                let g = permutation.generator();
                for q in group.factors {
                    assert_ne!(
                        group.power(g, group.order() / q),
                        1,
                        "{g} modulo {}",
                        group.prime
                    );
                }
                assert_eq!(group.power(g, group.order()), 1);
            }
        }
    }

    #[test]
    fn every_generator_of_the_smallest_group_comes_out_of_some_seed() {
        let generators: HashSet<u64> = (0..3000)
            .map(|seed| Permutation::new(1, seed).generator())
            .collect();
        assert_eq!(generators.len(), 128); // φ(256)
    }

    #[test]
    fn generators_are_not_small_numbers() {
        let large = (0..400)
            .filter(|&seed| Permutation::new(1 << 32, seed).generator() > 1 << 31)
            .count();
        assert!(
            (140..260).contains(&large),
            "{large} of 400 above the middle"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_order_for_ever() {
        // Computed by another program; a change here makes every stored cursor worthless.
        let permutation = Permutation::new(1 << 32, 42);
        let (generator, third) = (permutation.generator(), permutation.element(3));
        assert_eq!((generator, third), (3_270_815_549, 82_515_706));
        let mut element = permutation.element(0);
        for _ in 0..3 {
            element = permutation.leap(1).times(element);
        }
        assert_eq!(element, third);
    }

    #[test]
    #[should_panic(expected = "only 2^32 addresses")]
    fn more_than_all_addresses_is_a_bug_of_the_caller() {
        let _ = Permutation::new((1 << 32) + 1, 0);
    }
}
