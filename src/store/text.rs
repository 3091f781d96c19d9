//! Peers' bytes made fit to be shown: nothing a server sent may drive the reader's terminal.
//!
//! [`escape`] turns any bytes into one line of printable text. It is reversible: a backslash is
//! doubled, so every `\xNN` in the result stands for exactly one octet of the input.
//! `json_line` writes JSON in which the control characters that JSON itself permits (DEL and
//! C1, U+007F to U+009F, among them the one-character CSI) are escaped as well.
//! `readable` and `tame` make the columns that views show: any tool may print those.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// The bytes as one printable line.
///
/// Valid UTF-8 stays as it is, except: backslash → `\\`; CR, LF, TAB → `\r`, `\n`, `\t`; other
/// control characters, and those Unicode characters that change the direction of text or are
/// invisible → `\u{…}` (below U+0080: `\xNN`). Octets that are no UTF-8 → `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c);
        }
        for octet in chunk.invalid() {
            push_hex(&mut out, u32::from(*octet));
        }
    }
    out
}

/// The bytes as [`escape`] has them, yet with line ends and tabs as they are, so that it can still
/// be laid out; `None` where that is the bytes themselves, as it is for nearly all servers.
pub(super) fn readable(bytes: &[u8]) -> Option<String> {
    // Without an early end, so that many octets are looked at in one instruction.
    let plain = bytes.iter().fold(true, |plain, b| {
        plain & (matches!(b, b'\t' | b'\r' | b'\n' | b' '..=b'~') & (*b != b'\\'))
    });
    if plain {
        return None;
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_layout(c) {
                out.push(c);
            } else {
                push_escaped(&mut out, c);
            }
        }
        for octet in chunk.invalid() {
            push_hex(&mut out, u32::from(*octet));
        }
    }
    (out.as_bytes() != bytes).then_some(out)
}

const fn is_layout(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\t')
}

/// The text with U+FFFD in place of each control character, and of each that changes the direction
/// of text or is invisible.
pub(super) fn tame(text: &str) -> Cow<'_, str> {
    let printable = |plain, b: &u8| plain & matches!(b, b' '..=b'~');
    if text.as_bytes().iter().fold(true, printable) {
        return text.into();
    }
    let is_wild = |c: char| c.is_control() || is_unseen(c);
    if text.contains(is_wild) {
        text.replace(is_wild, "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// As [`escape`], cut after `max` characters of the result, with `…` where something was cut.
pub(crate) fn escape_short(bytes: &[u8], max: usize) -> String {
    // One octet never becomes less than a quarter of a character, so four times `max` suffice.
    let head = &bytes[..bytes.len().min(max.saturating_mul(4).saturating_add(4))];
    let full = escape(head);
    match full.char_indices().nth(max) {
        None => full,
        Some((end, _)) => {
            let mut short = full;
            short.truncate(end);
            short.push('…');
            short
        }
    }
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\r' => out.push_str("\\r"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        c if c.is_ascii_control() => push_hex(out, u32::from(c)),
        c if c.is_control() || is_unseen(c) => {
            out.push_str("\\u{");
            push_number(out, format_args!("{:x}", u32::from(c)));
            out.push('}');
        }
        c => out.push(c),
    }
}

fn push_hex(out: &mut String, octet: u32) {
    push_number(out, format_args!("\\x{octet:02x}"));
}

fn push_number(out: &mut String, number: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(number);
}

/// Characters that show nothing themselves but change how their neighbours are shown.
fn is_unseen(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff
        | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
}

/// The value as one line of JSON without a control character in it.
///
/// # Errors
/// As the writer's.
pub(super) fn json_line<T: Serialize>(value: &T, out: &mut impl io::Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(out, Compact);
    value.serialize(&mut serializer)?;
    Ok(())
}

/// As [`json_line`], indented for people.
///
/// # Errors
/// As the writer's.
pub(crate) fn json_pretty<T: Serialize>(value: &T, out: &mut impl io::Write) -> io::Result<()> {
    let formatter = Indented(serde_json::ser::PrettyFormatter::new());
    let mut serializer = serde_json::Serializer::with_formatter(out, formatter);
    value.serialize(&mut serializer)?;
    Ok(())
}

struct Compact;

impl Formatter for Compact {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_fragment(writer, fragment)
    }
}

