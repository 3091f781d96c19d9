//! Tests of the report: the golden text, the sums, and hostile greetings.

use serde_json::{Value, json};

use super::*;
use crate::smtp::{Outcome, Transcript};
use crate::store::testing::{dialogue, fill, survey, verdict};

/// A survey of some hosts in the state a finished sweep leaves.
fn small() -> (tempfile::TempDir, Survey) {
    let (dir, mut survey) = survey();
    let hello = dialogue(b"220 mx.example.test ESMTP\r\n", b"250 mx\r\n");
    let mut next = 0;
    let mut put =
        |n, outcome, product: Option<&str>, version: Option<&str>, cluster: Option<&str>| {
            fill(
                &mut survey,
                next,
                n,
                outcome,
                &hello,
                &verdict(product, version, cluster),
            );
            next += n;
        };
    put(1200, Outcome::Completed, Some("Postfix"), None, None);
    put(
        34,
        Outcome::Completed,
        Some("Postfix"),
        Some("3.7.11"),
        None,
    );
    put(500, Outcome::Completed, Some("Exim"), Some("4.96"), None);
    put(100, Outcome::Completed, Some("Exim"), Some("4.98"), None);
    put(100, Outcome::Greeting5xx, Some("Exchange"), None, None);
    put(60, Outcome::Completed, None, None, Some("HOST ESMTP"));
    put(5, Outcome::ServiceClosing, None, None, Some("HOST ready"));
    let mut silent = verdict(None, None, None);
    silent.is_smtp = false;
    fill(
        &mut survey,
        next,
        1,
        Outcome::NoGreeting,
        &Transcript::default(),
        &silent,
    );
    survey
        .add_rows(
            &[],
            &[
                ("probe", "sent", 131_072),
                ("reply", "synack", 2000),
                ("reply", "rst", 40_000),
                ("icmp", "host unreachable", 12),
                ("icmp", "port unreachable", 1_300),
                ("duplicate", "any", 7),
                ("icmp_remark", "any", 0),
                ("drop", "bad-cookie", 2),
            ],
            &[
                ("state", json!("complete")),
                ("version", json!("0.1.0")),
                ("started_us", json!(1_795_358_340_123_456_u64)),
                ("ended_us", json!(1_795_358_412_500_000_u64)),
                ("targets", json!(["198.18.0.0/15"])),
                ("addresses", json!(131_072)),
                ("rate", json!(10_000.0)),
                ("seed", json!(42)),
            ],
        )
        .unwrap();
    (dir, survey)
}

#[test]
fn a_small_report_reads_so() {
    let (_dir, survey) = small();
    let text = Report::load(&survey).unwrap().render(80);
    assert_eq!(text, include_str!("golden.txt"), "it is now:\n{text}");
}

#[test]
fn products_are_counted_at_any_level() {
    let (_dir, survey) = small();
    let rules = RuleSet::parse(&[(
        "tree.toml",
        "[[tree]]\nfamily = 'Exim'\nparent = 'Cambridge'\n",
    )])
    .unwrap();
    for (level, names) in [
        (Level::Product, ["Exim", "Exchange"]),
        (Level::Family, ["Exim", "Exchange"]),
        (Level::RootFamily, ["Cambridge", "Exchange"]),
        (Level::Vendor, ["Exim people", "Exchange people"]),
        (Level::Category, ["open source", "commercial"]),
    ] {
        let report = Report::load_at(&survey, level, &rules).unwrap();
        let counted: u64 = report.servers.products.iter().map(|p| p.of_smtp.n).sum();
        assert_eq!(counted, report.servers.identified.n, "{level:?}");
        for name in names {
            assert!(
                report.servers.products.iter().any(|p| p.name == name),
                "{level:?} {name}"
            );
        }
        let versions = report
            .servers
            .products
            .iter()
            .any(|p| !p.versions.is_empty());
        assert_eq!(versions, level == Level::Product);
        assert!(report.render(80).contains(level.noun()));
    }
}

