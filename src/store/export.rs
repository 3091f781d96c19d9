//! Rows for other tools: CSV and NDJSON, streamed, as of one moment.
//!
//! **CSV**: the fields of [`super::FIELDS`] that were chosen. Unknown is empty, booleans are 1
//! and 0, and whatever a server chose is escaped by [`super::text::escape`], so a row is one line
//! and the original octets can be had back.
//!
//! **NDJSON**: one object a host with all fields but the dialogue's, then `ip` and `port`, the
//! verdict's `evidence`, the dialogue step by step in `replies` and `ehlo_keywords`, and word by word in
//! the envelope of zgrab2: `data.smtp.{status, protocol, port, timestamp, error, result}`. In
//! `result` stand `banner`, `ehlo`, `helo`, `help`, … `starttls`, `quit`; octets that are no UTF-8 become U+FFFD there, and only then the exact octets follow as `banner_b64` …
//! Where fields were chosen, these and no others are the object's keys, in that order; `banner`,
//! `ehlo` … then stand among them.
//!
//! A reader that has enough (`| head`) closes the pipe; that is a clean end, not an error.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::dialogue::{keywords, replies};
use super::fields::{Cell, Context, DIALOGUE, FIELDS, Field, Fields, time};
use super::read::Parts;
use super::row::{StoredHost, evidence_json};
use super::text::{escape, json_line};
use super::{StoreError, Survey, key, zgrab};
use crate::smtp::{Outcome, Stage};

/// Writes the survey's hosts as CSV, with a line of names first if `header`. Returns how many
/// rows were written.
///
/// # Errors
/// If the survey cannot be read, or `out` cannot be written for another reason than a closed
/// pipe.
pub fn csv(
    survey: &Survey,
    fields: &Fields,
    header: bool,
    out: impl Write,
) -> Result<u64, StoreError> {
    let context = context(survey)?;
    let parts = parts_of(fields);
    let mut writer = ::csv::Writer::from_writer(out);
    let mut rows = 0;
    let written = (|| -> Result<(), Stop> {
        if header {
            writer.write_record(fields.iter().map(|f| f.name))?;
        }
        let mut record = Vec::new();
        survey.scan(parts, |host| -> Result<(), Stop> {
            record.clear();
            record.extend(fields.iter().map(|f| csv_text((f.cell)(&host, context))));
            writer.write_record(&record)?;
            rows += 1;
            Ok(())
        })?;
        Ok(writer.flush()?)
    })();
    end(written, rows)
}

/// Writes the survey's hosts as NDJSON, with all there is or the chosen fields alone. Returns how
/// many rows were written.
///
/// # Errors
/// As [`csv()`].
pub fn ndjson(
    survey: &Survey,
    fields: Option<&Fields>,
    out: impl Write,
) -> Result<u64, StoreError> {
    let context = context(survey)?;
    let parts = fields.map_or(Parts::ALL, parts_of);
    let mut out = io::BufWriter::with_capacity(64 << 10, out);
    let mut rows = 0;
    let written = (|| -> Result<(), Stop> {
        survey.scan(parts, |host| -> Result<(), Stop> {
            let row = match fields {
                None => row(&host, context),
                Some(fields) => chosen(&host, context, fields),
            };
            json_line(&row, &mut out)?;
            out.write_all(b"\n")?;
            rows += 1;
            Ok(())
        })?;
        Ok(out.flush()?)
    })();
    end(written, rows)
}

/// What those fields need to be read.
fn parts_of(fields: &Fields) -> Parts {
    Parts {
        transcript: fields.want_transcript(),
        evidence: false,
        tls: fields.want_tls(),
    }
}

