//! What can go wrong between a sweep and its network. Every message is a sentence for the user
//! that says what to do.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Why frames cannot be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The process may not open packet or raw sockets.
    #[error(
        "no permission to {operation}: the capability CAP_NET_RAW is missing; run with sudo, or \
         grant it once with `setcap cap_net_raw+ep` on the smtpsweep binary"
    )]
    Permission {
        /// What was tried.
        operation: &'static str,
    },
    /// No interface of that name exists.
    #[error("there is no network interface `{name}`; `ip link` lists them")]
    UnknownInterface {
        /// The name given.
        name: String,
    },
    /// The interface is switched off.
    #[error("interface {name} is down; `ip link set {name} up` switches it on")]
    InterfaceDown {
        /// Its name.
        name: String,
    },
    /// The interface is on but has nothing at its other end.
    #[error("interface {name} has no carrier; check its cable or its peer")]
    NoCarrier {
        /// Its name.
        name: String,
    },
    /// The interface is of a kind whose frames we cannot make.
    #[error("interface {name} is a link of type {kind}, for which smtpsweep cannot make frames")]
    UnsupportedLink {
        /// Its name.
        name: String,
        /// The kernel's name for the link type.
        kind: String,
    },
    /// The routing table has no way to the targets.
    #[error(
        "there is no route to {to}{}; add one, or name interface and gateway with -i and -G",
        through(interface.as_deref())
    )]
    NoRoute {
        /// The target asked about.
        to: Ipv4Addr,
        /// The interface that was demanded.
        interface: Option<String>,
    },
    /// The interface has no IPv4 address and none was given.
    #[error("interface {name} has no IPv4 address to send from; name one with -S")]
    NoSource {
        /// Its name.
        name: String,
    },
    /// The targets are neighbours on an Ethernet, reached without a gateway.
    #[error(
        "{to} is on the local network of {interface}, where every host has a hardware address of \
         its own; a sweep sends all its frames to one gateway: name its hardware address with -G"
    )]
    OnLink {
        /// The target asked about.
        to: Ipv4Addr,
        /// The interface it is on.
        interface: String,
    },
    /// The gateway does not tell its hardware address.
    #[error(
        "the gateway {gateway} on {interface} answers no ARP request; is it up? Otherwise name \
         its hardware address with -G"
    )]
    GatewaySilent {
        /// Its address.
        gateway: Ipv4Addr,
        /// The interface it is on.
        interface: String,
    },
    /// The gateway of an IPv4 route is no IPv4 host.
    #[error(
        "the route to {to} leads through {gateway} on {interface}, which ARP cannot resolve; name \
         its hardware address with -G"
    )]
    ForeignGateway {
        /// The target asked about.
        to: Ipv4Addr,
        /// The gateway.
        gateway: IpAddr,
        /// The interface it is on.
        interface: String,
    },
    /// A question to the kernel's routing tables failed.
    #[error("failed to {operation} by netlink: {source}")]
    Netlink {
        /// What was asked.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A system call on a socket failed.
    #[error("failed to {operation} on interface {interface}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On which interface.
        interface: String,
        /// Why it failed.
        source: io::Error,
    },
    /// AF_XDP cannot be used.
    #[error(transparent)]
    Xdp(#[from] super::XdpObstacle),
    /// A dry run's output cannot be written.
    #[error("failed to print a probe: {0}")]
    Output(#[source] io::Error),
}

impl NetError {
    /// The error of `operation` on `interface`, a missing capability told apart.
    pub(super) fn system(operation: &'static str, interface: &str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::Permission { operation };
        }
        Self::System {
            operation,
            interface: interface.to_owned(),
            source,
        }
    }
}

fn through(interface: Option<&str>) -> String {
    interface
        .map(|name| format!(" through interface {name}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_object_and_the_remedy() {
        let to = Ipv4Addr::new(198, 18, 0, 1);
        let err = NetError::NoRoute {
            to,
            interface: Some("eth7".to_owned()),
        };
        assert_eq!(
            err.to_string(),
            "there is no route to 198.18.0.1 through interface eth7; add one, or name interface \
             and gateway with -i and -G"
        );
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let err = NetError::system("open a packet socket", "eth0", denied);
        assert!(err.to_string().contains("CAP_NET_RAW") && err.to_string().contains("sudo"));
        let gone = io::Error::from_raw_os_error(libc::ENETDOWN);
        let err = NetError::system("send", "eth0", gone);
        assert!(
            err.to_string()
                .starts_with("failed to send on interface eth0: ")
        );
    }
}
