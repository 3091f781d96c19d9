//! A dialogue step by step, as it is stored beside its octets and exported.
//!
//! One row a host, with lists as JSON: rows of their own for each reply and each keyword would make the
//! writer several times slower. Two views, `v_replies` and `v_ehlo_keywords`, lay them out again.

use serde::Serialize;

use super::text::tame;
use crate::smtp::{Keyword, Stage, Step, Transcript};

/// A step and its reply.
#[derive(Debug, Serialize)]
pub(super) struct ReplyRow {
    stage: &'static str,
    code: Option<u16>,
    enhanced: Option<String>,
    lines: usize,
    latency_ms: Option<u32>,
    pieces: usize,
    /// Hardly any reply has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    quirks: Option<String>,
}

/// An extension offered.
#[derive(Debug, Serialize)]
pub(super) struct KeywordRow {
    stage: &'static str,
    keyword: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parameters: String,
}

/// The steps, in order.
pub(super) fn replies(transcript: &Transcript) -> Vec<ReplyRow> {
    transcript.steps().iter().map(reply).collect()
}

fn reply(step: &Step) -> ReplyRow {
    let quirks = || step.quirks.names().collect::<Vec<_>>().join(", ");
    ReplyRow {
        stage: step.stage.name(),
        code: step.code,
        enhanced: step.enhanced.map(|(a, b, c)| format!("{a}.{b}.{c}")),
        lines: step.lines,
        latency_ms: step.latency_ms,
        pieces: step.pieces,
        quirks: (!step.quirks.is_empty()).then(quirks),
    }
}

/// The extensions offered, in order, in clear text and within TLS.
pub(super) fn keywords(transcript: &Transcript) -> Vec<KeywordRow> {
    let mut rows = Vec::new();
    for stage in [Stage::Ehlo, Stage::TlsEhlo] {
        let keywords = transcript.keywords(stage);
        rows.extend(keywords.iter().map(|row| keyword(stage, row)));
    }
    rows
}

fn keyword(stage: Stage, keyword: &Keyword) -> KeywordRow {
    let text = |octets: &[u8]| tame(&String::from_utf8_lossy(octets)).into_owned();
    KeywordRow {
        stage: stage.name(),
        keyword: text(&keyword.word),
        parameters: text(&keyword.parameters),
    }
}
