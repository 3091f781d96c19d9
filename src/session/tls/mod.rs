//! TLS towards a server, without I/O: octets of the connection in, octets for it out.
//!
//! The aim is to speak with whatever a server can do and to write down what that was. So OpenSSL
//! (docs/decisions.md says why it) is told to take TLS 1.0 to 1.3 (SSL 3.0 where it is compiled
//! in), every cipher suite that brings a certificate, keys of any size and servers that know
//! nothing of secure renegotiation; and **nothing is verified**: certificates are data here, and
//! what is said inside the channel is no secret. Settings of the machine's openssl.cnf do not
//! apply: each is set here.
//!
//! [`TlsConfig`] is shared by all sessions of a sweep; a [`TlsClient`] is one of them. It has no
//! callback, and OpenSSL sees octets only after [`Overheard`] has. Bounds: [`MAX_HANDSHAKE`] octets
//! before the channel stands, [`MAX_RECEIVED`] in all, chains of 100 KiB (OpenSSL's own
//! limit); OpenSSL's buffers are given back whenever they are empty.

mod overheard;

use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::time::Instant;

use openssl::error::ErrorStack;
use openssl::provider::Provider;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions,
    SslSessionCacheMode, SslStream, SslVerifyMode,
};
use thiserror::Error;

use crate::smtp::{Alert, CipherSuite, Side, TlsFailure, TlsRecord, TlsStart, TlsVersion};
use overheard::Overheard;

/// What all TLS clients of a sweep share.
pub struct TlsConfig {
    context: SslContext,
    sni: Option<String>,
    /// Ciphers that OpenSSL keeps apart from the usual ones (RC4 and the like); to be held as long
    /// as the context. Absent where they are not installed.
    _legacy: Option<Provider>,
}

/// Why TLS cannot be had on this machine.
#[derive(Debug, Error)]
#[error("set up TLS: {doing}: {source}")]
pub struct TlsError {
    doing: &'static str,
    source: ErrorStack,
}

impl TlsConfig {
    /// Everything OpenSSL can do, and `sni` as the server name in each hello.
    ///
    /// # Errors
    /// If OpenSSL refuses one of the settings.
    pub fn new(sni: Option<&str>) -> Result<Self, TlsError> {
        // Without its own default provider beside it, the legacy one would replace it.
        let legacy = Provider::try_load(None, "legacy", true).ok();
        let failed = |doing| move |source| TlsError { doing, source };
        let mut context =
            SslContextBuilder::new(SslMethod::tls_client()).map_err(failed("make a context"))?;
        context.set_verify(SslVerifyMode::NONE);
        context.set_security_level(0);
        context
            .set_min_proto_version(None)
            .and_then(|()| context.set_max_proto_version(None))
            .map_err(failed("allow all versions"))?;
        context
            .set_cipher_list(CIPHERS)
            .and_then(|()| context.set_ciphersuites(CIPHERS_1_3))
            .map_err(failed("allow all ciphers"))?;
        context
            .set_groups_list(GROUPS)
            .map_err(failed("allow all groups"))?;
        context
            .set_sigalgs_list(SIGNATURES)
            .map_err(failed("allow all signature algorithms"))?;
        context.clear_options(SslOptions::NO_SSL_MASK | SslOptions::CIPHER_SERVER_PREFERENCE);
        context.set_options(
            SslOptions::ALL
                | SslOptions::ALLOW_UNSAFE_LEGACY_RENEGOTIATION
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::NO_TICKET,
        );
        context.set_mode(SslMode::RELEASE_BUFFERS);
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        Ok(Self {
            context: context.build(),
            sni: sni.map(str::to_owned),
            _legacy: legacy,
        })
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("sni", &self.sni)
            .finish_non_exhaustive()
    }
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsState {
    /// The channel does not stand yet.
    Handshaking,
    /// It stands.
    Open,
    /// It stood, and the server has closed it in the proper way.
    Closed,
    /// It never stood, or broke; [`TlsRecord::failure`] says how.
    Failed,
}

/// One client; see the head of this file.
pub struct TlsClient {
    stream: SslStream<Pipe>,
    state: TlsState,
    /// Until the handshake is over.
    overheard: Option<Box<Overheard>>,
    record: TlsRecord,
    begun: Instant,
    received: usize,
}

impl TlsClient {
    /// A client whose hello waits in [`Self::output`].
    ///
    /// # Errors
    /// If OpenSSL has no memory for it, or refuses the server name.
    pub fn new(config: &TlsConfig, start: TlsStart, now: Instant) -> Result<Self, ErrorStack> {
        let mut ssl = Ssl::new(&config.context)?;
        ssl.set_connect_state();
        if let Some(sni) = &config.sni {
            ssl.set_hostname(sni)?;
        }
        let mut client = Self {
            stream: SslStream::new(ssl, Pipe::default())?,
            state: TlsState::Handshaking,
            overheard: Some(Box::default()),
            record: TlsRecord::new(start),
            begun: now,
            received: 0,
        };
        client.shake(now);
        Ok(client)
    }

