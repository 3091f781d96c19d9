//! Reading hosts one by one, however many there are.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params};

use super::row::{HostRow, StoredHost, category, evidence_from};
use super::tls::{self, TlsReader, has_tls};
use super::{StoreError, Survey};
use crate::fingerprint::Verdict;
use crate::smtp::{Outcome, Piece, Side, Stage, Transcript};

/// Which parts of a host a reader wants; the others stay empty and cost nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(crate) transcript: bool,
    pub(crate) evidence: bool,
    pub(crate) tls: bool,
}

impl Parts {
    pub(crate) const ALL: Self = Self {
        transcript: true,
        evidence: true,
        tls: true,
    };
}

impl Survey {
    /// Hands over every host in the order of storing, with those parts and its current verdict, as
    /// of one moment, whatever a writer does meanwhile. Memory does not grow with the survey. The
    /// first error `each` returns ends the reading and is returned.
    pub(super) fn scan<E: From<StoreError>>(
        &self,
        parts: Parts,
        each: impl FnMut(StoredHost) -> Result<(), E>,
    ) -> Result<(), E> {
        // One transaction, so that both statements see the same state.
        let snapshot = self
            .conn
            .unchecked_transaction()
            .map_err(|e| self.failed("read", e))?;
        let ruleset = self.current_ruleset()?;
        scan_hosts(
            &snapshot,
            ruleset,
            parts,
            0..=i64::MAX,
            |e| self.failed("read", e),
            each,
        )?;
        drop(snapshot);
        Ok(())
    }

    /// Hands over every host in the order of storing, as of one moment. Memory does not grow with
    /// the survey.
    ///
    /// # Errors
    /// If the database cannot be read, or the first error that `each` returns.
    pub fn for_each_host<E: From<StoreError>>(
        &self,
        each: impl FnMut(StoredHost) -> Result<(), E>,
    ) -> Result<(), E> {
        self.scan(Parts::ALL, each)
    }

    /// One host by its address.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn host(&self, address: Ipv4Addr) -> Result<Option<StoredHost>, StoreError> {
        let id = self
            .conn
            .query_row(
                "SELECT id FROM hosts WHERE addr = ?1",
                [address.to_bits()],
                |row| row.get::<_, i64>(0),
            )
            .optional()
            .map_err(|e| self.failed("read", e))?;
        let Some(id) = id else { return Ok(None) };
        let mut found = None;
        let snapshot = self
            .conn
            .unchecked_transaction()
            .map_err(|e| self.failed("read", e))?;
        let ruleset = self.current_ruleset()?;
        let failed = |e| self.failed("read", e);
        scan_hosts(&snapshot, ruleset, Parts::ALL, id..=id, failed, |host| {
            found = Some(host);
            Ok::<(), StoreError>(())
        })?;
        Ok(found)
    }

    /// The number of hosts that count as SMTP servers: by their words, under the current rules,
    /// and by their sessions' outcomes. The same number is the base of a report's shares.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn smtp_hosts(&self) -> Result<u64, StoreError> {
        let ruleset = self.current_ruleset()?;
        self.conn
            .query_row(
                "SELECT count(*) FROM verdicts WHERE is_smtp AND ruleset_id = ?1",
                [ruleset],
                |row| row.get(0),
            )
            .map_err(|e| self.failed("read", e))
    }
}

/// Walks hosts and transcripts side by side: both lie in the order of the host's id, so neither
/// is sought, only read on.
pub(super) fn scan_hosts<E: From<StoreError>>(
    conn: &Connection,
    ruleset: Option<i64>,
    parts: Parts,
    ids: RangeInclusive<i64>,
    failed: impl Fn(rusqlite::Error) -> StoreError,
    mut each: impl FnMut(StoredHost) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |e| E::from(failed(e));
    let mut hosts = conn
        .prepare_cached(
            "SELECT h.id, h.addr, h.sport, h.timestamp_us, h.started_us, h.outcome, h.detail,
               h.connect_ms, h.greeting_delay_ms, h.duration_ms, h.window, h.ttl, h.ip_id,
               h.our_port, h.our_seq, h.their_seq, h.mss, h.wscale, h.sack_perm, h.ts_val,
               h.ts_ecr, h.cut,
               v.confidence, v.product, v.vendor, v.version, v.category, v.is_smtp, v.hostname,
               v.os, v.cluster, v.evidence, v.family, v.patch, v.protocol
             FROM hosts AS h
             LEFT JOIN verdicts AS v ON v.host_id = h.id AND v.ruleset_id = ?1
             WHERE h.id BETWEEN ?2 AND ?3
             ORDER BY h.id",
        )
        .map_err(failed)?;
    let mut pieces = conn
        .prepare_cached(
            "SELECT host_id, stage, side, at_ms, data FROM transcripts
             WHERE host_id BETWEEN ?1 AND ?2 ORDER BY host_id, n",
        )
        .map_err(failed)?;
    let mut hosts = hosts
        .query(params![ruleset, ids.start(), ids.end()])
        .map_err(failed)?;
    let mut pieces = if parts.transcript {
        Some(
            PieceReader::new(pieces.query([ids.start(), ids.end()]).map_err(failed)?)
                .map_err(failed)?,
        )
    } else {
        None
    };
    let (mut tls_rows, mut certificates);
    let mut tls = None;
    if parts.tls && has_tls(conn).map_err(failed)? {
        tls_rows = conn.prepare_cached(tls::ROWS).map_err(failed)?;
        certificates = conn.prepare_cached(tls::CERTIFICATES).map_err(failed)?;
        tls = Some(TlsReader::new(&mut tls_rows, &mut certificates, &ids).map_err(failed)?);
    }
    while let Some(row) = hosts.next().map_err(failed)? {
        let mut host = host(row, parts).map_err(failed)?;
        if let Some(tls) = &mut tls {
            host.tls = tls.take(host.id).map_err(failed)?;
        }
        if let Some(pieces) = &mut pieces {
            pieces
                .take(host.id, &mut host.transcript.pieces)
                .map_err(failed)?;
        }
        each(host)?;
    }
    Ok(())
}

