//! The cookie: what makes a SYN recognisable in its answer.
//!
//! SipHash-1-3 over source address, destination address and destination port, 64 bits: 32 become
//! the sequence number, 16 choose the source port from the sweep's range, 16 become the IP
//! identification. SipHash-2-4 would cost half as much again and buys nothing here: a forger has
//! to hit 32 bits of sequence number blindly, whatever the rounds, and sees outputs only for
//! addresses that are its own. The input is always ten octets, two blocks, so the rounds are
//! written out (`siphash.rs`), in less than half the time of a general hasher, which finds that out
//! anew for every address.
//!
//! The key comes from the seed and a nonce by SHA-256. With the nonce kept beside the survey, a
//! resumed sweep recognises answers to SYNs sent before the interruption; without it, knowing the
//! seed (which users publish, to let others repeat a walk) forges nothing.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use multiversion::multiversion;
use sha2::{Digest, Sha256};

use super::siphash::SipHash13;
use crate::targets::Target;

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
            hasher: SipHash13::new(key.0),
            first_port: *sports.start(),
            ports: u32::from(*sports.end()) - u32::from(*sports.start()) + 1,
            dport,
        }
    }

    /// The cookie of the SYN from `saddr` to `daddr`.
    pub fn of(&self, saddr: Ipv4Addr, daddr: Ipv4Addr) -> Cookie {
        self.of_bits(saddr.to_bits(), daddr.to_bits())
    }

    /// The cookies of the SYNs from `saddr` to each of `targets`, in order, into the first of
    /// `cookies`: the same as from [`Cookies::of`], but several at a time where the processor can.
    ///
    /// # Panics
    /// If `cookies` is shorter than `targets`.
    pub fn of_batch(&self, saddr: Ipv4Addr, targets: &[Target], cookies: &mut [Cookie]) {
        fill_cookies(
            self,
            saddr.to_bits(),
            targets,
            &mut cookies[..targets.len()],
        );
    }

    /// [`Cookies::of`] for addresses in host byte order. Without a branch, and inlined, so that a
    /// loop over it becomes one over the lanes of a vector.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the hash is cut into pieces on purpose"
    )]
    pub(super) fn of_bits(&self, saddr: u32, daddr: u32) -> Cookie {
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

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn fill_cookies(cookies: &Cookies, saddr: u32, targets: &[Target], out: &mut [Cookie]) {
    for (target, cookie) in targets.iter().zip(out) {
        *cookie = cookies.of_bits(saddr, target.bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{RangeSet, Space};
    use std::collections::HashSet;

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

    fn cookies(seed: u64, sports: RangeInclusive<u16>, dport: u16) -> Cookies {
        Cookies::new(CookieKey::derive(seed, &[7; 16]), sports, dport)
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
    fn a_batch_is_as_one_by_one() {
        let cookies = cookies(5, 16_384..=32_767, 25);
        let all = RangeSet::from_ranges([(0, 2), (0x0a00_0000, 0x0a00_0fff), (!2, !0)]);
        let space = Space::new(&all, &RangeSet::default());
        let targets: Vec<Target> = (0..space.len()).map(|i| space.target(i).unwrap()).collect();
        let one_by_one: Vec<Cookie> = targets.iter().map(|t| cookies.of(US, t.addr())).collect();
        let unset = Cookie {
            seq: 0,
            sport: 0,
            ip_id: 0,
        };
        for count in (0..70).chain([targets.len()]) {
            let mut batch = vec![unset; count + 1];
            cookies.of_batch(US, &targets[..count], &mut batch);
            assert_eq!(batch[..count], one_by_one[..count]);
            assert_eq!(batch[count], unset);
        }
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
