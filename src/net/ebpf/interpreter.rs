//! Runs eBPF programs for tests, without a kernel: as much of the instruction set as
//! [`Assembler`](super::Assembler) emits. Memory is three regions at made-up addresses; whatever
//! touches anything else panics, as the kernel's verifier would refuse it.

use super::Helper;

/// Where the map's element begins.
const MAP_AT: u64 = 0x1_0000_0000;
/// Where the context begins.
const CONTEXT_AT: u64 = 0x2_0000_0000;
/// Where the frame begins: below 4 GiB, since an XDP context holds addresses as 32-bit words.
const FRAME_AT: u64 = 0x3000_0000;

/// What a program sees.
pub(in crate::net) struct Machine {
    /// The element of the map.
    pub(in crate::net) map: Vec<u8>,
    /// The frame (XDP).
    pub(in crate::net) frame: Vec<u8>,
    /// The CPU that programs believe to run on.
    pub(in crate::net) cpu: u64,
    /// The interface of the last redirect.
    pub(in crate::net) redirected: Option<u64>,
    context: Vec<u8>,
}

impl Machine {
    pub(in crate::net) fn new(map_len: usize, frame: Vec<u8>) -> Self {
        Self {
            map: vec![0; map_len],
            frame,
            cpu: 0,
            redirected: None,
            context: Vec::new(),
        }
    }

    /// Runs an XDP program on the frame.
    pub(in crate::net) fn xdp(&mut self, code: &[u64]) -> u64 {
        let begin = u32::try_from(FRAME_AT).unwrap();
        let end = begin + u32::try_from(self.frame.len()).unwrap();
        self.context = [begin.to_ne_bytes(), end.to_ne_bytes()].concat();
        self.redirected = None;
        self.run(code)
    }

    /// Runs a tracepoint program with these arguments.
    pub(in crate::net) fn tracepoint(&mut self, code: &[u64], arguments: &[u64]) {
        self.context = arguments.iter().flat_map(|a| a.to_ne_bytes()).collect();
        self.run(code);
    }

    /// A word of the map.
    pub(in crate::net) fn word(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.map[offset..offset + 8].try_into().unwrap())
    }

    /// Sets a word of the map.
    pub(in crate::net) fn set_word(&mut self, offset: usize, value: u64) {
        self.map[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn run(&mut self, code: &[u64]) -> u64 {
        let mut reg = [0xdead_dead_dead_dead_u64; 11];
        reg[1] = CONTEXT_AT;
        let mut at = 0;
        for _ in 0..100_000 {
            let [op, registers, o0, o1, i0, i1, i2, i3] = code[at].to_ne_bytes();
            let (dst, src) = (usize::from(registers & 15), usize::from(registers >> 4));
            let offset = i64::from(i16::from_ne_bytes([o0, o1]));
            let imm = i64::from(i32::from_ne_bytes([i0, i1, i2, i3])).cast_unsigned();
            at += 1;
            let operand = if op & 0x08 == 0 { imm } else { reg[src] };
            let octets = [4, 2, 1, 8][usize::from(op >> 3 & 3)];
            match op {
                0x18 => {
                    assert_eq!(src, 2, "only map values are loaded whole");
                    reg[dst] = MAP_AT + (code[at] >> 32);
                    at += 1;
                }
                0x07 | 0x0f => reg[dst] = reg[dst].wrapping_add(operand),
                0x17 | 0x1f => reg[dst] = reg[dst].wrapping_sub(operand),
                0x57 | 0x5f => reg[dst] &= operand,
                0x67 | 0x6f => reg[dst] <<= operand,
                0xb7 | 0xbf => reg[dst] = operand,
                0xdb => {
                    assert_eq!(imm, 1, "fetch and add only");
                    let address = reg[dst].wrapping_add_signed(offset);
                    let before = self.load(address, 8);
                    self.store(address, 8, before.wrapping_add(reg[src]));
                    reg[src] = before;
                }
                _ if op & 0x67 == 0x61 => {
                    reg[dst] = self.load(reg[src].wrapping_add_signed(offset), octets);
                }
                _ if op & 0x67 == 0x62 => {
                    self.store(reg[dst].wrapping_add_signed(offset), octets, imm);
                }
                _ if op & 0x67 == 0x63 => {
                    self.store(reg[dst].wrapping_add_signed(offset), octets, reg[src]);
                }
                0x85 => {
                    reg[0] = self.help(imm, reg[1]);
                    reg[1..6].fill(0xdead_dead_dead_dead);
                }
                0x95 => return reg[0],
                0x05 => at = at.wrapping_add_signed(isize::try_from(offset).unwrap()),
                0x15 | 0x1d | 0x25 | 0x2d | 0x55 | 0x5d => {
                    let holds = match op & 0xf0 {
                        0x10 => reg[dst] == operand,
                        0x20 => reg[dst] > operand,
                        _ => reg[dst] != operand,
                    };
                    if holds {
                        at = at.wrapping_add_signed(isize::try_from(offset).unwrap());
                    }
                }
                _ => panic!("operation {op:#04x} at {}", at - 1),
            }
        }
        panic!("the program does not end");
    }

    fn help(&mut self, number: u64, first: u64) -> u64 {
        if number == Helper::SmpProcessorId as u64 {
            return self.cpu;
        }
        assert_eq!(number, Helper::Redirect as u64);
        self.redirected = Some(first);
        4
    }

    fn memory(&mut self, address: u64, octets: usize) -> &mut [u8] {
        let (region, begin) = match address {
            CONTEXT_AT.. => (&mut self.context, CONTEXT_AT),
            MAP_AT.. => (&mut self.map, MAP_AT),
            _ => (&mut self.frame, FRAME_AT),
        };
        let at = usize::try_from(address - begin).unwrap();
        &mut region[at..at + octets]
    }

    fn load(&mut self, address: u64, octets: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..octets].copy_from_slice(self.memory(address, octets));
        u64::from_le_bytes(bytes)
    }

    fn store(&mut self, address: u64, octets: usize, value: u64) {
        let bytes = value.to_le_bytes();
        self.memory(address, octets)
            .copy_from_slice(&bytes[..octets]);
    }
}
