//! Labelled replies as they stand in a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::FOLDS;
use crate::fingerprint::{Observation, Verdict};
use crate::smtp::Stage;
use crate::store::text::escape;

/// A labelled reply.
pub(super) struct Row {
    /// The probe, by the name of its stage.
    pub(super) probe: String,
    pub(super) stage: Stage,
    pub(super) reply: Vec<u8>,
    /// Rows that must not be parted: nearly the same text.
    group: String,
    pub(super) truth: Truth,
}

/// What a row is.
pub(super) enum Truth {
    /// A product's.
    Product {
        name: String,
        version: Option<String>,
        /// Whether the text alone tells the product: `yes`, `weak` or `no`.
        identifiable: String,
        /// Products that say the same.
        also: Vec<String>,
    },
    /// Nobody's that could be told.
    Negative {
        acceptable: Vec<String>,
        is_smtp: Option<bool>,
    },
}

/// Reads a file of rows; returns how many were left out because no dialogue has their probe.
pub(super) fn read(path: &Path, rows: &mut Vec<Row>) -> anyhow::Result<usize> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut left_out = 0;
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line.with_context(|| format!("cannot read {name}"))?;
        let row: Value =
            serde_json::from_str(&line).with_context(|| format!("{name}:{number}: no JSON"))?;
        match Row::new(&row) {
            Some(row) => rows.push(row),
            None => left_out += 1,
        }
    }
    Ok(left_out)
}

impl Row {
    fn new(row: &Value) -> Option<Self> {
        let probe = match text(row, "probe")? {
            "banner" => "greeting",
            "longline" => "overlong",
            other => other,
        };
        let stage = Stage::from_name(probe)?;
        let reply = text(row, "wire").or_else(|| text(row, "response"))?;
        let owned = |key: &str| text(row, key).map(str::to_owned);
        let truth = match owned("product") {
            Some(name) => Truth::Product {
                name,
                version: owned("version").filter(|v| !v.is_empty()),
                identifiable: owned("identifiable").unwrap_or_else(|| "yes".into()),
                also: list(row, "also_products"),
            },
            None => Truth::Negative {
                acceptable: list(row, "acceptable_products"),
                is_smtp: row["is_smtp"].as_bool(),
            },
        };
        Some(Self {
            probe: probe.to_owned(),
            stage,
            group: owned("group")
                .or_else(|| owned("id"))
                .unwrap_or_else(|| reply.to_owned()),
            reply: octets(reply),
            truth,
        })
    }

    pub(super) fn observation(&self) -> Observation<'_> {
        Observation::only(self.stage, &self.reply)
    }

    /// The fold that the row is judged in.
    pub(super) fn fold(&self) -> u64 {
        hash(&self.group) % FOLDS
    }

    /// One line about a verdict that is not right.
    pub(super) fn tell(&self, verdict: &Verdict) -> String {
        let expected = match &self.truth {
            Truth::Product { name, version, .. } => {
                format!("{name} {}", version.as_deref().unwrap_or(""))
            }
            Truth::Negative { .. } => "none ".into(),
        };
        let said = verdict.product.as_deref().map_or_else(
            || "unknown".into(),
            |p| format!("{p} {}", verdict.version.as_deref().unwrap_or("")),
        );
        format!(
            "{}: {} for {}: {}",
            self.probe,
            said.trim_end(),
            expected.trim_end(),
            escape(&self.reply)
        )
    }
}

/// Octets of a reply whose file has them as characters: telnet's commands have no others.
fn octets(text: &str) -> Vec<u8> {
    if text.starts_with('\u{ff}') {
        text.chars().filter_map(|c| u8::try_from(c).ok()).collect()
    } else {
        text.as_bytes().to_vec()
    }
}

/// FNV-1a with a last stir: the same folds and sessions everywhere and always.
pub(super) fn hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}

fn text<'a>(row: &'a Value, key: &str) -> Option<&'a str> {
    row[key].as_str()
}

fn list(row: &Value, key: &str) -> Vec<String> {
    let items = row[key].as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
