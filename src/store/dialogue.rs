//! A dialogue step by step, as it is stored beside its octets and exported.
//!
//! One row a host, with lists as JSON: rows of their own for each reply and each keyword would make the
//! writer several times slower. Two views, `v_replies` and `v_ehlo_keywords`, lay them out again.

use serde_json::{Value, json};

use super::text::tame;
use crate::smtp::{Keyword, Stage, Step, Transcript};

/// The steps as JSON objects.
pub(super) fn replies_json(transcript: &Transcript) -> Value {
    transcript.steps().iter().map(reply_json).collect()
}

fn reply_json(step: &Step) -> Value {
    let enhanced = step.enhanced.map(|(a, b, c)| format!("{a}.{b}.{c}"));
    let mut reply = json!({
        "stage": step.stage.name(),
        "code": step.code,
        "enhanced": enhanced,
        "lines": step.lines,
        "latency_ms": step.latency_ms,
        "pieces": step.pieces,
    });
    // Hardly any reply has them.
    if !step.quirks.is_empty() {
        let quirks: Vec<&str> = step.quirks.names().collect();
        reply["quirks"] = quirks.join(", ").into();
    }
    reply
}

/// The extensions offered, in order, in clear text and within TLS.
pub(super) fn keywords_json(transcript: &Transcript) -> Value {
    [Stage::Ehlo, Stage::TlsEhlo]
        .into_iter()
        .flat_map(|stage| {
            let keywords = transcript.keywords(stage);
            keywords
                .into_iter()
                .map(move |keyword| keyword_json(stage, &keyword))
        })
        .collect()
}

fn keyword_json(stage: Stage, keyword: &Keyword) -> Value {
    let text = |octets: &[u8]| tame(&String::from_utf8_lossy(octets)).into_owned();
    let mut row = json!({ "stage": stage.name(), "keyword": text(&keyword.word) });
    if !keyword.parameters.is_empty() {
        row["parameters"] = text(&keyword.parameters).into();
    }
    row
}
