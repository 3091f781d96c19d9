//! Products and their patterns, as read from rule files and already proven sound.

use std::sync::{Arc, OnceLock};

use regex::bytes::{Regex, RegexBuilder};

use super::category::Category;
use super::condition::Conditions;
use crate::smtp::Stage;

/// The largest weight a pattern may have, in bits (one in a thousand million).
pub(super) const MAX_WEIGHT: f64 = 30.0;

/// Bytes a single compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// Octets of a reply that are shown for a pattern without an expression.
const SHOWN: usize = 60;

/// A product that can be named.
#[derive(Debug)]
pub struct Product {
    /// The canonical name.
    pub name: String,
    /// Who makes or runs it.
    pub vendor: Option<String>,
    /// Its kind.
    pub category: Category,
    /// The family it is counted under.
    pub family: String,
    /// Where to read about it.
    pub homepage: Option<String>,
    /// The CPE name without a version, e.g. `cpe:2.3:a:exim:exim`.
    pub cpe: Option<String>,
    /// The operating system it always runs on.
    pub os: Option<String>,
    /// The product it is made of, as an index: its behaviour may show through.
    pub(super) based_on: Option<usize>,
    /// The stages for which it has patterns, as bits: where its behaviour is known.
    pub(super) known: u32,
    /// The rule file it stands in.
    pub file: String,
    /// The line of its definition, counted from 1.
    pub line: usize,
}

impl Product {
    /// Whether it has patterns at a stage.
    pub const fn is_known_at(&self, stage: Stage) -> bool {
        self.known & (1 << stage as u32) != 0
    }
}

/// What a pattern speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The product of that index.
    Product(usize),
    /// The protocol of that index among those that are not mail.
    NotMail(usize),
}

/// A protocol that is not mail, although somebody may run it on port 25.
#[derive(Debug)]
pub struct NotMail {
    /// Its name, e.g. `FTP`.
    pub protocol: String,
}

/// Something to look for in a reply.
#[derive(Debug)]
pub struct Pattern {
    /// `product/stage/number`, the number counted from 1 within product and stage.
    pub id: Arc<str>,
    /// The stage whose reply is looked at.
    pub stage: Stage,
    /// The regular expression, as written.
    pub text: String,
    /// Log2 likelihood ratio, in bits; see `docs/rules.md`.
    pub weight: f64,
    /// Whether the pattern sees host names rather than `<host>`.
    pub sees_host: bool,
    /// The operating system a match tells of.
    pub os: Option<String>,
    /// Replies that must match, with what must be captured.
    pub examples: Vec<Example>,
    /// Replies that look alike and must not match.
    pub counter_examples: Vec<String>,
    /// The rule file it stands in.
    pub file: String,
    /// The line of its expression, counted from 1.
    pub line: usize,
    pub(super) owner: Owner,
    pub(super) conditions: Conditions,
    pub(super) compiled: OnceLock<Option<Regex>>,
}

/// A reply that a pattern must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The reply as on the wire, code included; the final line break may be missing.
    pub text: String,
    /// What the same server says at other stages, where the pattern's conditions look at them.
    pub with: Vec<(Stage, String)>,
    /// What the pattern must find in it.
    pub captured: Captured,
}

/// What named captures found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// `version`
    pub version: Option<String>,
    /// `patch`
    pub patch: Option<String>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `os`
    pub os: Option<String>,
    /// `build`: a build's number or date
    pub build: Option<String>,
}

impl Captured {
    /// The names of captures a pattern may use.
    pub const NAMES: &'static [&'static str] = &["version", "patch", "hostname", "os", "build"];

    /// Every name with what was found under it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        let values = [
            &self.version,
            &self.patch,
            &self.hostname,
            &self.os,
            &self.build,
        ];
        Self::NAMES
            .iter()
            .copied()
            .zip(values.into_iter().map(Option::as_deref))
    }
}

impl Pattern {
    /// The compiled expression. It is compiled at first use, because of thousands of patterns a
    /// sweep meets a few dozen and loading must be quick.
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.compiled
            .get_or_init(|| compile(&self.text).ok())
            .as_ref()
    }

    /// The text matched in a view, and what the captures found.
    pub(super) fn find(&self, view: &[u8]) -> Option<(String, Captured)> {
        let found = self.regex()?.captures(view)?;
        let text = |name| {
            let value = String::from_utf8_lossy(found.name(name)?.as_bytes()).into_owned();
            let value = tidy(&value);
            (!value.is_empty()).then(|| value.to_owned())
        };
        let captured = Captured {
            version: text("version"),
            patch: text("patch"),
            hostname: text("hostname"),
            os: text("os").or_else(|| self.os.clone()),
            build: text("build"),
        };
        let matched = if self.text.is_empty() {
            // Its conditions are the pattern: the first words tell which reply it was.
            &view[..view.len().min(SHOWN)]
        } else {
            found.get(0)?.as_bytes()
        };
        Some((String::from_utf8_lossy(matched).into_owned(), captured))
    }
}

/// Compiles a pattern the way all patterns are compiled: bytes, no Unicode classes, a size limit.
/// The expression engine has no backtracking, so matching time is linear in the reply.
pub(super) fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(SIZE_LIMIT)
        .build()
}

/// A captured value without the punctuation around it.
pub(super) fn tidy(value: &str) -> &str {
    let trimmed = value.trim_matches(|c: char| c.is_whitespace() || ",;:".contains(c));
    trimmed.trim_end_matches(['.', '-', '('])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern {
            id: "x/greeting/1".into(),
            stage: Stage::Greeting,
            text: text.into(),
            weight: 10.0,
            sees_host: false,
            os: Some("Linux".into()),
            examples: Vec::new(),
            counter_examples: Vec::new(),
            file: "x.toml".into(),
            line: 1,
            owner: Owner::Product(0),
            conditions: Conditions::default(),
            compiled: OnceLock::new(),
        }
    }

    #[test]
    fn captures_are_tidied_and_defaults_filled_in() {
        let (matched, captured) = pattern(r"Foo (?P<version>[0-9.]+)")
            .find(b"220 <host> ESMTP Foo 3.2.")
            .expect("matches");
        assert_eq!(matched, "Foo 3.2.");
        assert_eq!(captured.version.as_deref(), Some("3.2"));
        assert_eq!(captured.os.as_deref(), Some("Linux"));
        assert_eq!(captured.patch, None);
    }

    #[test]
    fn oversized_expressions_are_refused() {
        assert!(compile(r"(?:[a-z]{1,1000}){1,1000}").is_err());
    }
}
