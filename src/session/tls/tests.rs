//! The client against OpenSSL's own servers, octets handed over in memory.

use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::SslVersion;
use openssl::x509::{X509, X509Builder, X509Name};

use super::*;
use crate::smtp::{Certificate, KeyGroup};

struct Server {
    stream: SslStream<Pipe>,
    open: bool,
}

impl Server {
    fn new(setup: impl FnOnce(&mut SslContextBuilder)) -> Self {
        let mut context = SslContextBuilder::new(SslMethod::tls_server()).expect("a context");
        context.set_security_level(0);
        let (key, certificate) = identity();
        context.set_private_key(&key).expect("key");
        context.set_certificate(&certificate).expect("certificate");
        context.set_cipher_list(CIPHERS).expect("ciphers");
        setup(&mut context);
        let mut ssl = Ssl::new(&context.build()).expect("a server");
        ssl.set_accept_state();
        Self {
            stream: SslStream::new(ssl, Pipe::default()).expect("a stream"),
            open: false,
        }
    }

    fn only(version: SslVersion) -> Self {
        Self::new(|context| {
            context
                .set_min_proto_version(Some(version))
                .expect("version");
            context
                .set_max_proto_version(Some(version))
                .expect("version");
        })
    }

    /// Takes octets in and gives out what it answers.
    fn turn(&mut self, octets: &[u8]) -> Vec<u8> {
        self.stream.get_mut().incoming.extend_from_slice(octets);
        if !self.open {
            self.open = self.stream.do_handshake().is_ok();
        }
        mem::take(&mut self.stream.get_mut().outgoing)
    }
}

fn identity() -> (PKey<Private>, X509) {
    let key = PKey::from_rsa(Rsa::generate(1_024).expect("a key")).expect("a key");
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_text("CN", "mx.example.org")
        .expect("CN");
    let name = name.build();
    let mut builder = X509Builder::new().expect("a builder");
    builder.set_subject_name(&name).expect("subject");
    builder.set_issuer_name(&name).expect("issuer");
    builder.set_pubkey(&key).expect("key");
    // Expired long ago.
    for (set, at) in [
        (X509Builder::set_not_before as fn(&mut _, &_) -> _, 0),
        (X509Builder::set_not_after, 86_400),
    ] {
        let () = set(&mut builder, &Asn1Time::from_unix(at).expect("a time")).expect("set");
    }
    builder.sign(&key, MessageDigest::sha256()).expect("signed");
    (key, builder.build())
}

fn client(now: Instant) -> TlsClient {
    let config = TlsConfig::new(None).expect("OpenSSL can be set up");
    TlsClient::new(&config, TlsStart::Starttls, now).expect("a client")
}

/// Hands octets to and fro, `cut` at a time towards the client, until nobody has any.
fn shake(client: &mut TlsClient, server: &mut Server, cut: usize, now: Instant) {
    loop {
        let said = client.output();
        let answer = server.turn(&said);
        if said.is_empty() && answer.is_empty() {
            return;
        }
        for piece in answer.chunks(cut) {
            client.handle_input(now, piece);
        }
    }
}

#[test]
fn every_version_is_spoken_and_written_down() {
    for (version, name, group) in [
        (SslVersion::TLS1, "TLSv1.0", Some(KeyGroup::Named(29))),
        (SslVersion::TLS1_1, "TLSv1.1", Some(KeyGroup::Named(29))),
        (SslVersion::TLS1_2, "TLSv1.2", Some(KeyGroup::Named(29))),
        (SslVersion::TLS1_3, "TLSv1.3", Some(KeyGroup::Named(29))),
    ] {
        for cut in [1, 7, 100_000] {
            let begun = Instant::now();
            let (mut client, mut server) = (client(begun), Server::only(version));
            shake(
                &mut client,
                &mut server,
                cut,
                begun + Duration::from_millis(30),
            );
            assert_eq!(client.state(), TlsState::Open, "{name}: {client:?}");
            let record = client.finish();
            assert_eq!(record.version.map(|v| v.to_string()).as_deref(), Some(name));
            assert_eq!(record.group, group, "{name}");
            assert_eq!(record.handshake_ms, Some(30));
            assert_eq!(record.failure, None);
            let cipher = record
                .cipher
                .and_then(|cipher| cipher.name)
                .expect("a name");
            assert!(cipher.starts_with("TLS_"), "{cipher}");
            assert_eq!(record.chain.len(), 1, "{name}");
            let leaf = Certificate::parse(&record.chain[0]).expect("a certificate");
            assert!(leaf.self_signed);
            assert_eq!(leaf.not_after, Some(86_400));
        }
    }
}

