//! Rates as people write them: packets a second, or bits a second.
//!
//! A bandwidth counts a frame with all the time it takes on an Ethernet wire (IEEE 802.3): itself,
//! padded to 60 octets, its checksum of 4, and 20 octets of preamble, start delimiter and
//! inter-frame gap; so at least 84. K, M and G are decimal, as they are for links.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A rate that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RateError {
    /// Not a number with an optional unit.
    #[error(
        "\"{0}\" is no rate: write a number, with K, M or G for thousands, millions or billions if you like"
    )]
    Malformed(String),
    /// Outside of what can be kept.
    #[error(
        "a rate of {rate} packets/s is outside of {} to {}",
        PacketsPerSecond::MIN,
        PacketsPerSecond::MAX
    )]
    OutOfRange {
        /// The rate that was asked for.
        rate: String,
    },
    /// A bandwidth of nothing, or beyond all links.
    #[error(
        "a bandwidth of {bandwidth} bits/s is outside of 1 to {}",
        Bandwidth::MAX
    )]
    Bandwidth {
        /// The bandwidth that was asked for.
        bandwidth: String,
    },
}

/// A rate in packets a second, from [`PacketsPerSecond::MIN`] to [`PacketsPerSecond::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct PacketsPerSecond(f64);

impl PacketsPerSecond {
    /// The lowest rate: a packet every ten seconds.
    pub const MIN: f64 = 0.1;
    /// The highest rate, beyond what 40 Gbit/s carry.
    pub const MAX: f64 = 100_000_000.0;

    /// A rate of so many packets a second.
    ///
    /// # Errors
    /// If it is no number or out of bounds.
    pub fn new(rate: f64) -> Result<Self, RateError> {
        if (Self::MIN..=Self::MAX).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(RateError::OutOfRange {
                rate: rate.to_string(),
            })
        }
    }

    /// Packets a second.
    pub fn value(self) -> f64 {
        self.0
    }

    /// Thousandths of a packet a second.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded by MIN and MAX: 100 ..= 10^11"
    )]
    pub(super) fn milli(self) -> u64 {
        (self.0 * 1_000.0).round() as u64
    }

    /// How many packets leave at one instant: 1 ms' worth, but 1 ..= 256. A call of the kernel for
    /// 256 packets costs hardly more per packet than one for a thousand.
    pub(super) fn burst(self) -> u64 {
        (self.milli() / 1_000_000).clamp(1, 256)
    }

    /// How many packets a late caller finds waiting: 10 ms' worth, at least one.
    pub(super) fn reserve(self) -> u64 {
        (self.milli() / 100_000).max(1)
    }
}

impl FromStr for PacketsPerSecond {
    type Err = RateError;

    /// `10000`, `10K`, `1.5M`.
    fn from_str(text: &str) -> Result<Self, RateError> {
        Self::new(quantity(text)?)
    }
}

impl fmt::Display for PacketsPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets/s", self.0)
    }
}

/// A bandwidth in bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(u64);

impl Bandwidth {
    /// The highest bandwidth: 1 Tbit/s.
    pub const MAX: u64 = 1_000_000_000_000;

    /// So many bits a second.
    ///
    /// # Errors
    /// If it is 0 or out of bounds.
    pub fn new(bits_per_second: u64) -> Result<Self, RateError> {
        if (1..=Self::MAX).contains(&bits_per_second) {
            Ok(Self(bits_per_second))
        } else {
            Err(RateError::Bandwidth {
                bandwidth: bits_per_second.to_string(),
            })
        }
    }

    /// Bits a second.
    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    /// The rate at which frames of this length, Ethernet header included but not the checksum,
    /// fill the bandwidth.
    ///
    /// # Errors
    /// If that rate is out of bounds.
    pub fn packets_per_second(self, frame_octets: usize) -> Result<PacketsPerSecond, RateError> {
        PacketsPerSecond::new(self.0 as f64 / (wire_octets(frame_octets) as f64 * 8.0))
    }
}

impl FromStr for Bandwidth {
    type Err = RateError;

    /// `10M`, `1G`, `500K`, `1.5G`, `64000`: decimal multiples of bits a second.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let bits = quantity(text)?.round();
        if !(1.0..=Self::MAX as f64).contains(&bits) {
            return Err(RateError::Bandwidth {
                bandwidth: text.trim().to_owned(),
            });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole and within 1 ..= MAX"
        )]
        Self::new(bits as u64)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits/s", self.0)
    }
}

