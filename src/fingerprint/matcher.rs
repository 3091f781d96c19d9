//! Which patterns match a reply: one pass over the reply, however many patterns there are.
//!
//! An automaton of Aho and Corasick (CACM 18, 1975) finds the literals of all patterns of a stage in
//! one pass ([`super::literal`]); only the expressions whose literal was found are run, each in time
//! linear in the reply. Expressions without a literal worth looking for are run always; they are few,
//! and `rules check` counts them. Compared with one regular-expression set for all patterns this
//! loads faster (nothing but the automaton is built; expressions compile at their first candidate)
//! and needs no table that a peer could make grow: `docs/fingerprinting.md` has the figures.
//!
//! Servers of one kind say the same, once their host names are masked. [`Scratch`] remembers what
//! matched a masked reply, in a table of fixed size: a hit is compared octet by octet, so that no
//! peer can pass for another.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};

use super::error::RuleError;
use super::literal;
use super::rule::{Captured, Pattern};
use super::view::View;
use crate::smtp::Stage;

/// Places in the memory of replies, a power of two.
const PLACES: usize = 4096;

/// Octets of a reply that is remembered at most: the memory takes some 8 MiB when it is full of
/// such replies, and a tenth of that for real ones.
const MAX_REMEMBERED: usize = 1024;

/// What a pattern found: the text and the captures.
pub(super) type Found = Option<(Arc<str>, Captured)>;

/// A pattern that matched, and what it captured once somebody wanted to know.
#[derive(Debug)]
pub(super) struct Hit {
    /// The index of the pattern.
    pub(super) pattern: usize,
    /// What it found, taken at first need.
    found: OnceLock<Found>,
}

impl Hit {
    /// The text matched and the captures.
    pub(super) fn found(&self, pattern: &Pattern, view: &View) -> &Found {
        self.found.get_or_init(|| {
            let (matched, captured) = pattern.find(view.text(pattern.sees_host))?;
            Some((matched.into(), captured))
        })
    }
}

/// The patterns of one stage and view.
#[derive(Debug)]
pub(super) struct Matcher {
    literals: Option<AhoCorasick>,
    /// For each literal the patterns that need it.
    owners: Vec<Vec<u32>>,
    /// Patterns that need no literal.
    always: Vec<u32>,
}

impl Matcher {
    /// The matcher of those patterns, given by index; `None` if there are none.
    pub(super) fn new(
        stage: Stage,
        patterns: &[Pattern],
        members: impl Iterator<Item = usize>,
    ) -> Result<Option<Self>, RuleError> {
        let mut by_literal: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut always = Vec::new();
        for index in members {
            // A rule set has far fewer than 2^32 patterns: it is read from files in memory.
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            match needed(&patterns[index]) {
                Some(literals) => {
                    for literal in literals {
                        by_literal.entry(literal).or_default().push(number);
                    }
                }
                None => always.push(number),
            }
        }
        if by_literal.is_empty() && always.is_empty() {
            return Ok(None);
        }
        let (literals, owners): (Vec<_>, Vec<_>) = by_literal.into_iter().unzip();
        let literals = if literals.is_empty() {
            None
        } else {
            let automaton = AhoCorasickBuilder::new()
                .ascii_case_insensitive(true)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(&literals)
                .map_err(|e| RuleError::TooLarge {
                    stage: stage.name(),
                    reason: e.to_string(),
                })?;
            Some(automaton)
        };
        Ok(Some(Self {
            literals,
            owners,
            always,
        }))
    }

    /// Hands over every pattern whose expression may match the text, each once.
    fn candidates(&self, text: &[u8], seen: &mut Seen, mut take: impl FnMut(usize)) {
        seen.forget();
        for &index in &self.always {
            take(index as usize);
        }
        let Some(literals) = &self.literals else {
            return;
        };
        for found in literals.find_overlapping_iter(text) {
            for &index in &self.owners[found.pattern().as_usize()] {
                if seen.first_time(index as usize) {
                    take(index as usize);
                }
            }
        }
    }
}

