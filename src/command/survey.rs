//! The commands that work on a stored survey: `report`, `classify`, `export`.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};

use anyhow::Context as _;

use crate::cli::{ClassifyArgs, ExportArgs, ExportFormat, ReportArgs};
use crate::config;
use crate::report::Report;
use crate::store::{Survey, export};

/// `smtpsweep report FILE`.
pub(super) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let survey = Survey::open_readonly(&args.file)?;
    let report = Report::load(&survey)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(report.render().as_bytes())?;
    }
    Ok(out.flush()?)
}

/// `smtpsweep classify FILE`.
pub(super) fn classify(args: &ClassifyArgs) -> anyhow::Result<()> {
    let rules = config::rules(args.rules.as_deref()).map_err(config::ConfigError::from)?;
    let mut survey = Survey::open(&args.file)?;
    let changes = survey.reclassify(rules.digest(), env!("CARGO_PKG_VERSION"), |observation| {
        rules.classify(observation)
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{} hosts classified with rules {:.12}", changes.hosts, rules.digest())?;
    if changes.changed.is_empty() {
        writeln!(out, "no verdict changed")?;
    }
    for ((old, new), count) in &changes.changed {
        let name = |product: &Option<String>| product.clone().unwrap_or_else(|| "unknown".into());
        writeln!(out, "{} → {}: {count}", name(old), name(new))?;
    }
    Ok(())
}

/// `smtpsweep export FILE --format …`.
pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    if args.list_output_fields {
        let mut out = io::stdout().lock();
        for field in export::FIELDS {
            writeln!(out, "{:<18} {:<8} {}", field.name, field.kind, field.description)?;
        }
        return Ok(());
    }
    let file = args.file.as_deref().context("no survey file was named")?;
    let survey = Survey::open_readonly(file)?;
    let mut out: Box<dyn Write> = match &args.output_file {
        None => Box::new(BufWriter::new(io::stdout().lock())),
        Some(path) => Box::new(BufWriter::new(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)
                .with_context(|| format!("cannot create {}", path.display()))?,
        )),
    };
    match args.format {
        ExportFormat::Ndjson => export::ndjson(&survey, &mut out)?,
        ExportFormat::Csv => {
            export::csv(&survey, &mut out, &args.output_fields, !args.no_header_row)?;
        }
    }
    Ok(out.flush()?)
}
