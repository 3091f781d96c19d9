//! nftables without `nft`: transactions of the kernel's packet filter, over netlink
//! (linux/netfilter/nf_tables.h).
//!
//! [`Batch`] collects the messages of one transaction, all or nothing; [`NfTables`] sends it and
//! reads the verdict on each message. Only what a drop rule needs is here: a table, chains, and
//! rules made of a handful of expressions ([`Expression`]).

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::wire::{ethernet, ipv4, tcp};

/// A socket to the packet filter. What it owns goes with it.
pub(super) struct NfTables {
    socket: Socket,
}

/// What packets a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family(u8);

impl Family {
    /// IPv4, wherever it comes in.
    pub(super) const IPV4: Self = Self(2);
    /// Frames of single interfaces.
    pub(super) const NETDEV: Self = Self(5);
    const ANY: Self = Self(0);
}

/// A table as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: String,
    /// Whether it belongs to a socket, and goes when that is closed.
    pub(super) owned: bool,
}

impl NfTables {
    /// Opens the socket; needs no privilege, unlike all that is done with it.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Carries out a transaction.
    ///
    /// # Errors
    /// The kernel's first objection; then nothing of it was done.
    pub(super) fn commit(&mut self, batch: Batch) -> io::Result<()> {
        let (octets, wanted) = batch.finish();
        self.socket.send(&octets, 0)?;
        let mut answered = 0;
        while answered < wanted {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in Messages(&datagram) {
                let Some(error) = message.error() else {
                    continue;
                };
                if error != 0 {
                    return Err(io::Error::from_raw_os_error(error));
                }
                answered += 1;
            }
        }
        Ok(())
    }

    /// All tables.
    ///
    /// # Errors
    /// No privilege, or no packet filter.
    pub(super) fn tables(&mut self) -> io::Result<Vec<Table>> {
        let mut question = Vec::new();
        message(&mut question, GET_TABLE, REQUEST | DUMP, Family::ANY, 0);
        self.socket.send(&question, 0)?;
        let mut found = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in Messages(&datagram) {
                if message.kind == DONE {
                    return Ok(found);
                }
                match message.error() {
                    Some(0) => return Ok(found),
                    Some(error) => return Err(io::Error::from_raw_os_error(error)),
                    None => found.extend(message.table()),
                }
            }
        }
    }
}

/// The messages of one transaction.
pub(super) struct Batch {
    family: Family,
    octets: Vec<u8>,
    /// Messages to each of which the kernel answers.
    wanted: u32,
}

impl Batch {
    /// For tables of that family.
    pub(super) fn new(family: Family) -> Self {
        let mut octets = Vec::new();
        message(&mut octets, BATCH_BEGIN, REQUEST, Family::ANY, SUBSYSTEM);
        Self {
            family,
            octets,
            wanted: 0,
        }
    }

    /// A new table; none of that name may be there. An owned one belongs to the socket.
    pub(super) fn add_table(&mut self, name: &str, owned: bool) {
        let flags = if owned { TABLE_OWNER } else { 0 };
        self.push(NEW_TABLE, CREATE | EXCLUSIVE, |out| {
            text(out, TABLE_NAME, name);
            number(out, TABLE_FLAGS, flags);
        });
    }

    /// Takes a table away, with all that is in it.
    pub(super) fn delete_table(&mut self, name: &str) {
        self.push(DELETE_TABLE, 0, |out| text(out, TABLE_NAME, name));
    }

    /// A chain that is reached by jumps only.
    pub(super) fn add_chain(&mut self, table: &str, name: &str) {
        self.push(NEW_CHAIN, CREATE, |out| {
            text(out, CHAIN_TABLE, table);
            text(out, CHAIN_NAME, name);
        });
    }

    /// A chain that every arriving packet passes, before connection tracking and before it is
    /// routed.
    pub(super) fn add_raw_prerouting(&mut self, table: &str, name: &str) {
        self.push(NEW_CHAIN, CREATE, |out| {
            text(out, CHAIN_TABLE, table);
            text(out, CHAIN_NAME, name);
            nest(out, CHAIN_HOOK, |out| {
                number(out, HOOK_NUMBER, PRE_ROUTING);
                attribute(out, HOOK_PRIORITY, &PRIORITY_RAW.to_be_bytes());
            });
            text(out, CHAIN_TYPE, "filter");
        });
    }

