//! Tests of the list parser.

use std::io::{BufReader, Read};
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn pairs(text: impl AsRef<[u8]>) -> Vec<(String, String)> {
    let set = parse_list(text.as_ref(), "t").unwrap();
    let show = |a: u32| Ipv4Addr::from(a).to_string();
    set.iter()
        .map(|(first, last)| (show(first), show(last)))
        .collect()
}

fn reason(text: impl AsRef<[u8]>) -> EntryError {
    match parse_list(text.as_ref(), "t") {
        Err(ListError::Line { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_form_of_entry_is_taken() {
    let list = "\u{feff}192.0.2.7\r\n\
        \t 198.51.100.77/24  # host bits are ignored\n\
        \n\
        # a comment\n\
        \r\n\
        203.0.113.5-203.0.113.80#no space\n\
        203.0.114.5 - 203.0.114.6\n\
        0.0.0.0/32\n\
        255.255.255.255";
    let expected = [
        ("0.0.0.0", "0.0.0.0"),
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.5", "203.0.113.80"),
        ("203.0.114.5", "203.0.114.6"),
        ("255.255.255.255", "255.255.255.255"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    assert_eq!(pairs(list), expected);
}

#[test]
fn prefix_lengths_reach_both_ends() {
    assert_eq!(parse_entry("1.2.3.4/0"), Ok((0, u32::MAX)));
    assert_eq!(parse_entry("1.2.3.4/32"), Ok((0x0102_0304, 0x0102_0304)));
    assert_eq!(parse_entry("1.2.3.4/31"), Ok((0x0102_0304, 0x0102_0305)));
    assert_eq!(parse_entry("128.0.0.0/1"), Ok((1 << 31, u32::MAX)));
}

#[test]
fn empty_lists_are_empty_sets() {
    for list in ["", "\n", "\r\n\r\n", "# nothing\n", "   \t \n#"] {
        assert!(pairs(list).is_empty(), "{list:?}");
    }
}

#[test]
fn each_bad_line_has_its_reason() {
    use EntryError::{
        HostName, Ipv6, LeadingZero, NotAnAddress, NotUtf8, PartAbove255, PrefixLength, Reversed,
        TooLong,
    };
    let cases: &[(&[u8], EntryError)] = &[
        (b"2001:db8::1", Ipv6),
        (b"::ffff:192.0.2.1", Ipv6),
        (b"2001:db8::/32", Ipv6),
        (b"mail.example.test", HostName),
        (b"mx-1.example.test", HostName),
        (b"localhost", HostName),
        (b"1.2.3", NotAnAddress),
        (b"1.2.3.4.5", NotAnAddress),
        (b"1.2.3.", NotAnAddress),
        (b"10/8", NotAnAddress),
        (b"1.2.3.4,foo", NotAnAddress),
        (b"1.2.3.4 5.6.7.8", NotAnAddress),
        (b"1.2.3.-4", NotAnAddress),
        (b"1.2.3.4-", NotAnAddress),
        (b"-1.2.3.4", NotAnAddress),
        (b"1.2.3.4\0", NotAnAddress),
        (b"1.2\r.3.4", NotAnAddress),
        (b"010.0.0.1", LeadingZero),
        (b"1.2.3.00", LeadingZero),
        (b"1.2.3.256", PartAbove255),
        (b"99999999999999999999.2.3.4", PartAbove255),
        (b"1.2.3.4/33", PrefixLength),
        (b"1.2.3.4/", PrefixLength),
        (b"1.2.3.4/-1", PrefixLength),
        (b"1.2.3.4/+8", PrefixLength),
        (b"1.2.3.4/008", PrefixLength),
        (b"1.2.3.4/24/8", PrefixLength),
        (b"1.2.3.4/255.255.255.0", PrefixLength),
        (b"1.2.3.4-1.2.3.3", Reversed),
        (b"1.2.3.4\xff", NotUtf8),
        (b"\xff\xfe1\x00.\x00", NotUtf8),
        (&[b'1'; ENTRY_MAX + 1], TooLong),
    ];
    for (line, expected) in cases {
        assert_eq!(reason(line), *expected, "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(parse_entry("  "), Err(EntryError::Empty));
}

#[test]
fn an_error_names_file_line_text_and_reason() {
    let error = parse_list(
        &b"1.2.3.4\n\n# x\n  ma\xffil\x1b[2J 300 \r\n5.6.7.8\n"[..],
        "deny.txt",
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "deny.txt, line 4: \"ma\u{fffd}il\\u{1b}[2J 300\": not text (the bytes are not UTF-8)"
    );
    let long = format!("{}\n", "é".repeat(200));
    let error = parse_list(long.as_bytes(), "t").unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("t, line 1: \"{}…\": longer", "é".repeat(80))),
        "{error}"
    );
}

#[test]
fn comments_may_have_any_length_and_encoding() {
    let mut list = b"1.2.3.4 # caf\xe9 ".to_vec();
    list.resize(100_000, b'x');
    list.extend_from_slice(b"\n1.2.3.6\n");
    assert_eq!(pairs(&list).len(), 2);
    assert_eq!(
        parse_list(BufReader::with_capacity(7, &list[..]), "t")
            .unwrap()
            .len(),
        2
    );
}

/// Yields bytes without end-of-line until `left` is used up, then one newline and an entry.
struct Endless {
    left: u64,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.left.min(out.len() as u64);
        self.left -= n;
        let n = usize::try_from(n).unwrap();
        out[..n].fill(b'7');
        Ok(n)
    }
}

#[test]
fn an_endless_line_is_an_error_and_never_held_in_memory() {
    let reader = BufReader::with_capacity(1 << 16, Endless { left: 1 << 24 });
    let error = parse_list(reader, "t").unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "t, line 1: \"{}…\": longer than any entry can be (256 octets)",
            "7".repeat(80)
        )
    );

    let mut carried = Vec::new();
    for _ in 0..1000 {
        carry(&mut carried, &[b'7'; 1000]);
    }
    assert!(carried.len() > LINE_KEPT && carried.capacity() < 4 * LINE_KEPT);
}

#[test]
fn a_failing_reader_is_reported_with_its_line() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let reader = BufReader::new((&b"1.2.3.4\n5.6."[..]).chain(Failing));
    let error = parse_list(reader, "list").unwrap_err();
    assert_eq!(
        error.to_string(),
        "list, line 2: failed to read: disk on fire"
    );
}

#[test]
fn many_single_addresses_load_in_eight_octets_each() {
    // The small form of the list of ten million: descending and with gaps, so nothing merges.
    let mut list = String::new();
    for i in (0..100_000u32).rev() {
        list.push_str(&Ipv4Addr::from(0x0100_0000 + i * 3).to_string());
        list.push('\n');
    }
    let set = parse_list(list.as_bytes(), "t").unwrap();
    assert_eq!(set.len(), 100_000);
    assert_eq!(set.iter().len(), 100_000);
    assert!(set.contains(0x0100_0003) && !set.contains(0x0100_0004));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse_list(&bytes[..], "t");
    }

    #[test]
    fn near_entries_never_panic_and_agree_with_the_standard_library(text in "[0-9./ #-]{0,24}") {
        let ours = parse_entry(&text);
        if let Ok(std) = text.trim().parse::<Ipv4Addr>() {
            prop_assert_eq!(ours, Ok((u32::from(std), u32::from(std))));
        }
        if let Ok((first, last)) = ours {
            prop_assert!(first <= last);
        }
    }

    #[test]
    fn addresses_survive_the_round_trip(address in any::<u32>(), bits in 0u32..=32) {
        let text = Ipv4Addr::from(address).to_string();
        prop_assert_eq!(parse_entry(&text), Ok((address, address)));
        let (first, last) = parse_entry(&format!("{text}/{bits}")).unwrap();
        prop_assert_eq!(u64::from(last - first) + 1, 1u64 << (32 - bits));
        prop_assert!(first <= address && address <= last);
    }

    #[test]
    fn the_result_does_not_depend_on_how_input_is_cut(
        lines in prop::collection::vec("(([0-9]{1,3}\\.){3}[0-9]{1,3}(/[0-9]{1,2})?)? {0,700}(#.{0,700})?\r?", 0..6),
        capacity in 1usize..700,
    ) {
        let text = lines.join("\n");
        let whole = parse_list(text.as_bytes(), "t").map_err(|e| e.to_string());
        let cut = parse_list(BufReader::with_capacity(capacity, text.as_bytes()), "t").map_err(|e| e.to_string());
        prop_assert_eq!(whole, cut);
    }
}
