//! Mail servers with TLS of all ages and in all states: one function per kind, a thread per
//! connection. Their certificates are made when first asked for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder, X509Name};

/// One kind of server.
pub(crate) struct Peer {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The outcome of a session with `--starttls`.
    pub(crate) outcome: &'static str,
    /// The version of TLS that is to be recorded; empty if none.
    pub(crate) version: &'static str,
    /// The failure that is to be recorded; empty if none.
    pub(crate) failure: &'static str,
    /// The alert that is to be recorded; empty if none.
    pub(crate) alert: &'static str,
    serve: fn(&mut TcpStream) -> io::Result<()>,
}

/// All of them, in the order of their ports. Those from `implicit` on begin with TLS, so that with
/// `--starttls` both sides wait for each other, and with `--smtps` there is a session.
#[rustfmt::skip]
pub(crate) const ALL: &[Peer] = &[
    Peer { name: "tls10", outcome: "completed", version: "TLSv1.0", failure: "", alert: "", serve: |s| starttls(s, &only(SslVersion::TLS1)) },
    Peer { name: "tls11", outcome: "completed", version: "TLSv1.1", failure: "", alert: "", serve: |s| starttls(s, &only(SslVersion::TLS1_1)) },
    Peer { name: "tls12", outcome: "completed", version: "TLSv1.2", failure: "", alert: "", serve: |s| starttls(s, &TLS12) },
    Peer { name: "tls13", outcome: "completed", version: "TLSv1.3", failure: "", alert: "", serve: |s| starttls(s, &TLS13) },
    Peer { name: "expired", outcome: "completed", version: "TLSv1.3", failure: "", alert: "", serve: |s| starttls(s, &context(&EXPIRED, |_| {})) },
    Peer { name: "chain", outcome: "completed", version: "TLSv1.3", failure: "", alert: "", serve: |s| starttls(s, &context(&ISSUED, |c| extra(c, 1))) },
    Peer { name: "ecdsa", outcome: "completed", version: "TLSv1.3", failure: "", alert: "", serve: |s| starttls(s, &context(&CURVE, |_| {})) },
    Peer { name: "rsa512", outcome: "completed", version: "TLSv1.0", failure: "", alert: "", serve: |s| starttls(s, &context(&WEAK, |c| at_most(c, SslVersion::TLS1))) },
    Peer { name: "dhe1024", outcome: "completed", version: "TLSv1.2", failure: "", alert: "", serve: |s| starttls(s, &own_dh(BigNum::get_rfc2409_prime_1024)) },
    Peer { name: "static-rsa", outcome: "completed", version: "TLSv1.2", failure: "", alert: "", serve: |s| starttls(s, &ciphers("kRSA")) },
    Peer { name: "dhe8192", outcome: "tls_failed", version: "TLSv1.2", failure: "dh_too_large", alert: "", serve: |s| starttls(s, &own_dh(BigNum::get_rfc3526_prime_8192)) },
    Peer { name: "no-common-cipher", outcome: "tls_failed", version: "", failure: "alert", alert: "handshake_failure", serve: |s| starttls(s, &ciphers("aNULL")) },
    Peer { name: "wants-certificate", outcome: "tls_failed", version: "TLSv1.2", failure: "alert", alert: "handshake_failure", serve: |s| starttls(s, &mutual(SslVersion::TLS1_2)) },
    Peer { name: "wants-certificate-13", outcome: "reset_in_dialogue", version: "TLSv1.3", failure: "alert", alert: "certificate_required", serve: |s| starttls(s, &mutual(SslVersion::TLS1_3)) },
    Peer { name: "huge-chain", outcome: "tls_failed", version: "TLSv1.3", failure: "too_large", alert: "illegal_parameter", serve: |s| starttls(s, &context(&PLAIN, |c| extra(c, 400))) },
    Peer { name: "ssl3", outcome: "tls_failed", version: "SSLv3", failure: "version", alert: "protocol_version", serve: |s| after_hello(s, &ssl3_hello()) },
    Peer { name: "ssl3-alert", outcome: "tls_failed", version: "", failure: "alert", alert: "protocol_version", serve: |s| after_hello(s, &[21, 3, 0, 0, 2, 2, 70]) },
    Peer { name: "plain-text", outcome: "tls_failed", version: "", failure: "plain_text", alert: "", serve: |s| after_hello(s, b"500 5.5.1 unrecognized command\r\n") },
    Peer { name: "garbage", outcome: "tls_failed", version: "", failure: "garbage", alert: "", serve: |s| after_hello(s, &[0, 255, 1, 254]) },
    Peer { name: "garbage-in-records", outcome: "tls_failed", version: "", failure: "protocol", alert: "unexpected_message", serve: |s| after_hello(s, &[22, 3, 3, 0, 8, 99, 0, 0, 4, 1, 2, 3, 4]) },
    Peer { name: "injects", outcome: "completed", version: "TLSv1.3", failure: "", alert: "", serve: injects },
    Peer { name: "closes", outcome: "tls_failed", version: "", failure: "closed", alert: "", serve: closes },
    Peer { name: "resets", outcome: "tls_failed", version: "", failure: "reset", alert: "", serve: resets },
    Peer { name: "silent", outcome: "tls_failed", version: "", failure: "timeout", alert: "", serve: silent },
    Peer { name: "half-a-hello", outcome: "tls_failed", version: "", failure: "timeout", alert: "", serve: |s| { after_hello(s, &ssl3_hello()[..20])?; drain(s) } },
    Peer { name: "cut-in-tls", outcome: "closed_in_dialogue", version: "TLSv1.3", failure: "", alert: "", serve: cut },
    Peer { name: "quiet-inside", outcome: "dialogue_timeout", version: "TLSv1.3", failure: "", alert: "", serve: |s| { accepted(s)?; let _tls = secure(s, &TLS13)?; drain(s) } },
    Peer { name: "refuses", outcome: "completed", version: "", failure: "", alert: "", serve: refuses },
    Peer { name: "alert-first", outcome: "not_smtp", version: "", failure: "", alert: "", serve: |s| { s.write_all(&[21, 3, 1, 0, 2, 2, 10])?; drain(s) } },
    Peer { name: "implicit", outcome: "no_greeting", version: "TLSv1.3", failure: "", alert: "", serve: |s| implicit(s, &context(&PLAIN, |_| {})) },
    Peer { name: "implicit10", outcome: "no_greeting", version: "TLSv1.0", failure: "", alert: "", serve: |s| implicit(s, &only(SslVersion::TLS1)) },
];

