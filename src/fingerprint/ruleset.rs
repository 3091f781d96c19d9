//! All rules together, and the matching of replies against them.
//!
//! Patterns are grouped by stage and by the view they want, and each group is one regular
//! expression set: a reply is read once per group, however many rules there are. Captures are taken
//! afterwards, from the patterns of the winning product only.

use std::fmt::Write as _;
use std::path::Path;

use regex::bytes::{RegexSet, RegexSetBuilder};
use sha2::{Digest, Sha256};

use super::builtin;
use super::category::Category;
use super::decide::{self, THRESHOLD, Tally};
use super::error::RuleError;
use super::normalise::normalise_greeting;
use super::rule::{NotMail, Owner, Pattern, Product};
use super::source::{Care, Parsed};
use super::verdict::{Candidate, Evidence, Explanation, Match, Observation, Verdict};
use super::view::View;
use crate::smtp::Stage;

/// Bytes the set of a stage may take once compiled, and its state cache while it runs: room for
/// thousands of patterns without the cache being thrown away all the time.
const SET_LIMIT: usize = 64 << 20;

/// A checked set of rules.
#[derive(Debug)]
pub struct RuleSet {
    pub(super) products: Vec<Product>,
    pub(super) not_mail: Vec<NotMail>,
    pub(super) patterns: Vec<Pattern>,
    groups: Vec<Group>,
    digest: String,
}

/// The patterns of one stage that want the same view.
#[derive(Debug)]
struct Group {
    stage: Stage,
    sees_host: bool,
    set: RegexSet,
    patterns: Vec<usize>,
}

/// A product in an overview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The canonical name.
    pub product: String,
    /// Who makes or runs it.
    pub vendor: Option<String>,
    /// Its kind.
    pub category: Category,
    /// The family it is counted under.
    pub family: String,
    /// How many patterns speak for it.
    pub patterns: usize,
}

/// What was seen and which patterns matched it.
struct Findings {
    views: [Option<View>; Stage::ALL.len()],
    /// Patterns of products, by index.
    matched: Vec<usize>,
    /// The first pattern of a protocol that is not mail.
    other_protocol: Option<usize>,
    tallies: Vec<Tally>,
    posterior: Vec<f64>,
    winner: Option<usize>,
}

impl RuleSet {
    /// The rules that were compiled into the program.
    ///
    /// # Panics
    /// Never in a tested build: the tests read and check exactly these rules.
    pub fn builtin() -> Self {
        Self::from_sources(builtin::FILES, Care::Trust)
            .expect("the built-in rules are read and checked by this module's tests")
    }

