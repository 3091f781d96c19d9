//! What came of TLS in a session, in the words of the standards.
//!
//! A [`TlsRecord`] is made once a client has said its hello, whatever came of that: versions,
//! ciphers and groups are what the server chose (RFC 8446, RFC 5246), a [`TlsFailure`] is the one
//! reason why no protected channel came about, and an [`Alert`] is told with the side that sent
//! it. Names are those of IANA's registries; versions are spelt as zgrab2 spells them.

use std::borrow::Cow;
use std::fmt;

use super::{Certificate, Side};

/// How TLS was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsStart {
    /// After a 220 to STARTTLS (RFC 3207).
    Starttls,
    /// With the connection's first octet (RFC 8314).
    Implicit,
}

impl TlsStart {
    /// The stable name under which it is stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starttls => "starttls",
            Self::Implicit => "implicit",
        }
    }
}

/// A protocol version, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsVersion(pub u16);

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0300 => f.write_str("SSLv3"),
            0x0301 => f.write_str("TLSv1.0"),
            0x0302 => f.write_str("TLSv1.1"),
            0x0303 => f.write_str("TLSv1.2"),
            0x0304 => f.write_str("TLSv1.3"),
            other => write!(f, "0x{other:04x}"),
        }
    }
}

/// The cipher suite that the server chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CipherSuite {
    /// Its number, as on the wire.
    pub id: u16,
    /// IANA's name, where the TLS library knows the suite.
    pub name: Option<&'static str>,
}

/// What the keys were agreed with, where it was more than the certificate's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyGroup {
    /// A group of IANA's registry "TLS Supported Groups".
    Named(u16),
    /// A Diffie-Hellman group of the server's own (before TLS 1.3), by the bits of its prime.
    OwnDh(u32),
}

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(id) => match group_name(*id) {
                Some(name) => f.write_str(name),
                None => write!(f, "0x{id:04x}"),
            },
            Self::OwnDh(bits) => write!(f, "dh{bits}"),
        }
    }
}

/// A message of the alert protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Who sent it.
    pub by: Side,
    /// Its number.
    pub number: u8,
}

impl Alert {
    /// What the octets that begin a connection say if they are an alert in clear text: a server
    /// that awaits TLS and meets something else answers so.
    pub fn of_server(octets: &[u8]) -> Option<Self> {
        match octets {
            [21, 3, _, 0, 2, 1 | 2, number, ..] => Some(Self {
                by: Side::Server,
                number: *number,
            }),
            _ => None,
        }
    }

    /// The name in IANA's registry "TLS Alerts", or the number.
    pub fn name(self) -> Cow<'static, str> {
        alert_name(self.number).map_or_else(
            || Cow::Owned(format!("alert {}", self.number)),
            Cow::Borrowed,
        )
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl $type {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name under which it is stored.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named! {
    /// Why no protected channel came about, or why it broke.
    TlsFailure {
        /// The server ended the handshake with an alert.
        Alert = "alert",
        /// The server chose a version that this client cannot speak (SSL 3.0, mostly).
        Version = "version",
        /// The server's messages were TLS, but wrong: OpenSSL refused one.
        Protocol = "protocol",
        /// The server answered in plain text, a reply of SMTP for example.
        PlainText = "plain_text",
        /// The server answered with octets that are neither TLS nor text.
        Garbage = "garbage",
        /// The server's messages were longer than is bearable: a certificate chain without end.
        TooLarge = "too_large",
        /// The server wanted a Diffie-Hellman prime so large that to compute with it would hold up
        /// all other sessions.
        DhTooLarge = "dh_too_large",
        /// The handshake was not over in time.
        Timeout = "timeout",
        /// The server closed the connection within the handshake.
        Closed = "closed",
        /// The server reset the connection within the handshake.
        Reset = "reset",
        /// The sweep was stopped within the handshake.
        Interrupted = "interrupted",
    }
}

named! {
    /// The last that was heard of a server in the handshake. From TLS 1.3's server hello on, and
    /// after a change of cipher spec, all is encrypted, the certificate included.
    Heard {
        /// TLS 1.3: another hello is wanted, with a share of the group named.
        HelloRetryRequest = "hello_retry_request",
        /// The choice of version and cipher suite.
        ServerHello = "server_hello",
        /// The certificate chain.
        Certificate = "certificate",
        /// The status of the certificate (OCSP).
        CertificateStatus = "certificate_status",
        /// The server's part of the key agreement.
        ServerKeyExchange = "server_key_exchange",
        /// The wish for a certificate of ours.
        CertificateRequest = "certificate_request",
        /// The end of the server's first flight.
        ServerHelloDone = "server_hello_done",
        /// A ticket for later sessions.
        NewSessionTicket = "new_session_ticket",
        /// The wish that the client begin a handshake.
        HelloRequest = "hello_request",
        /// Some other message in clear text.
        Other = "other",
        /// From here on all is encrypted.
        ChangeCipherSpec = "change_cipher_spec",
        /// Something encrypted.
        Encrypted = "encrypted",
    }
}

/// What came of TLS in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRecord {
    /// How it was begun.
    pub start: TlsStart,
    /// The version that the server chose, also if the handshake then failed.
    pub version: Option<TlsVersion>,
    /// The cipher suite that the server chose.
    pub cipher: Option<CipherSuite>,
    /// What the keys were agreed with.
    pub group: Option<KeyGroup>,
    /// The server's certificates as sent, in DER, its own first. Nothing has been checked.
    pub chain: Vec<Vec<u8>>,
    /// Whether the server wanted a certificate of ours, as far as that was said in clear text.
    pub client_certificate_requested: bool,
    /// Milliseconds from the client's hello to the protected channel, if it came about.
    pub handshake_ms: Option<u32>,
    /// Why it did not come about, or broke.
    pub failure: Option<TlsFailure>,
    /// The alert that came with the failure.
    pub alert: Option<Alert>,
    /// The last that was heard in the handshake.
    pub heard: Option<Heard>,
    /// What the names above do not say: words of OpenSSL's, the peer's octets that are no TLS.
    pub detail: Option<String>,
    /// How often the server wanted to negotiate anew; each time it was told no.
    pub renegotiations: u32,
}

impl TlsRecord {
    /// Nothing yet.
    pub const fn new(start: TlsStart) -> Self {
        Self {
            start,
            version: None,
            cipher: None,
            group: None,
            chain: Vec::new(),
            client_certificate_requested: false,
            handshake_ms: None,
            failure: None,
            alert: None,
            heard: None,
            detail: None,
            renegotiations: 0,
        }
    }

