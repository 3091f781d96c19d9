//! The file itself: creating, refusing, damage, readers and writers, a full disk.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::super::row::NewHost;
use super::super::testing::{dialogue, fill, host, path, survey, verdict};
use super::super::*;
use crate::smtp::Outcome;

#[test]
fn the_new_file_is_private_and_an_old_one_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a file?mode=memory&x=#1.db");
    let survey = Survey::create(&path, &[("seed", json!(7))]).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for side in ["-wal", "-shm"] {
        let mode = fs::metadata(side_file(&path, side))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{side}");
    }
    survey.close().unwrap();
    let before = fs::read(&path).unwrap();
    let refused = Survey::create(&path, &[]).unwrap_err();
    assert!(matches!(refused, StoreError::Exists { .. }));
    assert!(refused.to_string().contains("exists already"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let link = dir.path().join("dangling.db");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
    assert!(matches!(
        Survey::create(&link, &[]).unwrap_err(),
        StoreError::Exists { .. }
    ));
    assert!(!dir.path().join("nowhere").exists());

    let lost = dir.path().join("no/such/dir.db");
    let refused = Survey::create(&lost, &[]).unwrap_err().to_string();
    assert!(
        refused.starts_with("cannot create ") && refused.contains("dir.db: No such"),
        "{refused}"
    );
}

#[test]
fn a_file_without_side_files_can_be_read_as_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("50% ü?mode=rw#&.db");
    Survey::create(&path, &[("seed", json!(7))])
        .unwrap()
        .close()
        .unwrap();
    let survey = Survey {
        conn: connect_immutable(&path).unwrap(),
        path,
        ruleset: None,
    };
    assert_eq!(
        survey.verified().unwrap().meta("seed").unwrap(),
        Some(json!(7))
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no file was made beside it"
    );
}

#[test]
fn what_is_no_survey_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(
        file("text"),
        "this is no database, just a text of some length\n".repeat(99),
    )
    .unwrap();
    fs::write(file("short"), "x").unwrap();
    fs::write(file("empty"), "").unwrap();
    fs::create_dir(file("dir")).unwrap();
    let other = Connection::open(file("other")).unwrap();
    other
        .execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1;")
        .unwrap();
    drop(other);
    for (name, version) in [("newer", schema::VERSION + 1), ("unborn", 0)] {
        let survey = Survey::create(file(name), &[]).unwrap();
        survey
            .conn
            .pragma_update(None, "user_version", version)
            .unwrap();
        survey.close().unwrap();
    }
    for (name, reason) in [
        ("text", "not an SQLite database"),
        ("short", "too short"),
        ("empty", "it is empty"),
        ("dir", "no regular file"),
        ("other", "database of another program"),
        (
            "newer",
            "schema version 2, this smtpsweep knows versions up to 1",
        ),
        ("unborn", "its schema version is 0"),
        ("absent", "no such survey file"),
    ] {
        let before = fs::read(file(name)).ok();
        for open in [
            |p: PathBuf| Survey::open(p),
            |p: PathBuf| Survey::open_readonly(p),
        ] {
            let refused = open(file(name)).unwrap_err().to_string();
            assert!(refused.contains(reason), "{name}: {refused}");
            assert!(
                refused.contains(&*file(name).to_string_lossy()),
                "{name}: {refused}"
            );
        }
        assert_eq!(fs::read(file(name)).ok(), before, "{name} was changed");
    }
}

#[test]
fn damage_is_named_and_never_a_panic() {
    let (dir, mut survey) = survey();
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    fill(
        &mut survey,
        0,
        2000,
        Outcome::Completed,
        &transcript,
        &verdict(Some("Exim"), None, None),
    );
    survey.close().unwrap();
    let whole = fs::read(path(&dir)).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(path(&dir), bytes).unwrap();
        let survey = Survey::open_readonly(path(&dir))?;
        survey.check()?;
        survey.for_each_host(|_| Ok::<(), StoreError>(()))
    };
    read(&whole).unwrap();
    let cut = read(&whole[..whole.len() / 2]).unwrap_err();
    assert!(matches!(cut, StoreError::Corrupt { .. }), "{cut}");
    // One page of noise at a time.
    let mut damaged = 0;
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        if let Err(e) = read(&bytes) {
            assert!(matches!(e, StoreError::Corrupt { .. }), "page {page}: {e}");
            damaged += 1;
        }
    }
    assert!(damaged > 10, "only {damaged} damaged pages were noticed");
}