/// Serves the connections that arrive at `door`, each by a thread of its own, for ever.
pub(crate) fn spawn(door: TcpListener, peer: &'static Peer) -> JoinHandle<()> {
    thread::spawn(move || {
        for stream in door.incoming() {
            let Ok(mut stream) = stream else {
                // Out of descriptors, most likely: let some connections end.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let serve = move || {
                // That a connection breaks is the caller's doing, and no matter here.
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_nodelay(true);
                let _ = (peer.serve)(&mut stream);
            };
            let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
        }
    })
}

/// The dialogue up to the 220 to STARTTLS.
fn accepted(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"220 tls.example.test ESMTP\r\n")?;
    before_tls(stream, b"220 2.0.0 Ready to start TLS\r\n")
}

fn before_tls(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    // Octet by octet, so as not to read what belongs to TLS.
    let mut line = Vec::new();
    loop {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        line.push(octet[0]);
        if octet[0] != b'\n' {
            continue;
        }
        if line.starts_with(b"STARTTLS") {
            return stream.write_all(answer);
        }
        if reply(
            &line,
            b"250-tls.example.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n",
            stream,
        )? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.clear();
    }
}

/// Answers a line; tells whether that was QUIT.
fn reply(line: &[u8], capabilities: &[u8], out: &mut impl Write) -> io::Result<bool> {
    match line.get(..4).unwrap_or_default() {
        b"EHLO" => out.write_all(capabilities)?,
        b"QUIT" => {
            out.write_all(b"221 2.0.0 bye\r\n")?;
            return Ok(true);
        }
        b"NOOP" => out.write_all(b"250 2.0.0 OK\r\n")?,
        _ => out.write_all(b"500 5.5.1 unknown\r\n")?,
    }
    Ok(false)
}

