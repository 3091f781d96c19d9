//! Greetings without what differs from host to host, so that unknown ones fall into clusters.
//!
//! `220 mx3.example.com ESMTP FooMail 3.2; Thu, 30 Nov 2017 10:15:31 +0100` becomes
//! `220 <host> ESMTP FooMail <n>; <date>`. The reply code stays. Bytes that are no printable text
//! become `.`; the result is at most [`MAX_LENGTH`] characters long.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::view::View;
use crate::smtp::Stage;

/// Characters of a normalised greeting that are kept; enough to tell clusters apart.
const MAX_LENGTH: usize = 200;

/// A date with or without time, an address, or a word with digits in it: in this order, because
/// dates and addresses are made of such words.
pub(super) static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
    let time = r"\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?(?: ?[AP]M\b)?";
    let zone = r"(?: ?[+-]\d{2}:?\d{2}\b| ?(?:UTC|GMT|Z)\b)?(?: ?\([A-Za-z0-9 +:-]{1,40}\))?";
    let month = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}";
    let day = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? )";
    let text = format!(
        r"(?P<date>\b{day}?\d{{1,2}}[ -]{month}[ -]\d{{2,4}}(?:,? {time}{zone})?
        |\b{day}?{month} \d{{1,2}},? (?:{time}{zone},? )?\d{{4}}(?:,? {time}{zone})?
        |\b\d{{4}}[-/]\d\d[-/]\d\d(?:[T ]{time}{zone})?
        |\b\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}} {time}{zone}
        |\b{time}{zone})
        |(?P<ip>\b\d{{1,3}}(?:\.\d{{1,3}}){{3}}\b|\[(?:IPv6:)?[0-9a-f]{{0,4}}:[0-9a-f:.]+\])
        |(?P<word>[A-Za-z0-9_]+(?:\.[0-9]+)*)"
    )
    .replace("\n        ", "");
    RegexBuilder::new(&text)
        .unicode(false)
        .case_insensitive(true)
        .build()
        .expect("a constant expression; the tests of this module run it")
});

/// The greeting with host names, addresses, dates, numbers and identifiers replaced by `<host>`,
/// `<ip>`, `<date>`, `<n>` and `<id>`. The same text for all hosts of one kind, as far as possible.
pub fn normalise_greeting(greeting: &[u8]) -> String {
    normalise(&View::new(Stage::Greeting, greeting))
}

/// The same of any reply.
pub(super) fn normalise(view: &View) -> String {
    let kept = if view.code().is_some() { 3 } else { 0 };
    let (code, text) = view.masked.split_at(kept);
    let replaced = VARIABLE.replace_all(text, |found: &Captures<'_>| {
        if found.name("date").is_some() {
            b"<date>".to_vec()
        } else if found.name("ip").is_some() {
            b"<ip>".to_vec()
        } else {
            word(&found[0])
        }
    });
    let mut normalised = String::from_utf8_lossy(code).into_owned();
    for ch in String::from_utf8_lossy(&replaced)
        .chars()
        .take(MAX_LENGTH - kept)
    {
        normalised.push(match ch {
            '\n' => ' ',
            ch if ch.is_control() || ch == char::REPLACEMENT_CHARACTER => '.',
            ch => ch,
        });
    }
    normalised.truncate(normalised.trim_end().len());
    normalised
}

/// A word: an identifier if it mixes many digits with letters, otherwise its numbers replaced.
fn word(word: &[u8]) -> Vec<u8> {
    let digits = word.iter().filter(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return word.to_vec();
    }
    let letters = word.iter().filter(|b| b.is_ascii_alphabetic()).count();
    if letters > 0 && digits >= 3 && word.len() >= 8 {
        return b"<id>".to_vec();
    }
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        if !word[at].is_ascii_digit() {
            out.push(word[at]);
            at += 1;
            continue;
        }
        out.extend_from_slice(b"<n>");
        // A dotted number is one number: `4.98.2` and `4.99` shall fall together.
        while at < word.len()
            && (word[at].is_ascii_digit()
                || (word[at] == b'.' && word.get(at + 1).is_some_and(u8::is_ascii_digit)))
        {
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> String {
        normalise_greeting(text.as_bytes())
    }

    #[test]
    fn what_differs_from_host_to_host_is_replaced() {
        for (greeting, expected) in [
            ("220 mx.example.test ESMTP\r\n", "220 <host> ESMTP"),
            (
                "220 mx3.a.org ESMTP FooMail 3.2.1 ready",
                "220 <host> ESMTP FooMail <n> ready",
            ),
            (
                "220 a.b.org ESMTP; Thu, 30 Nov 2017 10:15:31 +0100",
                "220 <host> ESMTP; <date>",
            ),
            (
                "220 a.b.org x; Thu, 30 Nov 2017 10:15:31 -0500 (EST)",
                "220 <host> x; <date>",
            ),
            (
                "220 a.b.org x Thu Nov 30 10:15:31 2017",
                "220 <host> x <date>",
            ),
            (
                "220 a.b.org x 2024-02-03T04:05:06Z y",
                "220 <host> x <date> y",
            ),
            (
                "220 a.b.org x ready at 03/01/16 09:28:32",
                "220 <host> x ready at <date>",
            ),
            ("220 [192.0.2.1] ready 192.0.2.77", "220 [<ip>] ready <ip>"),
            (
                "220 a.b.org ESMTP 09678d23bc13369ca0f4a4c15ae7f1d4",
                "220 <host> ESMTP <id>",
            ),
            ("220 a.b.org x mfa-m0214089", "220 <host> x mfa-<id>"),
            ("554 5.7.1 Rejected", "554 <n> Rejected"),
            ("SSH-2.0-OpenSSH_9.7", "SSH-<n>-OpenSSH_<n>"),
            ("", ""),
        ] {
            assert_eq!(normal(greeting), expected, "{greeting}");
        }
    }

    #[test]
    fn hosts_of_one_kind_share_a_cluster() {
        let one =
            normal("220 mx1.example.com ESMTP Foo 3.1 #12 Thu, 1 Feb 2024 01:02:03 +0000\r\n");
        let two = normal(
            "220 mail.a.example.org ESMTP Foo 12.0.4 #7 Sun, 22 Nov 2026 21:42:53 -0800\r\n",
        );
        assert_eq!(one, two);
    }

    #[test]
    fn length_and_characters_are_tame() {
        let wild = normal(&format!("220 \u{7}\u{1b}[31m{}", "x".repeat(5000)));
        assert!(wild.chars().count() <= MAX_LENGTH);
        assert!(!wild.contains(char::is_control));
    }

    proptest! {
        #[test]
        fn no_digit_survives_behind_the_code(text in "[ -~]{0,80}") {
            let normalised = normal(&format!("220 {text}"));
            prop_assert!(!normalised[3..].contains(|c: char| c.is_ascii_digit()), "{}", normalised);
        }

        #[test]
        fn any_bytes_are_normalised(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = normalise_greeting(&bytes);
            prop_assert!(!text.contains(char::is_control));
        }
    }
}
