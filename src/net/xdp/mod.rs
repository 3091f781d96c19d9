//! The AF_XDP backend: frames go from memory shared with the kernel to the driver, past the packet
//! socket's layers (Documentation/networking/af_xdp.rst).
//!
//! Frames are prepared once, patched in place and named in the transmit ring; a system call per
//! batch sets the kernel to work. [`Transmit::send`] counts what the ring accepted; what has
//! really left is read back from the completion ring ([`Transmit::left`]).
//!
//! - **Zero-copy** is tried first. Some drivers bind so but send nothing until an XDP program is
//!   loaded as well; they refuse the first kick, and then the socket is opened anew in **copy**
//!   mode, which every Ethernet driver knows. In zero-copy mode the queue's ordinary traffic
//!   comes through our memory too, so the fill ring is stocked for it. Zero-copy follows the
//!   documents and has not been tried on a card yet: veth knows only copies.
//! - **At most [`SLOTS`] frames are under way**, which is what veth's queue holds, so it never
//!   overflows on our account.
//! - **A frame the driver dropped** is sent again: the kernel says so (`EBUSY`), and the frame is
//!   the one it took last. Kernels before 6.17 do not tell which that was; there it is taken off
//!   the count of those that left and not sent again, for nothing is to be sent twice.

mod flight;
mod obstacle;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use self::flight::Flight;
pub use self::obstacle::XdpObstacle;
use super::sys::{Mode, XdpSocket};
use super::{Link, LinkKind, NetError, Transmit};
use crate::probe::Syn;
use crate::targets::Target;

/// Frames under way at most.
const SLOTS: usize = 256;

/// Frames for each kick.
const BATCH: usize = 64;

/// Buffers for a queue's ordinary traffic in zero-copy mode, as many as large cards queue.
const SPARE: u32 = 4096;

/// Octets that the kernel may hold in copies: twice what [`SLOTS`] small ones take.
const SEND_BUFFER: usize = 1 << 19;

/// How long to wait for a queue that another socket has just left.
const BIND_PATIENCE: Duration = Duration::from_millis(500);

/// How long a full queue may hold us up before the caller gets to look around.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// Looks at the completion ring before a wait begins to sleep.
const SPINS: u32 = 200;

/// How long such a sleep lasts.
const NAP: Duration = Duration::from_micros(50);

/// Sends SYNs through an AF_XDP socket on one queue of an interface.
pub struct XdpTransmit {
    socket: XdpSocket,
    flight: Flight,
    syn: Syn,
    frame_len: u32,
    mode: Mode,
    /// Whether entries in the ring may wait for another kick.
    waiting: bool,
    /// Frames that were dropped without our knowing which.
    lost: u64,
    interface: String,
}

impl XdpTransmit {
    /// Whether AF_XDP can be used on `link`, as far as that shows without touching a queue.
    ///
    /// # Errors
    /// The reason why not.
    pub fn probe(link: &Link) -> Result<(), XdpObstacle> {
        if !matches!(link.kind, LinkKind::Ethernet { .. }) {
            let interface = link.interface.clone();
            return Err(XdpObstacle::NotEthernet { interface });
        }
        let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
        match XdpSocket::new(128, slots, 0) {
            Ok(_) => Ok(()),
            Err(error) => Err(XdpObstacle::setup(&link.interface, error)),
        }
    }

    /// Opens a socket on queue `queue` (from 0) of `link` for `syn`, whose link header must be the
    /// link's.
    ///
    /// # Errors
    /// The reason why it cannot be.
    pub fn open(link: &Link, syn: Syn, queue: u32) -> Result<Self, XdpObstacle> {
        Self::probe(link)?;
        let interface = link.interface.clone();
        // A queue that can only receive binds, and then sends nothing without an error.
        let queues = Path::new("/sys/class/net").join(&interface).join("queues");
        if queues.is_dir() && !queues.join(format!("tx-{queue}")).is_dir() {
            return Err(XdpObstacle::NoQueue { interface, queue });
        }
        let (mut socket, mode) = match Self::zero_copy(link, &syn, queue) {
            Some(socket) => (socket, Mode::ZeroCopy),
            None => (Self::bound(link, &syn, queue, Mode::Copy)?, Mode::Copy),
        };
        socket.set_send_buffer(SEND_BUFFER);
        for slot in 0..SLOTS {
            syn.prepare(socket.frame_mut(slot));
        }
        Ok(Self {
            socket,
            flight: Flight::new(SLOTS),
            // At most 14 + 20 + 44 octets, see `Syn`.
            frame_len: u32::try_from(syn.frame_len()).unwrap_or(u32::MAX),
            syn,
            mode,
            waiting: false,
            lost: 0,
            interface,
        })
    }

    /// A socket in zero-copy mode, if the driver would send that way: an empty kick asks it.
    fn zero_copy(link: &Link, syn: &Syn, queue: u32) -> Option<XdpSocket> {
        let mut socket = Self::bound(link, syn, queue, Mode::ZeroCopy).ok()?;
        socket.kick().is_ok().then_some(socket)
    }

