//! `--dryrun`: the SYNs are made as ever, but printed, or just dropped, instead of sent.
//!
//! Each printed line is read back from the very frame that would leave, so a wrong stamp shows.

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;

use super::{NetError, Transmit};
use crate::probe::Syn;
use crate::targets::Target;
use crate::wire::{ipv4, tcp};

/// Frames that are stamped at once.
const BATCH: usize = 256;

/// Prepared frames in a row.
struct Frames {
    syn: Syn,
    octets: Vec<u8>,
}

impl Frames {
    fn new(syn: Syn) -> Self {
        let mut octets = vec![0; syn.frame_len() * BATCH];
        for frame in octets.chunks_mut(syn.frame_len()) {
            syn.prepare(frame);
        }
        Self { syn, octets }
    }

    /// The SYNs for at most [`BATCH`] targets.
    fn stamped(&mut self, targets: &[Target]) -> &[u8] {
        let len = self.syn.frame_len();
        self.syn.stamp_batch(&mut self.octets, len, targets);
        &self.octets[..len * targets.len()]
    }
}

/// A transmit that prints one line per probe:
///
/// ```text
/// tcp { source: 45118 | dest: 25 | seq: 3278703405 | window: 64240 | checksum: 0x5A9B } ip { saddr: 198.18.0.2 | daddr: 10.1.2.3 | ttl: 255 | id: 20989 | checksum: 0x57A6 }
/// ```
pub struct DryRun<W> {
    out: W,
    frames: Frames,
    lines: Vec<u8>,
    printed: u64,
}

impl<W: Write> DryRun<W> {
    /// Prints the SYNs of `syn` to `out`, with a write for every 256 of them at most.
    pub fn new(syn: Syn, out: W) -> Self {
        Self {
            out,
            frames: Frames::new(syn),
            lines: Vec::new(),
            printed: 0,
        }
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// [`NetError::Output`] when the flush fails.
    pub fn finish(mut self) -> Result<W, NetError> {
        self.out.flush().map_err(NetError::Output)?;
        Ok(self.out)
    }
}

impl<W: Write + Send> Transmit for DryRun<W> {
    /// Prints a line per target. On an error the lines before it may have been printed.
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError> {
        let (link_len, len) = (self.frames.syn.link_len(), self.frames.syn.frame_len());
        for targets in targets.chunks(BATCH) {
            self.lines.clear();
            for frame in self.frames.stamped(targets).chunks(len) {
                print(&mut self.lines, &frame[link_len..]);
            }
            self.out.write_all(&self.lines).map_err(NetError::Output)?;
            self.printed += targets.len() as u64;
        }
        Ok(targets.len())
    }

    fn left(&mut self) -> Result<u64, NetError> {
        Ok(self.printed)
    }
}

/// Appends the line of a packet of ours. By hand: the standard formatting takes ten times as long,
/// and a dry run of the Internet has 3.7 billion lines.
fn print(line: &mut Vec<u8>, packet: &[u8]) {
    let ip = ipv4::Packet::new_unchecked(packet);
    let tcp = tcp::Packet::new_unchecked(ip.payload());
    line.extend_from_slice(b"tcp { source: ");
    decimal(line, tcp.source_port().into());
    line.extend_from_slice(b" | dest: ");
    decimal(line, tcp.destination_port().into());
    line.extend_from_slice(b" | seq: ");
    decimal(line, tcp.seq());
    line.extend_from_slice(b" | window: ");
    decimal(line, tcp.window().into());
    line.extend_from_slice(b" | checksum: ");
    hexadecimal(line, tcp.checksum());
    line.extend_from_slice(b" } ip { saddr: ");
    dotted(line, ip.source());
    line.extend_from_slice(b" | daddr: ");
    dotted(line, ip.destination());
    line.extend_from_slice(b" | ttl: ");
    decimal(line, ip.ttl().into());
    line.extend_from_slice(b" | id: ");
    decimal(line, ip.ident().into());
    line.extend_from_slice(b" | checksum: ");
    hexadecimal(line, ip.checksum());
    line.extend_from_slice(b" }\n");
}

/// Appends a number in decimal.
fn decimal(line: &mut Vec<u8>, number: u32) {
    let (mut digits, mut rest) = ([b'0'; 10], number);
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] += (rest % 10).to_le_bytes()[0];
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// Appends a number as `0x` and four digits.
fn hexadecimal(line: &mut Vec<u8>, number: u16) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |shift: u32| DIGITS[usize::from(number >> shift & 0xf)];
    line.extend_from_slice(&[b'0', b'x', digit(12), digit(8), digit(4), digit(0)]);
}

/// Appends an address.
fn dotted(line: &mut Vec<u8>, address: Ipv4Addr) {
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            line.push(b'.');
        }
        decimal(line, octet.into());
    }
}

