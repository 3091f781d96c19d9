//! `smtpsweep rules accuracy`: how well the rules name labelled replies, as a report in Markdown.
//!
//! A row is a JSON object with `probe`, the reply as `wire` or `response`, and either `product`
//! (with `identifiable`, `version`, `also_products`, `group`) or `expected` (no mail server, or none
//! that can be identified, with `acceptable_products`). Rows of probes that the dialogue does not
//! send are left out and counted.
//!
//! Rules are written by people who have read such rows, so what they reach on them flatters. The
//! cross-validated figures take away what was learnt from the row itself: rows are cut by group into
//! [`FOLDS`] folds, and a fold is judged without the patterns that match labelled rows of this fold
//! only. That is harsher than new data would be (a product known by one greeting has no pattern
//! left), and it shows what the other rules do with a product that has none.

mod calibration;
mod rows;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};

use anyhow::Context as _;

use crate::cli::AccuracyArgs;
use crate::fingerprint::{Explanation, Observation, RuleSet, Verdict};
use calibration::Calibration;
use rows::{Row, Truth};
use tables::Tables;

/// Parts into which the rows are cut.
const FOLDS: u64 = 10;

/// Sessions put together for each product to measure disguised servers.
const SESSIONS: u64 = 25;

/// Exit code if a threshold is missed.
const MISSED: u8 = 1;

/// Right, wrong and unknown verdicts.
#[derive(Debug, Clone, Default)]
struct Tally {
    right: usize,
    wrong: usize,
    unknown: usize,
    /// Verdicts whose family is right, whether or not the product is.
    family: usize,
    with_version: usize,
    version_right: usize,
}

/// Everything counted.
#[derive(Default)]
struct Report {
    by_probe: BTreeMap<String, Tally>,
    validated: BTreeMap<String, Tally>,
    by_product: BTreeMap<String, BTreeMap<String, usize>>,
    weak: BTreeMap<String, Tally>,
    disguised: BTreeMap<String, Tally>,
    negatives: usize,
    false_positives: usize,
    mail_taken_for_other: usize,
    other_taken_for_mail: usize,
    left_out: usize,
    /// Cross-validated verdicts that took a greeting at its word: how many, and how many right.
    declared: (usize, usize),
    calibration: Calibration,
    told: Vec<String>,
}

/// Measures, prints the report and holds it against the thresholds.
pub(super) fn accuracy(rules: &RuleSet, args: &AccuracyArgs) -> anyhow::Result<u8> {
    let (mut rows, mut left_out) = (Vec::new(), 0);
    for file in &args.files {
        left_out += rows::read(file, &mut rows)?;
    }
    let mut report = Report {
        left_out,
        ..Report::default()
    };
    report.count_all(rules, &rows);
    report.cross_validate(rules, &rows);
    report.disguise(rules, &rows);
    let mut out = io::stdout().lock();
    out.write_all(Tables(&report).render(args.wrong).as_bytes())?;
    out.flush()?;
    if let Some(path) = &args.svg {
        std::fs::write(path, report.calibration.svg())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.hold(args))
}

impl Report {
    /// Every row under all rules.
    fn count_all(&mut self, rules: &RuleSet, rows: &[Row]) {
        let mut classifier = rules.classifier();
        for row in rows {
            let verdict = classifier.classify(&row.observation());
            match &row.truth {
                Truth::Negative {
                    acceptable,
                    is_smtp,
                } => {
                    self.count_negative(row, &verdict, acceptable, *is_smtp);
                }
                Truth::Product {
                    name,
                    identifiable,
                    also,
                    ..
                } if identifiable != "yes" => {
                    let named = verdict.product.as_ref();
                    let right = named.is_some_and(|p| p == name || also.contains(p));
                    let tally = self.weak.entry(identifiable.clone()).or_default();
                    tally.add(right, named.is_none());
                    if named.is_some() && !right {
                        self.told.push(row.tell(&verdict));
                    }
                }
                Truth::Product { name, version, .. } => {
                    let tally = self.by_probe.entry(row.probe.clone()).or_default();
                    tally.count(rules, name, version.as_deref(), &verdict);
                    let column = verdict.product.clone().unwrap_or_else(|| "unknown".into());
                    *self
                        .by_product
                        .entry(name.clone())
                        .or_default()
                        .entry(column)
                        .or_default() += 1;
                    let stated = verdict.version.as_deref();
                    let right = verdict.product.as_ref() == Some(name);
                    if !right || (version.is_some() && stated != version.as_deref()) {
                        self.told.push(row.tell(&verdict));
                    }
                }
            }
        }
    }

    fn count_negative(
        &mut self,
        row: &Row,
        verdict: &Verdict,
        acceptable: &[String],
        is_smtp: Option<bool>,
    ) {
        self.negatives += 1;
        let named = verdict.product.as_ref();
        if named.is_some_and(|p| !acceptable.contains(p)) {
            self.false_positives += 1;
            self.told.push(row.tell(verdict));
        }
        match (is_smtp, verdict.is_smtp) {
            (Some(true), false) => {
                self.mail_taken_for_other += 1;
                self.told.push(format!("no mail? {}", row.tell(verdict)));
            }
            (Some(false), true) => {
                self.other_taken_for_mail += 1;
                self.told.push(format!("mail? {}", row.tell(verdict)));
            }
            _ => {}
        }
    }