#[test]
fn what_is_said_inside_arrives_and_the_end_is_announced() {
    for version in [SslVersion::TLS1, SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let now = Instant::now();
        let (mut client, mut server) = (client(now), Server::only(version));
        shake(&mut client, &mut server, 1_000, now);
        client.write(b"EHLO a.example\r\n");
        let mut buffer = [0; 64];
        server.turn(&client.output());
        let count = server.stream.ssl_read(&mut buffer).expect("a command");
        assert_eq!(&buffer[..count], b"EHLO a.example\r\n");
        server
            .stream
            .ssl_write(b"250 mx.example.org\r\n")
            .expect("a reply");
        let reply = server.turn(&[]);
        let mut heard = Vec::new();
        for octet in reply.chunks(1) {
            client.handle_input(now, octet);
            while let count @ 1.. = client.read(&mut buffer) {
                heard.extend_from_slice(&buffer[..count]);
            }
        }
        assert_eq!(heard, b"250 mx.example.org\r\n");
        client.close();
        server.turn(&client.output());
        let end = server.stream.ssl_read(&mut buffer).expect_err("the end");
        assert_eq!(end.code(), ErrorCode::ZERO_RETURN);
        server.stream.shutdown().expect("an answer");
        client.handle_input(now, &server.turn(&[]));
        assert_eq!(client.read(&mut buffer), 0);
        assert_eq!(client.state(), TlsState::Closed);
        assert_eq!(client.finish().renegotiations, 0);
    }
}

#[test]
fn own_groups_and_those_of_the_certificate_alone_are_told_apart() {
    let with = |ciphers: &'static str| {
        Server::new(move |context| {
            context
                .set_max_proto_version(Some(SslVersion::TLS1_2))
                .expect("version");
            context.set_cipher_list(ciphers).expect("ciphers");
            let dh = openssl::dh::Dh::get_2048_256().expect("a group");
            context.set_tmp_dh(&dh).expect("a group");
        })
    };
    let now = Instant::now();
    for (ciphers, group, name) in [
        ("kRSA:@SECLEVEL=0", None, "TLS_RSA_WITH_"),
        (
            "kDHE:@SECLEVEL=0",
            Some(KeyGroup::OwnDh(2_048)),
            "TLS_DHE_RSA_WITH_",
        ),
        (
            "kECDHE:@SECLEVEL=0",
            Some(KeyGroup::Named(29)),
            "TLS_ECDHE_RSA_WITH_",
        ),
    ] {
        let (mut client, mut server) = (client(now), with(ciphers));
        shake(&mut client, &mut server, 50_000, now);
        let record = client.finish();
        assert_eq!((record.failure, record.group), (None, group));
        let cipher = record
            .cipher
            .and_then(|cipher| cipher.name)
            .expect("a name");
        assert!(cipher.starts_with(name), "{cipher}");
    }
}

#[test]
fn an_alert_is_told_with_its_number_and_how_far_the_server_had_come() {
    let now = Instant::now();
    let mut client = client(now);
    client.handle_input(now, &[21, 3, 1, 0, 2, 2, 40]);
    assert_eq!(client.state(), TlsState::Failed);
    let record = client.finish();
    assert_eq!(record.failure, Some(TlsFailure::Alert));
    let alert = record.alert.expect("an alert");
    assert_eq!(
        (alert.by, alert.name().as_ref()),
        (Side::Server, "handshake_failure")
    );
    assert_eq!((record.heard, record.version), (None, None));
}

#[test]
fn a_wanted_certificate_of_ours_ends_in_an_alert_after_the_handshake() {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let now = Instant::now();
        let mut server = Server::new(|context| {
            context
                .set_max_proto_version(Some(version))
                .expect("version");
            context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        });
        let mut client = client(now);
        shake(&mut client, &mut server, 50_000, now);
        assert_eq!(client.read(&mut [0; 9]), 0);
        let record = client.finish();
        assert_eq!(record.failure, Some(TlsFailure::Alert), "{record:?}");
        let expected = match version {
            SslVersion::TLS1_3 => "certificate_required",
            _ => "handshake_failure",
        };
        assert_eq!(record.alert.expect("an alert").name(), expected);
        assert_eq!(record.chain.len(), 1);
    }
}

