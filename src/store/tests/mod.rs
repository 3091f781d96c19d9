//! What goes in comes out: rows, counts, metadata.

mod file;
mod hostile;
mod lock;
mod output;
mod speed;
mod tls;
mod views;

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::row::NewHost;
use super::testing::{dialogue, fill, host, path, survey, verdict};
use super::*;
use crate::probe::Responder;
use crate::session::SessionRecord;
use crate::smtp::{Outcome, Stage, Transcript};
use crate::targets::{RangeSet, Space};

fn all(survey: &Survey) -> Vec<StoredHost> {
    let mut hosts = Vec::new();
    survey
        .for_each_host(|host| {
            hosts.push(host);
            Ok::<(), StoreError>(())
        })
        .unwrap();
    hosts
}

/// Hosts with every octet, empty pieces, no transcript at all, cuts.
fn odd_transcripts() -> Vec<Transcript> {
    let every: Vec<u8> = (0..=255).collect();
    let mut cut = dialogue(b"220 \0\xff\xfe\n", &every);
    cut.cut = u64::from(u32::MAX) + 1;
    vec![
        dialogue(&every, b""),
        Transcript::default(),
        cut,
        dialogue("220 schön\r\n".as_bytes(), b"250 \0x\r\n"),
    ]
}

#[test]
fn rows_come_back_as_they_went_in() {
    let (dir, mut survey) = survey();
    let transcripts = odd_transcripts();
    let judged = verdict(Some("Postfix"), Some("3.7"), None);
    let rows: Vec<NewHost<'_>> = transcripts
        .iter()
        .zip(0u32..)
        .map(|(transcript, n)| {
            // High addresses first, so that order of storing and of addresses differ.
            let outcome = Outcome::ALL[n as usize];
            let mut row = host(9 - n, outcome, transcript);
            if n == 1 {
                row = HostRow {
                    addr: Ipv4Addr::BROADCAST,
                    mss: None,
                    wscale: None,
                    ts_val: None,
                    connect_ms: None,
                    sack_perm: false,
                    ts_ecr: Some(u32::MAX),
                    ..row
                };
            }
            NewHost {
                row,
                transcript,
                tls: None,
                verdict: &judged,
            }
        })
        .collect();
    survey.add_rows(&rows, &[], &[]).unwrap();
    survey.close().unwrap();

    let stored = all(&Survey::open_readonly(path(&dir)).unwrap());
    assert_eq!(stored.len(), rows.len());
    for (n, (stored, put)) in stored.iter().zip(&rows).enumerate() {
        assert_eq!(stored.id, i64::try_from(n).unwrap() + 1);
        assert_eq!(stored.row, put.row);
        assert_eq!(&stored.transcript, put.transcript);
        assert_eq!(
            format!("{:?}", stored.verdict.as_ref().unwrap()),
            format!("{judged:?}")
        );
    }
    let said = stored[0].replies();
    assert_eq!(
        said.observation().reply(Stage::Greeting).unwrap().len(),
        256
    );
    assert_eq!(said.observation().reply(Stage::Ehlo), None);
}

#[test]
fn every_outcome_is_stored_under_its_name() {
    let (_dir, mut survey) = survey();
    for (outcome, n) in Outcome::ALL.iter().zip(0..) {
        fill(
            &mut survey,
            n,
            1,
            *outcome,
            &Transcript::default(),
            &verdict(None, None, None),
        );
    }
    let outcomes: Vec<Outcome> = all(&survey).iter().map(|h| h.row.outcome).collect();
    assert_eq!(outcomes, Outcome::ALL);
}

#[test]
fn a_host_counts_as_smtp_by_its_words_and_its_outcome() {
    let (_dir, mut survey) = survey();
    let mut foreign = verdict(None, None, None);
    foreign.is_smtp = false;
    let mut next = 0;
    for outcome in Outcome::ALL {
        for judged in [&verdict(Some("Exim"), None, None), &foreign] {
            fill(
                &mut survey,
                next,
                1,
                *outcome,
                &Transcript::default(),
                judged,
            );
            next += 1;
        }
    }
    let expected: u64 = Outcome::ALL.iter().map(|o| u64::from(o.is_smtp())).sum();
    let check = |survey: &Survey| {
        assert_eq!(survey.smtp_hosts().unwrap(), expected);
        for host in all(survey) {
            let counts = host.row.outcome.is_smtp() && host.id % 2 == 1;
            assert_eq!(
                host.verdict.unwrap().is_smtp,
                counts,
                "{}",
                host.row.outcome
            );
        }
        let of = |sql: &str| -> u64 { survey.conn.query_row(sql, [], |r| r.get(0)).unwrap() };
        for view in ["v_products", "v_versions", "v_categories"] {
            assert_eq!(
                of(&format!("SELECT sum(hosts) FROM {view}")),
                expected,
                "{view}"
            );
        }
        assert_eq!(of("SELECT count(*) FROM v_hosts WHERE is_smtp"), expected);
        let counted = survey.summary(9).unwrap();
        let counted = counted.products.iter().filter(|row| row.is_smtp);
        assert_eq!(counted.map(|row| row.hosts).sum::<u64>(), expected);
    };
    check(&survey);
    // Judged anew, by other rules that say the same.
    survey
        .reclassify("d2", "2", |host| match host.id % 2 {
            1 => verdict(Some("Exim"), None, None),
            _ => foreign.clone(),
        })
        .unwrap();
    check(&survey);
}

