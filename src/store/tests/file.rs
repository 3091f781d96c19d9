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
        file: None,
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
            "schema version 3, this smtpsweep knows versions up to 2",
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
fn a_survey_with_parts_missing_is_told_in_one_line() {
    for (damage, missing) in [
        ("DROP TABLE probe_counts", "no such table: probe_counts"),
        ("DROP TABLE transcripts", "no such table: transcripts"),
        ("DROP TABLE survey", "no such table: survey"),
        (
            "DROP VIEW v_products; DROP VIEW v_hosts; DROP VIEW v_unknown; DROP VIEW v_versions;
             DROP VIEW v_categories; ALTER TABLE verdicts DROP COLUMN cluster",
            "no such column: v.cluster",
        ),
    ] {
        let (dir, survey) = survey();
        survey.close().unwrap();
        let shell = Connection::open(path(&dir)).unwrap();
        shell.execute_batch(damage).unwrap();
        drop(shell);
        let told = (|| {
            let survey = Survey::open_readonly(path(&dir))?;
            survey.for_each_host(|_| Ok::<(), StoreError>(()))?;
            survey.summary(1).map(drop)
        })()
        .unwrap_err();
        assert!(matches!(told, StoreError::Damaged { .. }), "{told:?}");
        let told = told.to_string();
        assert!(
            told.contains(missing) && told.contains("survey.db is damaged"),
            "{told}"
        );
        assert!(
            !told.contains(['\n', '\r']) && !told.contains("SELECT"),
            "{told}"
        );
    }
}

#[test]
fn a_survey_that_is_no_longer_where_it_was_is_an_error() {
    let transcript = dialogue(b"220 hi\r\n", b"250 hi\r\n");
    let judged = verdict(None, None, None);
    let displace: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::rename(path, path.with_extension("moved")).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "another").unwrap();
        },
        |path| {
            fs::copy(path, path.with_extension("copy")).unwrap();
            fs::rename(path.with_extension("copy"), path).unwrap();
        },
    ];
    for (n, displace) in displace.iter().enumerate() {
        for reopened in [false, true] {
            let (dir, mut survey) = survey();
            let path = path(&dir);
            if reopened {
                survey.close().unwrap();
                survey = Survey::open(&path).unwrap();
                survey.use_ruleset("d1", "1").unwrap();
            }
            fill(&mut survey, 0, 9, Outcome::Completed, &transcript, &judged);
            displace(&path);
            let put = survey.set_meta("state", json!("complete")).unwrap_err();
            assert!(matches!(put, StoreError::Displaced { .. }), "{n}: {put}");
            let told = survey.close().unwrap_err();
            assert!(matches!(told, StoreError::Displaced { .. }), "{n}: {told}");
            assert!(
                told.to_string()
                    .contains("survey.db was moved, replaced or deleted")
            );
            let moved = path.with_extension("moved");
            if moved.exists() {
                let moved = Survey::open_readonly(&moved).unwrap();
                assert_eq!(moved.host_count().unwrap(), 9, "a moved file is whole");
            }
        }
    }
}

#[test]
fn under_sudo_the_file_is_the_users() {
    use std::os::unix::fs::MetadataExt as _;

    let sudo = |uid: &'static str, gid: &'static str| {
        file::invoker(move |name| match name {
            "SUDO_UID" => Some(uid.to_owned()),
            "SUDO_GID" => Some(gid.to_owned()),
            _ => None,
        })
    };
    assert_eq!(file::invoker(|_| None), None);
    assert_eq!(sudo("", "1"), None);
    assert_eq!(sudo("1", "x"), None);
    let dir = tempfile::tempdir().unwrap();
    if fs::metadata(dir.path()).unwrap().uid() != 0 {
        // Without root there is no sudo: whoever calls owns the file already.
        let path = dir.path().join("own.db");
        create_private(&path, sudo("1", "1")).unwrap();
        assert_ne!(fs::metadata(&path).unwrap().uid(), 1);
        return;
    }
    let path = dir.path().join("survey.db");
    let file = create_private(&path, sudo("4711", "4712")).unwrap();
    let survey = Survey::lay_out(&path, file, &[("seed", json!(7))]).unwrap();
    for name in [
        path.clone(),
        side_file(&path, "-wal"),
        side_file(&path, "-shm"),
    ] {
        let meta = fs::metadata(&name).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4711, 4712), "{}", name.display());
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }
    survey.close().unwrap();
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
            tls: None,
            verdict: &judged,
        })
        .collect();
    let e = survey
        .add_rows(&rows, &[], &[("cursor", json!(2))])
        .unwrap_err();
    assert!(matches!(e, StoreError::Full { .. }), "{e}");
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

#[test]
fn a_file_of_version_1_is_read_as_it_is_and_upgraded_for_writing() {
    let (dir, mut survey) = survey();
    let transcript = dialogue(b"220 mx ESMTP\r\n", b"250-mx\r\n250 SIZE\r\n");
    let judged = verdict(Some("Exim"), None, None);
    fill(&mut survey, 0, 3, Outcome::Completed, &transcript, &judged);
    survey.close().unwrap();
    let old = Connection::open(path(&dir)).unwrap();
    old.execute_batch(
        "DROP VIEW v_replies; DROP VIEW v_ehlo_keywords; DROP TABLE dialogues; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);

    let reader = Survey::open_readonly(path(&dir)).unwrap();
    let mut out = Vec::new();
    assert_eq!(export::ndjson(&reader, None, &mut out).unwrap(), 3);
    let row: Value = serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(row["replies"][1]["code"], 250);
    assert_eq!(row["ehlo_keywords"][0]["keyword"], "SIZE");
    drop(reader);

    let mut writer = Survey::open(path(&dir)).unwrap();
    fill(&mut writer, 10, 1, Outcome::Completed, &transcript, &judged);
    let count = |sql: &str| -> i64 { writer.conn.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM hosts"), 4);
    assert_eq!(count("SELECT count(*) FROM v_replies"), 3);
    assert_eq!(count("PRAGMA user_version"), schema::VERSION);
    writer.close().unwrap();
    Survey::open(path(&dir)).unwrap();
}
