//! What an ICMP error says, in zmap's words (its field `icmp_unreach_str`), so that filters
//! written for its output keep working.
//!
//! Codes of type 3: RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1. Types beside 3
//! have no words in zmap; those here are ours. One word differs from zmap's on purpose: it prints
//! code 14 with a misspelling.

use crate::wire::icmp;

/// The wording for an ICMP error; `"unknown"` for a type or code that is none.
pub fn unreachable_name(icmp_type: u8, icmp_code: u8) -> &'static str {
    match (icmp_type, icmp_code) {
        (icmp::DESTINATION_UNREACHABLE, code) => UNREACHABLE
            .get(usize::from(code))
            .copied()
            .unwrap_or("unknown"),
        (icmp::SOURCE_QUENCH, 0) => "source quench",
        (icmp::REDIRECT, 0) => "redirect for network",
        (icmp::REDIRECT, 1) => "redirect for host",
        (icmp::REDIRECT, 2) => "redirect for TOS and network",
        (icmp::REDIRECT, 3) => "redirect for TOS and host",
        (icmp::TIME_EXCEEDED, 0) => "ttl exceeded in transit",
        (icmp::TIME_EXCEEDED, 1) => "fragment reassembly time exceeded",
        (icmp::PARAMETER_PROBLEM, 0) => "parameter problem",
        (icmp::PARAMETER_PROBLEM, 1) => "required option missing",
        (icmp::PARAMETER_PROBLEM, 2) => "bad length",
        _ => "unknown",
    }
}

const UNREACHABLE: [&str; 16] = [
    "network unreachable",
    "host unreachable",
    "protocol unreachable",
    "port unreachable",
    "fragments required",
    "source route failed",
    "network unknown",
    "host unknown",
    "source host isolated",
    "network admin. prohibited",
    "host admin. prohibited",
    "network unreachable TOS",
    "host unreachable TOS",
    "communication admin. prohibited",
    "host precedence violation",
    "precedence cutoff",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let named: Vec<&str> = (0..=255u8)
            .flat_map(|kind| (0..=255u8).map(move |code| unreachable_name(kind, code)))
            .filter(|name| *name != "unknown")
            .collect();
        assert_eq!(named.len(), 16 + 1 + 4 + 2 + 3);
        assert_eq!(named.iter().collect::<HashSet<_>>().len(), named.len());
        assert_eq!(unreachable_name(3, 13), "communication admin. prohibited");
        assert_eq!(unreachable_name(3, 16), "unknown");
    }
}
