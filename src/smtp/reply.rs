//! Server replies, read as they trickle in.
//!
//! A reply is one or more lines, each of a three-digit code, a separator and text; a hyphen after
//! the code announces a further line, anything else ends the reply (RFC 5321 section 4.2).
//! [`ReplyParser`] takes octets in pieces of any size; **what it yields does not depend on how
//! the input was cut**. It tolerates what real servers do and records it as [`Quirks`]: lines
//! that end in a bare LF, a CR inside a line (it does not end the line, RFC 5321 section 2.3.8),
//! a code without text, another separator than blank or hyphen, codes that differ within one
//! reply (the last line's counts: postscreen teases with `220-` and then refuses with `550 `), and
//! 8-bit or NUL octets. What is no reply, or exceeds [`ReplyLimits`], is a [`ReplyFault`], after
//! which the parser yields nothing more.

use std::fmt;

/// Bounds on what the peer may make us hold, in octets or lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Octets of one line before its LF. The RFC's 512 is exceeded by real servers.
    pub line: usize,
    /// Octets of one reply, line ends included.
    pub reply: usize,
    /// Lines of one reply.
    pub lines: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            line: 4_096,
            reply: 65_536,
            lines: 256,
        }
    }
}

/// An enhanced status code: class, subject, detail (RFC 3463).
pub type EnhancedCode = (u8, u16, u16);

/// One whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The code of the last line, 100 to 599.
    pub code: u16,
    /// The enhanced status code at the head of the first line's text, if its class agrees with
    /// `code` (RFC 2034 section 4).
    pub enhanced: Option<EnhancedCode>,
    /// The text of each line, without code, separator and line end. Never empty.
    pub lines: Vec<Vec<u8>>,
    /// What was odd about its form.
    pub quirks: Quirks,
}

/// Oddities in the form of a reply: a set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Quirks(u8);

impl Quirks {
    /// A line ended in LF without CR.
    pub const BARE_LF: Self = Self(1);
    /// A CR stood elsewhere than before LF.
    pub const BARE_CR: Self = Self(2);
    /// The lines had different codes.
    pub const MIXED_CODES: Self = Self(4);
    /// A line was a code with no text and no separator.
    pub const CODE_ONLY: Self = Self(8);
    /// Another separator than a blank or a hyphen followed the code.
    pub const ODD_SEPARATOR: Self = Self(16);
    /// An octet above 127 occurred.
    pub const EIGHT_BIT: Self = Self(32);
    /// An octet of zero occurred.
    pub const NUL: Self = Self(64);
    /// The peer closed without ending the last line.
    pub const UNTERMINATED: Self = Self(128);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::BARE_LF, "bare LF"),
        (Self::BARE_CR, "bare CR"),
        (Self::MIXED_CODES, "mixed codes"),
        (Self::CODE_ONLY, "code only"),
        (Self::ODD_SEPARATOR, "odd separator"),
        (Self::EIGHT_BIT, "8-bit octets"),
        (Self::NUL, "NUL octets"),
        (Self::UNTERMINATED, "unterminated line"),
    ];

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there was nothing odd.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of those in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(q, _)| self.contains(*q))
            .map(|(_, name)| name)
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    fn add_if(&mut self, condition: bool, other: Self) {
        if condition {
            self.add(other);
        }
    }
}

impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Octets that are no acceptable reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyFault {
    /// What is wrong with them.
    pub kind: FaultKind,
    /// The line at fault, up to the octet that settled it.
    pub bytes: Vec<u8>,
}

/// The ways in which octets fail to be a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The first line does not begin with a reply code.
    NotAReply,
    /// A later line of a multi-line reply does not begin with a reply code.
    BrokenContinuation,
    /// A line is longer than [`ReplyLimits::line`].
    LineTooLong,
    /// The reply is longer than [`ReplyLimits::reply`].
    ReplyTooLong,
    /// The reply has more lines than [`ReplyLimits::lines`].
    TooManyLines,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAReply => "octets that are no reply",
            Self::BrokenContinuation => "a continuation line without a reply code",
            Self::LineTooLong => "a line beyond the length limit",
            Self::ReplyTooLong => "a reply beyond the size limit",
            Self::TooManyLines => "a reply of more lines than the limit",
        })
    }
}

/// Turns a stream of octets into replies; see the head of this file.
#[derive(Debug, Clone)]
pub struct ReplyParser {
    limits: ReplyLimits,
    /// The line under way, without its LF.
    line: Vec<u8>,
    /// Octets of this reply in the lines before `line`, line ends included.
    before: usize,
    lines: Vec<Vec<u8>>,
    /// The code of the line that ended last.
    code: u16,
    quirks: Quirks,
    dead: bool,
}

impl ReplyParser {
    /// A parser at the start of a reply.
    pub const fn new(limits: ReplyLimits) -> Self {
        Self {
            limits,
            line: Vec::new(),
            before: 0,
            lines: Vec::new(),
            code: 0,
            quirks: Quirks(0),
            dead: false,
        }
    }

    /// Reads on, to the end of the first reply or fault in `input`, and advances `input` past it.
    /// `None`: `input` is used up and more is needed, or an earlier fault has ended the parser.
    pub fn feed(&mut self, input: &mut &[u8]) -> Option<Result<Reply, ReplyFault>> {
        while !self.dead && !input.is_empty() {
            if let Some(fault) = self.take(input) {
                return Some(Err(self.fail(fault)));
            }
            if self.line.last() == Some(&LF) {
                self.line.pop();
                if self.end_line(true) {
                    return Some(Ok(self.end_reply()));
                }
                if self.lines.len() >= self.limits.lines {
                    return Some(Err(self.fail(FaultKind::TooManyLines)));
                }
            }
        }
        *input = &[];
        None
    }

