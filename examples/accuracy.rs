//! How well the rules name labelled replies.
//!
//! ```text
//! cargo run --release --example accuracy -- [--rules DIR] [--wrong] FILE.jsonl…
//! ```
//!
//! A row is a JSON object with `probe`, the reply as `wire` or `response`, and either `product`
//! (with `identifiable`, `version`, `also_products`) or `expected` (not mail or not identifiable,
//! with `acceptable_products`). Rows of probes that the rules do not look at are left out. `--wrong`
//! prints every row that is not right.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use smtpsweep::fingerprint::{Observation, RuleSet, Verdict};
use smtpsweep::smtp::Stage;

/// Right, wrong and unknown verdicts.
#[derive(Default)]
struct Tally {
    right: usize,
    wrong: usize,
    unknown: usize,
    with_version: usize,
    version_right: usize,
}

#[derive(Default)]
struct Report {
    by_probe: BTreeMap<String, Tally>,
    by_product: BTreeMap<String, Tally>,
    /// Rows whose product has a rule.
    covered: BTreeMap<String, Tally>,
    weak: Tally,
    ambiguous: Tally,
    negatives: usize,
    false_positives: usize,
    mail_taken_for_other: usize,
    other_taken_for_mail: usize,
    rows: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let mut rules = RuleSet::builtin();
    let mut files = Vec::new();
    let mut show = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--wrong" => show = true,
            "--rules" => {
                let dir = arguments.next().context("--rules needs a directory")?;
                rules = RuleSet::load(dir.as_ref())?;
            }
            file => files.push(file.to_owned()),
        }
    }
    if files.is_empty() {
        bail!("no file of labelled replies given");
    }
    let mut report = Report::default();
    for file in &files {
        let reader = std::fs::File::open(file).with_context(|| format!("cannot open {file}"))?;
        for (number, line) in std::io::BufReader::new(reader).lines().enumerate() {
            let line = line.with_context(|| format!("cannot read {file}"))?;
            let row: Value = serde_json::from_str(&line)
                .with_context(|| format!("{file}:{}: not a JSON object", number + 1))?;
            report.count(&rules, &row);
        }
    }
    report.print(show);
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn count(&mut self, rules: &RuleSet, row: &Value) {
        let probe = text(row, "probe");
        let name = if probe == "banner" { "greeting" } else { probe };
        let Some(stage) = Stage::from_name(name) else {
            return;
        };
        let reply = if row["wire"].is_string() {
            text(row, "wire")
        } else {
            text(row, "response")
        };
        let verdict = rules.classify(&Observation::only(stage, reply.as_bytes()));
        if row["expected"].is_string() {
            self.count_negative(row, &verdict, reply);
        } else {
            self.count_positive(rules, row, probe, &verdict, reply);
        }
    }

    fn count_negative(&mut self, row: &Value, verdict: &Verdict, reply: &str) {
        self.negatives += 1;
        let named = verdict.product.as_deref();
        if named.is_some_and(|p| !listed(row, "acceptable_products", p)) {
            self.false_positives += 1;
            self.rows
                .push(format!("false positive: {named:?} for {reply:?}"));
        }
        match (row["is_smtp"].as_bool(), verdict.is_smtp) {
            (Some(true), false) => {
                self.mail_taken_for_other += 1;
                self.rows
                    .push(format!("mail, but said to be none: {reply:?}"));
            }
            (Some(false), true) => {
                self.other_taken_for_mail += 1;
                self.rows
                    .push(format!("no mail, but said to be: {reply:?}"));
            }
            _ => {}
        }
    }

    fn count_positive(
        &mut self,
        rules: &RuleSet,
        row: &Value,
        probe: &str,
        verdict: &Verdict,
        reply: &str,
    ) {
        let product = text(row, "product");
        let named = verdict.product.as_deref();
        let right = named == Some(product);
        match text(row, "identifiable") {
            "yes" => {}
            other => {
                let tally = if other == "weak" {
                    &mut self.weak
                } else {
                    &mut self.ambiguous
                };
                let also = named.is_some_and(|p| right || listed(row, "also_products", p));
                tally.add(also, named.is_none());
                if named.is_some() && !also {
                    self.rows
                        .push(format!("{other}: {named:?} for {product} {reply:?}"));
                }
                return;
            }
        }
        let covered = rules.products().iter().any(|p| p.name == product);
        let version = text(row, "version");
        let version_right = right && verdict.version.as_deref() == Some(version);
        let mut tallies = vec![
            self.by_probe.entry(probe.to_owned()).or_default(),
            self.by_product.entry(product.to_owned()).or_default(),
        ];
        if covered {
            tallies.push(self.covered.entry(probe.to_owned()).or_default());
        }
        for tally in tallies {
            tally.add(right, named.is_none());
            if right && !version.is_empty() {
                tally.with_version += 1;
                tally.version_right += usize::from(version_right);
            }
        }
        if !right {
            self.rows.push(format!(
                "{}: {named:?} for {product} {reply:?}",
                if named.is_some() { "wrong" } else { "unknown" }
            ));
        } else if !version.is_empty() && !version_right {
            self.rows.push(format!(
                "version: {:?} for {version} {reply:?}",
                verdict.version
            ));
        } else if version.is_empty() && verdict.version.is_some() {
            self.rows
                .push(format!("version: {:?} for none {reply:?}", verdict.version));
        }
    }

    fn print(&self, show: bool) {
        println!(
            "{:<42} {:>6} {:>6} {:>6} {:>8} {:>9}",
            "identifiable rows by product", "rows", "right", "wrong", "unknown", "version"
        );
        for (product, tally) in &self.by_product {
            tally.print(product);
        }
        println!("\nby probe, all products");
        for (probe, tally) in &self.by_probe {
            tally.print(probe);
        }
        println!("\nby probe, products that have a rule");
        for (probe, tally) in &self.covered {
            tally.print(probe);
        }
        println!("\nrows whose text does not identify a product (right: an acceptable one)");
        self.weak.print("weak");
        self.ambiguous.print("no");
        println!("\nnegatives: {}", self.negatives);
        println!(
            "  false positives (a product named):   {}",
            self.false_positives
        );
        println!(
            "  mail servers said to be none:        {}",
            self.mail_taken_for_other
        );
        println!(
            "  other protocols said to be mail:     {}",
            self.other_taken_for_mail
        );
        if show {
            println!();
            for row in &self.rows {
                println!("{row}");
            }
        }
    }
}

impl Tally {
    fn add(&mut self, right: bool, unknown: bool) {
        match (right, unknown) {
            (true, _) => self.right += 1,
            (false, true) => self.unknown += 1,
            (false, false) => self.wrong += 1,
        }
    }

    fn print(&self, name: &str) {
        let rows = self.right + self.wrong + self.unknown;
        let version = match self.with_version {
            0 => String::new(),
            n => format!("{}/{n}", self.version_right),
        };
        println!(
            "{name:<42} {rows:>6} {:>6} {:>6} {:>8} {version:>9}",
            self.right, self.wrong, self.unknown
        );
    }
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or("")
}

fn listed(row: &Value, key: &str, product: &str) -> bool {
    row[key]
        .as_array()
        .is_some_and(|list| list.iter().any(|p| p.as_str() == Some(product)))
}
