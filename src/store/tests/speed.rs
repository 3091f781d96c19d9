//! How fast it is.

use std::io;
use std::net::Ipv4Addr;

use serde_json::json;

use super::super::row::NewHost;
use super::super::testing::{host, path, survey, verdict};
use super::super::*;
use crate::smtp::{Outcome, Piece, Side, Stage, Transcript};

/// `cargo test --release --lib store::tests::speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: prints rows/s of writing, reading, judging and exporting"]
fn speed() {
    const BATCH: u32 = 5_000;
    const HOSTS: u32 = 500_000;
    let (dir, mut survey) = survey();
    let piece = |at_ms, side, stage, bytes: &[u8]| Piece {
        at_ms,
        side,
        stage,
        bytes: bytes.to_vec(),
    };
    let transcript = Transcript {
        pieces: vec![
            piece(12, Side::Server, Stage::Greeting, b"220 mail.example.net ESMTP Postfix (Debian/GNU)\r\n"),
            piece(12, Side::Client, Stage::Ehlo, b"EHLO sweep.example.org\r\n"),
            piece(30, Side::Server, Stage::Ehlo, b"250-mail.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"),
            piece(30, Side::Client, Stage::Quit, b"QUIT\r\n"),
            piece(45, Side::Server, Stage::Quit, b"221 2.0.0 Bye\r\n"),
        ],
        cut: 0,
    };
    let judged = verdict(Some("Postfix"), Some("3.7.11"), None);
    let rate = |what: &str, start: std::time::Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {:.0} hosts/s", f64::from(HOSTS) / seconds);
    };
    let start = std::time::Instant::now();
    for batch in 0..HOSTS / BATCH {
        let rows: Vec<NewHost<'_>> = (0..BATCH)
            .map(|i| {
                let mut row = host(0, Outcome::Completed, &transcript);
                // Addresses come in no order, as in a sweep: a bijection of 32 bits.
                row.addr = Ipv4Addr::from_bits((batch * BATCH + i).wrapping_mul(0x9e37_79b1));
                NewHost {
                    row,
                    transcript: &transcript,
                    tls: None,
                    verdict: &judged,
                }
            })
            .collect();
        survey
            .add_rows(&rows, &[("probe", "sent", 1)], &[("cursor", json!(batch))])
            .unwrap();
    }
    rate("write", start);
    let start = std::time::Instant::now();
    survey.close().unwrap();
    println!("close: {:.2} s", start.elapsed().as_secs_f64());
    println!(
        "size: {} octets a host",
        fs::metadata(path(&dir)).unwrap().len() / u64::from(HOSTS)
    );
    let mut survey = Survey::open(path(&dir)).unwrap();
    let start = std::time::Instant::now();
    survey.for_each_host(|_| Ok::<(), StoreError>(())).unwrap();
    rate("read", start);
    let start = std::time::Instant::now();
    export::csv(&survey, &Fields::default(), true, io::sink()).unwrap();
    rate("csv", start);
    let start = std::time::Instant::now();
    export::ndjson(&survey, None, io::sink()).unwrap();
    rate("ndjson", start);
    let start = std::time::Instant::now();
    survey.summary(10).unwrap();
    rate("summary", start);
    let start = std::time::Instant::now();
    survey.reclassify("other", "2", |_| judged.clone()).unwrap();
    rate("reclassify", start);
}