fn secure(stream: &mut TcpStream, context: &SslContext) -> io::Result<SslStream<TcpStream>> {
    let ssl = Ssl::new(context).map_err(io::Error::other)?;
    let mut tls = SslStream::new(ssl, stream.try_clone()?).map_err(io::Error::other)?;
    if let Err(error) = tls.accept() {
        // What the caller still sends would turn our close into a reset, and lose it the alert.
        stream.shutdown(Shutdown::Write)?;
        drain(stream)?;
        return Err(io::Error::other(error));
    }
    Ok(tls)
}

fn starttls(stream: &mut TcpStream, context: &SslContext) -> io::Result<()> {
    accepted(stream)?;
    inside(secure(stream, context)?)
}

fn implicit(stream: &mut TcpStream, context: &SslContext) -> io::Result<()> {
    let mut tls = secure(stream, context)?;
    tls.write_all(b"220 tls.example.test ESMTP\r\n")?;
    inside(tls)
}

/// The dialogue inside: other capabilities than before.
fn inside(tls: SslStream<TcpStream>) -> io::Result<()> {
    let mut lines = BufReader::new(tls);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let capabilities = b"250-tls.example.test\r\n250-SIZE 1000\r\n250 AUTH PLAIN\r\n";
        if reply(&line, capabilities, lines.get_mut())? {
            let tls = lines.get_mut();
            let _ = tls.shutdown();
            return drain(&mut tls.get_mut().try_clone()?);
        }
        line.clear();
    }
    Ok(())
}

/// Answers the client's hello with those octets.
fn after_hello(stream: &mut TcpStream, octets: &[u8]) -> io::Result<()> {
    accepted(stream)?;
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut hello)?;
    stream.write_all(octets)?;
    drain(stream)
}

fn injects(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"220 tls.example.test ESMTP\r\n")?;
    before_tls(stream, b"220 go ahead\r\n250 injected.example\r\n")?;
    inside(secure(stream, &context(&PLAIN, |_| {}))?)
}

/// Closes without a reset: what the caller says meanwhile is read.
fn closes(stream: &mut TcpStream) -> io::Result<()> {
    accepted(stream)?;
    stream.shutdown(Shutdown::Write)?;
    drain(stream)
}

fn resets(stream: &mut TcpStream) -> io::Result<()> {
    accepted(stream)?;
    // A close with octets unread is a reset.
    stream.peek(&mut [0]).map(drop)
}

fn silent(stream: &mut TcpStream) -> io::Result<()> {
    accepted(stream)?;
    drain(stream)
}

/// Goes away after EHLO inside, without an end of TLS.
fn cut(stream: &mut TcpStream) -> io::Result<()> {
    accepted(stream)?;
    let mut tls = secure(stream, &context(&PLAIN, |_| {}))?;
    tls.read(&mut [0; 512]).map(drop)?;
    stream.shutdown(Shutdown::Write)?;
    drain(stream)
}

fn refuses(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"220 tls.example.test ESMTP\r\n")?;
    before_tls(stream, b"454 4.7.0 TLS not available\r\n")?;
    before_tls(stream, b"")
}

/// Reads to the end.
fn drain(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 4_096])? > 0 {}
    Ok(())
}

/// A server hello of SSL 3.0 with RC4.
fn ssl3_hello() -> Vec<u8> {
    let mut hello = vec![22, 3, 0, 0, 42, 2, 0, 0, 38, 3, 0];
    hello.extend([7; 32]);
    hello.extend([0, 0, 5, 0]);
    hello
}

type Identity = (PKey<Private>, X509);

