//! The form in which patterns see a reply.
//!
//! A view has one code, then the text of every line, joined by `\n`:
//!
//! ```text
//! wire    220-mail.example.com ESMTP Exim 4.98 \r\n220 no bulk  mail\r\n
//! raw     220 mail.example.com ESMTP Exim 4.98\nno bulk mail
//! masked  220 <host> ESMTP Exim 4.98\nno bulk mail
//! ```
//!
//! Runs of blanks become one space, blanks at the end of a line and a final line break go. A line
//! that does not start with a code is kept whole. Code and separator are those of RFC 5321 §4.2.
//!
//! Invariant: no host name survives in the masked form. A host name is a run of letters, digits,
//! `-`, `_` and `.` of at least two labels whose last is alphabetic (`8.12.0.Beta` is a version:
//! several numbers and one word), or the first word of a greeting when `ESMTP` follows it and it is
//! not spelt like a name (`220 mdaemon ESMTP`, but not `220 Microsoft ESMTP`).

use crate::smtp::Stage;

/// What replaces a host name.
pub(super) const HOST: &[u8] = b"<host>";

/// Octets of a reply that are looked at. Real greetings and EHLO replies stay below 1 KiB; a peer
/// that sends more shall not make us work more.
const MAX_REPLY: usize = 2 * 1024;

/// A reply in both forms.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Lines normalised, host names as they were.
    pub(super) raw: Vec<u8>,
    /// Lines normalised, host names replaced.
    pub(super) masked: Vec<u8>,
    /// Where in `raw` the server's own name stands, as far as the text tells.
    host: Option<(usize, usize)>,
}

impl View {
    /// The view of a server's bytes at a stage.
    pub(super) fn new(stage: Stage, reply: &[u8]) -> Self {
        let mut view = Self::default();
        view.fill(stage, reply);
        view
    }

    /// The same in the memory of an older view.
    pub(super) fn fill(&mut self, stage: Stage, reply: &[u8]) {
        self.fill_with_code(stage, None, reply);
    }

    /// The view of a reply whose code was lost on its way to us, with that code in front of it.
    pub(super) fn fill_with_code(&mut self, stage: Stage, code: Option<&str>, reply: &[u8]) {
        self.raw.clear();
        self.masked.clear();
        self.host = None;
        if let Some(code) = code {
            self.raw.extend_from_slice(code.as_bytes());
            self.raw.push(b' ');
        }
        write_lines(&reply[..reply.len().min(MAX_REPLY)], &mut self.raw);
        self.mask(stage);
    }

    /// The keywords of an EHLO reply: the first word of every line but the first.
    pub(super) fn keywords(&self) -> impl Iterator<Item = &[u8]> {
        self.raw.split(|&b| b == b'\n').skip(1).map(|line| {
            // `AUTH=PLAIN` is the keyword of old clients' servers.
            let end = line.iter().position(|&b| matches!(b, b' ' | b'='));
            &line[..end.unwrap_or(line.len())]
        })
    }

    /// The reply code, if the first line starts with one.
    pub(super) fn code(&self) -> Option<u16> {
        code_of(&self.raw)
    }

    /// The text of the first line without its code.
    pub(super) fn first_text(&self) -> &[u8] {
        let text = if self.code().is_some() {
            self.raw.get(4..).unwrap_or(b"")
        } else {
            &self.raw
        };
        text.split(|&b| b == b'\n').next().unwrap_or(b"")
    }

    /// The form that a pattern wants.
    pub(super) fn text(&self, sees_host: bool) -> &[u8] {
        if sees_host { &self.raw } else { &self.masked }
    }

    /// The host name by which the server calls itself.
    pub(super) fn host_name(&self) -> Option<String> {
        let (start, end) = self.host?;
        Some(String::from_utf8_lossy(&self.raw[start..end]).into_owned())
    }

    fn mask(&mut self, stage: Stage) {
        let raw = &self.raw;
        let bare = if stage == Stage::Greeting {
            bare_host(raw)
        } else {
            None
        };
        let first_line = raw.iter().position(|&b| b == b'\n').unwrap_or(raw.len());
        self.masked.reserve(raw.len());
        let mut at = 0;
        while at < raw.len() {
            if bare.is_some_and(|(start, _)| start == at) {
                let (start, end) = bare.unwrap_or((at, at));
                self.masked.extend_from_slice(HOST);
                self.host.get_or_insert((start, end));
                at = end;
                continue;
            }
            if !is_word(raw[at]) {
                self.masked.push(raw[at]);
                at += 1;
                continue;
            }
            let run = raw[at..]
                .iter()
                .position(|&b| !is_word(b))
                .unwrap_or(raw.len() - at);
            let word = &raw[at..at + run];
            let kept = word
                .iter()
                .rposition(|&b| b != b'.' && b != b'-')
                .map_or(0, |last| last + 1);
            if is_host_name(&word[..kept]) {
                let in_address = at > 0 && matches!(raw[at - 1], b'/' | b'@');
                if at < first_line && !in_address {
                    self.host.get_or_insert((at, at + kept));
                }
                self.masked.extend_from_slice(HOST);
                self.masked.extend_from_slice(&word[kept..]);
            } else {
                self.masked.extend_from_slice(word);
            }
            at += run;
        }
    }
}

