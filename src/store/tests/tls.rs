//! TLS in the survey: records become rows and come back, certificates are kept once, and what is
//! exported and judged is what the server showed.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509Builder, X509Name};
use serde_json::Value;

use super::super::testing::{dialogue, host, path, survey, verdict};
use super::super::*;
use super::all;
use crate::smtp::{
    Alert, CipherSuite, Heard, KeyGroup, Outcome, Side, Stage, TlsFailure, TlsRecord, TlsStart,
    TlsVersion,
};

/// A certificate for that name by that issuer, signed by a key of its own.
fn certificate(name: &str, issuer: &str) -> Vec<u8> {
    let key = PKey::from_rsa(Rsa::generate(1_024).unwrap()).unwrap();
    let dn = |text: &str| {
        let mut dn = X509Name::builder().unwrap();
        dn.append_entry_by_text("C", "DE").unwrap();
        dn.append_entry_by_text("CN", text).unwrap();
        dn.build()
    };
    let mut builder = X509Builder::new().unwrap();
    let serial = Asn1Integer::from_bn(&BigNum::from_u32(4_711).unwrap()).unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&dn(name)).unwrap();
    builder.set_issuer_name(&dn(issuer)).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(86_400).unwrap())
        .unwrap();
    builder.set_pubkey(&key).unwrap();
    let names = SubjectAlternativeName::new()
        .dns(name)
        .dns("other.example.test")
        .ip("192.0.2.9")
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build().to_der().unwrap()
}

