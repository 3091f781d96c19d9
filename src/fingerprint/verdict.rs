//! What goes into a classification and what comes out of it.

use std::sync::Arc;

use super::category::Category;
use crate::smtp::{Certificate, Stage, Transcript};

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replies([Option<Vec<u8>>; Stage::ALL.len()]);

impl Replies {
    /// Sets what was said at a stage.
    pub fn set(&mut self, stage: Stage, reply: Vec<u8>) {
        self.0[stage as usize] = (!reply.is_empty()).then_some(reply);
    }

    /// Whether nothing was said at any stage.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The server's bytes of every stage of a dialogue.
    pub fn of(transcript: &Transcript) -> Self {
        let mut replies = Self::default();
        for (slot, &stage) in replies.0.iter_mut().zip(Stage::ALL) {
            *slot = transcript.server(stage);
        }
        replies
    }

    /// The same with the server's certificate, told in text, as what was seen at [`Stage::Tls`].
    #[must_use]
    pub fn with_certificate(mut self, certificate: Option<&Certificate>) -> Self {
        self.0[Stage::Tls as usize] = certificate.map(|seen| seen.text().into_bytes());
        self
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

/// One thing that spoke for the verdict, or about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The stage whose reply matched.
    pub stage: Stage,
    /// The pattern's identifier, `product/stage/number`; behind [`CLAIM`] or [`FRONT`] one of
    /// another product; [`SELF_DECLARED`] where no rule was needed.
    pub rule: Arc<str>,
    /// The text it matched, as the pattern saw it (host names may read `<host>`).
    pub matched: Arc<str>,
    /// The pattern's weight in bits; negative where it spoke against the verdict, 0 where it spoke
    /// neither for nor against it.
    pub weight: f64,
}

/// Begins the rule of evidence that the greeting claims another product, against the behaviour.
pub const CLAIM: &str = "contradicted: ";

/// Begins the rule of evidence for a proxy in front of the server.
pub const FRONT: &str = "in front: ";

/// The rule of evidence that is nothing but the server's own plain words.
pub const SELF_DECLARED: &str = "self-declared";

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
    /// The package that the version came in, such as `Debian-2+deb12u2`.
    pub package: Option<String>,
    /// The build's number or date.
    pub build: Option<String>,
    /// The release by the name its vendor gives it, such as `Exchange Server 2016 CU23`.
    pub release: Option<String>,
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
    /// The products seen at once, outermost first, where there are two: a proxy, and `product`.
    pub layers: Vec<String>,
    /// The product that the greeting claims, where the behaviour is `product`'s.
    pub contradiction: Option<String>,
    /// Whether `product` is no rule's, but what the greeting plainly calls itself.
    pub self_declared: bool,
    /// What spoke for `product`, strongest first, then what else is to be known of it.
    pub evidence: Vec<Evidence>,
    /// For the unknown: the normalised greeting.
    pub cluster: Option<String>,
}

impl Verdict {
    /// Sets what the evidence tells beside the product: layers, contradiction, self-declaration. For
    /// verdicts that were stored.
    pub(crate) fn read_marks(&mut self) {
        let product_of = |rule: &str| rule.rsplitn(3, '/').nth(2).map(str::to_owned);
        for evidence in &self.evidence {
            if let Some(rule) = evidence.rule.strip_prefix(CLAIM) {
                self.contradiction = product_of(rule);
            } else if let Some(rule) = evidence.rule.strip_prefix(FRONT) {
                self.layers = product_of(rule)
                    .into_iter()
                    .chain(self.product.clone())
                    .collect();
            } else if &*evidence.rule == SELF_DECLARED {
                self.self_declared = true;
            }
        }
    }
}

/// One pattern that matched, whether or not its product won.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The product the pattern speaks for, or the protocol that is not mail.
    pub product: String,
    /// The pattern's identifier.
    pub rule: Arc<str>,
    /// The stage whose reply matched.
    pub stage: Stage,
    /// The text it matched, as the pattern saw it.
    pub matched: Arc<str>,
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
