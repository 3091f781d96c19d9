//! Many frames in one system call (sendmmsg(2)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::options::link_address;

/// Frames in a batch at most. 256 costs as little per frame as 1,024 did, and is the largest burst
/// that pacing should ever see.
pub(in crate::net) const BATCH: usize = 256;

/// Where a batch goes.
pub(in crate::net) enum Destination {
    /// Where the socket is bound to.
    Bound,
    /// Out of an interface, telling the driver what the frames are: drivers of links without a
    /// header cannot see it from the frame, and a socket bound with a protocol would receive.
    Link(libc::sockaddr_ll),
    /// Each packet to the host it is for (raw IP sockets).
    Hosts(Box<[libc::sockaddr_in; BATCH]>),
}

impl Destination {
    /// Out of interface `index`, as frames of EtherType `protocol`.
    pub(in crate::net) fn link(index: u32, protocol: u16) -> io::Result<Self> {
        Ok(Self::Link(link_address(index, protocol)?))
    }

    /// To hosts that are named packet by packet.
    #[expect(clippy::cast_possible_truncation, reason = "AF_INET is 2")]
    pub(in crate::net) fn hosts() -> Self {
        let nowhere = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: 0 },
            sin_zero: [0; 8],
        };
        Self::Hosts(Box::new([nowhere; BATCH]))
    }
}

/// Room for [`BATCH`] frames of equal length, and the tables that describe them to the kernel.
pub(in crate::net) struct FrameBatch {
    frames: Vec<u8>,
    frame_len: usize,
    /// Octets at the start of each frame that are not sent.
    skip: usize,
    destination: Destination,
    /// Lengths are set once; addresses are those of the last call and never followed, see
    /// [`FrameBatch::send`].
    pieces: Box<[libc::iovec; BATCH]>,
    messages: Box<[libc::mmsghdr; BATCH]>,
}

// SAFETY: what keeps this from being Send are the addresses in `pieces` and `messages`. They point
// into memory that the value itself owns, Rust code never follows them, and every one that the
// kernel is to follow is written anew within the call that hands it over.
unsafe impl Send for FrameBatch {}

impl FrameBatch {
    /// Zeroed frames of `frame_len` octets, of which the first `skip` are not sent.
    pub(in crate::net) fn new(frame_len: usize, skip: usize, destination: Destination) -> Self {
        assert!(skip < frame_len, "a frame has octets to send");
        let piece = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: frame_len - skip,
        };
        // SAFETY: mmsghdr is pointers and integers, for which all zeros is a value.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iovlen = 1;
        }
        Self {
            frames: vec![0; frame_len * BATCH],
            frame_len,
            skip,
            destination,
            pieces: Box::new([piece; BATCH]),
            messages: Box::new(messages),
        }
    }

    /// All [`BATCH`] frames, one behind the other.
    pub(in crate::net) fn frames_mut(&mut self) -> &mut [u8] {
        &mut self.frames
    }

    /// Says which hosts the first frames are for; without effect unless hosts are named.
    pub(in crate::net) fn address(&mut self, to: impl Iterator<Item = Ipv4Addr>) {
        if let Destination::Hosts(hosts) = &mut self.destination {
            for (host, to) in hosts.iter_mut().zip(to) {
                host.sin_addr.s_addr = to.to_bits().to_be();
            }
        }
    }

    /// Hands the first `count` frames to the kernel. Returns how many of them it took, in order;
    /// an error means that it took none.
    pub(in crate::net) fn send(&mut self, fd: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        assert!(count <= BATCH, "a batch has {BATCH} frames");
        // The addresses are written for every call, two stores a frame, so that none outlives the
        // borrow it came from; lengths stand in the tables since they were made.
        let frames = self.frames.chunks_exact_mut(self.frame_len);
        let tables = self.pieces.iter_mut().zip(self.messages.iter_mut());
        for (at, (frame, (piece, message))) in frames.zip(tables).take(count).enumerate() {
            piece.iov_base = frame[self.skip..].as_mut_ptr().cast();
            let header = &mut message.msg_hdr;
            header.msg_iov = ptr::from_mut(piece);
            match &mut self.destination {
                Destination::Bound => {}
                Destination::Link(address) => name(header, address),
                Destination::Hosts(hosts) => name(header, &mut hosts[at]),
            }
        }
        let wanted = u32::try_from(count).map_err(io::Error::other)?;
        let messages = self.messages.as_mut_ptr();
        // SAFETY: the first `count` headers point to one live iovec each, these to live frames of
        // the lengths given and the names to live addresses; all are owned by `self`, which is
        // borrowed until the call returns. Linux only reads frames and addresses, and writes
        // msg_len.
        let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages, wanted, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Sets the address of a message.
#[expect(
    clippy::cast_possible_truncation,
    reason = "socket addresses are below 128 octets"
)]
fn name<T>(header: &mut libc::msghdr, address: &mut T) {
    header.msg_name = ptr::from_mut(address).cast();
    header.msg_namelen = size_of::<T>() as libc::socklen_t;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn frames_leave_in_order_without_their_first_octets() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let mut batch = FrameBatch::new(4, 1, Destination::Bound);
        for (octet, frame) in (0..100).zip(batch.frames_mut().chunks_mut(4)) {
            frame.copy_from_slice(&[9, octet, octet, 7]);
        }
        assert_eq!(batch.send(sender.as_fd(), 100).unwrap(), 100);
        for at in 0..100u8 {
            let mut frame = [0; 8];
            assert_eq!(receiver.recv(&mut frame).unwrap(), 3);
            assert_eq!(frame[..3], [at, at, 7]);
        }
    }

    #[test]
    fn a_closed_door_is_an_error_and_nothing_counts_as_sent() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = FrameBatch::new(4, 0, Destination::Bound);
        // Not connected and no address: EDESTADDRREQ.
        let err = batch.send(sender.as_fd(), 3).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EDESTADDRREQ));
        assert_eq!(batch.send(sender.as_fd(), 0).unwrap(), 0);
    }
}
