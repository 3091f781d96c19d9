//! The layout of a `TPACKET_V3` block, read as plain bytes.
//!
//! A block starts with `struct tpacket_block_desc`; its frames follow as a list of
//! `struct tpacket3_hdr`, each saying how far the next one is (kernel headers: `linux/if_packet.h`;
//! prose: Documentation/networking/packet_mmap.rst). Numbers are in the machine's byte order.
//! Bounds are checked here rather than trusted, so that this file has no `unsafe` and runs in tests
//! without a kernel.

use std::mem::offset_of;

/// Where the word that says whose block it is stands, in octets.
pub(super) const STATUS_AT: usize = 8;

const COUNT_AT: usize = 12;
const FIRST_AT: usize = 16;

const NEXT: usize = offset_of!(libc::tpacket3_hdr, tp_next_offset);
const SECONDS: usize = offset_of!(libc::tpacket3_hdr, tp_sec);
const NANOSECONDS: usize = offset_of!(libc::tpacket3_hdr, tp_nsec);
const CAPTURED: usize = offset_of!(libc::tpacket3_hdr, tp_snaplen);
const FRAME_AT: usize = offset_of!(libc::tpacket3_hdr, tp_mac);

/// The frames of a block: their bytes, and when they arrived in microseconds since the Unix epoch.
/// A block that contradicts itself ends early.
pub(super) struct Frames<'a> {
    block: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Frames<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        let first = word(block, FIRST_AT).and_then(|at| usize::try_from(at).ok());
        let left = if first.is_some() {
            word(block, COUNT_AT).unwrap_or(0)
        } else {
            0
        };
        Self {
            block,
            at: first.unwrap_or(0),
            left,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (&'a [u8], u64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let header = self.block.get(self.at..)?;
        let length = usize::try_from(word(header, CAPTURED)?).ok()?;
        let start = usize::from(half(header, FRAME_AT)?);
        let frame = header.get(start..)?.get(..length)?;
        let at_us = u64::from(word(header, SECONDS)?) * 1_000_000
            + u64::from(word(header, NANOSECONDS)?) / 1_000;
        self.at += usize::try_from(word(header, NEXT)?).ok()?;
        Some((frame, at_us))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|octets| u32::from_ne_bytes(*octets))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|octets| u16::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(block: &mut [u8], at: usize, value: u32) {
        block[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    /// A block with two frames, "abc" at 1 s 2 µs and "de" at 3 s.
    fn block() -> Vec<u8> {
        let mut block = vec![0xa5; 512];
        put(&mut block, COUNT_AT, 2);
        put(&mut block, FIRST_AT, 48);
        for (base, next, seconds, nanoseconds, frame) in
            [(48, 160, 1, 2_999, &b"abc"[..]), (208, 0, 3, 0, &b"de"[..])]
        {
            put(&mut block, base + NEXT, next);
            put(&mut block, base + SECONDS, seconds);
            put(&mut block, base + NANOSECONDS, nanoseconds);
            put(
                &mut block,
                base + CAPTURED,
                u32::try_from(frame.len()).unwrap(),
            );
            block[base + FRAME_AT..base + FRAME_AT + 2].copy_from_slice(&82u16.to_ne_bytes());
            block[base + 82..base + 82 + frame.len()].copy_from_slice(frame);
        }
        block
    }

    #[test]
    fn frames_and_times_come_out_in_order() {
        let block = block();
        let frames: Vec<_> = Frames::new(&block).collect();
        assert_eq!(frames, [(&b"abc"[..], 1_000_002), (&b"de"[..], 3_000_000)]);
    }

    #[test]
    fn the_offsets_are_those_of_the_kernel() {
        assert_eq!(
            (NEXT, SECONDS, NANOSECONDS, CAPTURED, FRAME_AT),
            (0, 4, 8, 12, 24)
        );
        // version and offset_to_priv precede the union whose first words these are.
        assert_eq!((STATUS_AT, COUNT_AT, FIRST_AT), (8, 12, 16));
    }

    #[test]
    fn a_frame_beyond_the_block_ends_it() {
        let mut long = block();
        put(&mut long, 208 + CAPTURED, 1000);
        assert_eq!(Frames::new(&long).count(), 1);
        let mut far = block();
        put(&mut far, FIRST_AT, u32::MAX);
        assert_eq!(Frames::new(&far).count(), 0);
        assert_eq!(Frames::new(&[]).count(), 0);
    }

    proptest! {
        #[test]
        fn no_block_makes_it_panic(mut block in prop::collection::vec(any::<u8>(), 0..400), count in 0u32..5) {
            if block.len() >= COUNT_AT + 4 {
                put(&mut block, COUNT_AT, count);
            }
            prop_assert!(Frames::new(&block).count() <= 4 || block.len() < COUNT_AT + 4);
        }
    }
}
