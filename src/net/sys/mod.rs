//! Every `unsafe` of the crate: system calls that the standard library and socket2 do not wrap,
//! and the memory shared with the kernel.
//!
//! What is exported is safe. Owners free what they own (a mapping, a descriptor); each block does
//! one thing and says who guarantees what.

#![allow(unsafe_code, reason = "the one place for it; see the module's head")]

mod batch;
mod bpf;
mod options;
mod process;
mod repair;
mod ring;
mod ring_block;
mod shared;
mod thread;
mod user;
mod xsk;
mod xsk_ring;

pub(super) use batch::{BATCH, Destination, FrameBatch};
pub(super) use bpf::{
    LIVE_BATCH_MAX, LoadError, ProgramKind, attach_raw_tracepoint, attach_xdp, load_program,
    run_live_frames,
};
pub(super) use options::{
    EVERY_PROTOCOL, bind_packet, bypass_queueing, ignore_outgoing, packet_statistics,
};
pub use options::{bind_address_no_port, peer_window};
pub use process::{Capability, effective_uid, fine_sleep, has_capability, raise_descriptor_limit};
pub use repair::{
    Queue, RepairOption, Windows, begin_repair, end_repair, set_agreed, set_sequence,
    set_timestamp_clock, set_windows,
};
pub(super) use ring::{Geometry, Ring, wait_readable};
pub(super) use shared::SharedWords;
pub(super) use thread::{ThreadId, interrupt, this_thread};
pub use thread::{allowed_cpus, pin_to_cpu};
pub use user::{become_user, no_new_privileges};
pub(super) use xsk::{Mode, SetupError, Step, XdpSocket};
