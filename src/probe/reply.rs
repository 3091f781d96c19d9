//! What an answer can be: a reply that proved to be ours, or a reason to ignore the frame.

use std::net::Ipv4Addr;

use crate::targets::Target;
use crate::wire::icmp;
pub use crate::wire::tcp::Options as SynAckOptions;

/// A host that answered our SYN with a SYN-ACK that repeats its cookie.
///
/// The fields are private: in a sweep only [`Classifier::classify`](super::Classifier::classify)
/// makes one, after the cookie held. The exception is [`Responder::dialled`], for
/// `smtpsweep probe HOST`: that host has answered nothing yet, but was named by the user, and it
/// comes as a [`Target`], which never is a blocked address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Responder {
    pub(super) addr: Ipv4Addr,
    pub(super) dport: u16,
    pub(super) our_port: u16,
    pub(super) our_seq: u32,
    pub(super) their_seq: u32,
    pub(super) window: u16,
    pub(super) ttl: u8,
    pub(super) ip_id: u16,
    pub(super) options: SynAckOptions,
    pub(super) seen_us: u64,
}

impl Responder {
    /// A host that is to be dialled without having been probed (`smtpsweep probe HOST`): nothing
    /// proves that it answers, or that it wants to. Sweeps must not use it. What a SYN-ACK would
    /// have told is zero or empty. `seen_us` is in microseconds since the Unix epoch.
    pub fn dialled(addr: Target, dport: u16, seen_us: u64) -> Self {
        Self {
            addr: addr.addr(),
            dport,
            our_port: 0,
            our_seq: 0,
            their_seq: 0,
            window: 0,
            ttl: 0,
            ip_id: 0,
            options: SynAckOptions::default(),
            seen_us,
        }
    }

    /// The host.
    pub const fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    /// The port that is open on it.
    pub const fn dport(&self) -> u16 {
        self.dport
    }

    /// The source port of our SYN.
    pub const fn our_port(&self) -> u16 {
        self.our_port
    }

    /// The sequence number of our SYN (the SYN-ACK acknowledged the next one).
    pub const fn our_seq(&self) -> u32 {
        self.our_seq
    }

    /// The sequence number of the SYN-ACK.
    pub const fn their_seq(&self) -> u32 {
        self.their_seq
    }

    /// The window field of the SYN-ACK, which is never scaled; 0 tells a host that lets nobody talk.
    pub const fn window(&self) -> u16 {
        self.window
    }

    /// Hops left when the SYN-ACK arrived.
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The SYN-ACK's IP identification.
    pub const fn ip_id(&self) -> u16 {
        self.ip_id
    }

    /// The SYN-ACK's TCP options.
    pub const fn options(&self) -> &SynAckOptions {
        &self.options
    }

    /// When the SYN-ACK arrived, in microseconds since the Unix epoch.
    pub const fn seen_us(&self) -> u64 {
        self.seen_us
    }
}

/// An answer to one of our SYNs, proved by its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The port is open.
    SynAck(Responder),
    /// The port is closed.
    Reset {
        /// The host.
        addr: Ipv4Addr,
        /// Hops left when the RST arrived.
        ttl: u8,
    },
    /// A router or the host itself sent an ICMP error about our SYN.
    Unreachable {
        /// The host the SYN was for.
        addr: Ipv4Addr,
        /// Who complains.
        from: Ipv4Addr,
        /// ICMP type: 3, 4, 5, 11 or 12.
        icmp_type: u8,
        /// ICMP code.
        icmp_code: u8,
    },
}

impl Reply {
    /// The target this is about.
    pub const fn addr(&self) -> Ipv4Addr {
        match self {
            Self::SynAck(responder) => responder.addr,
            Self::Reset { addr, .. } | Self::Unreachable { addr, .. } => *addr,
        }
    }

    /// Whether the SYN ended here. Source quench and redirect are advice from a router that passed
    /// the SYN on: the target's own answer may still come, and must not count as its duplicate.
    pub const fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable {
                icmp_type: icmp::SOURCE_QUENCH | icmp::REDIRECT,
                ..
            }
        )
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a frame is no reply of ours. Every ignored frame has exactly one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name under which it is counted.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Its place in [`DropReason::ALL`], for arrays of counters.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

// A macro for one reason: a variant cannot be forgotten in `ALL` or `name`.
drop_reasons! {
    /// The frame ends before its headers do.
    TooShort = "too-short",
    /// The link layer carries a VLAN tag.
    VlanTag = "vlan-tag",
    /// The link layer carries something other than IPv4.
    NotIpv4 = "not-ipv4",
    /// The IPv4 header contradicts itself (length fields, version).
    BadIpHeader = "bad-ip-header",
    /// The IPv4 header checksum is wrong (only with verification on).
    IpChecksum = "bad-ip-checksum",
    /// Addressed to somebody else.
    NotForUs = "not-for-us",
    /// A fragment: answers to a SYN are never that large.
    Fragment = "fragment",
    /// The packet is longer than the captured frame.
    CutShort = "cut-short",
    /// Neither TCP nor ICMP.
    OtherProtocol = "other-protocol",
    /// The TCP header contradicts itself (data offset).
    BadTcpHeader = "bad-tcp-header",
    /// The TCP checksum is wrong (only with verification on).
    TcpChecksum = "bad-tcp-checksum",
    /// TCP from or to ports that the sweep does not use.
    WrongPort = "wrong-port",
    /// TCP that is neither SYN-ACK nor RST.
    UnexpectedFlags = "unexpected-flags",
    /// SYN-ACK or RST that does not repeat the cookie: forged, stale or misrouted.
    BadCookie = "bad-cookie",
    /// The ICMP checksum is wrong (only with verification on).
    IcmpChecksum = "bad-icmp-checksum",
    /// ICMP that is no error message.
    IcmpNotError = "icmp-not-error",
    /// An ICMP error that quotes less than the IP header and 8 octets.
    QuoteTooShort = "icmp-quote-too-short",
    /// An ICMP error about a packet that is none of the sweep's SYNs.
    QuoteNotOurs = "icmp-quote-not-ours",
    /// An ICMP error about something like our SYN, without its cookie.
    QuoteBadCookie = "icmp-quote-bad-cookie",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_have_distinct_names_and_their_own_index() {
        let names: HashSet<&str> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (at, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }

    #[test]
    fn advice_is_not_final() {
        let error = |icmp_type| Reply::Unreachable {
            addr: Ipv4Addr::new(10, 0, 0, 1),
            from: Ipv4Addr::new(10, 0, 0, 9),
            icmp_type,
            icmp_code: 0,
        };
        let finals = [3, 4, 5, 11, 12].map(|t| error(t).is_final());
        assert_eq!(finals, [true, false, false, true, true]);
        assert!(
            Reply::Reset {
                addr: Ipv4Addr::LOCALHOST,
                ttl: 1
            }
            .is_final()
        );
    }
}
