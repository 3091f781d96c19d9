//! ICMP error messages (RFC 792): eight octets, then a quotation of the packet they are about.
//!
//! A router quotes the IP header and at least 8 octets behind it; RFC 1812 asks for more, and many
//! send just the minimum. Eight octets of TCP are its ports and its sequence number.

use super::{WireError, checksum, read_u16, read_u32, require};

/// Octets before the quotation.
pub const HEADER_LEN: usize = 8;

/// Octets of the quoted transport header that every error carries.
pub const QUOTE_MIN: usize = 8;

/// Type of "destination unreachable".
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// Type of "source quench" (deprecated by RFC 6633, still seen).
pub const SOURCE_QUENCH: u8 = 4;
/// Type of "redirect".
pub const REDIRECT: u8 = 5;
/// Type of "time exceeded".
pub const TIME_EXCEEDED: u8 = 11;
/// Type of "parameter problem".
pub const PARAMETER_PROBLEM: u8 = 12;

/// The types that quote the packet they are about.
pub const ERROR_TYPES: [u8; 5] = [
    DESTINATION_UNREACHABLE,
    SOURCE_QUENCH,
    REDIRECT,
    TIME_EXCEEDED,
    PARAMETER_PROBLEM,
];

mod field {
    use std::ops::Range;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: Range<usize> = 2..4;
    pub(super) const REST: Range<usize> = 4..8;
}

/// A lens over an ICMP message.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T: AsRef<[u8]>>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps a buffer of our own; accessors panic if it is shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// Wraps received bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below [`HEADER_LEN`] octets.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        require("ICMP", HEADER_LEN, buffer.as_ref().len())?;
        Ok(Self(buffer))
    }

    /// The message type.
    pub fn icmp_type(&self) -> u8 {
        self.0.as_ref()[field::TYPE]
    }

    /// The code within the type.
    pub fn code(&self) -> u8 {
        self.0.as_ref()[field::CODE]
    }

    /// The four octets whose meaning depends on type and code.
    pub fn rest(&self) -> u32 {
        read_u32(self.0.as_ref(), field::REST.start)
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        read_u16(self.0.as_ref(), field::CHECKSUM.start)
    }

    /// Whether the checksum is right, taking the whole buffer as the message.
    pub fn checksum_holds(&self) -> bool {
        checksum::fold(checksum::add(0, self.0.as_ref())) == 0xffff
    }

    /// The quotation.
    pub fn quote(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    fn set(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.0.as_mut()[range].copy_from_slice(bytes);
    }
}

/// What an ICMP message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// The message type.
    pub icmp_type: u8,
    /// The code within the type.
    pub code: u8,
    /// The four octets whose meaning depends on type and code.
    pub rest: u32,
    /// The quotation.
    pub quote: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Reads the message.
    pub fn parse<T: AsRef<[u8]> + ?Sized>(packet: &'a Packet<&'a T>) -> Self {
        Self {
            icmp_type: packet.icmp_type(),
            code: packet.code(),
            rest: packet.rest(),
            quote: packet.quote(),
        }
    }

    /// Octets of the whole message.
    pub const fn len(&self) -> usize {
        HEADER_LEN + self.quote.len()
    }

    /// Never: a message has at least its header.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes every octet of a buffer that is [`Repr::len`] long.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set(field::TYPE..field::CODE + 1, &[self.icmp_type, self.code]);
        packet.set(field::CHECKSUM, &[0, 0]);
        packet.set(field::REST, &self.rest.to_be_bytes());
        packet.set(HEADER_LEN..self.len(), self.quote);
        let value = checksum::finish(checksum::add(0, packet.0.as_ref()));
        packet.set(field::CHECKSUM, &value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::icmp::{self, IcmpPacket};
    use proptest::prelude::*;

    const GOLDEN: [u8; 12] = [
        0x03, 0x0d, 0xcc, 0xf5, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x2f, 0xfc,
    ];

    fn golden() -> Repr<'static> {
        Repr {
            icmp_type: DESTINATION_UNREACHABLE,
            code: 13,
            rest: 0,
            quote: &GOLDEN[8..],
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&GOLDEN[..]).unwrap();
        assert_eq!(Repr::parse(&packet), golden());
        assert!(packet.checksum_holds());
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 12];
        golden().emit(&mut Packet::new_unchecked(&mut bytes[..]));
        assert_eq!(bytes, GOLDEN);
    }

    #[test]
    fn truncated() {
        for len in 0..HEADER_LEN {
            assert_eq!(
                Packet::new_checked(&GOLDEN[..len]).unwrap_err(),
                WireError::Truncated {
                    header: "ICMP",
                    need: 8,
                    have: len
                }
            );
        }
    }

    proptest! {
        // ICMP has no length field of its own, so no length is impossible.
        #[test]
        fn parse_undoes_emit_and_pnet_agrees(
            icmp_type: u8, code: u8, rest: u32, quote in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let repr = Repr { icmp_type, code, rest, quote: &quote };
            let mut bytes = vec![0xa5; repr.len()];
            repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            prop_assert_eq!(Repr::parse(&packet), repr);
            prop_assert!(packet.checksum_holds());
            let pnet = IcmpPacket::new(&bytes).unwrap();
            prop_assert_eq!(icmp::checksum(&pnet), pnet.get_checksum());
            prop_assert_eq!(pnet.get_icmp_type().0, icmp_type);
            prop_assert_eq!(pnet.get_icmp_code().0, code);
        }
    }
}
