//! From counted rows to figures.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tally::{Rest, Share, fold_rest};
use super::{
    CategoryLine, Cluster, Head, Level, Line, Options, Probes, Product, Servers, Sessions, Tls,
    Version,
};
use crate::fingerprint::Category;
use crate::store::text::{escape, escape_short};
use crate::store::{ProductRow, Summary, TlsCount, TlsSummary, count, key};

impl Head {
    pub(super) fn of(file: String, rows: &Summary) -> Self {
        let meta = |key: &str| rows.metadata.get(key);
        let words = |key: &str| {
            meta(key)
                .and_then(Value::as_str)
                .map(|s| escape(s.as_bytes()))
        };
        let number = |key: &str| meta(key).and_then(Value::as_u64);
        let (started, ended) = (number(key::STARTED_US), number(key::ENDED_US));
        let targets = match meta(key::TARGETS) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        };
        Self {
            file,
            state: words(key::STATE),
            version: words(key::VERSION),
            started: started.and_then(moment),
            updated: number(key::UPDATED_US).and_then(moment),
            ended: ended.and_then(moment),
            seconds: started
                .zip(ended)
                .map(|(from, to)| to.saturating_sub(from) / 1_000_000),
            targets: targets.into_iter().map(|t| escape(t.as_bytes())).collect(),
            addresses: number(key::ADDRESSES),
            rate: meta(key::RATE).and_then(Value::as_f64),
            seed: number(key::SEED),
            shard: words(key::SHARD),
            rules_digest: rows
                .ruleset
                .as_ref()
                .map(|(digest, _)| escape(digest.as_bytes())),
            rules_version: rows
                .ruleset
                .as_ref()
                .map(|(_, version)| escape(version.as_bytes())),
        }
    }
}

