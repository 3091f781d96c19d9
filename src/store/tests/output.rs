//! Exported rows, read back by other parsers.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::super::testing::{dialogue, fill, path, survey, verdict};
use super::super::*;
use crate::smtp::{Outcome, Transcript};

fn csv_of(survey: &Survey, fields: &Fields) -> String {
    let mut out = Vec::new();
    export::csv(survey, fields, true, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn csv_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut survey = Survey::create(path(&dir), &[("source", json!("192.0.2.1"))]).unwrap();
    survey.use_ruleset("d", "1").unwrap();
    let nasty = dialogue(b"220 a,\"b\"\x1b\xff\r\n220 c\r\n", b"250 x\r\n");
    let judged = verdict(Some("Post,\"fix\"\n\u{9b}2J"), Some("=1+1"), None);
    fill(&mut survey, 7, 2, Outcome::Greeting5xx, &nasty, &judged);
    let text = csv_of(&survey, &Fields::all());
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    assert_eq!(text.lines().count(), 3);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader
        .headers()
        .unwrap()
        .iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(names, FIELDS.iter().map(|f| f.name).collect::<Vec<_>>());
    let row = reader.records().next().unwrap().unwrap();
    let cell = |name: &str| &row[names.iter().position(|n| n == name).unwrap()];
    for (name, value) in [
        ("saddr", "198.18.0.7"),
        ("sport", "25"),
        ("daddr", "192.0.2.1"),
        ("dport", "40000"),
        ("seqnum", "2147483649"),
        ("acknum", "0"),
        ("window", "65535"),
        ("tcpopt_sack_perm", "1"),
        ("tcpopt_ts_ecr", ""),
        ("classification", "synack"),
        ("success", "1"),
        ("timestamp_str", "2026-11-22T14:39:00.123+0000"),
        ("timestamp_ts", "1795358340"),
        ("timestamp_us", "123463"),
        ("outcome", "greeting_5xx"),
        ("product", "Post,\"fix\"\u{fffd}\u{fffd}2J"),
        ("category", "open source"),
        ("confidence", "0.95"),
        ("banner", "220 a,\"b\"\\x1b\\xff\\r\\n220 c\\r\\n"),
        ("helo", ""),
        ("quit", "221 bye\\r\\n"),
    ] {
        assert_eq!(cell(name), value, "{name}");
    }
}

#[test]
fn csv_fields_are_chosen_in_order() {
    let (_dir, mut survey) = survey();
    let hello = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    fill(
        &mut survey,
        0,
        1,
        Outcome::Completed,
        &hello,
        &verdict(None, None, None),
    );
    let chosen = Fields::parse("outcome, saddr,banner").unwrap();
    assert_eq!(
        csv_of(&survey, &chosen),
        "outcome,saddr,banner\ncompleted,198.18.0.0,220 hi\\r\\n\n"
    );
    let mut out = Vec::new();
    assert_eq!(export::csv(&survey, &chosen, false, &mut out).unwrap(), 1);
    assert!(out.starts_with(b"completed,"));
    let e = Fields::parse("saddr,ttl2").unwrap_err().to_string();
    assert!(
        e.contains("\"ttl2\"") && e.contains("saddr, sport, daddr"),
        "{e}"
    );
    for wanted in [
        "saddr",
        "sport",
        "timestamp_ts",
        "outcome",
        "product",
        "vendor",
        "version",
        "category",
        "confidence",
    ] {
        assert!(
            Fields::default().iter().any(|f| f.name == wanted),
            "{wanted}"
        );
    }
}

#[test]
fn ndjson_reads_back_in_the_envelope_of_zgrab2() {
    let (_dir, mut survey) = survey();
    let raw = dialogue(
        b"220 \xff\x1b caf\xc3\xa9\r\n",
        "250 \u{9b}ü\r\n".as_bytes(),
    );
    fill(
        &mut survey,
        0,
        1,
        Outcome::Completed,
        &raw,
        &verdict(Some("Exim"), Some("4"), None),
    );
    fill(
        &mut survey,
        1,
        1,
        Outcome::NoGreeting,
        &Transcript::default(),
        &verdict(None, None, None),
    );
    let mut out = Vec::new();
    assert_eq!(export::ndjson(&survey, None, &mut out).unwrap(), 2);
    let text = String::from_utf8(out).unwrap();
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    let rows: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let first = &rows[0];
    assert_eq!(
        (&first["saddr"], &first["ip"]),
        (&json!("198.18.0.0"), &json!("198.18.0.0"))
    );
    assert_eq!(
        (&first["port"], &first["success"]),
        (&json!(25), &json!(true))
    );
    assert_eq!(first["evidence"][0]["rule"], "Exim/greeting");
    let smtp = &first["data"]["smtp"];
    assert_eq!(smtp["status"], "success");
    assert_eq!(smtp["timestamp"], "2026-11-22T14:39:01Z");
    assert_eq!(smtp["result"]["banner"], "220 \u{fffd}\u{1b} café\r\n");
    // "220 \xff\x1b caf\xc3\xa9\r\n" as coreutils' base64 has it.
    assert_eq!(smtp["result"]["banner_b64"], "MjIwIP8bIGNhZsOpDQo=");
    assert_eq!(smtp["result"]["ehlo"], "250 \u{9b}ü\r\n");
    assert_eq!(smtp["result"].get("ehlo_b64"), None);
    assert_eq!(smtp.get("error"), None);
    let second = &rows[1]["data"]["smtp"];
    assert_eq!(
        (&second["status"], &second["result"]),
        (&json!("io-timeout"), &json!({}))
    );
    assert_eq!(second["error"], "no_greeting: some detail");
    assert_eq!(rows[1]["product"], Value::Null);
    let keys = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(first), keys(&rows[1]), "every row has the same keys");
}