    /// A socket bound in `mode`. A queue is free again only some time after its last socket
    /// was closed, so a busy one is asked again.
    fn bound(link: &Link, syn: &Syn, queue: u32, mode: Mode) -> Result<XdpSocket, XdpObstacle> {
        let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
        let spare = match mode {
            Mode::ZeroCopy => SPARE,
            Mode::Copy => 0,
        };
        let started = Instant::now();
        loop {
            // A socket whose bind failed is not bound again: kernels differ in what is left of it.
            let socket = XdpSocket::new(syn.frame_len(), slots, spare)
                .map_err(|error| XdpObstacle::setup(&link.interface, error))?;
            match socket.bind(link.index, queue, mode) {
                Ok(()) => return Ok(socket),
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY)
                        && started.elapsed() < BIND_PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(XdpObstacle::bind(&link.interface, queue, error)),
            }
        }
    }

    /// Whether the card reads frames out of our memory; otherwise the kernel copies each.
    pub fn is_zero_copy(&self) -> bool {
        self.mode == Mode::ZeroCopy
    }

    /// Takes note of what has left.
    fn collect(&mut self) {
        let (socket, flight) = (&mut self.socket, &mut self.flight);
        socket.completed(|slot| flight.complete(slot));
    }

    /// Sets the kernel to work on the ring, if it is to be told.
    fn kick(&mut self) -> Result<(), NetError> {
        if !self.socket.wants_kick() {
            self.waiting = false;
            return Ok(());
        }
        let Err(source) = self.socket.kick() else {
            self.waiting = false;
            return Ok(());
        };
        self.waiting = true;
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => Ok(()),
            Some(libc::EBUSY) => {
                // Before the completions are read, one of which is that of the dropped frame.
                if self.socket.is_exact() && self.socket.has_room() {
                    let slot = self.socket.resend_last();
                    self.flight.again(slot);
                } else {
                    self.lost += 1;
                }
                Ok(())
            }
            _ => Err(NetError::System {
                operation: "send by AF_XDP",
                interface: self.interface.clone(),
                source,
            }),
        }
    }

    /// Kicks if that may get frames under way moving: in copy mode those that an earlier kick left
    /// over, in zero-copy mode any for which the driver wants one.
    fn nudge(&mut self) -> Result<(), NetError> {
        if self.waiting || (self.is_zero_copy() && self.flight.under_way() > 0) {
            self.kick()?;
        }
        Ok(())
    }

    /// Waits until another batch (or the `wanted` rest of one) can be accepted; how many can, which
    /// after [`SEND_PATIENCE`] may be none.
    fn room(&mut self, wanted: usize) -> Result<usize, NetError> {
        let enough = wanted.min(BATCH);
        self.collect();
        let mut waited: Option<Instant> = None;
        let mut spins = 0;
        while self.flight.room() < enough {
            self.nudge()?;
            self.collect();
            spins += 1;
            if spins < SPINS {
                // Where the peer's receive work runs on this core, it needs us out of the way.
                thread::yield_now();
                continue;
            }
            if waited.get_or_insert_with(Instant::now).elapsed() > SEND_PATIENCE {
                break;
            }
            thread::sleep(NAP);
        }
        Ok(self.flight.room().min(enough))
    }
}

impl Transmit for XdpTransmit {
    /// Accepts targets into the transmit ring.
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError> {
        let mut rest = targets;
        while !rest.is_empty() {
            let room = match self.room(rest.len()) {
                Ok(room) => room,
                // What was accepted before counts; the error, if it lasts, comes again.
                Err(_) if rest.len() < targets.len() => break,
                Err(error) => return Err(error),
            };
            if room == 0 {
                break;
            }
            let (batch, later) = rest.split_at(room);
            let (socket, flight, frame_len) = (&mut self.socket, &mut self.flight, self.frame_len);
            let link_len = self.syn.link_len();
            self.syn.patch_each(batch, |_, patch| {
                let slot = flight.accept();
                patch.apply(&mut socket.frame_mut(slot)[link_len..]);
                socket.queue(slot, frame_len);
            });
            self.socket.publish();
            rest = later;
            self.waiting = true;
            // Kernels before 6.17 send 32 frames a kick.
            for _ in 0..BATCH / 32 + 1 {
                // The batch is accepted whatever becomes of it; an error that lasts comes again.
                if self.kick().is_err() || !self.waiting {
                    break;
                }
            }
        }
        Ok(targets.len() - rest.len())
    }

    fn left(&mut self) -> Result<u64, NetError> {
        self.nudge()?;
        self.collect();
        Ok(self.flight.left().saturating_sub(self.lost))
    }

    fn settle(&mut self, patience: Duration) -> Result<u64, NetError> {
        let started = Instant::now();
        loop {
            let left = self.left()?;
            if self.flight.under_way() == 0 || started.elapsed() >= patience {
                return Ok(left);
            }
            thread::sleep(NAP);
        }
    }
}
