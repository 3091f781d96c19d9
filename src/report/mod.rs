//! What a survey found, as tables.
//!
//! [`Report::load`] takes the store's counted rows and makes the figures from them,
//! [`Report::render`] the terminal's tables, [`Report::to_json`] the machine's form. Pure: no
//! socket, no clock; the same survey gives the same report.
//!
//! Bases of the shares: probe outcomes are shares of the probes sent, session outcomes of the
//! stored hosts, categories and products of the **SMTP servers** (hosts that the store counts as
//! such, [`Survey::smtp_hosts`]) and, in a second column, of the identified ones among them. Intervals are
//! 95 % (Wilson) for the survey as a random sample of a larger population; for an exhaustive
//! sweep they have no meaning.
//!
//! Invariants: within a table the rows add up to its total; every text that a server chose has
//! been through [`crate::store::text::escape`], so no report carries a control character.

mod figures;
mod table;
mod tally;

use serde::Serialize;

pub use tally::{Rest, Share};

use crate::fingerprint::RuleSet;
use crate::store::text::{escape, json_pretty};
use crate::store::{StoreError, Summary, Survey};

/// The level at which products are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each product.
    #[default]
    Product,
    /// Products of one family together.
    Family,
    /// Families that belong to one together.
    RootFamily,
    /// Products of one vendor together.
    Vendor,
    /// Products of one kind together.
    Category,
}

impl Level {
    /// What is counted, as a heading.
    const fn noun(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Family => "family",
            Self::RootFamily => "root family",
            Self::Vendor => "vendor",
            Self::Category => "category",
        }
    }
}

/// How much detail to show.
#[derive(Debug, Clone, Copy)]
struct Options<'r> {
    /// The level at which products are counted.
    level: Level,
    /// The rules that know how families belong together.
    rules: Option<&'r RuleSet>,
    /// Products listed before the rest is folded into "other".
    products: usize,
    /// Versions listed for each product.
    versions: usize,
    /// Clusters of unknown servers listed.
    clusters: u32,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            level: Level::Product,
            rules: None,
            products: 40,
            versions: 10,
            clusters: 10,
        }
    }
}

/// All figures of a survey.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What the survey was.
    pub head: Head,
    /// What the probes met; absent if no counts are stored.
    pub probes: Option<Probes>,
    /// How the sessions ended.
    pub sessions: Sessions,
    /// What the servers are.
    pub servers: Servers,
    /// What came of TLS; absent if it was begun with nobody.
    pub tls: Option<Tls>,
}

/// What the survey was.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// The file's name.
    pub file: String,
    /// `running`, `complete`, `interrupted`, `failed`; absent if the survey does not tell.
    pub state: Option<String>,
    /// Version of the program that made it.
    pub version: Option<String>,
    /// Start, RFC 3339 UTC.
    pub started: Option<String>,
    /// The last commit, RFC 3339 UTC: how old the figures of a running sweep are.
    pub updated: Option<String>,
    /// End, RFC 3339 UTC.
    pub ended: Option<String>,
    /// From start to end, seconds.
    pub seconds: Option<u64>,
    /// The targets as named by the user.
    pub targets: Vec<String>,
    /// Addresses in the space.
    pub addresses: Option<u64>,
    /// Packets/s asked for.
    pub rate: Option<f64>,
    /// The permutation's seed.
    pub seed: Option<u64>,
    /// `index/total`, counted from 0.
    pub shard: Option<String>,
    /// Digest of the rules whose verdicts count.
    pub rules_digest: Option<String>,
    /// Version of those rules.
    pub rules_version: Option<String>,
}

/// A named count and its share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What is counted.
    pub name: String,
    /// How many, of how many.
    #[serde(flatten)]
    pub share: Share,
}

/// What the probes met.
#[derive(Debug, Clone, Serialize)]
pub struct Probes {
    /// Probes sent.
    pub sent: u64,
    /// Addresses of the space that were not probed (yet), if the space is known.
    pub not_sent: Option<u64>,
    /// SYN-ACK, RST, each ICMP error, and no answer: shares of those sent.
    pub outcomes: Vec<Line>,
    /// Replies in excess of the probes sent: always 0 unless counts were lost.
    pub excess: u64,
    /// What was counted beside: duplicates, blocked replies, ignored frames.
    pub notes: Vec<(String, u64)>,
}

/// How the sessions ended.
#[derive(Debug, Clone, Serialize)]
pub struct Sessions {
    /// Validated responders, if counts are stored.
    pub responders: Option<u64>,
    /// Hosts stored, each with one outcome.
    pub hosts: u64,
    /// Responders whose session has not been stored (yet).
    pub open: u64,
    /// Whether responders and stored hosts agree.
    pub balanced: bool,
    /// Hosts by outcome, the most frequent first.
    pub outcomes: Vec<Line>,
    /// Commands said to a host, on the average of those to which any was said.
    pub mean_commands: Option<f64>,
}

