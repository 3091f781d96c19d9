//! Questions to the kernel's routing, link, address and neighbour tables (rtnetlink(7)).
//!
//! One socket, one question at a time. Answers come as the plain structures below; attributes that
//! a sweep does not need are passed over.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::NetError;
use crate::wire::MacAddr;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) layer: LinkLayerType,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: u32,
}

/// What the kernel would do with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<Ipv4Addr>,
}

/// A socket to the kernel's tables.
pub(super) struct Tables {
    socket: Socket,
    sequence: u32,
}

impl Tables {
    /// Opens the socket; needs no privilege.
    pub(super) fn open() -> Result<Self, NetError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| failed("open a socket", source))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// All interfaces.
    pub(super) fn interfaces(&mut self) -> Result<Vec<Interface>, NetError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self
            .ask(question, true)
            .map_err(|err| failed("list interfaces", err))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(interface(link)),
                _ => None,
            })
            .collect())
    }

    /// The IPv4 addresses of interface `index`, in the kernel's order (primary first).
    pub(super) fn addresses(&mut self, index: u32) -> Result<Vec<Ipv4Addr>, NetError> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let answers = self
            .ask(RouteNetlinkMessage::GetAddress(request), true)
            .map_err(|err| failed("list addresses", err))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(entry) if entry.header.index == index => {
                    local_address(&entry)
                }
                _ => None,
            })
            .collect())
    }

    /// The hardware address of neighbour `host` on interface `index`, if it is known.
    pub(super) fn neighbour(
        &mut self,
        index: u32,
        host: IpAddr,
    ) -> Result<Option<MacAddr>, NetError> {
        let mut request = NeighbourMessage::default();
        request.header.family = if host.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let answers = self
            .ask(RouteNetlinkMessage::GetNeighbour(request), true)
            .map_err(|err| failed("list neighbours", err))?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == index => {
                hardware_address(&entry, host)
            }
            _ => None,
        }))
    }

    /// What the kernel would do with a packet to `to`, out of `interface` and from `source` if
    /// given. `None` if it would refuse it.
    pub(super) fn route(
        &mut self,
        to: Ipv4Addr,
        interface: Option<u32>,
        source: Option<Ipv4Addr>,
    ) -> Result<Option<Route>, NetError> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.destination_prefix_length = 32;
        request
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet(to)));
        if let Some(index) = interface {
            request.attributes.push(RouteAttribute::Oif(index));
        }
        if let Some(source) = source {
            request.header.source_prefix_length = 32;
            request
                .attributes
                .push(RouteAttribute::Source(RouteAddress::Inet(source)));
        }
        let answers = match self.ask(RouteNetlinkMessage::GetRoute(request), false) {
            Ok(answers) => answers,
            // The kernel's words for "no route", "unreachable", "prohibit" and "blackhole".
            Err(err)
                if matches!(
                    err.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            Err(err) => return Err(failed("look up a route", err)),
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => usable_route(&route),
            _ => None,
        }))
    }

    /// Sends a question and collects the answers: one, or with `dump` all until "done".
    fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        dump: bool,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = if dump {
            NLM_F_REQUEST | NLM_F_DUMP
        } else {
            NLM_F_REQUEST
        };
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(question));
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        self.socket.send(&octets, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err.to_string()))?;
                let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
                rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or(&[]);
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(err) if err.code.is_some() => return Err(err.to_io()),
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.push(answer);
                        if !dump {
                            return Ok(answers);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn failed(operation: &'static str, source: io::Error) -> NetError {
    NetError::Netlink { operation, source }
}

fn interface(link: LinkMessage) -> Interface {
    let flags = link.header.flags;
    let mut found = Interface {
        name: String::new(),
        index: link.header.index,
        layer: link.header.link_layer_type,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mac: None,
        mtu: 1500,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Mtu(mtu) => found.mtu = mtu,
            LinkAttribute::Address(octets) => found.mac = mac(&octets),
            _ => {}
        }
    }
    found
}

/// On a point-to-point link `Address` is the peer and `Local` is us; elsewhere they are equal, and
/// `Local` may be missing.
fn local_address(entry: &AddressMessage) -> Option<Ipv4Addr> {
    let find = |local: bool| {
        entry
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) if local => Some(*address),
                AddressAttribute::Address(IpAddr::V4(address)) if !local => Some(*address),
                _ => None,
            })
    };
    find(true).or_else(|| find(false))
}

fn hardware_address(entry: &NeighbourMessage, host: IpAddr) -> Option<MacAddr> {
    // A stale entry was right when last used, and the kernel itself would send to it.
    let known = matches!(
        entry.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let wanted = match host {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    let is_host = entry
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, NeighbourAttribute::Destination(a) if *a == wanted));
    if !known || !is_host {
        return None;
    }
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLocalAddress(octets) => mac(octets),
            _ => None,
        })
}

fn usable_route(route: &RouteMessage) -> Option<Route> {
    if matches!(
        route.header.kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
    ) {
        return None;
    }
    let mut interface = None;
    let (mut gateway, mut source) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address))
            | RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address))
            | RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            _ => {}
        }
    }
    Some(Route {
        interface: interface?,
        gateway,
        source,
    })
}

fn mac(octets: &[u8]) -> Option<MacAddr> {
    octets.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reading the tables needs no privilege and sends nothing, so these run everywhere.

    #[test]
    fn loopback_is_listed_with_its_address() {
        let mut tables = Tables::open().unwrap();
        let interfaces = tables.interfaces().unwrap();
        let lo = interfaces.iter().find(|i| i.name == "lo").unwrap();
        assert_eq!(lo.layer, LinkLayerType::Loopback);
        assert!(lo.up && lo.mtu >= 1500);
        assert!(
            tables
                .addresses(lo.index)
                .unwrap()
                .contains(&Ipv4Addr::LOCALHOST)
        );
    }

    #[test]
    fn the_way_to_oneself_is_loopback() {
        let mut tables = Tables::open().unwrap();
        let route = tables
            .route(Ipv4Addr::LOCALHOST, None, None)
            .unwrap()
            .unwrap();
        assert_eq!(
            (route.gateway, route.source),
            (None, Some(Ipv4Addr::LOCALHOST))
        );
        let again = tables
            .route(Ipv4Addr::new(127, 9, 9, 9), None, None)
            .unwrap()
            .unwrap();
        assert_eq!(again.interface, route.interface);
    }

    #[test]
    fn stale_is_known_and_failed_is_not() {
        let host = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let entry = |state| {
            let mut entry = NeighbourMessage::default();
            entry.header.state = state;
            entry.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 1))),
                NeighbourAttribute::LinkLocalAddress(vec![2, 0, 0, 0, 0, 1]),
            ];
            entry
        };
        let address = Some(MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(
            hardware_address(&entry(NeighbourState::Stale), host),
            address
        );
        assert_eq!(
            hardware_address(&entry(NeighbourState::Permanent), host),
            address
        );
        assert_eq!(hardware_address(&entry(NeighbourState::Failed), host), None);
        assert_eq!(
            hardware_address(&entry(NeighbourState::Incomplete), host),
            None
        );
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(hardware_address(&entry(NeighbourState::Stale), other), None);
    }
}
