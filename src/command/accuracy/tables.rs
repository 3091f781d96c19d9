//! The report as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{FOLDS, Report, SESSIONS, Tally};

/// The tables of a report.
pub(super) struct Tables<'a>(pub(super) &'a Report);

impl Tables<'_> {
    pub(super) fn render(&self, tell: bool) -> String {
        let report = self.0;
        let mut out = String::new();
        title(&mut out, "Rows that identify their product");
        tallies(&mut out, "probe", &report.by_probe);
        title(
            &mut out,
            &format!("The same, cross-validated in {FOLDS} folds"),
        );
        tallies(&mut out, "probe", &report.validated);
        title(
            &mut out,
            "Rows that do not, or weakly (right: a product that is known to say so)",
        );
        tallies(&mut out, "identifiable", &report.weak);
        title(
            &mut out,
            &format!(
                "Disguised servers: {SESSIONS} sessions a product, put together from its replies, no greeting"
            ),
        );
        tallies(&mut out, "product", &report.disguised);
        title(&mut out, "Not mail, or ambiguous");
        let _ = write!(
            out,
            "| rows | given a product | mail said to be none | other protocols said to be mail |\n\
             |---:|---:|---:|---:|\n| {} | {} | {} | {} |\n",
            report.negatives,
            report.false_positives,
            report.mail_taken_for_other,
            report.other_taken_for_mail
        );
        self.calibration(&mut out);
        self.confusion(&mut out);
        let _ = writeln!(
            out,
            "\n{} rows were left out: the dialogue does not send their probes.",
            report.left_out
        );
        if tell {
            out.push_str("\n```text\n");
            for line in &report.told {
                let _ = writeln!(out, "{line}");
            }
            out.push_str("```\n");
        }
        out
    }

    fn calibration(&self, out: &mut String) {
        title(out, "Calibration, cross-validated");
        out.push_str("| said | verdicts | mean said | right | |\n|---|---:|---:|---:|---|\n");
        for bin in self.0.calibration.bins() {
            let right = float(bin.right) / float(bin.verdicts);
            // Half a sign a per cent: one row is one bar of the reliability diagram.
            let bar = "▇".repeat((0..50).filter(|n| float(*n) < right * 50.0).count());
            let _ = writeln!(
                out,
                "| {:.1}–{:.1} % | {} | {:.1} % | {:.1} % | {bar} |",
                bin.from * 100.0,
                bin.to * 100.0,
                bin.verdicts,
                bin.said * 100.0,
                right * 100.0
            );
        }
        let _ = write!(
            out,
            "\nSaid on average {:+.2} points more than was right. Isotonic fit over the log odds \
             (bits: share, verdicts):",
            self.0.calibration.bias() * 100.0
        );
        for (bits, share, verdicts) in self.0.calibration.fit() {
            let _ = write!(out, " {bits:.1}: {share:.3} ({verdicts});");
        }
        let (declared, right) = self.0.declared;
        let _ = writeln!(
            out,
            "\n\nSelf-declared by their greetings, without a rule: {declared}, of which {right} under the \
             product's usual name."
        );
    }

    fn confusion(&self, out: &mut String) {
        title(out, "Confusion, rows that identify their product");
        out.push_str("| product | rows | right | taken for |\n|---|---:|---:|---|\n");
        for (product, verdicts) in &self.0.by_product {
            let rows: usize = verdicts.values().sum();
            let others: Vec<_> = verdicts
                .iter()
                .filter(|(other, _)| *other != product)
                .map(|(other, n)| format!("{other}: {n}"))
                .collect();
            let _ = writeln!(
                out,
                "| {product} | {rows} | {} | {} |",
                verdicts.get(product).unwrap_or(&0),
                others.join(", ")
            );
        }
    }
}

fn title(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n### {text}\n");
}

fn tallies(out: &mut String, first: &str, tallies: &BTreeMap<String, Tally>) {
    let _ = writeln!(
        out,
        "| {first} | rows | right | wrong | unknown | right | family right | version right |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|"
    );
    let all = Tally::sum(tallies.values());
    for (name, tally) in tallies
        .iter()
        .map(|(n, t)| (n.as_str(), t))
        .chain([("**all**", &all)])
    {
        let rows = tally.rows();
        let version = match tally.with_version {
            0 => String::new(),
            n => format!("{}/{n}", tally.version_right),
        };
        let _ = writeln!(
            out,
            "| {name} | {rows} | {} | {} | {} | {} | {} | {version} |",
            tally.right,
            tally.wrong,
            tally.unknown,
            percent(tally.right, rows),
            percent(tally.family, rows),
        );
    }
}

fn percent(n: usize, of: usize) -> String {
    if of == 0 {
        return String::new();
    }
    format!("{:.1} %", 100.0 * float(n) / float(of))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of rows are far below 2^53"
)]
pub(super) fn float(n: usize) -> f64 {
    n as f64
}