    /// A chain that every frame arriving at an interface passes, before all but packet sockets
    /// that are bound for every protocol. Of [`Family::NETDEV`].
    pub(super) fn add_ingress(&mut self, table: &str, name: &str, interface: &str) {
        self.push(NEW_CHAIN, CREATE, |out| {
            text(out, CHAIN_TABLE, table);
            text(out, CHAIN_NAME, name);
            nest(out, CHAIN_HOOK, |out| {
                number(out, HOOK_NUMBER, INGRESS);
                attribute(out, HOOK_PRIORITY, &PRIORITY_RAW.to_be_bytes());
                text(out, HOOK_DEVICE, interface);
            });
            text(out, CHAIN_TYPE, "filter");
        });
    }

    /// A rule at the end of a chain.
    pub(super) fn add_rule(&mut self, table: &str, chain: &str, expressions: &[Expression]) {
        self.push(NEW_RULE, CREATE | APPEND, |out| {
            text(out, RULE_TABLE, table);
            text(out, RULE_CHAIN, chain);
            nest(out, RULE_EXPRESSIONS, |out| {
                for expression in expressions {
                    expression.write(out);
                }
            });
        });
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: impl FnOnce(&mut Vec<u8>)) {
        let flags = REQUEST | ACKNOWLEDGE | flags;
        let start = message(
            &mut self.octets,
            SUBSYSTEM << 8 | kind,
            flags,
            self.family,
            0,
        );
        attributes(&mut self.octets);
        let length = u32::try_from(self.octets.len() - start).unwrap_or(u32::MAX);
        self.octets[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.wanted += 1;
    }

    fn finish(mut self) -> (Vec<u8>, u32) {
        message(&mut self.octets, BATCH_END, REQUEST, Family::ANY, SUBSYSTEM);
        (self.octets, self.wanted)
    }
}

/// One step of a rule; the first that does not hold ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// The packet came in by the interface of this index.
    Interface(u32),
    /// The frame carries IPv4 (needed in [`Family::NETDEV`]).
    Ipv4,
    /// It carries TCP, and its TCP header is there: of a fragmented packet, only in the first.
    Tcp,
    /// It is for this address.
    Destination(Ipv4Addr),
    /// It comes from this port.
    SourcePort(u16),
    /// It is for a port from the first to the last of these.
    DestinationPorts(u16, u16),
    /// Of its TCP flags within the mask, just these are set.
    Flags(u8, u8),
    /// It belongs to a connection of this machine (or to a server that listens on that very
    /// address; the kernel cannot tell these apart here).
    ConnectedSocket,
    /// It belongs to a connection, in TIME_WAIT too, or to a server that listens for it.
    AnySocket,
    /// On to another chain.
    Jump(&'static str),
    /// The packet may pass.
    Accept,
    /// The packet is gone.
    Drop,
}

impl Expression {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Interface(index) => {
                load_meta(out, META_INTERFACE);
                compare(out, &index.to_ne_bytes());
            }
            Self::Ipv4 => {
                load_meta(out, META_ETHER_TYPE);
                compare(out, &ethernet::TYPE_IPV4.to_be_bytes());
            }
            Self::Tcp => {
                load_meta(out, META_PROTOCOL);
                compare(out, &[ipv4::PROTOCOL_TCP]);
            }
            Self::Destination(address) => {
                load(out, NETWORK_HEADER, &ipv4::field::DESTINATION);
                compare(out, &address.octets());
            }
            Self::SourcePort(port) => {
                load(out, TRANSPORT_HEADER, &tcp::field::SOURCE_PORT);
                compare(out, &port.to_be_bytes());
            }
            Self::DestinationPorts(first, last) => {
                load(out, TRANSPORT_HEADER, &tcp::field::DESTINATION_PORT);
                element(out, "range", |out| {
                    number(out, RANGE_REGISTER, REGISTER);
                    number(out, RANGE_OPERATION, EQUAL);
                    nest(out, RANGE_FROM, |out| value(out, &first.to_be_bytes()));
                    nest(out, RANGE_TO, |out| value(out, &last.to_be_bytes()));
                });
            }
            Self::Flags(mask, flags) => {
                load(
                    out,
                    TRANSPORT_HEADER,
                    &(tcp::field::FLAGS..tcp::field::FLAGS + 1),
                );
                element(out, "bitwise", |out| {
                    number(out, BITWISE_SOURCE, REGISTER);
                    number(out, BITWISE_REGISTER, REGISTER);
                    number(out, BITWISE_LENGTH, 1);
                    nest(out, BITWISE_MASK, |out| value(out, &[*mask]));
                    nest(out, BITWISE_XOR, |out| value(out, &[0]));
                });
                compare(out, &[*flags]);
            }
            // A socket that is connected has a local address; TIME_WAIT ends the rule.
            Self::ConnectedSocket => {
                load_socket(out, SOCKET_WILDCARD);
                compare(out, &[0]);
            }
            // What it loads does not matter: without a socket it loads nothing and ends the rule.
            Self::AnySocket => load_socket(out, SOCKET_TRANSPARENT),
            Self::Jump(chain) => verdict(out, JUMP, Some(chain)),
            Self::Accept => verdict(out, ACCEPT, None),
            Self::Drop => verdict(out, DROP, None),
        }
    }
}

