//! How evidence becomes a verdict and its probability.
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
//! posterior(p) = 2^s(p) / (1 + Σ over all q of 2^s(q))
//! ```
//!
//! and the most probable product is the verdict if its posterior reaches [`THRESHOLD`]. Two
//! products that match equally well share the probability and neither is named. Three things bend
//! the plain sum, each because the sum would be wrong without it:
//!
//! - **Made of.** A product that is made of another behaves like it. Where it has a match of its own,
//!   it takes over what speaks for the other at the stages where nothing speaks for itself.
//! - **In front.** A proxy and the server behind it both speak. They do not compete: the server is
//!   the verdict, both are its layers.
//! - **Contradiction.** A greeting is one line of configuration. Where the behaviour of a session
//!   speaks for another product than its greeting claims, and the claimed one is known to behave
//!   otherwise, the claim counts [`CLAIM_BITS`] at most.
//!
//! `docs/fingerprinting.md` argues all of this; [`calibrated`] turns the posterior into the
//! confidence of a verdict.

use super::category::Category;
use super::rule::Product;
use crate::smtp::Stage;

/// Prior odds against any one product, in bits: one in 128.
pub const PRIOR_BITS: f64 = 7.0;

/// The confidence below which a server stays unknown.
pub const THRESHOLD: f64 = 0.5;

/// What a contradicted claim counts at most: less than any two independent signs of behaviour.
const CLAIM_BITS: f64 = 8.0;

/// Behaviour this strong contradicts a claim, where the claimed product is known to behave
/// otherwise: it would name its product by itself.
const CONTRADICTING_BITS: f64 = 10.0;

/// Behaviour this strong, at two stages or more, contradicts a claim of which no behaviour is known.
const OVERWHELMING_BITS: f64 = 22.0;

/// Evidence a proxy, and the server behind it, need each to be seen as two layers.
const LAYER_BITS: f64 = 10.0;

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

    /// What the greeting says, in bits.
    fn claim(&self) -> f64 {
        self.strongest[Stage::Greeting as usize]
    }

    /// What all else says, in bits.
    fn behaviour(&self) -> f64 {
        self.bits() - self.claim()
    }

    /// The stages beside the greeting at which something speaks for it.
    fn behaving(&self) -> impl Iterator<Item = usize> {
        (0..STAGES).filter(|&s| s != Stage::Greeting as usize && self.strongest[s] > 0.0)
    }
}

/// What follows from the tallies.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// The bits of each tally as they were counted, before the prior.
    pub(super) bits: Vec<f64>,
    /// The posterior probability of each tally.
    pub(super) posterior: Vec<f64>,
    /// The tally of the verdict.
    pub(super) winner: Option<usize>,
    /// The tally whose product the greeting claims against the behaviour.
    pub(super) contradicted: Option<usize>,
    /// The tally of the proxy in front of the verdict's server.
    pub(super) front: Option<usize>,
}

impl Decision {
    /// Weighs the tallies of one session.
    pub(super) fn of(tallies: &[Tally], products: &[Product]) -> Self {
        if tallies.is_empty() {
            return Self::default();
        }
        let mut counted = tallies.to_vec();
        inherit(&mut counted, products);
        let front = front(&counted, products);
        let contradicted = contradicted(&counted, products, front);
        let bits: Vec<f64> = counted
            .iter()
            .enumerate()
            .map(|(i, t)| {
                if contradicted == Some(i) {
                    t.behaviour() + t.claim().min(CLAIM_BITS)
                } else {
                    t.bits()
                }
            })
            .collect();
        let posterior = posterior(&bits, front);
        let winner = (0..tallies.len())
            .filter(|&i| Some(i) != front)
            .max_by(|&a, &b| posterior[a].total_cmp(&posterior[b]))
            .filter(|&best| posterior[best] >= THRESHOLD);
        Self {
            contradicted: contradicted.filter(|&c| winner.is_some() && winner != Some(c)),
            front: front.filter(|_| winner.is_some()),
            bits,
            posterior,
            winner,
        }
    }
}

/// A product made of another takes over what speaks for that one at stages where it has nothing, if
/// something of its own would name it. A hint that both share must not: every Sendmail would half be
/// each product that was made of it.
fn inherit(tallies: &mut [Tally], products: &[Product]) {
    for at in 0..tallies.len() {
        if tallies[at].strongest.iter().all(|&own| own <= PRIOR_BITS) {
            continue;
        }
        let mut ancestor = products[tallies[at].product].based_on;
        while let Some(index) = ancestor {
            if let Some(other) = tallies.iter().find(|t| t.product == index).copied() {
                for (own, theirs) in tallies[at].strongest.iter_mut().zip(other.strongest) {
                    if *own <= 0.0 {
                        *own = theirs;
                    }
                }
            }
            ancestor = products[index].based_on;
        }
    }
}

