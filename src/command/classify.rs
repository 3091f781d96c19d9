//! `smtpsweep classify`: judges the hosts of a survey file anew, or with `--ndjson` replies from
//! anywhere, one JSON object a line.
//!
//! A stream of lines runs through three stages: this thread reads, as many threads as there are
//! cores judge, and one writes in the order of the input. The queues between them are short, so
//! memory does not grow with the file, and a line that came through a pipe is answered at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;
use serde_json::Value;

use crate::cli::ClassifyArgs;
use crate::config;
use crate::fingerprint::{Evidence, Record, RuleSet, Verdict};
use crate::status::say;
use crate::store::text::escape;
use crate::store::{Survey, key};

/// Exit code of a run in which lines could not be read.
const BAD_LINES: u8 = 1;

/// Octets read at a time.
const CHUNK: usize = 256 * 1024;

/// Octets of a line at most.
const LONGEST: usize = 16 * 1024 * 1024;

/// Bad lines that are told one by one.
const TOLD: u64 = 20;

/// `smtpsweep classify FILE`, `smtpsweep classify --ndjson FILE|-`.
pub(super) fn classify(args: &ClassifyArgs) -> anyhow::Result<u8> {
    let rules = config::rules(args.rules.as_deref()).map_err(config::ConfigError::from)?;
    if args.ndjson {
        lines(args, &rules)
    } else {
        survey(&args.file, &rules).map(|()| 0)
    }
}

/// Judges the hosts of a survey file.
fn survey(file: &Path, rules: &RuleSet) -> anyhow::Result<()> {
    let mut survey = Survey::open(file)?;
    let digest = rules.digest();
    let mut classifier = rules.classifier();
    let changes = survey.reclassify(&digest, env!("CARGO_PKG_VERSION"), |host| {
        classifier.classify(&host.replies().observation())
    })?;
    let running = survey.meta(key::STATE)? == Some(Value::from("running"));
    survey.close()?;
    let mut out = io::stdout().lock();
    if running {
        writeln!(
            out,
            "the survey's state is running: hosts that its sweep stores from now on need classifying \
             again"
        )?;
    }
    writeln!(
        out,
        "{} hosts classified with rules {digest:.12}",
        changes.hosts
    )?;
    if changes.products_changed == 0 {
        writeln!(out, "no product changed")?;
    }
    let name = |product: &Option<String>| {
        product
            .as_deref()
            .map_or_else(|| "unknown".to_owned(), |name| escape(name.as_bytes()))
    };
    for change in &changes.moves {
        writeln!(
            out,
            "{} → {}: {}",
            name(&change.from),
            name(&change.to),
            change.hosts
        )?;
    }
    if changes.versions_changed > 0 {
        writeln!(out, "versions changed: {}", changes.versions_changed)?;
    }
    Ok(out.flush()?)
}

/// Whole lines of the input, on their way to be judged.
struct Lines {
    /// Counts the pieces of the input.
    number: u64,
    /// The number of the first line, from 1.
    first: u64,
    octets: Vec<u8>,
}

/// What was made of them.
struct Judged {
    number: u64,
    out: Vec<u8>,
    /// Line numbers and what is wrong with them.
    bad: Vec<(u64, String)>,
}

