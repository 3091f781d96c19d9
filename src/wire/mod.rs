//! Frames as bytes and as meaning: Ethernet, ARP, IPv4, TCP, ICMP.
//!
//! Every protocol has two views. A `Packet<T>` (Ethernet: `Frame<T>`) is a lens over bytes: its
//! accessors read and write single fields and judge nothing. A `Repr` is a plain struct that holds
//! only meaningful values. `Repr::parse` goes from lens to meaning, `Repr::emit` back, and
//! `parse(emit(r)) == r`.
//!
//! Byte order: host order in every argument and result, network order inside the buffers.
//!
//! `new_checked` is for bytes that came from elsewhere. It proves that every accessor of that lens
//! stays inside the buffer, whatever the fields say, so nothing here panics on a hostile frame.
//! `new_unchecked` is for buffers of our own making that are about to be filled: there, a check of
//! the length fields would look at leftovers. Its accessors panic when the buffer is shorter than
//! the header, which is our mistake and not a peer's.
//!
//! Pure: no I/O, no clock, no allocation.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod tcp;

pub use ethernet::MacAddr;

/// Why bytes are not the header they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer octets than the header needs.
    #[error("read a whole {header} header: {have} octets of {need}")]
    Truncated {
        /// The header's name.
        header: &'static str,
        /// Octets needed.
        need: usize,
        /// Octets there.
        have: usize,
    },
    /// A length field names a length that cannot be.
    #[error("read a {header} header: its {field} says {value}")]
    ImpossibleLength {
        /// The header's name.
        header: &'static str,
        /// The field's name.
        field: &'static str,
        /// The field's value, in octets.
        value: usize,
    },
    /// A field names a protocol or version that is not this one.
    #[error("read a {header} header: its {field} is {value:#x}")]
    Unsupported {
        /// The header's name.
        header: &'static str,
        /// The field's name.
        field: &'static str,
        /// The field's value.
        value: u16,
    },
}

/// Fails unless `have` octets are enough for `need`.
pub(crate) fn require(header: &'static str, need: usize, have: usize) -> Result<(), WireError> {
    if have < need {
        Err(WireError::Truncated { header, need, have })
    } else {
        Ok(())
    }
}

/// The big-endian 16-bit number at `at` (the caller's length check covers `at + 2`).
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian 32-bit number at `at` (the caller's length check covers `at + 4`).
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
