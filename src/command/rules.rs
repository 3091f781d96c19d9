//! `smtpsweep rules check|list|explain`; `accuracy` has a module of its own.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};

use super::accuracy::accuracy;
use crate::cli::{ExplainArgs, RulesArgs, RulesCommand};
use crate::config::{self, ConfigError};
use crate::fingerprint::{Explanation, Observation, Replies, RuleSet};
use crate::smtp::Stage;
use crate::store::Survey;
use crate::store::text::escape;

/// Exit code of `rules check` that found something wrong.
const PROBLEMS: u8 = 1;

/// Carries out the command; `check` exits with 1 if a rule is wrong.
pub(super) fn rules(args: &RulesArgs) -> anyhow::Result<u8> {
    let rules = config::rules(args.rules.as_deref()).map_err(ConfigError::from)?;
    match &args.command {
        RulesCommand::Check => check(&rules),
        RulesCommand::Accuracy(args) => accuracy(&rules, args),
        RulesCommand::List => list(&rules).map(|()| 0),
        RulesCommand::Explain(args) => explain(&rules, args).map(|()| 0),
    }
}

fn check(rules: &RuleSet) -> anyhow::Result<u8> {
    let problems = rules.check();
    let mut out = io::stdout().lock();
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let (products, patterns) = (rules.products().len(), rules.rules().len());
    writeln!(
        out,
        "{products} products, {patterns} patterns, digest {:.12}: {} problems",
        rules.digest(),
        problems.len()
    )?;
    Ok(if problems.is_empty() { 0 } else { PROBLEMS })
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
        return print_explanation(&rules.explain(&Replies::of(&host.transcript).observation()));
    }
    let typed = [
        (Stage::Greeting, &args.greeting),
        (Stage::Ehlo, &args.ehlo),
        (Stage::Helo, &args.helo),
        (Stage::Quit, &args.quit),
    ];
    let replies: Vec<_> = typed
        .iter()
        .filter_map(|(stage, text)| Some((*stage, unescape(text.as_deref()?))))
        .collect();
    if replies.is_empty() {
        bail!("give a survey file and an address, or --greeting, --ehlo, --helo or --quit");
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
