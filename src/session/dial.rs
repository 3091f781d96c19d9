//! How a connection to a responder begins, and what it means when it does not.
//!
//! The one place that makes sockets: to adopt the handshake that the raw probe began, instead of
//! dialling anew, is a second function with the same result.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::sys;
use crate::probe::Responder;
use crate::smtp::Outcome;

/// Begins to connect; the socket becomes writable, or reports an error, when that is settled.
///
/// # Errors
/// What the system says at once; [`is_shortage`] and [`refusal`] tell what it means.
pub(super) fn dial(responder: &Responder, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = unconnected(source)?;
    // A dialogue is single small segments, each after a reply: nothing is won by collecting them.
    socket.set_tcp_nodelay(true)?;
    let peer = SocketAddrV4::new(responder.addr(), responder.dport());
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Whether sockets can be bound to `source` at all.
///
/// # Errors
/// What bind(2) says.
pub(super) fn check_source(source: Ipv4Addr) -> io::Result<()> {
    unconnected(Some(source)).map(drop)
}

fn unconnected(source: Option<Ipv4Addr>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if let Some(source) = source {
        // Without this, bind reserves a port for us alone, and 28,000 sessions use them all up.
        sys::bind_address_no_port(&socket)?;
        socket.bind(&SocketAddrV4::new(source, 0).into())?;
    }
    Ok(socket)
}

/// Whether a call failed for want of descriptors, ports, memory or epoll watches, which pass.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN
                | libc::ENOSPC
        )
    )
}

/// The outcome that a failed connection means.
pub(super) fn refusal(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Outcome::ConnectRefused,
        // In SYN-SENT a RST is a refusal; "reset" says that the connection had come about.
        Some(libc::ECONNRESET | libc::EPIPE) => Outcome::ResetBeforeGreeting,
        Some(libc::ETIMEDOUT) => Outcome::ConnectTimeout,
        // What Linux makes of the ICMP errors (net/ipv4/icmp.c, icmp_err_convert).
        Some(
            libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EPROTO
            | libc::EMSGSIZE,
        ) => Outcome::ConnectUnreachable,
        // EACCES, EPERM, EINVAL, ENETDOWN ...: this machine's routes or packet filter.
        _ => Outcome::LocalError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_outcome() {
        for (errno, outcome) in [
            (libc::ECONNREFUSED, Outcome::ConnectRefused),
            (libc::ECONNRESET, Outcome::ResetBeforeGreeting),
            (libc::ETIMEDOUT, Outcome::ConnectTimeout),
            (libc::EHOSTUNREACH, Outcome::ConnectUnreachable),
            (libc::ENETUNREACH, Outcome::ConnectUnreachable),
            (libc::ENOPROTOOPT, Outcome::ConnectUnreachable),
            (libc::EACCES, Outcome::LocalError),
            (libc::EPERM, Outcome::LocalError),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(refusal(&error), outcome, "{error}");
            assert!(!is_shortage(&error), "{error}");
        }
        for errno in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::EADDRNOTAVAIL,
        ] {
            assert!(is_shortage(&io::Error::from_raw_os_error(errno)));
        }
    }

    #[test]
    fn a_foreign_source_address_is_refused() {
        assert!(check_source(Ipv4Addr::LOCALHOST).is_ok());
        let error = check_source(Ipv4Addr::new(192, 0, 2, 1)).expect_err("not ours");
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }
}
