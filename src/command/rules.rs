//! `smtpsweep rules check|list|explain`; `accuracy` and `suggest` have modules of their own.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};

use super::accuracy::accuracy;
use super::suggest::suggest;
use crate::cli::{CheckArgs, ExplainArgs, RulesArgs, RulesCommand};
use crate::config::{self, ConfigError};
use crate::fingerprint::{Category, Explanation, Observation, RuleSet};
use crate::smtp::Stage;
use crate::store::Survey;
use crate::store::text::escape;

/// Exit code of `rules check` that found something wrong.
const PROBLEMS: u8 = 1;

/// Carries out the command; `check` exits with 1 if a rule is wrong.
pub(super) fn rules(args: &RulesArgs) -> anyhow::Result<u8> {
    let rules = config::rules(args.rules.as_deref()).map_err(ConfigError::from)?;
    match &args.command {
        RulesCommand::Check(args) => check(&rules, args),
        RulesCommand::Suggest(args) => suggest(&rules, args).map(|()| 0),
        RulesCommand::Accuracy(args) => accuracy(&rules, args),
        RulesCommand::List => list(&rules).map(|()| 0),
        RulesCommand::Explain(args) => explain(&rules, args).map(|()| 0),
    }
}

fn check(rules: &RuleSet, args: &CheckArgs) -> anyhow::Result<u8> {
    let problems = rules.check();
    let mut out = io::stdout().lock();
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let (overlaps, unfiltered) = (rules.overlaps(), rules.unfiltered());
    if args.overlaps {
        for overlap in &overlaps {
            writeln!(out, "overlap: {overlap}")?;
        }
        for pattern in &unfiltered {
            let (file, line) = (&pattern.file, pattern.line);
            writeln!(out, "on every reply: {file}:{line}: {}", pattern.id)?;
        }
    }
    coverage(rules, &mut out)?;
    writeln!(
        out,
        "{} patterns match another product's example and lose it, {} are tried on every reply \
         (--overlaps lists them)",
        overlaps.len(),
        unfiltered.len()
    )?;
    let (products, patterns) = (rules.products().len(), rules.rules().len());
    writeln!(
        out,
        "{products} products, {patterns} patterns, digest {:.12}: {} problems",
        rules.digest(),
        problems.len()
    )?;
    Ok(if problems.is_empty() { 0 } else { PROBLEMS })
}