/// The proxy that stands in front of another server, both well seen at stages of their own.
fn front(tallies: &[Tally], products: &[Product]) -> Option<usize> {
    let is_proxy = |t: &Tally| products[t.product].category == Category::Proxy;
    let front = (0..tallies.len())
        .filter(|&i| is_proxy(&tallies[i]) && tallies[i].bits() >= LAYER_BITS)
        .max_by(|&a, &b| tallies[a].bits().total_cmp(&tallies[b].bits()))?;
    let behind = tallies.iter().any(|t| {
        let apart = (0..STAGES)
            .filter(|&s| tallies[front].strongest[s] <= 0.0)
            .map(|s| t.strongest[s])
            .sum::<f64>();
        !is_proxy(t) && apart >= LAYER_BITS
    });
    behind.then_some(front)
}

/// The tally that the greeting claims and the behaviour belies.
fn contradicted(tallies: &[Tally], products: &[Product], front: Option<usize>) -> Option<usize> {
    let claimed = (0..tallies.len())
        .filter(|&i| Some(i) != front && tallies[i].claim() > 0.0)
        .max_by(|&a, &b| tallies[a].claim().total_cmp(&tallies[b].claim()))?;
    let claim = &tallies[claimed];
    let belied = tallies.iter().enumerate().any(|(i, other)| {
        if i == claimed || Some(i) == front || related(products, claim.product, other.product) {
            return false;
        }
        let lead = other.behaviour() - claim.behaviour();
        let known = products[claim.product].known;
        // A greeting that claims nothing of the other, and stages at which the claimed product
        // would have been recognised.
        let otherwise = other
            .behaving()
            .any(|s| known & (1 << s) != 0 && claim.strongest[s] <= 0.0);
        (otherwise && lead >= CONTRADICTING_BITS)
            || (lead >= OVERWHELMING_BITS && other.behaving().count() >= 2)
    });
    belied.then_some(claimed)
}

/// Whether two products are of one family or one is made of the other: no contradiction.
fn related(products: &[Product], one: usize, other: usize) -> bool {
    let made_of = |mut product: usize, wanted: usize| {
        while let Some(base) = products[product].based_on {
            if base == wanted {
                return true;
            }
            product = base;
        }
        false
    };
    products[one].family == products[other].family || made_of(one, other) || made_of(other, one)
}

/// The posterior probability of each, in their order; one that only stands in front does not
/// compete with the others, but for itself.
fn posterior(bits: &[f64], front: Option<usize>) -> Vec<f64> {
    // Weights are at most 30 bits each (rule::MAX_WEIGHT), so nothing overflows.
    let likelihoods: Vec<f64> = bits.iter().map(|b| (b - PRIOR_BITS).exp2()).collect();
    let competing = |i: usize| Some(i) != front;
    let all: f64 = 1.0
        + (0..bits.len())
            .filter(|&i| competing(i))
            .map(|i| likelihoods[i])
            .sum::<f64>();
    (0..bits.len())
        .map(|i| {
            if competing(i) {
                likelihoods[i] / all
            } else {
                likelihoods[i] / (1.0 + likelihoods[i])
            }
        })
        .collect()
}

/// Log odds of a posterior, in bits, and the share of such verdicts that is right: the isotonic fit
/// of `smtpsweep rules accuracy` on replies whose own rules had been taken away, where it has
/// verdicts (5 and 13 bits), the posterior itself below, and no more than they bear out above.
const CALIBRATION: &[(f64, f64)] = &[
    (0.0, 0.5),
    (3.0, 0.889),
    (5.4, 0.926),
    (12.8, 0.993),
    (20.0, 0.995),
];

