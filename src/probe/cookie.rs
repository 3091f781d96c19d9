//! The cookie: what makes a SYN recognisable in its answer.
//!
//! SipHash-1-3 over source address, destination address and destination port, 64 bits: 32 become
//! the sequence number, 16 choose the source port from the sweep's range, 16 become the IP
//! identification. SipHash-2-4 would cost half as much again and buys nothing here: a forger has
//! to hit 32 bits of sequence number blindly, whatever the rounds, and sees outputs only for
//! addresses that are its own.
//!
//! The key comes from the seed and a nonce by SHA-256. With the nonce kept beside the survey, a
//! resumed sweep recognises answers to SYNs sent before the interruption; without it, knowing the
//! seed (which users publish, to let others repeat a walk) forges nothing.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

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
    hasher: SipHasher13,
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
            hasher: SipHasher13::new_with_key(key.as_bytes()),
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
        let mut input = [0; 10];
        input[..4].copy_from_slice(&saddr.octets());
        input[4..8].copy_from_slice(&daddr.octets());
        input[8..].copy_from_slice(&self.dport.to_be_bytes());
        let hash = self.hasher.hash(&input);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

    fn cookies(seed: u64, sports: RangeInclusive<u16>, dport: u16) -> Cookies {
        Cookies::new(CookieKey::derive(seed, &[7; 16]), sports, dport)
    }

    #[test]
    fn siphash_reference_vector() {
        // The reference key 00..0f and the empty input.
        let key: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let a = SipHasher13::new_with_key(&key).hash(&[]);
        assert_eq!(
            a.to_le_bytes(),
            [0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab]
        );
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