#[test]
fn readers_see_whole_batches_while_the_writer_is_at_work() {
    let (dir, mut survey) = survey();
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    let judged = verdict(Some("Exim"), None, None);
    let reader = Survey::open_readonly(path(&dir)).unwrap();
    for round in 0..20u32 {
        fill(
            &mut survey,
            round * 50,
            50,
            Outcome::Completed,
            &transcript,
            &judged,
        );
        assert_eq!(reader.host_count().unwrap(), u64::from(round + 1) * 50);
    }
    // A reader in the middle of its walk does not see what comes later, nor does it hold it up.
    let mut seen = 0;
    reader
        .for_each_host(|host| {
            if seen == 10 {
                fill(
                    &mut survey,
                    5000,
                    50,
                    Outcome::Completed,
                    &transcript,
                    &judged,
                );
            }
            assert_eq!(host.transcript, transcript);
            seen += 1;
            Ok::<(), StoreError>(())
        })
        .unwrap();
    assert_eq!(seen, 1000);
    assert_eq!(reader.host_count().unwrap(), 1050);
    survey.close().unwrap();
    assert_eq!(reader.host_count().unwrap(), 1050);
}

#[test]
fn what_was_committed_outlives_a_killed_writer() {
    let (dir, mut survey) = survey();
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    fill(
        &mut survey,
        0,
        300,
        Outcome::Completed,
        &transcript,
        &verdict(None, None, None),
    );
    // The files as a kill leaves them: the database untouched, all rows in the log.
    let copy = dir.path().join("copy.db");
    fs::copy(path(&dir), &copy).unwrap();
    let log = fs::read(side_file(&path(&dir), "-wal")).unwrap();
    fs::write(side_file(&copy, "-wal"), &log).unwrap();
    assert_eq!(Survey::open(&copy).unwrap().host_count().unwrap(), 300);

    // And with the last commit torn.
    let torn = dir.path().join("torn.db");
    fill(
        &mut survey,
        300,
        300,
        Outcome::Completed,
        &transcript,
        &verdict(None, None, None),
    );
    fs::copy(path(&dir), &torn).unwrap();
    let more = fs::read(side_file(&path(&dir), "-wal")).unwrap();
    assert!(more.len() > log.len());
    fs::write(side_file(&torn, "-wal"), &more[..more.len() - 1]).unwrap();
    let resumed = Survey::open(&torn).unwrap();
    assert_eq!(resumed.host_count().unwrap(), 300);
    resumed.check().unwrap();
}

#[test]
fn a_full_disk_is_told_apart_and_keeps_what_was_committed() {
    let (dir, mut survey) = survey();
    let transcript = dialogue(b"220 hi\r\n", &[b'x'; 900]);
    let judged = verdict(None, None, None);
    fill(
        &mut survey,
        0,
        100,
        Outcome::Completed,
        &transcript,
        &judged,
    );
    let pages: i64 = survey
        .conn
        .query_row("PRAGMA page_count", [], |r| r.get(0))
        .unwrap();
    survey
        .conn
        .pragma_update(None, "max_page_count", pages + 20)
        .unwrap();
    let rows: Vec<NewHost<'_>> = (100..1000)
        .map(|n| NewHost {
            row: host(n, Outcome::Completed, &transcript),
            transcript: &transcript,
            verdict: &judged,
        })
        .collect();
    let e = survey
        .add_rows(&rows, &[], &[("cursor", json!(2))])
        .unwrap_err();
    assert!(e.is_full(), "{e}");
    assert!(e.to_string().contains("survey.db"), "{e}");
    // The writer is still usable, and nothing of the batch is there.
    assert_eq!(survey.host_count().unwrap(), 100);
    survey.set_meta("state", json!("interrupted")).unwrap();
    drop(survey);
    let survey = Survey::open(path(&dir)).unwrap();
    assert_eq!(survey.host_count().unwrap(), 100);
    assert_eq!(survey.meta("state").unwrap(), Some(json!("interrupted")));
    assert_eq!(survey.meta("cursor").unwrap(), None);
    survey.check().unwrap();
}
