//! What makes the template the SYN for one target: four words of its headers.
//!
//! The fields that differ from SYN to SYN, and the constant ones between them, are four aligned
//! groups of eight octets: written as such, a frame takes four stores instead of six smaller ones,
//! and their values are plain 64-bit arithmetic from the target to the word, with no branch. So a
//! loop over targets becomes one over the lanes of vectors: `multiversion` compiles it for AVX-512,
//! for AVX2 and for any processor, and picks at run time.

use std::net::Ipv4Addr;

use multiversion::multiversion;

use super::Cookies;
use crate::targets::Target;
use crate::wire::{ipv4, tcp};

/// Four words of a frame's headers: everything by which the SYN for one target differs from that
/// for another, checksums included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch([u64; 4]);

impl Patch {
    /// Where the words lie, in octets from the start of the IP header: identification to checksum;
    /// destination and ports; sequence number and acknowledgement; TCP flags to checksum.
    pub const PLACES: [usize; 4] = [4, 16, 24, 32];

    /// The octets of each word, in the order of [`Patch::PLACES`].
    pub fn words(self) -> [[u8; 8]; 4] {
        self.0.map(u64::to_be_bytes)
    }

    /// Writes the words into `packet`, which begins with the IP header.
    ///
    /// # Panics
    /// If `packet` is shorter than an IP and a TCP header.
    #[inline]
    pub fn apply(self, packet: &mut [u8]) {
        let headers: &mut [u8; HEADERS] = (&mut packet[..HEADERS])
            .try_into()
            .expect("cut to that length");
        for (place, word) in Self::PLACES.into_iter().zip(self.words()) {
            headers[place..place + 8].copy_from_slice(&word);
        }
    }
}

/// Octets of an IP header and a TCP header, options left out.
const HEADERS: usize = ipv4::HEADER_LEN + tcp::HEADER_LEN;

/// Makes the patches of one sweep.
#[derive(Debug, Clone)]
pub(super) struct Patcher {
    cookies: Cookies,
    saddr: u32,
    /// The template's words at [`Patch::PLACES`]; zero in the fields that a patch fills in.
    constant: [u64; 4],
    /// Sum of the template's IP header.
    ip_sum: u64,
    /// Sum of the template's pseudo-header, TCP header and options.
    tcp_sum: u64,
}

impl Patcher {
    /// For a template that begins with the IP header and has zeros where patches write. `sums` are
    /// those of its IP header and of its segment with pseudo-header.
    pub(super) fn new(saddr: Ipv4Addr, cookies: Cookies, template: &[u8], sums: [u32; 2]) -> Self {
        let word = |place: usize| {
            let octets = template[place..place + 8].try_into();
            u64::from_be_bytes(octets.expect("cut to that length"))
        };
        Self {
            cookies,
            saddr: saddr.to_bits(),
            constant: Patch::PLACES.map(word),
            ip_sum: sums[0].into(),
            tcp_sum: sums[1].into(),
        }
    }

    pub(super) const fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// The patch for one target.
    #[inline(always)]
    pub(super) fn patch(&self, target: Target) -> Patch {
        let cookie = self.cookies.of_bits(self.saddr, target.bits());
        let destination = u64::from(target.bits());
        let (seq, sport) = (u64::from(cookie.seq), u64::from(cookie.sport));
        let ip_id = u64::from(cookie.ip_id);
        let halves = |word: u64| (word >> 16) + (word & 0xffff);
        let ip_checksum = checksum(self.ip_sum + halves(destination) + ip_id);
        let tcp_checksum = checksum(self.tcp_sum + halves(destination) + halves(seq) + sport);
        let [first, second, third, fourth] = self.constant;
        Patch([
            first | ip_id << 48 | ip_checksum,
            second | destination << 32 | sport << 16,
            third | seq << 32,
            fourth | tcp_checksum << 16,
        ])
    }
}

/// The checksum field for a sum below 2^32, as `wire::checksum::finish`, in one width throughout.
#[inline(always)]
const fn checksum(sum: u64) -> u64 {
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) ^ 0xffff
}

/// The patches of some targets, word by word.
pub(super) struct Patches([[u64; Self::LEN]; 4]);

impl Default for Patches {
    fn default() -> Self {
        Self([[0; Self::LEN]; 4])
    }
}

impl Patches {
    /// How many there can be.
    pub(super) const LEN: usize = 64;

    /// Makes those of `targets`, of which there are at most [`Patches::LEN`].
    pub(super) fn make(&mut self, patcher: &Patcher, targets: &[Target]) {
        let [first, second, third, fourth] = &mut self.0;
        fill(patcher, targets, first, second, third, fourth);
    }

    /// The patch of the target at `at` of the last [`Patches::make`].
    #[inline]
    pub(super) fn get(&self, at: usize) -> Patch {
        Patch([self.0[0][at], self.0[1][at], self.0[2][at], self.0[3][at]])
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn fill(
    patcher: &Patcher,
    targets: &[Target],
    first: &mut [u64; Patches::LEN],
    second: &mut [u64; Patches::LEN],
    third: &mut [u64; Patches::LEN],
    fourth: &mut [u64; Patches::LEN],
) {
    let words = first
        .iter_mut()
        .zip(second)
        .zip(third.iter_mut().zip(fourth));
    for (target, ((a, b), (c, d))) in targets.iter().zip(words) {
        [*a, *b, *c, *d] = patcher.patch(*target).0;
    }
}
