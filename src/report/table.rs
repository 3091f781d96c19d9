//! The terminal's view of a report: tables of plain text, no colour, no escape sequence.

use std::fmt::Write as _;

use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table};

use super::{Head, Level, Line, Probes, Report, Rest, Servers, Sessions, Share, Tls};

impl Report {
    /// The report as text for a terminal of so many columns. Every line ends in a line feed, and
    /// there is no other control character.
    pub fn render(&self, width: u16) -> String {
        let mut page = Page {
            text: String::new(),
            width: width.max(NARROWEST),
        };
        page.head(&self.head, self.probes.as_ref());
        match &self.probes {
            Some(probes) => page.probes(probes),
            None => page.say("No probe counts are stored yet."),
        }
        page.sessions(&self.sessions);
        if self.sessions.hosts > 0 {
            page.servers(&self.servers);
        }
        if let Some(tls) = &self.tls {
            page.tls(tls);
        }
        page.text
    }
}

/// The text so far and how wide it may get.
struct Page {
    text: String,
    width: u16,
}

impl Page {
    fn head(&mut self, head: &Head, probes: Option<&Probes>) {
        let state = match head.state.as_deref() {
            Some("running") => match &head.updated {
                Some(updated) => format!("running: the figures so far, last written {updated}"),
                None => "running: the figures so far".to_owned(),
            },
            Some(state) => state.to_owned(),
            None => "state unknown".to_owned(),
        };
        self.line(&format!("Survey {} ({state})", head.file));
        if let Some(version) = &head.version {
            self.entry("made by", &format!("smtpsweep {version}"));
        }
        if let Some(started) = &head.started {
            let took = head.seconds.map(|s| format!(", took {}", duration(s)));
            self.entry("started", &format!("{started}{}", took.unwrap_or_default()));
        }
        if let Some(first) = head.targets.first() {
            let more = head.targets.len().saturating_sub(SHOWN_TARGETS);
            let mut list = head.targets[..head.targets.len() - more].join(", ");
            if more > 0 {
                let _ = write!(list, " and {} more", thousands_of(more));
            }
            self.entry(
                if more == 0 && first == &list {
                    "target"
                } else {
                    "targets"
                },
                &list,
            );
        }
        if let Some(addresses) = head.addresses {
            let left = match probes.and_then(|p| p.not_sent) {
                Some(left) if left > 0 => format!(" ({} not probed)", thousands(left)),
                _ => String::new(),
            };
            self.entry("addresses", &format!("{}{left}", thousands(addresses)));
        }
        if let Some(shard) = &head.shard {
            self.entry("shard", shard);
        }
        if let Some(rate) = head.rate {
            self.entry("rate", &format!("{} packets/s", rate_text(rate)));
        }
        if let Some(seed) = head.seed {
            self.entry("seed", &seed.to_string());
        }
        if let Some(digest) = &head.rules_digest {
            let short: String = digest.chars().take(12).collect();
            let version = head.rules_version.as_deref().unwrap_or_default();
            self.entry("rules", format!("{version} {short}").trim_start());
        }
    }

    fn probes(&mut self, probes: &Probes) {
        self.title("Probes");
        let mut table = self.table(&["outcome", "addresses", "of sent"]);
        for line in &probes.outcomes {
            table.add_row(row(line));
        }
        table.add_row(vec![
            "sent".to_owned(),
            thousands(probes.sent),
            String::new(),
        ]);
        self.put(table, 2);
        if probes.excess > 0 {
            let n = thousands(probes.excess);
            self.say(&format!(
                "{n} more answers than probes sent: counts were lost."
            ));
        }
        for (name, n) in &probes.notes {
            self.line(&format!("  {name}: {}", thousands(*n)));
        }
    }

    fn tls(&mut self, tls: &Tls) {
        self.title("TLS");
        for (share, what) in [
            (&tls.starttls, "SMTP servers took up STARTTLS"),
            (&tls.implicit, "hosts were asked for TLS at once"),
        ] {
            if share.n > 0 {
                self.line(&format!(
                    "{} of {} {what} ({})",
                    thousands(share.n),
                    thousands(share.of),
                    percent(*share)
                ));
            }
        }
        if !tls.versions.is_empty() {
            let mut table = self.table(&["version", "hosts", "of channels"]);
            for line in &tls.versions {
                table.add_row(row(line));
            }
            self.put(table, 2);
        }
        if !tls.failures.is_empty() {
            let mut table = self.table(&["failure", "hosts", "of begun"]);
            for line in &tls.failures {
                table.add_row(row(line));
            }
            self.put(table, 2);
        }
        if tls.self_signed.of > 0 {
            self.line(&format!(
                "{} certificates: {} of the servers' are self-signed, {} had expired",
                thousands(tls.certificates),
                percent(tls.self_signed),
                percent(tls.expired)
            ));
        }
    }

