//! Lists of targets and of the blocked, and cursors: the result depends neither on the reader's
//! buffer nor on the order of work, and what is blocked is not in the space.
//!
//! Input: an octet with the size of the reader's buffer, then the text.

#![no_main]

use std::io::BufReader;
use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use smtpsweep::targets::list::{parse_entry, parse_list};
use smtpsweep::targets::{Blocklist, Cursor, RangeSet, Space};

fuzz_target!(|data: &[u8]| {
    let [size, text @ ..] = data else { return };
    let whole = parse_list(text, "fuzz");
    let small = BufReader::with_capacity(usize::from(*size).max(1), text);
    let cut = parse_list(small, "fuzz");
    match (whole, cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(whole, cut);
            listed(text, &whole);
        }
        (Err(whole), Err(cut)) => {
            assert_eq!(whole.to_string(), cut.to_string());
            assert!(whole.to_string().starts_with("fuzz"), "{whole}");
            let mut blocklist = Blocklist::empty();
            assert!(blocklist.add(text, "fuzz").is_err(), "one grammar for both");
        }
        (whole, cut) => panic!("{whole:?} but {cut:?}"),
    }
    if let Ok(text) = str::from_utf8(text) {
        if let Ok((first, last)) = parse_entry(text) {
            assert!(first <= last);
        }
        if let Ok(cursor) = text.parse::<Cursor>() {
            assert_eq!(cursor.to_string(), text.trim(), "the form is canonical");
        }
    }
});

fn listed(text: &[u8], set: &RangeSet) {
    assert_eq!(set.is_empty(), set.len() == 0);
    let mut blocklist = Blocklist::empty();
    blocklist.add(text, "fuzz").expect("one grammar for both");
    assert_eq!(blocklist.ranges(), set);
    let space = Space::new(&RangeSet::everything(), set);
    assert_eq!(space.len() + set.len(), 1 << 32);
    for (first, last) in set.iter().take(4) {
        for address in [first, last].map(Ipv4Addr::from_bits) {
            assert!(blocklist.reason(address).is_some());
            assert!(space.admit(address).is_none(), "{address} is blocked");
        }
    }
    if let Some(target) = space.target(space.len() / 2) {
        assert!(!set.contains(target.bits()));
    }
}