fn good(chain: Vec<Vec<u8>>) -> TlsRecord {
    let mut record = TlsRecord::new(TlsStart::Starttls);
    record.version = Some(TlsVersion(0x0303));
    record.cipher = Some(CipherSuite {
        id: 0xc02f,
        name: Some("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    });
    record.group = Some(KeyGroup::Named(29));
    record.handshake_ms = Some(41);
    record.heard = Some(Heard::Encrypted);
    record.renegotiations = 2;
    record.client_certificate_requested = true;
    record.chain = chain;
    record
}

fn failed() -> TlsRecord {
    let mut record = TlsRecord::new(TlsStart::Implicit);
    record.failure = Some(TlsFailure::Alert);
    record.alert = Some(Alert {
        by: Side::Server,
        number: 70,
    });
    record
}

/// Hosts 0, 1 with one chain, host 2 with another leaf, host 3 without TLS, host 4 without success.
fn filled() -> (tempfile::TempDir, Survey, Vec<Vec<u8>>) {
    let (dir, mut survey) = survey();
    let own = certificate("mx.example.test", "mx.example.test");
    let leaf = certificate("leaf.example.test", "An Issuer");
    let issuer = certificate("An Issuer", "An Issuer");
    let records = [
        Some(good(vec![own.clone()])),
        Some(good(vec![own.clone()])),
        Some(good(vec![leaf.clone(), issuer.clone()])),
        None,
        Some(failed()),
    ];
    let said = dialogue(b"220 mx ESMTP\r\n", b"250 mx\r\n");
    let judged = verdict(Some("Postfix"), None, None);
    let rows: Vec<row::NewHost<'_>> = records
        .iter()
        .zip(0..)
        .map(|(record, n)| row::NewHost {
            row: host(n, Outcome::Completed, &said),
            transcript: &said,
            tls: record.as_ref(),
            verdict: &judged,
        })
        .collect();
    survey.add_rows(&rows, &[], &[]).unwrap();
    (dir, survey, vec![own, leaf, issuer])
}

#[test]
fn what_came_of_tls_comes_back_and_each_certificate_is_kept_once() {
    let (dir, survey, certificates) = filled();
    survey.close().unwrap();
    let survey = Survey::open_readonly(path(&dir)).unwrap();
    let hosts = all(&survey);
    let tls = |n: usize| hosts[n].tls.as_ref().unwrap();
    assert_eq!(tls(0), tls(1));
    assert_eq!(tls(0).chain, certificates[..1]);
    assert_eq!(tls(2).chain, certificates[1..]);
    assert_eq!(hosts[3].tls, None);
    let row = tls(2);
    assert_eq!(
        (row.start.as_str(), row.version.as_deref()),
        ("starttls", Some("TLSv1.2"))
    );
    assert_eq!((row.cipher_id, row.handshake_ms), (Some(0xc02f), Some(41)));
    assert_eq!(
        row.cipher.as_deref(),
        Some("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
    );
    assert_eq!(row.key_group.as_deref(), Some("x25519"));
    assert_eq!((row.renegotiations, row.client_certificate), (2, true));
    assert_eq!(
        (row.heard.as_deref(), row.failure.as_deref()),
        (Some("encrypted"), None)
    );
    let row = tls(4);
    assert_eq!(
        (row.start.as_str(), row.failure.as_deref()),
        ("implicit", Some("alert"))
    );
    assert_eq!(
        (row.alert, row.alert_name.as_deref()),
        (Some(70), Some("protocol_version"))
    );
    assert_eq!(
        (row.alert_by.as_deref(), row.chain.len()),
        (Some("server"), 0)
    );
    let kept: (u32, u32) = survey
        .conn
        .query_row(
            "SELECT count(*), sum(self_signed) FROM certificates",
            [],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .unwrap();
    assert_eq!(kept, (3, 2));
    let by_address = survey.host(hosts[2].row.addr).unwrap().unwrap();
    assert_eq!(by_address.tls, hosts[2].tls);
}

#[test]
fn the_summary_adds_up() {
    let (_dir, survey, _) = filled();
    let tls = survey.summary(1).unwrap().tls;
    assert_eq!((tls.certified, tls.self_signed), (3, 2));
    assert_eq!((tls.expired, tls.certificates), (3, 2));
    assert_eq!(tls.counts.iter().map(|count| count.hosts).sum::<u64>(), 4);
    assert_eq!((tls.counts[0].hosts, tls.counts[0].stood), (3, true));
    assert_eq!(tls.counts[1].alert.as_deref(), Some("protocol_version"));
}

#[test]
fn rules_see_the_certificate_of_a_stored_host() {
    let (_dir, survey, _) = filled();
    let hosts = all(&survey);
    let seen = |n: usize| {
        let replies = hosts[n].replies();
        let text = replies.observation().reply(Stage::Tls).map(<[u8]>::to_vec);
        text.map(|text| String::from_utf8(text).unwrap())
    };
    assert_eq!(
        seen(2).as_deref(),
        Some(
            "subject=C=DE, CN=leaf.example.test\nissuer=C=DE, CN=An Issuer\n\
             SAN=leaf.example.test, other.example.test, 192.0.2.9"
        )
    );
    assert_eq!((seen(3), seen(4)), (None, None));
}

#[test]
fn zgrab2_would_know_what_is_exported() {
    let (_dir, survey, _) = filled();
    let mut out = Vec::new();
    export::ndjson(&survey, None, &mut out).unwrap();
    let rows: Vec<Value> = serde_json::Deserializer::from_slice(&out)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let result = |n: usize| &rows[n]["data"]["smtp"]["result"];
    assert_eq!(result(2)["implicit_tls"], false);
    let log = &result(2)["tls"]["handshake_log"];
    assert_eq!(log["server_hello"]["version"]["name"], "TLSv1.2");
    assert_eq!(log["server_hello"]["version"]["value"], 0x0303);
    assert_eq!(log["server_hello"]["cipher_suite"]["hex"], "0xC02F");
    assert_eq!(
        log["server_certificates"]["chain"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let parsed = &log["server_certificates"]["certificate"]["parsed"];
    assert_eq!(parsed["subject_dn"], "C=DE, CN=leaf.example.test");
    assert_eq!(parsed["subject"]["common_name"][0], "leaf.example.test");
    assert_eq!(parsed["serial_number"], "4711");
    assert_eq!(parsed["validity"]["end"], "1970-01-02T00:00:00Z");
    assert_eq!(parsed["validity"]["length"], 86_400);
    assert_eq!(
        parsed["subject_key_info"]["rsa_public_key"]["length"],
        1_024
    );
    assert_eq!(parsed["signature"]["self_signed"], false);
    assert_eq!(
        parsed["extensions"]["subject_alt_name"]["ip_addresses"][0],
        "192.0.2.9"
    );
    assert_eq!(parsed["names"].as_array().unwrap().len(), 2);
    assert_eq!(result(4)["tls"]["alert"]["name"], "protocol_version");
    assert_eq!(result(3).get("tls"), None);
    let fields = Fields::parse("saddr,tls_version,tls_alert,tls_subject").unwrap();
    let mut out = Vec::new();
    export::csv(&survey, &fields, false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[2],
        "198.18.0.2,TLSv1.2,,\"C=DE, CN=leaf.example.test\""
    );
    assert_eq!(lines[3], "198.18.0.3,,,");
    assert_eq!(lines[4], "198.18.0.4,,protocol_version,");
}

#[test]
fn a_survey_of_the_first_version_is_one_without_tls() {
    let (dir, survey, _) = filled();
    survey
        .conn
        .execute_batch(
            "PRAGMA foreign_keys = OFF;
             DROP VIEW v_tls; DROP VIEW v_certificates; DROP VIEW v_tls_versions;
             DROP VIEW v_tls_failures;
             DROP TABLE tls_certificates; DROP TABLE certificates; DROP TABLE tls;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    survey.close().unwrap();
    let survey = Survey::open_readonly(path(&dir)).unwrap();
    assert!(all(&survey).iter().all(|host| host.tls.is_none()));
    assert_eq!(survey.summary(1).unwrap().tls, TlsSummary::default());
    drop(survey);
    let mut survey = Survey::open(path(&dir)).unwrap();
    let changes = survey
        .reclassify("d2", "2", |_| verdict(None, None, None))
        .unwrap();
    assert_eq!(changes.hosts, 5);
}