/// Unix microseconds as RFC 3339 in UTC, to the second.
fn moment(us: u64) -> Option<String> {
    let stamp = jiff::Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()?;
    Some(stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

impl Probes {
    pub(super) fn of(rows: &Summary, addresses: Option<u64>) -> Option<Self> {
        let n = |kind: &str, name: &str| {
            rows.counts
                .get(&(kind.to_owned(), name.to_owned()))
                .copied()
                .unwrap_or(0)
        };
        let of_kind = |kind: &'static str| {
            rows.counts
                .iter()
                .filter(move |((k, _), n)| k == kind && **n > 0)
                .map(|((_, name), n)| (escape(name.as_bytes()), *n))
        };
        if rows.counts.is_empty() {
            return None;
        }
        let sent = n(count::PROBE, count::SENT);
        let mut icmp: Vec<(String, u64)> = of_kind(count::ICMP).collect();
        icmp.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut outcomes = vec![
            (
                "SYN-ACK (responder)".to_owned(),
                n(count::REPLY, count::SYN_ACK),
            ),
            ("RST (closed)".to_owned(), n(count::REPLY, count::RST)),
        ];
        outcomes.extend(
            icmp.into_iter()
                .map(|(name, n)| (format!("ICMP {name}"), n)),
        );
        let answered: u64 = outcomes.iter().map(|(_, n)| n).sum();
        outcomes.push(("no answer".to_owned(), sent.saturating_sub(answered)));
        let mut notes = vec![(
            "SYN-ACK after another answer (responders too)".to_owned(),
            n(count::REPLY, count::SYN_ACK_LATER),
        )];
        for (kind, label) in [
            (count::DUPLICATE, "duplicate replies"),
            (count::ICMP_REMARK, "ICMP messages that settle nothing"),
            (count::BLOCKED, "replies of blocked addresses"),
            (count::DROP, "ignored frames"),
        ] {
            notes.extend(of_kind(kind).map(|(name, n)| match name.as_str() {
                count::ANY => (label.to_owned(), n),
                _ => (format!("{label}: {name}"), n),
            }));
        }
        notes.retain(|(_, n)| *n > 0);
        Some(Self {
            sent,
            not_sent: addresses.map(|addresses| addresses.saturating_sub(sent)),
            outcomes: lines(outcomes, sent),
            excess: answered.saturating_sub(sent),
            notes,
        })
    }
}

impl Sessions {
    pub(super) fn of(rows: &Summary) -> Self {
        let hosts = rows.outcomes.iter().map(|(_, n)| n).sum();
        let mut outcomes: Vec<(String, u64)> = rows
            .outcomes
            .iter()
            .map(|(o, n)| (o.name().to_owned(), *n))
            .collect();
        outcomes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let responders = (!rows.counts.is_empty()).then(|| {
            let n = |name: &str| {
                let key = (count::REPLY.to_owned(), name.to_owned());
                rows.counts.get(&key).copied().unwrap_or(0)
            };
            n(count::SYN_ACK) + n(count::SYN_ACK_LATER)
        });
        Self {
            responders,
            hosts,
            open: responders.map_or(0, |n| n.saturating_sub(hosts)),
            balanced: responders.is_none_or(|n| n == hosts),
            outcomes: lines(outcomes, hosts),
            mean_commands: rows
                .metadata
                .get(key::MEAN_COMMANDS)
                .and_then(Value::as_f64),
        }
    }
}

fn lines(rows: Vec<(String, u64)>, of: u64) -> Vec<Line> {
    rows.into_iter()
        .map(|(name, n)| Line {
            name,
            share: Share::new(n, of),
        })
        .collect()
}

impl Tls {
    /// `smtp` and `hosts`: SMTP servers and all hosts of the survey.
    pub(super) fn of(rows: &TlsSummary, smtp: u64, hosts: u64) -> Option<Self> {
        if rows.counts.is_empty() {
            return None;
        }
        let sum = |keep: &dyn Fn(&TlsCount) -> bool| -> u64 {
            let kept = rows.counts.iter().filter(|count| keep(count));
            kept.map(|count| count.hosts).sum()
        };
        let (mut versions, mut failures) = (BTreeMap::new(), BTreeMap::new());
        for count in &rows.counts {
            if count.stood {
                let version = count.version.as_deref().unwrap_or("unknown");
                *versions.entry(escape(version.as_bytes())).or_default() += count.hosts;
            }
            if let Some(failure) = &count.failure {
                let name = match &count.alert {
                    Some(alert) => format!("{failure}: {alert}"),
                    None => failure.clone(),
                };
                *failures.entry(escape(name.as_bytes())).or_default() += count.hosts;
            }
        }
        let mut failures: Vec<(String, u64)> = failures.into_iter().collect();
        failures.sort_by_key(|(_, hosts)| std::cmp::Reverse(*hosts));
        let of = |start: &'static str| sum(&|count| count.start == start);
        Some(Self {
            starttls: Share::new(of("starttls"), smtp),
            implicit: Share::new(of("implicit"), hosts),
            versions: lines(versions.into_iter().rev().collect(), sum(&|c| c.stood)),
            failures: lines(failures, sum(&|_| true)),
            certificates: rows.certificates,
            self_signed: Share::new(rows.self_signed, rows.certified),
            expired: Share::new(rows.expired, rows.certified),
        })
    }
}

impl Servers {
    pub(super) fn of(rows: &Summary, options: Options<'_>) -> Self {
        let sum = |keep: &dyn Fn(&ProductRow) -> bool| -> u64 {
            rows.products
                .iter()
                .filter(|r| keep(r))
                .map(|r| r.hosts)
                .sum()
        };
        let smtp = sum(&|r| r.is_smtp);
        let identified = sum(&|r| r.is_smtp && r.product.is_some());
        let mut products = products(&rows.products, smtp, identified, options);
        let other_products = fold_rest(&mut products, options.products, |p| p.of_smtp.n);
        let clusters: Vec<Cluster> = rows
            .clusters
            .iter()
            .map(|row| Cluster {
                cluster: row
                    .cluster
                    .as_ref()
                    .map(|c| escape_short(c.as_bytes(), LONGEST)),
                share: Share::new(row.hosts, smtp),
                example_saddr: row.example_saddr.clone(),
                example: escape_short(trim_line_end(&row.example), LONGEST),
            })
            .collect();
        let listed: u64 = clusters.iter().map(|c| c.share.n).sum();
        let left = usize::try_from(rows.cluster_count).unwrap_or(usize::MAX);
        let left = left.saturating_sub(clusters.len());
        let other_clusters = (left > 0).then(|| Rest {
            kinds: left,
            hosts: (smtp - identified).saturating_sub(listed),
        });
        let judged = sum(&|_| true);
        let hosts: u64 = rows.outcomes.iter().map(|(_, n)| n).sum();
        Self {
            judged,
            unjudged: hosts.saturating_sub(judged),
            smtp,
            identified: Share::new(identified, smtp),
            other_services: sum(&|r| !r.is_smtp && r.product.is_some()),
            categories: categories(&rows.products, smtp, identified),
            level: options.level,
            products,
            other_products,
            clusters,
            other_clusters,
        }
    }
}

/// By category, servers of unknown product last.
fn categories(rows: &[ProductRow], smtp: u64, identified: u64) -> Vec<CategoryLine> {
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.is_smtp && r.product.is_some()) {
        let name = row.category.map_or("other", Category::name);
        *by_name.entry(name).or_default() += row.hosts;
    }
    let mut lines: Vec<CategoryLine> = by_name
        .into_iter()
        .map(|(name, n)| CategoryLine {
            name: name.to_owned(),
            of_smtp: Share::new(n, smtp),
            of_identified: Some(Share::new(n, identified)),
        })
        .collect();
    lines.sort_by(|a, b| {
        b.of_smtp
            .n
            .cmp(&a.of_smtp.n)
            .then_with(|| a.name.cmp(&b.name))
    });
    if smtp > 0 {
        lines.push(CategoryLine {
            name: "unknown".to_owned(),
            of_smtp: Share::new(smtp - identified, smtp),
            of_identified: None,
        });
    }
    lines
}