    /// The rules of a directory: all its `*.toml` files, in the order of their names.
    ///
    /// # Errors
    /// An unreadable directory or file, a directory without rules, or the place and reason of the
    /// first fault.
    pub fn load(dir: &Path) -> Result<Self, RuleError> {
        let unreadable = |path: &Path, source| RuleError::Unreadable { path: path.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| unreadable(dir, e))? {
            let path = entry.map_err(|e| unreadable(dir, e))?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(RuleError::Empty { path: dir.to_owned() });
        }
        paths.sort();
        let mut texts = Vec::with_capacity(paths.len());
        for path in &paths {
            let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, e))?;
            texts.push((path.display().to_string(), text));
        }
        let sources: Vec<_> = texts.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        Self::from_sources(&sources, Care::Compile)
    }

    /// The rules of texts that are already in memory, as (file name, content).
    ///
    /// # Errors
    /// The place and reason of the first fault.
    pub fn parse(sources: &[(&str, &str)]) -> Result<Self, RuleError> {
        Self::from_sources(sources, Care::Compile)
    }

    fn from_sources(sources: &[(&str, &str)], care: Care) -> Result<Self, RuleError> {
        let mut parsed = Parsed::default();
        for (name, text) in sources {
            parsed.read(name, text, care)?;
        }
        let groups = group(&parsed.patterns)?;
        Ok(Self {
            products: parsed.products,
            not_mail: parsed.not_mail,
            patterns: parsed.patterns,
            groups,
            digest: digest(sources),
        })
    }

    /// SHA-256 over the rule files in lower-case hexadecimal. It depends on the files' base names
    /// and contents only, so the same rules have the same digest built in or loaded.
    pub fn digest(&self) -> String {
        self.digest.clone()
    }

    /// Every pattern, in the order of the rule files.
    pub fn rules(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Every product, in the order of the rule files.
    pub fn products(&self) -> &[Product] {
        &self.products
    }

    /// The products in the order of their names, with the number of their patterns.
    pub fn list(&self) -> Vec<Listing> {
        let mut list: Vec<_> = self
            .products
            .iter()
            .enumerate()
            .map(|(index, product)| Listing {
                product: product.name.clone(),
                vendor: product.vendor.clone(),
                category: product.category,
                family: product.family.clone(),
                patterns: self.patterns.iter().filter(|p| p.owner == Owner::Product(index)).count(),
            })
            .collect();
        list.sort_by(|a, b| a.product.to_lowercase().cmp(&b.product.to_lowercase()));
        list
    }

    /// Which product said this.
    pub fn classify(&self, observation: &Observation<'_>) -> Verdict {
        self.verdict(observation, &self.find(observation))
    }

    /// Which product said this, with everything that was weighed.
    pub fn explain(&self, observation: &Observation<'_>) -> Explanation {
        let findings = self.find(observation);
        let mut matches: Vec<_> =
            findings.matched.iter().map(|&index| self.explain_match(&findings, index)).collect();
        matches.extend(findings.other_protocol.map(|index| self.explain_match(&findings, index)));
        matches.sort_by(|a, b| (a.stage as usize).cmp(&(b.stage as usize)).then(b.weight.total_cmp(&a.weight)));
        let mut candidates: Vec<_> = findings
            .tallies
            .iter()
            .zip(&findings.posterior)
            .map(|(tally, &confidence)| Candidate {
                product: self.products[tally.product].name.clone(),
                bits: tally.bits(),
                confidence,
            })
            .collect();
        candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        Explanation { verdict: self.verdict(observation, &findings), matches, candidates }
    }

    fn explain_match(&self, findings: &Findings, index: usize) -> Match {
        let pattern = &self.patterns[index];
        let (product, counted) = match pattern.owner {
            Owner::NotMail(i) => (&self.not_mail[i].protocol, true),
            Owner::Product(i) => {
                let tally = findings.tallies.iter().find(|t| t.product == i);
                let counted = tally.is_some_and(|t| t.counts(pattern.stage as usize, pattern.weight));
                (&self.products[i].name, counted)
            }
        };
        Match {
            product: product.clone(),
            rule: pattern.id.clone(),
            stage: pattern.stage,
            matched: findings
                .view(pattern)
                .and_then(|view| pattern.find(view))
                .map(|(matched, _)| matched)
                .unwrap_or_default(),
            weight: pattern.weight,
            counted,
        }
    }

    /// Runs every group over the reply of its stage and weighs what matched.
    fn find(&self, observation: &Observation<'_>) -> Findings {
        let mut findings = Findings {
            views: std::array::from_fn(|i| {
                let stage = Stage::ALL[i];
                observation.reply(stage).map(|reply| View::new(stage, reply))
            }),
            matched: Vec::new(),
            other_protocol: None,
            tallies: Vec::new(),
            posterior: Vec::new(),
            winner: None,
        };
        for group in &self.groups {
            let Some(view) = &findings.views[group.stage as usize] else { continue };
            let text = if group.sees_host { &view.raw } else { &view.masked };
            for hit in group.set.matches(text) {
                let index = group.patterns[hit];
                let pattern = &self.patterns[index];
                match pattern.owner {
                    Owner::NotMail(_) => {
                        findings.other_protocol.get_or_insert(index);
                    }
                    Owner::Product(product) => {
                        findings.matched.push(index);
                        let known = findings.tallies.iter().position(|t| t.product == product);
                        let at = known.unwrap_or_else(|| {
                            findings.tallies.push(Tally::new(product));
                            findings.tallies.len() - 1
                        });
                        findings.tallies[at].add(pattern.stage as usize, pattern.weight);
                    }
                }
            }
        }
        findings.posterior = decide::posterior(&findings.tallies);
        findings.winner = (0..findings.tallies.len())
            .max_by(|&a, &b| findings.posterior[a].total_cmp(&findings.posterior[b]))
            .filter(|&best| findings.posterior[best] >= THRESHOLD);
        findings
    }

    fn verdict(&self, observation: &Observation<'_>, findings: &Findings) -> Verdict {
        let mut verdict = Verdict {
            is_smtp: findings.is_smtp(),
            hostname: findings.host_name(),
            ..Verdict::default()
        };
        if !verdict.is_smtp {
            verdict.protocol = findings.other_protocol.and_then(|index| {
                let Owner::NotMail(protocol) = self.patterns[index].owner else { return None };
                Some(self.not_mail[protocol].protocol.clone())
            });
        } else if let Some(winner) = findings.winner {
            self.name(&mut verdict, findings, winner);
        }
        if verdict.product.is_none() {
            verdict.cluster = observation.reply(Stage::Greeting).map(normalise_greeting);
        }
        verdict
    }

    /// Fills in the product and what its patterns captured, the strongest first.
    fn name(&self, verdict: &mut Verdict, findings: &Findings, winner: usize) {
        let index = findings.tallies[winner].product;
        let product = &self.products[index];
        let mut own: Vec<_> = findings
            .matched
            .iter()
            .map(|&i| &self.patterns[i])
            .filter(|p| p.owner == Owner::Product(index))
            .collect();
        own.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        for pattern in own {
            let Some((matched, captured)) = findings.view(pattern).and_then(|view| pattern.find(view))
            else {
                continue;
            };
            verdict.evidence.push(Evidence {
                stage: pattern.stage,
                rule: pattern.id.clone(),
                matched,
                weight: pattern.weight,
            });
            if verdict.version.is_none() && captured.version.is_some() {
                verdict.version = captured.version;
                verdict.patch = captured.patch;
            }
            verdict.os = verdict.os.take().or(captured.os);
            if pattern.sees_host && captured.hostname.is_some() {
                verdict.hostname = captured.hostname;
            }
        }
        verdict.os = verdict.os.take().or_else(|| product.os.clone());
        verdict.product = Some(product.name.clone());
        verdict.vendor.clone_from(&product.vendor);
        verdict.family = Some(product.family.clone());
        verdict.category = Some(product.category);
        verdict.confidence = findings.posterior[winner];
    }
}