#[test]
fn ndjson_has_the_chosen_fields_alone_and_in_order() {
    let (_dir, mut survey) = survey();
    let raw = dialogue(b"220 \xff hi\r\n", b"250 hi\r\n");
    let judged = verdict(Some("Exim"), None, None);
    fill(&mut survey, 0, 1, Outcome::Completed, &raw, &judged);
    let lines = |list: &str| {
        let mut out = Vec::new();
        let fields = Fields::parse(list).unwrap();
        assert_eq!(export::ndjson(&survey, Some(&fields), &mut out).unwrap(), 1);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(lines("saddr"), "{\"saddr\":\"198.18.0.0\"}\n");
    assert_eq!(
        lines("version, product,sport,is_smtp,ehlo"),
        "{\"version\":null,\"product\":\"Exim\",\"sport\":25,\"is_smtp\":true,\
         \"ehlo\":\"250 hi\\r\\n\"}\n"
    );
    // "220 \xff hi\r\n" as coreutils' base64 has it.
    assert_eq!(
        lines("banner,helo"),
        "{\"banner\":\"220 \u{fffd} hi\\r\\n\",\"banner_b64\":\"MjIwIP8gaGkNCg==\",\"helo\":null}\n"
    );
}

/// A pipe whose reader leaves after so many octets.
struct Pipe(usize, io::ErrorKind);

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(self.1.into());
        }
        let n = data.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_a_clean_end_and_a_full_disk_is_not() {
    let (_dir, mut survey) = survey();
    let hello = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    fill(
        &mut survey,
        0,
        500,
        Outcome::Completed,
        &hello,
        &verdict(None, None, None),
    );
    let all = Fields::all();
    for room in [0, 1, 5_000, 20_000] {
        let closed = || Pipe(room, io::ErrorKind::BrokenPipe);
        assert!(export::csv(&survey, &all, true, closed()).unwrap() < 500);
        assert!(export::ndjson(&survey, None, closed()).unwrap() < 500);
        let full = || Pipe(room, io::ErrorKind::StorageFull);
        assert!(matches!(
            export::csv(&survey, &all, true, full()),
            Err(StoreError::Output(_))
        ));
        assert!(matches!(
            export::ndjson(&survey, None, full()),
            Err(StoreError::Output(_))
        ));
    }
}
