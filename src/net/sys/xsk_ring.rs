//! The rings of an AF_XDP socket: arrays shared with the kernel, one side producing, one
//! consuming.
//!
//! A ring is two free-running 32-bit counters and a power-of-two array; an entry's place is its
//! number modulo the size (Documentation/networking/af_xdp.rst, "Rings"). We produce into the
//! transmit and fill rings and consume from the completion ring; the kernel does the opposite. The
//! rules are in the head comment of the kernel's net/xdp/xsk_queue.h, whose letters are used below:
//!
//! | step | producer | consumer |
//! |---|---|---|
//! | read the other's counter | A: room, before entries are written | C: load-acquire of `producer`, before entries are read |
//! | publish one's own | B: store-release of `producer`, after entries were written | D: store-release of `consumer`, after entries were read |
//!
//! B pairs with C, D with A. For A the kernel relies on the control dependency between the load and
//! the stores; Rust's memory model knows none, so it is an acquire here (free on x86).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Memory mapped into this process, unmapped when dropped.
pub(super) struct Mapping {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned by this value and not tied to a thread; what it holds is accessed
// through raw pointers by the owners of views, who argue for themselves.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives away an address and a length, nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory of `len` octets, aligned to a page.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs no memory of ours.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        Self::checked(memory, len)
    }

    /// `len` octets that socket `fd` offers at `offset`.
    pub(super) fn of_socket(fd: BorrowedFd<'_>, len: usize, offset: u64) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: as above; the kernel checks length and offset against the socket's rings.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        Self::checked(memory, len)
    }

    fn checked(memory: *mut libc::c_void, len: usize) -> io::Result<Self> {
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { memory, len })
    }

    /// Where it begins.
    pub(super) const fn start(&self) -> NonNull<u8> {
        self.memory
    }

    /// A pointer to a `T` at `offset`, if one fits there and is aligned.
    fn at<T>(&self, offset: u64, count: u32) -> io::Result<NonNull<T>> {
        let wrong = || io::Error::other("the kernel's ring offsets lie outside its ring");
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let count = usize::try_from(count).map_err(io::Error::other)?;
        let end = size_of::<T>()
            .checked_mul(count)
            .and_then(|octets| octets.checked_add(offset))
            .ok_or_else(wrong)?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return Err(wrong());
        }
        // SAFETY: `offset` lies within the mapping, as just checked.
        Ok(unsafe { self.memory.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping; views keep an `Arc` of it, so that
        // none is left.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

/// Entries between two free-running counters.
const fn between(producer: u32, consumer: u32) -> u32 {
    producer.wrapping_sub(consumer)
}

/// Entries that may still be written to a ring of `size`. A counter that ran away (a kernel gone
/// mad) leaves no room rather than too much.
const fn room(size: u32, producer: u32, consumer: u32) -> u32 {
    size.saturating_sub(between(producer, consumer))
}

/// The place of entry `number` in a ring of `size`, a power of two.
const fn place(size: u32, number: u32) -> u32 {
    number & (size - 1)
}

/// One side's view of a ring of `T`s.
struct View<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Keeps the memory mapped.
    _memory: Arc<Mapping>,
    _entries: PhantomData<T>,
}

// SAFETY: the view keeps its mapping alive, and the mapping may move between threads. Two views of
// one side never exist, see `Producer::new` and `Consumer::new`.
unsafe impl<T: Send> Send for View<T> {}

impl<T: Copy> View<T> {
    fn new(memory: &Arc<Mapping>, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        if !size.is_power_of_two() {
            return Err(io::Error::other("a ring's size is a power of two"));
        }
        Ok(Self {
            producer: memory.at(offsets.producer, 1)?,
            consumer: memory.at(offsets.consumer, 1)?,
            flags: memory.at(offsets.flags, 1)?,
            entries: memory.at(offsets.desc, size)?,
            size,
            _memory: Arc::clone(memory),
            _entries: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the mapping and aligned (`Mapping::at`); both sides access it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer's counter.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for the producer's counter.
        unsafe { self.flags.as_ref() }
    }

    fn entry(&self, number: u32) -> NonNull<T> {
        let place = place(self.size, number) as usize;
        // SAFETY: `place` is below `size`, and the array of that size lies within the mapping.
        unsafe { self.entries.add(place) }
    }
}

/// The producing end of a ring.
pub(super) struct Producer<T> {
    view: View<T>,
    /// Entries written so far, those not published yet included.
    written: u32,
}

impl<T: Copy> Producer<T> {
    /// The producing end of the fresh ring in `memory`; there must be no other.
    pub(super) fn new(
        memory: &Arc<Mapping>,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let view = View::new(memory, offsets, size)?;
        Ok(Self { view, written: 0 })
    }

    /// Entries that may be pushed now.
    pub(super) fn room(&self) -> u32 {
        // A, pairs with the consumer's D.
        room(
            self.view.size,
            self.written,
            self.view.consumer().load(Ordering::Acquire),
        )
    }

    /// Writes the next entry, which the consumer does not see before [`Self::publish`]. There must be
    /// room for it.
    pub(super) fn push(&mut self, entry: T) {
        // SAFETY: the entry is inside the mapping, and ours until it is published: the caller saw
        // room, so the consumer is done with the one that was there. Were it not, the consumer
        // would read a mix of two descriptors, which it checks; no memory of ours is touched.
        unsafe { self.view.entry(self.written).write_volatile(entry) };
        self.written = self.written.wrapping_add(1);
    }

    /// Hands all entries written so far to the consumer.
    pub(super) fn publish(&mut self) {
        // B, pairs with the consumer's C.
        self.view.producer().store(self.written, Ordering::Release);
    }

    /// Entries written so far, counted like the ring's counters.
    pub(super) const fn written(&self) -> u32 {
        self.written
    }

    /// Entries that the consumer says it has taken.
    pub(super) fn taken(&self) -> u32 {
        self.view.consumer().load(Ordering::Acquire)
    }

    /// Entry `number` as it was written; a wrong number yields another entry.
    pub(super) fn written_as(&self, number: u32) -> T {
        // SAFETY: the entry is inside the mapping; this end alone writes entries, and `T`s are
        // plain numbers, for which any octets are a value.
        unsafe { self.view.entry(number).read_volatile() }
    }

    /// Whether the kernel wants a system call to look at the ring (`XDP_USE_NEED_WAKEUP`).
    pub(super) fn wants_kick(&self) -> bool {
        // Relaxed: af_xdp.rst asks for no order, and a kick too few is made up by the next.
        self.view.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The consuming end of a ring.
pub(super) struct Consumer<T> {
    view: View<T>,
    taken: u32,
}

impl<T: Copy> Consumer<T> {
    /// The consuming end of the fresh ring in `memory`; there must be no other.
    pub(super) fn new(
        memory: &Arc<Mapping>,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let view = View::new(memory, offsets, size)?;
        Ok(Self { view, taken: 0 })
    }

    /// Calls `each` for every entry there is, in order, and gives their places back. Returns their
    /// number.
    pub(super) fn drain(&mut self, mut each: impl FnMut(T)) -> u32 {
        // C, pairs with the producer's B.
        let producer = self.view.producer().load(Ordering::Acquire);
        let ready = between(producer, self.taken).min(self.view.size);
        for _ in 0..ready {
            // SAFETY: the entry is inside the mapping, and the producer published it and does not
            // write it again before we give it back; `T`s are plain numbers.
            each(unsafe { self.view.entry(self.taken).read_volatile() });
            self.taken = self.taken.wrapping_add(1);
        }
        if ready > 0 {
            // D, pairs with the producer's A.
            self.view.consumer().store(self.taken, Ordering::Release);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: libc::xdp_ring_offset = libc::xdp_ring_offset {
        producer: 0,
        consumer: 64,
        flags: 68,
        desc: 128,
    };

    fn ring(size: u32) -> (Producer<u64>, Consumer<u64>) {
        let memory = Arc::new(Mapping::anonymous(4096).unwrap());
        (
            Producer::new(&memory, &OFFSETS, size).unwrap(),
            Consumer::new(&memory, &OFFSETS, size).unwrap(),
        )
    }

    #[test]
    fn counters_run_over_the_end_of_their_range() {
        assert_eq!(room(8, 5, 5), 8);
        assert_eq!(room(8, 13, 5), 0);
        assert_eq!((room(8, 2, u32::MAX - 2), between(2, u32::MAX - 2)), (3, 5));
        // A consumer ahead of its producer is nonsense: no room.
        assert_eq!(room(8, 5, 6), 0);
        let places: Vec<u32> = (0..6)
            .map(|step| place(4, (u32::MAX - 2).wrapping_add(step)))
            .collect();
        assert_eq!(places, [1, 2, 3, 0, 1, 2]);
    }

    #[test]
    fn entries_come_out_once_in_order_and_only_when_published() {
        let (mut producer, mut consumer) = ring(4);
        let mut next = 0;
        for turn in 0..10 {
            assert_eq!(producer.room(), 4, "turn {turn}");
            for entry in 0..3 {
                producer.push(turn * 3 + entry);
            }
            assert_eq!(producer.room(), 1);
            assert_eq!(consumer.drain(|_| panic!("not published")), 0);
            producer.publish();
            let drained = consumer.drain(|entry| {
                assert_eq!(entry, next);
                next += 1;
            });
            assert_eq!(drained, 3);
            assert_eq!(producer.taken(), producer.written());
            assert_eq!(
                producer.written_as(producer.taken().wrapping_sub(1)),
                next - 1
            );
        }
    }

    #[test]
    fn a_wrong_layout_is_refused() {
        let memory = Arc::new(Mapping::anonymous(4096).unwrap());
        assert!(Producer::<u64>::new(&memory, &OFFSETS, 3).is_err());
        assert!(Producer::<u64>::new(&memory, &OFFSETS, 1024).is_err());
        let astray = libc::xdp_ring_offset {
            consumer: 4094,
            ..OFFSETS
        };
        assert!(Consumer::<u64>::new(&memory, &astray, 4).is_err());
        let bent = libc::xdp_ring_offset {
            desc: 129,
            ..OFFSETS
        };
        assert!(Consumer::<u64>::new(&memory, &bent, 4).is_err());
    }

    #[test]
    fn two_threads_lose_and_double_nothing() {
        const COUNT: u64 = 200_000;
        let (mut producer, mut consumer) = ring(64);
        let writer = std::thread::spawn(move || {
            let mut next = 0;
            while next < COUNT {
                for _ in 0..producer.room() {
                    if next < COUNT {
                        producer.push(next);
                        next += 1;
                    }
                }
                producer.publish();
                std::thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            let drained = consumer.drain(|entry| {
                assert_eq!(entry, expected);
                expected += 1;
            });
            if drained == 0 {
                std::thread::yield_now();
            }
        }
        writer.join().unwrap();
    }
}
