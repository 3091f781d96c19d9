//! Which addresses are probed, and in which order.
//!
//! [`Target`] is the proof that an address may be probed: its field is private, and only
//! [`Space`], already minus the blocklist, makes one.
