//! What goes into a classification and what comes out of it.

use super::category::Category;
use crate::smtp::{Stage, Transcript};

/// What a server said, stage by stage: raw bytes with their reply codes, nothing where the dialogue
/// did not come to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observation<'a>([Option<&'a [u8]>; Stage::ALL.len()]);

impl<'a> Observation<'a> {
    /// An observation of a single stage.
    pub fn only(stage: Stage, reply: &'a [u8]) -> Self {
        Self::default().with(stage, reply)
    }

    /// The same with the reply of one more stage; an empty reply counts as none.
    #[must_use]
    pub fn with(mut self, stage: Stage, reply: &'a [u8]) -> Self {
        self.0[stage as usize] = (!reply.is_empty()).then_some(reply);
        self
    }

    /// The reply of a stage.
    pub const fn reply(&self, stage: Stage) -> Option<&'a [u8]> {
        self.0[stage as usize]
    }
}

/// The server's side of a transcript, in owned bytes; [`Replies::observation`] borrows it.
#[derive(Debug, Clone, Default)]
pub struct Replies([Option<Vec<u8>>; Stage::ALL.len()]);

impl Replies {
    /// The server's bytes of every stage of a dialogue.
    pub fn of(transcript: &Transcript) -> Self {
        let mut replies = Self::default();
        for (slot, &stage) in replies.0.iter_mut().zip(Stage::ALL) {
            *slot = transcript.server(stage);
        }
        replies
    }

    /// The view that [`classify`](super::RuleSet::classify) takes.
    pub fn observation(&self) -> Observation<'_> {
        let mut observation = Observation::default();
        for (slot, reply) in observation.0.iter_mut().zip(&self.0) {
            *slot = reply.as_deref();
        }
        observation
    }
}

/// One pattern that spoke for the verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The stage whose reply matched.
    pub stage: Stage,
    /// The pattern's identifier, `product/stage/number`.
    pub rule: String,
    /// The text it matched, as the pattern saw it (host names may read `<host>`).
    pub matched: String,
    /// The pattern's weight in bits.
    pub weight: f64,
}

/// Which product a server is, and why we think so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// The product's canonical name; `None` when nothing speaks clearly enough for any.
    pub product: Option<String>,
    /// The product's vendor.
    pub vendor: Option<String>,
    /// The family the product is counted under.
    pub family: Option<String>,
    /// The version the server states, without suffixes of packages.
    pub version: Option<String>,
    /// A patch level stated apart from the version.
    pub patch: Option<String>,
    /// The product's kind.
    pub category: Option<Category>,
    /// Probability that `product` is right, between 0 and 1; 0 without a product.
    pub confidence: f64,
    /// The name the server calls itself by.
    pub hostname: Option<String>,
    /// The operating system the text tells of.
    pub os: Option<String>,
    /// Whether a mail server spoke, named or not.
    pub is_smtp: bool,
    /// What spoke instead of a mail server, if that is known (`FTP`, `SSH`, …).
    pub protocol: Option<String>,
    /// The patterns that spoke for `product`, strongest first.
    pub evidence: Vec<Evidence>,
    /// For the unknown: the normalised greeting.
    pub cluster: Option<String>,
}

/// One pattern that matched, whether or not its product won.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The product the pattern speaks for, or the protocol that is not mail.
    pub product: String,
    /// The pattern's identifier.
    pub rule: String,
    /// The stage whose reply matched.
    pub stage: Stage,
    /// The text it matched, as the pattern saw it.
    pub matched: String,
    /// The pattern's weight in bits.
    pub weight: f64,
    /// Whether the weight was counted: only the strongest of a product and stage is.
    pub counted: bool,
}

/// A product for which at least one pattern matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The product's canonical name.
    pub product: String,
    /// The sum of its counted weights in bits, before the prior.
    pub bits: f64,
    /// Its posterior probability.
    pub confidence: f64,
}

/// A verdict with everything that was weighed for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The verdict itself.
    pub verdict: Verdict,
    /// Every pattern that matched, in the order of stages, strongest first.
    pub matches: Vec<Match>,
    /// Every product considered, most probable first.
    pub candidates: Vec<Candidate>,
}

impl Explanation {
    /// The most probable product that is not the verdict's.
    pub fn runner_up(&self) -> Option<&Candidate> {
        let winner = self.verdict.product.as_deref();
        self.candidates
            .iter()
            .find(|c| Some(c.product.as_str()) != winner)
    }
}