    /// What the octets that are left mean now that the peer has closed: a last line that lacks
    /// only its line end is accepted, and marked [`Quirks::UNTERMINATED`].
    pub fn finish(&mut self) -> Option<Reply> {
        if self.dead || self.line.len() < CODE || self.line.get(CODE) == Some(&b'-') {
            return None;
        }
        self.quirks.add(Quirks::UNTERMINATED);
        self.end_line(false).then(|| self.end_reply())
    }

    /// Whether part of a reply has been read and its end has not.
    pub fn is_amid_reply(&self) -> bool {
        !self.line.is_empty() || !self.lines.is_empty()
    }

    /// Moves octets from `input` to the line, up to its LF or the first fault. The head goes
    /// octet by octet, so that a fault there is found at the same octet however the input is cut.
    fn take(&mut self, input: &mut &[u8]) -> Option<FaultKind> {
        while self.line.len() <= CODE {
            let (octet, rest) = input.split_first()?;
            *input = rest;
            self.line.push(*octet);
            if !is_head(&self.line) {
                let first = self.lines.is_empty();
                return Some(if first {
                    FaultKind::NotAReply
                } else {
                    FaultKind::BrokenContinuation
                });
            }
            if *octet == LF {
                return None;
            }
        }
        let left = self.limits.reply.saturating_sub(self.before);
        let (longest, kind) = if self.limits.line <= left {
            (self.limits.line, FaultKind::LineTooLong)
        } else {
            (left, FaultKind::ReplyTooLong)
        };
        let room = (longest + 1).saturating_sub(self.line.len());
        let within = &input[..input.len().min(room)];
        let taken = within
            .iter()
            .position(|b| *b == LF)
            .map_or(within.len(), |i| i + 1);
        self.line.extend_from_slice(&input[..taken]);
        *input = &input[taken..];
        (self.line.len() > longest && self.line.last() != Some(&LF)).then_some(kind)
    }

    /// Ends the line under way; `true` if it was the last of its reply.
    fn end_line(&mut self, terminated: bool) -> bool {
        self.before += self.line.len() + usize::from(terminated);
        let with_cr = self.line.last() == Some(&b'\r');
        let line = &self.line[..self.line.len() - usize::from(with_cr)];
        let code = line[..CODE]
            .iter()
            .fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
        let separator = line.get(CODE).copied();
        let plain = matches!(separator, Some(b' ' | b'-'));
        self.quirks.add_if(terminated && !with_cr, Quirks::BARE_LF);
        self.quirks.add_if(line.contains(&b'\r'), Quirks::BARE_CR);
        self.quirks.add_if(separator.is_none(), Quirks::CODE_ONLY);
        self.quirks
            .add_if(separator.is_some() && !plain, Quirks::ODD_SEPARATOR);
        self.quirks.add_if(!line.is_ascii(), Quirks::EIGHT_BIT);
        self.quirks.add_if(line.contains(&0), Quirks::NUL);
        self.quirks.add_if(
            !self.lines.is_empty() && self.code != code,
            Quirks::MIXED_CODES,
        );
        self.code = code;
        self.lines.push(line[CODE + usize::from(plain)..].to_vec());
        self.line.clear();
        separator != Some(b'-')
    }

    /// Hands over the reply whose last line has ended and starts the next.
    fn end_reply(&mut self) -> Reply {
        let lines = std::mem::take(&mut self.lines);
        let enhanced = lines.first().and_then(|text| enhanced(self.code, text));
        self.before = 0;
        Reply {
            code: self.code,
            enhanced,
            lines,
            quirks: std::mem::take(&mut self.quirks),
        }
    }

    fn fail(&mut self, kind: FaultKind) -> ReplyFault {
        self.dead = true;
        self.lines = Vec::new();
        ReplyFault {
            kind,
            bytes: std::mem::take(&mut self.line),
        }
    }
}

/// Whether `line`, of 1 to 4 octets, can be the head of a reply line. A digit after the code
/// makes it a number, hence no reply; other separators than blank and hyphen are tolerated.
fn is_head(line: &[u8]) -> bool {
    match *line {
        [first] => (b'1'..=b'5').contains(&first),
        [_, digit] | [_, _, digit] => digit.is_ascii_digit(),
        [_, _, _, separator] => !separator.is_ascii_digit(),
        _ => false,
    }
}

/// The enhanced code at the start of a reply's text; RFC 2034 section 4 ties its class to the
/// reply code's first digit.
fn enhanced(code: u16, text: &[u8]) -> Option<EnhancedCode> {
    let word = text.split(|b| *b == b' ').next()?;
    let mut parts = word.split(|b| *b == b'.').map(number);
    let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || class != code / 100 || !matches!(class, 2 | 4 | 5) {
        return None;
    }
    Some((u8::try_from(class).ok()?, subject, detail))
}

/// One to three digits.
fn number(digits: &[u8]) -> Option<u16> {
    let valid = (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')))
}

/// Octets of a reply code.
const CODE: usize = 3;
const LF: u8 = b'\n';

#[cfg(test)]
mod tests;
