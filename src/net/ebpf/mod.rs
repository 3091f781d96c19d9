//! A small assembler of eBPF, the instruction set that the Linux kernel verifies, compiles and
//! runs (RFC 9669).
//!
//! Why not a compiler: the programs here are some dozens of instructions that depend on the sweep
//! (its frame's octets are immediates), and users should need no toolchain. Why not a crate: what
//! we need of one is below. Nothing here talks to the kernel; [`crate::net::sys`] loads what
//! [`Assembler::finish`] returns. The tests run programs in an interpreter of their own.
//!
//! Registers: `R0` result, `R1`–`R5` arguments (lost in a call), `R6`–`R9` kept, `R10` stack.

#[cfg(test)]
pub(super) mod interpreter;

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
}

/// How much a load or store moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// 1 octet.
    Byte,
    /// 2 octets.
    Half,
    /// 4 octets.
    Word,
    /// 8 octets.
    Double,
}

impl Size {
    /// Octets.
    pub(super) const fn octets(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// Bits 3 and 4 of the operation code.
    const fn code(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

/// The second operand of arithmetic and comparison. Constants are sign-extended to 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    /// A register's value.
    Reg(Reg),
    /// A constant.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Self {
        Self::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(value: i32) -> Self {
        Self::Imm(value)
    }
}

/// 64-bit arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alu {
    /// `dst += src`
    Add = 0x00,
    /// `dst -= src`
    Sub = 0x10,
    /// `dst &= src`
    And = 0x50,
    /// `dst <<= src`
    Shl = 0x60,
    /// `dst = src`
    Mov = 0xb0,
}

/// Comparisons of 64 bits without a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cond {
    /// `dst == src`
    Equal = 0x10,
    /// `dst > src`
    Above = 0x20,
    /// `dst != src`
    Unequal = 0x50,
}

/// A kernel function that programs may call; numbers as in the kernel's uapi/linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Helper {
    /// The number of this CPU.
    SmpProcessorId = 8,
    /// `(interface index, flags)`: send the frame out of there.
    Redirect = 23,
}

/// A place to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Why a program cannot be assembled: a mistake in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AsmError {
    /// A jump leads nowhere.
    #[error("label {0} has no place in the program")]
    Unbound(usize),
    /// A jump is longer than its field.
    #[error("the jump to label {0} is too long")]
    TooFar(usize),
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<u64>,
    /// Where each label stands, as an index into `code`.
    labels: Vec<Option<usize>>,
    /// Jumps to be given their distance: index of the instruction, label.
    jumps: Vec<(usize, usize)>,
}

impl Assembler {
    /// A label to be placed by [`Self::place`].
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Lets `label` stand for the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// Arithmetic: `dst = dst op src`.
    pub(super) fn alu(&mut self, op: Alu, dst: Reg, src: impl Into<Operand>) {
        self.operate(CLASS_ALU64 | op as u8, dst, 0, src.into());
    }

    /// `dst = src`.
    pub(super) fn mov(&mut self, dst: Reg, src: impl Into<Operand>) {
        self.alu(Alu::Mov, dst, src);
    }

    /// `dst = *(src + offset)`, zero-extended.
    pub(super) fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) {
        self.push(
            CLASS_LDX | MODE_MEM | size.code(),
            dst,
            src as u8,
            offset,
            0,
        );
    }

    /// `*(dst + offset) = src`.
    pub(super) fn store(&mut self, size: Size, dst: Reg, offset: i16, src: Reg) {
        self.push(
            CLASS_STX | MODE_MEM | size.code(),
            dst,
            src as u8,
            offset,
            0,
        );
    }

    /// `*(dst + offset) = value`, sign-extended to the size.
    pub(super) fn store_imm(&mut self, size: Size, dst: Reg, offset: i16, value: i32) {
        self.push(CLASS_ST | MODE_MEM | size.code(), dst, 0, offset, value);
    }

    /// `src = fetch_and_add(dst + offset, src)` on 8 octets: a full memory barrier.
    pub(super) fn fetch_add(&mut self, dst: Reg, offset: i16, src: Reg) {
        let code = CLASS_STX | MODE_ATOMIC | Size::Double.code();
        self.push(code, dst, src as u8, offset, ATOMIC_FETCH_ADD);
    }

    /// `dst =` the address of octet `offset` in the only element of the array map `fd`.
    pub(super) fn map_value(&mut self, dst: Reg, fd: i32, offset: i32) {
        self.push(CLASS_LD_IMM64, dst, PSEUDO_MAP_VALUE, 0, fd);
        self.code.push(encode(0, 0, 0, 0, offset));
    }

    /// Goes on at `label`.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label.0));
        self.push(CLASS_JMP, Reg::R0, 0, 0, 0);
    }

    /// Goes on at `label` if `dst cond src`.
    pub(super) fn jump_if(&mut self, dst: Reg, cond: Cond, src: impl Into<Operand>, label: Label) {
        self.jumps.push((self.code.len(), label.0));
        self.operate(CLASS_JMP | cond as u8, dst, 0, src.into());
    }

    /// `R0 = helper(R1, …)`.
    pub(super) fn call(&mut self, helper: Helper) {
        self.push(CLASS_JMP | OP_CALL, Reg::R0, 0, 0, helper as i32);
    }

    /// Ends the program with result `R0`.
    pub(super) fn exit(&mut self) {
        self.push(CLASS_JMP | OP_EXIT, Reg::R0, 0, 0, 0);
    }

    /// The program, one word an instruction in the layout of this machine's kernel.
    pub(super) fn finish(mut self) -> Result<Vec<u64>, AsmError> {
        for (at, label) in self.jumps {
            let to = self.labels[label].ok_or(AsmError::Unbound(label))?;
            // Distances count from the instruction after the jump. No program has 2^63 words.
            let distance = to.wrapping_sub(at + 1).cast_signed();
            let distance = i16::try_from(distance).map_err(|_| AsmError::TooFar(label))?;
            let word = self.code[at].to_ne_bytes();
            let [low, high] = distance.to_ne_bytes();
            let [op, registers, _, _, rest @ ..] = word;
            let [a, b, c, d] = rest;
            self.code[at] = u64::from_ne_bytes([op, registers, low, high, a, b, c, d]);
        }
        Ok(self.code)
    }

    fn operate(&mut self, code: u8, dst: Reg, offset: i16, src: Operand) {
        match src {
            Operand::Reg(reg) => self.push(code | SOURCE_REG, dst, reg as u8, offset, 0),
            Operand::Imm(value) => self.push(code, dst, 0, offset, value),
        }
    }

    fn push(&mut self, code: u8, dst: Reg, src: u8, offset: i16, imm: i32) {
        self.code.push(encode(code, dst as u8, src, offset, imm));
    }
}