fn load_meta(out: &mut Vec<u8>, key: u32) {
    element(out, "meta", |out| {
        number(out, META_KEY, key);
        number(out, META_REGISTER, REGISTER);
    });
}

fn load_socket(out: &mut Vec<u8>, key: u32) {
    element(out, "socket", |out| {
        number(out, SOCKET_KEY, key);
        number(out, SOCKET_REGISTER, REGISTER);
    });
}

fn load(out: &mut Vec<u8>, header: u32, field: &std::ops::Range<usize>) {
    // Offsets within headers are below 40.
    let short = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    element(out, "payload", |out| {
        number(out, PAYLOAD_REGISTER, REGISTER);
        number(out, PAYLOAD_BASE, header);
        number(out, PAYLOAD_OFFSET, short(field.start));
        number(out, PAYLOAD_LENGTH, short(field.len()));
    });
}

fn compare(out: &mut Vec<u8>, octets: &[u8]) {
    element(out, "cmp", |out| {
        number(out, COMPARE_REGISTER, REGISTER);
        number(out, COMPARE_OPERATION, EQUAL);
        nest(out, COMPARE_DATA, |out| value(out, octets));
    });
}

fn verdict(out: &mut Vec<u8>, code: i32, chain: Option<&str>) {
    element(out, "immediate", |out| {
        number(out, IMMEDIATE_REGISTER, VERDICT_REGISTER);
        nest(out, IMMEDIATE_DATA, |out| {
            nest(out, DATA_VERDICT, |out| {
                attribute(out, VERDICT_CODE, &code.to_be_bytes());
                if let Some(chain) = chain {
                    text(out, VERDICT_CHAIN, chain);
                }
            });
        });
    });
}

/// An expression within a rule's list.
fn element(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    nest(out, LIST_ELEMENT, |out| {
        text(out, EXPRESSION_NAME, name);
        nest(out, EXPRESSION_DATA, data);
    });
}

fn value(out: &mut Vec<u8>, octets: &[u8]) {
    attribute(out, DATA_VALUE, octets);
}

fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_be_bytes());
}

fn text(out: &mut Vec<u8>, kind: u16, text: &str) {
    nest_raw(out, kind, |out| {
        out.extend(text.as_bytes());
        out.push(0);
    });
}

fn attribute(out: &mut Vec<u8>, kind: u16, octets: &[u8]) {
    nest_raw(out, kind, |out| out.extend(octets));
}

fn nest(out: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    nest_raw(out, kind | NESTED, inner);
}

/// An attribute: its length and kind in the machine's order, what is inside, and padding.
fn nest_raw(out: &mut Vec<u8>, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0, 0]);
    out.extend(kind.to_ne_bytes());
    inner(out);
    // Names and rules here are some hundred octets at the most.
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A message of nothing but its headers; its attributes may follow. Returns where it starts.
fn message(out: &mut Vec<u8>, kind: u16, flags: u16, family: Family, resource: u16) -> usize {
    let start = out.len();
    out.extend(HEADERS_LENGTH.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]); // sequence, port: one transaction at a time
    out.extend([family.0, 0]);
    out.extend(resource.to_be_bytes());
    start
}

/// The messages in what the kernel sent.
struct Messages<'a>(&'a [u8]);

/// A message's type, and what follows its netlink header.
struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = self.0.first_chunk().map(|l| u32::from_ne_bytes(*l))?;
        let length = usize::try_from(length).ok()?;
        // Shorter than its own header it leads nowhere: `body` below ends the walk.
        let whole = self.0.get(..length)?;
        let kind = whole.get(4..6)?.try_into().map(u16::from_ne_bytes).ok()?;
        let body = whole.get(NETLINK_HEADER..)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { kind, body })
    }
}

