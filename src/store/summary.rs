//! The counted rows from which reports are made, all as of one moment.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use super::read::named;
use super::row::category;
use super::tls::{self, TlsSummary};
use super::{StoreError, Survey};
use crate::fingerprint::Category;
use crate::smtp::{Outcome, Stage};

/// A survey, counted.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The metadata, by key; see [`super::key`].
    pub metadata: BTreeMap<String, Value>,
    /// Digest and version of the rules whose verdicts are counted.
    pub ruleset: Option<(String, String)>,
    /// Totals by kind and name; see [`super::count`].
    pub counts: BTreeMap<(String, String), u64>,
    /// Stored hosts by how their session ended; only outcomes that occurred.
    pub outcomes: Vec<(Outcome, u64)>,
    /// Judged hosts by product and version, unknown products included.
    pub products: Vec<ProductRow>,
    /// The largest groups of unknown SMTP servers with like greetings, largest first.
    pub clusters: Vec<ClusterRow>,
    /// All such groups.
    pub cluster_count: u64,
    /// What came of TLS.
    pub tls: TlsSummary,
}

/// So many hosts have one product in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRow {
    /// The product; `None` is unknown.
    pub product: Option<String>,
    /// Its vendor.
    pub vendor: Option<String>,
    /// Its family.
    pub family: Option<String>,
    /// Its category.
    pub category: Option<Category>,
    /// The version; `None` where the server does not say it.
    pub version: Option<String>,
    /// Whether these hosts speak SMTP at all.
    pub is_smtp: bool,
    /// How many hosts.
    pub hosts: u64,
}

/// So many unknown hosts greet alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRow {
    /// The normalised greeting; `None` where there is none.
    pub cluster: Option<String>,
    /// How many hosts.
    pub hosts: u64,
    /// The address of one of them.
    pub example_saddr: String,
    /// Its greeting, raw.
    pub example: Vec<u8>,
}

impl Survey {
    /// Counts everything a report shows, in one snapshot; `clusters` is how many of the largest
    /// unknown groups to fetch. One pass over hosts and one over verdicts.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn summary(&self, clusters: u32) -> Result<Summary, StoreError> {
        let snapshot = self
            .conn
            .unchecked_transaction()
            .map_err(|e| self.failed("read", e))?;
        let metadata = self.metadata()?;
        let ruleset = self.current_ruleset()?;
        count_all(&snapshot, ruleset, clusters)
            .map(|counted| Summary {
                metadata,
                ..counted
            })
            .map_err(|e| self.failed("read", e))
    }
}

fn count_all(conn: &Connection, ruleset: Option<i64>, clusters: u32) -> rusqlite::Result<Summary> {
    Ok(Summary {
        metadata: BTreeMap::new(),
        ruleset: conn
            .prepare_cached("SELECT digest, version FROM rulesets WHERE id = ?1")?
            .query_row([ruleset], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?,
        counts: conn
            .prepare_cached("SELECT kind, name, n FROM probe_counts")?
            .query_map([], |r| Ok(((r.get(0)?, r.get(1)?), r.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?,
        outcomes: conn
            .prepare_cached("SELECT outcome, count(*) FROM hosts GROUP BY outcome")?
            .query_map([], |r| Ok((named(r, 0, Outcome::from_name)?, r.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?,
        products: products(conn, ruleset)?,
        clusters: largest_clusters(conn, ruleset, clusters)?,
        cluster_count: conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT DISTINCT cluster FROM verdicts
                 WHERE is_smtp AND product IS NULL AND ruleset_id = ?1)",
            )?
            .query_row([ruleset], |r| r.get(0))?,
        tls: tls::summary(conn)?,
    })
}

fn products(conn: &Connection, ruleset: Option<i64>) -> rusqlite::Result<Vec<ProductRow>> {
    conn.prepare_cached(
        "SELECT product, vendor, category, version, is_smtp, count(*), family FROM verdicts
         WHERE ruleset_id = ?1
         GROUP BY product, vendor, category, version, is_smtp, family",
    )?
    .query_map([ruleset], |r| {
        let stated: Option<String> = r.get(2)?;
        Ok(ProductRow {
            product: r.get(0)?,
            vendor: r.get(1)?,
            category: stated.map(|_| named(r, 2, category)).transpose()?,
            version: r.get(3)?,
            is_smtp: r.get(4)?,
            hosts: r.get(5)?,
            family: r.get(6)?,
        })
    })?
    .collect()
}

fn largest_clusters(
    conn: &Connection,
    ruleset: Option<i64>,
    limit: u32,
) -> rusqlite::Result<Vec<ClusterRow>> {
    let mut pieces = conn.prepare_cached(
        "SELECT data FROM transcripts
         WHERE host_id = ?1 AND side = 'server' AND stage = ?2 ORDER BY n",
    )?;
    let mut groups = conn.prepare_cached(
        "SELECT c.cluster, c.hosts, h.saddr, h.id
         FROM (SELECT cluster, count(*) AS hosts, min(host_id) AS first FROM verdicts
               WHERE is_smtp AND product IS NULL AND ruleset_id = ?1 GROUP BY cluster) AS c
         JOIN hosts AS h ON h.id = c.first
         ORDER BY c.hosts DESC, c.cluster LIMIT ?2",
    )?;
    let mut rows = groups.query((ruleset, limit))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let host: i64 = row.get(3)?;
        let parts: Vec<Vec<u8>> = pieces
            .query_map((host, Stage::Greeting.name()), |r| r.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        out.push(ClusterRow {
            cluster: row.get(0)?,
            hosts: row.get(1)?,
            example_saddr: row.get(2)?,
            example: parts.concat(),
        });
    }
    Ok(out)
}