    /// How far it has come.
    pub fn state(&self) -> TlsState {
        self.state
    }

    /// The server sent `octets`. What they say is read with [`Self::read`], which must be done until
    /// it yields nothing before the next octets come.
    pub fn handle_input(&mut self, now: Instant, octets: &[u8]) {
        if matches!(self.state, TlsState::Closed | TlsState::Failed) {
            return;
        }
        self.received = self.received.saturating_add(octets.len());
        if self.received > MAX_RECEIVED {
            return self.fail(TlsFailure::TooLarge, format!("{MAX_RECEIVED} octets"));
        }
        if let Some(overheard) = &mut self.overheard {
            if let Err(failure) = overheard.feed(octets) {
                let shown = octets[..octets.len().min(SHOWN)].escape_ascii();
                let detail = match failure {
                    TlsFailure::DhTooLarge => String::new(),
                    _ => shown.to_string(),
                };
                return self.fail(failure, detail);
            }
            if self.received > MAX_HANDSHAKE {
                return self.fail(TlsFailure::TooLarge, format!("{MAX_HANDSHAKE} octets"));
            }
        }
        self.stream.get_mut().incoming.extend_from_slice(octets);
        if self.state == TlsState::Handshaking {
            self.shake(now);
        }
    }

    /// What the server says, as far as it came: that many octets of `buffer`, 0 if nothing is left.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        if self.state != TlsState::Open {
            return 0;
        }
        let before = self.stream.get_ref().outgoing.len();
        match self.stream.ssl_read(buffer) {
            Ok(count) => {
                self.note_refusals(before);
                count
            }
            Err(error) => {
                match error.code() {
                    ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => self.note_refusals(before),
                    ErrorCode::ZERO_RETURN => self.state = TlsState::Closed,
                    _ => self.fail_by(&error),
                }
                0
            }
        }
    }

    /// Says `octets` to the server.
    pub fn write(&mut self, octets: &[u8]) {
        if matches!(self.state, TlsState::Open | TlsState::Closed)
            && let Err(error) = self.stream.ssl_write(octets)
        {
            self.fail_by(&error);
        }
    }

    /// Announces that nothing more will be said.
    pub fn close(&mut self) {
        if matches!(self.state, TlsState::Open | TlsState::Closed) {
            // Whether the server answers is not waited for, so the result tells nothing.
            let _ = self.stream.shutdown();
        }
    }

    /// Octets for the connection, taken away.
    pub fn output(&mut self) -> Vec<u8> {
        mem::take(&mut self.stream.get_mut().outgoing)
    }

    /// The connection, or the time, is over before the channel stood: says why.
    pub fn give_up(&mut self, failure: TlsFailure) {
        if self.state == TlsState::Handshaking {
            self.record.alert = self.overheard.as_ref().and_then(|heard| heard.alert);
            self.fail(failure, String::new());
        }
    }

    /// What came of it so far.
    pub fn record(&self) -> &TlsRecord {
        &self.record
    }

    /// What came of it. A handshake that is still under way was interrupted.
    pub fn finish(mut self) -> TlsRecord {
        self.give_up(TlsFailure::Interrupted);
        self.record
    }

    /// Goes on with the handshake as far as it goes.
    fn shake(&mut self, now: Instant) {
        let before = self.stream.get_ref().outgoing.len();
        match self.stream.do_handshake() {
            Ok(()) => {
                let spent = now.saturating_duration_since(self.begun).as_millis();
                self.record.handshake_ms = Some(u32::try_from(spent).unwrap_or(u32::MAX));
                self.state = TlsState::Open;
                self.settle();
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => {}
            Err(error) => {
                self.record.alert = sent_alert(&self.stream.get_ref().outgoing[before..]);
                self.fail_by(&error);
            }
        }
    }

    /// Ends the client because of what OpenSSL says.
    fn fail_by(&mut self, error: &openssl::ssl::Error) {
        let stack = error.ssl_error().map_or(&[][..], ErrorStack::errors);
        let received = stack
            .iter()
            .find_map(|error| u8::try_from(error.reason_code().checked_sub(ALERT_REASON)?).ok());
        let detail = stack
            .first()
            .and_then(|error| error.reason())
            .unwrap_or_default();
        let overheard = self.overheard.as_deref();
        let version = overheard.and_then(|overheard| overheard.version);
        if error.code() == ErrorCode::ZERO_RETURN {
            self.record.alert = overheard.and_then(|overheard| overheard.alert);
            return self.fail(TlsFailure::Alert, String::new());
        }
        let failure = match received {
            Some(number) => {
                self.record.alert = Some(Alert {
                    by: Side::Server,
                    number,
                });
                TlsFailure::Alert
            }
            None if stack.iter().any(is_version) && version.is_some() => TlsFailure::Version,
            None if stack.iter().any(is_size) => TlsFailure::TooLarge,
            None => TlsFailure::Protocol,
        };
        // OpenSSL's words for an alert are the alert's name.
        let detail = if received.is_some() { "" } else { detail };
        self.fail(failure, detail.to_owned());
    }

    fn fail(&mut self, failure: TlsFailure, detail: String) {
        self.state = TlsState::Failed;
        self.record.failure = Some(failure);
        self.record.detail = Some(detail).filter(|detail| !detail.is_empty());
        self.settle();
    }

    /// Writes down what the handshake showed; there will be no more of it.
    fn settle(&mut self) {
        let Some(overheard) = self.overheard.take() else {
            return;
        };
        let record = &mut self.record;
        let ssl = self.stream.ssl();
        record.version = overheard.version;
        record.group = overheard.group;
        record.heard = overheard.heard;
        record.client_certificate_requested = overheard.client_certificate_requested;
        record.cipher = overheard.cipher.map(|id| CipherSuite {
            id,
            name: cipher_name(ssl, id),
        });
        if let Some(chain) = ssl.peer_cert_chain() {
            record.chain = chain
                .iter()
                .filter_map(|certificate| certificate.to_der().ok())
                .collect();
        }
    }

    /// Counts the alerts that OpenSSL has sent, behind `before`, while it read: the only ones that do not end the
    /// channel refuse a renegotiation. Their content is encrypted, their kind is not (before TLS
    /// 1.3, which knows no renegotiation).
    fn note_refusals(&mut self, before: usize) {
        let mut outgoing = &self.stream.get_ref().outgoing[before..];
        if self.record.version >= Some(TlsVersion(0x0304)) {
            return;
        }
        while let [kind, _, _, high, low, rest @ ..] = outgoing {
            self.record.renegotiations += u32::from(*kind == ALERT);
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            outgoing = rest.get(length..).unwrap_or_default();
        }
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("state", &self.state)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// IANA's name of a cipher suite.
fn cipher_name(ssl: &openssl::ssl::SslRef, id: u16) -> Option<&'static str> {
    if let Some(cipher) = ssl.current_cipher()
        && cipher.protocol_id() == id.to_be_bytes()
    {
        return cipher.standard_name();
    }
    let lists = ssl.bytes_to_cipher_list(&id.to_be_bytes(), false).ok()?;
    lists.suites.iter().next()?.standard_name()
}

/// The fatal alert among octets that OpenSSL would send, if it is in clear text.
fn sent_alert(octets: &[u8]) -> Option<Alert> {
    match octets {
        [.., ALERT, 3, _, 0, 2, 2, number] => Some(Alert {
            by: Side::Client,
            number: *number,
        }),
        _ => None,
    }
}

fn is_version(error: &openssl::error::Error) -> bool {
    [
        SSL_R_UNSUPPORTED_PROTOCOL,
        SSL_R_WRONG_SSL_VERSION,
        SSL_R_WRONG_VERSION_NUMBER,
        SSL_R_BAD_PROTOCOL_VERSION_NUMBER,
    ]
    .contains(&error.reason_code())
}

fn is_size(error: &openssl::error::Error) -> bool {
    error.reason_code() == SSL_R_EXCESSIVE_MESSAGE_SIZE
}

/// The connection as OpenSSL sees it.
#[derive(Debug, Default)]
struct Pipe {
    incoming: Vec<u8>,
    /// Octets of `incoming` that OpenSSL has taken.
    taken: usize,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.incoming[self.taken..];
        if left.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        if self.taken == self.incoming.len() {
            // Given back, not kept: most sessions wait, and there are many of them.
            self.incoming = Vec::new();
            self.taken = 0;
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every suite up to TLS 1.2 that is compiled in, those without encryption last; without suites
/// that bring no certificate, which servers that choose by themselves would prefer (Postfix's own
/// order begins with anonymous ones), and without those that need a secret agreed before.
const CIPHERS: &str = "ALL:COMPLEMENTOFALL:!aNULL:!PSK:!SRP:@SECLEVEL=0";
const CIPHERS_1_3: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:\
    TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256";
/// The cheap ones first; without the largest two, which cost more than [`overheard`] allows for.
const GROUPS: &str = "X25519:P-256:P-384:P-521:X448:ffdhe2048:ffdhe3072:ffdhe4096";
const SIGNATURES: &str = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:ed448:\
    rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:\
    rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:\
    RSA+SHA256:RSA+SHA384:RSA+SHA512:ECDSA+SHA224:RSA+SHA224:DSA+SHA256:DSA+SHA384:DSA+SHA512:\
    DSA+SHA224:ECDSA+SHA1:RSA+SHA1:DSA+SHA1";

/// Octets of the server before the channel stands.
const MAX_HANDSHAKE: usize = 160 << 10;
/// Octets of the server in all, encrypted: four times what a dialogue may hear, since what a
/// hostile peer sends need not be text (tickets, key updates, empty records).
const MAX_RECEIVED: usize = 1 << 20;
/// Octets shown of a peer that does not speak TLS.
const SHOWN: usize = 120;

/// The record type of alerts.
const ALERT: u8 = 21;
/// What OpenSSL adds to the number of an alert received, `SSL_AD_REASON_OFFSET`.
const ALERT_REASON: i32 = 1_000;
// Reason codes of openssl/sslerr.h, part of its stable interface.
const SSL_R_BAD_PROTOCOL_VERSION_NUMBER: i32 = 116;
const SSL_R_EXCESSIVE_MESSAGE_SIZE: i32 = 152;
const SSL_R_UNSUPPORTED_PROTOCOL: i32 = 258;
const SSL_R_WRONG_SSL_VERSION: i32 = 266;
const SSL_R_WRONG_VERSION_NUMBER: i32 = 267;

#[cfg(test)]
mod tests;