/// Judges the lines of a file or of standard input.
fn lines(args: &ClassifyArgs, rules: &RuleSet) -> anyhow::Result<u8> {
    let name = args.file.display().to_string();
    let mut input: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot open {name}"))?)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (to_judges, work) = bounded::<Lines>(cores);
    let (to_writer, done) = bounded::<Judged>(cores);
    let bad = thread::scope(|scope| {
        for _ in 0..cores {
            let (work, to_writer) = (work.clone(), to_writer.clone());
            scope.spawn(move || judge(rules, &work, &to_writer));
        }
        drop((work, to_writer));
        let writer = scope.spawn(|| write(&name, done));
        let read = read(&mut input, &to_judges).with_context(|| format!("cannot read {name}"));
        drop(to_judges);
        let written = writer.join();
        read?;
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if bad == 0 {
        return Ok(0);
    }
    say(format_args!("{name}: {bad} lines could not be read"));
    Ok(BAD_LINES)
}

/// Cuts the input into whole lines. Ends early, and well, if nobody takes them any more.
fn read(input: &mut dyn Read, out: &Sender<Lines>) -> anyhow::Result<()> {
    let mut pending = Vec::new();
    let (mut number, mut first) = (0, 1);
    loop {
        let before = pending.len();
        pending.resize(before + CHUNK, 0);
        let got = loop {
            match input.read(&mut pending[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        pending.truncate(before + got);
        let ended = got == 0;
        let end = if ended {
            pending.len()
        } else {
            let newline = pending[before..].iter().rposition(|&b| b == b'\n');
            newline.map_or(0, |at| before + at + 1)
        };
        if end > 0 {
            let rest = pending.split_off(end);
            let octets = std::mem::replace(&mut pending, rest);
            let lines = octets.iter().filter(|&&b| b == b'\n').count() as u64;
            let piece = Lines {
                number,
                first,
                octets,
            };
            if out.send(piece).is_err() {
                return Ok(());
            }
            number += 1;
            first += lines;
        }
        if ended {
            return Ok(());
        }
        if pending.len() > LONGEST {
            bail!("line {first} has more than {LONGEST} octets");
        }
    }
}

/// Judges lines until there are no more, or until nobody wants the verdicts.
fn judge(rules: &RuleSet, work: &Receiver<Lines>, out: &Sender<Judged>) {
    let mut classifier = rules.classifier();
    for lines in work {
        let mut judged = Judged {
            number: lines.number,
            out: Vec::with_capacity(lines.octets.len()),
            bad: Vec::new(),
        };
        for (line, number) in lines.octets.split(|&b| b == b'\n').zip(lines.first..) {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match Record::parse(line) {
                Ok(record) => {
                    let verdict = classifier.classify(&record.replies.observation());
                    // Writing to memory does not fail, and no key of a line is anything but text.
                    let _ =
                        serde_json::to_writer(&mut judged.out, &Line::new(&record.id, &verdict));
                    judged.out.push(b'\n');
                }
                Err(error) => judged.bad.push((number, error.to_string())),
            }
        }
        if out.send(judged).is_err() {
            return;
        }
    }
}

/// Writes what was judged in the order of the input; returns how many lines were bad.
fn write(name: &str, done: Receiver<Judged>) -> anyhow::Result<u64> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut waiting = BTreeMap::new();
    let (mut next, mut bad) = (0, 0);
    for judged in done {
        waiting.insert(judged.number, judged);
        while let Some(judged) = waiting.remove(&next) {
            out.write_all(&judged.out)?;
            for (line, reason) in judged.bad {
                bad += 1;
                if bad <= TOLD {
                    say(format_args!("{name}:{line}: {}", escape(reason.as_bytes())));
                }
            }
            next += 1;
        }
        if waiting.is_empty() {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(bad)
}

/// A line of output. The keys up to `evidence` are always there.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a Value,
    product: Option<&'a str>,
    vendor: Option<&'a str>,
    version: Option<&'a str>,
    category: Option<&'static str>,
    family: Option<&'a str>,
    confidence: f64,
    is_smtp: bool,
    layers: &'a [String],
    evidence: Vec<Sign<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contradiction: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    self_declared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
}

/// A piece of evidence.
#[derive(Serialize)]
struct Sign<'a> {
    stage: &'static str,
    rule: &'a str,
    matched: &'a str,
    weight: f64,
}

impl<'a> Line<'a> {
    fn new(id: &'a Value, verdict: &'a Verdict) -> Self {
        Self {
            id,
            product: verdict.product.as_deref(),
            vendor: verdict.vendor.as_deref(),
            version: verdict.version.as_deref(),
            category: verdict.category.map(|category| category.name()),
            family: verdict.family.as_deref(),
            confidence: (verdict.confidence * 10_000.0).round() / 10_000.0,
            is_smtp: verdict.is_smtp,
            layers: &verdict.layers,
            evidence: verdict.evidence.iter().map(Sign::new).collect(),
            protocol: verdict.protocol.as_deref(),
            contradiction: verdict.contradiction.as_deref(),
            self_declared: verdict.self_declared,
            patch: verdict.patch.as_deref(),
            package: verdict.package.as_deref(),
            build: verdict.build.as_deref(),
            release: verdict.release.as_deref(),
            hostname: verdict.hostname.as_deref(),
            os: verdict.os.as_deref(),
            cluster: verdict.cluster.as_deref(),
        }
    }
}

impl<'a> Sign<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        Self {
            stage: evidence.stage.name(),
            rule: &evidence.rule,
            matched: &evidence.matched,
            weight: evidence.weight,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads at most so many octets at once.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn lines_stay_whole_and_counted_however_they_come() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}";
        for step in 1..=text.len() {
            let (to, from) = bounded(100);
            read(&mut Drip(text, step), &to).expect("readable");
            drop(to);
            let mut lines = Vec::new();
            for (expected, piece) in (0..).zip(from) {
                assert_eq!(piece.number, expected);
                for (line, number) in piece.octets.split(|&b| b == b'\n').zip(piece.first..) {
                    if !line.iter().all(u8::is_ascii_whitespace) {
                        lines.push((number, String::from_utf8_lossy(line).trim().to_owned()));
                    }
                }
            }
            let expected = [(1, "{\"a\":1}"), (3, "{\"b\":2}"), (4, "{\"c\":3}")];
            assert_eq!(lines, expected.map(|(n, l)| (n, l.to_owned())), "{step}");
        }
    }

    #[test]
    fn a_line_has_the_promised_keys() {
        let rules = RuleSet::builtin();
        let (to_judges, work) = bounded(1);
        let (to_writer, done) = bounded(1);
        let octets =
            b"{\"id\":7,\"greeting\":\"220 a.example ESMTP Exim 4.96\"}\nnonsense\n".to_vec();
        let piece = Lines {
            number: 0,
            first: 11,
            octets,
        };
        to_judges.send(piece).expect("room");
        drop(to_judges);
        judge(&rules, &work, &to_writer);
        let judged = done.recv().expect("judged");
        let line: Value = serde_json::from_slice(&judged.out).expect("one line of JSON");
        for key in [
            "vendor",
            "category",
            "family",
            "confidence",
            "layers",
            "evidence",
        ] {
            assert!(!line[key].is_null(), "{key}");
        }
        assert_eq!(line["id"], 7);
        assert_eq!(
            (&line["product"], &line["version"]),
            (&"Exim".into(), &"4.96".into())
        );
        assert_eq!(line["is_smtp"], true);
        assert_eq!(judged.bad.len(), 1);
        assert_eq!(judged.bad[0].0, 12);
    }
}
