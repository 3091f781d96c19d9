//! SipHash-1-3 (Aumasson and Bernstein, 2012) of ten octets, written out.
//!
//! Ten octets are two blocks, whatever they hold: no loop, no branch, no table. So the hash of one
//! address is 70 operations on 64-bit words, and a loop over many addresses is the same operations
//! on vectors of them, which the compiler makes by itself where it is allowed to (see
//! `Cookies::of_batch`). Tests hold it against the `siphasher` crate.

/// The hash under one key.
#[derive(Debug, Clone)]
pub(super) struct SipHash13 {
    /// The state after the key was taken in.
    keyed: [u64; 4],
}

impl SipHash13 {
    pub(super) fn new(key: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(key);
        #[expect(clippy::cast_possible_truncation, reason = "the low half of the key")]
        let low = whole as u64;
        let high = (whole >> 64) as u64;
        Self {
            keyed: [
                low ^ 0x736f_6d65_7073_6575,
                high ^ 0x646f_7261_6e64_6f6d,
                low ^ 0x6c79_6765_6e65_7261,
                high ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    /// The hash of source, destination (both in host byte order) and port, in network byte order.
    #[inline(always)]
    pub(super) const fn hash(&self, saddr: u32, daddr: u32, dport: u16) -> u64 {
        // Octets in network order, read as little-endian words; the last word's top octet is the
        // length.
        let first = saddr.swap_bytes() as u64 | (daddr.swap_bytes() as u64) << 32;
        let last = dport.swap_bytes() as u64 | 10 << 56;
        let [a, b, c, d] = self.keyed;
        let [a, b, c, d] = round([a, b, c, d ^ first]);
        let [a, b, c, d] = round([a ^ first, b, c, d ^ last]);
        let [a, b, c, d] = round(round(round([a ^ last, b, c ^ 0xff, d])));
        a ^ b ^ c ^ d
    }
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    proptest! {
        #[test]
        fn the_written_out_rounds_are_siphash(key: [u8; 16], saddr: u32, daddr: u32, dport: u16) {
            let mut input = saddr.to_be_bytes().to_vec();
            input.extend(daddr.to_be_bytes());
            input.extend(dport.to_be_bytes());
            prop_assert_eq!(
                SipHash13::new(key).hash(saddr, daddr, dport),
                SipHasher13::new_with_key(&key).hash(&input)
            );
        }
    }
}
