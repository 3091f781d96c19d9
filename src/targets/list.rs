//! Lists of addresses: one entry a line, as zmap's allowlists and blocklists have them.
//!
//! ```text
//! 192.0.2.7                    # an address; a comment runs to the end of the line
//! 198.51.100.0/24              # a CIDR (bits below the prefix length are ignored)
//! 203.0.113.5-203.0.113.80     # a range, both ends included
//! ```
//!
//! Spaces and tabs around an entry, empty lines, CR LF, a missing last newline and the byte-order
//! mark of Windows editors are all fine. Comments are skipped as bytes, whatever their encoding.
//! Anything else is an error that names file, line, text and reason: a mistyped line in a
//! blocklist must stop the sweep, not shrink the list. Short forms (`10/8`), leading zeros (octal
//! to some programs, decimal to others), host names and IPv6 are therefore refused.
//!
//! Memory: a line's entry is looked at up to a fixed number of octets whatever its length, and the rest is
//! skipped as it streams by. A plain address takes a fast path without UTF-8 check or copy,
//! because lists of tens of millions of them are usual.

use std::io::{self, BufRead};

use thiserror::Error;

use super::RangeSet;
use super::ranges::Builder;

/// The longest text before a comment that can be an entry, in octets.
pub const ENTRY_MAX: usize = 256;

/// How many characters of a bad line an error shows.
const SHOWN_CHARS: usize = 80;

/// Why a list could not be read.
#[derive(Debug, Error)]
pub enum ListError {
    /// A line that is no entry.
    #[error("{name}, line {line}: \"{text}\": {reason}")]
    Line {
        /// The file, as the user named it.
        name: String,
        /// The line number, from 1.
        line: u64,
        /// The line's text, made printable and cut.
        text: String,
        /// What is wrong with it.
        reason: EntryError,
    },
    /// Reading itself failed.
    #[error("{name}, line {line}: failed to read: {source}")]
    Read {
        /// The file, as the user named it.
        name: String,
        /// The line number, from 1, at which it failed.
        line: u64,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// Why a text is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Nothing there.
    #[error("an address, a CIDR or a range is wanted, and there is nothing")]
    Empty,
    /// Neither an address, a CIDR nor a range.
    #[error(
        "not an IPv4 address, a CIDR such as 192.0.2.0/24, or a range such as 192.0.2.1-192.0.2.9"
    )]
    NotAnAddress,
    /// Looks like a host name.
    #[error("a host name; resolve it first, only addresses are taken")]
    HostName,
    /// IPv6.
    #[error("an IPv6 address; only IPv4 is swept")]
    Ipv6,
    /// A part of the address begins with 0.
    #[error(
        "a part of the address has a leading zero, which some programs read as octal; write it without"
    )]
    LeadingZero,
    /// A part of the address exceeds 255.
    #[error("a part of the address is above 255")]
    PartAbove255,
    /// The prefix length is no number from 0 to 32.
    #[error("the prefix length after \"/\" must be a number from 0 to 32")]
    PrefixLength,
    /// The range's first address is above its last.
    #[error("the first address of the range is above its last")]
    Reversed,
    /// Bytes that are no UTF-8.
    #[error("not text (the bytes are not UTF-8)")]
    NotUtf8,
    /// Too long to be an entry.
    #[error("longer than any entry can be ({ENTRY_MAX} octets)")]
    TooLong,
}

/// Parses one address, CIDR or range to its first and last address.
///
/// Bits below a CIDR's prefix length are ignored: 192.0.2.77/24 is 192.0.2.0/24, as in zmap.
///
/// # Errors
/// [`EntryError`] with the reason.
pub fn parse_entry(text: &str) -> Result<(u32, u32), EntryError> {
    entry(text.as_bytes())
}

/// Reads a whole list. `name` stands for the file in errors.
///
/// # Errors
/// [`ListError::Line`] at the first line that is no entry, [`ListError::Read`] if reading fails.
pub fn parse_list(mut reader: impl BufRead, name: &str) -> Result<RangeSet, ListError> {
    let mut set = Builder::default();
    let mut line = 1u64;
    // The beginning of a line whose end has not been read yet.
    let mut carried = Vec::new();
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(ListError::Read {
                    name: name.to_owned(),
                    line,
                    source,
                });
            }
        };
        let mut accept = |text: &[u8]| {
            accept_line(text, line, &mut set).map_err(|reason| ListError::Line {
                name: name.to_owned(),
                line,
                text: shown(text),
                reason,
            })?;
            line += 1;
            Ok(())
        };
        if chunk.is_empty() {
            if !carried.is_empty() {
                accept(&carried)?;
            }
            return Ok(set.finish());
        }
        let read = chunk.len();
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let (text, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if carried.is_empty() {
                accept(text)?;
            } else {
                carry(&mut carried, text);
                accept(&carried)?;
                carried.clear();
            }
        }
        carry(&mut carried, rest);
        reader.consume(read);
    }
}