/// The octets for which a frame (Ethernet header included, checksum not) occupies the wire.
pub const fn wire_octets(frame_octets: usize) -> usize {
    const SHORTEST: usize = 60;
    const CHECKSUM: usize = 4;
    const PREAMBLE_AND_GAP: usize = 8 + 12;
    let padded = if frame_octets < SHORTEST {
        SHORTEST
    } else {
        frame_octets
    };
    padded + CHECKSUM + PREAMBLE_AND_GAP
}

/// A decimal number with an optional K, M or G.
fn quantity(text: &str) -> Result<f64, RateError> {
    let malformed = || RateError::Malformed(text.chars().take(40).collect());
    let trimmed = text.trim();
    let unit = match trimmed.bytes().last() {
        Some(b'k' | b'K') => 1e3,
        Some(b'm' | b'M') => 1e6,
        Some(b'g' | b'G') => 1e9,
        _ => 1.0,
    };
    let digits = if unit == 1.0 {
        trimmed
    } else {
        &trimmed[..trimmed.len() - 1]
    };
    // The standard parser takes signs, exponents, "inf" and "nan" as well: no one means those.
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !plain || !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(malformed());
    }
    digits
        .parse::<f64>()
        .map(|number| number * unit)
        .map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(packets_per_second: f64) -> PacketsPerSecond {
        PacketsPerSecond::new(packets_per_second).unwrap()
    }

    #[test]
    fn bandwidth_counts_what_a_frame_takes_on_the_wire() {
        // The line rate of gigabit Ethernet in shortest frames, known to everyone.
        let gigabit: Bandwidth = "1G".parse().unwrap();
        assert_eq!(
            gigabit.packets_per_second(54).unwrap().value().round(),
            1_488_095.0
        );
        assert_eq!(wire_octets(0), 84);
        assert_eq!(wire_octets(60), 84);
        assert_eq!(wire_octets(74), 98);
        assert_eq!(
            gigabit.packets_per_second(74).unwrap().value().round(),
            1_275_510.0
        );
    }

    #[test]
    fn quantities_are_read_as_people_write_them() {
        let bits = |t: &str| t.parse::<Bandwidth>().unwrap().bits_per_second();
        assert_eq!(bits("10M"), 10_000_000);
        assert_eq!(bits("1g"), 1_000_000_000);
        assert_eq!(bits(" 500K "), 500_000);
        assert_eq!(bits("1.5G"), 1_500_000_000);
        assert_eq!(bits("64000"), 64_000);
        assert_eq!("10K".parse::<PacketsPerSecond>().unwrap(), rate(10_000.0));
        assert_eq!("0.5".parse::<PacketsPerSecond>().unwrap(), rate(0.5));
        assert_eq!(rate(2.5).to_string(), "2.5 packets/s");
        assert_eq!(gigabit().to_string(), "1000000000 bits/s");
    }

    fn gigabit() -> Bandwidth {
        Bandwidth::new(1_000_000_000).unwrap()
    }

    #[test]
    fn impossible_quantities_are_refused_with_the_reason() {
        for text in [
            "", "M", "-1", "+1", "1e9", "inf", "nan", "1 M", "1MM", "1T", ".5", "1.2.3", "٣",
        ] {
            assert!(
                matches!(text.parse::<Bandwidth>(), Err(RateError::Malformed(_))),
                "{text:?}"
            );
            assert!(
                matches!(
                    text.parse::<PacketsPerSecond>(),
                    Err(RateError::Malformed(_))
                ),
                "{text:?}"
            );
        }
        for text in ["0", "0.1", "1001G", "99999999999999999999999G"] {
            assert!(
                matches!(text.parse::<Bandwidth>(), Err(RateError::Bandwidth { .. })),
                "{text:?}"
            );
        }
        for text in ["0", "0.01", "1G"] {
            assert!(
                matches!(
                    text.parse::<PacketsPerSecond>(),
                    Err(RateError::OutOfRange { .. })
                ),
                "{text:?}"
            );
        }
        assert_eq!(
            "0".parse::<PacketsPerSecond>().unwrap_err().to_string(),
            "a rate of 0 packets/s is outside of 0.1 to 100000000"
        );
        assert!(
            PacketsPerSecond::new(f64::NAN).is_err()
                && PacketsPerSecond::new(f64::INFINITY).is_err()
        );
        assert!(Bandwidth::new(0).is_err());
        assert!(Bandwidth::new(1).unwrap().packets_per_second(60).is_err());
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<Bandwidth>();
            let _ = text.parse::<PacketsPerSecond>();
        }
    }
}
