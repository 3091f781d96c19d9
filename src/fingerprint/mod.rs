//! From what a server said to which product it is, with the evidence for it.
//!
//! Rules are data: `rules/*.toml`, one file per product family, compiled into the program and
//! replaceable by a directory ([`RuleSet::load`]). `docs/rules.md` explains how to write one. This
//! module reads them ([`Product`], [`Pattern`]), proves them ([`RuleSet::check`]) and applies them
//! ([`RuleSet::classify`], [`RuleSet::explain`]).
//!
//! Three ideas carry it:
//!
//! - **Views.** Patterns do not see wire bytes but a normalised view of a reply (`view`): one code,
//!   single blanks, one line per `\n`, and every host name replaced by `<host>`, so that
//!   `220 postfix.example.com ESMTP` cannot name a product by accident.
//! - **One pass per stage.** One automaton finds the literals of all patterns of a stage; only
//!   expressions whose literal is there are run, and captures are taken only from those that matched.
//!   Time is linear in the reply's length whatever a peer sends.
//! - **Weights are bits.** A weight is a log2 likelihood ratio; `decide` adds the strongest of each
//!   stage and turns the sums into a posterior probability.
//!
//! Pure: bytes in, verdict out; no socket, no clock. Only [`RuleSet::load`] reads files.

mod builtin;
mod category;
mod check;
mod classify;
mod condition;
mod decide;
mod declared;
mod error;
mod literal;
mod matcher;
mod normalise;
mod passive;
mod record;
mod release;
mod rule;
mod ruleset;
mod source;
mod suggest;
mod verdict;
mod view;

pub use category::Category;
pub use check::Problem;
pub use classify::Classifier;
pub use decide::{PRIOR_BITS, THRESHOLD};
pub use error::RuleError;
pub use normalise::normalise_greeting;
pub use passive::SynAck;
pub use record::{Record, RecordError};
pub use rule::{Captured, Example, NotMail, Pattern, Product};
pub use ruleset::{Listing, RuleSet};
pub use suggest::{behaviour, draft};
pub use verdict::{
    CLAIM, Candidate, Evidence, Explanation, FRONT, Match, Observation, Replies, SELF_DECLARED,
    Verdict,
};
