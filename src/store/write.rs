//! Writing: hosts in batches, counts and metadata in the same transaction.

use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use serde_json::Value;

use super::dialogue::{keywords, replies};
use super::row::{HostRow, NewHost, evidence_json, is_smtp_server};
use super::text::{json_line, readable, tame};
use super::tls::put_tls;
use super::{StoreError, Survey, key};
use crate::fingerprint::Verdict;
use crate::session::SessionRecord;
use crate::smtp::{Outcome, Side, Transcript};

impl Survey {
    /// Registers the rules that judge from now on. `digest` names them for good; `version` is
    /// what people call them. Registering the same digest again is no change.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn use_ruleset(&mut self, digest: &str, version: &str) -> Result<(), StoreError> {
        let path = self.path.clone();
        let failed = |e| StoreError::sql(&path, "write", e);
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let id = put_ruleset(&tx, digest, version).map_err(failed)?;
        make_current(&tx, id).map_err(failed)?;
        tx.commit().map_err(failed)?;
        self.ruleset = Some(id);
        Ok(())
    }

    /// Stores hosts with their verdicts: all of them, or none.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if a host is stored already (or twice in the batch),
    /// [`StoreError::Full`] if the disk is full, [`StoreError::Busy`] if another process is writing
    /// (try again), [`StoreError::Displaced`] if the path leads elsewhere by now,
    /// [`StoreError::NoRuleset`] before [`Survey::use_ruleset`]. Nothing is stored then.
    pub fn add(&mut self, records: &[(SessionRecord, Verdict)]) -> Result<(), StoreError> {
        self.add_with(records, &[], &[])
    }

    /// As [`Survey::add`], and sets counts and metadata in the same transaction, so that a cursor
    /// and the results up to it are committed together or not at all. Counts `(kind, name, n)` are
    /// totals, see [`super::count`]; those not named stay.
    ///
    /// # Errors
    /// As [`Survey::add`].
    pub fn add_with(
        &mut self,
        records: &[(SessionRecord, Verdict)],
        counts: &[(&str, &str, u64)],
        metadata: &[(&str, Value)],
    ) -> Result<(), StoreError> {
        let rows: Vec<NewHost<'_>> = records
            .iter()
            .map(|(record, verdict)| NewHost {
                row: HostRow::of(record),
                transcript: &record.transcript,
                tls: record.tls.as_deref(),
                verdict,
            })
            .collect();
        self.add_rows(&rows, counts, metadata)
    }

    pub(crate) fn add_rows(
        &mut self,
        hosts: &[NewHost<'_>],
        counts: &[(&str, &str, u64)],
        metadata: &[(&str, Value)],
    ) -> Result<(), StoreError> {
        self.in_place()?;
        let path = self.path.clone();
        let failed = |e| StoreError::sql(&path, "write", e);
        let ruleset = match self.ruleset {
            Some(ruleset) => ruleset,
            None if hosts.is_empty() => 0,
            None => return Err(StoreError::NoRuleset { path }),
        };
        // Dropping the transaction rolls back, so an early return leaves nothing behind.
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        for host in hosts {
            let id = put_host(&tx, &host.row).map_err(|e| {
                if is_unique_violation(&e) {
                    StoreError::Duplicate {
                        path: path.clone(),
                        addr: host.row.addr,
                    }
                } else {
                    failed(e)
                }
            })?;
            put_transcript(&tx, id, host.transcript).map_err(failed)?;
            put_dialogue(&tx, id, host.transcript).map_err(failed)?;
            if let Some(tls) = host.tls {
                put_tls(&tx, id, tls).map_err(failed)?;
            }
            put_verdict(&tx, id, ruleset, host.row.outcome, host.verdict).map_err(failed)?;
        }
        put_counts(&tx, counts).map_err(failed)?;
        put_metadata(&tx, metadata).map_err(failed)?;
        tx.commit().map_err(failed)
    }
}

