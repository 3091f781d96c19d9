//! Several probes a target, spaced in time: passes over the same shard, one behind the other.
//!
//! Loss comes in bursts, so a second probe right behind the first is lost with it. Here every pass
//! walks the same shard in the same order, either after the pass before has ended or some time
//! behind it. Nothing is remembered of single targets: a pass is a place in the walk, and how far a
//! pass may go follows from some marks, "so many steps were done at that time", of the pass before.
//!
//! The clock is the caller's. Whoever asks for more targets says `now`; by then, all that were
//! handed out before count as sent.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Cursor, CursorError, Permutation, Shard, Space, Target, Walk, WalkError};

/// How far apart the probes of one target are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spacing {
    /// Whether a pass begins only after the one before has ended.
    pub full_pass: bool,
    /// The least time between two probes of a target. It is kept to the sixty-fourth part: no
    /// probe is early, and none later than that as long as nothing else holds it up.
    pub at_least: Duration,
}

impl Spacing {
    /// A full pass apart, however long that takes.
    pub const FULL_PASS: Self = Self {
        full_pass: true,
        at_least: Duration::ZERO,
    };

    /// That time apart, or as soon as the pass before allows.
    pub const fn time(at_least: Duration) -> Self {
        Self {
            full_pass: false,
            at_least,
        }
    }
}

/// What [`Passes::fill`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Appended so many targets, at least one.
    Targets(usize),
    /// Appended none: the next repeats are due then.
    NotBefore(Instant),
    /// Appended none: all passes are done.
    Done,
}

/// N passes over the targets of one shard.
///
/// A clone made before a [`Passes::fill`] and filled at the same instant with fewer targets takes
/// the first of the same ones: so the place behind any target of a batch can be had.
#[derive(Debug, Clone)]
pub struct Passes {
    passes: Vec<Pass>,
    spacing: Spacing,
}

#[derive(Debug, Clone)]
struct Pass {
    walk: Walk,
    /// By when how many steps were done, ascending in both, for the pass behind. What that one has
    /// already been allowed is gone.
    marks: VecDeque<(Instant, u64)>,
    /// The last mark that was set.
    marked: Option<(Instant, u64)>,
    /// Up to which step this pass may go.
    allowed: u64,
}

/// Marks within the spacing.
const MARKS: u32 = 64;

impl Passes {
    /// So many passes over `shard` of the space (at least one), from the beginning or from where the
    /// cursor stands. After a cursor the repeats keep their distance from the new start.
    ///
    /// # Errors
    /// As [`Walk::new`], and [`WalkError::OtherPasses`] if the cursor is of another number of
    /// passes.
    pub fn new(
        space: &Arc<Space>,
        permutation: &Permutation,
        shard: Shard,
        count: u8,
        spacing: Spacing,
        cursor: Option<&PassesCursor>,
    ) -> Result<Self, WalkError> {
        let count = usize::from(count.max(1));
        if let Some(cursor) = cursor
            && cursor.places() != count
        {
            return Err(WalkError::OtherPasses {
                cursor: cursor.places(),
                passes: count,
            });
        }
        let pass = |at: usize| {
            let cursor = cursor.map(|cursor| cursor.place(at));
            let walk = Walk::new(Arc::clone(space), permutation, shard, cursor.as_ref())?;
            Ok::<_, WalkError>(Pass {
                // The first may go as far as it likes.
                allowed: if at == 0 { walk.steps() } else { walk.done() },
                walk,
                marks: VecDeque::new(),
                marked: None,
            })
        };
        Ok(Self {
            passes: (0..count).map(pass).collect::<Result<_, _>>()?,
            spacing,
        })
    }