/// How many products of each category have patterns, and at which stages.
fn coverage(rules: &RuleSet, out: &mut impl io::Write) -> anyhow::Result<()> {
    let stages: Vec<_> = Stage::ALL
        .iter()
        .filter(|&&stage| rules.rules().iter().any(|p| p.stage == stage))
        .collect();
    write!(out, "{:<16}{:>9}", "category", "products")?;
    for stage in &stages {
        write!(out, "{:>11}", stage.name())?;
    }
    writeln!(out)?;
    for &category in Category::ALL {
        let products: Vec<_> = rules
            .products()
            .iter()
            .filter(|p| p.category == category)
            .collect();
        write!(out, "{:<16}{:>9}", category.name(), products.len())?;
        for &&stage in &stages {
            let known = products.iter().filter(|p| p.is_known_at(stage)).count();
            write!(out, "{known:>11}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn list(rules: &RuleSet) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for product in rules.list() {
        writeln!(
            out,
            "{:<44} {:<16} {:>3} patterns  {}",
            product.product,
            product.category.name(),
            product.patterns,
            product.vendor.as_deref().unwrap_or("")
        )?;
    }
    Ok(())
}

fn explain(rules: &RuleSet, args: &ExplainArgs) -> anyhow::Result<()> {
    if let (Some(file), Some(address)) = (&args.file, args.address) {
        let survey = Survey::open_readonly(file)?;
        let host = survey
            .host(address)?
            .with_context(|| format!("{} has no host {address}", file.display()))?;
        return print_explanation(&rules.explain(&host.replies().observation()));
    }
    let typed = [
        (Stage::Greeting, &args.greeting),
        (Stage::Ehlo, &args.ehlo),
        (Stage::Helo, &args.helo),
        (Stage::Quit, &args.quit),
    ];
    let mut others = Vec::new();
    for reply in &args.reply {
        let (name, text) = reply
            .split_once('=')
            .with_context(|| format!("{reply:?} is not STAGE=TEXT"))?;
        let stage = Stage::from_name(&name.replace('-', "_"))
            .with_context(|| format!("there is no stage {name:?}"))?;
        others.push((stage, unescape(text)));
    }
    let replies: Vec<_> = typed
        .iter()
        .filter_map(|(stage, text)| Some((*stage, unescape(text.as_deref()?))))
        .chain(others)
        .collect();
    if replies.is_empty() {
        bail!(
            "give a survey file and an address, or --greeting, --ehlo, --helo, --quit or --reply"
        );
    }
    let observation = replies
        .iter()
        .fold(Observation::default(), |seen, (stage, reply)| {
            seen.with(*stage, reply)
        });
    print_explanation(&rules.explain(&observation))
}

/// The verdict, what spoke for it, and the runner-up.
pub(super) fn print_explanation(explanation: &Explanation) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let verdict = &explanation.verdict;
    match (&verdict.product, &verdict.protocol) {
        (Some(product), _) => {
            let version = verdict.version.as_deref().unwrap_or("");
            let spoken = format!("{product} {version}");
            writeln!(
                out,
                "verdict: {} ({}, confidence {:.3})",
                escape(spoken.trim_end().as_bytes()),
                verdict
                    .category
                    .map_or("no category", |category| category.name()),
                verdict.confidence
            )?;
        }
        (None, Some(protocol)) => writeln!(out, "verdict: no mail server: {protocol}")?,
        (None, None) => writeln!(out, "verdict: unknown")?,
    }
    for (name, value) in [
        ("vendor", &verdict.vendor),
        ("host name", &verdict.hostname),
        ("system", &verdict.os),
    ] {
        if let Some(value) = value {
            writeln!(out, "  {name}: {}", escape(value.as_bytes()))?;
        }
    }
    if let Some(release) = &verdict.release {
        writeln!(out, "  release: {}", escape(release.as_bytes()))?;
    }
    if let [front, server] = verdict.layers.as_slice() {
        writeln!(out, "  layers: {front} in front of {server}")?;
    }
    if let Some(claimed) = &verdict.contradiction {
        writeln!(
            out,
            "  contradiction: the greeting claims {claimed}, the behaviour is not its"
        )?;
    }
    if verdict.self_declared {
        writeln!(out, "  no rule: taken from the greeting's own words")?;
    }
    if let Some(cluster) = &verdict.cluster {
        writeln!(out, "  cluster: {}", escape(cluster.as_bytes()))?;
    }
    if !explanation.matches.is_empty() {
        writeln!(out, "evidence (bits):")?;
    }
    for found in &explanation.matches {
        writeln!(
            out,
            "  {:>5.1}{} {:<8} {}: {}",
            found.weight,
            if found.counted { " " } else { "*" },
            found.stage.name(),
            found.rule,
            escape(found.matched.as_bytes())
        )?;
    }
    if explanation.matches.iter().any(|found| !found.counted) {
        writeln!(
            out,
            "  (* not counted: a stronger pattern of the same product and stage is)"
        )?;
    }
    if let Some(other) = explanation.runner_up() {
        writeln!(
            out,
            "runner-up: {} ({:.1} bits, confidence {:.3})",
            other.product, other.bits, other.confidence
        )?;
    }
    Ok(out.flush()?)
}

/// What was typed on the command line as octets: `\r`, `\n`, `\0` and `\\` are understood, and
/// a line end is added where there is none.
fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len() + 2);
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        let escaped = match (next, rest.clone().next()) {
            ('\\', Some('r')) => Some(b'\r'),
            ('\\', Some('n')) => Some(b'\n'),
            ('\\', Some('0')) => Some(0),
            ('\\', Some('\\')) => Some(b'\\'),
            _ => None,
        };
        if let Some(octet) = escaped {
            octets.push(octet);
            rest.next();
        } else {
            octets.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    if !octets.ends_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escapes_and_the_missing_line_end() {
        assert_eq!(unescape("220 a"), b"220 a\r\n");
        assert_eq!(unescape(r"250-a\r\n250 b\r\n"), b"250-a\r\n250 b\r\n");
        assert_eq!(unescape(r"a\0b\\n"), b"a\0b\\n\r\n");
        assert_eq!(unescape("é\\"), "é\\\r\n".as_bytes());
    }
}