/// The confidence that stands for a posterior: between the points of the calibration in a straight
/// line over the log odds.
pub(super) fn calibrated(posterior: f64) -> f64 {
    let odds = (posterior / (1.0 - posterior).max(1e-12)).log2();
    let above = CALIBRATION.partition_point(|(bits, _)| *bits <= odds);
    let (Some(&low), high) = (CALIBRATION[..above].last(), CALIBRATION.get(above)) else {
        return posterior.min(CALIBRATION[0].1);
    };
    high.map_or(low.1, |high| {
        low.1 + (high.1 - low.1) * (odds - low.0) / (high.0 - low.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(
        name: &str,
        category: Category,
        known: &[Stage],
        based_on: Option<usize>,
    ) -> Product {
        Product {
            name: name.into(),
            vendor: None,
            category,
            family: name.into(),
            homepage: None,
            cpe: None,
            os: None,
            based_on,
            known: known.iter().map(|&s| 1 << s as u32).sum(),
            file: "x.toml".into(),
            line: 1,
        }
    }

    fn tally(product: usize, weights: &[(Stage, f64)]) -> Tally {
        let mut tally = Tally::new(product);
        for &(stage, weight) in weights {
            tally.add(stage as usize, weight);
        }
        tally
    }

    fn servers() -> Vec<Product> {
        use Stage::{Ehlo, Greeting, Unknown};
        vec![
            product(
                "Foo",
                Category::OpenSource,
                &[Greeting, Ehlo, Unknown],
                None,
            ),
            product(
                "Bar",
                Category::OpenSource,
                &[Greeting, Ehlo, Unknown],
                None,
            ),
            product("Bannerless", Category::OpenSource, &[Greeting], None),
            product("Proxy", Category::Proxy, &[Greeting, Ehlo], None),
            product("FooPlus", Category::Commercial, &[Greeting], Some(0)),
        ]
    }

    fn decide(tallies: &[Tally]) -> Decision {
        Decision::of(tallies, &servers())
    }

    #[test]
    fn the_strongest_of_a_stage_counts_and_stages_add() {
        use Stage::{Ehlo, Greeting};
        let tally = tally(
            0,
            &[
                (Greeting, 5.0),
                (Greeting, 12.0),
                (Greeting, 7.0),
                (Ehlo, 4.0),
            ],
        );
        assert!((tally.bits() - 16.0).abs() < 1e-9);
        assert!(tally.counts(0, 12.0) && !tally.counts(0, 7.0) && tally.counts(1, 4.0));
    }

    #[test]
    fn the_prior_is_where_evidence_starts_to_name() {
        let one = |bits| decide(&[tally(0, &[(Stage::Greeting, bits)])]);
        assert!((one(PRIOR_BITS).posterior[0] - 0.5).abs() < 1e-9);
        assert_eq!(one(PRIOR_BITS - 1.0).winner, None);
        assert!(one(17.0).posterior[0] > 0.99 && one(17.0).winner == Some(0));
    }

    #[test]
    fn equal_claims_cancel() {
        let on = |product, bits| tally(product, &[(Stage::Greeting, bits)]);
        assert_eq!(decide(&[on(0, 17.0), on(1, 17.0)]).winner, None);
        assert_eq!(decide(&[on(0, 20.0), on(1, 12.0)]).winner, Some(0));
    }

    #[test]
    fn behaviour_outweighs_a_claim_that_it_contradicts() {
        use Stage::{Ehlo, Greeting, Unknown};
        let claim = tally(0, &[(Greeting, 20.0)]);
        let behaviour = tally(1, &[(Ehlo, 12.0)]);
        let decision = decide(&[claim, behaviour]);
        assert_eq!(decision.winner, Some(1));
        assert_eq!(decision.contradicted, Some(0));
        // The claimed product behaves like itself somewhere: no contradiction.
        let backed = tally(0, &[(Greeting, 20.0), (Unknown, 12.0)]);
        assert_eq!(decide(&[backed, behaviour]).winner, Some(0));
        // Nothing is known of the claimed product's behaviour: one sign is not enough, many are.
        let banner = tally(2, &[(Greeting, 20.0)]);
        assert_eq!(decide(&[banner, behaviour]).winner, Some(0));
        let strong = tally(1, &[(Ehlo, 12.0), (Unknown, 12.0)]);
        assert_eq!(decide(&[banner, strong]).winner, Some(1));
    }

    #[test]
    fn a_proxy_and_its_server_are_layers() {
        use Stage::{Ehlo, Greeting, Unknown};
        let proxy = tally(3, &[(Greeting, 14.0)]);
        let decision = decide(&[proxy, tally(0, &[(Ehlo, 12.0), (Unknown, 10.0)])]);
        assert_eq!((decision.winner, decision.front), (Some(1), Some(0)));
        assert_eq!(decision.contradicted, None);
        let alone = decide(&[proxy]);
        assert_eq!((alone.winner, alone.front), (Some(0), None));
    }

    #[test]
    fn what_is_made_of_another_takes_over_its_behaviour() {
        use Stage::{Ehlo, Greeting, Unknown};
        let base = tally(0, &[(Ehlo, 12.0), (Unknown, 14.0)]);
        let decision = decide(&[tally(4, &[(Greeting, 18.0)]), base]);
        assert_eq!((decision.winner, decision.contradicted), (Some(0), None));
        assert_eq!(decide(&[base]).winner, Some(0));
        // What both say is no sign of the one that was made of the other.
        let hint = tally(4, &[(Unknown, 4.0)]);
        let decision = decide(&[hint, base]);
        assert!(decision.winner == Some(1) && decision.posterior[1] > 0.99);
    }

    #[test]
    fn confidence_grows_with_the_posterior() {
        let steps: Vec<f64> = (50..1000)
            .map(|n| calibrated(f64::from(n) / 1000.0))
            .collect();
        assert!(steps.windows(2).all(|w| w[0] <= w[1]));
        assert!(steps.iter().all(|c| (0.0..1.0).contains(c)));
        assert!(CALIBRATION.windows(2).all(|w| w[0] < w[1]));
    }
}