/// Whether a UNIQUE constraint (not STRICT's or NOT NULL's) refused the row.
fn is_unique_violation(e: &rusqlite::Error) -> bool {
    matches!(e, rusqlite::Error::SqliteFailure(f, _)
        if f.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// The id of that ruleset, new or old.
pub(super) fn put_ruleset(conn: &Connection, digest: &str, version: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "INSERT INTO rulesets (digest, loaded_us, version) VALUES (?1, ?2, ?3)
         ON CONFLICT (digest) DO NOTHING",
    )?
    .execute(params![
        digest,
        jiff::Timestamp::now().as_microsecond(),
        version
    ])?;
    conn.prepare_cached("SELECT id FROM rulesets WHERE digest = ?1")?
        .query_row([digest], |row| row.get(0))
}

/// Makes the verdicts of that ruleset the ones that count.
pub(super) fn make_current(conn: &Connection, ruleset: i64) -> rusqlite::Result<()> {
    put_metadata(conn, &[(key::CURRENT_RULESET, Value::from(ruleset))])
}

fn put_host(conn: &Connection, row: &HostRow) -> rusqlite::Result<i64> {
    conn.prepare_cached(
        "INSERT INTO hosts (addr, saddr, sport, timestamp_us, started_us, outcome, detail,
           connect_ms, greeting_delay_ms, duration_ms, window, ttl, ip_id, our_port, our_seq,
           their_seq, mss, wscale, sack_perm, ts_val, ts_ecr, cut)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
           ?19, ?20, ?21, ?22)",
    )?
    .insert(params![
        row.addr.to_bits(),
        row.addr.to_string(),
        row.sport,
        row.timestamp_us,
        row.started_us,
        row.outcome.name(),
        row.detail.as_deref().map(tame),
        row.connect_ms,
        row.greeting_delay_ms,
        row.duration_ms,
        row.window,
        row.ttl,
        row.ip_id,
        row.our_port,
        row.our_seq,
        row.their_seq,
        row.mss,
        row.wscale,
        row.sack_perm,
        row.ts_val,
        row.ts_ecr,
        row.cut,
    ])
}

fn put_transcript(conn: &Connection, host: i64, transcript: &Transcript) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO transcripts (host_id, n, stage, side, at_ms, data, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (n, piece) in transcript.pieces.iter().enumerate() {
        let side = side_name(piece.side);
        insert.execute(params![
            host,
            n,
            piece.stage.name(),
            side,
            piece.at_ms,
            piece.bytes,
            readable(&piece.bytes),
        ])?;
    }
    Ok(())
}

/// What was said, step by step; nothing for a host with whom no word was exchanged.
fn put_dialogue(conn: &Connection, host: i64, transcript: &Transcript) -> rusqlite::Result<()> {
    if transcript.pieces.is_empty() {
        return Ok(());
    }
    conn.prepare_cached(
        "INSERT INTO dialogues (host_id, commands, replies, ehlo_keywords) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        host,
        transcript.commands(),
        json_text(&replies(transcript)),
        json_text(&keywords(transcript)),
    ])?;
    Ok(())
}

/// The name under which a side is stored.
pub(super) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// Stores a verdict on a host whose session ended so, in place of one that the host has under the
/// same ruleset.
pub(super) fn put_verdict(
    conn: &Connection,
    host: i64,
    ruleset: i64,
    outcome: Outcome,
    verdict: &Verdict,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO verdicts (host_id, ruleset_id, product, vendor, family, version,
           patch, category, confidence, is_smtp, protocol, hostname, os, evidence, cluster)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        host,
        ruleset,
        verdict.product.as_deref().map(tame),
        verdict.vendor.as_deref().map(tame),
        verdict.family.as_deref().map(tame),
        verdict.version.as_deref().map(tame),
        verdict.patch.as_deref().map(tame),
        verdict.category.map(crate::fingerprint::Category::name),
        // NaN would become NULL, which the column refuses.
        if verdict.confidence.is_finite() {
            verdict.confidence
        } else {
            0.0
        },
        is_smtp_server(outcome, verdict),
        verdict.protocol.as_deref().map(tame),
        verdict.hostname.as_deref().map(tame),
        verdict.os.as_deref().map(tame),
        json_text(&evidence_json(&verdict.evidence)),
        verdict.cluster.as_deref().map(tame),
    ])?;
    Ok(())
}

/// JSON as it is stored: no control character in it.
pub(super) fn json_text(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail, and the keys of a JSON value are strings; JSON is UTF-8.
    let _ = json_line(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn put_counts(conn: &Connection, counts: &[(&str, &str, u64)]) -> rusqlite::Result<()> {
    let mut upsert = conn.prepare_cached(
        "INSERT INTO probe_counts (kind, name, n) VALUES (?1, ?2, ?3)
         ON CONFLICT (kind, name) DO UPDATE SET n = excluded.n",
    )?;
    for (kind, name, n) in counts {
        upsert.execute(params![kind, name, n])?;
    }
    Ok(())
}

pub(super) fn put_metadata(conn: &Connection, metadata: &[(&str, Value)]) -> rusqlite::Result<()> {
    let mut upsert = conn.prepare_cached(
        "INSERT INTO survey (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?;
    for (key, value) in metadata {
        upsert.execute(params![key, json_text(value)])?;
    }
    Ok(())
}
