//! TCP headers (RFC 9293, section 3.1) and the options a SYN or SYN-ACK carries (RFC 9293, 7323,
//! 2018).
//!
//! The options travel as raw octets in [`Repr`], because their order and padding are what tells
//! one operating system from another; [`options`] and [`Options`] say what they mean.

use std::net::Ipv4Addr;

use super::ipv4::PROTOCOL_TCP;
use super::{WireError, checksum, read_u16, read_u32, require};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Octets that options may take at most.
pub const OPTIONS_MAX: usize = 40;

/// Field offsets within the header, in octets.
pub(crate) mod field {
    use std::ops::Range;

    pub(crate) const SOURCE_PORT: Range<usize> = 0..2;
    pub(crate) const DESTINATION_PORT: Range<usize> = 2..4;
    pub(crate) const SEQ: Range<usize> = 4..8;
    pub(crate) const ACK: Range<usize> = 8..12;
    pub(crate) const OFFSET: usize = 12;
    pub(crate) const FLAGS: usize = 13;
    pub(crate) const WINDOW: Range<usize> = 14..16;
    pub(crate) const CHECKSUM: Range<usize> = 16..18;
    pub(crate) const URGENT: Range<usize> = 18..20;
}

/// The control bits, as one octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);
    /// The answer to a SYN.
    pub const SYN_ACK: Self = Self(0x12);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A lens over a TCP segment.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T: AsRef<[u8]>>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps a buffer of our own; accessors panic if it is shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// Wraps received bytes and proves the header, options included, to lie inside them.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the buffer ends before the header;
    /// [`WireError::ImpossibleLength`] when the data offset is below 20 octets.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let bytes = buffer.as_ref();
        require("TCP", HEADER_LEN, bytes.len())?;
        let header_len = usize::from(bytes[field::OFFSET] >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(WireError::ImpossibleLength {
                header: "TCP",
                field: "data offset",
                value: header_len,
            });
        }
        require("TCP", header_len, bytes.len())?;
        Ok(Self(buffer))
    }

    /// Octets of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[field::OFFSET] >> 4) * 4
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        read_u16(self.0.as_ref(), field::SOURCE_PORT.start)
    }

    /// The addressee's port.
    pub fn destination_port(&self) -> u16 {
        read_u16(self.0.as_ref(), field::DESTINATION_PORT.start)
    }

    /// The sequence number.
    pub fn seq(&self) -> u32 {
        read_u32(self.0.as_ref(), field::SEQ.start)
    }

    /// The acknowledgement number (meaningful under [`Flags::ACK`]).
    pub fn ack(&self) -> u32 {
        read_u32(self.0.as_ref(), field::ACK.start)
    }

    /// The control bits.
    pub fn flags(&self) -> Flags {
        Flags(self.0.as_ref()[field::FLAGS])
    }

    /// The window field, unscaled.
    pub fn window(&self) -> u16 {
        read_u16(self.0.as_ref(), field::WINDOW.start)
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        read_u16(self.0.as_ref(), field::CHECKSUM.start)
    }

    /// Whether the checksum is right, taking the whole buffer as the segment.
    pub fn checksum_holds(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let bytes = self.0.as_ref();
        // A segment inside IPv4 is shorter than 65,536 octets; a longer buffer cannot be right.
        let Ok(length) = u16::try_from(bytes.len()) else {
            return false;
        };
        let sum = checksum::pseudo_header(source, destination, PROTOCOL_TCP, length);
        checksum::fold(checksum::add(sum, bytes)) == 0xffff
    }

    /// The options as raw octets, padding included.
    pub fn options(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    fn set(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.0.as_mut()[range].copy_from_slice(bytes);
    }

    /// Computes and writes the checksum over the whole buffer (at most 65,535 octets).
    pub fn fill_checksum(&mut self, source: Ipv4Addr, destination: Ipv4Addr) {
        self.set(field::CHECKSUM, &[0, 0]);
        let bytes = self.0.as_ref();
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let sum = checksum::pseudo_header(source, destination, PROTOCOL_TCP, length);
        let value = checksum::finish(checksum::add(sum, bytes));
        self.set(field::CHECKSUM, &value.to_be_bytes());
    }
}

