//! What an interface's driver can do for XDP, as the kernel tells since Linux 6.3 (the `netdev`
//! family of generic netlink; Documentation/netlink/specs/netdev.yaml).
//!
//! On veth the answer depends on the peer: it can be sent to from XDP programs only while it polls
//! (GRO is on, or it has an XDP program of its own).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// The driver sends frames that XDP programs redirect to it (`NETDEV_XDP_ACT_NDO_XMIT`).
pub(super) const NDO_XMIT: u64 = 1 << 2;

/// The XDP features of interface `index`; `None` where the kernel does not tell.
pub(super) fn xdp_features(index: u32) -> Option<u64> {
    ask(index).ok().flatten()
}

fn ask(index: u32) -> io::Result<Option<u64>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let question = message(CONTROLLER, GET_FAMILY, CONTROLLER_FAMILY_NAME, b"netdev\0");
    socket.send(&question, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let Some(Ok(family)) = attribute(&answer, CONTROLLER_FAMILY_ID).map(<[u8; 2]>::try_from) else {
        return Ok(None);
    };
    let family = u16::from_ne_bytes(family);
    socket.send(
        &message(family, DEV_GET, DEV_IFINDEX, &index.to_ne_bytes()),
        0,
    )?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(attribute(&answer, DEV_XDP_FEATURES)
        .and_then(|value| value.try_into().ok())
        .map(u64::from_ne_bytes))
}

/// A request with one attribute.
fn message(kind: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let attribute_len = ATTRIBUTE_HEADER + value.len();
    let length = HEADERS + attribute_len.next_multiple_of(4);
    // Both are some dozens of octets.
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let mut octets = Vec::with_capacity(length);
    octets.extend(u32::from(short(length)).to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(1u16.to_ne_bytes()); // NLM_F_REQUEST
    octets.extend([0; 8]); // sequence, port: one question at a time
    octets.extend([command, 1, 0, 0]);
    octets.extend(short(attribute_len).to_ne_bytes());
    octets.extend(attribute.to_ne_bytes());
    octets.extend(value);
    octets.resize(length, 0);
    octets
}

/// The value of an attribute in an answer. Errors have none.
fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    const ERROR: u16 = 2;
    if half(4)? == ERROR {
        return None;
    }
    let mut at = HEADERS;
    loop {
        let length = usize::from(half(at)?);
        // The two upper bits are flags.
        let kind = half(at + 2)? & 0x3fff;
        if kind == wanted {
            return answer.get(at + ATTRIBUTE_HEADER..at + length);
        }
        at += length.max(ATTRIBUTE_HEADER).next_multiple_of(4);
    }
}

/// Octets before the first attribute: `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 20;
const ATTRIBUTE_HEADER: usize = 4;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const CONTROLLER_FAMILY_ID: u16 = 1;
const CONTROLLER_FAMILY_NAME: u16 = 2;
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_takes_no_frames_from_xdp() {
        // Index 1 is loopback in every namespace. Kernels before 6.3 say nothing.
        assert_eq!(xdp_features(1).unwrap_or(0) & NDO_XMIT, 0);
        assert_eq!(xdp_features(u32::MAX), None);
    }

    #[test]
    fn attributes_are_found_and_errors_have_none() {
        let mut answer = message(30, DEV_GET, DEV_IFINDEX, &7u32.to_ne_bytes());
        answer.extend([12, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            attribute(&answer, DEV_IFINDEX),
            Some(&7u32.to_ne_bytes()[..])
        );
        assert_eq!(
            attribute(&answer, DEV_XDP_FEATURES),
            Some(&NDO_XMIT.to_ne_bytes()[..])
        );
        assert_eq!(attribute(&answer, 9), None);
        answer[4..6].copy_from_slice(&2u16.to_ne_bytes());
        assert_eq!(attribute(&answer, DEV_IFINDEX), None);
        assert_eq!(attribute(&[], 1), None);
        // A length that leads nowhere ends the search.
        let mut broken = message(30, DEV_GET, DEV_IFINDEX, &[0; 4]);
        broken[20..22].copy_from_slice(&[0, 0]);
        assert_eq!(attribute(&broken, 9), None);
    }
}
