//! Which autonomous system announces an address: a table of prefixes, longest match first.
//!
//! The format is that of CAIDA's `pfx2as` files: a line has a prefix, its length, and the AS number,
//! between blanks or tabs. Where several ASes announce a prefix (`64496_64497`, `64496,64497`) the first
//! one stands for all. Empty lines and lines that begin with `#` are passed over.
//!
//! The nested prefixes are laid flat into ranges that do not overlap, so that looking one up is a binary
//! search: a million prefixes take 8 MB and some 20 steps.

use std::fmt;
use std::io::{self, BufRead};
use std::net::Ipv4Addr;

use thiserror::Error;

/// A table of prefixes; see the head of this file.
#[derive(Clone, Default)]
pub struct AsTable {
    /// Where a range begins, and the AS from there to the next one; 0 is nobody's.
    ranges: Vec<(u32, u32)>,
}

/// Why a table cannot be read.
#[derive(Debug, Error)]
pub enum AsTableError {
    /// It cannot be read at all.
    #[error("{name}: {error}")]
    Read {
        /// The file.
        name: String,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A line is no entry.
    #[error("{name}, line {line}: {reason}")]
    Line {
        /// The file.
        name: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl AsTable {
    /// Reads a table; `name` is what errors call it.
    ///
    /// # Errors
    /// A line that is no entry, or input that cannot be read.
    pub fn read(mut input: impl BufRead, name: &str) -> Result<Self, AsTableError> {
        let mut prefixes = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let count = io::Read::take(&mut input, MAX_LINE)
                .read_until(b'\n', &mut text)
                .map_err(|error| AsTableError::Read {
                    name: name.to_owned(),
                    error,
                })?;
            if count == 0 {
                break;
            }
            let entry = std::str::from_utf8(&text)
                .map_err(|_| "it is no text")
                .and_then(entry);
            match entry {
                Ok(entry) => prefixes.extend(entry),
                Err(reason) => {
                    let name = name.to_owned();
                    return Err(AsTableError::Line { name, line, reason });
                }
            }
        }
        Ok(Self::flat(prefixes))
    }

    /// The AS that announces the address.
    pub fn of(&self, addr: Ipv4Addr) -> Option<u32> {
        let after = self
            .ranges
            .partition_point(|(begin, _)| *begin <= addr.to_bits());
        let (_, asn) = self.ranges.get(after.checked_sub(1)?)?;
        (*asn != 0).then_some(*asn)
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether no prefix is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Lays nested prefixes flat. Outer ones come first, so whatever is open when another begins
    /// contains it.
    fn flat(mut prefixes: Vec<Prefix>) -> Self {
        prefixes.sort_by_key(|p| (p.first, std::cmp::Reverse(p.last)));
        let mut table = Self::default();
        let mut open: Vec<Prefix> = Vec::new();
        for prefix in prefixes {
            table.close(&mut open, prefix.first);
            table.begin(prefix.first, prefix.asn);
            open.push(prefix);
        }
        table.close(&mut open, u32::MAX);
        table
    }

    /// Ends the open prefixes that lie before `next`.
    fn close(&mut self, open: &mut Vec<Prefix>, next: u32) {
        while let Some(ended) = open.pop_if(|p| p.last < next) {
            self.begin(ended.last + 1, open.last().map_or(0, |outer| outer.asn));
        }
    }

    fn begin(&mut self, at: u32, asn: u32) {
        match self.ranges.last_mut() {
            Some(last) if last.0 == at => last.1 = asn,
            Some(last) if last.1 == asn => {}
            _ => self.ranges.push((at, asn)),
        }
    }
}

impl fmt::Debug for AsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsTable({} ranges)", self.ranges.len())
    }
}

#[derive(Debug, Clone, Copy)]
struct Prefix {
    first: u32,
    last: u32,
    asn: u32,
}

/// The entry of a line, if it has one.
fn entry(line: &str) -> Result<Option<Prefix>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [address, length, origin] = words[..] else {
        return Err("not a prefix, its length and an AS number");
    };
    let address: Ipv4Addr = address
        .parse()
        .map_err(|_| "the prefix is no IPv4 address")?;
    let length: u32 = length
        .parse()
        .ok()
        .filter(|length| *length <= 32)
        .ok_or("the length is not 0 to 32")?;
    let origin = origin.split(['_', ',']).next().unwrap_or(origin);
    let asn: u32 = origin
        .parse()
        .ok()
        .filter(|asn| *asn > 0)
        .ok_or("the AS number is none")?;
    let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
    let first = address.to_bits();
    if first & hosts != 0 {
        return Err("the address has bits beyond its prefix's length");
    }
    let last = first | hosts;
    Ok(Some(Prefix { first, last, asn }))
}

/// Octets of a line at the most; a longer one is no entry.
const MAX_LINE: u64 = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str) -> Result<AsTable, AsTableError> {
        AsTable::read(text.as_bytes(), "table")
    }

    #[test]
    fn the_longest_prefix_counts() {
        let table = table(
            "# a comment\n10.0.0.0\t8\t1\n10.1.0.0 16 2_7\n10.1.2.0 24 3,8\n\n255.0.0.0 8 9\n",
        )
        .expect("a table");
        for (addr, asn) in [
            ([9, 255, 255, 255], None),
            ([10, 0, 0, 0], Some(1)),
            ([10, 1, 0, 0], Some(2)),
            ([10, 1, 2, 255], Some(3)),
            ([10, 1, 3, 0], Some(2)),
            ([10, 2, 0, 0], Some(1)),
            ([11, 0, 0, 0], None),
            ([255, 255, 255, 255], Some(9)),
        ] {
            assert_eq!(table.of(addr.into()), asn, "{addr:?}");
        }
        assert_eq!(AsTable::default().of(Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, reason) in [
            ("10.0.0.0 8\n", "line 1: not a prefix"),
            ("\n10.0.0 8 1\n", "line 2: the prefix"),
            ("10.0.0.0 33 1\n", "the length"),
            ("10.0.0.0 8 x\n", "the AS number"),
            ("10.0.0.0 8 0\n", "the AS number"),
            ("10.0.0.1 8 1\n", "bits beyond"),
            ("\u{fffd}\n", "not a prefix"),
        ] {
            let error = table(text).expect_err(text).to_string();
            assert!(
                error.starts_with("table, ") && error.contains(reason),
                "{error}"
            );
        }
        assert!(AsTable::read(&b"\xff\n"[..], "table").is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_search(
            prefixes in prop::collection::vec((0_u32..64, 26_u32..=32, 1_u32..5), 0..20),
            at in 0_u32..80,
        ) {
            let mut text = String::new();
            let mut naive: Option<(u32, u32)> = None;
            for (at_least, length, asn) in prefixes {
                let first = at_least & !(u32::MAX.checked_shr(length).unwrap_or(0));
                // Two origins of one prefix would leave it open which counts.
                let asn = asn + 10 * first + 1000 * length;
                text.push_str(&format!("{} {length} {asn}\n", Ipv4Addr::from_bits(first)));
                let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
                if (first..=last).contains(&at) && naive.is_none_or(|(best, _)| best <= length) {
                    naive = Some((length, asn));
                }
            }
            // Of equal prefixes the last line may win or not: make them equal.
            let expected = naive.map(|(length, asn)| (length, asn / 1000));
            let found = table(&text).expect("a table").of(Ipv4Addr::from_bits(at));
            prop_assert_eq!(found.map(|asn| asn / 1000), expected.map(|(_, asn)| asn));
        }
    }
}
