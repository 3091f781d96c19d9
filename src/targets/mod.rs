//! Which addresses are probed, and in which order.
//!
//! ```text
//! lists ─▶ RangeSet ─┐
//!                    ├─▶ Space (index → Target) ─▶ Walk (Permutation, Shard, Cursor) ─▶ Target …
//! blocklist ─────────┘
//! ```
//!
//! [`Target`] is the proof that an address may be probed: its field is private, and only
//! [`Space`], already minus the blocklist, makes one. A [`Walk`] visits every address of a space
//! exactly once in an order that a seed decides, and a [`Cursor`] says how far it came; [`Passes`]
//! are several walks over the same, one behind the other. A shard is
//! the same piece of work on any machine: it is named by the digest of the space, the seed, and
//! "i of n".
//!
//! Nothing here opens a file or a socket, reads a clock or draws the system's randomness. An
//! address is a `u32` in host byte order inside, an [`Ipv4Addr`](std::net::Ipv4Addr) outside.

mod blocklist;
mod cursor;
mod group;
pub mod list;
mod passes;
mod permutation;
mod ranges;
mod shard;
mod space;
mod walk;

pub use blocklist::Blocklist;
pub use cursor::{Cursor, CursorError};
pub use passes::{Filled, Passes, PassesCursor, Spacing};
pub use permutation::Permutation;
pub use ranges::RangeSet;
pub use shard::{Shard, ShardError};
pub use space::{Space, Target};
pub use walk::{Walk, WalkError};
