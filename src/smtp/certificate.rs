//! An X.509 certificate (RFC 5280) as a survey wants it: read, never judged.
//!
//! Any octets may come; what OpenSSL cannot read as a certificate is none, and a field that makes
//! no sense is left out. Names are text for people and patterns; who needs the exact octets has
//! the DER.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::{X509, X509NameRef, X509Ref};
use sha2::{Digest as _, Sha256};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
    /// The version as people count it: 1, 2, 3.
    pub version: i32,
    /// Serial number, upper-case hexadecimal.
    pub serial: Option<String>,
    /// Whom it is for.
    pub subject: DistinguishedName,
    /// Who made it.
    pub issuer: DistinguishedName,
    /// Further names of whom it is for, in order.
    pub alt_names: Vec<AltName>,
    /// Start of its validity, Unix seconds.
    pub not_before: Option<i64>,
    /// End of its validity, Unix seconds.
    pub not_after: Option<i64>,
    /// Type of the key: `RSA`, `ECDSA`, `DSA`, `Ed25519` …; absent if OpenSSL knows no such key.
    pub key_type: Option<String>,
    /// The key's size in bits.
    pub key_bits: Option<u32>,
    /// The algorithm of its signature, by its name in the standards or as an OID.
    pub signature_algorithm: String,
    /// Whether it is signed with the very key that it certifies.
    pub self_signed: bool,
}

/// A distinguished name: attributes by their short names (`CN`, `O`) or OIDs, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DistinguishedName(pub Vec<(String, String)>);

/// One entry of the extension subjectAltName.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AltName {
    /// A host name, with or without a wildcard.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mail address.
    Email(String),
    /// A URI.
    Uri(String),
}

impl AltName {
    /// The name without its kind.
    pub fn text(&self) -> String {
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Uri(text) => text.clone(),
            Self::Ip(address) => address.to_string(),
        }
    }
}

impl Certificate {
    /// Reads a certificate; `None` if these octets are none.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let x509 = X509::from_der(der).ok()?;
        let key = x509.public_key().ok();
        Some(Self {
            sha256: Sha256::digest(der).into(),
            version: x509.version().saturating_add(1),
            serial: serial(&x509),
            subject: DistinguishedName::of(x509.subject_name()),
            issuer: DistinguishedName::of(x509.issuer_name()),
            alt_names: alt_names(&x509),
            not_before: unix_seconds(x509.not_before()),
            not_after: unix_seconds(x509.not_after()),
            key_type: key.as_ref().map(key_type),
            key_bits: key.as_ref().map(|key| key.bits()),
            signature_algorithm: object_name(x509.signature_algorithm().object()),
            self_signed: key.is_some_and(|key| is_self_signed(&x509, &key)),
        })
    }

    /// The names in it, as patterns see them: `subject=…`, `issuer=…` and `SAN=…`, a line each.
    pub fn text(&self) -> String {
        let mut text = format!("subject={}\nissuer={}", self.subject, self.issuer);
        if !self.alt_names.is_empty() {
            let names: Vec<String> = self.alt_names.iter().map(AltName::text).collect();
            // Writing to a String does not fail.
            let _ = write!(text, "\nSAN={}", names.join(", "));
        }
        text
    }
}

impl DistinguishedName {
    fn of(name: &X509NameRef) -> Self {
        Self(
            name.entries()
                .map(|entry| {
                    let object = entry.object();
                    let kind = match object.nid() {
                        Nid::UNDEF => object.to_string(),
                        nid => nid
                            .short_name()
                            .map_or_else(|_| object.to_string(), str::to_owned),
                    };
                    let value = entry.data().to_string().unwrap_or_else(|_| {
                        String::from_utf8_lossy(entry.data().as_slice()).into_owned()
                    });
                    (kind, value)
                })
                .collect(),
        )
    }

    /// The values of an attribute, in order.
    pub fn values<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == kind)
            .map(|(_, value)| value.as_str())
    }
}

/// In the order of the certificate, as `openssl x509` shows it: `C=DE, O=Example, CN=mx.example`.
impl std::fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (kind, value)) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{kind}={value}")?;
        }
        Ok(())
    }
}

fn serial(x509: &X509Ref) -> Option<String> {
    let number = x509.serial_number().to_bn().ok()?;
    Some(number.to_hex_str().ok()?.to_string())
}

fn alt_names(x509: &X509Ref) -> Vec<AltName> {
    let Some(names) = x509.subject_alt_names() else {
        return Vec::new();
    };
    names
        .iter()
        .filter_map(|name| {
            if let Some(dns) = name.dnsname() {
                return Some(AltName::Dns(dns.to_owned()));
            }
            if let Some(email) = name.email() {
                return Some(AltName::Email(email.to_owned()));
            }
            if let Some(uri) = name.uri() {
                return Some(AltName::Uri(uri.to_owned()));
            }
            let octets = name.ipaddress()?;
            let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
            let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into());
            v4.or_else(|_| v6()).ok().map(AltName::Ip)
        })
        .collect()
}

