//! The system behind an address, guessed from its SYN-ACK: nothing is sent for it.
//!
//! Systems differ in the initial time to live, in the window they open with and in the options they
//! answer with (p0f's method; the table here is our own and small: the families that can be told
//! apart by what a survey keeps). A guess is coarse on purpose, and the answer of whatever stands in
//! front: a load balancer, a firewall's SYN proxy.
//!
//! A TCP timestamp once told the uptime. Linux has started it at a random value for each connection
//! since 4.10 (2017), FreeBSD since 12, Windows sends none unless asked; there it means nothing and
//! the uptime is unknown. Only a Linux that opens with a window of the years before is old enough;
//! its clock ran at 100, 250 or 1000 Hz, so its uptime is a range.

/// What a SYN-ACK shows of the system that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynAck {
    /// Time to live on arrival.
    pub ttl: u8,
    /// The window, unscaled.
    pub window: u16,
    /// The maximum segment size, if it was sent.
    pub mss: Option<u16>,
    /// The window scale, if it was sent: only to those who offer one.
    pub wscale: Option<u8>,
    /// Whether selective acknowledgements were permitted: only to those who offer them.
    pub sack_perm: bool,
    /// The timestamp, if it was sent: only to those who send one.
    pub ts_val: Option<u32>,
}

/// The time to live that a packet started with: the next of the values in use.
fn initial_ttl(ttl: u8) -> u8 {
    match ttl {
        0..=32 => 32,
        33..=64 => 64,
        65..=128 => 128,
        129..=255 => 255,
    }
}

impl SynAck {
    /// The system, if it can be told.
    pub fn system(&self) -> Option<&'static str> {
        let segments = self
            .mss
            .filter(|&mss| mss > 0 && self.window.is_multiple_of(mss));
        let multiple = segments.map(|mss| self.window / mss);
        match (initial_ttl(self.ttl), self.window) {
            // 2.6: four segments; 3.0 to 4.18: ten, and the timestamp option's 12 octets aside.
            (64, 5_792 | 5_840 | 5_760) => Some("Linux 2.6"),
            (64, 14_480 | 14_600) => Some("Linux 2.6.39–3.x"),
            (64, 28_960 | 29_200) => Some("Linux 3.x–4.18"),
            (64, 65_160 | 64_240 | 43_440 | 43_690) => Some("Linux 4.19 or later"),
            (64, 16_384) => Some("OpenBSD"),
            (64, 65_535) if self.wscale == Some(6) || self.wscale == Some(5) => {
                Some("FreeBSD or macOS")
            }
            (64, 32_768) => Some("NetBSD"),
            (64, _) if matches!(multiple, Some(4 | 10 | 20)) && self.wscale.is_some() => {
                Some("Linux")
            }
            (128, 8_192) => Some("Windows 7–Server 2012 R2"),
            (128, 65_535 | 64_240 | 65_160) if self.wscale == Some(8) => {
                Some("Windows 10 or Server 2016 or later")
            }
            (128, 16_384 | 64_240 | 64_512 | 65_535) if self.wscale.is_none_or(|s| s == 0) => {
                Some("Windows 2000–Server 2003")
            }
            (128, _) => Some("Windows"),
            (255, 32_806 | 33_304 | 49_640 | 64_074 | 24_820) => Some("Solaris"),
            (255, 4_128) => Some("Cisco IOS"),
            _ => None,
        }
    }

    /// Days since the system started, at least and at most; nothing where the timestamp tells nothing.
    pub fn uptime_days(&self) -> Option<(f64, f64)> {
        /// Ticks a second of the fastest and of the slowest clock.
        const CLOCKS: (f64, f64) = (1000.0, 100.0);
        const DAY: f64 = 86_400.0;
        let ticks = f64::from(self.ts_val.filter(|&value| value > 0)?);
        matches!(self.system(), Some("Linux 2.6" | "Linux 2.6.39–3.x"))
            .then(|| (ticks / CLOCKS.0 / DAY, ticks / CLOCKS.1 / DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn answer(ttl: u8, window: u16, mss: u16, wscale: Option<u8>) -> SynAck {
        SynAck {
            ttl,
            window,
            mss: Some(mss),
            wscale,
            sack_perm: wscale.is_some(),
            ts_val: None,
        }
    }

    #[test]
    fn systems_are_told_apart() {
        for (seen, system) in [
            (
                answer(52, 65_160, 1460, Some(7)),
                Some("Linux 4.19 or later"),
            ),
            (
                answer(64, 64_240, 1460, Some(7)),
                Some("Linux 4.19 or later"),
            ),
            (answer(49, 28_960, 1460, Some(7)), Some("Linux 3.x–4.18")),
            (answer(44, 5_792, 1460, Some(2)), Some("Linux 2.6")),
            (answer(57, 65_535, 1460, Some(6)), Some("FreeBSD or macOS")),
            (answer(55, 16_384, 1460, Some(6)), Some("OpenBSD")),
            (
                answer(113, 8_192, 1460, Some(8)),
                Some("Windows 7–Server 2012 R2"),
            ),
            (
                answer(113, 65_535, 1460, Some(8)),
                Some("Windows 10 or Server 2016 or later"),
            ),
            (
                answer(113, 16_384, 1460, Some(0)),
                Some("Windows 2000–Server 2003"),
            ),
            (answer(243, 4_128, 536, None), Some("Cisco IOS")),
            (answer(30, 1, 1460, None), None),
            (answer(250, 8_190, 1460, None), None),
        ] {
            assert_eq!(seen.system(), system, "{seen:?}");
        }
    }

    #[test]
    fn every_answer_has_a_guess_or_none() {
        for ttl in [0, 1, 64, 128, 255] {
            for window in (0..=65_535).step_by(7) {
                for mss in [0, 1, 536, 1460] {
                    let _ = answer(ttl, window, mss, Some(7)).system();
                }
            }
        }
    }

    #[test]
    fn uptime_is_told_only_where_the_clock_is_not_random() {
        let dated = |window, ts_val| SynAck {
            ts_val,
            ..answer(60, window, 1460, Some(7))
        };
        // Ten days at 1000 Hz.
        let (least, most) = dated(14_480, Some(864_000_000))
            .uptime_days()
            .expect("old enough");
        assert!((least - 10.0).abs() < 0.01 && (most - 100.0).abs() < 0.01);
        assert_eq!(dated(65_160, Some(864_000_000)).uptime_days(), None);
        assert_eq!(dated(14_480, None).uptime_days(), None);
        assert_eq!(dated(14_480, Some(0)).uptime_days(), None);
    }
}