/// The pieces of all hosts, with one piece of look-ahead.
struct PieceReader<'stmt> {
    rows: Rows<'stmt>,
    ahead: Option<(i64, Piece)>,
}

impl<'stmt> PieceReader<'stmt> {
    fn new(rows: Rows<'stmt>) -> rusqlite::Result<Self> {
        let mut reader = Self { rows, ahead: None };
        reader.advance()?;
        Ok(reader)
    }

    /// Appends the pieces of that host; ids must ascend.
    fn take(&mut self, host: i64, out: &mut Vec<Piece>) -> rusqlite::Result<()> {
        while let Some((owner, piece)) = self.ahead.take_if(|(owner, _)| *owner <= host) {
            // Pieces of a host that is not there (a damaged file) are passed over.
            if owner == host {
                out.push(piece);
            }
            self.advance()?;
        }
        Ok(())
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.ahead = match self.rows.next()? {
            None => None,
            Some(row) => Some((row.get(0)?, piece(row)?)),
        };
        Ok(())
    }
}

fn piece(row: &Row<'_>) -> rusqlite::Result<Piece> {
    Ok(Piece {
        stage: named(row, 1, Stage::from_name)?,
        side: named(row, 2, |name| match name {
            "client" => Some(Side::Client),
            "server" => Some(Side::Server),
            _ => None,
        })?,
        at_ms: row.get(3)?,
        bytes: row.get(4)?,
    })
}

fn host(row: &Row<'_>, parts: Parts) -> rusqlite::Result<StoredHost> {
    let cut = row.get(21)?;
    Ok(StoredHost {
        id: row.get(0)?,
        row: HostRow {
            addr: Ipv4Addr::from_bits(row.get(1)?),
            sport: row.get(2)?,
            timestamp_us: row.get(3)?,
            started_us: row.get(4)?,
            outcome: named(row, 5, Outcome::from_name)?,
            detail: row.get(6)?,
            connect_ms: row.get(7)?,
            greeting_delay_ms: row.get(8)?,
            duration_ms: row.get(9)?,
            window: row.get(10)?,
            ttl: row.get(11)?,
            ip_id: row.get(12)?,
            our_port: row.get(13)?,
            our_seq: row.get(14)?,
            their_seq: row.get(15)?,
            mss: row.get(16)?,
            wscale: row.get(17)?,
            sack_perm: row.get(18)?,
            ts_val: row.get(19)?,
            ts_ecr: row.get(20)?,
            cut,
        },
        transcript: Transcript {
            pieces: Vec::new(),
            cut,
        },
        tls: None,
        verdict: verdict(row, parts)?,
    })
}

fn verdict(row: &Row<'_>, parts: Parts) -> rusqlite::Result<Option<Verdict>> {
    let Some(confidence) = row.get(22)? else {
        return Ok(None);
    };
    let mut verdict = Verdict {
        product: row.get(23)?,
        vendor: row.get(24)?,
        version: row.get(25)?,
        category: match row.get_ref(26)?.data_type() {
            Type::Null => None,
            _ => Some(named(row, 26, category)?),
        },
        confidence,
        hostname: row.get(28)?,
        os: row.get(29)?,
        is_smtp: row.get(27)?,
        evidence: if parts.evidence {
            named(row, 31, evidence_from)?
        } else {
            Vec::new()
        },
        cluster: row.get(30)?,
        family: row.get(32)?,
        patch: row.get(33)?,
        protocol: row.get(34)?,
        ..Verdict::default()
    };
    verdict.read_marks();
    Ok(Some(verdict))
}

/// A column whose text must be one of a closed set of names.
pub(super) fn named<T>(
    row: &Row<'_>,
    column: usize,
    meaning: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let odd = |reason: String| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
    };
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|e| odd(e.to_string()))?;
    meaning(text).ok_or_else(|| {
        let shown = super::text::escape_short(text.as_bytes(), 60);
        odd(format!("\"{shown}\" has no meaning for this smtpsweep"))
    })
}
