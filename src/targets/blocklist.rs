//! The addresses that no frame may leave for.
//!
//! The default list is the file `blocklist.conf` of the repository, compiled in: a program that
//! had to find it at run time would one day run without it. User lists add to it; only an explicit
//! choice ([`Blocklist::empty`]) starts without it.

use std::io::BufRead;
use std::net::Ipv4Addr;

use super::RangeSet;
use super::list::{self, ListError};

/// The text of the compiled-in list, for whoever wants to print it.
const BUILTIN: &str = include_str!("../../blocklist.conf");

/// The set of blocked addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocklist {
    ranges: RangeSet,
    /// Where the ranges come from: `None` is the compiled-in list, else the file's name.
    sources: Vec<(Option<String>, RangeSet)>,
}

impl Blocklist {
    /// Every special-purpose range of the IANA registry, and multicast.
    pub fn builtin() -> Self {
        let ranges = list::parse_list(BUILTIN.as_bytes(), "blocklist.conf").expect(
            "the compiled-in blocklist.conf parses: a test of this module holds it to that",
        );
        Self {
            sources: vec![(None, ranges.clone())],
            ranges,
        }
    }

    /// A list that blocks nothing: only for those who asked for it, as for a test network in a
    /// reserved range.
    pub fn empty() -> Self {
        Self {
            ranges: RangeSet::default(),
            sources: Vec::new(),
        }
    }

    /// Blocks the addresses of a list too; `name` is what the user calls it.
    ///
    /// # Errors
    /// The first line that is no entry, or a failed read. Nothing of the list is then taken.
    pub fn add(&mut self, reader: impl BufRead, name: &str) -> Result<(), ListError> {
        let ranges = list::parse_list(reader, name)?;
        self.ranges = self.ranges.union(&ranges);
        self.sources.push((Some(name.to_owned()), ranges));
        Ok(())
    }

    /// Why an address is blocked: the compiled-in entry with its comment, or the list's name;
    /// `None` if it is not blocked.
    pub fn reason(&self, address: Ipv4Addr) -> Option<String> {
        let bits = address.to_bits();
        let (name, _) = self
            .sources
            .iter()
            .find(|(_, ranges)| ranges.contains(bits))?;
        match name {
            Some(name) => Some(format!("listed in {name}")),
            None => BUILTIN.lines().find_map(|line| {
                let (entry, comment) = line.split_once('#')?;
                let (first, last) = list::parse_entry(entry.trim()).ok()?;
                (first..=last)
                    .contains(&bits)
                    .then(|| format!("{}, {}", entry.trim(), comment.trim()))
            }),
        }
    }

    /// The blocked addresses.
    pub fn ranges(&self) -> &RangeSet {
        &self.ranges
    }

    /// SHA-256 of the blocked set (see [`RangeSet::digest`]), for the record of a run.
    pub fn digest(&self) -> [u8; 32] {
        self.ranges.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::list::parse_entry;

    fn blocks(list: &Blocklist, entry: &str) -> bool {
        let (first, last) = parse_entry(entry).unwrap();
        let wanted = RangeSet::from_ranges([(first, last)]);
        wanted.subtract(list.ranges()).is_empty()
    }

    #[test]
    fn the_builtin_list_blocks_every_special_purpose_range() {
        let list = Blocklist::builtin();
        for entry in [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "255.255.255.255",
        ] {
            assert!(blocks(&list, entry), "{entry} is not blocked");
        }
    }

    #[test]
    fn the_builtin_list_blocks_nothing_else() {
        let list = Blocklist::builtin();
        // The sum of the disjoint top-level ranges above, counted by hand: four /8-sized special
        // ranges are 0, 10, 127 and 2 × 16 for 224/4 and 240/4.
        let eights = 3 + 32;
        let expected =
            eights * (1 << 24) + (1 << 22) + (1 << 20) + 2 * (1 << 16) + (1 << 17) + 8 * (1 << 8);
        assert_eq!(list.ranges().len(), expected);
        for entry in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "223.255.255.255",
        ] {
            assert!(!blocks(&list, entry), "{entry} is blocked");
        }
    }

    #[test]
    fn every_builtin_entry_names_its_rfc() {
        let entries: Vec<&str> = BUILTIN
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
            .collect();
        assert_eq!(entries.len(), 27);
        for line in entries {
            let (entry, comment) = line.split_once('#').unwrap();
            assert!(entry.contains('/'), "zmap's format wants a CIDR: {line}");
            assert!(comment.starts_with(" RFC "), "{line}");
        }
    }

    #[test]
    fn added_ranges_are_blocked_too_and_change_the_digest() {
        let mut list = Blocklist::builtin();
        let before = list.digest();
        assert!(!blocks(&list, "8.8.8.0/24"));
        list.add("8.8.8.0/24 # asked us\n".as_bytes(), "optouts.txt")
            .unwrap();
        assert!(blocks(&list, "8.8.8.0/24") && blocks(&list, "10.0.0.0/8"));
        assert_ne!(list.digest(), before);
        assert!(Blocklist::empty().ranges().is_empty());
    }

    #[test]
    fn a_blocked_address_has_a_reason() {
        let mut list = Blocklist::builtin();
        list.add("8.8.8.0/24\n".as_bytes(), "optouts.txt").unwrap();
        let reason = |text: &str| list.reason(text.parse().unwrap());
        assert_eq!(reason("8.8.8.8").as_deref(), Some("listed in optouts.txt"));
        assert_eq!(
            reason("192.168.1.1").as_deref(),
            Some("192.168.0.0/16, RFC 1918: private use")
        );
        assert_eq!(reason("9.9.9.9"), None);
    }

    #[test]
    fn a_list_with_a_bad_line_adds_nothing() {
        let mut list = Blocklist::empty();
        let error = list
            .add("8.8.8.0/24\n8.8.8.0/33\n".as_bytes(), "optouts.txt")
            .unwrap_err();
        assert!(
            error.to_string().starts_with("optouts.txt, line 2: "),
            "{error}"
        );
        assert!(list.ranges().is_empty());
    }
}
