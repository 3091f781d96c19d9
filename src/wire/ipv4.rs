//! IPv4 headers (RFC 791): 20 octets and up to 40 of options.
//!
//! The lens accepts options (`payload` starts behind them); [`Repr`] writes none, since we send
//! none.

use std::net::Ipv4Addr;

use super::{WireError, checksum, read_u16, read_u32, require};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;

/// Field offsets within the header, in octets.
pub(crate) mod field {
    use std::ops::Range;

    pub(crate) const VERSION_IHL: usize = 0;
    pub(crate) const TOS: usize = 1;
    pub(crate) const LENGTH: Range<usize> = 2..4;
    pub(crate) const IDENT: Range<usize> = 4..6;
    pub(crate) const FLAGS_OFFSET: Range<usize> = 6..8;
    pub(crate) const TTL: usize = 8;
    pub(crate) const PROTOCOL: usize = 9;
    pub(crate) const CHECKSUM: Range<usize> = 10..12;
    pub(crate) const SOURCE: Range<usize> = 12..16;
    pub(crate) const DESTINATION: Range<usize> = 16..20;
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A lens over an IPv4 packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T: AsRef<[u8]>>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps a buffer of our own; accessors panic if it is shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// Wraps received bytes and proves the header, options included, to lie inside them.
    /// The total length may exceed the buffer: an ICMP error quotes a packet only in part.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the buffer ends before the header;
    /// [`WireError::Unsupported`] on a version other than 4; [`WireError::ImpossibleLength`] when
    /// the header length is below 20 or the total length below the header's.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let bytes = buffer.as_ref();
        require("IPv4", HEADER_LEN, bytes.len())?;
        let version = bytes[field::VERSION_IHL] >> 4;
        if version != 4 {
            let value = u16::from(version);
            return Err(WireError::Unsupported {
                header: "IPv4",
                field: "version",
                value,
            });
        }
        let header_len = usize::from(bytes[field::VERSION_IHL] & 0x0f) * 4;
        if header_len < HEADER_LEN {
            return Err(WireError::ImpossibleLength {
                header: "IPv4",
                field: "header length",
                value: header_len,
            });
        }
        require("IPv4", header_len, bytes.len())?;
        let total = usize::from(read_u16(bytes, field::LENGTH.start));
        if total < header_len {
            return Err(WireError::ImpossibleLength {
                header: "IPv4",
                field: "total length",
                value: total,
            });
        }
        Ok(Self(buffer))
    }

    /// Octets of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[field::VERSION_IHL] & 0x0f) * 4
    }

    /// Octets of header and payload as the sender counted them.
    pub fn total_len(&self) -> u16 {
        read_u16(self.0.as_ref(), field::LENGTH.start)
    }

    /// The identification field.
    pub fn ident(&self) -> u16 {
        read_u16(self.0.as_ref(), field::IDENT.start)
    }

    /// Whether routers may not fragment it.
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset() & DONT_FRAGMENT != 0
    }

    /// Whether this is a piece of a packet rather than a whole one.
    pub fn is_fragment(&self) -> bool {
        self.flags_offset() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Where in its packet this piece begins, in units of 8 octets.
    pub fn fragment_offset(&self) -> u16 {
        self.flags_offset() & OFFSET_MASK
    }

    fn flags_offset(&self) -> u16 {
        read_u16(self.0.as_ref(), field::FLAGS_OFFSET.start)
    }

    /// Hops left.
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[field::TTL]
    }

    /// What it carries.
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[field::PROTOCOL]
    }

    /// The header's checksum field.
    pub fn checksum(&self) -> u16 {
        read_u16(self.0.as_ref(), field::CHECKSUM.start)
    }

    /// Whether the header's checksum is right.
    pub fn checksum_holds(&self) -> bool {
        checksum::fold(checksum::add(0, &self.0.as_ref()[..self.header_len()])) == 0xffff
    }

    /// The sender.
    pub fn source(&self) -> Ipv4Addr {
        read_u32(self.0.as_ref(), field::SOURCE.start).into()
    }

    /// The addressee.
    pub fn destination(&self) -> Ipv4Addr {
        read_u32(self.0.as_ref(), field::DESTINATION.start).into()
    }

    /// What follows the header, up to the total length or the end of the buffer, whichever is
    /// nearer (Ethernet pads short frames; ICMP quotes cut long ones).
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        &bytes[self.header_len()..bytes.len().min(usize::from(self.total_len()))]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    fn set(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.0.as_mut()[range].copy_from_slice(bytes);
    }

    /// Computes and writes the header's checksum.
    pub fn fill_checksum(&mut self) {
        self.set(field::CHECKSUM, &[0, 0]);
        let sum = checksum::add(0, &self.0.as_ref()[..self.header_len()]);
        self.set(field::CHECKSUM, &checksum::finish(sum).to_be_bytes());
    }
}

/// What the header of an unfragmented IPv4 packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The sender.
    pub source: Ipv4Addr,
    /// The addressee.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
    /// The identification field.
    pub ident: u16,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
    /// Octets behind the header. Emitting wants at most 65,515.
    pub payload_len: u16,
}

