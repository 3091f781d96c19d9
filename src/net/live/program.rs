//! The programs: one that turns a frame into a probe, and two that watch what becomes of it.
//!
//! **The stamp** is an XDP program. Each time it runs it takes the next slot of the ring, writes
//! the whole frame (constants are immediates; recycled frames keep what the receiver did to them)
//! and redirects it to the interface. With nothing to send it lets the frame drop.
//!
//! **The watchers** run at two tracepoints of the kernel, and make accounting exact: `bpf_redirect`
//! only queues a frame, and the kernel hands up to 16 at a time to the driver, which may take
//! fewer.
//!
//! - `xdp_devmap_xmit` tells how many of such a bulk the driver took; it takes the first ones.
//!   The others are written to the log, for user space to send them again.
//! - `xdp_redirect_err` tells that a frame was not even queued (interface down or gone, no
//!   `ndo_xdp_xmit`). The slot is put back and the stamp stops.
//!
//! How they know their own bulks: the sending thread is pinned, and from the first frame of a bulk
//! to its hand-over the kernel keeps other work off that CPU (`local_bh_disable` in
//! `xdp_test_run_batch`, net/bpf/test_run.c). So whatever bulk passes *on that CPU* while probes
//! are queued (`TAIL` ahead of `DONE`) is ours, and none else is. Were the thread moved all the
//! same, the stamp would stop before it queues the first frame there.

use super::layout::{
    DONE, FAILED, FENCE, HEAD, IDLE, LOG_LEN, LOGGED, PAUSE, RING_LEN, SEEN, TAIL, log_at, octet,
    slot_at,
};
use crate::net::ebpf::{Alu, AsmError, Assembler, Cond, Helper, Reg, Size};
use crate::probe::{Patch, Syn};
use crate::wire::{ethernet, ipv4};

/// What the programs are made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The map's descriptor.
    pub(super) map: i32,
    /// The CPU that the sending thread is pinned to.
    pub(super) cpu: u32,
    /// The interface to send from.
    pub(super) interface: u32,
}

/// The frame that is stamped: prepared, filled up to the shortest that Ethernet carries.
#[derive(Debug, Clone)]
pub(super) struct Template {
    frame: Vec<u8>,
}

/// What differs from probe to probe: offset in the frame (Ethernet, IPv4, TCP), offset in the slot,
/// size. The slot holds the octets as they go into the frame.
const FIELDS: [(usize, usize, Size); 6] = {
    const IP: usize = ethernet::HEADER_LEN;
    const TCP: usize = IP + ipv4::HEADER_LEN;
    [
        (IP + 16, 0, Size::Word),   // destination
        (TCP + 4, 4, Size::Word),   // sequence number
        (TCP, 8, Size::Half),       // source port
        (IP + 4, 10, Size::Half),   // identification
        (IP + 10, 12, Size::Half),  // checksum of the header
        (TCP + 16, 14, Size::Half), // checksum of the segment
    ]
};

/// A frame on an Ethernet has 60 octets at least (the checksum apart). Not every driver fills up
/// what XDP hands it.
const SHORTEST: usize = 60;

impl Template {
    /// The template of `syn`, whose link header must be Ethernet's.
    pub(super) fn new(syn: &Syn) -> Self {
        let mut frame = vec![0; syn.frame_len().max(SHORTEST)];
        syn.prepare(&mut frame);
        Self { frame }
    }

    /// The frame, to be given to a test run.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The constant words (4 octets and the rest) that the stamp writes: those that hold more than
    /// fields. Offset, size, value.
    fn constants(&self) -> Vec<(usize, Size, i32)> {
        let field = |at: usize| {
            let covers = |(begin, _, size): &(usize, usize, Size)| {
                (*begin..begin + size.octets()).contains(&at)
            };
            FIELDS.iter().any(covers)
        };
        let mut constants = Vec::new();
        let mut at = 0;
        while at < self.frame.len() {
            let size = match self.frame.len() - at {
                4.. => Size::Word,
                2.. => Size::Half,
                _ => Size::Byte,
            };
            let piece = &self.frame[at..at + size.octets()];
            if !(at..at + piece.len()).all(field) {
                let value = match piece {
                    [a, b, c, d] => i32::from_ne_bytes([*a, *b, *c, *d]),
                    [a, b] => i32::from(i16::from_ne_bytes([*a, *b])),
                    _ => i32::from(piece[0]),
                };
                constants.push((at, size, value));
            }
            at += size.octets();
        }
        constants
    }
}

/// The slot of a probe: what [`FIELDS`] says of it, in two words.
pub(super) fn slot_of(patch: Patch) -> [u64; 2] {
    let [ip, ports, seq, sum] = patch.words().map(u64::from_be_bytes);
    let low = |word: u64| word & 0xffff;
    let addressed = ports >> 32 << 32 | seq >> 32;
    let rest = low(ports >> 16) << 48 | ip >> 48 << 32 | low(ip) << 16 | low(sum >> 16);
    [addressed.to_be(), rest.to_be()]
}