/// What the servers are.
#[derive(Debug, Clone, Serialize)]
pub struct Servers {
    /// Hosts with a verdict.
    pub judged: u64,
    /// Stored hosts without one: stored by a sweep that went on under other rules.
    pub unjudged: u64,
    /// Of those judged, hosts that are SMTP servers: the base of the shares.
    pub smtp: u64,
    /// Of those, hosts whose product is known.
    pub identified: Share,
    /// Hosts that did not show themselves to be SMTP servers, yet are known by product.
    pub other_services: u64,
    /// By category, the most frequent first, the unknown last.
    pub categories: Vec<CategoryLine>,
    /// What `products` are: products, or families, vendors, categories of them.
    pub level: Level,
    /// By product, the most frequent first.
    pub products: Vec<Product>,
    /// Products beyond the limit.
    pub other_products: Option<Rest>,
    /// The largest clusters of unknown servers.
    pub clusters: Vec<Cluster>,
    /// Clusters beyond the limit.
    pub other_clusters: Option<Rest>,
}

/// What came of TLS.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tls {
    /// Hosts with whom it was begun by STARTTLS, of the SMTP servers.
    pub starttls: Share,
    /// Hosts with whom it was begun with the connection, of all hosts.
    pub implicit: Share,
    /// Channels by version, of the channels that stood.
    pub versions: Vec<Line>,
    /// What failed, of those with whom it was begun; the most frequent first.
    pub failures: Vec<Line>,
    /// Different certificates of servers.
    pub certificates: u64,
    /// Certificates signed by their own keys, of the servers that showed one.
    pub self_signed: Share,
    /// Certificates that had expired when they were seen.
    pub expired: Share,
}

/// The servers of one category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryLine {
    /// The category, or "unknown".
    pub name: String,
    /// Share of the SMTP servers.
    pub of_smtp: Share,
    /// Share of the identified ones; absent for "unknown".
    pub of_identified: Option<Share>,
}

/// One product.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Product {
    /// Its name.
    pub name: String,
    /// Its vendor.
    pub vendor: Option<String>,
    /// Its category.
    pub category: Option<&'static str>,
    /// Share of the SMTP servers.
    pub of_smtp: Share,
    /// Share of the identified ones.
    pub of_identified: Share,
    /// By version, the most frequent first; `None` where the servers do not say it.
    pub versions: Vec<Version>,
    /// Versions beyond the limit.
    pub other_versions: Option<Rest>,
}

/// One version of a product.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Version {
    /// The version; `None`: not stated.
    pub version: Option<String>,
    /// Hosts, as a share of the product's.
    #[serde(flatten)]
    pub share: Share,
}

/// Unknown servers that greet alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// The normalised greeting; `None` if there was none.
    pub cluster: Option<String>,
    /// Hosts, as a share of the SMTP servers.
    #[serde(flatten)]
    pub share: Share,
    /// One of the hosts.
    pub example_saddr: String,
    /// Its greeting, escaped.
    pub example: String,
}

impl Report {
    /// The report of a survey with the usual detail.
    ///
    /// # Errors
    /// If the survey cannot be read.
    pub fn load(survey: &Survey) -> Result<Self, StoreError> {
        Self::load_with(survey, Options::default())
    }

    /// The same with the products counted at a level; `rules` know how families belong together.
    ///
    /// # Errors
    /// If the survey cannot be read.
    pub fn load_at(survey: &Survey, level: Level, rules: &RuleSet) -> Result<Self, StoreError> {
        let options = Options {
            level,
            rules: Some(rules),
            ..Options::default()
        };
        Self::load_with(survey, options)
    }

    /// The report of a survey with so much detail.
    fn load_with(survey: &Survey, options: Options<'_>) -> Result<Self, StoreError> {
        let name = survey
            .path()
            .file_name()
            .unwrap_or_else(|| survey.path().as_os_str());
        let file = escape(name.as_encoded_bytes());
        Ok(Self::of(file, &survey.summary(options.clusters)?, options))
    }

    /// The report of counted rows; `file` is the survey's name.
    fn of(file: String, rows: &Summary, options: Options<'_>) -> Self {
        let head = Head::of(file, rows);
        let probes = Probes::of(rows, head.addresses);
        let (sessions, servers) = (Sessions::of(rows), Servers::of(rows, options));
        Self {
            tls: Tls::of(&rows.tls, servers.smtp, sessions.hosts),
            sessions,
            servers,
            probes,
            head,
        }
    }

    /// The report as indented JSON that carries no control character but line feeds.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        // Writing to memory does not fail, and all map keys are strings; were it otherwise, the
        // text would be cut short and no reader would take it for JSON.
        let _ = json_pretty(self, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests;
