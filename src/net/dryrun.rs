//! `--dryrun`: prints the SYNs instead of sending them.
//!
//! Each line is read back from the very frame that would leave, so a wrong stamp shows.

use std::io::Write;

use super::{NetError, Transmit};
use crate::probe::Syn;
use crate::targets::Target;
use crate::wire::{ipv4, tcp};

/// A transmit that prints one line per probe:
///
/// ```text
/// tcp { source: 45118 | dest: 25 | seq: 3278703405 | window: 64240 | checksum: 0x5A9B } ip { saddr: 198.18.0.2 | daddr: 10.1.2.3 | ttl: 255 | id: 20989 | checksum: 0x57A6 }
/// ```
pub struct DryRun<W> {
    out: W,
    syn: Syn,
    frame: Vec<u8>,
    printed: u64,
}

impl<W: Write> DryRun<W> {
    /// Prints the SYNs of `syn` to `out`, which should be buffered.
    pub fn new(syn: Syn, out: W) -> Self {
        let mut frame = vec![0; syn.frame_len()];
        syn.prepare(&mut frame);
        Self {
            out,
            syn,
            frame,
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
        for target in targets {
            self.syn.stamp(&mut self.frame, *target);
            let ip = ipv4::Packet::new_unchecked(&self.frame[self.syn.link_len()..]);
            let tcp = tcp::Packet::new_unchecked(ip.payload());
            writeln!(
                self.out,
                "tcp {{ source: {} | dest: {} | seq: {} | window: {} | checksum: {:#06X} }} \
                 ip {{ saddr: {} | daddr: {} | ttl: {} | id: {} | checksum: {:#06X} }}",
                tcp.source_port(),
                tcp.destination_port(),
                tcp.seq(),
                tcp.window(),
                tcp.checksum(),
                ip.source(),
                ip.destination(),
                ip.ttl(),
                ip.ident(),
                ip.checksum(),
            )
            .map_err(NetError::Output)?;
            self.printed += 1;
        }
        Ok(targets.len())
    }

    fn left(&mut self) -> Result<u64, NetError> {
        Ok(self.printed)
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
        let space = Space::new(&RangeSet::from_ranges([(first, first + 99)]), &nothing);
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
