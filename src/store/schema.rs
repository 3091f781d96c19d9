//! The survey file's tables and views, as docs/schema.md describes them.
//!
//! The SQL keeps to what SQLite 3.40 (Debian 12's shell) can read: a view with younger syntax
//! would lock that shell out of the whole file. Tables are STRICT, so a column holds what it says.
//!
//! A view shows nothing that a terminal would act upon. SQL cannot tell such text, so the writer
//! does: `transcripts.text` and the text columns of `verdicts` are made for it.
//!
//! Addresses are `u32` in host order, so ranges compare as numbers; times are UTC: `_us` unix
//! microseconds, `_ms` milliseconds. Unknown is NULL, never 0 or ''.

/// Marks the file as ours ("SMSW"), for `file(1)` and for [`super::Survey::open`].
pub(super) const APPLICATION_ID: i64 = 0x534d_5357;

/// The layout below. It grows by one with every change that an older reader would misread.
pub(super) const VERSION: i64 = 2;

/// What a piece of dialogue says, fit for a terminal but for its line ends and tabs.
macro_rules! readable {
    ($table:literal) => {
        concat!("coalesce(", $table, "text, CAST(", $table, "data AS TEXT))")
    };
}

/// Such text on one line: line ends and tabs as `\n`, `\r`, `\t`, those at its end left out.
macro_rules! one_line {
    ($text:expr) => {
        concat!(
            "replace(replace(replace(replace(rtrim(",
            $text,
            ", char(13, 10)), char(13, 10), '\\n'), char(10), '\\n'), char(13), '\\r'), char(9), '\\t')"
        )
    };
}

/// What the server of host `h` said in one stage, joined and shown.
macro_rules! said {
    ($stage:literal) => {
        concat!(
            "(SELECT ",
            one_line!("group_concat(t, '')"),
            " FROM (SELECT ",
            readable!(""),
            " AS t FROM transcripts WHERE host_id = h.id AND side = 'server' AND stage = '",
            $stage,
            "' ORDER BY n))"
        )
    };
}

/// The ruleset whose verdicts count.
macro_rules! current {
    () => {
        "(SELECT CAST(value AS INTEGER) FROM survey WHERE key = 'current_ruleset')"
    };
}

