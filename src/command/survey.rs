//! The commands that read a stored survey: `report`, `export`.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};

use anyhow::Context as _;

use crate::cli::{ExportArgs, ExportFormat, ReportArgs, ReportLevel};
use crate::fingerprint::RuleSet;
use crate::report::{Level, Report};
use crate::store::{FIELDS, Fields, Survey, export};

/// `smtpsweep report FILE`.
pub(super) fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let survey = Survey::open_readonly(&args.file)?;
    let level = match args.by {
        ReportLevel::Product => Level::Product,
        ReportLevel::Family => Level::Family,
        ReportLevel::RootFamily => Level::RootFamily,
        ReportLevel::Vendor => Level::Vendor,
        ReportLevel::Category => Level::Category,
    };
    let report = Report::load_at(&survey, level, &RuleSet::builtin())?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        out.write_all(report.render(width()).as_bytes())?;
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
