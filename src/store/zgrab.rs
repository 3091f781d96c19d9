//! What came of TLS, in the names of zgrab2 (and of zcrypto, whose certificates it shows).
//!
//! As far as a survey knows it: the keys, signatures and most extensions are left to those who read
//! them out of `raw`. What zgrab2 has no name for stands beside `handshake_log`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::bn::BigNum;
use serde_json::{Map, Value, json};

use super::tls::{TlsRow, hex};
use crate::smtp::{AltName, Certificate, DistinguishedName};

/// The value of `tls` within a result of zgrab2's.
pub(super) fn tls(row: &TlsRow) -> Value {
    let mut log = Map::new();
    if let Some(version) = &row.version {
        let mut hello = Map::new();
        let value = version_number(version);
        hello.insert("version".into(), json!({"name": version, "value": value}));
        if let Some(id) = row.cipher_id {
            let suite = json!({"hex": format!("0x{id:04X}"), "name": row.cipher, "value": id});
            hello.insert("cipher_suite".into(), suite);
        }
        log.insert("server_hello".into(), hello.into());
    }
    if let Some((own, chain)) = row.chain.split_first() {
        let chain: Vec<Value> = chain.iter().map(|der| certificate(der)).collect();
        let certificates = json!({"certificate": certificate(own), "chain": chain});
        log.insert("server_certificates".into(), certificates);
    }
    let mut tls = Map::new();
    tls.insert("handshake_log".into(), log.into());
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            tls.insert(name.into(), value);
        }
    };
    put("start", row.start.clone().into());
    put("key_group", row.key_group.clone().into());
    put("handshake_ms", row.handshake_ms.into());
    put("failure", row.failure.clone().into());
    if let Some(number) = row.alert {
        put(
            "alert",
            json!({"name": row.alert_name, "value": number, "by": row.alert_by}),
        );
    }
    put("heard", row.heard.clone().into());
    put("detail", row.detail.clone().into());
    put("client_certificate", row.client_certificate.into());
    put("renegotiations", row.renegotiations.into());
    tls.into()
}

/// The number of a version by its name.
fn version_number(name: &str) -> Option<u16> {
    match name {
        "SSLv3" => Some(0x0300),
        "TLSv1.0" => Some(0x0301),
        "TLSv1.1" => Some(0x0302),
        "TLSv1.2" => Some(0x0303),
        "TLSv1.3" => Some(0x0304),
        other => u16::from_str_radix(other.strip_prefix("0x")?, 16).ok(),
    }
}

fn certificate(der: &[u8]) -> Value {
    let mut value = Map::new();
    value.insert("raw".into(), BASE64.encode(der).into());
    if let Some(read) = Certificate::parse(der) {
        value.insert("parsed".into(), parsed(&read));
    }
    value.into()
}

fn parsed(read: &Certificate) -> Value {
    let time = |seconds: Option<i64>| {
        let time = jiff::Timestamp::from_second(seconds?).ok()?;
        Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let length = read.not_before.zip(read.not_after);
    let mut key = Map::new();
    key.insert("key_algorithm".into(), json!({"name": read.key_type}));
    let name = match read.key_type.as_deref() {
        Some("RSA") => Some("rsa_public_key"),
        Some("ECDSA") => Some("ecdsa_public_key"),
        Some("DSA") => Some("dsa_public_key"),
        _ => None,
    };
    if let Some(name) = name {
        key.insert(name.into(), json!({"length": read.key_bits}));
    }
    let mut extensions = Map::new();
    if !read.alt_names.is_empty() {
        extensions.insert("subject_alt_name".into(), alt_names(&read.alt_names));
    }
    json!({
        "version": read.version,
        "serial_number": read.serial.as_deref().and_then(decimal),
        "signature_algorithm": {"name": read.signature_algorithm},
        "issuer": name_value(&read.issuer),
        "issuer_dn": read.issuer.to_string(),
        "validity": {
            "start": time(read.not_before),
            "end": time(read.not_after),
            "length": length.map(|(from, to)| to.saturating_sub(from)),
        },
        "subject": name_value(&read.subject),
        "subject_dn": read.subject.to_string(),
        "subject_key_info": key,
        "extensions": extensions,
        "signature": {"self_signed": read.self_signed},
        "names": names(read),
        "fingerprint_sha256": hex(&read.sha256),
    })
}

fn decimal(hexadecimal: &str) -> Option<String> {
    let number = BigNum::from_hex_str(hexadecimal).ok()?;
    Some(number.to_dec_str().ok()?.to_string())
}

fn alt_names(names: &[AltName]) -> Value {
    let mut value = Map::new();
    for name in names {
        let list = match name {
            AltName::Dns(_) => "dns_names",
            AltName::Ip(_) => "ip_addresses",
            AltName::Email(_) => "email_addresses",
            AltName::Uri(_) => "uniform_resource_identifiers",
        };
        if let Value::Array(list) = value.entry(list).or_insert_with(|| json!([])) {
            list.push(name.text().into());
        }
    }
    value.into()
}

/// Host names that the certificate is for, the common name first.
fn names(read: &Certificate) -> Vec<&str> {
    let mut names: Vec<&str> = read.subject.values("CN").collect();
    for name in &read.alt_names {
        if let AltName::Dns(name) = name
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    names
}

fn name_value(name: &DistinguishedName) -> Value {
    let mut value = Map::new();
    for (kind, text) in &name.0 {
        let kind = match kind.as_str() {
            "CN" => "common_name",
            "C" => "country",
            "L" => "locality",
            "ST" => "province",
            "O" => "organization",
            "OU" => "organizational_unit",
            "street" => "street_address",
            "postalCode" => "postal_code",
            "DC" => "domain_component",
            "emailAddress" => "email_address",
            "serialNumber" => "serial_number",
            other => other,
        };
        if let Value::Array(list) = value.entry(kind).or_insert_with(|| json!([])) {
            list.push(text.as_str().into());
        }
    }
    value.into()
}
