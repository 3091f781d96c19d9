//! Why AF_XDP cannot be used: each reason a sentence for the user.

use std::io;

use crate::net::sys::{SetupError, Step};

/// Why AF_XDP cannot be used on an interface.
#[derive(Debug, thiserror::Error)]
pub enum XdpObstacle {
    /// The interface's frames have no Ethernet header.
    #[error("{interface} is no Ethernet interface, and AF_XDP sends Ethernet frames")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// The kernel lacks what is needed.
    #[error("this kernel has no AF_XDP to send with (Linux 5.4 or later with CONFIG_XDP_SOCKETS)")]
    Kernel,
    /// The process may not open AF_XDP sockets.
    #[error("AF_XDP sockets need the capability CAP_NET_RAW; run with sudo")]
    Permission,
    /// The process may not lock the memory that frames are sent from.
    #[error(
        "AF_XDP needs some hundred KiB of locked memory and the limit is lower; raise it with \
         `ulimit -l`, or run with the capability CAP_IPC_LOCK"
    )]
    LockedMemory,
    /// The interface has fewer queues.
    #[error("{interface} has no transmit queue {queue}")]
    NoQueue {
        /// Its name.
        interface: String,
        /// The queue asked for, counted from 0.
        queue: u32,
    },
    /// Another AF_XDP socket has the queue.
    #[error("queue {queue} of {interface} is in use by another AF_XDP socket")]
    QueueTaken {
        /// The interface's name.
        interface: String,
        /// The queue asked for, counted from 0.
        queue: u32,
    },
    /// Something else failed.
    #[error("failed to {operation} on interface {interface}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On which interface.
        interface: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl XdpObstacle {
    /// Why no socket could be made.
    pub(super) fn setup(interface: &str, error: SetupError) -> Self {
        let code = error.source.raw_os_error();
        match (error.step, code) {
            (Step::Socket, Some(libc::EAFNOSUPPORT)) | (_, Some(libc::EOPNOTSUPP)) => Self::Kernel,
            (Step::Socket, Some(libc::EPERM | libc::EACCES)) => Self::Permission,
            // What `xdp_umem_account_pages` of the kernel says beyond RLIMIT_MEMLOCK.
            (Step::Memory, Some(libc::ENOBUFS)) => Self::LockedMemory,
            (step, _) => Self::System {
                operation: match step {
                    Step::Socket => "open an AF_XDP socket",
                    Step::Memory => "register memory with an AF_XDP socket",
                    Step::Rings => "make the rings of an AF_XDP socket",
                },
                interface: interface.to_owned(),
                source: error.source,
            },
        }
    }

    /// Why the socket could not be bound.
    pub(super) fn bind(interface: &str, queue: u32, source: io::Error) -> Self {
        let interface = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EBUSY) => Self::QueueTaken { interface, queue },
            Some(libc::EINVAL) => Self::NoQueue { interface, queue },
            _ => Self::System {
                operation: "bind an AF_XDP socket",
                interface,
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_become_reasons() {
        let setup = |step, code| {
            let source = io::Error::from_raw_os_error(code);
            XdpObstacle::setup("eth0", SetupError { step, source }).to_string()
        };
        assert!(setup(Step::Socket, libc::EPERM).contains("CAP_NET_RAW"));
        assert!(setup(Step::Socket, libc::EAFNOSUPPORT).contains("CONFIG_XDP_SOCKETS"));
        assert!(setup(Step::Memory, libc::ENOBUFS).contains("ulimit -l"));
        assert!(setup(Step::Rings, libc::EOPNOTSUPP).contains("Linux 5.4"));
        assert!(setup(Step::Rings, libc::ENOMEM).starts_with("failed to make the rings"));
        let bind =
            |code| XdpObstacle::bind("eth0", 3, io::Error::from_raw_os_error(code)).to_string();
        assert_eq!(bind(libc::EINVAL), "eth0 has no transmit queue 3");
        assert!(bind(libc::EBUSY).contains("in use"));
        assert!(bind(libc::ENETDOWN).starts_with("failed to bind"));
    }
}
