//! The receive ring (`TPACKET_V3`): blocks of memory that the kernel fills with frames and lends
//! to us one by one.
//!
//! A block belongs to the kernel while the status word in its head says `TP_STATUS_KERNEL`, and to
//! us from when the kernel sets `TP_STATUS_USER` until we set it back
//! (Documentation/networking/packet_mmap.rst). The kernel writes a block's contents before its
//! status, with a write barrier between (`prb_flush_block` in net/packet/af_packet.c); so we load
//! the status with *acquire*, which keeps our reads of the contents behind it, and store it with
//! *release*, which keeps them before (Documentation/memory-barriers.txt, ACQUIRE and RELEASE
//! operations).
//!
//! The kernel fills blocks in ring order, so looking at the next one alone is enough.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::options::{check, set_packet_option};
use super::ring_block::{Frames, STATUS_AT};

/// The shape of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct Geometry {
    /// Octets of a block: a multiple of the page size.
    pub(in crate::net) block_len: u32,
    /// Number of blocks.
    pub(in crate::net) blocks: u32,
    /// Milliseconds after which a block that holds frames is handed over although not full.
    pub(in crate::net) retire_ms: u32,
}

/// A mapped receive ring. Unmapped when dropped; the kernel frees the memory with the socket.
pub(in crate::net) struct Ring {
    memory: NonNull<u8>,
    block_len: usize,
    blocks: usize,
    next: usize,
}

// SAFETY: the mapping is owned by this value alone and is not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Gives packet socket `fd`, which must not be bound yet lest unfiltered frames enter, a ring
    /// of that shape.
    pub(in crate::net) fn new(fd: BorrowedFd<'_>, geometry: Geometry) -> io::Result<Self> {
        /// Only the kernel's consistency checks look at it: V3 packs frames of any length.
        const FRAME_LEN: u32 = 2048;

        let version = libc::tpacket_versions::TPACKET_V3 as i32;
        set_packet_option(fd, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req3 {
            tp_block_size: geometry.block_len,
            tp_block_nr: geometry.blocks,
            tp_frame_size: FRAME_LEN,
            tp_frame_nr: geometry.block_len / FRAME_LEN * geometry.blocks,
            tp_retire_blk_tov: geometry.retire_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_packet_option(fd, libc::PACKET_RX_RING, &request)?;
        let block_len = usize::try_from(geometry.block_len).map_err(io::Error::other)?;
        let blocks = usize::try_from(geometry.blocks).map_err(io::Error::other)?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice disturbs no memory
        // of ours; descriptor and length are those of the ring just made.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                block_len * blocks,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self {
            memory,
            block_len,
            blocks,
            next: 0,
        })
    }

    /// Calls `each` for every frame of every block that is ours now (frame, microseconds since the
    /// Unix epoch), gives the blocks back, and returns the number of frames. Stops after one turn
    /// of the ring, so that a flood cannot hold the caller.
    pub(in crate::net) fn drain(&mut self, each: &mut dyn FnMut(&[u8], u64)) -> usize {
        let mut frames = 0;
        for _ in 0..self.blocks {
            // SAFETY: `next` is below `blocks`, so the block lies inside the mapping.
            let block = unsafe { self.memory.as_ptr().add(self.next * self.block_len) };
            // SAFETY: the status word lies within the block's first octets.
            let status = unsafe { block.add(STATUS_AT) };
            // SAFETY: it is aligned (blocks start on pages, the word at 8), mapped as long as
            // `self` lives, and both sides access it atomically.
            let status = unsafe { AtomicU32::from_ptr(status.cast()) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                break;
            }
            // SAFETY: the block is ours until its status is set back below, and the kernel does
            // not write to it meanwhile; the slice does not outlive this turn of the loop.
            let bytes = unsafe { std::slice::from_raw_parts(block, self.block_len) };
            for (frame, at_us) in Frames::new(bytes) {
                each(frame, at_us);
                frames += 1;
            }
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = following(self.next, self.blocks);
        }
        frames
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made in `new`; nothing borrows it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.block_len * self.blocks) };
    }
}

/// The block after `at` in a ring of `blocks`.
const fn following(at: usize, blocks: usize) -> usize {
    if at + 1 == blocks { 0 } else { at + 1 }
}

/// Waits until `fd` has something to read or an error to tell, or `timeout` is over. A signal ends
/// the wait early. Whether there is something.
pub(in crate::net) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // Round up: a wait of less than a millisecond must not become a busy loop.
    let milliseconds = timeout.as_micros().div_ceil(1_000);
    let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
    // SAFETY: the pointer is to one live pollfd, as the count says.
    let status = unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
    match check(status) {
        Ok(()) => Ok(status > 0),
        Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_closes_on_itself() {
        let walk: Vec<usize> = (0..7)
            .scan(0, |at, _| Some(std::mem::replace(at, following(*at, 3))))
            .collect();
        assert_eq!(walk, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(following(0, 1), 0);
    }
}
