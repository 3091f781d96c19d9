//! The multiplicative groups modulo primes on which sweeps are ordered.
//!
//! Modulo a prime p, the numbers 1 ..= p−1 form a cyclic group: the powers g^0, g^1, … g^(p−2) of
//! a generator g are all of them, each once. Multiplying by g is therefore a walk over 1 ..= p−1
//! that needs no memory but its current element. The primes are those of zmap (Durumeric et al.,
//! "ZMap: Fast Internet-Wide Scanning and Its Security Applications", 2013, section 3.2), as far as
//! the IPv4 space needs them; their factors are held against trial division by the tests.
//!
//! g is a generator exactly if g^((p−1)/q) ≠ 1 for every prime factor q of p−1.

/// The group modulo one prime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// The prime p; the group's elements are 1 ..= p−1.
    pub(super) prime: u64,
    /// The distinct prime factors of p−1.
    pub(super) factors: &'static [u64],
}

/// Every group we use, ascending.
pub(super) const GROUPS: [Group; 5] = [
    Group {
        prime: (1 << 8) + 1,
        factors: &[2],
    },
    Group {
        prime: (1 << 16) + 1,
        factors: &[2],
    },
    Group {
        prime: (1 << 24) + 43,
        factors: &[2, 23, 103, 3541],
    },
    Group {
        prime: (1 << 28) + 3,
        factors: &[2, 3, 19, 87_211],
    },
    Group {
        prime: (1 << 32) + 15,
        factors: &[2, 3, 5, 131, 364_289],
    },
];

impl Group {
    /// The smallest group of at least `len` elements, if there is one.
    pub(super) fn for_len(len: u64) -> Option<Self> {
        GROUPS.into_iter().find(|group| group.order() >= len)
    }

    /// How many elements the group has: p−1.
    pub(super) const fn order(self) -> u64 {
        self.prime - 1
    }

    /// a·b mod p.
    pub(super) fn multiply(self, a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b) % u128::from(self.prime);
        u64::try_from(product).expect("a remainder of a 64-bit modulus has 64 bits")
    }

    /// base^exponent mod p.
    pub(super) fn power(self, base: u64, mut exponent: u64) -> u64 {
        let (mut square, mut result) = (base % self.prime, 1);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.multiply(result, square);
            }
            square = self.multiply(square, square);
            exponent >>= 1;
        }
        result
    }

    /// Whether the powers of `element` are the whole group.
    pub(super) fn is_generator(self, element: u64) -> bool {
        !element.is_multiple_of(self.prime)
            && self
                .factors
                .iter()
                .all(|q| self.power(element, self.order() / q) != 1)
    }
}

/// Multiplication by one fixed element, without a division.
///
/// Shoup's method: with w' = ⌊w·2^64/p⌋ kept beside w, the quotient ⌊x·w/p⌋ is the high word of
/// x·w', or one more than it. So x·w − q·p lies in 0 .. 2p, exact in the low words because
/// 2p < 2^64. Three multiplications and one conditional subtraction; a 128-bit remainder by
/// division costs about ten times that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Multiplier {
    factor: u64,
    /// ⌊factor·2^64 / prime⌋
    quotient: u64,
    prime: u64,
}

impl Multiplier {
    /// Multiplication by `factor`, an element of the group.
    pub(super) fn new(group: Group, factor: u64) -> Self {
        debug_assert!((1..group.prime).contains(&factor));
        let quotient = (u128::from(factor) << 64) / u128::from(group.prime);
        let quotient =
            u64::try_from(quotient).expect("factor < prime, so the quotient is below 2^64");
        Self {
            factor,
            quotient,
            prime: group.prime,
        }
    }

    /// element·factor mod p, for any element below 2^64.
    #[inline]
    pub(super) const fn times(self, element: u64) -> u64 {
        let estimate = high_word(element, self.quotient);
        let rest = element
            .wrapping_mul(self.factor)
            .wrapping_sub(estimate.wrapping_mul(self.prime));
        if rest >= self.prime {
            rest - self.prime
        } else {
            rest
        }
    }
}

/// The upper 64 bits of a·b.
#[inline]
const fn high_word(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_prime(n: u64) -> bool {
        n > 1
            && (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
    }

    #[test]
    fn the_primes_are_prime_and_ascend() {
        assert!(GROUPS.iter().all(|g| is_prime(g.prime)));
        assert!(GROUPS.is_sorted_by_key(|g| g.prime));
    }

    #[test]
    fn the_factors_are_all_the_prime_factors_of_the_order() {
        for group in GROUPS {
            let mut rest = group.order();
            for &q in group.factors {
                assert!(is_prime(q), "{q}");
                assert_eq!(rest % q, 0, "{q} divides the order of {group:?}");
                while rest % q == 0 {
                    rest /= q;
                }
            }
            assert_eq!(rest, 1, "{group:?} lacks a factor");
        }
    }

    #[test]
    fn the_smallest_fitting_group_is_chosen() {
        let prime = |len| Group::for_len(len).map(|g| g.prime);
        for group in GROUPS {
            assert_eq!(prime(group.order()), Some(group.prime));
        }
        assert_eq!(prime(0), Some(257));
        assert_eq!(prime(257), Some(65_537));
        assert_eq!(prime(65_537), Some((1 << 24) + 43));
        assert_eq!(prime(1 << 32), Some((1 << 32) + 15));
        assert_eq!(prime((1 << 32) + 15), None);
    }

    #[test]
    fn the_generator_test_agrees_with_the_order_counted_out() {
        for group in &GROUPS[..1] {
            for element in 1..group.prime {
                let mut order = 1;
                let mut power = element;
                while power != 1 {
                    power = power * element % group.prime;
                    order += 1;
                }
                assert_eq!(
                    group.is_generator(element),
                    order == group.order(),
                    "{element}"
                );
            }
        }
        // The roots known from the literature.
        for (group, root) in GROUPS.into_iter().zip([3, 3, 2, 2, 3]) {
            assert!(group.is_generator(root), "{root} of {group:?}");
            assert!(!group.is_generator(1) && !group.is_generator(group.prime - 1));
            assert!(!group.is_generator(root * root) && !group.is_generator(0));
        }
    }

    #[test]
    fn the_fast_product_is_exact_at_the_edges() {
        for group in GROUPS {
            let edges = [1, 2, 3, group.prime / 2, group.prime - 2, group.prime - 1];
            for factor in edges {
                let by = Multiplier::new(group, factor);
                for element in edges.into_iter().chain([0, u64::MAX, u64::MAX - 1]) {
                    assert_eq!(
                        by.times(element),
                        group.multiply(element, factor),
                        "{element}·{factor}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_fast_product_is_exact(which in 0usize..5, element in any::<u64>(), factor in any::<u64>()) {
            let group = GROUPS[which];
            let factor = factor % group.order() + 1;
            let by = Multiplier::new(group, factor);
            prop_assert_eq!(by.times(element), group.multiply(element, factor));
            let element = element % group.prime;
            prop_assert_eq!(by.times(element), group.multiply(element, factor));
        }
    }
}
