//! The commands that work on a stored survey: `report`, `classify`, `export`.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::{ClassifyArgs, ExportArgs, ExportFormat, ReportArgs};
use crate::config;
use crate::report::Report;
use crate::store::text::escape;
use crate::store::{FIELDS, Fields, Survey, export, key};

/// `smtpsweep report FILE`.
pub(super) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let survey = Survey::open_readonly(&args.file)?;
    let report = Report::load(&survey)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        out.write_all(report.render(width()).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// `smtpsweep classify FILE`.
pub(super) fn classify(args: &ClassifyArgs) -> anyhow::Result<()> {
    let rules = config::rules(args.rules.as_deref()).map_err(config::ConfigError::from)?;
    let mut survey = Survey::open(&args.file)?;
    let digest = rules.digest();
    let changes = survey.reclassify(&digest, env!("CARGO_PKG_VERSION"), |host| {
        rules.classify(&host.replies().observation())
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

/// `smtpsweep export FILE --format …`.
pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    if args.list_output_fields {
        let mut out = io::stdout().lock();
        for field in FIELDS.iter() {
            writeln!(
                out,
                "{:<18} {:<8} {}",
                field.name, field.kind, field.description
            )?;
        }
        return Ok(out.flush()?);
    }
    let fields = args
        .output_fields
        .as_deref()
        .map(Fields::parse)
        .transpose()?;
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
        ExportFormat::Ndjson => {
            export::ndjson(&survey, fields.as_ref(), &mut out)?;
        }
        ExportFormat::Csv => {
            let fields = fields.unwrap_or_default();
            export::csv(&survey, &fields, !args.no_header_row, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

/// Columns of the terminal, or of `COLUMNS`; 100 where neither is known.
fn width() -> u16 {
    let told = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    told.or_else(terminal_width).unwrap_or(100).max(40)
}

fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}