/// What a TCP header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// The sender's port.
    pub source_port: u16,
    /// The addressee's port.
    pub destination_port: u16,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// The control bits.
    pub flags: Flags,
    /// The window field, unscaled.
    pub window: u16,
    /// The options as raw octets: a multiple of 4, at most [`OPTIONS_MAX`].
    pub options: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Reads the header.
    pub fn parse<T: AsRef<[u8]> + ?Sized>(packet: &'a Packet<&'a T>) -> Self {
        Self {
            source_port: packet.source_port(),
            destination_port: packet.destination_port(),
            seq: packet.seq(),
            ack: packet.ack(),
            flags: packet.flags(),
            window: packet.window(),
            options: packet.options(),
        }
    }

    /// Octets of the header, options included.
    pub const fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Writes every octet of the header; the payload must stand behind it already, since the
    /// checksum covers the whole buffer.
    ///
    /// # Panics
    /// If the options are no multiple of 4, more than [`OPTIONS_MAX`], or longer than the buffer.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        packet: &mut Packet<T>,
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) {
        let words = self.header_len() / 4;
        assert!(self.options.len().is_multiple_of(4) && self.options.len() <= OPTIONS_MAX);
        packet.set(field::SOURCE_PORT, &self.source_port.to_be_bytes());
        packet.set(
            field::DESTINATION_PORT,
            &self.destination_port.to_be_bytes(),
        );
        packet.set(field::SEQ, &self.seq.to_be_bytes());
        packet.set(field::ACK, &self.ack.to_be_bytes());
        // At most 15 words, by the assertion above.
        let offset = u8::try_from(words << 4).unwrap_or(0xf0);
        packet.set(field::OFFSET..field::FLAGS + 1, &[offset, self.flags.0]);
        packet.set(field::WINDOW, &self.window.to_be_bytes());
        packet.set(field::URGENT, &[0, 0]);
        packet.set(HEADER_LEN..self.header_len(), self.options);
        packet.fill_checksum(source, destination);
    }
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// Kind 1: one octet of padding.
    Nop,
    /// Kind 2: the largest segment the sender takes, in octets.
    MaxSegment(u16),
    /// Kind 3: the window is to be shifted left by so many bits.
    WindowScale(u8),
    /// Kind 4: selective acknowledgements may be sent.
    SackPermitted,
    /// Kind 8: the sender's clock and the echo of ours.
    Timestamps {
        /// The sender's clock.
        value: u32,
        /// The echo of ours.
        echo: u32,
    },
    /// Any other kind, or one of the above with a length that is not its own.
    Other {
        /// The kind octet.
        kind: u8,
        /// What follows kind and length.
        data: &'a [u8],
    },
}

const END: u8 = 0;
const NOP: u8 = 1;

/// The options in `raw`, in order, up to the end-of-list octet. Stops silently at the first
/// malformed one: a receiver can know nothing of what follows it.
pub fn options(mut raw: &[u8]) -> impl Iterator<Item = TcpOption<'_>> {
    std::iter::from_fn(move || {
        let (&kind, rest) = raw.split_first()?;
        if kind == END {
            raw = &[];
            return None;
        }
        if kind == NOP {
            raw = rest;
            return Some(TcpOption::Nop);
        }
        let length = usize::from(*rest.first()?);
        if length < 2 || length > raw.len() {
            raw = &[];
            return None;
        }
        let data = &raw[2..length];
        raw = &raw[length..];
        Some(match (kind, data) {
            (2, [a, b]) => TcpOption::MaxSegment(u16::from_be_bytes([*a, *b])),
            (3, [shift]) => TcpOption::WindowScale(*shift),
            (4, []) => TcpOption::SackPermitted,
            (8, data) if data.len() == 8 => TcpOption::Timestamps {
                value: read_u32(data, 0),
                echo: read_u32(data, 4),
            },
            (kind, data) => TcpOption::Other { kind, data },
        })
    })
}

/// The options that matter for a connection, whatever their order. The first of a kind counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Options {
    /// The largest segment the sender takes, in octets.
    pub mss: Option<u16>,
    /// Bits by which the window is to be shifted left.
    pub wscale: Option<u8>,
    /// Whether selective acknowledgements may be sent.
    pub sack_perm: bool,
    /// The sender's clock.
    pub ts_val: Option<u32>,
    /// The echo of our clock.
    pub ts_ecr: Option<u32>,
}