/// The tables.
pub(super) const TABLES: &str = "
CREATE TABLE survey (
  key   TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE probe_counts (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  n    INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE hosts (
  id                INTEGER PRIMARY KEY,
  addr              INTEGER NOT NULL UNIQUE,
  saddr             TEXT NOT NULL,
  sport             INTEGER NOT NULL,
  timestamp_us      INTEGER NOT NULL,
  started_us        INTEGER NOT NULL,
  outcome           TEXT NOT NULL,
  detail            TEXT,
  connect_ms        INTEGER,
  greeting_delay_ms INTEGER,
  duration_ms       INTEGER NOT NULL,
  window            INTEGER NOT NULL,
  ttl               INTEGER NOT NULL,
  ip_id             INTEGER NOT NULL,
  our_port          INTEGER NOT NULL,
  our_seq           INTEGER NOT NULL,
  their_seq         INTEGER NOT NULL,
  mss               INTEGER,
  wscale            INTEGER,
  sack_perm         INTEGER NOT NULL,
  ts_val            INTEGER,
  ts_ecr            INTEGER,
  cut               INTEGER NOT NULL
) STRICT;

CREATE TABLE transcripts (
  host_id INTEGER NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  n       INTEGER NOT NULL,
  stage   TEXT NOT NULL,
  side    TEXT NOT NULL,
  at_ms   INTEGER NOT NULL,
  data    BLOB NOT NULL,
  text    TEXT,
  PRIMARY KEY (host_id, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE rulesets (
  id        INTEGER PRIMARY KEY,
  digest    TEXT NOT NULL UNIQUE,
  loaded_us INTEGER NOT NULL,
  version   TEXT NOT NULL
) STRICT;

CREATE TABLE verdicts (
  host_id    INTEGER NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  ruleset_id INTEGER NOT NULL REFERENCES rulesets (id) ON DELETE CASCADE,
  product    TEXT,
  vendor     TEXT,
  family     TEXT,
  version    TEXT,
  patch      TEXT,
  category   TEXT,
  confidence REAL NOT NULL,
  is_smtp    INTEGER NOT NULL,
  protocol   TEXT,
  hostname   TEXT,
  os         TEXT,
  evidence   TEXT NOT NULL,
  cluster    TEXT,
  PRIMARY KEY (host_id, ruleset_id)
) STRICT, WITHOUT ROWID;
";

/// What version 2 added; a file of version 1 gets it when it is opened for writing.
pub(super) const SINCE_2: &str = "
CREATE TABLE IF NOT EXISTS dialogues (
  host_id       INTEGER PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
  commands      INTEGER NOT NULL,
  replies       TEXT NOT NULL,
  ehlo_keywords TEXT NOT NULL
) STRICT;

CREATE VIEW IF NOT EXISTS v_replies AS
  SELECT h.saddr, d.host_id, r.key AS n, r.value ->> 'stage' AS stage, r.value ->> 'code' AS code,
         r.value ->> 'enhanced' AS enhanced, r.value ->> 'lines' AS lines,
         r.value ->> 'latency_ms' AS latency_ms, r.value ->> 'pieces' AS pieces,
         r.value ->> 'quirks' AS quirks
  FROM dialogues AS d JOIN hosts AS h ON h.id = d.host_id, json_each(d.replies) AS r;

CREATE VIEW IF NOT EXISTS v_ehlo_keywords AS
  SELECT h.saddr, d.host_id, k.key AS n, k.value ->> 'stage' AS stage,
         upper(k.value ->> 'keyword') AS keyword, k.value ->> 'parameters' AS parameters
  FROM dialogues AS d JOIN hosts AS h ON h.id = d.host_id, json_each(d.ehlo_keywords) AS k;
";

/// What came of TLS; of version 2 as well.
pub(super) const TLS: &str = "
CREATE TABLE IF NOT EXISTS tls (
  host_id            INTEGER PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
  start              TEXT NOT NULL,
  version            TEXT,
  cipher             TEXT,
  cipher_id          INTEGER,
  key_group          TEXT,
  handshake_ms       INTEGER,
  failure            TEXT,
  alert              INTEGER,
  alert_name         TEXT,
  alert_by           TEXT,
  heard              TEXT,
  detail             TEXT,
  client_certificate INTEGER NOT NULL,
  renegotiations     INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS certificates (
  id                  INTEGER PRIMARY KEY,
  sha256              TEXT NOT NULL UNIQUE,
  version             INTEGER,
  serial              TEXT,
  subject             TEXT,
  issuer              TEXT,
  alt_names           TEXT,
  not_before_us       INTEGER,
  not_after_us        INTEGER,
  key_type            TEXT,
  key_bits            INTEGER,
  signature_algorithm TEXT,
  self_signed         INTEGER,
  der                 BLOB NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS tls_certificates (
  host_id        INTEGER NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  n              INTEGER NOT NULL,
  certificate_id INTEGER NOT NULL REFERENCES certificates (id),
  PRIMARY KEY (host_id, n)
) STRICT, WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS v_tls_versions AS
  SELECT start, version, count(*) AS hosts,
         round(100.0 * count(*) / sum(count(*)) OVER (PARTITION BY start), 2) AS percent
  FROM tls WHERE handshake_ms IS NOT NULL
  GROUP BY start, version ORDER BY start, hosts DESC, version;

CREATE VIEW IF NOT EXISTS v_tls_failures AS
  SELECT start, failure, alert_name, alert_by, version, heard, count(*) AS hosts
  FROM tls WHERE failure IS NOT NULL
  GROUP BY start, failure, alert_name, alert_by, version, heard
  ORDER BY hosts DESC, start, failure, alert_name;

CREATE VIEW IF NOT EXISTS v_certificates AS
  SELECT c.sha256, c.subject, c.issuer, c.alt_names,
         strftime('%Y-%m-%dT%H:%M:%SZ', c.not_before_us / 1000000, 'unixepoch') AS not_before,
         strftime('%Y-%m-%dT%H:%M:%SZ', c.not_after_us / 1000000, 'unixepoch') AS not_after,
         c.key_type, c.key_bits, c.signature_algorithm, c.self_signed,
         count(CASE WHEN t.n = 0 THEN 1 END) AS hosts, count(*) AS chains
  FROM certificates AS c JOIN tls_certificates AS t ON t.certificate_id = c.id
  GROUP BY c.id ORDER BY hosts DESC, chains DESC, c.sha256;

CREATE VIEW IF NOT EXISTS v_tls AS
  SELECT h.saddr, t.start, t.version, t.cipher, t.key_group, t.handshake_ms, t.failure,
         t.alert, t.alert_name, t.alert_by, t.heard, t.detail, t.client_certificate,
         t.renegotiations, c.sha256, c.subject, c.issuer, c.alt_names,
         strftime('%Y-%m-%dT%H:%M:%SZ', c.not_after_us / 1000000, 'unixepoch') AS not_after,
         c.key_type, c.key_bits, c.signature_algorithm, c.self_signed,
         c.not_after_us < h.timestamp_us AS expired
  FROM hosts AS h JOIN tls AS t ON t.host_id = h.id
  LEFT JOIN tls_certificates AS o ON o.host_id = h.id AND o.n = 0
  LEFT JOIN certificates AS c ON c.id = o.certificate_id;
";

/// The views.
pub(super) const VIEWS: &str = concat!(
    "
CREATE VIEW v_outcomes AS
  SELECT outcome, count(*) AS hosts,
         round(100.0 * count(*) / (SELECT count(*) FROM hosts), 2) AS percent
  FROM hosts GROUP BY outcome ORDER BY hosts DESC, outcome;

CREATE VIEW v_products AS
  SELECT product, vendor, category, count(*) AS hosts,
         round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent
  FROM verdicts WHERE is_smtp AND ruleset_id = ",
    current!(),
    "
  GROUP BY product, vendor, category ORDER BY hosts DESC, product;

CREATE VIEW v_versions AS
  SELECT product, version, count(*) AS hosts,
         round(100.0 * count(*) / sum(count(*)) OVER (PARTITION BY product), 2) AS percent
  FROM verdicts WHERE is_smtp AND product IS NOT NULL AND ruleset_id = ",
    current!(),
    "
  GROUP BY product, version ORDER BY product, hosts DESC, version;

CREATE VIEW v_categories AS
  SELECT category, count(*) AS hosts,
         round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent
  FROM verdicts WHERE is_smtp AND ruleset_id = ",
    current!(),
    "
  GROUP BY category ORDER BY hosts DESC, category;

CREATE VIEW v_greetings AS
  SELECT greeting, count(*) AS hosts
  FROM (SELECT ",
    said!("greeting"),
    " AS greeting FROM hosts AS h)
  GROUP BY greeting ORDER BY hosts DESC, greeting;

CREATE VIEW v_unknown AS
  SELECT c.cluster, c.hosts, h.saddr AS example_saddr, ",
    said!("greeting"),
    " AS example
  FROM (SELECT cluster, count(*) AS hosts, min(host_id) AS host_id FROM verdicts
        WHERE is_smtp AND product IS NULL AND ruleset_id = ",
    current!(),
    " GROUP BY cluster) AS c
  JOIN hosts AS h ON h.id = c.host_id ORDER BY c.hosts DESC, c.cluster;

CREATE VIEW v_hosts AS
  SELECT h.id, h.saddr, h.sport, strftime('%Y-%m-%dT%H:%M:%SZ', h.timestamp_us / 1000000, 'unixepoch') AS seen,
         h.outcome, h.detail, v.product, v.vendor, v.family, v.version, v.patch, v.category, v.confidence,
         v.is_smtp, v.protocol, v.hostname, v.os, v.cluster, ",
    said!("greeting"),
    " AS greeting, ",
    said!("ehlo"),
    " AS ehlo,
         h.connect_ms, h.greeting_delay_ms, h.duration_ms, h.window, h.ttl, h.mss, h.wscale,
         h.sack_perm, h.ts_val
  FROM hosts AS h LEFT JOIN verdicts AS v ON v.host_id = h.id AND v.ruleset_id = ",
    current!(),
    ";

CREATE VIEW v_transcript AS
  SELECT h.saddr, t.host_id, t.n, t.at_ms, t.stage,
         CASE t.side WHEN 'server' THEN 'S:' ELSE 'C:' END AS side, ",
    one_line!(readable!("t.")),
    " AS text
  FROM hosts AS h JOIN transcripts AS t ON t.host_id = h.id;
"
);
