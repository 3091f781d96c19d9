//! The kernel's share of the classifier: a classic BPF program that lets through only what may
//! answer the sweep.
//!
//! It passes unfragmented IPv4 to our address that is TCP from the probed port to our source
//! ports with SYN and ACK, or with RST; or ICMP of an error type. All else costs no copy and no
//! wake-up. It proves nothing: the cookie is checked by [`crate::probe::Classifier`].
//!
//! Assembled by hand: some thirty instructions with named jumps (linux/filter.h,
//! Documentation/networking/filter.rst). A load beyond the frame ends the program and drops it.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use socket2::SockFilter;

use crate::wire::tcp::Flags;
use crate::wire::{ethernet, icmp, ipv4, tcp};

/// One instruction, as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

impl From<Instruction> for SockFilter {
    fn from(instruction: Instruction) -> Self {
        let Instruction {
            code,
            if_true,
            if_false,
            operand,
        } = instruction;
        Self::new(code, if_true, if_false, operand)
    }
}

/// What the filter lets through.
#[derive(Debug, Clone)]
pub(super) struct Interest {
    /// Octets of link header before IP: 14 or 0.
    pub(super) link_len: u32,
    /// Our address.
    pub(super) saddr: Ipv4Addr,
    /// Our source ports.
    pub(super) sports: RangeInclusive<u16>,
    /// The probed port.
    pub(super) dport: u16,
}

impl Interest {
    /// The program.
    pub(super) fn program(&self) -> Vec<Instruction> {
        const NOT_WHOLE: u32 = 0x3fff;
        let ip = self.link_len;
        let mut code = Assembler::default();
        if self.link_len > 0 {
            code.load_half(12);
            code.jump(EQUAL, u32::from(ethernet::TYPE_IPV4), To::Next, To::Reject);
        } else {
            code.load_octet(0);
            code.and(0xf0);
            code.jump(EQUAL, 0x40, To::Next, To::Reject);
        }
        code.load_word(ip + offset(ipv4::field::DESTINATION.start));
        code.jump(EQUAL, self.saddr.to_bits(), To::Next, To::Reject);
        code.load_half(ip + offset(ipv4::field::FLAGS_OFFSET.start));
        code.jump(ANY_BIT, NOT_WHOLE, To::Reject, To::Next);
        code.load_header_len(ip);
        code.load_octet(ip + offset(ipv4::field::PROTOCOL));
        code.jump(EQUAL, u32::from(ipv4::PROTOCOL_TCP), To::Tcp, To::Next);
        code.jump(EQUAL, u32::from(ipv4::PROTOCOL_ICMP), To::Next, To::Reject);

        code.load_octet_behind(ip);
        for kind in icmp::ERROR_TYPES {
            code.jump(EQUAL, u32::from(kind), To::Accept, To::Next);
        }
        code.give(REJECT);

        code.mark_tcp();
        code.load_half_behind(ip + offset(tcp::field::SOURCE_PORT.start));
        code.jump(EQUAL, u32::from(self.dport), To::Next, To::Reject);
        code.load_half_behind(ip + offset(tcp::field::DESTINATION_PORT.start));
        code.jump(
            AT_LEAST,
            u32::from(*self.sports.start()),
            To::Next,
            To::Reject,
        );
        code.jump(ABOVE, u32::from(*self.sports.end()), To::Reject, To::Next);
        code.load_octet_behind(ip + offset(tcp::field::FLAGS));
        code.jump(ANY_BIT, u32::from(Flags::RST.0), To::Accept, To::Next);
        code.and(u32::from(Flags::SYN_ACK.0));
        code.jump(EQUAL, u32::from(Flags::SYN_ACK.0), To::Accept, To::Reject);
        code.finish()
    }
}

/// Offsets within headers are below 40.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_OCTET: u16 = 0x30;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_OCTET_INDEXED: u16 = 0x50;
const LOAD_X_HEADER_LEN: u16 = 0xb1;
const AND: u16 = 0x54;
const EQUAL: u16 = 0x15;
const ABOVE: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Octets of an accepted frame to keep: all of them.
const ACCEPT: u32 = 0x4_0000;
const REJECT: u32 = 0;

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    Tcp,
    Accept,
    Reject,
}

/// Collects instructions; jumps are resolved at the end.
#[derive(Default)]
struct Assembler {
    code: Vec<(Instruction, To, To)>,
    tcp: usize,
}

impl Assembler {
    fn push(&mut self, code: u16, operand: u32) {
        let instruction = Instruction {
            code,
            if_true: 0,
            if_false: 0,
            operand,
        };
        self.code.push((instruction, To::Next, To::Next));
    }

    /// A := four octets at `at`.
    fn load_word(&mut self, at: u32) {
        self.push(LOAD_WORD, at);
    }

    /// A := two octets at `at`.
    fn load_half(&mut self, at: u32) {
        self.push(LOAD_HALF, at);
    }

    /// A := the octet at `at`.
    fn load_octet(&mut self, at: u32) {
        self.push(LOAD_OCTET, at);
    }

    /// X := the length of the IP header at `at`.
    fn load_header_len(&mut self, at: u32) {
        self.push(LOAD_X_HEADER_LEN, at);
    }

    /// A := two octets at X + `at`.
    fn load_half_behind(&mut self, at: u32) {
        self.push(LOAD_HALF_INDEXED, at);
    }

    /// A := the octet at X + `at`.
    fn load_octet_behind(&mut self, at: u32) {
        self.push(LOAD_OCTET_INDEXED, at);
    }

    fn and(&mut self, mask: u32) {
        self.push(AND, mask);
    }

    fn give(&mut self, value: u32) {
        self.push(RETURN, value);
    }

    fn jump(&mut self, test: u16, operand: u32, then: To, otherwise: To) {
        let instruction = Instruction {
            code: test,
            if_true: 0,
            if_false: 0,
            operand,
        };
        self.code.push((instruction, then, otherwise));
    }

    /// The next instruction is where jumps to [`To::Tcp`] lead.
    fn mark_tcp(&mut self) {
        self.tcp = self.code.len();
    }

    /// Appends the two ends and resolves the jumps.
    fn finish(mut self) -> Vec<Instruction> {
        let accept = self.code.len();
        self.give(ACCEPT);
        self.give(REJECT);
        let (tcp, code) = (self.tcp, self.code);
        let resolve = |at: usize, to: To| {
            let destination = match to {
                To::Next => at + 1,
                To::Tcp => tcp,
                To::Accept => accept,
                To::Reject => accept + 1,
            };
            // The program is some thirty instructions long and all jumps lead forward.
            u8::try_from(destination - at - 1).expect("a jump within the program")
        };
        code.iter()
            .enumerate()
            .map(|(at, (instruction, then, otherwise))| Instruction {
                if_true: resolve(at, *then),
                if_false: resolve(at, *otherwise),
                ..*instruction
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