impl Options {
    /// Reads the raw octets of an options field.
    pub fn parse(raw: &[u8]) -> Self {
        let mut found = Self::default();
        for option in options(raw) {
            match option {
                TcpOption::MaxSegment(mss) if found.mss.is_none() => found.mss = Some(mss),
                TcpOption::WindowScale(shift) if found.wscale.is_none() => {
                    found.wscale = Some(shift);
                }
                TcpOption::SackPermitted => found.sack_perm = true,
                TcpOption::Timestamps { value, echo } if found.ts_val.is_none() => {
                    found.ts_val = Some(value);
                    found.ts_ecr = Some(echo);
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::tcp::{self, TcpPacket};
    use proptest::prelude::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

    const GOLDEN: [u8; 42] = [
        0x00, 0x19, 0x9c, 0x40, 0x01, 0x02, 0x03, 0x04, 0x0a, 0x0b, 0x0c, 0x0d, 0xa0, 0x12, 0xfe,
        0x88, 0xf5, 0xc6, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0x00, 0x00,
        0x00, 0x07, 0x00, 0x00, 0x00, 0x09, 0x01, 0x03, 0x03, 0x07, 0xca, 0xfe,
    ];

    fn golden() -> Repr<'static> {
        Repr {
            source_port: 25,
            destination_port: 40_000,
            seq: 0x0102_0304,
            ack: 0x0a0b_0c0d,
            flags: Flags::SYN_ACK,
            window: 65_160,
            options: &GOLDEN[20..40],
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&GOLDEN[..]).unwrap();
        assert_eq!(Repr::parse(&packet), golden());
        assert_eq!(packet.payload(), [0xca, 0xfe]);
        assert!(packet.checksum_holds(SOURCE, DESTINATION));
        assert_eq!(
            Options::parse(packet.options()),
            Options {
                mss: Some(1460),
                wscale: Some(7),
                sack_perm: true,
                ts_val: Some(7),
                ts_ecr: Some(9)
            }
        );
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 42];
        bytes[40..].copy_from_slice(&[0xca, 0xfe]);
        golden().emit(
            &mut Packet::new_unchecked(&mut bytes[..]),
            SOURCE,
            DESTINATION,
        );
        assert_eq!(bytes, GOLDEN);
    }

    #[test]
    fn truncated() {
        for len in 0..40 {
            assert!(matches!(
                Packet::new_checked(&GOLDEN[..len]),
                Err(WireError::Truncated { .. })
            ));
        }
    }

    #[test]
    fn impossible_length() {
        let mut bytes = GOLDEN;
        bytes[12] = 0x4f;
        assert_eq!(
            Packet::new_checked(&bytes[..]).unwrap_err(),
            WireError::ImpossibleLength {
                header: "TCP",
                field: "data offset",
                value: 16
            }
        );
    }

    #[test]
    fn malformed_options_end_the_list() {
        let list = |raw| options(raw).collect::<Vec<_>>();
        assert_eq!(list(&[]), []);
        assert_eq!(list(&[1, 0, 2, 4, 5, 180]), [TcpOption::Nop]);
        assert_eq!(list(&[1, 2]), [TcpOption::Nop]);
        assert_eq!(list(&[2, 0, 1, 1]), []);
        assert_eq!(list(&[2, 1, 1, 1]), []);
        assert_eq!(list(&[1, 2, 5, 1, 1]), [TcpOption::Nop]);
        assert_eq!(
            list(&[2, 3, 9, 4, 2]),
            [
                TcpOption::Other {
                    kind: 2,
                    data: &[9]
                },
                TcpOption::SackPermitted
            ]
        );
    }

    #[test]
    fn the_first_of_a_kind_counts() {
        let options = Options::parse(&[2, 4, 5, 180, 2, 4, 1, 1, 3, 3, 2, 3, 3, 9]);
        assert_eq!((options.mss, options.wscale), (Some(1460), Some(2)));
    }

    proptest! {
        #[test]
        fn parse_undoes_emit_and_pnet_agrees(
            source: u32, destination: u32, source_port: u16, destination_port: u16,
            seq: u32, ack: u32, flags: u8, window: u16,
            words in prop::collection::vec(any::<[u8; 4]>(), 0..=10),
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let raw = words.concat();
            let repr = Repr {
                source_port, destination_port, seq, ack, flags: Flags(flags), window, options: &raw,
            };
            let mut bytes = vec![0xa5; repr.header_len()];
            bytes.extend(&payload);
            repr.emit(&mut Packet::new_unchecked(&mut bytes[..]), source, destination);
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            prop_assert_eq!(Repr::parse(&packet), repr);
            prop_assert!(packet.checksum_holds(source, destination));
            let pnet = TcpPacket::new(&bytes).unwrap();
            prop_assert_eq!(tcp::ipv4_checksum(&pnet, &source, &destination), pnet.get_checksum());
            prop_assert_eq!(pnet.get_source(), source_port);
            prop_assert_eq!(pnet.get_destination(), destination_port);
            prop_assert_eq!(pnet.get_sequence(), seq);
            prop_assert_eq!(pnet.get_acknowledgement(), ack);
            prop_assert_eq!(pnet.get_window(), window);
            prop_assert_eq!(pnet.get_flags(), flags);
            prop_assert_eq!(usize::from(pnet.get_data_offset()) * 4, repr.header_len());
            prop_assert_eq!(pnet.get_options_raw(), &raw[..]);
        }

        #[test]
        fn any_options_are_read_without_panic(raw in prop::collection::vec(any::<u8>(), 0..=40)) {
            let _ = Options::parse(&raw);
            prop_assert!(options(&raw).count() <= raw.len());
        }
    }
}
