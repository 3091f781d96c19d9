//! Hosts for tests, of store and report alike.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde_json::Value;

use super::row::{HostRow, NewHost};
use super::{StoreError, Survey};
use crate::fingerprint::{Category, Evidence, Verdict};
use crate::smtp::{Outcome, Piece, Side, Stage, Transcript};

/// An empty survey in a directory that lives as long as the first value.
pub(crate) fn survey() -> (tempfile::TempDir, Survey) {
    let dir = tempfile::tempdir().unwrap();
    let mut survey = Survey::create(dir.path().join("survey.db"), &[]).unwrap();
    survey.use_ruleset("d1", "1").unwrap();
    (dir, survey)
}

pub(crate) fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("survey.db")
}

/// What only tests ask of a survey.
impl Survey {
    pub(crate) fn host_count(&self) -> Result<u64, StoreError> {
        self.conn
            .query_row("SELECT count(*) FROM hosts", [], |row| row.get(0))
            .map_err(|e| self.failed("read", e))
    }

    pub(crate) fn set_counts(&mut self, counts: &[(&str, &str, u64)]) -> Result<(), StoreError> {
        self.add_with(&[], counts, &[])
    }

    pub(crate) fn set_meta(&mut self, key: &str, value: Value) -> Result<(), StoreError> {
        self.add_with(&[], &[], &[(key, value)])
    }

    /// Reads every page, and tells the first damage found.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let found: String = self
            .conn
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|e| self.failed("check", e))?;
        if found == "ok" {
            return Ok(());
        }
        let path = self.path.clone();
        Err(StoreError::Corrupt {
            path,
            reason: found,
        })
    }
}

/// The `n`th test host: 198.18.0.0 + n, all fields different from each other.
pub(crate) fn host(n: u32, outcome: Outcome, transcript: &Transcript) -> HostRow {
    HostRow {
        addr: Ipv4Addr::from_bits(0xc612_0000 + n),
        sport: 25,
        timestamp_us: 1_795_358_340_123_456 + u64::from(n),
        started_us: 1_795_358_341_500_000 + u64::from(n),
        outcome,
        detail: (outcome != Outcome::Completed).then(|| "some detail".to_owned()),
        connect_ms: Some(3),
        greeting_delay_ms: transcript.greeting_delay_ms(),
        duration_ms: 77,
        window: 65_535,
        ttl: 63,
        ip_id: 4711,
        our_port: 40_000,
        our_seq: u32::MAX,
        their_seq: 0x8000_0001,
        mss: Some(1460),
        wscale: Some(7),
        sack_perm: true,
        ts_val: Some(4_000_000_000),
        ts_ecr: None,
        cut: transcript.cut,
    }
}

/// A dialogue with that greeting and EHLO reply.
pub(crate) fn dialogue(greeting: &[u8], ehlo: &[u8]) -> Transcript {
    let piece = |at_ms, side, stage, bytes: &[u8]| Piece {
        at_ms,
        side,
        stage,
        bytes: bytes.to_vec(),
    };
    let (one, two) = greeting.split_at(greeting.len() / 2);
    Transcript {
        pieces: vec![
            piece(12, Side::Server, Stage::Greeting, one),
            piece(14, Side::Server, Stage::Greeting, two),
            piece(14, Side::Client, Stage::Ehlo, b"EHLO sweep.example\r\n"),
            piece(30, Side::Server, Stage::Ehlo, ehlo),
            piece(30, Side::Client, Stage::Quit, b"QUIT\r\n"),
            piece(45, Side::Server, Stage::Quit, b"221 bye\r\n"),
        ],
        cut: 0,
    }
}

/// A verdict for that product and version; without a product, of that cluster.
pub(crate) fn verdict(
    product: Option<&str>,
    version: Option<&str>,
    cluster: Option<&str>,
) -> Verdict {
    let own = |s: &str| s.to_owned();
    Verdict {
        product: product.map(own),
        vendor: product.map(|p| format!("{p} people")),
        version: version.map(own),
        category: product.map(|p| match p {
            "Exchange" => Category::Commercial,
            _ => Category::OpenSource,
        }),
        confidence: if product.is_some() { 0.95 } else { 0.0 },
        family: product.map(own),
        patch: None,
        protocol: None,
        hostname: Some("mx.example.test".to_owned()),
        os: None,
        is_smtp: true,
        evidence: product
            .map(|p| Evidence {
                stage: Stage::Greeting,
                rule: format!("{p}/greeting").into(),
                matched: "ESMTP \u{1b} \"Postfix\"".into(),
                weight: 0.95,
            })
            .into_iter()
            .collect(),
        cluster: cluster.map(own),
        ..Verdict::default()
    }
}

/// Stores hosts `first..first + n`, all alike.
pub(crate) fn fill(
    survey: &mut Survey,
    first: u32,
    n: u32,
    outcome: Outcome,
    transcript: &Transcript,
    verdict: &Verdict,
) {
    let rows: Vec<NewHost<'_>> = (first..first + n)
        .map(|i| NewHost {
            row: host(i, outcome, transcript),
            transcript,
            tls: None,
            verdict,
        })
        .collect();
    survey.add_rows(&rows, &[], &[]).unwrap();
}