/// The code at the start of a line: three digits, then a blank, a hyphen or the end.
pub(super) fn code_of(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let ends = matches!(
        line.get(3),
        None | Some(b' ' | b'-' | b'\t' | b'\r' | b'\n')
    );
    if !ends || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0')),
    )
}

fn write_lines(reply: &[u8], out: &mut Vec<u8>) {
    out.reserve(reply.len());
    let end = reply
        .iter()
        .rposition(|b| !b.is_ascii_whitespace())
        .map_or(0, |last| last + 1);
    for (number, line) in reply[..end].split(|&b| b == b'\n').enumerate() {
        let text = if code_of(line).is_some() {
            if number == 0 {
                out.extend_from_slice(&line[..3]);
                out.push(b' ');
            }
            line.get(4..).unwrap_or(b"")
        } else {
            line
        };
        if number > 0 {
            out.push(b'\n');
        }
        write_blanks_once(text, out);
    }
}

fn write_blanks_once(text: &[u8], out: &mut Vec<u8>) {
    let mut pending = false;
    let mut written = false;
    for &byte in text {
        if matches!(byte, b' ' | b'\t' | b'\r') {
            pending = true;
            continue;
        }
        if pending && written {
            out.push(b' ');
        }
        pending = false;
        written = true;
        out.push(byte);
    }
}

/// The first word of a greeting that `ESMTP` follows: a host name of a single label.
fn bare_host(raw: &[u8]) -> Option<(usize, usize)> {
    code_of(raw)?;
    let text = raw.get(4..)?;
    let length = text.iter().position(|&b| b == b' ' || b == b'\n')?;
    let (word, rest) = text.split_at(length);
    if word.is_empty() {
        return None;
    }
    let is_esmtp = |word: &[u8]| {
        word.get(..5)
            .is_some_and(|w| w.eq_ignore_ascii_case(b"ESMTP"))
    };
    if rest[0] != b' ' || is_esmtp(word) || !is_esmtp(&rest[1..]) {
        return None;
    }
    if rest.get(6).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    // `Microsoft ESMTP …`: hosts are not spelt like names.
    let like_name = word[0].is_ascii_uppercase()
        && word.iter().any(u8::is_ascii_lowercase)
        && word.iter().all(u8::is_ascii_alphabetic);
    if like_name {
        return None;
    }
    let kept = word
        .iter()
        .rposition(|b| !matches!(b, b'.' | b',' | b':'))?
        + 1;
    Some((4, 4 + kept))
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*')
}