/// The XDP program.
pub(super) fn stamp(place: Place, template: &Template) -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::default();
    let (have, go, paused, stray, idle) = (
        asm.label(),
        asm.label(),
        asm.label(),
        asm.label(),
        asm.label(),
    );
    asm.mov(Reg::R6, Reg::R1);
    asm.map_value(Reg::R7, place.map, 0);
    asm.load(Size::Double, Reg::R8, Reg::R7, at(TAIL));
    asm.load(Size::Double, Reg::R1, Reg::R7, at(SEEN));
    asm.jump_if(Reg::R8, Cond::Unequal, Reg::R1, have);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(HEAD));
    asm.jump_if(Reg::R8, Cond::Equal, Reg::R1, idle);
    asm.store(Size::Double, Reg::R7, at(SEEN), Reg::R1);
    // Acquire: the slots are read after HEAD. An atomic operation that returns a value orders
    // everything (Documentation/atomic_t.txt, "fully ordered"; so do eBPF's, RFC 9669 section 5.3
    // as the kernel's compilers implement it).
    asm.mov(Reg::R1, 0);
    asm.fetch_add(Reg::R7, at(FENCE), Reg::R1);

    asm.place(have);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(PAUSE));
    asm.jump_if(Reg::R1, Cond::Unequal, 0, paused);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(DONE));
    asm.jump_if(Reg::R8, Cond::Unequal, Reg::R1, go);
    // The first frame of a bulk: are we where the watchers look?
    asm.call(Helper::SmpProcessorId);
    asm.jump_if(Reg::R0, Cond::Unequal, place.cpu.cast_signed(), stray);

    asm.place(go);
    asm.load(Size::Word, Reg::R2, Reg::R6, 0);
    asm.load(Size::Word, Reg::R3, Reg::R6, 4);
    asm.mov(Reg::R4, Reg::R2);
    let frame_len = offset(template.frame.len());
    asm.alu(Alu::Add, Reg::R4, i32::from(frame_len));
    asm.jump_if(Reg::R4, Cond::Above, Reg::R3, idle);
    element(&mut asm, place, octet(slot_at(0)), Reg::R8, RING_LEN);
    for (place, size, value) in template.constants() {
        asm.store_imm(size, Reg::R2, offset(place), value);
    }
    for (to, from, size) in FIELDS {
        asm.load(size, Reg::R1, Reg::R9, offset(from));
        asm.store(size, Reg::R2, offset(to), Reg::R1);
    }
    asm.alu(Alu::Add, Reg::R8, 1);
    asm.store(Size::Double, Reg::R7, at(TAIL), Reg::R8);
    asm.mov(Reg::R1, place.interface.cast_signed());
    asm.mov(Reg::R2, 0);
    asm.call(Helper::Redirect);
    asm.exit();

    asm.place(paused);
    asm.load(Size::Double, Reg::R2, Reg::R7, at(FAILED));
    asm.jump_if(Reg::R2, Cond::Unequal, 0, idle);
    asm.alu(Alu::Sub, Reg::R1, 1);
    asm.store(Size::Double, Reg::R7, at(PAUSE), Reg::R1);
    asm.jump(idle);

    asm.place(stray);
    asm.mov(Reg::R1, -libc::EXDEV);
    fail(&mut asm, Reg::R1);

    asm.place(idle);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(IDLE));
    asm.alu(Alu::Add, Reg::R1, 1);
    asm.store(Size::Double, Reg::R7, at(IDLE), Reg::R1);
    asm.mov(Reg::R0, XDP_DROP);
    asm.exit();
    asm.finish()
}

