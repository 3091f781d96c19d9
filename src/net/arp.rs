//! Asking a gateway for its hardware address (RFC 826), when the kernel does not know it.

use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::NetError;
use super::sys;
use crate::wire::{MacAddr, arp, ethernet};

/// Requests before giving up.
const TRIES: u32 = 3;

/// How long to wait for an answer to each.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who asks whom, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) interface: &'a str,
    pub(super) index: u32,
    pub(super) our_mac: MacAddr,
    pub(super) our_ip: Ipv4Addr,
    pub(super) host: Ipv4Addr,
}

/// The hardware address of `question.host`; `None` if it stays silent. Takes up to three seconds.
pub(super) fn resolve(question: &Question<'_>) -> Result<Option<MacAddr>, NetError> {
    let failed =
        |operation| move |err: io::Error| NetError::system(operation, question.interface, err);
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, None)
        .map_err(failed("open a packet socket for ARP"))?;
    sys::bind_packet(socket.as_fd(), question.index, ethernet::TYPE_ARP)
        .map_err(failed("bind a packet socket for ARP"))?;
    let request = request(question);
    for _ in 0..TRIES {
        socket
            .send(&request)
            .map_err(failed("send an ARP request"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket
                .set_read_timeout(Some(left))
                .map_err(failed("wait for an ARP reply"))?;
            let mut frame = [0; 128];
            match socket.read(&mut frame) {
                Ok(length) => {
                    if let Some(address) = answer(question, &frame[..length]) {
                        return Ok(Some(address));
                    }
                }
                Err(err)
                    if matches!(
                        err.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(err) => return Err(failed("receive an ARP reply")(err)),
            }
        }
    }
    Ok(None)
}

/// The request frame.
fn request(question: &Question<'_>) -> [u8; ethernet::HEADER_LEN + arp::PACKET_LEN] {
    let mut frame = [0; ethernet::HEADER_LEN + arp::PACKET_LEN];
    let link = ethernet::Repr {
        destination: MacAddr::BROADCAST,
        source: question.our_mac,
        ether_type: ethernet::TYPE_ARP,
    };
    link.emit(&mut ethernet::Frame::new_unchecked(&mut frame[..]));
    let body = arp::Repr {
        operation: arp::REQUEST,
        sender_mac: question.our_mac,
        sender_ip: question.our_ip,
        target_mac: MacAddr::ZERO,
        target_ip: question.host,
    };
    body.emit(&mut arp::Packet::new_unchecked(
        &mut frame[ethernet::HEADER_LEN..],
    ));
    frame
}

/// The hardware address that `frame` tells, if it is the answer.
fn answer(question: &Question<'_>, frame: &[u8]) -> Option<MacAddr> {
    let link = ethernet::Frame::new_checked(frame).ok()?;
    if link.ether_type() != ethernet::TYPE_ARP {
        return None;
    }
    let packet = arp::Packet::new_checked(link.payload()).ok()?;
    let reply = arp::Repr::parse(&packet).ok()?;
    let ours = reply.operation == arp::REPLY
        && reply.sender_ip == question.host
        && reply.target_mac == question.our_mac;
    ours.then_some(reply.sender_mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question<'_> = Question {
        interface: "eth0",
        index: 2,
        our_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        our_ip: Ipv4Addr::new(198, 18, 0, 2),
        host: Ipv4Addr::new(198, 18, 0, 1),
    };

    /// What the host asked for would send back.
    fn reply() -> Vec<u8> {
        let mut frame = request(&QUESTION).to_vec();
        frame[..6].copy_from_slice(&QUESTION.our_mac.0);
        let body = arp::Repr {
            operation: arp::REPLY,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender_ip: QUESTION.host,
            target_mac: QUESTION.our_mac,
            target_ip: QUESTION.our_ip,
        };
        body.emit(&mut arp::Packet::new_unchecked(&mut frame[14..]));
        frame
    }

    #[test]
    fn the_request_is_a_broadcast_question() {
        let frame = request(&QUESTION);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[12..14], [0x08, 0x06]);
        let asked = arp::Repr::parse(&arp::Packet::new_checked(&frame[14..]).unwrap()).unwrap();
        assert_eq!(
            (asked.operation, asked.target_ip),
            (arp::REQUEST, QUESTION.host)
        );
        assert_eq!(answer(&QUESTION, &frame), None);
    }

    #[test]
    fn only_the_hosts_own_answer_counts() {
        assert_eq!(
            answer(&QUESTION, &reply()),
            Some(MacAddr([2, 0, 0, 0, 0, 1]))
        );
        let mut padded = reply();
        padded.resize(60, 0);
        assert!(answer(&QUESTION, &padded).is_some());
        // Another host's answer, an answer to another asker, a cut frame.
        for at in [14 + 17, 14 + 23] {
            let mut other = reply();
            other[at] ^= 0x40;
            assert_eq!(answer(&QUESTION, &other), None);
        }
        assert_eq!(answer(&QUESTION, &reply()[..41]), None);
    }
}
