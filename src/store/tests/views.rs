//! What others see: views, verdicts of other rules, the documentation.

use super::super::testing::{dialogue, fill, survey, verdict};
use super::super::*;
use super::all;
use crate::smtp::{Outcome, Stage, Transcript};

#[test]
fn other_rules_keep_the_old_verdicts() {
    let (_dir, mut survey) = survey();
    let postfix = dialogue(b"220 mx ESMTP Postfix\r\n", b"250 mx\r\n");
    let hidden = dialogue(b"220 mx ESMTP\r\n", b"250 mx\r\n");
    let old = verdict(Some("Sendmail"), None, None);
    fill(&mut survey, 0, 30, Outcome::Completed, &postfix, &old);
    fill(
        &mut survey,
        30,
        12,
        Outcome::Completed,
        &hidden,
        &verdict(None, None, Some("ESMTP")),
    );
    let judge = |version: &'static str| {
        move |host: &StoredHost| {
            let said = host.replies();
            let greeting = said
                .observation()
                .reply(Stage::Greeting)
                .unwrap_or_default();
            let known = greeting.windows(7).any(|w| w == b"Postfix");
            verdict(known.then_some("Postfix"), known.then_some(version), None)
        }
    };
    let changes = survey.reclassify("d2", "2", judge("3")).unwrap();
    assert_eq!(
        (
            changes.hosts,
            changes.products_changed,
            changes.versions_changed
        ),
        (42, 30, 0)
    );
    let moved = Change {
        from: Some("Sendmail".into()),
        to: Some("Postfix".into()),
        hosts: 30,
    };
    assert_eq!(changes.moves, [moved]);
    assert_eq!(
        survey.summary(1).unwrap().ruleset,
        Some(("d2".into(), "2".into()))
    );
    // The same digest again replaces; nothing changes but the version.
    let changes = survey.reclassify("d2", "2", judge("4")).unwrap();
    assert_eq!(
        (
            changes.hosts,
            changes.products_changed,
            changes.versions_changed
        ),
        (42, 0, 30)
    );
    let count = |digest: &str, what: &str| -> u64 {
        survey
            .conn
            .query_row(
                "SELECT count(*) FROM verdicts AS v JOIN rulesets AS r ON r.id = v.ruleset_id
                 WHERE r.digest = ?1 AND v.product = ?2",
                [digest, what],
                |r| r.get(0),
            )
            .unwrap()
    };
    assert_eq!((count("d1", "Sendmail"), count("d2", "Postfix")), (30, 30));
    assert!(all(&survey).iter().all(|h| {
        let verdict = h.verdict.as_ref().unwrap();
        verdict.product.as_deref() != Some("Sendmail")
    }));
    // Going back names the old verdicts again.
    survey.use_ruleset("d1", "1").unwrap();
    assert_eq!(
        all(&survey)[0].verdict.as_ref().unwrap().product.as_deref(),
        Some("Sendmail")
    );
}

#[test]
fn views_answer_the_common_questions() {
    let (_dir, mut survey) = survey();
    let esc = dialogue(b"220 mx \x1b[31m ESMTP\r\n220 two\r\n", b"250 mx\r\n");
    fill(
        &mut survey,
        0,
        3,
        Outcome::Completed,
        &esc,
        &verdict(Some("Exim"), Some("4.98"), None),
    );
    fill(
        &mut survey,
        3,
        1,
        Outcome::Completed,
        &esc,
        &verdict(None, None, Some("mx ESMTP")),
    );
    let empty = Transcript::default();
    fill(
        &mut survey,
        4,
        1,
        Outcome::NoGreeting,
        &empty,
        &verdict(None, None, None),
    );
    let rows = |sql: &str| -> Vec<String> {
        let mut statement = survey.conn.prepare(sql).unwrap();
        let width = statement.column_count();
        let text = |r: &rusqlite::Row<'_>| -> rusqlite::Result<String> {
            let cells: rusqlite::Result<Vec<String>> = (0..width)
                .map(|i| {
                    Ok(match r.get::<_, rusqlite::types::Value>(i)? {
                        rusqlite::types::Value::Null => "-".to_owned(),
                        rusqlite::types::Value::Integer(n) => n.to_string(),
                        rusqlite::types::Value::Real(x) => x.to_string(),
                        rusqlite::types::Value::Text(t) => t,
                        rusqlite::types::Value::Blob(_) => "blob".to_owned(),
                    })
                })
                .collect();
            Ok(cells?.join("|"))
        };
        statement
            .query_map([], text)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    };
    assert_eq!(
        rows("SELECT * FROM v_outcomes"),
        ["completed|4|80", "no_greeting|1|20"]
    );
    assert_eq!(
        rows("SELECT * FROM v_products"),
        ["Exim|Exim people|open source|3|75", "-|-|-|1|25"]
    );
    assert_eq!(rows("SELECT * FROM v_versions"), ["Exim|4.98|3|100"]);
    assert_eq!(
        rows("SELECT * FROM v_categories"),
        ["open source|3|75", "-|1|25"]
    );
    let greeting = r"220 mx \x1b[31m ESMTP\n220 two";
    assert_eq!(
        rows("SELECT * FROM v_greetings"),
        [format!("{greeting}|4"), "-|1".to_owned()]
    );
    assert_eq!(
        rows("SELECT * FROM v_unknown"),
        [format!("mx ESMTP|1|198.18.0.3|{greeting}")]
    );
    assert_eq!(
        rows(
            "SELECT saddr, seen, outcome, product, greeting, ehlo FROM v_hosts WHERE id IN (1, 5)"
        ),
        [
            format!("198.18.0.0|2026-11-22T14:39:00Z|completed|Exim|{greeting}|250 mx"),
            "198.18.0.4|2026-11-22T14:39:00Z|no_greeting|-|-|-".to_owned()
        ]
    );
    let lines = rows("SELECT at_ms, side, text FROM v_transcript WHERE saddr = '198.18.0.1'");
    assert_eq!(lines[2], "14|C:|EHLO sweep.example");
    assert_eq!(lines.len(), 6);
}

