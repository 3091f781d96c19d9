//! ARP for IPv4 over Ethernet (28 octets, RFC 826): asked once, for the gateway's address.

use std::net::Ipv4Addr;

use super::{MacAddr, WireError, read_u16, read_u32, require};

/// Octets of an ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;

/// Operation "who has".
pub const REQUEST: u16 = 1;
/// Operation "is at".
pub const REPLY: u16 = 2;

const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;

mod field {
    use std::ops::Range;

    pub(super) const HARDWARE: Range<usize> = 0..2;
    pub(super) const PROTOCOL: Range<usize> = 2..4;
    pub(super) const HARDWARE_LEN: usize = 4;
    pub(super) const PROTOCOL_LEN: usize = 5;
    pub(super) const OPERATION: Range<usize> = 6..8;
    pub(super) const SENDER_MAC: Range<usize> = 8..14;
    pub(super) const SENDER_IP: Range<usize> = 14..18;
    pub(super) const TARGET_MAC: Range<usize> = 18..24;
    pub(super) const TARGET_IP: Range<usize> = 24..28;
}

/// A lens over an ARP packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T: AsRef<[u8]>>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps a buffer of our own; accessors panic if it is shorter than [`PACKET_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Self(buffer)
    }

    /// Wraps received bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below [`PACKET_LEN`] octets; [`WireError::ImpossibleLength`] when
    /// the address lengths are not those of Ethernet and IPv4.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let bytes = buffer.as_ref();
        require("ARP", PACKET_LEN, bytes.len())?;
        for (field, at, want) in [
            ("hardware address length", field::HARDWARE_LEN, 6),
            ("protocol address length", field::PROTOCOL_LEN, 4),
        ] {
            if bytes[at] != want {
                let value = usize::from(bytes[at]);
                return Err(WireError::ImpossibleLength {
                    header: "ARP",
                    field,
                    value,
                });
            }
        }
        Ok(Self(buffer))
    }

    /// The kind of link.
    pub fn hardware(&self) -> u16 {
        read_u16(self.0.as_ref(), field::HARDWARE.start)
    }

    /// The kind of address asked about.
    pub fn protocol(&self) -> u16 {
        read_u16(self.0.as_ref(), field::PROTOCOL.start)
    }

    /// [`REQUEST`] or [`REPLY`].
    pub fn operation(&self) -> u16 {
        read_u16(self.0.as_ref(), field::OPERATION.start)
    }

    /// The sender's hardware address.
    pub fn sender_mac(&self) -> MacAddr {
        self.mac(field::SENDER_MAC)
    }

    /// The sender's IPv4 address.
    pub fn sender_ip(&self) -> Ipv4Addr {
        read_u32(self.0.as_ref(), field::SENDER_IP.start).into()
    }

    /// The target's hardware address (zero in a request).
    pub fn target_mac(&self) -> MacAddr {
        self.mac(field::TARGET_MAC)
    }

    /// The target's IPv4 address.
    pub fn target_ip(&self) -> Ipv4Addr {
        read_u32(self.0.as_ref(), field::TARGET_IP.start).into()
    }

    fn mac(&self, range: std::ops::Range<usize>) -> MacAddr {
        let mut octets = [0; 6];
        octets.copy_from_slice(&self.0.as_ref()[range]);
        MacAddr(octets)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    fn set(&mut self, range: std::ops::Range<usize>, bytes: &[u8]) {
        self.0.as_mut()[range].copy_from_slice(bytes);
    }
}

/// What an ARP packet for IPv4 over Ethernet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// [`REQUEST`] or [`REPLY`].
    pub operation: u16,
    /// The sender's hardware address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address.
    pub sender_ip: Ipv4Addr,
    /// The target's hardware address (zero in a request).
    pub target_mac: MacAddr,
    /// The target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// Reads the packet.
    ///
    /// # Errors
    /// [`WireError::Unsupported`] when it is not about IPv4 over Ethernet.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, WireError> {
        for (field, value, want) in [
            ("hardware type", packet.hardware(), HARDWARE_ETHERNET),
            ("protocol type", packet.protocol(), PROTOCOL_IPV4),
        ] {
            if value != want {
                return Err(WireError::Unsupported {
                    header: "ARP",
                    field,
                    value,
                });
            }
        }
        Ok(Self {
            operation: packet.operation(),
            sender_mac: packet.sender_mac(),
            sender_ip: packet.sender_ip(),
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        })
    }

    /// Writes every octet of the packet.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set(field::HARDWARE, &HARDWARE_ETHERNET.to_be_bytes());
        packet.set(field::PROTOCOL, &PROTOCOL_IPV4.to_be_bytes());
        packet.set(field::HARDWARE_LEN..field::PROTOCOL_LEN + 1, &[6, 4]);
        packet.set(field::OPERATION, &self.operation.to_be_bytes());
        packet.set(field::SENDER_MAC, &self.sender_mac.0);
        packet.set(field::SENDER_IP, &self.sender_ip.octets());
        packet.set(field::TARGET_MAC, &self.target_mac.0);
        packet.set(field::TARGET_IP, &self.target_ip.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::arp::ArpPacket;

    const GOLDEN: [u8; PACKET_LEN] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x5e, 0x10, 0x00, 0x02, 0xc6,
        0x12, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc6, 0x12, 0x00, 0x01,
    ];

    fn golden() -> Repr {
        Repr {
            operation: REQUEST,
            sender_mac: MacAddr([0x02, 0, 0x5e, 0x10, 0, 2]),
            sender_ip: Ipv4Addr::new(198, 18, 0, 2),
            target_mac: MacAddr::ZERO,
            target_ip: Ipv4Addr::new(198, 18, 0, 1),
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&GOLDEN[..]).unwrap();
        assert_eq!(Repr::parse(&packet), Ok(golden()));
    }

    #[test]
    fn construct_and_pnet_agrees() {
        let mut bytes = [0xa5; PACKET_LEN];
        golden().emit(&mut Packet::new_unchecked(&mut bytes[..]));
        assert_eq!(bytes, GOLDEN);
        let pnet = ArpPacket::new(&bytes).unwrap();
        assert_eq!(pnet.get_operation().0, REQUEST);
        assert_eq!(pnet.get_sender_proto_addr(), golden().sender_ip);
        assert_eq!(pnet.get_target_proto_addr(), golden().target_ip);
        assert_eq!(pnet.get_sender_hw_addr().octets(), golden().sender_mac.0);
    }

    #[test]
    fn truncated() {
        for len in 0..PACKET_LEN {
            assert!(matches!(
                Packet::new_checked(&GOLDEN[..len]),
                Err(WireError::Truncated { .. })
            ));
        }
    }

    #[test]
    fn impossible_length() {
        let mut bytes = GOLDEN;
        bytes[4] = 8;
        assert_eq!(
            Packet::new_checked(&bytes[..]).unwrap_err(),
            WireError::ImpossibleLength {
                header: "ARP",
                field: "hardware address length",
                value: 8
            }
        );
    }

    #[test]
    fn other_protocols_are_refused() {
        let mut bytes = GOLDEN;
        bytes[2] = 0x86;
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert!(matches!(
            Repr::parse(&packet),
            Err(WireError::Unsupported { value: 0x8600, .. })
        ));
    }
}