    /// Every row without the patterns that were learnt from its fold alone.
    fn cross_validate(&mut self, rules: &RuleSet, rows: &[Row]) {
        // The folds of the labelled rows that each pattern matches.
        let mut folds: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for row in rows {
            for found in rules.explain(&row.observation()).matches {
                folds
                    .entry(found.rule.to_string())
                    .or_default()
                    .insert(row.fold());
            }
        }
        for fold in 0..FOLDS {
            let only_here = BTreeSet::from([fold]);
            let learnt = |rule: &str| folds.get(rule).is_some_and(|f| *f == only_here);
            let mut classifier = rules.classifier().without(learnt);
            for row in rows.iter().filter(|r| r.fold() == fold) {
                let explanation = classifier.explain(&row.observation());
                let verdict = &explanation.verdict;
                match &row.truth {
                    Truth::Negative { acceptable, .. } => {
                        let right = verdict
                            .product
                            .as_ref()
                            .is_some_and(|p| acceptable.contains(p));
                        self.calibrate(&explanation, right);
                    }
                    Truth::Product {
                        name,
                        version,
                        identifiable,
                        also,
                    } => {
                        if identifiable == "yes" {
                            let tally = self.validated.entry(row.probe.clone()).or_default();
                            tally.count(rules, name, version.as_deref(), verdict);
                        }
                        let right = verdict.product.as_ref().is_some_and(|p| {
                            p == name || (identifiable != "yes" && also.contains(p))
                        });
                        self.calibrate(&explanation, right);
                    }
                }
            }
        }
    }

    fn calibrate(&mut self, explanation: &Explanation, right: bool) {
        if explanation.verdict.self_declared {
            self.declared.0 += 1;
            self.declared.1 += usize::from(right);
        } else if explanation.verdict.product.is_some() {
            let posterior = explanation.candidates.first().map_or(0.0, |c| c.confidence);
            self.calibration
                .add(posterior, explanation.verdict.confidence, right);
        }
    }

    /// Sessions put together from a product's replies, one a probe and no greeting, as a server
    /// would give them that hides its name.
    fn disguise(&mut self, rules: &RuleSet, rows: &[Row]) {
        let mut by_product: BTreeMap<&str, BTreeMap<&str, Vec<&Row>>> = BTreeMap::new();
        for row in rows.iter().filter(|r| r.probe != "greeting") {
            if let Truth::Product { name, .. } = &row.truth {
                let probes = by_product.entry(name).or_default();
                probes.entry(&row.probe).or_default().push(row);
            }
        }
        let mut classifier = rules.classifier();
        for (product, probes) in by_product.iter().filter(|(_, probes)| probes.len() >= 2) {
            for session in 0..SESSIONS {
                let observation = probes.iter().fold(
                    Observation::only(
                        crate::smtp::Stage::Greeting,
                        b"220 mail.example.com ESMTP\r\n",
                    ),
                    |seen, (probe, rows)| {
                        // A choice that differs from probe to probe and session to session.
                        let choice = rows::hash(&format!("{product} {probe} {session}"));
                        let at = usize::try_from(choice).unwrap_or(0) % rows.len();
                        seen.with(rows[at].stage, &rows[at].reply)
                    },
                );
                let verdict = classifier.classify(&observation);
                let tally = self.disguised.entry((*product).to_owned()).or_default();
                tally.count(rules, product, None, &verdict);
            }
        }
    }

    /// Says which thresholds are missed.
    fn hold(&self, args: &AccuracyArgs) -> u8 {
        let percent = |n: usize, of: usize| 100.0 * tables::float(n) / tables::float(of.max(1));
        let all = Tally::sum(self.by_probe.values());
        let disguised = Tally::sum(self.disguised.values());
        let missed = [
            (
                "right products",
                percent(all.right, all.rows()),
                args.min_right,
                true,
            ),
            (
                "wrong products",
                percent(all.wrong, all.rows()),
                args.max_wrong,
                false,
            ),
            (
                "negatives named",
                percent(self.false_positives, self.negatives),
                args.max_false,
                false,
            ),
            (
                "disguised families",
                percent(disguised.family, disguised.rows()),
                args.min_disguised,
                true,
            ),
        ]
        .into_iter()
        .filter_map(|(what, measured, bound, at_least)| {
            let bound = bound?;
            let holds = if at_least {
                measured >= bound
            } else {
                measured <= bound
            };
            (!holds).then(|| format!("{what}: {measured:.2} %, the threshold is {bound} %"))
        });
        let mut code = 0;
        for reason in missed {
            crate::status::say(format_args!("accuracy: {reason}"));
            code = MISSED;
        }
        code
    }
}

impl Tally {
    fn count(&mut self, rules: &RuleSet, product: &str, version: Option<&str>, verdict: &Verdict) {
        let named = verdict.product.as_deref();
        let right = named == Some(product);
        self.add(right, named.is_none());
        let family = rules.products().iter().find(|p| p.name == product);
        let same = right
            || (verdict.family.is_some()
                && family.map(|p| rules.top_family(&p.family))
                    == verdict.family.as_deref().map(|f| rules.top_family(f)));
        self.family += usize::from(same);
        if let (true, Some(version)) = (right, version) {
            self.with_version += 1;
            self.version_right += usize::from(verdict.version.as_deref() == Some(version));
        }
    }

    fn add(&mut self, right: bool, unknown: bool) {
        match (right, unknown) {
            (true, _) => self.right += 1,
            (false, true) => self.unknown += 1,
            (false, false) => self.wrong += 1,
        }
    }

    fn rows(&self) -> usize {
        self.right + self.wrong + self.unknown
    }

    fn sum<'a>(tallies: impl Iterator<Item = &'a Self>) -> Self {
        tallies.fold(Self::default(), |all, one| Self {
            right: all.right + one.right,
            wrong: all.wrong + one.wrong,
            unknown: all.unknown + one.unknown,
            family: all.family + one.family,
            with_version: all.with_version + one.with_version,
            version_right: all.version_right + one.version_right,
        })
    }
}