    /// Appends the next targets, at most `max` (at least 1), all of one pass: repeats that are due
    /// before anything new. What was handed out before must have been sent by `now`.
    pub fn fill(&mut self, now: Instant, targets: &mut Vec<Target>, max: usize) -> Filled {
        debug_assert!(max > 0, "room for nothing is a wait for ever");
        loop {
            self.allow(now);
            for pass in self.passes.iter_mut().rev() {
                let count = pass.walk.fill_to(targets, max.max(1), pass.allowed);
                if count > 0 {
                    return Filled::Targets(count);
                }
            }
            if self.is_done() {
                return Filled::Done;
            }
            // The first pass that is not done waits for time to go by since a mark of the one
            // before it. Without a mark, that one has just come to its end, over steps that have no
            // target: the next round sets the mark.
            let marks = self.passes.iter().filter_map(|pass| pass.marks.front());
            let due = marks.map(|&(at, _)| at + self.spacing.at_least).min();
            if let Some(due) = due.filter(|due| *due > now) {
                return Filled::NotBefore(due);
            }
        }
    }

    /// Lets every pass go as far as the one before was a spacing ago.
    fn allow(&mut self, now: Instant) {
        let Spacing {
            full_pass,
            at_least,
        } = self.spacing;
        for at in 1..self.passes.len() {
            let (before, rest) = self.passes.split_at_mut(at);
            let (before, pass) = (&mut before[at - 1], &mut rest[0]);
            if !full_pass || before.walk.remaining() == 0 {
                before.mark(now, at_least / MARKS);
            }
            while let Some(&(when, done)) = before.marks.front()
                && when + at_least <= now
            {
                pass.allowed = done;
                before.marks.pop_front();
            }
        }
    }

    fn is_done(&self) -> bool {
        self.passes.iter().all(|pass| pass.walk.remaining() == 0)
    }

    /// The places of all passes.
    pub fn cursor(&self) -> PassesCursor {
        let (first, repeats) = (&self.passes[0], &self.passes[1..]);
        PassesCursor {
            first: first.walk.cursor(),
            repeats: repeats.iter().map(|pass| pass.walk.done()).collect(),
        }
    }

    /// How many passes there are.
    pub fn count(&self) -> usize {
        self.passes.len()
    }

    /// The share of all passes that is done, 0 ..= 1.
    pub fn progress(&self) -> f64 {
        let each = self.passes.iter().map(|pass| pass.walk.progress());
        each.sum::<f64>() / self.passes.len() as f64
    }
}

impl Pass {
    /// Notes where the pass stands, unless it was noted less than `apart` ago; always at its end.
    fn mark(&mut self, now: Instant, apart: Duration) {
        let done = self.walk.done();
        let is_due = match self.marked {
            None => done > 0,
            Some((_, before)) if before == done => false,
            Some((when, _)) => self.walk.remaining() == 0 || now >= when + apart,
        };
        if is_due {
            self.marks.push_back((now, done));
            self.marked = Some((now, done));
        }
    }
}

/// The places of all passes of a [`Passes`], as one token: the [`Cursor`] of the first, and for
/// each repeat `+` and the steps that it has done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PassesCursor {
    first: Cursor,
    repeats: Vec<u64>,
}

impl PassesCursor {
    /// The place of the first pass: with one pass, all there is.
    pub fn first(&self) -> &Cursor {
        &self.first
    }

    fn places(&self) -> usize {
        self.repeats.len() + 1
    }

    /// The place of the pass at `at`.
    fn place(&self, at: usize) -> Cursor {
        let mut cursor = self.first.clone();
        if at > 0 {
            cursor.done = self.repeats[at - 1];
        }
        cursor
    }
}

impl fmt::Display for PassesCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.repeats
            .iter()
            .try_for_each(|done| write!(f, "+{done}"))
    }
}

impl FromStr for PassesCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let mut parts = text.trim().split('+');
        let first = parts.next().unwrap_or_default().parse()?;
        let repeat = |part: &str| {
            let done = super::cursor::number(part);
            done.ok_or(CursorError::Part { part: "repeats" })
        };
        Ok(Self {
            first,
            repeats: parts.map(repeat).collect::<Result<_, _>>()?,
        })
    }
}

impl From<PassesCursor> for String {
    fn from(cursor: PassesCursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for PassesCursor {
    type Error = CursorError;

    fn try_from(text: String) -> Result<Self, CursorError> {
        text.parse()
    }
}

#[cfg(test)]
#[path = "passes_tests.rs"]
mod tests;
