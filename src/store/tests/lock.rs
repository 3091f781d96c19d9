//! Another process that writes: waiting, trying again, judging anew beside a sweep.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::json;

use super::super::row::NewHost;
use super::super::testing::{dialogue, fill, host, path, survey, verdict};
use super::super::*;
use super::all;
use crate::smtp::{Outcome, Transcript};

/// A survey that gives up at once where the file is locked.
fn impatient() -> (tempfile::TempDir, Survey) {
    let (dir, survey) = survey();
    survey.conn.busy_timeout(Duration::ZERO).unwrap();
    (dir, survey)
}

fn other_writer(dir: &tempfile::TempDir) -> Connection {
    let other = Connection::open(path(dir)).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    other
}

#[test]
fn a_batch_that_met_a_lock_can_be_stored_again() {
    let (dir, mut survey) = impatient();
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    let judged = verdict(Some("Exim"), None, None);
    let batch: Vec<NewHost<'_>> = (0..50)
        .map(|n| NewHost {
            row: host(n, Outcome::Completed, &transcript),
            transcript: &transcript,
            tls: None,
            verdict: &judged,
        })
        .collect();
    let counts = [("probe", "sent", 9)];
    let at = [("cursor", json!(50))];
    let other = other_writer(&dir);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..3 {
        let e = survey.add_rows(&batch, &counts, &at).unwrap_err();
        assert!(e.is_busy(), "{e}");
        assert!(e.to_string().contains("survey.db is being written"), "{e}");
        assert_eq!(survey.host_count().unwrap(), 0);
        assert_eq!(survey.meta("cursor").unwrap(), None);
    }
    assert!(survey.use_ruleset("d2", "2").unwrap_err().is_busy());
    other.execute_batch("ROLLBACK").unwrap();
    survey.add_rows(&batch, &counts, &at).unwrap();
    assert_eq!(survey.host_count().unwrap(), 50);
    assert_eq!(survey.meta("cursor").unwrap(), Some(json!(50)));
    // An error of another kind is not worth trying again.
    assert!(!survey.add_rows(&batch, &[], &[]).unwrap_err().is_busy());
    survey.close().unwrap();
}

#[test]
fn a_sweep_goes_on_while_its_hosts_are_judged_anew() {
    let (dir, mut sweep) = impatient();
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    let old = verdict(Some("Exim"), None, None);
    fill(&mut sweep, 0, 95, Outcome::Completed, &transcript, &old);
    let mut judging = Survey::open(path(&dir)).unwrap();
    let reader = Survey::open_readonly(path(&dir)).unwrap();
    let sweep = RefCell::new(sweep);
    let mut judged = 0;
    let changes = judging
        .reclassify_by(10, "d2", "2", |host| {
            judged += 1;
            assert_eq!(
                host.verdict.as_ref().unwrap().product.as_deref(),
                Some("Exim")
            );
            if judged % 10 == 5 && judged < 100 {
                // No lock is held while rules are at work, and readers have the old verdicts.
                let n = 100 + judged;
                fill(
                    &mut sweep.borrow_mut(),
                    n,
                    1,
                    Outcome::Completed,
                    &transcript,
                    &old,
                );
                let seen = reader.summary(1).unwrap();
                assert_eq!(seen.ruleset.unwrap().0, "d1");
                assert_eq!(seen.products.len(), 1);
                assert_eq!(seen.products[0].product.as_deref(), Some("Exim"));
                assert_eq!(seen.products[0].hosts, u64::from(95 + judged / 10 + 1));
            }
            verdict(Some("Postfix"), None, None)
        })
        .unwrap();
    assert_eq!((changes.hosts, changes.products_changed), (105, 105));
    let seen = reader.summary(1).unwrap();
    assert_eq!(seen.ruleset.unwrap().0, "d2");
    assert_eq!(
        (seen.products.len(), seen.products[0].hosts),
        (1, 105),
        "hosts that came in meanwhile are judged as well"
    );
}

#[test]
fn judging_that_was_interrupted_leaves_the_old_verdicts_and_can_be_done_again() {
    let (dir, mut survey) = impatient();
    let old = verdict(Some("Exim"), None, None);
    fill(
        &mut survey,
        0,
        30,
        Outcome::Completed,
        &Transcript::default(),
        &old,
    );
    let other = other_writer(&dir);
    let e = survey
        .reclassify_by(10, "d2", "2", |host| {
            if host.id == 25 {
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
            }
            verdict(Some("Postfix"), None, None)
        })
        .unwrap_err();
    assert!(e.is_busy(), "{e}");
    other.execute_batch("ROLLBACK").unwrap();
    let product = |host: &StoredHost| host.verdict.as_ref().unwrap().product.clone();
    assert!(
        all(&survey)
            .iter()
            .all(|h| product(h).as_deref() == Some("Exim"))
    );
    // New hosts are still judged in the name of the old rules.
    fill(
        &mut survey,
        30,
        1,
        Outcome::Completed,
        &Transcript::default(),
        &old,
    );
    assert_eq!(survey.smtp_hosts().unwrap(), 31);
    let again = survey
        .reclassify_by(10, "d2", "2", |_| verdict(Some("Postfix"), None, None))
        .unwrap();
    assert_eq!((again.hosts, again.products_changed), (31, 31));
    assert!(
        all(&survey)
            .iter()
            .all(|h| product(h).as_deref() == Some("Postfix"))
    );
}

#[test]
fn a_survey_without_hosts_takes_other_rules() {
    let (_dir, mut survey) = survey();
    let changes = survey
        .reclassify("d2", "2", |_| unreachable!("there is no host"))
        .unwrap();
    assert_eq!(changes, Changes::default());
    assert_eq!(survey.summary(1).unwrap().ruleset.unwrap().0, "d2");
}

#[test]
fn a_complete_survey_is_judged_whole_or_not_at_all() {
    let (dir, mut survey) = impatient();
    let old = verdict(Some("Exim"), None, None);
    fill(
        &mut survey,
        0,
        30,
        Outcome::Completed,
        &dialogue(b"220 hi\r\n", b"250 hi\r\n"),
        &old,
    );
    let reader = Survey::open_readonly(path(&dir)).unwrap();
    let rulesets = |survey: &Survey| survey.summary(1).unwrap().ruleset.unwrap().0;
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        survey.reclassify("d2", "2", |host| {
            assert!(host.id < 20, "interrupted");
            assert_eq!(host.transcript.pieces.len(), 3);
            // One transaction: nobody else writes meanwhile, and readers have the old verdicts.
            let busy = other_writer(&dir).execute_batch("BEGIN IMMEDIATE");
            assert!(busy.is_err());
            assert_eq!(rulesets(&reader), "d1");
            verdict(Some("Postfix"), None, None)
        })
    }));
    assert!(stopped.is_err());
    assert_eq!(rulesets(&survey), "d1");
    let changes = survey
        .reclassify("d2", "2", |_| verdict(Some("Postfix"), None, None))
        .unwrap();
    assert_eq!((changes.hosts, changes.products_changed), (30, 30));
    assert_eq!(rulesets(&survey), "d2");
    // Again under the same digest: replaced, and nothing has changed.
    let again = survey
        .reclassify("d2", "2", |_| verdict(Some("Postfix"), None, None))
        .unwrap();
    assert_eq!((again.hosts, again.products_changed), (30, 0));
}
