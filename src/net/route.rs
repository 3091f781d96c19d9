//! How to reach the targets: asked of the kernel, so that a sweep needs no network options on a
//! machine that is configured at all.
//!
//! The kernel is asked how it would send to a sample target; interface, source address and gateway
//! follow. The gateway's hardware address comes from the neighbour table, or by an ARP request of
//! our own. What the user names is taken as named.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::link::LinkLayerType;

use super::arp::{self, Question};
use super::netlink::{Interface, Route, Tables};
use super::{Link, LinkKind, NetError};
use crate::wire::MacAddr;

/// What the user names instead of leaving it to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteOptions {
    /// The interface to send from (`-i`).
    pub interface: Option<String>,
    /// The source address (`-S`); it is not checked to be ours.
    pub source: Option<Ipv4Addr>,
    /// The gateway's hardware address (`-G`).
    pub gateway_mac: Option<MacAddr>,
    /// Our hardware address (`-s`).
    pub source_mac: Option<MacAddr>,
}

/// Finds the way to targets like `sample`.
///
/// Sends nothing but, on an Ethernet whose gateway is not in the neighbour table, up to three ARP
/// requests (which wants `CAP_NET_RAW` and takes up to three seconds).
///
/// # Errors
/// When there is no such interface, it is down, there is no route or no source address, or the
/// gateway's hardware address cannot be learnt: each a [`NetError`] of its own.
pub fn discover(options: &RouteOptions, sample: Ipv4Addr) -> Result<Link, NetError> {
    let mut tables = Tables::open()?;
    let interfaces = tables.interfaces()?;
    let named = match &options.interface {
        None => None,
        Some(name) => Some(
            interfaces
                .iter()
                .find(|interface| interface.name == *name)
                .ok_or_else(|| NetError::UnknownInterface { name: name.clone() })?,
        ),
    };
    // Before the route: the kernel calls the way through an interface that is off "no route".
    named.map_or(Ok(()), require_up)?;
    let route = look_up(&mut tables, options, sample, named)?;
    let interface = match named {
        Some(interface) => interface,
        None => interfaces
            .iter()
            .find(|interface| interface.index == route.interface)
            .ok_or(NetError::NoRoute {
                to: sample,
                interface: None,
            })?,
    };
    require_up(interface)?;

    let source = match options.source.or(route.source) {
        Some(source) => source,
        None => first_address(&mut tables, interface)?,
    };
    let gateway = match route.gateway {
        Some(IpAddr::V4(gateway)) => Some(gateway),
        _ => None,
    };
    let kind = match interface.layer {
        LinkLayerType::Loopback => LinkKind::Loopback,
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp
        | LinkLayerType::Tunnel
        | LinkLayerType::Sit => LinkKind::Raw,
        LinkLayerType::Ether => {
            let mac = options.source_mac.or(interface.mac);
            let source_mac = mac.ok_or_else(|| unsupported(interface))?;
            let gateway = match options.gateway_mac {
                Some(mac) => mac,
                None => gateway_mac(&mut tables, interface, &route, sample, source_mac, source)?,
            };
            LinkKind::Ethernet {
                source: source_mac,
                gateway,
            }
        }
        _ => return Err(unsupported(interface)),
    };
    Ok(Link {
        interface: interface.name.clone(),
        index: interface.index,
        kind,
        source,
        gateway,
        mtu: interface.mtu,
    })
}

fn look_up(
    tables: &mut Tables,
    options: &RouteOptions,
    sample: Ipv4Addr,
    named: Option<&Interface>,
) -> Result<Route, NetError> {
    let index = named.map(|interface| interface.index);
    // A source that is not ours makes the kernel refuse the question; ask without it then.
    let mut found = tables.route(sample, index, options.source)?;
    if found.is_none() && options.source.is_some() {
        found = tables.route(sample, index, None)?;
    }
    match (found, named) {
        (Some(route), _) => Ok(route),
        // With interface and gateway named, the routing table has nothing to add.
        (None, Some(interface)) if options.gateway_mac.is_some() => Ok(Route {
            interface: interface.index,
            gateway: None,
            source: None,
        }),
        (None, _) => Err(NetError::NoRoute {
            to: sample,
            interface: options.interface.clone(),
        }),
    }
}

fn require_up(interface: &Interface) -> Result<(), NetError> {
    let name = || interface.name.clone();
    match (interface.up, interface.carrier) {
        (true, true) => Ok(()),
        (true, false) => Err(NetError::NoCarrier { name: name() }),
        (false, _) => Err(NetError::InterfaceDown { name: name() }),
    }
}

fn first_address(tables: &mut Tables, interface: &Interface) -> Result<Ipv4Addr, NetError> {
    let addresses = tables.addresses(interface.index)?;
    let first = addresses.first().copied();
    first.ok_or_else(|| NetError::NoSource {
        name: interface.name.clone(),
    })
}

fn unsupported(interface: &Interface) -> NetError {
    NetError::UnsupportedLink {
        name: interface.name.clone(),
        kind: format!("{:?}", interface.layer),
    }
}

/// The hardware address of the route's gateway: known to the kernel, or asked for.
fn gateway_mac(
    tables: &mut Tables,
    interface: &Interface,
    route: &Route,
    to: Ipv4Addr,
    our_mac: MacAddr,
    source: Ipv4Addr,
) -> Result<MacAddr, NetError> {
    let Some(gateway) = route.gateway else {
        return Err(NetError::OnLink {
            to,
            interface: interface.name.clone(),
        });
    };
    if let Some(mac) = tables.neighbour(interface.index, gateway)? {
        return Ok(mac);
    }
    let IpAddr::V4(host) = gateway else {
        let interface = interface.name.clone();
        return Err(NetError::ForeignGateway {
            to,
            gateway,
            interface,
        });
    };
    // The gateway may answer none but its own network, so ask from the interface's own address
    // even when the probes will come from another.
    let addresses = tables.addresses(interface.index)?;
    let our_ip = addresses.first().copied().unwrap_or(source);
    let question = Question {
        interface: &interface.name,
        index: interface.index,
        our_mac,
        our_ip,
        host,
    };
    arp::resolve(&question)?.ok_or_else(|| NetError::GatewaySilent {
        gateway: host,
        interface: interface.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_nothing() {
        let link = discover(&RouteOptions::default(), Ipv4Addr::new(127, 0, 0, 5)).unwrap();
        assert_eq!(
            (link.interface.as_str(), link.kind),
            ("lo", LinkKind::Loopback)
        );
        assert_eq!(link.gateway, None);
        assert!(link.source.is_loopback());
    }

    #[test]
    fn an_interface_that_does_not_exist() {
        let options = RouteOptions {
            interface: Some("nosuch0".to_owned()),
            ..RouteOptions::default()
        };
        let err = discover(&options, Ipv4Addr::LOCALHOST).unwrap_err();
        assert!(matches!(err, NetError::UnknownInterface { name } if name == "nosuch0"));
    }

    #[test]
    fn a_named_source_is_taken_as_named() {
        let source = Some(Ipv4Addr::new(127, 0, 0, 77));
        let options = RouteOptions {
            source,
            ..RouteOptions::default()
        };
        let link = discover(&options, Ipv4Addr::new(127, 0, 0, 5)).unwrap();
        assert_eq!(Some(link.source), source);
    }
}