#[test]
fn numbers_add_up() {
    let (_dir, survey) = small();
    for options in [
        Options::default(),
        Options {
            products: 1,
            versions: 1,
            clusters: 1,
            ..Options::default()
        },
        Options {
            products: 0,
            versions: 0,
            clusters: 0,
            ..Options::default()
        },
    ] {
        let report = Report::load_with(&survey, options).unwrap();
        let probes = report.probes.as_ref().unwrap();
        assert_eq!(
            probes.outcomes.iter().map(|l| l.share.n).sum::<u64>(),
            probes.sent
        );
        let sessions = &report.sessions;
        assert!(sessions.balanced);
        assert_eq!(
            sessions.outcomes.iter().map(|l| l.share.n).sum::<u64>(),
            sessions.hosts
        );
        assert_eq!(sessions.hosts, survey.host_count().unwrap());
        let servers = &report.servers;
        assert_eq!(
            (servers.judged, servers.smtp, servers.identified.n),
            (2000, 1999, 1934)
        );
        assert_eq!(servers.unjudged, 0);
        assert_eq!(servers.smtp, survey.smtp_hosts().unwrap());
        assert_eq!(
            servers.categories.iter().map(|c| c.of_smtp.n).sum::<u64>(),
            servers.smtp
        );
        let listed: u64 = servers.products.iter().map(|p| p.of_smtp.n).sum();
        assert_eq!(
            listed + servers.other_products.map_or(0, |r| r.hosts),
            servers.identified.n
        );
        for product in &servers.products {
            let listed: u64 = product.versions.iter().map(|v| v.share.n).sum();
            let other = product.other_versions.map_or(0, |r| r.hosts);
            assert_eq!(listed + other, product.of_smtp.n, "{}", product.name);
        }
        let listed: u64 = servers.clusters.iter().map(|c| c.share.n).sum();
        let other = servers.other_clusters.map_or(0, |r| r.hosts);
        assert_eq!(listed + other, servers.smtp - servers.identified.n);
    }
}

#[test]
fn equal_counts_are_ordered_by_name_and_small_ones_folded() {
    let (_dir, mut survey) = survey();
    let nothing = Transcript::default();
    for n in 0..15u32 {
        let version = format!("1.{n:02}");
        let judged = verdict(Some("Exim"), Some(&version), None);
        fill(&mut survey, n, 1, Outcome::Completed, &nothing, &judged);
    }
    fill(
        &mut survey,
        20,
        15,
        Outcome::Completed,
        &nothing,
        &verdict(Some("Abacus"), None, None),
    );
    let report = Report::load(&survey).unwrap();
    let names: Vec<&str> = report
        .servers
        .products
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["Abacus", "Exim"]);
    let exim = &report.servers.products[1];
    assert_eq!(exim.versions[9].version.as_deref(), Some("1.09"));
    assert_eq!(exim.other_versions, Some(Rest { kinds: 5, hosts: 5 }));
    assert!(report.render(80).contains("other (5 versions)"));
}