/// The literals of which one is in every text that a pattern matches.
pub(super) fn needed(pattern: &Pattern) -> Option<Vec<String>> {
    let literals = literal::required(&pattern.text);
    if literals.is_some() || !matches!(pattern.stage, Stage::Ehlo | Stage::TlsEhlo) {
        return literals;
    }
    let keyword = pattern.conditions.required_keyword()?;
    (keyword.len() >= 3).then(|| vec![format!("\n{}", keyword.to_ascii_lowercase())])
}

/// Which patterns were met in the current reply.
#[derive(Debug, Default)]
struct Seen {
    marks: Vec<u32>,
    now: u32,
}

impl Seen {
    fn forget(&mut self) {
        self.now = self.now.wrapping_add(1);
        if self.now == 0 {
            self.marks.fill(0);
            self.now = 1;
        }
    }

    fn first_time(&mut self, index: usize) -> bool {
        let first = self.marks[index] != self.now;
        self.marks[index] = self.now;
        first
    }
}

/// A reply that was met before.
#[derive(Debug)]
struct Remembered {
    stage: Stage,
    text: Box<[u8]>,
    hits: Arc<[Hit]>,
}

/// Working memory of one thread: marks, and the memory of replies.
#[derive(Debug)]
pub(super) struct Scratch {
    seen: Seen,
    places: Vec<Option<Remembered>>,
}

impl Scratch {
    /// Working memory for so many patterns; `remember` replies or judge each anew.
    pub(super) fn new(patterns: usize, remember: bool) -> Self {
        let mut places = Vec::new();
        places.resize_with(if remember { PLACES } else { 0 }, || None);
        Self {
            seen: Seen {
                marks: vec![0; patterns],
                now: 0,
            },
            places,
        }
    }

    /// The patterns of a stage's masked view that match, from memory if the same was met before.
    pub(super) fn masked(
        &mut self,
        matcher: &Matcher,
        patterns: &[Pattern],
        stage: Stage,
        view: &View,
    ) -> Arc<[Hit]> {
        let text = view.masked.as_slice();
        if self.places.is_empty() || text.len() > MAX_REMEMBERED {
            return self.run(matcher, patterns, text);
        }
        let place = hash(stage, text) % self.places.len();
        if let Some(known) = &self.places[place]
            && known.stage == stage
            && *known.text == *text
        {
            return Arc::clone(&known.hits);
        }
        let hits = self.run(matcher, patterns, text);
        self.places[place] = Some(Remembered {
            stage,
            text: text.into(),
            hits: Arc::clone(&hits),
        });
        hits
    }

    /// The patterns of a stage's raw view that match.
    pub(super) fn raw(
        &mut self,
        matcher: &Matcher,
        patterns: &[Pattern],
        view: &View,
    ) -> Arc<[Hit]> {
        self.run(matcher, patterns, &view.raw)
    }

    fn run(&mut self, matcher: &Matcher, patterns: &[Pattern], text: &[u8]) -> Arc<[Hit]> {
        let mut hits = Vec::new();
        matcher.candidates(text, &mut self.seen, |index| {
            let matches =
                |p: &Pattern| p.text.is_empty() || p.regex().is_some_and(|r| r.is_match(text));
            if matches(&patterns[index]) {
                hits.push(Hit {
                    pattern: index,
                    found: OnceLock::new(),
                });
            }
        });
        hits.sort_unstable_by_key(|hit| hit.pattern);
        hits.into()
    }
}

/// A hash for the table of replies (multiply and rotate, after Fowler's FxHash). It needs no
/// defence against collisions: a collision only forgets.
fn hash(stage: Stage, text: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (stage as u64 + 1).wrapping_mul(ODD) ^ text.len() as u64;
    let mut chunks = text.chunks_exact(8);
    let mut mix = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(ODD);
    for chunk in &mut chunks {
        mix(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(u64::from_le_bytes(last));
    usize::try_from(hash >> 40).unwrap_or(0)
}