impl Repr {
    /// Reads the header; options are passed over.
    ///
    /// # Errors
    /// [`WireError::Unsupported`] for a fragment, which is not a packet of its own.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, WireError> {
        if packet.is_fragment() {
            return Err(WireError::Unsupported {
                header: "IPv4",
                field: "fragment offset",
                value: packet.fragment_offset(),
            });
        }
        // The header is at most 60 octets; a checked lens has total_len >= header_len.
        let header_len = u16::try_from(packet.header_len()).unwrap_or(u16::MAX);
        Ok(Self {
            source: packet.source(),
            destination: packet.destination(),
            protocol: packet.protocol(),
            ttl: packet.ttl(),
            ident: packet.ident(),
            dont_fragment: packet.dont_fragment(),
            payload_len: packet.total_len().saturating_sub(header_len),
        })
    }

    /// Writes every octet of a 20-octet header, checksum included.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let total = self.payload_len.saturating_add(20);
        packet.set(field::VERSION_IHL..field::TOS + 1, &[0x45, 0]);
        packet.set(field::LENGTH, &total.to_be_bytes());
        packet.set(field::IDENT, &self.ident.to_be_bytes());
        packet.set(field::FLAGS_OFFSET, &flags.to_be_bytes());
        packet.set(field::TTL..field::PROTOCOL + 1, &[self.ttl, self.protocol]);
        packet.set(field::SOURCE, &self.source.octets());
        packet.set(field::DESTINATION, &self.destination.octets());
        packet.fill_checksum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::ipv4::{self, Ipv4Packet};
    use proptest::prelude::*;

    const GOLDEN: [u8; 24] = [
        0x45, 0x00, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0xff, 0x06, 0x97, 0x93, 0xc6, 0x12, 0x00,
        0x02, 0x0a, 0x01, 0x02, 0x03, 0xca, 0xfe, 0xba, 0xbe,
    ];

    fn golden() -> Repr {
        Repr {
            source: Ipv4Addr::new(198, 18, 0, 2),
            destination: Ipv4Addr::new(10, 1, 2, 3),
            protocol: PROTOCOL_TCP,
            ttl: 255,
            ident: 0x1234,
            dont_fragment: true,
            payload_len: 4,
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&GOLDEN[..]).unwrap();
        assert_eq!(Repr::parse(&packet), Ok(golden()));
        assert_eq!(packet.payload(), [0xca, 0xfe, 0xba, 0xbe]);
        assert!(packet.checksum_holds());
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; HEADER_LEN];
        golden().emit(&mut Packet::new_unchecked(&mut bytes[..]));
        assert_eq!(bytes, GOLDEN[..HEADER_LEN]);
    }

    #[test]
    fn truncated() {
        for len in 0..HEADER_LEN {
            assert!(matches!(
                Packet::new_checked(&GOLDEN[..len]),
                Err(WireError::Truncated { .. })
            ));
        }
        let mut with_options = GOLDEN;
        with_options[0] = 0x4f;
        with_options[3] = 80;
        assert_eq!(
            Packet::new_checked(&with_options[..]).unwrap_err(),
            WireError::Truncated {
                header: "IPv4",
                need: 60,
                have: 24
            }
        );
    }

    #[test]
    fn impossible_length() {
        let mut bytes = GOLDEN;
        bytes[0] = 0x44;
        assert_eq!(
            Packet::new_checked(&bytes[..]).unwrap_err(),
            WireError::ImpossibleLength {
                header: "IPv4",
                field: "header length",
                value: 16
            }
        );
        let mut bytes = GOLDEN;
        bytes[3] = 19;
        assert_eq!(
            Packet::new_checked(&bytes[..]).unwrap_err(),
            WireError::ImpossibleLength {
                header: "IPv4",
                field: "total length",
                value: 19
            }
        );
    }

    #[test]
    fn padding_is_not_payload_and_a_cut_quote_is_readable() {
        let mut padded = GOLDEN.to_vec();
        padded.extend([0; 22]);
        assert_eq!(Packet::new_checked(&padded[..]).unwrap().payload().len(), 4);
        let cut = &GOLDEN[..22];
        assert_eq!(Packet::new_checked(cut).unwrap().payload(), [0xca, 0xfe]);
    }

    #[test]
    fn fragments_have_no_meaning_of_their_own() {
        for flags in [0x2000u16, 0x0001, 0x3fff] {
            let mut bytes = GOLDEN;
            bytes[6..8].copy_from_slice(&flags.to_be_bytes());
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            assert!(packet.is_fragment());
            assert!(Repr::parse(&packet).is_err());
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_emit_and_pnet_agrees(
            source: u32, destination: u32, protocol: u8, ttl: u8, ident: u16,
            dont_fragment: bool, payload_len in 0u16..=65_515,
        ) {
            let repr = Repr {
                source: source.into(), destination: destination.into(),
                protocol, ttl, ident, dont_fragment, payload_len,
            };
            let mut bytes = [0xa5; HEADER_LEN];
            repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            prop_assert_eq!(Repr::parse(&packet), Ok(repr));
            prop_assert!(packet.checksum_holds());
            let pnet = Ipv4Packet::new(&bytes).unwrap();
            prop_assert_eq!(ipv4::checksum(&pnet), pnet.get_checksum());
            prop_assert_eq!(pnet.get_source(), repr.source);
            prop_assert_eq!(pnet.get_destination(), repr.destination);
            prop_assert_eq!(pnet.get_ttl(), ttl);
            prop_assert_eq!(pnet.get_identification(), ident);
            prop_assert_eq!(pnet.get_flags(), if dont_fragment { 2 } else { 0 });
            prop_assert_eq!(pnet.get_total_length(), payload_len + 20);
        }
    }
}
