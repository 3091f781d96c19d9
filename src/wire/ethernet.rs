//! Ethernet II headers (14 octets: destination, source, type; IEEE 802.3, RFC 894).
//!
//! A loopback interface carries the same 14 octets, addresses all zero.

use std::fmt;
use std::str::FromStr;

use super::{WireError, read_u16, require};

/// Octets of the header.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad (outer) tag.
pub const TYPE_QINQ: u16 = 0x88a8;

mod field {
    use std::ops::Range;

    pub(super) const DESTINATION: Range<usize> = 0..6;
    pub(super) const SOURCE: Range<usize> = 6..12;
    pub(super) const ETHER_TYPE: Range<usize> = 12..14;
}

/// A 48-bit hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address every station listens to.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros: what loopback carries and what ARP asks for.
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is not six hexadecimal octets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hardware address (want six octets like 02:00:5e:10:00:01)")]
pub struct MacError(pub String);

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refuse = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            Err(refuse())
        } else {
            Ok(Self(octets))
        }
    }
}

/// A lens over an Ethernet frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<T: AsRef<[u8]>>(T);

impl<T: AsRef<[u8]>> Frame<T> {
    /// Wraps a buffer of our own; accessors panic if it is shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// Wraps received bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below [`HEADER_LEN`] octets.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        require("Ethernet", HEADER_LEN, buffer.as_ref().len())?;
        Ok(Self(buffer))
    }

    /// Who the frame is for.
    pub fn destination(&self) -> MacAddr {
        mac(&self.0.as_ref()[field::DESTINATION])
    }

    /// Who sent it.
    pub fn source(&self) -> MacAddr {
        mac(&self.0.as_ref()[field::SOURCE])
    }

    /// What it carries.
    pub fn ether_type(&self) -> u16 {
        read_u16(self.0.as_ref(), field::ETHER_TYPE.start)
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Sets who the frame is for.
    pub fn set_destination(&mut self, address: MacAddr) {
        self.0.as_mut()[field::DESTINATION].copy_from_slice(&address.0);
    }

    /// Sets who sends it.
    pub fn set_source(&mut self, address: MacAddr) {
        self.0.as_mut()[field::SOURCE].copy_from_slice(&address.0);
    }

    /// Sets what it carries.
    pub fn set_ether_type(&mut self, ether_type: u16) {
        self.0.as_mut()[field::ETHER_TYPE].copy_from_slice(&ether_type.to_be_bytes());
    }
}

fn mac(bytes: &[u8]) -> MacAddr {
    let mut octets = [0; 6];
    octets.copy_from_slice(bytes);
    MacAddr(octets)
}

/// What an Ethernet header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Who the frame is for.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What it carries.
    pub ether_type: u16,
}

impl Repr {
    /// Reads the header.
    pub fn parse<T: AsRef<[u8]>>(frame: &Frame<T>) -> Self {
        Self {
            destination: frame.destination(),
            source: frame.source(),
            ether_type: frame.ether_type(),
        }
    }

    /// Writes every octet of the header.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, frame: &mut Frame<T>) {
        frame.set_destination(self.destination);
        frame.set_source(self.source);
        frame.set_ether_type(self.ether_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::ethernet::EthernetPacket;

    const GOLDEN: [u8; 16] = [
        0x02, 0x00, 0x5e, 0x10, 0x00, 0x01, 0x02, 0x00, 0x5e, 0x10, 0x00, 0x02, 0x08, 0x00, 0xca,
        0xfe,
    ];

    fn golden() -> Repr {
        Repr {
            destination: MacAddr([0x02, 0, 0x5e, 0x10, 0, 1]),
            source: MacAddr([0x02, 0, 0x5e, 0x10, 0, 2]),
            ether_type: TYPE_IPV4,
        }
    }

    #[test]
    fn deconstruct() {
        let frame = Frame::new_checked(&GOLDEN[..]).unwrap();
        assert_eq!(Repr::parse(&frame), golden());
        assert_eq!(frame.payload(), [0xca, 0xfe]);
    }

    #[test]
    fn construct_and_pnet_agrees() {
        let mut bytes = [0xa5; HEADER_LEN];
        golden().emit(&mut Frame::new_unchecked(&mut bytes[..]));
        assert_eq!(bytes, GOLDEN[..HEADER_LEN]);
        let pnet = EthernetPacket::new(&bytes).unwrap();
        assert_eq!(pnet.get_destination().octets(), golden().destination.0);
        assert_eq!(pnet.get_source().octets(), golden().source.0);
        assert_eq!(pnet.get_ethertype().0, TYPE_IPV4);
    }

    #[test]
    fn truncated() {
        for len in 0..HEADER_LEN {
            let err = Frame::new_checked(&GOLDEN[..len]).unwrap_err();
            assert_eq!(
                err,
                WireError::Truncated {
                    header: "Ethernet",
                    need: 14,
                    have: len
                }
            );
        }
    }

    #[test]
    fn hardware_addresses_read_and_print() {
        let mac: MacAddr = "02:00:5E:10:0:1".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        assert_eq!("02-00-5e-10-00-01".parse::<MacAddr>().unwrap(), mac);
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "g2:00:5e:10:00:01",
            "+2:0:0:0:0:0",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(MacError(bad.to_owned())));
        }
    }
}