struct Indented(serde_json::ser::PrettyFormatter<'static>);

impl Formatter for Indented {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_fragment(writer, fragment)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Writes a run of characters, those from DEL to the end of C1 as `\u00NN`.
fn write_fragment<W: ?Sized + io::Write>(writer: &mut W, fragment: &str) -> io::Result<()> {
    let mut rest = fragment;
    while let Some(at) = rest.find(|c: char| ('\u{7f}'..='\u{9f}').contains(&c)) {
        writer.write_all(&rest.as_bytes()[..at])?;
        let mut after = rest[at..].chars();
        if let Some(c) = after.next() {
            write!(writer, "\\u{:04x}", u32::from(c))?;
        }
        rest = after.as_str();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Undoes [`escape`], to prove that it loses nothing.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                out.extend(c.to_string().bytes());
                continue;
            }
            match chars.next() {
                Some('\\') => out.push(b'\\'),
                Some('r') => out.push(b'\r'),
                Some('n') => out.push(b'\n'),
                Some('t') => out.push(b'\t'),
                Some('x') => {
                    let hex: String = chars.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&hex, 16).unwrap());
                }
                Some('u') => {
                    let hex: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    let c = char::from_u32(u32::from_str_radix(&hex, 16).unwrap()).unwrap();
                    out.extend(c.to_string().bytes());
                }
                other => panic!("unknown escape {other:?} in {text:?}"),
            }
        }
        out
    }

    #[test]
    fn escape_is_reversible_and_leaves_no_control_character() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let text = escape(&[b'x', a, b]);
                assert!(!text.chars().any(char::is_control), "{text:?}");
                assert_eq!(unescape(&text), [b'x', a, b]);
            }
        }
        let odd = "220 \u{9b}31m \u{202e}evil \u{1f600} \\x41 \x1b]0;title\x07";
        assert_eq!(unescape(&escape(odd.as_bytes())), odd.as_bytes());
        assert!(escape(odd.as_bytes()).contains("\\u{202e}evil 😀 \\\\x41 \\x1b]0;title\\x07"));
    }

    #[test]
    fn readable_text_keeps_the_layout_and_is_made_only_where_it_differs() {
        for plain in ["", "220 a~b\r\n\tc", "250 grüße ✉\r\n"] {
            assert_eq!(readable(plain.as_bytes()), None);
        }
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let bytes = [b'x', a, b'\r', b'\n', b];
                let text =
                    readable(&bytes).unwrap_or_else(|| String::from_utf8(bytes.to_vec()).unwrap());
                assert!(
                    !text.chars().any(|c| c.is_control() && !is_layout(c)),
                    "{text:?}"
                );
                let whole = text
                    .replace('\t', "\\t")
                    .replace('\r', "\\r")
                    .replace('\n', "\\n");
                assert_eq!(unescape(&whole), bytes);
            }
        }
    }

    #[test]
    fn tame_text_has_nothing_that_acts() {
        assert_eq!(tame("Postfix 3.7 ✉"), "Postfix 3.7 ✉");
        let wild: String = ('\0'..'\u{100}').chain(['\u{202e}', '\u{200b}']).collect();
        let tame = tame(&wild);
        assert!(!tame.contains(|c: char| c.is_control() || is_unseen(c)));
        assert_eq!(tame.chars().count(), wild.chars().count());
    }

    #[test]
    fn short_form_is_cut_at_characters() {
        assert_eq!(escape_short("äöü".as_bytes(), 3), "äöü");
        assert_eq!(escape_short("äöüx".as_bytes(), 3), "äöü…");
        assert_eq!(escape_short(b"", 0), "");
    }

    #[test]
    fn json_has_no_control_character_and_reads_back() {
        let value = serde_json::json!({"a\u{9b}": "\u{7f}\u{80}x\u{9f}\x1b\0é", "b": ["\u{9b}"]});
        for write in [
            json_line::<serde_json::Value>,
            json_pretty::<serde_json::Value>,
        ] {
            let mut out = Vec::new();
            write(&value, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "{text:?}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&text).unwrap(),
                value
            );
        }
    }
}
