//! What came of TLS: rows of `tls`, and certificates stored once however many hosts have them.
//!
//! The certificate's columns are for queries; what is exported or judged is read from its DER
//! again. A survey made before these tables were (schema version 1) has no TLS in it.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params};
use sha2::{Digest as _, Sha256};

use super::text::tame;
use super::write::{json_text, side_name};
use crate::smtp::{AltName, Certificate, TlsRecord};

/// A host's row of `tls`, as stored: names, not meanings, so that a younger program's words pass
/// through unharmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsRow {
    /// `starttls` or `implicit`.
    pub start: String,
    /// `TLSv1.2` and so on.
    pub version: Option<String>,
    /// IANA's name of the cipher suite.
    pub cipher: Option<String>,
    /// Its number.
    pub cipher_id: Option<u16>,
    /// What the keys were agreed with.
    pub key_group: Option<String>,
    /// Milliseconds of the handshake, if it came to its end.
    pub handshake_ms: Option<u32>,
    /// Why the channel did not come about, or broke.
    pub failure: Option<String>,
    /// The alert that came with the failure.
    pub alert: Option<u8>,
    /// Its name.
    pub alert_name: Option<String>,
    /// Who sent it: `server` or `client`.
    pub alert_by: Option<String>,
    /// The last that was heard in the handshake.
    pub heard: Option<String>,
    /// What else is known about the failure.
    pub detail: Option<String>,
    /// Whether a certificate of ours was wanted.
    pub client_certificate: bool,
    /// Negotiations anew that the server wanted.
    pub renegotiations: u32,
    /// The server's certificates in DER, its own first.
    pub chain: Vec<Vec<u8>>,
}

impl TlsRow {
    /// The row of a session's record, without the certificates.
    fn of(record: &TlsRecord) -> Self {
        let own = |text: &str| text.to_owned();
        Self {
            start: own(record.start.name()),
            version: record.version.map(|version| version.to_string()),
            cipher: record.cipher.and_then(|cipher| cipher.name).map(own),
            cipher_id: record.cipher.map(|cipher| cipher.id),
            key_group: record.group.map(|group| group.to_string()),
            handshake_ms: record.handshake_ms,
            failure: record.failure.map(|failure| own(failure.name())),
            alert: record.alert.map(|alert| alert.number),
            alert_name: record.alert.map(|alert| alert.name().into_owned()),
            alert_by: record.alert.map(|alert| own(side_name(alert.by))),
            heard: record.heard.map(|heard| own(heard.name())),
            detail: record.detail.clone(),
            client_certificate: record.client_certificate_requested,
            renegotiations: record.renegotiations,
            chain: Vec::new(),
        }
    }

    /// The server's own certificate, if it showed a readable one.
    pub fn certificate(&self) -> Option<Certificate> {
        Certificate::parse(self.chain.first()?)
    }
}

/// Stores what came of TLS with a host.
pub(super) fn put_tls(conn: &Connection, host: i64, record: &TlsRecord) -> rusqlite::Result<()> {
    let row = TlsRow::of(record);
    conn.prepare_cached(
        "INSERT INTO tls (host_id, start, version, cipher, cipher_id, key_group, handshake_ms,
           failure, alert, alert_name, alert_by, heard, detail, client_certificate, renegotiations)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        host,
        row.start,
        row.version,
        row.cipher,
        row.cipher_id,
        row.key_group,
        row.handshake_ms,
        row.failure,
        row.alert,
        row.alert_name,
        row.alert_by,
        row.heard,
        row.detail.as_deref().map(tame),
        row.client_certificate,
        row.renegotiations,
    ])?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO tls_certificates (host_id, n, certificate_id) VALUES (?1, ?2, ?3)",
    )?;
    for (n, der) in record.chain.iter().enumerate() {
        insert.execute(params![host, n, put_certificate(conn, der)?])?;
    }
    Ok(())
}

/// The id of that certificate, new or old.
fn put_certificate(conn: &Connection, der: &[u8]) -> rusqlite::Result<i64> {
    let sha256 = hex(&Sha256::digest(der));
    let known = conn
        .prepare_cached("SELECT id FROM certificates WHERE sha256 = ?1")?
        .query_row([&sha256], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    let read = Certificate::parse(der);
    let read = read.as_ref();
    let names = read.map(|read| {
        let names: Vec<String> = read.alt_names.iter().map(AltName::text).collect();
        json_text(&names)
    });
    let micros = |seconds: i64| seconds.saturating_mul(1_000_000);
    conn.prepare_cached(
        "INSERT INTO certificates (sha256, version, serial, subject, issuer, alt_names,
           not_before_us, not_after_us, key_type, key_bits, signature_algorithm, self_signed, der)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .insert(params![
        sha256,
        read.map(|read| read.version),
        read.and_then(|read| read.serial.as_deref()),
        read.map(|read| tame(&read.subject.to_string()).into_owned()),
        read.map(|read| tame(&read.issuer.to_string()).into_owned()),
        names,
        read.and_then(|read| read.not_before).map(micros),
        read.and_then(|read| read.not_after).map(micros),
        read.and_then(|read| read.key_type.as_deref()),
        read.and_then(|read| read.key_bits),
        read.map(|read| tame(&read.signature_algorithm)),
        read.map(|read| read.self_signed),
        der,
    ])
}

/// Octets as lower-case hexadecimal.
pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Whether this survey has the tables.
pub(super) fn has_tls(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'tls')")?
        .query_row([], |row| row.get(0))
}

