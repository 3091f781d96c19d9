//! How evidence becomes a probability.
//!
//! A pattern's weight `w` is a log2 likelihood ratio in bits: how much more often the pattern
//! matches a reply of its product than a reply of any other server, `w = log2(P(match | product) /
//! P(match | other))`. Ten bits: a thousand times; twenty: a million.
//!
//! Patterns of one stage look at the same text and are anything but independent, so of each stage
//! only the strongest counts; stages are added as in naive Bayes. Every product starts with the
//! same prior of −[`PRIOR_BITS`] against the hypothesis *none of these*, which has 0 bits. With
//! `s = Σ weights − PRIOR_BITS` for each product that had a match,
//!
//! ```text
//! confidence(p) = 2^s(p) / (1 + Σ over all q of 2^s(q))
//! ```
//!
//! and the most probable product is the verdict if its confidence reaches [`THRESHOLD`]. Two
//! products that match equally well share the probability and neither is named.

use crate::smtp::Stage;

/// Prior odds against any one product, in bits: one in 128.
pub const PRIOR_BITS: f64 = 7.0;

/// The confidence below which a server stays unknown.
pub const THRESHOLD: f64 = 0.5;

/// Stages whose evidence is added.
const STAGES: usize = Stage::ALL.len();

/// The evidence for one product while it is gathered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    /// Index of the product in the rule set.
    pub(super) product: usize,
    strongest: [f64; STAGES],
}

impl Tally {
    /// A product without evidence.
    pub(super) const fn new(product: usize) -> Self {
        Self {
            product,
            strongest: [0.0; STAGES],
        }
    }

    /// Takes note of a match: `stage` as the index in `Stage::ALL`, `weight` in bits.
    pub(super) fn add(&mut self, stage: usize, weight: f64) {
        self.strongest[stage] = self.strongest[stage].max(weight);
    }

    /// Whether a weight is the one that counts at its stage.
    pub(super) fn counts(&self, stage: usize, weight: f64) -> bool {
        self.strongest[stage] <= weight
    }

    /// The sum over the stages, in bits.
    pub(super) fn bits(&self) -> f64 {
        self.strongest.iter().sum()
    }
}

/// The posterior probability of each tally, in their order.
pub(super) fn posterior(tallies: &[Tally]) -> Vec<f64> {
    // Weights are at most 30 bits each (rule::MAX_WEIGHT), so nothing overflows.
    let likelihoods: Vec<f64> = tallies
        .iter()
        .map(|t| (t.bits() - PRIOR_BITS).exp2())
        .collect();
    let all: f64 = 1.0 + likelihoods.iter().sum::<f64>();
    likelihoods.into_iter().map(|l| l / all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(product: usize, weights: &[(usize, f64)]) -> Tally {
        let mut tally = Tally::new(product);
        for &(stage, weight) in weights {
            tally.add(stage, weight);
        }
        tally
    }

    #[test]
    fn the_strongest_of_a_stage_counts_and_stages_add() {
        let tally = tally(0, &[(0, 5.0), (0, 12.0), (0, 7.0), (1, 4.0)]);
        assert!((tally.bits() - 16.0).abs() < 1e-9);
        assert!(tally.counts(0, 12.0) && !tally.counts(0, 7.0) && tally.counts(1, 4.0));
    }

    #[test]
    fn the_prior_is_where_evidence_starts_to_name() {
        let even = posterior(&[tally(0, &[(0, PRIOR_BITS)])]);
        assert!((even[0] - 0.5).abs() < 1e-9);
        assert!(posterior(&[tally(0, &[(0, PRIOR_BITS - 1.0)])])[0] < THRESHOLD);
        assert!(posterior(&[tally(0, &[(0, 17.0)])])[0] > 0.99);
    }

    #[test]
    fn equal_claims_cancel() {
        let both = posterior(&[tally(0, &[(0, 17.0)]), tally(1, &[(0, 17.0)])]);
        assert!(both[0] < THRESHOLD && both[1] < THRESHOLD);
        assert!(posterior(&[tally(0, &[(0, 20.0)]), tally(1, &[(0, 12.0)])])[0] > 0.99);
    }
}
