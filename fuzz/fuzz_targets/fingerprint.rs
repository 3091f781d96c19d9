//! The fingerprint classifier on any words at all: no panic, sane numbers, bounded output, and the
//! explanation tells of the same verdict.
//!
//! Input: parts ended by an octet 255, each beginning with an octet that chooses its stage.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use smtpsweep::fingerprint::{Observation, RuleSet, normalise_greeting};
use smtpsweep::smtp::Stage;

static RULES: LazyLock<RuleSet> = LazyLock::new(RuleSet::builtin);

fuzz_target!(|data: &[u8]| {
    let mut observation = Observation::default();
    for part in data.split(|octet| *octet == 255) {
        if let [choice, reply @ ..] = part {
            observation =
                observation.with(Stage::ALL[usize::from(*choice) % Stage::ALL.len()], reply);
        }
    }
    let verdict = RULES.classify(&observation);
    assert!(
        (0.0..=1.0).contains(&verdict.confidence),
        "{}",
        verdict.confidence
    );
    assert_eq!(verdict.product.is_none(), verdict.confidence == 0.0);
    let texts = [
        &verdict.version,
        &verdict.patch,
        &verdict.hostname,
        &verdict.os,
        &verdict.cluster,
    ];
    for text in texts.into_iter().flatten() {
        // A view may write a name longer than it was, but not by much.
        assert!(text.len() <= 16 * data.len() + 64, "{text:?}");
    }
    let explained = RULES.explain(&observation);
    assert_eq!(explained.verdict, verdict);
    let sum: f64 = explained
        .candidates
        .iter()
        .map(|candidate| candidate.confidence)
        .sum();
    assert!(sum <= 1.0 + 1e-6, "{sum}");
    if let Some(greeting) = observation.reply(Stage::Greeting) {
        let normal = normalise_greeting(greeting);
        assert!(!normal.contains('\n'), "{normal:?}");
    }
});
