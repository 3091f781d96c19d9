//! The cookie: what makes a SYN recognisable in its answer.
//!
//! SipHash-1-3 over source address, destination address and destination port, 64 bits: 32 become
//! the sequence number, 16 choose the source port from the sweep's range, 16 become the IP
//! identification. SipHash-2-4 would cost half as much again and buys nothing here: a forger has
//! to hit 32 bits of sequence number blindly, whatever the rounds, and sees outputs only for
//! addresses that are its own. The input is always ten octets, two blocks, so the rounds are
//! written out here, in less than half the time of a general hasher, which finds that out anew for
//! every address. Tests hold it against the `siphasher` crate.
//!
//! The key comes from the seed and a nonce by SHA-256. With the nonce kept beside the survey, a
//! resumed sweep recognises answers to SYNs sent before the interruption; without it, knowing the
//! seed (which users publish, to let others repeat a walk) forges nothing.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

/// Separates this use of SHA-256 from any other over the same seed.
const DOMAIN: &[u8] = b"smtpsweep cookie key 1";

/// The secret that turns an address into a cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CookieKey([u8; 16]);

impl CookieKey {
    /// The key of a sweep: the first half of SHA-256 over a label, `seed` (big-endian) and `nonce`.
    pub fn derive(seed: u64, nonce: &[u8; 16]) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(seed.to_be_bytes())
            .chain_update(nonce)
            .finalize()
            .into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// A key as it was stored.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key, to be stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for CookieKey {
    /// Keeps the secret out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

/// What the SYN to one address carries, and its answer must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// The SYN's sequence number.
    pub seq: u32,
    /// The SYN's source port.
    pub sport: u16,
    /// The SYN's IP identification. Not verified: answers do not repeat it.
    pub ip_id: u16,
}

/// The cookies of one sweep.
#[derive(Debug, Clone)]
pub struct Cookies {
    hasher: SipHash13,
    first_port: u16,
    /// Ports in the range, 1 to 65,536.
    ports: u32,
    dport: u16,
}

impl Cookies {
    /// Cookies under `key` for SYNs from a port of `sports` to `dport`.
    ///
    /// # Panics
    /// If `sports` is empty.
    pub fn new(key: CookieKey, sports: RangeInclusive<u16>, dport: u16) -> Self {
        assert!(!sports.is_empty(), "a sweep needs at least one source port");
        Self {
            hasher: SipHash13::new(key),
            first_port: *sports.start(),
            ports: u32::from(*sports.end()) - u32::from(*sports.start()) + 1,
            dport,
        }
    }

    /// The cookie of the SYN from `saddr` to `daddr`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the hash is cut into pieces on purpose"
    )]
    pub fn of(&self, saddr: Ipv4Addr, daddr: Ipv4Addr) -> Cookie {
        let hash = self.hasher.hash(saddr, daddr, self.dport);
        // Multiply and shift maps 16 random bits onto the range without a division; its bias is
        // at most one part in 65,536 / ports.
        let offset = (((hash >> 32) as u16 as u32) * self.ports) >> 16;
        Cookie {
            seq: hash as u32,
            sport: self.first_port + offset as u16,
            ip_id: (hash >> 48) as u16,
        }
    }

    /// The port the SYNs go to.
    pub const fn dport(&self) -> u16 {
        self.dport
    }

    /// The range of source ports.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "first_port + ports - 1 was a u16"
    )]
    pub const fn sports(&self) -> RangeInclusive<u16> {
        self.first_port..=(self.first_port as u32 + self.ports - 1) as u16
    }
}

/// SipHash-1-3 (Aumasson and Bernstein, 2012) of source, destination and port, ten octets.
#[derive(Debug, Clone)]
struct SipHash13 {
    /// The state after the key was taken in.
    keyed: [u64; 4],
}

