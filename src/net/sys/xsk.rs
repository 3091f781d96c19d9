//! An AF_XDP socket for sending: its memory, its rings, its system calls
//! (Documentation/networking/af_xdp.rst).
//!
//! The UMEM is memory of ours, registered with the kernel in chunks of 2 KiB, the least it takes. A
//! descriptor names any octets of it that stay within one chunk, so sixteen frames of 128 octets
//! share a chunk here: 256 frames lock 32 KiB rather than 512. (Over veth a chunk for each was as
//! fast: the kernel's work hides the caches.)

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::options::check;
use super::xsk_ring::{Consumer, Mapping, Producer};

/// Octets of a chunk: the least the kernel takes (`XDP_UMEM_MIN_CHUNK_SIZE`).
const CHUNK: u32 = 2048;

/// Sets how many frames one kick sends at most (Linux 6.17; uapi/linux/if_xdp.h). Not in libc yet.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// How the frames get to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Mode {
    /// The card reads them out of the UMEM.
    ZeroCopy,
    /// The kernel copies each.
    Copy,
}

/// An AF_XDP socket with a UMEM, a transmit ring and the rings that binding demands.
pub(in crate::net) struct XdpSocket {
    // Rings before the socket, so that the mappings go first.
    transmit: Producer<libc::xdp_desc>,
    completed: Consumer<u64>,
    memory: Mapping,
    slot_len: usize,
    slots: usize,
    socket: Socket,
    /// Whether the kernel tells after each kick what it took ([`taken_after`]).
    exact: bool,
    /// How many entries it has taken, if it does.
    taken: u32,
}

impl XdpSocket {
    /// A socket, not yet bound, with `slots` frames (a power of two) of up to `frame_len` octets to
    /// send from, and `spare` chunks stocked for a receive queue: a card in zero-copy mode
    /// takes the buffers of the queue's ordinary traffic from there, and returns them there.
    pub(in crate::net) fn new(
        frame_len: usize,
        slots: u32,
        spare: u32,
    ) -> Result<Self, SetupError> {
        let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None)
            .map_err(Step::Socket.failed())?;
        let slot_len = frame_len.next_power_of_two().max(64);
        let chunk = CHUNK as usize;
        if slot_len > chunk || !slots.is_power_of_two() {
            return Err(Step::Memory.failed()(io::Error::other("frames do not fit")));
        }
        let sending = (slots as usize * slot_len).next_multiple_of(chunk);
        // Whole pages, whatever their size.
        let len = (sending + spare as usize * chunk).next_multiple_of(1 << 16);
        let memory = Mapping::anonymous(len).map_err(Step::Memory.failed())?;
        let region = libc::xdp_umem_reg {
            addr: memory.start().addr().get() as u64,
            len: len as u64,
            chunk_size: CHUNK,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        let fd = socket.as_fd();
        set(fd, libc::XDP_UMEM_REG, &region).map_err(Step::Memory.failed())?;

        // Twice the frames: a frame that has to go a second time takes a second entry.
        let size = slots * 2;
        let stock = spare.next_power_of_two().max(64);
        let rings = Step::Rings.failed();
        set(fd, libc::XDP_UMEM_FILL_RING, &stock).map_err(rings)?;
        set(fd, libc::XDP_UMEM_COMPLETION_RING, &size).map_err(rings)?;
        set(fd, libc::XDP_TX_RING, &size).map_err(rings)?;
        let offsets = ring_offsets(fd).map_err(rings)?;
        let map = |layout: &libc::xdp_ring_offset, entries: u32, entry: usize, at: u64| {
            let len = usize::try_from(layout.desc).map_err(io::Error::other)?;
            Mapping::of_socket(fd, len + entries as usize * entry, at).map(Arc::new)
        };
        let (tx, cr, fr) = (&offsets.tx, &offsets.cr, &offsets.fr);
        let at = libc::XDP_PGOFF_TX_RING.cast_unsigned();
        let ring = map(tx, size, size_of::<libc::xdp_desc>(), at).map_err(rings)?;
        let transmit = Producer::new(&ring, tx, size).map_err(rings)?;
        let at = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        let ring = map(cr, size, size_of::<u64>(), at).map_err(rings)?;
        let completed = Consumer::new(&ring, cr, size).map_err(rings)?;
        if spare > 0 {
            let at = libc::XDP_UMEM_PGOFF_FILL_RING;
            let ring = map(fr, stock, size_of::<u64>(), at).map_err(rings)?;
            let mut fill = Producer::<u64>::new(&ring, fr, stock).map_err(rings)?;
            for at in 0..spare {
                fill.push(sending as u64 + u64::from(at) * u64::from(CHUNK));
            }
            fill.publish();
        }
        let exact = set(fd, XDP_MAX_TX_SKB_BUDGET, &slots).is_ok();
        Ok(Self {
            transmit,
            completed,
            memory,
            slot_len,
            slots: slots as usize,
            socket,
            exact,
            taken: 0,
        })
    }