impl Findings {
    fn view(&self, pattern: &Pattern) -> Option<&[u8]> {
        let view = self.views[pattern.stage as usize].as_ref()?;
        Some(if pattern.sees_host { &view.raw } else { &view.masked })
    }

    /// Whether a mail server spoke. An EHLO or HELO answered with 250 settles it; otherwise the
    /// greeting must be one that RFC 5321 §4.2 knows (220, or a refusal) with text behind the code,
    /// and must not be the greeting of another protocol.
    fn is_smtp(&self) -> bool {
        let code = |stage: Stage| self.views[stage as usize].as_ref().and_then(View::code);
        let hello = code(Stage::Ehlo) == Some(250) || code(Stage::Helo) == Some(250);
        let Some(greeting) = &self.views[Stage::Greeting as usize] else {
            return hello || !self.matched.is_empty();
        };
        let greets = matches!(greeting.code(), Some(220 | 400..=599));
        let says = !greeting.first_text().is_empty();
        greets && (hello || (says && self.other_protocol.is_none()))
    }

    fn host_name(&self) -> Option<String> {
        let named = |stage: Stage| self.views[stage as usize].as_ref().and_then(View::host_name);
        let hello = self.views[Stage::Ehlo as usize].as_ref().filter(|v| v.code() == Some(250));
        named(Stage::Greeting).or_else(|| hello.and_then(View::host_name))
    }
}

fn group(patterns: &[Pattern]) -> Result<Vec<Group>, RuleError> {
    let mut groups = Vec::new();
    for &stage in Stage::ALL {
        for sees_host in [false, true] {
            let members: Vec<usize> = (0..patterns.len())
                .filter(|&i| patterns[i].stage == stage && patterns[i].sees_host == sees_host)
                .collect();
            if members.is_empty() {
                continue;
            }
            let set = RegexSetBuilder::new(members.iter().map(|&i| &patterns[i].text))
                .unicode(false)
                .size_limit(SET_LIMIT)
                .dfa_size_limit(SET_LIMIT)
                .build()
                .map_err(|e| RuleError::TooLarge { stage: stage.name(), reason: e.to_string() })?;
            groups.push(Group { stage, sees_host, set, patterns: members });
        }
    }
    Ok(groups)
}

fn digest(sources: &[(&str, &str)]) -> String {
    let mut named: Vec<_> = sources
        .iter()
        .map(|(name, text)| (name.rsplit('/').next().unwrap_or(name), text))
        .collect();
    named.sort_unstable();
    let mut hasher = Sha256::new();
    for (name, text) in named {
        // Lengths keep (name, text) apart from any other split of the same bytes.
        hasher.update(name.len().to_be_bytes());
        hasher.update(name);
        hasher.update(text.len().to_be_bytes());
        hasher.update(text);
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