/// An instruction as the kernel's `struct bpf_insn` lies in memory: operation, two registers of
/// four bits (the destination in the low ones on little-endian machines), offset, constant.
const fn encode(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") {
        src << 4 | dst
    } else {
        dst << 4 | src
    };
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = imm.to_ne_bytes();
    u64::from_ne_bytes([code, registers, o0, o1, i0, i1, i2, i3])
}

const CLASS_LD_IMM64: u8 = 0x18;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_JMP: u8 = 0x05;
const CLASS_ALU64: u8 = 0x07;
const MODE_MEM: u8 = 0x60;
const MODE_ATOMIC: u8 = 0xc0;
const SOURCE_REG: u8 = 0x08;
const OP_CALL: u8 = 0x80;
const OP_EXIT: u8 = 0x90;
/// `BPF_ADD | BPF_FETCH` in the constant of an atomic operation.
const ATOMIC_FETCH_ADD: i32 = 0x01;
/// In the source register of a 64-bit load: the constant is a map, its second half an offset.
const PSEUDO_MAP_VALUE: u8 = 2;

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn golden_words() {
        // Put together by hand from the tables of RFC 9669; offsets and constants in the upper half.
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.mov(Reg::R6, Reg::R1);
        asm.mov(Reg::R0, 1);
        asm.load(Size::Word, Reg::R2, Reg::R6, 4);
        asm.alu(Alu::And, Reg::R2, -1);
        asm.jump_if(Reg::R2, Cond::Above, Reg::R0, end);
        asm.store(Size::Half, Reg::R6, -2, Reg::R2);
        asm.store_imm(Size::Word, Reg::R6, 8, 0x0102_0304);
        asm.fetch_add(Reg::R7, 16, Reg::R3);
        asm.map_value(Reg::R7, 5, 64);
        asm.call(Helper::Redirect);
        asm.place(end);
        asm.exit();
        let golden = [
            0x0000_0000_0000_16bf,
            0x0000_0001_0000_00b7,
            0x0000_0000_0004_6261,
            0xffff_ffff_0000_0257,
            0x0000_0000_0006_022d,
            0x0000_0000_fffe_266b,
            0x0102_0304_0008_0662,
            0x0000_0001_0010_37db,
            0x0000_0005_0000_2718,
            0x0000_0040_0000_0000,
            0x0000_0017_0000_0085,
            0x0000_0000_0000_0095,
        ];
        assert_eq!(asm.finish().unwrap(), golden);
    }

    #[test]
    fn jumps_lead_backwards_too_and_never_nowhere() {
        let mut asm = Assembler::default();
        let start = asm.label();
        asm.place(start);
        asm.mov(Reg::R0, 0);
        asm.jump(start);
        assert_eq!(asm.finish().unwrap()[1], 0x0000_0000_fffe_0005);

        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert_eq!(asm.finish(), Err(AsmError::Unbound(0)));

        let mut asm = Assembler::default();
        let far = asm.label();
        asm.jump(far);
        for _ in 0..40_000 {
            asm.exit();
        }
        asm.place(far);
        assert_eq!(asm.finish(), Err(AsmError::TooFar(0)));
    }
}