#[test]
fn a_session_record_becomes_a_row() {
    let (_dir, mut survey) = survey();
    let addr = u32::from(Ipv4Addr::new(127, 0, 0, 9));
    let space = Space::new(
        &RangeSet::from_ranges([(addr, addr)]),
        &RangeSet::from_ranges([]),
    );
    let responder = Responder::dialled(space.target(0).unwrap(), 25, 1_000_001);
    let record = SessionRecord {
        responder,
        outcome: Outcome::NoGreeting,
        detail: Some("silence".to_owned()),
        transcript: dialogue(b"220 hi\r\n", b"250 hi\r\n"),
        tls: None,
        started_us: 2_000_002,
        connect_ms: Some(5),
        duration_ms: 60_000,
    };
    let transcript = record.transcript.clone();
    survey
        .add(&[(record, verdict(None, None, Some("hi")))])
        .unwrap();
    let stored = all(&survey).remove(0);
    assert_eq!(stored.row.addr, Ipv4Addr::new(127, 0, 0, 9));
    assert_eq!((stored.row.sport, stored.row.timestamp_us), (25, 1_000_001));
    assert_eq!(
        (stored.row.started_us, stored.row.connect_ms),
        (2_000_002, Some(5))
    );
    assert_eq!(
        (stored.row.outcome, stored.row.duration_ms),
        (Outcome::NoGreeting, 60_000)
    );
    assert_eq!(stored.row.detail.as_deref(), Some("silence"));
    assert_eq!(stored.row.greeting_delay_ms, Some(12));
    assert_eq!(stored.transcript, transcript);
}

#[test]
fn a_name_from_a_later_version_is_reported() {
    let (_dir, mut survey) = survey();
    fill(
        &mut survey,
        0,
        1,
        Outcome::Completed,
        &Transcript::default(),
        &verdict(None, None, None),
    );
    survey
        .conn
        .execute("UPDATE hosts SET outcome = 'later\u{1b}[31m'", [])
        .unwrap();
    let e = survey
        .for_each_host(|_| Ok::<(), StoreError>(()))
        .unwrap_err();
    assert!(
        e.to_string().contains("\"later\\x1b[31m\" has no meaning"),
        "{e}"
    );
}

#[test]
fn no_host_is_stored_twice_and_a_batch_is_whole_or_nothing() {
    let (_dir, mut survey) = survey();
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    let judged = verdict(None, None, None);
    fill(&mut survey, 0, 10, Outcome::Completed, &transcript, &judged);
    let new = |n| NewHost {
        row: host(n, Outcome::Completed, &transcript),
        transcript: &transcript,
        tls: None,
        verdict: &judged,
    };
    for batch in [vec![new(20), new(5), new(21)], vec![new(20), new(20)]] {
        let at = [("cursor", json!(99))];
        let e = survey
            .add_rows(&batch, &[("probe", "sent", 9)], &at)
            .unwrap_err();
        let StoreError::Duplicate { addr, .. } = e else {
            panic!("{e}")
        };
        assert!([5, 20].contains(&(addr.to_bits() - 0xc612_0000)));
        assert_eq!(survey.host_count().unwrap(), 10);
        assert_eq!(survey.meta("cursor").unwrap(), None);
        assert!(survey.summary(1).unwrap().counts.is_empty());
    }
    survey
        .add_rows(
            &[new(20)],
            &[("probe", "sent", 9)],
            &[("cursor", json!(99))],
        )
        .unwrap();
    assert_eq!(survey.host_count().unwrap(), 11);
    assert_eq!(survey.meta("cursor").unwrap(), Some(json!(99)));
    let addrs: Vec<u32> = all(&survey)
        .iter()
        .map(|host| host.row.addr.to_bits() - 0xc612_0000)
        .collect();
    assert_eq!(addrs, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20]);
}

#[test]
fn hosts_need_a_ruleset_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut survey = Survey::create(path(&dir), &[]).unwrap();
    survey.set_counts(&[("probe", "sent", 1)]).unwrap();
    let transcript = Transcript::default();
    let judged = verdict(None, None, None);
    let row = host(0, Outcome::Completed, &transcript);
    let e = survey.add_rows(
        &[NewHost {
            row,
            transcript: &transcript,
            tls: None,
            verdict: &judged,
        }],
        &[],
        &[],
    );
    assert!(matches!(e.unwrap_err(), StoreError::NoRuleset { .. }));
}

#[test]
fn metadata_and_counts_are_set_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut survey = Survey::create(
        path(&dir),
        &[("seed", json!(u64::MAX)), ("name", json!("ä\0\"b"))],
    )
    .unwrap();
    assert_eq!(survey.meta("seed").unwrap(), Some(json!(u64::MAX)));
    survey.set_meta("seed", json!({"a": [1, null]})).unwrap();
    survey
        .set_counts(&[("probe", "sent", 1), ("drop", "short", 2)])
        .unwrap();
    survey.set_counts(&[("probe", "sent", 1 << 40)]).unwrap();
    drop(survey);
    let survey = Survey::open(path(&dir)).unwrap();
    let all: Vec<(String, Value)> = survey.metadata().unwrap().into_iter().collect();
    assert_eq!(
        all,
        [
            ("name".into(), json!("ä\0\"b")),
            ("seed".into(), json!({"a": [1, null]}))
        ]
    );
    let counts: Vec<_> = survey.summary(1).unwrap().counts.into_iter().collect();
    assert_eq!(
        counts,
        [
            (("drop".into(), "short".into()), 2),
            (("probe".into(), "sent".into()), 1 << 40)
        ]
    );
    assert_eq!(survey.meta("no such").unwrap(), None);
}