    /// The server's own certificate, if it showed a readable one.
    pub fn certificate(&self) -> Option<Certificate> {
        Certificate::parse(self.chain.first()?)
    }
}

/// What failed, in one line: `alert: handshake_failure (40) by the server`.
impl fmt::Display for TlsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.failure, self.version, self.cipher) {
            (Some(failure), ..) => write!(f, "{failure}")?,
            (
                None,
                Some(version),
                Some(CipherSuite {
                    name: Some(name), ..
                }),
            ) => {
                write!(f, "{version}, {name}")?;
            }
            (None, Some(version), _) => write!(f, "{version}")?,
            (None, None, _) => f.write_str("begun")?,
        }
        if let Some(alert) = self.alert {
            let by = match alert.by {
                Side::Server => "server",
                Side::Client => "client",
            };
            write!(f, ": {} ({}) by the {by}", alert.name(), alert.number)?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

/// IANA's registry "TLS Alerts", with what older versions had.
const fn alert_name(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        52 => "too_many_cids_requested",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => return None,
    })
}

/// IANA's registry "TLS Supported Groups", as far as servers of mail have them.
const fn group_name(id: u16) -> Option<&'static str> {
    Some(match id {
        1 => "sect163k1",
        6 => "sect233k1",
        7 => "sect233r1",
        9 => "sect283k1",
        10 => "sect283r1",
        11 => "sect409k1",
        12 => "sect409r1",
        13 => "sect571k1",
        14 => "sect571r1",
        19 => "secp192r1",
        21 => "secp224r1",
        22 => "secp256k1",
        23 => "secp256r1",
        24 => "secp384r1",
        25 => "secp521r1",
        26 => "brainpoolP256r1",
        27 => "brainpoolP384r1",
        28 => "brainpoolP512r1",
        29 => "x25519",
        30 => "x448",
        256 => "ffdhe2048",
        257 => "ffdhe3072",
        258 => "ffdhe4096",
        259 => "ffdhe6144",
        260 => "ffdhe8192",
        4587 => "SecP256r1MLKEM768",
        4588 => "X25519MLKEM768",
        4589 => "SecP384r1MLKEM1024",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_groups_and_alerts_have_their_names() {
        assert_eq!(TlsVersion(0x0301).to_string(), "TLSv1.0");
        assert_eq!(TlsVersion(0x0304).to_string(), "TLSv1.3");
        assert_eq!(TlsVersion(0x0305).to_string(), "0x0305");
        assert_eq!(KeyGroup::Named(29).to_string(), "x25519");
        assert_eq!(KeyGroup::Named(0x1234).to_string(), "0x1234");
        assert_eq!(KeyGroup::OwnDh(1024).to_string(), "dh1024");
        let alert = |number| Alert {
            by: Side::Server,
            number,
        };
        assert_eq!(alert(70).name(), "protocol_version");
        assert_eq!(alert(99).name(), "alert 99");
    }

    #[test]
    fn an_alert_in_place_of_a_greeting_is_known() {
        let alert = Alert::of_server(&[21, 3, 1, 0, 2, 2, 10]).expect("an alert");
        assert_eq!(alert.name(), "unexpected_message");
        for other in [
            &b"220 mx.example"[..],
            &[21, 3, 1, 0, 2, 2],
            &[22, 3, 1, 0, 2, 2, 10],
            &[21, 3, 1, 0, 2, 9, 10],
        ] {
            assert_eq!(Alert::of_server(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_record_tells_itself_in_a_line() {
        let mut record = TlsRecord::new(TlsStart::Starttls);
        record.version = Some(TlsVersion(0x0303));
        assert_eq!(record.to_string(), "TLSv1.2");
        record.failure = Some(TlsFailure::Alert);
        record.alert = Some(Alert {
            by: Side::Server,
            number: 40,
        });
        assert_eq!(
            record.to_string(),
            "alert: handshake_failure (40) by the server"
        );
    }
}