/// By product, each with its versions.
fn products(rows: &[ProductRow], smtp: u64, identified: u64, options: Options<'_>) -> Vec<Product> {
    let mut by_name: BTreeMap<&str, Vec<&ProductRow>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.is_smtp) {
        if let Some(name) = counted_as(row, options) {
            by_name.entry(name).or_default().push(row);
        }
    }
    let mut products: Vec<Product> = by_name
        .into_iter()
        .map(|(name, rows)| product(name, &rows, smtp, identified, options))
        .collect();
    products.sort_by(|a, b| {
        b.of_smtp
            .n
            .cmp(&a.of_smtp.n)
            .then_with(|| a.name.cmp(&b.name))
    });
    products
}

/// The name under which the hosts of a row are counted; what is unknown at a level is counted under
/// its product's name.
fn counted_as<'r>(row: &'r ProductRow, options: Options<'r>) -> Option<&'r str> {
    let product = row.product.as_deref()?;
    let family = row.family.as_deref();
    let name = match options.level {
        Level::Product => None,
        Level::Family => family,
        Level::RootFamily => match options.rules {
            Some(rules) => family.map(|f| rules.top_family(f)),
            None => family,
        },
        Level::Vendor => row.vendor.as_deref(),
        Level::Category => row.category.map(Category::name),
    };
    Some(name.unwrap_or(product))
}

fn product(
    name: &str,
    rows: &[&ProductRow],
    smtp: u64,
    identified: u64,
    options: Options<'_>,
) -> Product {
    let hosts = rows.iter().map(|r| r.hosts).sum();
    let mut by_version: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    for row in rows {
        *by_version.entry(row.version.as_deref()).or_default() += row.hosts;
    }
    let mut versions: Vec<Version> = by_version
        .into_iter()
        .map(|(version, n)| Version {
            version: version.map(|v| escape_short(v.as_bytes(), LONGEST)),
            share: Share::new(n, hosts),
        })
        .collect();
    // Ties in the order of the version's text; "not stated" after those stated.
    versions.sort_by(|a, b| {
        let last = |v: &Version| v.version.is_none();
        b.share
            .n
            .cmp(&a.share.n)
            .then_with(|| last(a).cmp(&last(b)))
            .then_with(|| a.version.cmp(&b.version))
    });
    let other_versions = fold_rest(&mut versions, options.versions, |v| v.share.n);
    // Versions of different products are not comparable: at other levels nothing is said of them.
    let of_one = options.level == Level::Product;
    if !of_one {
        versions.clear();
    }
    Product {
        name: escape_short(name.as_bytes(), LONGEST),
        vendor: rows
            .iter()
            .find_map(|r| r.vendor.as_ref())
            .map(|v| escape_short(v.as_bytes(), LONGEST)),
        category: rows.iter().find_map(|r| r.category).map(Category::name),
        of_smtp: Share::new(hosts, smtp),
        of_identified: Share::new(hosts, identified),
        versions,
        other_versions: other_versions.filter(|_| of_one),
    }
}

fn trim_line_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r' | b'\n'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Longest text of a server that a report shows, characters.
const LONGEST: usize = 72;