/// A transmit that makes every frame, checksums and all, and drops it: how fast frames are made,
/// with nothing that prints or sends in the way.
pub struct Discard {
    frames: Frames,
    made: u64,
}

impl Discard {
    /// Makes and drops the SYNs of `syn`.
    pub fn new(syn: Syn) -> Self {
        Self {
            frames: Frames::new(syn),
            made: 0,
        }
    }
}

impl Transmit for Discard {
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError> {
        for targets in targets.chunks(BATCH) {
            // The compiler has to think that somebody reads them.
            black_box(self.frames.stamped(targets));
            self.made += targets.len() as u64;
        }
        Ok(targets.len())
    }

    fn left(&mut self) -> Result<u64, NetError> {
        Ok(self.made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{CookieKey, Cookies, SynLayout};
    use crate::targets::{RangeSet, Space};
    use std::net::Ipv4Addr;

    fn syn() -> Syn {
        let cookies = Cookies::new(CookieKey::derive(7, &[7; 16]), 40_000..=49_999, 25);
        Syn::new(
            &[0; 14],
            Ipv4Addr::new(198, 18, 0, 2),
            255,
            SynLayout::Linux,
            cookies,
        )
    }

    fn targets(first: u32, count: u64) -> Vec<Target> {
        let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
        let space = Space::new(&RangeSet::from_ranges([(first, first + 999)]), &nothing);
        (0..count).map(|at| space.target(at).unwrap()).collect()
    }

    #[test]
    fn one_line_per_probe() {
        let mut run = DryRun::new(syn(), Vec::new());
        assert_eq!(run.send(&targets(0x0a01_0203, 3)).unwrap(), 3);
        let text = String::from_utf8(run.finish().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // The numbers are those of the golden frame in `probe::syn`.
        assert_eq!(
            lines[0],
            "tcp { source: 45118 | dest: 25 | seq: 3278703405 | window: 64240 | \
             checksum: 0x5A9B } ip { saddr: 198.18.0.2 | daddr: 10.1.2.3 | ttl: 255 | id: 20989 | \
             checksum: 0x57A6 }"
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains("daddr: 10.1.2.5 "));
    }

    #[test]
    fn a_dry_run_of_any_length_prints_what_the_standard_library_would() {
        let all = targets(0x0a01_0200, 700);
        let mut run = DryRun::new(syn(), Vec::new());
        assert_eq!(run.send(&all).unwrap(), all.len());
        let text = String::from_utf8(run.finish().unwrap()).unwrap();
        let mut frame = vec![0; syn().frame_len()];
        syn().prepare(&mut frame);
        assert_eq!(text.lines().count(), all.len());
        for (line, target) in text.lines().zip(all) {
            syn().stamp(&mut frame, target);
            let ip = ipv4::Packet::new_unchecked(&frame[14..]);
            let tcp = tcp::Packet::new_unchecked(ip.payload());
            let expected = format!(
                "tcp {{ source: {} | dest: 25 | seq: {} | window: 64240 | checksum: {:#06X} }} \
                 ip {{ saddr: 198.18.0.2 | daddr: {} | ttl: 255 | id: {} | checksum: {:#06X} }}",
                tcp.source_port(),
                tcp.seq(),
                tcp.checksum(),
                target.addr(),
                ip.ident(),
                ip.checksum()
            );
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn what_is_discarded_was_made() {
        let all = targets(0x0a01_0200, 700);
        let mut discard = Discard::new(syn());
        assert_eq!(discard.send(&all).unwrap(), all.len());
        assert_eq!(discard.left().unwrap(), 700);
        let mut frame = vec![0; syn().frame_len()];
        syn().prepare(&mut frame);
        // The last batch is the 188 targets after two full ones.
        let made = discard.frames.octets.chunks(frame.len());
        for (made, target) in made.zip(&all[512..]) {
            syn().stamp(&mut frame, *target);
            assert_eq!(made, frame);
        }
    }

    #[test]
    fn numbers_are_written_as_by_the_standard_library() {
        for number in [0, 1, 9, 10, 99, 100, 65_535, 1_000_000_000, u32::MAX] {
            let mut line = Vec::new();
            decimal(&mut line, number);
            assert_eq!(line, number.to_string().into_bytes());
        }
        for number in [0, 9, 0xa0, 0x0f00, u16::MAX] {
            let mut line = Vec::new();
            hexadecimal(&mut line, number);
            assert_eq!(line, format!("{number:#06X}").into_bytes());
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_not_a_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let err = DryRun::new(syn(), Closed).send(&targets(1, 1)).unwrap_err();
        assert!(
            matches!(err, NetError::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
        );
    }
}