/// The watcher of bulks, for the tracepoint `xdp_devmap_xmit`, whose arguments are from, to, sent,
/// dropped, error.
pub(super) fn watch_bulks(place: Place) -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::default();
    let (counted, logged, out) = (asm.label(), asm.label(), asm.label());
    ours_or(&mut asm, place, out);
    asm.load(Size::Double, Reg::R3, Reg::R6, 2 * 8);
    asm.alu(Alu::And, Reg::R3, BULK_MASK);
    asm.load(Size::Double, Reg::R4, Reg::R6, 3 * 8);
    asm.alu(Alu::And, Reg::R4, BULK_MASK);
    asm.jump_if(Reg::R4, Cond::Equal, 0, counted);
    asm.load(Size::Double, Reg::R8, Reg::R7, at(LOGGED));
    element(&mut asm, place, octet(log_at(0)), Reg::R8, LOG_LEN);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(DONE));
    asm.alu(Alu::Add, Reg::R1, Reg::R3);
    asm.store(Size::Double, Reg::R9, 0, Reg::R1);
    asm.load(Size::Double, Reg::R1, Reg::R6, 4 * 8);
    asm.mov(Reg::R2, Reg::R1);
    asm.alu(Alu::Shl, Reg::R2, 32);
    asm.mov(Reg::R0, Reg::R2);
    asm.alu(Alu::Add, Reg::R0, Reg::R4);
    asm.store(Size::Double, Reg::R9, 8, Reg::R0);
    // The driver gets a moment to drain its queue; after an error, for good.
    asm.store_imm(Size::Double, Reg::R7, at(PAUSE), PAUSE_FRAMES);
    asm.jump_if(Reg::R2, Cond::Equal, 0, logged);
    fail(&mut asm, Reg::R1);
    asm.place(logged);
    // Release (see above): the entry is written before it counts.
    asm.mov(Reg::R1, 1);
    asm.fetch_add(Reg::R7, at(LOGGED), Reg::R1);

    asm.place(counted);
    // Release: slots were read, and the log written, before user space sees that we are done.
    asm.alu(Alu::Add, Reg::R3, Reg::R4);
    asm.fetch_add(Reg::R7, at(DONE), Reg::R3);
    asm.place(out);
    asm.mov(Reg::R0, 0);
    asm.exit();
    asm.finish()
}

/// The watcher of refusals, for the tracepoint `xdp_redirect_err`, whose fourth argument is the
/// error.
pub(super) fn watch_refusals(place: Place) -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::default();
    let out = asm.label();
    ours_or(&mut asm, place, out);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(TAIL));
    asm.alu(Alu::Sub, Reg::R1, 1);
    asm.store(Size::Double, Reg::R7, at(TAIL), Reg::R1);
    asm.load(Size::Double, Reg::R1, Reg::R6, 3 * 8);
    fail(&mut asm, Reg::R1);
    asm.place(out);
    asm.mov(Reg::R0, 0);
    asm.exit();
    asm.finish()
}

/// An XDP program that lets every frame drop: for trying whether test runs work here, and for
/// benches, as the far end of a link.
pub(super) fn discard() -> Result<Vec<u64>, AsmError> {
    let mut asm = Assembler::default();
    asm.mov(Reg::R0, XDP_DROP);
    asm.exit();
    asm.finish()
}

/// How a watcher begins: context to R6, map to R7; goes to `out` if the event is none of ours.
fn ours_or(asm: &mut Assembler, place: Place, out: crate::net::ebpf::Label) {
    asm.mov(Reg::R6, Reg::R1);
    // First, since it costs nothing: other senders' events must not touch our cache line.
    asm.call(Helper::SmpProcessorId);
    asm.jump_if(Reg::R0, Cond::Unequal, place.cpu.cast_signed(), out);
    asm.map_value(Reg::R7, place.map, 0);
    asm.load(Size::Double, Reg::R1, Reg::R7, at(DONE));
    asm.load(Size::Double, Reg::R2, Reg::R7, at(TAIL));
    asm.jump_if(Reg::R1, Cond::Equal, Reg::R2, out);
}

/// Stops the stamp for good, for the error code in the low half of `code`.
fn fail(asm: &mut Assembler, code: Reg) {
    asm.alu(Alu::Shl, code, 32);
    asm.store(Size::Double, Reg::R7, at(FAILED), code);
    asm.store_imm(Size::Double, Reg::R7, at(PAUSE), 1);
}

/// R9 = the address of entry `index` (of 16 octets) in the ring of `len` that begins at octet
/// `begin` of the map. R0 is lost.
fn element(asm: &mut Assembler, place: Place, begin: i32, index: Reg, len: u64) {
    asm.mov(Reg::R0, index);
    asm.alu(Alu::And, Reg::R0, mask(len));
    asm.alu(Alu::Shl, Reg::R0, 4);
    asm.map_value(Reg::R9, place.map, begin);
    asm.alu(Alu::Add, Reg::R9, Reg::R0);
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "lengths of rings are below 2^31"
)]
const fn mask(len: u64) -> i32 {
    (len - 1) as i32
}

/// Where a word of the programs' state is, from the map's first octet.
fn at(word: usize) -> i16 {
    offset(word * 8)
}

/// An offset in a frame, a slot or the programs' state: all below 256.
fn offset(octets: usize) -> i16 {
    i16::try_from(octets).unwrap_or(i16::MAX)
}

const XDP_DROP: i32 = 1;
/// A bulk has 16 frames (`DEV_MAP_BULK_SIZE` in the kernel's kernel/bpf/devmap.c). More could never
/// be, and the tracepoint's words hold nothing above 32 bits.
const BULK_MASK: i32 = 0xffff;
/// Frames let pass after the driver's queue was full: a NAPI poll handles as many.
const PAUSE_FRAMES: i32 = 64;