/// Whether a word is a domain name of two labels or more, and no version.
fn is_host_name(word: &[u8]) -> bool {
    let Some(dot) = word.iter().rposition(|&b| b == b'.') else {
        return false;
    };
    let (rest, last) = (&word[..dot], &word[dot + 1..]);
    let alphabetic = last.len() >= 2 && last.iter().all(u8::is_ascii_alphabetic);
    if !alphabetic && !last.starts_with(b"xn--") {
        return false;
    }
    let mut numbers = 0_usize;
    let mut labels = 0_usize;
    for label in rest.split(|&b| b == b'.') {
        labels += 1;
        let sound = !label.is_empty() && (label == b"*" || !label.contains(&b'*'));
        if !sound {
            return false;
        }
        numbers += usize::from(label.iter().all(u8::is_ascii_digit));
    }
    labels == 1 || numbers < labels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        String::from_utf8(View::new(Stage::Greeting, text.as_bytes()).masked).expect("ASCII")
    }

    #[test]
    fn lines_are_joined_and_blanks_squeezed() {
        let view = View::new(
            Stage::Greeting,
            b"220-a.example ESMTP  Exim \t 4.98 \r\n220 no  bulk\r\n",
        );
        assert_eq!(view.raw, b"220 a.example ESMTP Exim 4.98\nno bulk");
        assert_eq!(view.masked, b"220 <host> ESMTP Exim 4.98\nno bulk");
        assert_eq!(view.host_name().as_deref(), Some("a.example"));
        assert_eq!(view.first_text(), b"a.example ESMTP Exim 4.98");
    }

    #[test]
    fn a_bare_line_feed_ends_a_line_too() {
        assert_eq!(
            View::new(Stage::Ehlo, b"250-h\n250-SIZE\n250 HELP\n").raw,
            b"250 h\nSIZE\nHELP"
        );
    }

    #[test]
    fn lines_without_a_code_stay_whole() {
        assert_eq!(
            View::new(Stage::Ehlo, b"250 h\r\n    250-SIZE\r\n").raw,
            b"250 h\n250-SIZE"
        );
        assert_eq!(
            View::new(Stage::Greeting, b"SSH-2.0-OpenSSH_9\r\n").raw,
            b"SSH-2.0-OpenSSH_9"
        );
    }

    #[test]
    fn host_names_are_masked_wherever_they_stand() {
        assert_eq!(masked("220 postfix.example.com ESMTP"), "220 <host> ESMTP");
        assert_eq!(masked("220 *.foo.bar ESMTP"), "220 <host> ESMTP");
        assert_eq!(masked("220 foo.bar, ESMTP"), "220 <host>, ESMTP");
        assert_eq!(masked("220 163.com Anti-spam"), "220 <host> Anti-spam");
        assert_eq!(
            masked("220 SMTP exim.example.org. ready."),
            "220 SMTP <host>. ready."
        );
        assert_eq!(
            masked("220 Hi http://www.postfix.org/"),
            "220 Hi http://<host>/"
        );
    }

    #[test]
    fn a_single_label_before_esmtp_is_a_host_name() {
        assert_eq!(masked("220 mdaemon ESMTP"), "220 <host> ESMTP");
        assert_eq!(masked("220 %NAME% esmtp x"), "220 <host> esmtp x");
        assert_eq!(masked("220 Microsoft ESMTP"), "220 Microsoft ESMTP");
        assert_eq!(masked("220 MX1 ESMTP"), "220 <host> ESMTP");
        assert_eq!(masked("220 ESMTP ESMTP"), "220 ESMTP ESMTP");
        assert_eq!(masked("220 ESMTP Postfix"), "220 ESMTP Postfix");
        assert_eq!(masked("220 Xeams SMTP server"), "220 Xeams SMTP server");
        assert_eq!(masked("220 x ESMTPS"), "220 x ESMTPS");
    }

    #[test]
    fn versions_are_no_host_names() {
        for text in [
            "8.12.0.Beta7",
            "8.12.0.Beta",
            "4.98.2",
            "4.90_RC3",
            "9.0.1FP9",
            "v2.8.7.0",
            "5.0.1",
        ] {
            assert_eq!(
                masked(&format!("220 x {text} y")),
                format!("220 x {text} y")
            );
        }
    }

    #[test]
    fn a_host_name_in_an_address_is_masked_but_not_the_servers_own() {
        let view = View::new(Stage::Greeting, b"220 hello, see http://example.org");
        assert_eq!(view.host_name(), None);
        assert_eq!(view.masked, b"220 hello, see http://<host>");
    }

    #[test]
    fn codes_are_three_digits_and_an_end() {
        assert_eq!(code_of(b"220 x"), Some(220));
        assert_eq!(code_of(b"220-x"), Some(220));
        assert_eq!(code_of(b"220"), Some(220));
        assert_eq!(code_of(b"2200 x"), None);
        assert_eq!(code_of(b"22"), None);
        assert_eq!(code_of(b"+OK"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_viewed_without_panic_and_without_hosts(reply in proptest::collection::vec(any::<u8>(), 0..200)) {
            for &stage in Stage::ALL {
                let view = View::new(stage, &reply);
                prop_assert!(view.raw.len() <= reply.len() + 1);
                let _ = (view.code(), view.first_text(), view.host_name());
            }
        }

        #[test]
        fn no_host_name_survives(host in "[a-z]{1,8}(\\.[a-z0-9]{1,8}){0,2}\\.[a-z]{2,6}", tail in "[A-Za-z ]{0,12}") {
            let view = View::new(Stage::Greeting, format!("220 {host} {tail}\r\n").as_bytes());
            let text = String::from_utf8(view.masked.clone()).expect("ASCII in, ASCII out");
            prop_assert!(text.starts_with("220 <host>"));
            let named = view.host_name();
            prop_assert_eq!(named.as_deref(), Some(host.as_str()));
        }
    }
}
