//! Frames in and out of this machine.
//!
//! Two small traits are the seam between a sweep and a network: [`Transmit`] sends SYNs to
//! targets, [`Receive`] hands over the frames that may be answers. Behind them stand equals: the
//! packet socket ([`PacketTransmit`], [`PacketReceive`]), AF_XDP
//! ([`XdpTransmit`]), XDP live frames ([`LiveTransmit`]) and memory
//! ([`memory::MemoryNet`] for tests, [`DryRun`] and [`Discard`] for `--dryrun`). [`discover`] finds
//! out, from the kernel, how frames for the targets have to look and where they leave ([`Link`]).
//!
//! Invariants: only a [`Target`] can be sent to, so no blocked address is; no target is reported as
//! sent that the kernel did not take; `unsafe` exists under [`sys`] alone.

mod arp;
mod choose;
mod dryrun;
mod ebpf;
mod error;
mod features;
mod filter;
mod firewall;
mod link;
mod live;
pub mod memory;
mod netlink;
mod nftables;
mod packet;
mod route;
pub mod sys;
mod xdp;

use std::time::Duration;

use crate::targets::Target;
pub use crate::wire::MacAddr;
pub use choose::{Transmitters, TxBackend, open_transmit};
pub use dryrun::{Discard, DryRun};
pub use error::NetError;
pub use firewall::{Firewall, FirewallError};
pub use link::{Link, LinkKind};
pub use live::{Discard as XdpDiscard, LiveTransmit};
pub use packet::{PacketReceive, PacketTransmit, RingSize};
pub use route::{RouteOptions, discover};
pub use xdp::{XdpObstacle, XdpTransmit};

/// Sends SYNs.
pub trait Transmit: Send {
    /// Sends one SYN to each of `targets`, in order. Returns how many of the first were accepted;
    /// fewer than asked (even none) when there is no room now, in which case the rest is to be
    /// offered again. What was accepted has left, or leaves soon: [`Transmit::left`] knows.
    ///
    /// # Errors
    /// When nothing was sent and trying again cannot help (interface gone, permission withdrawn).
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError>;

    /// Probes that have really left so far: the first so many of those accepted. Asynchronous
    /// backends read completions back; with others it is all that were accepted.
    ///
    /// # Errors
    /// As [`Transmit::send`].
    fn left(&mut self) -> Result<u64, NetError>;

    /// Waits until all accepted probes have left, or `patience` is over; returns as
    /// [`Transmit::left`].
    ///
    /// # Errors
    /// As [`Transmit::send`].
    fn settle(&mut self, _patience: Duration) -> Result<u64, NetError> {
        self.left()
    }
}

/// Receives what may be answers.
pub trait Receive: Send {
    /// Calls `each` for every frame that is there (its bytes from the link header on, and when it
    /// arrived in microseconds since the Unix epoch); waits at most `timeout` for the first.
    /// Returns the number of frames.
    ///
    /// # Errors
    /// When receiving failed for good (interface gone).
    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<usize, NetError>;

    /// What was received and lost since the receiver was opened.
    ///
    /// # Errors
    /// When the kernel refuses the figures.
    fn stats(&mut self) -> Result<RxStats, NetError>;
}

/// Frames since a receiver was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxStats {
    /// Frames that passed the kernel's filter and were kept for us.
    pub received: u64,
    /// Frames that passed it and were lost for want of room.
    pub dropped: u64,
}