#[test]
fn nothing_a_server_says_reaches_the_terminal_raw() {
    let (_dir, mut survey) = survey();
    let evil = b"220 \x1b]0;owned\x07 \x1b[2J \x9b31m \xc2\x9b1m \x08\x08 \xe2\x80\xaegnp.exe\r\n\x00next\r\n";
    let words = "\u{1b}[31m\u{9b}2J\u{7}\n\r\u{202e}";
    let said = dialogue(evil, b"250 x\r\n");
    fill(
        &mut survey,
        0,
        3,
        Outcome::Completed,
        &said,
        &verdict(None, None, Some(words)),
    );
    fill(
        &mut survey,
        3,
        3,
        Outcome::Completed,
        &said,
        &verdict(Some(words), Some(words), None),
    );
    survey.set_meta("targets", json!([words])).unwrap();
    survey.set_meta("state", json!(words)).unwrap();
    survey
        .set_counts(&[("icmp", words, 1), ("drop", words, 1)])
        .unwrap();
    let report = Report::load(&survey).unwrap();
    for width in [0, 20, 80, 200, u16::MAX] {
        let text = report.render(width);
        assert!(
            !text.chars().any(|c| c != '\n' && c.is_control()),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'));
    }
    assert!(
        report
            .render(300)
            .contains("\\x1b]0;owned\\x07 \\x1b[2J \\x9b31m \\u{9b}1m")
    );
    let json = report.to_json();
    assert!(!json.chars().any(|c| c != '\n' && c.is_control()));
    assert!(serde_json::from_str::<Value>(&json).is_ok());
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let (_dir, mut survey) = small();
    let long = "a very long greeting of many words ".repeat(30);
    let said = dialogue(long.as_bytes(), b"250 x\r\n");
    fill(
        &mut survey,
        9000,
        9,
        Outcome::Completed,
        &said,
        &verdict(None, None, Some(&long)),
    );
    let report = Report::load(&survey).unwrap();
    for width in 60..140 {
        for line in report
            .render(width)
            .lines()
            .filter(|l| l.starts_with(['│', '╭', '╞', '╰']))
        {
            assert!(
                line.chars().count() <= usize::from(width),
                "{width}: {line}"
            );
        }
    }
}

#[test]
fn an_empty_survey_says_so() {
    let (_dir, survey) = survey();
    let text = Report::load(&survey).unwrap().render(80);
    assert_eq!(
        text,
        "Survey survey.db (state unknown)\n  rules      1 d1\n\n\
         No probe counts are stored yet.\n\nNo address has accepted a connection yet.\n"
    );
}

#[test]
fn an_unfinished_survey_says_what_is_open() {
    let (_dir, mut survey) = survey();
    survey.set_meta("state", json!("running")).unwrap();
    survey.set_meta("addresses", json!(1000)).unwrap();
    survey
        .set_counts(&[("probe", "sent", 600), ("reply", "synack", 5)])
        .unwrap();
    let none = Report::load(&survey).unwrap().render(80);
    assert!(none.contains("running: the figures so far"), "{none}");
    assert!(none.contains("1,000 (400 not probed)"), "{none}");
    assert!(
        none.contains("5 responders ≠ 0 session outcomes = 0 stored hosts (5 sessions not"),
        "{none}"
    );
    let hello = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    fill(
        &mut survey,
        0,
        3,
        Outcome::Completed,
        &hello,
        &verdict(None, None, Some("hi")),
    );
    let some = Report::load(&survey).unwrap();
    assert_eq!((some.sessions.open, some.sessions.balanced), (2, false));
    assert!(some.render(80).contains("None is identified."));
    fill(
        &mut survey,
        9,
        3,
        Outcome::Completed,
        &hello,
        &verdict(None, None, Some("hi")),
    );
    let more = Report::load(&survey).unwrap().render(80);
    assert!(
        more.contains("(1 host without a counted responder)"),
        "{more}"
    );
}

#[test]
fn a_running_survey_says_how_old_its_figures_are() {
    let (_dir, mut survey) = survey();
    survey.set_meta("state", json!("running")).unwrap();
    survey
        .set_meta("updated_us", json!(1_795_358_412_500_000_u64))
        .unwrap();
    let text = Report::load(&survey).unwrap().render(80);
    assert!(
        text.starts_with(
            "Survey survey.db (running: the figures so far, last written 2026-11-22T14:40:12Z)\n"
        ),
        "{text}"
    );
    survey.set_meta("state", json!("complete")).unwrap();
    let text = Report::load(&survey).unwrap().render(80);
    assert!(text.starts_with("Survey survey.db (complete)\n"), "{text}");
}

#[test]
fn one_definition_of_an_smtp_server() {
    let (_dir, mut survey) = survey();
    let hello = dialogue(b"220 mx.example.test ESMTP Exim\r\n", b"250 mx\r\n");
    let judged = verdict(Some("Exim"), Some("4.98"), None);
    let mut foreign = verdict(None, None, None);
    foreign.is_smtp = false;
    foreign.protocol = Some("FTP".to_owned());
    for (first, n, outcome, judged) in [
        (0, 7, Outcome::Completed, &judged),
        (10, 5, Outcome::PartialGreeting, &judged),
        (20, 3, Outcome::NotSmtp, &judged),
        (30, 2, Outcome::Completed, &foreign),
    ] {
        fill(&mut survey, first, n, outcome, &hello, judged);
    }
    let report = Report::load(&survey).unwrap();
    let servers = &report.servers;
    assert_eq!(survey.smtp_hosts().unwrap(), 7);
    assert_eq!((servers.smtp, servers.judged), (7, 17));
    assert_eq!(servers.identified, Share::new(7, 7));
    assert_eq!(servers.products[0].of_smtp, Share::new(7, 7));
    assert_eq!(servers.products[0].versions[0].share, Share::new(7, 7));
    assert_eq!(servers.categories[0].of_smtp.n, 7);
    assert_eq!(servers.other_services, 8);
    assert!(
        report
            .render(80)
            .contains("8 hosts known by product, but without a proper SMTP greeting")
    );
}

#[test]
fn hosts_that_other_rules_judged_are_told() {
    let (_dir, mut survey) = survey();
    let hello = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    let judged = verdict(Some("Exim"), None, None);
    fill(&mut survey, 0, 4, Outcome::Completed, &hello, &judged);
    survey.use_ruleset("d2", "2").unwrap();
    fill(&mut survey, 4, 1, Outcome::Completed, &hello, &judged);
    let report = Report::load(&survey).unwrap();
    assert_eq!((report.servers.judged, report.servers.unjudged), (1, 4));
    assert!(
        report
            .render(80)
            .contains("4 hosts not judged by these rules yet")
    );
}

#[test]
fn json_has_the_figures() {
    let (_dir, survey) = small();
    let json: Value = serde_json::from_str(&Report::load(&survey).unwrap().to_json()).unwrap();
    assert_eq!(json["head"]["seed"], 42);
    assert_eq!(json["head"]["seconds"], 72);
    assert_eq!(json["probes"]["sent"], 131_072);
    let first = &json["servers"]["products"][0];
    assert_eq!(
        (&first["name"], &first["of_smtp"]["n"]),
        (&json!("Postfix"), &json!(1234))
    );
    assert_eq!(first["versions"][0]["version"], Value::Null);
    assert_eq!(json["sessions"]["outcomes"][0]["name"], "completed");
    assert_eq!(json["sessions"]["outcomes"][0]["n"], 1894);
}