#[test]
fn a_server_of_ssl_3_alone_is_known_by_the_version_it_chose() {
    let now = Instant::now();
    let mut client = client(now);
    let hello = client.output();
    assert_eq!(hello[0], 22, "a hello comes first");
    // Record, server hello of version 3.0, no session, RC4 with SHA, no compression.
    let mut answer = vec![22, 3, 0, 0, 42, 2, 0, 0, 38, 3, 0];
    answer.extend([7; 32]);
    answer.extend([0, 0, 5, 0]);
    client.handle_input(now, &answer);
    let record = client.record();
    assert_eq!(client.state(), TlsState::Failed);
    assert_eq!(record.failure, Some(TlsFailure::Version), "{record:?}");
    assert_eq!(
        record.version.map(|v| v.to_string()).as_deref(),
        Some("SSLv3")
    );
    let alert = record.alert.expect("an alert of ours");
    assert_eq!(
        (alert.by, alert.name().as_ref()),
        (Side::Client, "protocol_version")
    );
}

#[test]
fn text_garbage_and_ends_have_their_names() {
    let now = Instant::now();
    let given = |octets: &[u8]| {
        let mut client = client(now);
        client.handle_input(now, octets);
        client.finish()
    };
    let record = given(b"500 5.5.1 unrecognized command\r\n");
    assert_eq!(record.failure, Some(TlsFailure::PlainText));
    assert_eq!(
        record.detail.as_deref(),
        Some("500 5.5.1 unrecognized command\\r\\n")
    );
    assert_eq!(given(&[0, 1, 2]).failure, Some(TlsFailure::Garbage));
    assert_eq!(given(&[]).failure, Some(TlsFailure::Interrupted));
    for failure in [TlsFailure::Timeout, TlsFailure::Closed, TlsFailure::Reset] {
        let mut client = client(now);
        client.give_up(failure);
        client.give_up(TlsFailure::Garbage);
        assert_eq!(client.finish().failure, Some(failure));
    }
}

#[test]
fn a_chain_without_end_is_not_held() {
    let now = Instant::now();
    let mut client = client(now);
    let mut server = Server::new(|context| {
        context
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .expect("version");
        for _ in 0..400 {
            context
                .add_extra_chain_cert(identity_once())
                .expect("a certificate");
        }
    });
    shake(&mut client, &mut server, 16_384, now);
    let record = client.finish();
    assert_eq!(record.failure, Some(TlsFailure::TooLarge), "{record:?}");
    assert_eq!(
        record.version.map(|v| v.to_string()).as_deref(),
        Some("TLSv1.2")
    );
    assert!(record.chain.iter().map(Vec::len).sum::<usize>() <= 102_400);
}

fn identity_once() -> X509 {
    static ONCE: std::sync::LazyLock<X509> = std::sync::LazyLock::new(|| identity().1);
    ONCE.clone()
}

#[test]
fn a_server_name_is_sent_only_if_there_is_one() {
    let hello = |sni| {
        let config = TlsConfig::new(sni).expect("OpenSSL can be set up");
        let mut client =
            TlsClient::new(&config, TlsStart::Implicit, Instant::now()).expect("a client");
        client.output()
    };
    let holds = |hello: Vec<u8>| hello.windows(14).any(|part| part == b"mx.example.org");
    assert!(holds(hello(Some("mx.example.org"))));
    assert!(!holds(hello(None)));
}

#[test]
fn whatever_comes_is_bounded_and_does_not_panic() {
    use proptest::prelude::*;
    proptest!(ProptestConfig::with_cases(64), |(
        pieces in proptest::collection::vec((20_u8..24, proptest::collection::vec(any::<u8>(), 0..400)), 1..20)
    )| {
        let now = Instant::now();
        let mut client = client(now);
        for (kind, body) in pieces {
            let mut record = vec![kind, 3, 3];
            record.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
            record.extend(body);
            client.handle_input(now, &record);
            while client.read(&mut [0; 64]) > 0 {}
            client.write(b"QUIT\r\n");
        }
        client.close();
        client.output();
        client.finish();
    });
}
