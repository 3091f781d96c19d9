//! Servers that talk to the reader's terminal: nothing of that passes through a view.

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509Builder, X509Name};
use rusqlite::types::ValueRef;

use super::super::testing::{dialogue, fill, survey, verdict};
use super::super::*;
use crate::smtp::{Outcome, Piece, TlsFailure, TlsRecord, TlsStart, TlsVersion, Transcript};

/// What a terminal acts upon, and what is no text: ESC, OSC and CSI in one and in two octets, BEL,
/// BS, DEL, NUL, an overlong and a broken sequence.
const EVIL: &[u8] = b"\x1b]0;owned\x07 \x1b[2J \xc2\x9d0;owned\x07 \x9b31m \xc2\x9b1m \x08\x7f\0 \
    \x0b\x0c\x0e \xc0\x9b \xe2\x80 \xff \xe2\x80\xae \t.";

/// Every cell of a query, text as its octets.
fn cells(survey: &Survey, sql: &str) -> Vec<Vec<u8>> {
    let mut statement = survey.conn.prepare(sql).unwrap();
    let width = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut cells = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        for column in 0..width {
            match row.get_ref(column).unwrap() {
                ValueRef::Text(text) => cells.push(text.to_vec()),
                ValueRef::Blob(blob) => panic!("a view shows octets: {blob:?}"),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => {}
            }
        }
    }
    cells
}

fn names(survey: &Survey, kind: &str) -> Vec<String> {
    let sql = format!("SELECT name FROM sqlite_schema WHERE type = '{kind}'");
    cells(survey, &sql)
        .into_iter()
        .map(|name| String::from_utf8(name).unwrap())
        .collect()
}

#[test]
fn no_view_passes_on_what_a_terminal_acts_upon() {
    let (_dir, mut survey) = survey();
    // A keyword and its parameters of all octets but LF.
    let mut all = b"250-mx\r\n250-".to_vec();
    all.extend((0..=255).filter(|octet| *octet != b'\n'));
    all.extend(b"\r\n250 HELP\r\n");
    let c1: String = ('\u{80}'..='\u{9f}').collect();
    let said = [b"220 ", EVIL, b"\r\n220-", c1.as_bytes(), b"\r\n"].concat();
    let transcript = dialogue(&said, &all);
    let words: String = ('\0'..'\u{20}')
        .chain('\u{7f}'..='\u{9f}')
        .chain(['\u{202e}'])
        .collect();
    let words = Some(words.as_str());
    let mut known = verdict(words, words, None);
    known.patch = known.product.clone();
    known.os = known.product.clone();
    known.hostname = known.product.clone();
    known.protocol = known.product.clone();
    fill(&mut survey, 0, 1, Outcome::Completed, &transcript, &known);
    let unknown = verdict(None, None, words);
    fill(&mut survey, 1, 1, Outcome::Completed, &transcript, &unknown);
    survey
        .conn
        .execute("UPDATE hosts SET detail = NULL", [])
        .unwrap();
    let mut row = testing::host(2, Outcome::ClosedInDialogue, &transcript);
    row.detail = words.map(str::to_owned);
    let (transcript, verdict) = (&transcript, &unknown);
    let tls = words.map(evil_tls);
    let new = row::NewHost {
        row,
        transcript,
        tls: tls.as_ref(),
        verdict,
    };
    survey.add_rows(&[new], &[], &[]).unwrap();

    let views = names(&survey, "view");
    assert_eq!(views.len(), 14);
    for view in &views {
        let cells = cells(&survey, &format!("SELECT * FROM {view}"));
        assert!(!cells.is_empty(), "{view}");
        for cell in cells {
            let text = String::from_utf8(cell).unwrap_or_else(|e| panic!("{view}: {e}"));
            assert!(
                !text.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{view}: {text:?}"
            );
        }
    }
    let greeting = &cells(&survey, "SELECT greeting FROM v_greetings")[0];
    let greeting = str::from_utf8(greeting).unwrap();
    assert!(
        greeting.starts_with(
            "220 \\x1b]0;owned\\x07 \\x1b[2J \\u{9d}0;owned\\x07 \\x9b31m \\u{9b}1m \\x08\\x7f\\x00 \
             \\x0b\\x0c\\x0e \\xc0\\x9b \\xe2\\x80 \\xff \\u{202e} \\t.\\n220-\\u{80}\\u{81}"
        ),
        "{greeting}"
    );
    // The evidence is JSON, which has escapes of its own.
    for cell in cells(&survey, "SELECT evidence FROM verdicts") {
        assert!(!String::from_utf8(cell).unwrap().contains(char::is_control));
    }
}

/// A channel that stood and broke, with those words in it wherever a server may put some.
fn evil_tls(words: &str) -> TlsRecord {
    let key = PKey::from_rsa(Rsa::generate(1_024).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    for part in ["O", "OU"] {
        // Shorter than the longest such name may be.
        let words: String = words.chars().filter(|c| *c != '\0').take(60).collect();
        name.append_entry_by_text(part, &words).unwrap();
    }
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(9).unwrap())
        .unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let mut record = TlsRecord::new(TlsStart::Starttls);
    record.version = Some(TlsVersion(0x0303));
    record.handshake_ms = Some(9);
    record.failure = Some(TlsFailure::PlainText);
    record.detail = Some(words.to_owned());
    record.chain = vec![builder.build().to_der().unwrap(), words.as_bytes().to_vec()];
    record
}

#[test]
fn text_is_stored_twice_only_where_it_differs() {
    let (_dir, mut survey) = survey();
    let judged = verdict(None, None, None);
    let plain = dialogue(
        "220 grüße ✉\r\n220 two\t. and so on\r\n".as_bytes(),
        b"250 \x7f\r\n",
    );
    fill(&mut survey, 0, 1, Outcome::Completed, &plain, &judged);
    assert_eq!(
        cells(
            &survey,
            "SELECT text FROM transcripts WHERE text IS NOT NULL"
        ),
        [b"250 \\x7f\r\n"]
    );
    assert_eq!(
        cells(&survey, "SELECT greeting FROM v_hosts"),
        ["220 grüße ✉\\n220 two\\t. and so on".as_bytes()]
    );
    // A character that came in two pieces, and an escape that did.
    let split = dialogue("220 é\r\n".as_bytes(), b"250 hi\r\n");
    let split = Transcript {
        pieces: vec![
            Piece {
                bytes: b"220 \xc3".to_vec(),
                ..split.pieces[0].clone()
            },
            Piece {
                bytes: b"\xa9 \x1b".to_vec(),
                ..split.pieces[0].clone()
            },
            Piece {
                bytes: b"[31m\r".to_vec(),
                ..split.pieces[0].clone()
            },
            Piece {
                bytes: b"\nnext\r\n".to_vec(),
                ..split.pieces[0].clone()
            },
        ],
        cut: 0,
    };
    fill(&mut survey, 1, 1, Outcome::Completed, &split, &judged);
    assert_eq!(
        cells(&survey, "SELECT greeting FROM v_hosts WHERE id = 2"),
        [b"220 \\xc3\\xa9 \\x1b[31m\\nnext"]
    );
}