    /// Ties the socket to queue `queue` of interface `index`.
    pub(in crate::net) fn bind(&self, index: u32, queue: u32, mode: Mode) -> io::Result<()> {
        let copying = match mode {
            Mode::ZeroCopy => libc::XDP_ZEROCOPY,
            Mode::Copy => libc::XDP_COPY,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: u16::try_from(libc::AF_XDP).map_err(io::Error::other)?,
            sxdp_flags: copying | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: the pointer is to a live sockaddr_xdp of the length given, which bind only reads.
        let status =
            unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), len) };
        check(status)
    }

    /// Lets the kernel hold that many octets of copies; without effect in zero-copy mode. It
    /// may grant less, which works too.
    pub(in crate::net) fn set_send_buffer(&self, octets: usize) {
        let _ = self.socket.set_send_buffer_size(octets);
    }

    /// Whether [`Self::resend_last`] knows which frame was the last.
    pub(in crate::net) const fn is_exact(&self) -> bool {
        self.exact
    }

    /// The frame in slot `slot`, which is not to be changed while it is on its way.
    pub(in crate::net) fn frame_mut(&mut self, slot: usize) -> &mut [u8] {
        assert!(slot < self.slots, "a slot of the socket");
        // SAFETY: the slot lies within the mapping, whose length `new` made out of their number.
        let start = unsafe { self.memory.start().add(slot * self.slot_len) };
        // SAFETY: as above; the slice borrows `self`, which owns the memory, so no other is made.
        // The kernel writes to chunks of the fill ring only, which lie behind the slots. It
        // may read a frame on its way, which harms nothing but that frame.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.slot_len) }
    }

    /// Whether the transmit ring has room for one more.
    pub(in crate::net) fn has_room(&self) -> bool {
        self.transmit.room() > 0
    }

    /// Queues the first `len` octets of `slot`, for which there must be room. [`Self::publish`]
    /// shows it to the kernel.
    pub(in crate::net) fn queue(&mut self, slot: usize, len: u32) {
        let entry = libc::xdp_desc {
            addr: (slot * self.slot_len) as u64,
            len,
            options: 0,
        };
        self.transmit.push(entry);
    }

    /// Shows the kernel what was queued.
    pub(in crate::net) fn publish(&mut self) {
        self.transmit.publish();
    }

    /// Queues the frame once more that the kernel took last, and returns its slot.
    pub(in crate::net) fn resend_last(&mut self) -> usize {
        let entry = self.transmit.written_as(self.taken.wrapping_sub(1));
        self.transmit.push(entry);
        self.transmit.publish();
        usize::try_from(entry.addr).map_or(usize::MAX, |at| at / self.slot_len)
    }

    /// Calls `each` with the slot of every frame that the kernel is done with; in copy mode a slot
    /// comes back when the copy was freed, in zero-copy mode when the card had read it.
    pub(in crate::net) fn completed(&mut self, mut each: impl FnMut(usize)) -> u32 {
        let slot_len = self.slot_len as u64;
        self.completed.drain(|address| {
            // An address is one of ours, so the quotient is a slot.
            each(usize::try_from(address / slot_len).unwrap_or(usize::MAX));
        })
    }

    /// Whether the kernel waits for a kick.
    pub(in crate::net) fn wants_kick(&self) -> bool {
        self.transmit.wants_kick()
    }

    /// Makes the kernel send what is in the ring, or a part of it. Errors say why not all:
    /// `EAGAIN` (a part, or no room at the driver now), `EBUSY` (the driver dropped the frame taken
    /// last; the rest waits), `ENOBUFS` (no memory), or that the interface is gone.
    pub(in crate::net) fn kick(&mut self) -> io::Result<()> {
        // SAFETY: neither a buffer nor an address is given.
        let status = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null(),
                0,
            )
        };
        if status >= 0 {
            self.taken = self.transmit.written();
            return Ok(());
        }
        let error = io::Error::last_os_error();
        let dropped = error.raw_os_error() == Some(libc::EBUSY);
        self.taken = taken_after(self.taken, self.transmit.taken(), dropped);
        Err(error)
    }
}