    fn sessions(&mut self, sessions: &Sessions) {
        if sessions.hosts == 0 && sessions.responders.unwrap_or(0) == 0 {
            self.say("No address has accepted a connection yet.");
            return;
        }
        self.title("Sessions");
        let mut table = self.table(&["outcome", "hosts", "of responders"]);
        for line in &sessions.outcomes {
            table.add_row(row(line));
        }
        self.put(table, 2);
        let hosts = thousands(sessions.hosts);
        let outcomes: u64 = sessions.outcomes.iter().map(|l| l.share.n).sum();
        let outcomes = thousands(outcomes);
        match sessions.responders {
            Some(n) if sessions.balanced => self.line(&format!(
                "{} responders = {outcomes} session outcomes = {hosts} stored hosts",
                thousands(n)
            )),
            Some(n) => {
                let responders = thousands(n);
                let why = if n > sessions.hosts {
                    format!("{} not stored yet", plural(sessions.open, "session"))
                } else {
                    format!(
                        "{} without a counted responder",
                        plural(sessions.hosts - n, "host")
                    )
                };
                self.line(&format!(
                    "{responders} responders ≠ {outcomes} session outcomes = {hosts} stored \
                     hosts ({why})"
                ));
            }
            None => self.line(&format!(
                "{outcomes} session outcomes = {hosts} stored hosts"
            )),
        }
        if let Some(mean) = sessions.mean_commands {
            self.line(&format!("{mean:.2} commands a host on the average"));
        }
    }

    fn servers(&mut self, servers: &Servers) {
        self.title("Mail servers");
        if servers.unjudged > 0 {
            let n = plural(servers.unjudged, "host");
            self.line(&format!(
                "{n} not judged by these rules yet: smtpsweep classify does it."
            ));
        }
        if servers.smtp == 0 {
            self.line("No host has shown itself to be a mail server.");
            return;
        }
        let judged = plural(servers.judged, "judged host");
        self.line(&format!(
            "{} of {judged} speak SMTP.",
            thousands(servers.smtp)
        ));
        self.line(&format!(
            "{} of those are identified: {} (95 % interval {}).",
            thousands(servers.identified.n),
            percent(servers.identified),
            interval(servers.identified),
        ));
        self.categories(servers);
        self.products(servers);
        self.versions(servers);
        self.clusters(servers);
        if servers.other_services > 0 {
            let n = plural(servers.other_services, "host");
            self.say(&format!(
                "{n} known by product, but without a proper SMTP greeting: not counted above."
            ));
        }
    }

    fn categories(&mut self, servers: &Servers) {
        self.title("Categories");
        let mut table = self.table(&["category", "hosts", "of SMTP", "of identified"]);
        for line in &servers.categories {
            let of_identified = line.of_identified.map_or_else(|| "–".to_owned(), percent);
            let hosts = thousands(line.of_smtp.n);
            table.add_row(vec![
                line.name.clone(),
                hosts,
                percent(line.of_smtp),
                of_identified,
            ]);
        }
        self.put(table, 3);
    }

    fn products(&mut self, servers: &Servers) {
        let noun = servers.level.noun();
        self.title(&match servers.level {
            Level::Product => "Products".to_owned(),
            _ => format!("Products by {noun}"),
        });
        if servers.products.is_empty() {
            self.line("None is identified.");
            return;
        }
        let headings = [noun, "hosts", "of SMTP", "95 % interval", "of identified"];
        let mut table = self.table(&headings);
        let mut add = |name: String, of_smtp: Share, of_identified: Option<Share>| {
            table.add_row(vec![
                name,
                thousands(of_smtp.n),
                percent(of_smtp),
                interval(of_smtp),
                of_identified.map_or_else(|| "–".to_owned(), percent),
            ]);
        };
        for product in &servers.products {
            add(
                product.name.clone(),
                product.of_smtp,
                Some(product.of_identified),
            );
        }
        if let Some(rest) = servers.other_products {
            let of_identified = Share::new(rest.hosts, servers.identified.n);
            add(
                other(rest, noun),
                Share::new(rest.hosts, servers.smtp),
                Some(of_identified),
            );
        }
        let unknown = servers.smtp - servers.identified.n;
        add(
            "unknown".to_owned(),
            Share::new(unknown, servers.smtp),
            None,
        );
        self.put(table, 4);
    }

    fn versions(&mut self, servers: &Servers) {
        let stated: Vec<_> = servers
            .products
            .iter()
            .filter(|p| p.versions.iter().any(|v| v.version.is_some()))
            .collect();
        if stated.is_empty() {
            return;
        }
        self.title("Versions");
        let mut table = self.table(&["product", "version", "hosts", "of product"]);
        for product in stated {
            let mut name = product.name.clone();
            for version in &product.versions {
                let text = version
                    .version
                    .clone()
                    .unwrap_or_else(|| "(not stated)".to_owned());
                let (hosts, share) = (thousands(version.share.n), percent(version.share));
                table.add_row(vec![std::mem::take(&mut name), text, hosts, share]);
            }
            if let Some(rest) = product.other_versions {
                let share = percent(Share::new(rest.hosts, product.of_smtp.n));
                let hosts = thousands(rest.hosts);
                table.add_row(vec![String::new(), other(rest, "version"), hosts, share]);
            }
        }
        self.put(table, 2);
    }

