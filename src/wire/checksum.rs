//! The Internet checksum, whole and incremental.
//!
//! A checksum is the one's complement of the one's-complement sum of 16-bit words (RFC 1071). Sums
//! here are plain `u32` accumulators of big-endian words, folded only at the end: 65,535 words fit
//! without overflow. Because the sum is associative, a probe's constant words are summed once and
//! each frame only adds its own (RFC 1624, equation 3, taken from a template whose patched words
//! are zero: HC' = ~(C + m')).

use std::net::Ipv4Addr;

/// Adds the big-endian 16-bit words of `bytes` to `sum`; an odd last octet counts as the high half
/// of a word. At most 65,535 octets at a time.
pub fn add(sum: u32, bytes: &[u8]) -> u32 {
    let mut total = sum;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        total += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u32::from(*last) << 8;
    }
    total
}

/// Adds a 32-bit field as its two words.
pub const fn add_u32(sum: u32, value: u32) -> u32 {
    sum + (value >> 16) + (value & 0xffff)
}

/// Folds the carries of `sum` into 16 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "two folds leave at most 16 bits"
)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) as u16
}

/// The checksum field for a sum: its one's complement.
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The sum of the pseudo-header that TCP adds to its own checksum (RFC 9293, section 3.1).
/// `length` is that of the segment in octets, header included.
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    let sum = add_u32(0, source.to_bits());
    add_u32(sum, destination.to_bits()) + u32::from(protocol) + u32::from(length)
}

/// A header's checksum after one of its 16-bit words changed from `old` to `new`
/// (RFC 1624, equation 3).
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(!checksum as u32 + !old as u32 + new as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(add(0, &bytes)), 0xddf2);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4 of the RFC: the case in which the older equation 2 yields 0xffff.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn odd_octet_is_a_high_half() {
        assert_eq!(add(0, &[0x12, 0x34, 0x56]), 0x1234 + 0x5600);
    }

    proptest! {
        #[test]
        fn update_equals_recomputing(mut words in prop::collection::vec(any::<u16>(), 2..40), at in 0usize..40, new: u16) {
            let at = at % words.len();
            // A real header is never all zeros; equation 3 keeps +0 and -0 apart only then.
            words.push(0x4500);
            let bytes = |w: &[u16]| w.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
            let before = finish(add(0, &bytes(&words)));
            let old = words[at];
            words[at] = new;
            prop_assert_eq!(update(before, old, new), finish(add(0, &bytes(&words))));
        }

        #[test]
        fn agrees_with_pnet(bytes in prop::collection::vec(any::<u8>(), 2..200)) {
            // Word 0 is skipped by pnet as "the checksum field", so give it a zero there.
            let mut padded = vec![0, 0];
            padded.extend(&bytes);
            prop_assert_eq!(finish(add(0, &padded)), pnet_packet::util::checksum(&padded, 0));
        }
    }
}