/// TLS, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSummary {
    /// Hosts by what came of TLS.
    pub counts: Vec<TlsCount>,
    /// Servers that showed a certificate.
    pub certified: u64,
    /// Those whose certificate is signed by its own key.
    pub self_signed: u64,
    /// Those whose certificate had expired when the host was found.
    pub expired: u64,
    /// Different certificates of servers, as against those of their issuers.
    pub certificates: u64,
}

/// So many hosts fared alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCount {
    /// `starttls` or `implicit`.
    pub start: String,
    /// The version, where the server had chosen one.
    pub version: Option<String>,
    /// Why no channel came about, or why it broke.
    pub failure: Option<String>,
    /// The alert that came with it.
    pub alert: Option<String>,
    /// Whether the handshake came to its end.
    pub stood: bool,
    /// How many hosts.
    pub hosts: u64,
}

/// Counts what came of TLS.
pub(super) fn summary(conn: &Connection) -> rusqlite::Result<TlsSummary> {
    if !has_tls(conn)? {
        return Ok(TlsSummary::default());
    }
    let counts = conn
        .prepare_cached(
            "SELECT start, version, failure, alert_name, handshake_ms IS NOT NULL, count(*) FROM tls
             GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4",
        )?
        .query_map([], |row| {
            Ok(TlsCount {
                start: row.get(0)?,
                version: row.get(1)?,
                failure: row.get(2)?,
                alert: row.get(3)?,
                stood: row.get(4)?,
                hosts: row.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    conn.prepare_cached(
        "SELECT count(*), coalesce(sum(c.self_signed), 0),
           coalesce(sum(c.not_after_us < h.timestamp_us), 0), count(DISTINCT c.id)
         FROM tls_certificates AS t JOIN certificates AS c ON c.id = t.certificate_id
         JOIN hosts AS h ON h.id = t.host_id WHERE t.n = 0",
    )?
    .query_row([], |row| {
        Ok(TlsSummary {
            counts,
            certified: row.get(0)?,
            self_signed: row.get(1)?,
            expired: row.get(2)?,
            certificates: row.get(3)?,
        })
    })
}

/// The rows of hosts with those ids, in the order of hosts.
pub(super) const ROWS: &str = "SELECT host_id, start, version, cipher, cipher_id, key_group,
  handshake_ms, failure, alert, alert_name, alert_by, heard, detail, client_certificate,
  renegotiations FROM tls WHERE host_id BETWEEN ?1 AND ?2 ORDER BY host_id";

/// Their certificates, in the order of hosts and chains.
pub(super) const CERTIFICATES: &str = "SELECT t.host_id, c.der FROM tls_certificates AS t
  JOIN certificates AS c ON c.id = t.certificate_id
  WHERE t.host_id BETWEEN ?1 AND ?2 ORDER BY t.host_id, t.n";

/// TLS of all hosts, with one row and one certificate of look-ahead.
pub(super) struct TlsReader<'stmt> {
    rows: Ahead<'stmt, TlsRow>,
    certificates: Ahead<'stmt, Vec<u8>>,
}

impl<'stmt> TlsReader<'stmt> {
    /// A reader of what the statements [`ROWS`] and [`CERTIFICATES`] yield.
    pub(super) fn new(
        rows: &'stmt mut rusqlite::Statement<'_>,
        certificates: &'stmt mut rusqlite::Statement<'_>,
        ids: &RangeInclusive<i64>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            rows: Ahead::new(rows.query([ids.start(), ids.end()])?, tls_row)?,
            certificates: Ahead::new(certificates.query([ids.start(), ids.end()])?, |row| {
                row.get(1)
            })?,
        })
    }

    /// That host's; ids must ascend.
    pub(super) fn take(&mut self, host: i64) -> rusqlite::Result<Option<TlsRow>> {
        let mut found = self.rows.take(host)?;
        while let Some(der) = self.certificates.take(host)? {
            if let Some(row) = &mut found {
                row.chain.push(der);
            }
        }
        Ok(found)
    }
}

struct Ahead<'stmt, T> {
    rows: Rows<'stmt>,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    next: Option<(i64, T)>,
}

impl<'stmt, T> Ahead<'stmt, T> {
    fn new(rows: Rows<'stmt>, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Self> {
        let mut ahead = Self {
            rows,
            read,
            next: None,
        };
        ahead.advance()?;
        Ok(ahead)
    }

    /// The next row if it is that host's; those of hosts that are not there are passed over.
    fn take(&mut self, host: i64) -> rusqlite::Result<Option<T>> {
        while let Some((owner, value)) = self.next.take_if(|(owner, _)| *owner <= host) {
            self.advance()?;
            if owner == host {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.next = match self.rows.next()? {
            None => None,
            Some(row) => Some((row.get(0)?, (self.read)(row)?)),
        };
        Ok(())
    }
}

fn tls_row(row: &Row<'_>) -> rusqlite::Result<TlsRow> {
    Ok(TlsRow {
        start: row.get(1)?,
        version: row.get(2)?,
        cipher: row.get(3)?,
        cipher_id: row.get(4)?,
        key_group: row.get(5)?,
        handshake_ms: row.get(6)?,
        failure: row.get(7)?,
        alert: row.get(8)?,
        alert_name: row.get(9)?,
        alert_by: row.get(10)?,
        heard: row.get(11)?,
        detail: row.get(12)?,
        client_certificate: row.get(13)?,
        renegotiations: row.get(14)?,
        chain: Vec::new(),
    })
}
