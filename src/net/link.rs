//! How frames leave: the interface, what stands before the IP header, and the source address.

use std::net::Ipv4Addr;

use crate::wire::{MacAddr, ethernet};

/// What stands before the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// An Ethernet header.
    Ethernet {
        /// Our hardware address.
        source: MacAddr,
        /// The gateway's.
        gateway: MacAddr,
    },
    /// An Ethernet header of zeros: the loopback interface.
    Loopback,
    /// Nothing: tun, WireGuard, PPP and other point-to-point links.
    Raw,
}

/// The way to the targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// What stands before the IP header.
    pub kind: LinkKind,
    /// The address to send from.
    pub source: Ipv4Addr,
    /// The next router, where the route has one.
    pub gateway: Option<Ipv4Addr>,
    /// The largest packet it carries, in octets without the link header.
    pub mtu: u32,
}

impl Link {
    /// No link: what a dry run without a way out stamps its frames for.
    pub const fn detached(source: Ipv4Addr) -> Self {
        Self {
            interface: String::new(),
            index: 0,
            kind: LinkKind::Raw,
            source,
            gateway: None,
            mtu: 1500,
        }
    }

    /// The octets before the IP header: 14 or none.
    pub fn header(&self) -> Vec<u8> {
        let (source, destination) = match self.kind {
            LinkKind::Ethernet { source, gateway } => (source, gateway),
            LinkKind::Loopback => (MacAddr::ZERO, MacAddr::ZERO),
            LinkKind::Raw => return Vec::new(),
        };
        let mut header = vec![0; ethernet::HEADER_LEN];
        let repr = ethernet::Repr {
            destination,
            source,
            ether_type: ethernet::TYPE_IPV4,
        };
        repr.emit(&mut ethernet::Frame::new_unchecked(&mut header[..]));
        header
    }

    /// The number of octets before the IP header, in what is sent and in what is received.
    pub const fn header_len(&self) -> usize {
        match self.kind {
            LinkKind::Ethernet { .. } | LinkKind::Loopback => ethernet::HEADER_LEN,
            LinkKind::Raw => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_each_kind() {
        let mut link = Link {
            interface: "eth0".to_owned(),
            index: 2,
            kind: LinkKind::Ethernet {
                source: MacAddr([2; 6]),
                gateway: MacAddr([4; 6]),
            },
            source: Ipv4Addr::new(198, 18, 0, 2),
            gateway: None,
            mtu: 1500,
        };
        assert_eq!(link.header(), [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 8, 0]);
        link.kind = LinkKind::Loopback;
        assert_eq!(link.header(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(link.header().len(), link.header_len());
        link.kind = LinkKind::Raw;
        assert!(link.header().is_empty());
        assert_eq!(link.header_len(), 0);
    }
}
