//! The question asked of every address, and what its answer means.
//!
//! A sweep keeps no state for what it has sent. Instead each SYN carries a cookie: its sequence
//! number and source port are a keyed hash of the address it goes to ([`Cookies`]). A reply has to
//! repeat both, so whoever did not see the SYN cannot forge one, and a frame proves by itself that
//! it answers us ([`Classifier`]).
//!
//! [`Syn`] is the outgoing half: one frame prepared once, patched per target. [`Dedup`] remembers
//! who has answered. [`Offer`] tells what becomes of a handshake that is to be completed.
//!
//! Pure: frames, keys and times come in as arguments.
//!
//! Invariant: only [`Classifier`] makes a [`Responder`] out of a frame, and only after the cookie
//! held.

pub mod answer;
mod classify;
mod cookie;
mod dedup;
mod handshake;
mod patch;
mod reply;
mod siphash;
mod syn;
mod unreachable;

pub use classify::{Checksums, Classifier};
pub use cookie::{Cookie, CookieKey, Cookies};
pub use dedup::Dedup;
pub use handshake::{Agreed, Clocks, Offer, Scales};
pub use patch::Patch;
pub use reply::{DropReason, Reply, Responder, SynAckOptions};
pub use syn::{LayoutError, Syn, SynLayout};
pub use unreachable::unreachable_name;

/// The port of SMTP between mail servers (RFC 5321).
pub const SMTP_PORT: u16 = 25;