impl Message<'_> {
    /// The error number of an acknowledgement: 0 is success.
    fn error(&self) -> Option<i32> {
        if self.kind != ERROR {
            return None;
        }
        let code = self
            .body
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code));
        // An answer cut short is no success.
        Some(code.map_or(libc::EBADMSG, i32::wrapping_neg))
    }

    fn table(&self) -> Option<Table> {
        let (mut name, mut flags) = (None, 0);
        let family = Family(*self.body.first()?);
        let mut rest = self.body.get(NETFILTER_HEADER..)?;
        while let Some([a, b, c, d]) = rest.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([*a, *b]));
            let inside = rest.get(4..length)?;
            match u16::from_ne_bytes([*c, *d]) & !NESTED {
                TABLE_NAME => {
                    let text = inside.strip_suffix(&[0]).unwrap_or(inside);
                    name = Some(String::from_utf8_lossy(text).into_owned());
                }
                TABLE_FLAGS => flags = u32::from_be_bytes(inside.try_into().ok()?),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Some(Table {
            family,
            name: name?,
            owned: flags & TABLE_OWNER != 0,
        })
    }
}

// Netlink (linux/netlink.h, linux/netfilter/nfnetlink.h).
const NETLINK_HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
const HEADERS_LENGTH: u32 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

// nf_tables (linux/netfilter/nf_tables.h).
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_OWNER: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const INGRESS: u32 = 0;
const PRE_ROUTING: u32 = 0;
const PRIORITY_RAW: i32 = -300;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const META_REGISTER: u16 = 1;
const META_KEY: u16 = 2;
const META_ETHER_TYPE: u32 = 1;
const META_INTERFACE: u32 = 4;
const META_PROTOCOL: u32 = 16;
const PAYLOAD_REGISTER: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const COMPARE_REGISTER: u16 = 1;
const COMPARE_OPERATION: u16 = 2;
const COMPARE_DATA: u16 = 3;
const EQUAL: u32 = 0;
const RANGE_REGISTER: u16 = 1;
const RANGE_OPERATION: u16 = 2;
const RANGE_FROM: u16 = 3;
const RANGE_TO: u16 = 4;
const SOCKET_KEY: u16 = 1;
const SOCKET_REGISTER: u16 = 2;
const SOCKET_TRANSPARENT: u32 = 0;
const SOCKET_WILDCARD: u32 = 2;
const BITWISE_SOURCE: u16 = 1;
const BITWISE_REGISTER: u16 = 2;
const BITWISE_LENGTH: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_whole_messages_with_whole_attributes() {
        let mut batch = Batch::new(Family::IPV4);
        batch.add_table("t", true);
        batch.add_chain("t", "c");
        batch.add_rule(
            "t",
            "c",
            &[
                Expression::Interface(7),
                Expression::Tcp,
                Expression::Destination(Ipv4Addr::new(198, 18, 0, 2)),
                Expression::SourcePort(25),
                Expression::DestinationPorts(16_384, 32_767),
                Expression::Flags(0x12, 0x12),
                Expression::ConnectedSocket,
                Expression::AnySocket,
                Expression::Drop,
            ],
        );
        let (octets, wanted) = batch.finish();
        assert_eq!(wanted, 3);
        let kinds: Vec<u16> = Messages(&octets).map(|message| message.kind).collect();
        assert_eq!(kinds, [16, 0x0a00, 0x0a03, 0x0a06, 17]);
        let parsed: usize = Messages(&octets).map(|m| m.body.len() + 16).sum();
        assert_eq!(parsed, octets.len());
        let table = Messages(&octets).nth(1).and_then(|message| message.table());
        let expected = Table {
            family: Family::IPV4,
            name: "t".to_owned(),
            owned: true,
        };
        assert_eq!(table, Some(expected));
    }

    #[test]
    fn what_the_kernel_says_is_read_whatever_its_length() {
        let mut error = Vec::new();
        message(&mut error, ERROR, 0, Family::ANY, 0);
        error[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        let read = |octets: &[u8]| Messages(octets).next().and_then(|m| m.error());
        assert_eq!(read(&error), Some(1));
        for length in 0..error.len() {
            assert_eq!(read(&error[..length]), None);
        }
        error.truncate(16);
        error[..4].copy_from_slice(&16u32.to_ne_bytes());
        assert_eq!(read(&error), Some(libc::EBADMSG));
        assert!(
            Messages(&[0; 64]).next().is_none(),
            "no endless empty message"
        );
    }
}