/// How much of a line is ever looked at: enough to hold an entry, and to see that there is more.
/// The cut is made at the same place however the input arrives, so the result does not depend on
/// the reader's buffer.
const LINE_KEPT: usize = 2 * ENTRY_MAX;

/// Appends as much of `more` as is needed to know that the line exceeds [`LINE_KEPT`].
fn carry(carried: &mut Vec<u8>, more: &[u8]) {
    let room = LINE_KEPT + 1 - carried.len();
    carried.extend_from_slice(&more[..more.len().min(room)]);
}

/// Takes one line, without its newline, into the set.
fn accept_line(text: &[u8], line: u64, set: &mut Builder) -> Result<(), EntryError> {
    if let Some(address) = plain_address(text) {
        set.push(address, address);
        return Ok(());
    }
    let cut = text.len() > LINE_KEPT;
    let text = &text[..text.len().min(LINE_KEPT)];
    let text = if line == 1 {
        text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
    } else {
        text
    };
    let comment = text.iter().position(|&b| b == b'#');
    let content = text[..comment.unwrap_or(text.len())].trim_ascii();
    if content.len() > ENTRY_MAX || (cut && comment.is_none()) {
        return Err(EntryError::TooLong);
    }
    if !content.is_empty() {
        let (first, last) = entry(content)?;
        set.push(first, last);
    }
    Ok(())
}

/// The address, if the text is exactly four decimal parts, perhaps with the CR of a CR LF.
/// `None` says nothing about what else it may be.
#[inline]
fn plain_address(text: &[u8]) -> Option<u32> {
    let (mut address, mut part, mut digits, mut dots) = (0u32, 0u32, 0u32, 0u32);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if digits > 0 && part == 0 {
                    return None;
                }
                part = part * 10 + u32::from(byte - b'0');
                digits += 1;
                if part > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 => {
                address = address << 8 | part;
                (part, digits) = (0, 0);
                dots += 1;
            }
            b'\r' if at + 1 == text.len() => {}
            _ => return None,
        }
    }
    (dots == 3 && digits > 0).then_some(address << 8 | part)
}

fn entry(text: &[u8]) -> Result<(u32, u32), EntryError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(EntryError::Empty);
    }
    let Ok(utf8) = std::str::from_utf8(text) else {
        return Err(EntryError::NotUtf8);
    };
    if text.len() > ENTRY_MAX {
        return Err(EntryError::TooLong);
    }
    if utf8.contains(':') {
        return Err(EntryError::Ipv6);
    }
    if let Some((network, length)) = utf8.split_once('/') {
        let network = address(network)?;
        let short = (1..=2).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
        let bits: u32 = match length.parse() {
            Ok(bits) if short && bits <= 32 => bits,
            _ => return Err(EntryError::PrefixLength),
        };
        // A shift by 32 is no shift: /0 has no network bits at all.
        let host = u32::MAX.checked_shr(bits).unwrap_or(0);
        return Ok((network & !host, network | host));
    }
    // A "-" after a letter belongs to a host name, which `address` recognises.
    if let Some((first, last)) = utf8.split_once('-').filter(|_| !has_letters(utf8)) {
        let (first, last) = (address(first.trim_ascii())?, address(last.trim_ascii())?);
        return if first <= last {
            Ok((first, last))
        } else {
            Err(EntryError::Reversed)
        };
    }
    address(utf8).map(|address| (address, address))
}

fn has_letters(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_alphabetic())
}

/// One dotted quad, or the reason why it is none.
fn address(text: &str) -> Result<u32, EntryError> {
    if let Some(address) = plain_address(text.as_bytes()) {
        return Ok(address);
    }
    let name_like = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if has_letters(text) && text.bytes().all(name_like) {
        return Err(EntryError::HostName);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let number = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(number) {
        return Err(EntryError::NotAnAddress);
    }
    if parts.iter().any(|p| p.len() > 1 && p.starts_with('0')) {
        return Err(EntryError::LeadingZero);
    }
    Err(EntryError::PartAbove255)
}

/// A line's text for an error: lossy, control characters escaped, cut to [`SHOWN_CHARS`].
fn shown(text: &[u8]) -> String {
    // A character is at most 4 octets, so nothing beyond this can be shown.
    let head = &text[..text.len().min(4 * (SHOWN_CHARS + 1))];
    let lossy = String::from_utf8_lossy(head.trim_ascii());
    let mut shown = String::new();
    for (count, character) in lossy.chars().enumerate() {
        if count == SHOWN_CHARS {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests;