impl SipHash13 {
    fn new(key: CookieKey) -> Self {
        let whole = u128::from_le_bytes(key.0);
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

    #[inline]
    fn hash(&self, saddr: Ipv4Addr, daddr: Ipv4Addr, dport: u16) -> u64 {
        // Octets in network order, read as little-endian words; the last word's top octet is the
        // length.
        let source = u64::from(saddr.to_bits().swap_bytes());
        let destination = u64::from(daddr.to_bits().swap_bytes());
        let first = source | destination << 32;
        let last = u64::from(dport.swap_bytes()) | 10 << 56;
        let mut state = self.keyed;
        for block in [first, last] {
            state[3] ^= block;
            round(&mut state);
            state[0] ^= block;
        }
        state[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

#[inline]
const fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
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
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;
    use std::collections::HashSet;

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

    fn cookies(seed: u64, sports: RangeInclusive<u16>, dport: u16) -> Cookies {
        Cookies::new(CookieKey::derive(seed, &[7; 16]), sports, dport)
    }

    proptest! {
        #[test]
        fn the_written_out_rounds_are_siphash(key: [u8; 16], saddr: u32, daddr: u32, dport: u16) {
            let mut input = saddr.to_be_bytes().to_vec();
            input.extend(daddr.to_be_bytes());
            input.extend(dport.to_be_bytes());
            prop_assert_eq!(
                SipHash13::new(CookieKey::from_bytes(key)).hash(saddr.into(), daddr.into(), dport),
                SipHasher13::new_with_key(&key).hash(&input)
            );
        }
    }

    #[test]
    fn keys_depend_on_seed_and_nonce_and_nothing_else() {
        let key = CookieKey::derive(1, &[0; 16]);
        assert_eq!(key, CookieKey::derive(1, &[0; 16]));
        assert_ne!(key, CookieKey::derive(2, &[0; 16]));
        assert_ne!(key, CookieKey::derive(1, &[1; 16]));
        assert_eq!(key, CookieKey::from_bytes(*key.as_bytes()));
        assert_eq!(format!("{key:?}"), "CookieKey(..)");
    }

    #[test]
    fn derivation_is_frozen() {
        // A survey stores only seed and nonce: another derivation would orphan it.
        let key = CookieKey::derive(42, &[0xab; 16]);
        let mut input = b"smtpsweep cookie key 1".to_vec();
        input.extend(42u64.to_be_bytes());
        input.extend([0xab; 16]);
        assert_eq!(key.as_bytes()[..], Sha256::digest(&input)[..16]);
    }

    #[test]
    fn every_input_counts() {
        let base = cookies(1, 40_000..=49_999, 25);
        let there = Ipv4Addr::new(10, 1, 2, 3);
        let cookie = base.of(US, there);
        assert_eq!(cookie, base.of(US, there));
        assert_ne!(cookie.seq, base.of(US, Ipv4Addr::new(10, 1, 2, 4)).seq);
        assert_ne!(cookie.seq, base.of(Ipv4Addr::new(198, 18, 0, 3), there).seq);
        assert_ne!(
            cookie.seq,
            cookies(2, 40_000..=49_999, 25).of(US, there).seq
        );
        assert_ne!(
            cookie.seq,
            cookies(1, 40_000..=49_999, 587).of(US, there).seq
        );
    }

    #[test]
    fn ports_fill_exactly_the_range() {
        for (range, draws) in [
            (40_000..=40_000, 100u32),
            (1..=3, 1000),
            (65_000..=65_535, 60_000),
        ] {
            let cookies = cookies(9, range.clone(), 25);
            let seen: HashSet<u16> = (0..draws)
                .map(|i| cookies.of(US, Ipv4Addr::from(i)).sport)
                .collect();
            assert_eq!(seen, range.clone().collect(), "{range:?}");
            assert_eq!(cookies.sports(), range);
        }
        assert_eq!(cookies(9, 0..=u16::MAX, 25).sports(), 0..=u16::MAX);
    }

    #[test]
    fn sequence_numbers_do_not_repeat_more_than_chance() {
        let cookies = cookies(3, 40_000..=49_999, 25);
        let seqs: HashSet<u32> = (0..10_000u32)
            .map(|i| cookies.of(US, Ipv4Addr::from(i)).seq)
            .collect();
        // Birthday bound: 0.012 collisions expected.
        assert!(seqs.len() >= 9_998, "{} distinct", seqs.len());
    }

    #[test]
    #[should_panic(expected = "at least one source port")]
    #[expect(clippy::reversed_empty_ranges, reason = "the empty range is the point")]
    fn an_empty_range_is_a_mistake() {
        let _ = cookies(1, 2..=1, 25);
    }
}