fn unix_seconds(time: &Asn1TimeRef) -> Option<i64> {
    let since = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    Some(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

fn key_type(key: &PKey<Public>) -> String {
    match key.id() {
        Id::RSA => "RSA".to_owned(),
        Id::RSA_PSS => "RSA-PSS".to_owned(),
        Id::EC => "ECDSA".to_owned(),
        Id::DSA => "DSA".to_owned(),
        Id::ED25519 => "Ed25519".to_owned(),
        Id::ED448 => "Ed448".to_owned(),
        other => Nid::from_raw(other.as_raw())
            .short_name()
            .unwrap_or("unknown")
            .to_owned(),
    }
}

fn object_name(object: &openssl::asn1::Asn1ObjectRef) -> String {
    match object.nid() {
        Nid::UNDEF => object.to_string(),
        nid => nid
            .long_name()
            .map_or_else(|_| object.to_string(), str::to_owned),
    }
}

fn is_self_signed(x509: &X509Ref, key: &PKey<Public>) -> bool {
    let same = x509.subject_name().try_cmp(x509.issuer_name());
    same.is_ok_and(std::cmp::Ordering::is_eq) && x509.verify(key).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Integer;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::pkey::Private;
    use openssl::rsa::Rsa;
    use openssl::x509::extension::SubjectAlternativeName;
    use openssl::x509::{X509Builder, X509Name};
    use proptest::prelude::*;

    use super::*;

    fn rsa(bits: u32) -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(bits).expect("a key")).expect("a key")
    }

    fn name(common: &str) -> X509Name {
        let mut name = X509Name::builder().expect("a name");
        name.append_entry_by_text("O", "Example, Inc.").expect("O");
        name.append_entry_by_text("CN", common).expect("CN");
        name.build()
    }

    fn certificate(
        subject: &str,
        issuer: &str,
        key: &PKey<Private>,
        signer: &PKey<Private>,
    ) -> Vec<u8> {
        let mut builder = X509Builder::new().expect("a builder");
        let number = BigNum::from_u32(0x0abc).expect("a number");
        let serial = Asn1Integer::from_bn(&number).expect("a serial number");
        builder.set_version(2).expect("version");
        builder.set_serial_number(&serial).expect("serial");
        builder.set_subject_name(&name(subject)).expect("subject");
        builder.set_issuer_name(&name(issuer)).expect("issuer");
        let (from, to) = (
            Asn1Time::from_unix(86_401),
            Asn1Time::from_unix(2_000_000_000),
        );
        builder
            .set_not_before(&from.expect("a time"))
            .expect("from");
        builder.set_not_after(&to.expect("a time")).expect("to");
        builder.set_pubkey(key).expect("key");
        let names = SubjectAlternativeName::new()
            .dns("mx.example.org")
            .dns("*.example.net")
            .ip("192.0.2.7")
            .build(&builder.x509v3_context(None, None))
            .expect("names");
        builder.append_extension(names).expect("extension");
        builder
            .sign(signer, MessageDigest::sha256())
            .expect("signed");
        builder.build().to_der().expect("DER")
    }

    #[test]
    fn a_self_signed_certificate_is_read() {
        let key = rsa(1_024);
        let der = certificate("mx.example.org", "mx.example.org", &key, &key);
        let read = Certificate::parse(&der).expect("a certificate");
        assert_eq!(read.sha256, <[u8; 32]>::from(Sha256::digest(&der)));
        assert_eq!((read.version, read.serial.as_deref()), (3, Some("0ABC")));
        assert_eq!(
            read.subject.to_string(),
            "O=Example, Inc., CN=mx.example.org"
        );
        assert_eq!(
            read.subject.values("CN").collect::<Vec<_>>(),
            ["mx.example.org"]
        );
        assert_eq!(
            (read.not_before, read.not_after),
            (Some(86_401), Some(2_000_000_000))
        );
        assert_eq!(
            (read.key_type.as_deref(), read.key_bits),
            (Some("RSA"), Some(1_024))
        );
        assert_eq!(read.signature_algorithm, "sha256WithRSAEncryption");
        assert!(read.self_signed);
        assert_eq!(
            read.text(),
            "subject=O=Example, Inc., CN=mx.example.org\n\
             issuer=O=Example, Inc., CN=mx.example.org\n\
             SAN=mx.example.org, *.example.net, 192.0.2.7"
        );
    }

    #[test]
    fn self_signed_is_by_the_key_and_not_by_the_name() {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let key = EcKey::generate(&group).expect("a key");
        let key = PKey::from_ec_key(key).expect("a key");
        let other = rsa(1_024);
        let read = |der: Vec<u8>| Certificate::parse(&der).expect("a certificate");
        let claimed = read(certificate("a.example", "a.example", &key, &other));
        assert!(!claimed.self_signed);
        assert_eq!(
            (claimed.key_type.as_deref(), claimed.key_bits),
            (Some("ECDSA"), Some(256))
        );
        assert!(!read(certificate("a.example", "b.example", &key, &key)).self_signed);
    }

    proptest! {
        #[test]
        fn any_octets_are_a_certificate_or_none(
            octets in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            value in any::<u8>(),
        ) {
            prop_assert!(Certificate::parse(&octets).is_none());
            static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
                let key = rsa(512);
                certificate("a.example", "a.example", &key, &key)
            });
            let mut damaged = DER.clone();
            damaged[at.index(DER.len())] = value;
            if let Some(read) = Certificate::parse(&damaged) {
                let _ = read.text();
            }
        }
    }
}