#[test]
fn the_documentation_names_all_there_is() {
    let text = include_str!("../../../docs/schema.md");
    let (_dir, survey) = survey();
    let mut names = survey
        .conn
        .prepare(
            "SELECT m.name, p.name FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS p
             WHERE m.type IN ('table', 'view')",
        )
        .unwrap();
    let pairs: Vec<(String, String)> = names
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(pairs.len() > 80);
    for (table, column) in pairs {
        let heading = format!("\n### `{table}`");
        let (_, section) = text
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no {table}"));
        let section = section.split("\n### ").next().unwrap();
        assert!(
            section.contains(&format!("`{column}`")),
            "{table}.{column} is not described"
        );
    }
    let source = include_str!("../../smtp/outcome.rs");
    let (_, source) = source.split_once("\noutcomes! {").unwrap();
    for outcome in Outcome::ALL {
        // The sentence before the name, up to the outcome before.
        let (before, _) = source.split_once(&format!(" = \"{outcome}\",")).unwrap();
        let sentence = before.rsplit_once(";\n").map_or(before, |(_, last)| last);
        let words: Vec<&str> = sentence
            .lines()
            .filter_map(|line| line.trim().strip_prefix("/// "))
            .collect();
        let row = format!(
            "| `{outcome}` | {} | {} | {} |",
            outcome.zgrab_status(),
            if outcome.is_smtp() { "yes" } else { "" },
            words.join(" ").trim_end_matches('.')
        );
        assert!(text.contains(&row), "docs/schema.md lacks the line\n{row}");
    }
    for field in FIELDS {
        let row = format!(
            "| `{}` | {} | {} | {} |",
            field.name,
            field.kind,
            if field.default { "yes" } else { "" },
            field.description
        );
        assert!(text.contains(&row), "docs/schema.md lacks the line\n{row}");
    }
}

/// Of the keys and counts that a sweep writes.
#[test]
fn the_documentation_names_what_a_sweep_writes() {
    let text = include_str!("../../../docs/schema.md");
    let key = regex::Regex::new(r#"\bput\(\s*"([^"]+)""#).unwrap();
    let source = include_str!("../../run/account.rs");
    let keys: Vec<&str> = key
        .captures_iter(source)
        .map(|found| found.extract::<1>().1[0])
        .collect();
    assert!(keys.len() > 40, "only {keys:?}");
    for key in keys {
        let name = format!("`{key}`");
        assert!(text.contains(&name), "docs/schema.md lacks the key {name}");
    }
    let (_, counts) = text.split_once("\n### `probe_counts`").unwrap();
    let (counts, _) = counts.split_once("\n### ").unwrap();
    for (kind, name) in [
        (count::PROBE, count::SENT),
        (count::REPLY, count::SYN_ACK),
        (count::REPLY, count::SYN_ACK_LATER),
        (count::REPLY, count::RST),
        (count::ICMP, ""),
        (count::ICMP_REMARK, ""),
        (count::DUPLICATE, count::ANY),
        (count::BLOCKED, count::ANY),
        (count::DROP, ""),
    ] {
        let told = counts
            .lines()
            .any(|line| line.starts_with(&format!("| `{kind}` |")) && line.contains(name));
        assert!(told, "docs/schema.md lacks the count {kind} {name}");
    }
}

#[test]
fn dialogues_are_laid_out_step_by_step() {
    let (_dir, mut survey) = survey();
    let ehlo = b"250-mx.example.test\r\n250-size 1000\r\n250-X\x1b[31m \x9b1m\r\n250 HELP\n";
    let transcript = dialogue(b"220 mx ESMTP\r\n", ehlo);
    fill(
        &mut survey,
        0,
        1,
        Outcome::Completed,
        &transcript,
        &verdict(Some("Exim"), None, None),
    );
    let nothing = Transcript::default();
    fill(
        &mut survey,
        1,
        1,
        Outcome::NoGreeting,
        &nothing,
        &crate::fingerprint::Verdict::default(),
    );
    let rows = |sql: &str| -> Vec<String> {
        let mut statement = survey.conn.prepare(sql).unwrap();
        let count = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (0..count).map(|i| match row.get::<_, rusqlite::types::Value>(i)? {
                rusqlite::types::Value::Null => Ok("-".to_owned()),
                rusqlite::types::Value::Integer(n) => Ok(n.to_string()),
                rusqlite::types::Value::Text(text) => Ok(text),
                other => panic!("{other:?}"),
            });
            Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(
        rows(
            "SELECT saddr, n, stage, code, enhanced, lines, latency_ms, pieces, quirks FROM v_replies ORDER BY n"
        ),
        [
            "198.18.0.0|0|greeting|220|-|1|12|2|-",
            "198.18.0.0|1|ehlo|250|-|4|16|1|bare LF, 8-bit octets",
            "198.18.0.0|2|quit|221|-|1|15|1|-",
        ]
    );
    assert_eq!(
        rows("SELECT stage, n, keyword, parameters FROM v_ehlo_keywords ORDER BY n"),
        [
            "ehlo|0|SIZE|1000",
            "ehlo|1|X\u{fffd}[31M|\u{fffd}1m",
            "ehlo|2|HELP|-",
        ]
    );
    assert_eq!(rows("SELECT host_id, commands FROM dialogues"), ["1|2"]);
}
