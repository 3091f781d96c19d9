//! Memory shared with eBPF programs: the mapped element of an array map, as 64-bit words.
//!
//! Both sides access words atomically: an aligned load or store of 8 octets is one access for
//! eBPF too (RFC 9669; the kernel's compilers emit one instruction for it). Which orderings a
//! protocol needs is its own affair; see `net::live`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use super::bpf::create_shared_array;

/// A map of one element, mapped. Unmapped and closed when dropped; the kernel keeps the map as long
/// as a program uses it.
pub(in crate::net) struct SharedWords {
    memory: NonNull<AtomicU64>,
    words: usize,
    map: OwnedFd,
}

// SAFETY: the mapping is owned by this value and is not tied to a thread.
unsafe impl Send for SharedWords {}
// SAFETY: it is only ever accessed through atomic words.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Makes a map of `words` zeroed words and maps it.
    pub(in crate::net) fn new(words: usize) -> io::Result<Self> {
        let len = words * size_of::<u64>();
        let map = create_shared_array(u32::try_from(len).map_err(io::Error::other)?)?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice disturbs no memory
        // of ours; the kernel rounds the length up to pages, and so is the element.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { memory, words, map })
    }

    /// The map, to be named in programs.
    pub(in crate::net) fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// All words.
    pub(in crate::net) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has that many words, is aligned to a page, zeroed by the kernel, and
        // lives as long as `self`; the kernel's programs access it by words, atomically.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made in `new`; nothing borrows it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}