/// How many entries the kernel has taken after a kick that did not go through, when it had taken
/// `before` and its counter now reads `seen`.
///
/// Since Linux 6.17 the counter is brought up to date at the end of a kick that sent something;
/// one whose very first frame was `dropped` took that frame, and leaves the counter as it was
/// (`__xsk_generic_xmit` in net/xdp/xsk.c).
const fn taken_after(before: u32, seen: u32, dropped: bool) -> u32 {
    let more = seen.wrapping_sub(before);
    if more != 0 && more <= u32::MAX / 2 {
        seen
    } else {
        before.wrapping_add(dropped as u32)
    }
}

/// Why an AF_XDP socket could not be made.
#[derive(Debug)]
pub(in crate::net) struct SetupError {
    pub(in crate::net) step: Step,
    pub(in crate::net) source: io::Error,
}

/// What was being done when an AF_XDP socket could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Step {
    /// Opening the socket.
    Socket,
    /// Registering its memory.
    Memory,
    /// Making its rings.
    Rings,
}

impl Step {
    /// The error of this step.
    fn failed(self) -> impl Fn(io::Error) -> SetupError + Copy {
        move |source| SetupError { step: self, source }
    }
}

/// Sets an option of level `SOL_XDP` whose value the kernel reads as a `T`.
fn set<T>(fd: BorrowedFd<'_>, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a live `T` of the length given, which setsockopt only reads. (The
    // address inside an `xdp_umem_reg` is that of a mapping which outlives the socket.)
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            ptr::from_ref(value).cast(),
            len,
        )
    };
    check(status)
}

/// Where counters and entries stand within each ring's mapping.
fn ring_offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: plain integers, for which all zeros is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let whole = libc::socklen_t::try_from(size_of_val(&offsets)).map_err(io::Error::other)?;
    let mut len = whole;
    // SAFETY: the pointers are to a live structure and to its length, which bounds what is written.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut len,
        )
    };
    check(status)?;
    if len != whole {
        // Before Linux 5.4 rings had no flags, and so no wake-ups on demand.
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_follows_from_a_counter_that_lags() {
        // Some sent, then no room.
        assert_eq!(taken_after(10, 14, false), 14);
        // Some sent, and the last dropped.
        assert_eq!(taken_after(10, 14, true), 14);
        // The first dropped: the counter did not move, or came up to where we were already.
        assert_eq!(taken_after(10, 10, true), 11);
        assert_eq!(taken_after(11, 10, true), 12);
        assert_eq!(taken_after(12, 12, true), 13);
        // Nothing sent.
        assert_eq!(taken_after(10, 9, false), 10);
        // Over the end of the range.
        assert_eq!(taken_after(u32::MAX, 3, false), 3);
        assert_eq!(taken_after(u32::MAX, u32::MAX, true), 0);
    }
}