/// Why the writing stopped early.
enum Stop {
    Store(StoreError),
    Output(io::Error),
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

impl From<::csv::Error> for Stop {
    fn from(e: ::csv::Error) -> Self {
        // The plain conversion would hide the kind, and with it the closed pipe.
        Self::Output(match e.into_kind() {
            ::csv::ErrorKind::Io(e) => e,
            other => io::Error::other(format!("{other:?}")),
        })
    }
}

fn end(written: Result<(), Stop>, rows: u64) -> Result<u64, StoreError> {
    match written {
        Ok(()) => Ok(rows),
        Err(Stop::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(rows),
        Err(Stop::Output(e)) => Err(StoreError::Output(e)),
        Err(Stop::Store(e)) => Err(e),
    }
}

fn context(survey: &Survey) -> Result<Context, StoreError> {
    let source = survey.meta(key::SOURCE)?;
    let daddr = source
        .as_ref()
        .and_then(Value::as_str)
        .and_then(|s| s.parse::<Ipv4Addr>().ok());
    Ok(Context { daddr })
}

fn csv_text(cell: Cell<'_>) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Integer(n) => n.to_string(),
        Cell::Number(x) => x.to_string(),
        Cell::Boolean(b) => u8::from(b).to_string(),
        Cell::Text(t) => t.into_owned(),
        Cell::Words(w) => escape(&w),
    }
}

/// Sets a key to the value of a cell; if that is octets that are no UTF-8, another to these.
fn put(row: &mut Map<String, Value>, name: &str, cell: Cell<'_>) {
    let value = match cell {
        Cell::Empty => Value::Null,
        Cell::Integer(n) => n.into(),
        Cell::Number(x) => x.into(),
        Cell::Boolean(b) => b.into(),
        Cell::Text(t) => t.into_owned().into(),
        Cell::Words(said) => match str::from_utf8(&said) {
            Ok(text) => text.into(),
            Err(_) => {
                row.insert(name.to_owned(), String::from_utf8_lossy(&said).into());
                row.insert(format!("{name}_b64"), BASE64.encode(&said).into());
                return;
            }
        },
    };
    row.insert(name.to_owned(), value);
}

fn chosen(host: &StoredHost, context: Context, fields: &Fields) -> Value {
    let mut row = Map::new();
    for field in fields.iter() {
        put(&mut row, field.name, (field.cell)(host, context));
    }
    Value::Object(row)
}

/// The dialogue stands in the envelope, not among the plain fields.
fn is_plain(field: &Field) -> bool {
    !DIALOGUE.contains(&field.name)
}

fn row(host: &StoredHost, context: Context) -> Value {
    let mut row = Map::new();
    for field in FIELDS.iter().filter(|f| is_plain(f)) {
        put(&mut row, field.name, (field.cell)(host, context));
    }
    row.insert("ip".to_owned(), host.row.addr.to_string().into());
    row.insert("port".to_owned(), host.row.sport.into());
    let evidence = host.verdict.as_ref().map(|v| evidence_json(&v.evidence));
    row.insert("evidence".to_owned(), json!(evidence));
    row.insert("replies".to_owned(), json!(replies(&host.transcript)));
    let keywords = keywords(&host.transcript);
    row.insert("ehlo_keywords".to_owned(), json!(keywords));
    row.insert("data".to_owned(), json!({ "smtp": envelope(host) }));
    Value::Object(row)
}

fn envelope(host: &StoredHost) -> Value {
    let mut result = Map::new();
    for stage in Stage::ALL {
        let Some(said) = host.transcript.server(*stage) else {
            continue;
        };
        // zgrab2 calls the greeting the banner; its other names are those of our stages.
        let name = if *stage == Stage::Greeting {
            "banner"
        } else {
            stage.name()
        };
        put(&mut result, name, Cell::Words(said.into()));
    }
    if let Some(tls) = &host.tls {
        result.insert("implicit_tls".to_owned(), (tls.start == "implicit").into());
        result.insert("tls".to_owned(), zgrab::tls(tls));
    }
    let mut smtp = Map::new();
    smtp.insert("status".to_owned(), host.row.outcome.zgrab_status().into());
    smtp.insert("protocol".to_owned(), "smtp".into());
    smtp.insert("port".to_owned(), host.row.sport.into());
    smtp.insert("result".to_owned(), Value::Object(result));
    // Second precision in UTC, as zgrab2 writes it.
    let started = time(host.row.started_us)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    smtp.insert("timestamp".to_owned(), started.into());
    if !matches!(host.row.outcome, Outcome::Completed | Outcome::EhloRejected) {
        let error = match &host.row.detail {
            Some(detail) => format!("{}: {detail}", host.row.outcome),
            None => host.row.outcome.to_string(),
        };
        smtp.insert("error".to_owned(), error.into());
    }
    Value::Object(smtp)
}