    fn clusters(&mut self, servers: &Servers) {
        if servers.clusters.is_empty() {
            return;
        }
        self.title("Unknown servers, by what they say");
        let mut table = self.table(&["greeting, normalised, and an example", "hosts", "of SMTP"]);
        for cluster in &servers.clusters {
            let name = cluster.cluster.as_deref().unwrap_or("(no greeting)");
            let text = format!("{name}\n  {} {}", cluster.example_saddr, cluster.example);
            let share = percent(cluster.share);
            table.add_row(vec![text, thousands(cluster.share.n), share]);
        }
        if let Some(rest) = servers.other_clusters {
            let share = percent(Share::new(rest.hosts, servers.smtp));
            table.add_row(vec![other(rest, "group"), thousands(rest.hosts), share]);
        }
        self.put(table, 2);
    }

    /// A table under these headings.
    fn table(&self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table
            .load_preset(UTF8_FULL_CONDENSED)
            .apply_modifier(UTF8_ROUND_CORNERS)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(self.width)
            .set_header(headings.iter().copied());
        table
    }

    /// Prints a table whose last `numbers` columns are numbers: to the right, never broken.
    fn put(&mut self, mut table: Table, numbers: usize) {
        let words = table.column_count().saturating_sub(numbers);
        for column in table.column_iter_mut().skip(words) {
            column.set_cell_alignment(CellAlignment::Right);
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        for line in table.lines() {
            self.line(line.trim_end());
        }
    }

    fn title(&mut self, title: &str) {
        self.say(title);
    }

    /// A paragraph of one line, after an empty line.
    fn say(&mut self, text: &str) {
        self.text.push('\n');
        self.line(text);
    }

    fn entry(&mut self, name: &str, value: &str) {
        self.line(&format!("  {name:<11}{value}"));
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }
}

fn row(line: &Line) -> Vec<String> {
    vec![
        line.name.clone(),
        thousands(line.share.n),
        percent(line.share),
    ]
}

fn other(rest: Rest, kind: &str) -> String {
    format!(
        "other ({})",
        plural(u64::try_from(rest.kinds).unwrap_or(u64::MAX), kind)
    )
}

/// `1 host`, `2 hosts`.
fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// `1234567` as `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn thousands_of(n: usize) -> String {
    thousands(u64::try_from(n).unwrap_or(u64::MAX))
}

/// Packets/s: whole where they are, else to one decimal.
fn rate_text(rate: f64) -> String {
    let tenths = format!("{rate:.1}");
    match tenths.split_once('.') {
        Some((whole, fraction)) => {
            let whole = whole.parse().map_or_else(|_| whole.to_owned(), thousands);
            if fraction == "0" {
                whole
            } else {
                format!("{whole}.{fraction}")
            }
        }
        None => tenths,
    }
}

/// One decimal; what is there is never shown as 0.0, what is missing never as 100.0.
fn percent(share: Share) -> String {
    let Some(part) = share.share else {
        return "–".to_owned();
    };
    let shown = format!("{:.1}", part * 100.0);
    if share.n > 0 && shown == "0.0" {
        "<0.1 %".to_owned()
    } else if share.n < share.of && shown == "100.0" {
        ">99.9 %".to_owned()
    } else {
        format!("{shown} %")
    }
}

fn interval(share: Share) -> String {
    match share.low.zip(share.high) {
        Some((low, high)) => format!("{:.1}–{:.1} %", low * 100.0, high * 100.0),
        None => "–".to_owned(),
    }
}

/// Seconds as `h:mm:ss`, days before it where there are any.
fn duration(seconds: u64) -> String {
    let (minutes, s) = (seconds / 60, seconds % 60);
    let (hours, m) = (minutes / 60, minutes % 60);
    match (hours / 24, hours % 24) {
        (0, h) => format!("{h}:{m:02}:{s:02}"),
        (days, h) => format!("{days} d {h}:{m:02}:{s:02}"),
    }
}

/// Targets named in the head before "and so many more".
const SHOWN_TARGETS: usize = 4;

/// Below this many columns no table is legible; it is drawn this wide then.
const NARROWEST: u16 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (131_072, "131,072"),
            (1 << 32, "4,294,967,296"),
        ] {
            assert_eq!(thousands(n), text);
        }
        assert_eq!(rate_text(10_000.0), "10,000");
        assert_eq!(rate_text(0.5), "0.5");
        assert_eq!(percent(Share::new(1, 100_000)), "<0.1 %");
        assert_eq!(percent(Share::new(99_999, 100_000)), ">99.9 %");
        assert_eq!(percent(Share::new(1, 8)), "12.5 %");
        assert_eq!(percent(Share::new(0, 0)), "–");
        assert_eq!(duration(59), "0:00:59");
        assert_eq!(duration(90_061), "1 d 1:01:01");
    }
}
