//! Every `unsafe` of the crate: system calls that the standard library and socket2 do not wrap,
//! and the memory shared with the kernel.
//!
//! What is exported is safe. Owners free what they own (a mapping, a descriptor); each block does
//! one thing and says who guarantees what.

#![allow(unsafe_code, reason = "the one place for it; see the module's head")]

mod batch;
mod options;
mod process;
mod ring;
mod ring_block;
mod xsk;
mod xsk_ring;

pub(super) use batch::{BATCH, Destination, FrameBatch};
pub use options::{bind_address_no_port, peer_window};
pub(super) use options::{bind_packet, ignore_outgoing, packet_statistics};
pub use process::{Capability, effective_uid, has_capability, raise_descriptor_limit};
pub(super) use ring::{Geometry, Ring, wait_readable};
pub(super) use xsk::{Mode, SetupError, Step, XdpSocket};