fn context(identity: &Identity, adjust: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
    let made = (|| {
        let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
        context.set_security_level(0);
        context.set_min_proto_version(None)?;
        context.set_cipher_list("ALL:@SECLEVEL=0")?;
        context.set_private_key(&identity.0)?;
        context.set_certificate(&identity.1)?;
        context.set_options(SslOptions::NO_TICKET);
        adjust(&mut context);
        Ok::<_, openssl::error::ErrorStack>(context.build())
    })();
    made.expect("OpenSSL can be set up")
}

fn only(version: SslVersion) -> SslContext {
    context(&PLAIN, |context| {
        at_most(context, version);
        context
            .set_min_proto_version(Some(version))
            .expect("version");
    })
}

fn at_most(context: &mut SslContextBuilder, version: SslVersion) {
    context
        .set_max_proto_version(Some(version))
        .expect("version");
}

fn ciphers(list: &str) -> SslContext {
    context(&PLAIN, |context| {
        at_most(context, SslVersion::TLS1_2);
        let list = format!("{list}:@SECLEVEL=0");
        context.set_cipher_list(&list).expect("ciphers");
    })
}

fn own_dh(prime: fn() -> Result<BigNum, openssl::error::ErrorStack>) -> SslContext {
    let dh = prime()
        .and_then(|prime| Dh::from_pqg(prime, None, BigNum::from_u32(2)?))
        .expect("a group");
    context(&PLAIN, |context| {
        at_most(context, SslVersion::TLS1_2);
        context
            .set_cipher_list("kDHE:@SECLEVEL=0")
            .expect("ciphers");
        context.set_tmp_dh(&dh).expect("a group");
    })
}

fn mutual(version: SslVersion) -> SslContext {
    context(&PLAIN, |context| {
        at_most(context, version);
        context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    })
}

fn extra(context: &mut SslContextBuilder, count: usize) {
    for _ in 0..count {
        context
            .add_extra_chain_cert(PLAIN.1.clone())
            .expect("a certificate");
    }
}

// Kept ready, for benchmarks.
static TLS12: LazyLock<SslContext> = LazyLock::new(|| only(SslVersion::TLS1_2));
static TLS13: LazyLock<SslContext> = LazyLock::new(|| only(SslVersion::TLS1_3));
static PLAIN: LazyLock<Identity> = LazyLock::new(|| identity(rsa(1_024), FUTURE, None));
static EXPIRED: LazyLock<Identity> = LazyLock::new(|| identity(rsa(1_024), 86_400, None));
static WEAK: LazyLock<Identity> = LazyLock::new(|| identity(rsa(512), FUTURE, None));
static ISSUED: LazyLock<Identity> = LazyLock::new(|| identity(rsa(1_024), FUTURE, Some(&PLAIN)));
static CURVE: LazyLock<Identity> = LazyLock::new(|| {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = EcKey::generate(&group).expect("a key");
    identity(PKey::from_ec_key(key).expect("a key"), FUTURE, None)
});

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("a key")).expect("a key")
}

/// A key with a certificate that ends then, signed by itself or by an issuer.
fn identity(key: PKey<Private>, end: i64, issuer: Option<&Identity>) -> Identity {
    let made = (|| {
        let mut name = X509Name::builder()?;
        name.append_entry_by_text("O", "Test Peers")?;
        name.append_entry_by_text(
            "CN",
            if issuer.is_some() {
                "leaf.test"
            } else {
                "tls.test"
            },
        )?;
        let name = name.build();
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(issuer.map_or(&*name, |(_, issuer)| issuer.subject_name()))?;
        let (from, to) = (Asn1Time::from_unix(0)?, Asn1Time::from_unix(end)?);
        builder.set_not_before(&from)?;
        builder.set_not_after(&to)?;
        builder.set_pubkey(&key)?;
        let names = SubjectAlternativeName::new()
            .dns("tls.example.test")
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(names)?;
        builder.sign(issuer.map_or(&key, |(key, _)| key), MessageDigest::sha256())?;
        Ok::<_, openssl::error::ErrorStack>(builder.build())
    })();
    (key, made.expect("a certificate"))
}

/// In the year 2096.
const FUTURE: i64 = 4_000_000_000;
/// A peer that hears nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const STACK: usize = 256 << 10;
