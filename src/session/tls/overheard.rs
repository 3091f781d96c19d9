//! What a server says in clear text while a handshake goes on, read along as it comes.
//!
//! OpenSSL tells a handshake's result, but of one that failed little: not which version the server
//! had chosen, nor how far it had come. All of that passes in clear text: records (RFC 5246
//! section 6.2.1, RFC 8446 section 5.1), server hello and server key exchange. Reading along also
//! tells TLS from other octets at the first of them, and what a peer would have us compute before
//! it is computed.
//!
//! Nothing is decided here about the channel: a message that this parser misreads is still read by
//! OpenSSL. Memory: [`KEPT`] octets of the message that is being read. Bytes are in network order.

use crate::smtp::{Alert, Heard, KeyGroup, Side, TlsFailure, TlsVersion};

/// Reads the server's octets along with OpenSSL.
#[derive(Debug, Default)]
pub(super) struct Overheard {
    pub(super) version: Option<TlsVersion>,
    pub(super) cipher: Option<u16>,
    pub(super) group: Option<KeyGroup>,
    pub(super) heard: Option<Heard>,
    pub(super) client_certificate_requested: bool,
    /// The last alert in clear text; warnings included, so it need not be why a handshake failed.
    pub(super) alert: Option<Alert>,
    header: Vec<u8>,
    /// Octets that the current record still has.
    left: usize,
    message: Vec<u8>,
    /// Octets of the current handshake message beyond those kept.
    passed_over: usize,
    /// Whether handshake messages can no longer be read.
    encrypted: bool,
}

impl Overheard {
    /// The server sent `octets`.
    ///
    /// # Errors
    /// If they should not be given to OpenSSL: they are no TLS, or would be too dear.
    pub(super) fn feed(&mut self, mut octets: &[u8]) -> Result<(), TlsFailure> {
        while let Some(&first) = octets.first() {
            if self.left == 0 {
                self.header.push(first);
                octets = &octets[1..];
                self.begin_record()?;
                continue;
            }
            let (body, rest) = octets.split_at(octets.len().min(self.left));
            self.left -= body.len();
            octets = rest;
            match self.header[0] {
                HANDSHAKE if !self.encrypted => self.handshake(body)?,
                ALERT if self.header[3..] == [0, 2] => self.alert(body),
                CHANGE_CIPHER_SPEC => {
                    self.encrypted = true;
                    self.heard = Some(Heard::ChangeCipherSpec);
                }
                _ => self.heard = Some(Heard::Encrypted),
            }
            if self.left == 0 {
                self.header.clear();
            }
        }
        Ok(())
    }

    /// Judges what there is of a record's header: type, version, length.
    fn begin_record(&mut self) -> Result<(), TlsFailure> {
        match self.header.as_slice() {
            [CHANGE_CIPHER_SPEC..=APPLICATION_DATA] | [_, 3] | [_, _, _] | [_, _, _, _] => Ok(()),
            [_, _, _, high, low] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length > MAX_RECORD {
                    return Err(TlsFailure::Garbage);
                }
                self.left = length;
                if length == 0 {
                    self.header.clear();
                }
                Ok(())
            }
            [first, ..] if first.is_ascii_graphic() => Err(TlsFailure::PlainText),
            _ => Err(TlsFailure::Garbage),
        }
    }

    fn alert(&mut self, body: &[u8]) {
        // Level and number may come apart; the number is the last octet of the two.
        if self.left == 0
            && let Some(&number) = body.last()
        {
            self.alert = Some(Alert {
                by: Side::Server,
                number,
            });
        }
    }

    /// Octets of the handshake protocol: messages of a type, three octets of length, and a body.
    fn handshake(&mut self, mut body: &[u8]) -> Result<(), TlsFailure> {
        while !body.is_empty() {
            if self.message.len() < 4 {
                let (head, rest) = body.split_at(body.len().min(4 - self.message.len()));
                self.message.extend_from_slice(head);
                body = rest;
                if self.message.len() < 4 {
                    return Ok(());
                }
            }
            let [_, a, b, c] = self.message[..4] else {
                return Ok(());
            };
            let length = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
            let missing = length - self.message.len() - self.passed_over;
            let (part, rest) = body.split_at(body.len().min(missing));
            let room = KEPT - self.message.len();
            self.message
                .extend_from_slice(&part[..part.len().min(room)]);
            self.passed_over += part.len().saturating_sub(room);
            body = rest;
            if part.len() == missing {
                self.understand()?;
                self.message.clear();
                self.passed_over = 0;
                if self.encrypted {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A whole message, or as much of it as is kept.
    fn understand(&mut self) -> Result<(), TlsFailure> {
        let (kind, body) = (self.message[0], &self.message[4..]);
        self.heard = Some(match kind {
            0 => Heard::HelloRequest,
            2 => {
                let Some(hello) = ServerHello::parse(body) else {
                    self.heard = Some(Heard::ServerHello);
                    return Ok(());
                };
                self.version = Some(hello.version);
                self.cipher = Some(hello.cipher);
                self.group = hello.group.map(KeyGroup::Named);
                if hello.is_retry {
                    Heard::HelloRetryRequest
                } else {
                    self.encrypted = hello.version == TLS_1_3;
                    Heard::ServerHello
                }
            }
            4 => Heard::NewSessionTicket,
            11 => Heard::Certificate,
            12 => {
                self.group = key_group(body);
                if let Some(KeyGroup::OwnDh(bits)) = self.group
                    && bits > MAX_DH_BITS
                {
                    self.heard = Some(Heard::ServerKeyExchange);
                    return Err(TlsFailure::DhTooLarge);
                }
                Heard::ServerKeyExchange
            }
            13 => {
                self.client_certificate_requested = true;
                Heard::CertificateRequest
            }
            14 => Heard::ServerHelloDone,
            22 => Heard::CertificateStatus,
            _ => Heard::Other,
        });
        Ok(())
    }
}

struct ServerHello {
    version: TlsVersion,
    cipher: u16,
    group: Option<u16>,
    is_retry: bool,
}

impl ServerHello {
    fn parse(body: &[u8]) -> Option<Self> {
        let (version, rest) = number(body)?;
        let (random, rest) = rest.split_at_checked(32)?;
        let (&session_id, rest) = rest.split_first()?;
        let (_, rest) = rest.split_at_checked(usize::from(session_id))?;
        let (cipher, rest) = number(rest)?;
        let (_compression, rest) = rest.split_first()?;
        let mut hello = Self {
            version: TlsVersion(version),
            cipher,
            group: None,
            is_retry: random == RETRY,
        };
        // SSL 3.0, and often TLS 1.0, have none; what is cut is not misread.
        let mut extensions = number(rest).map_or(&[][..], |(_, rest)| rest);
        while let Some((kind, rest)) = number(extensions)
            && let Some((length, rest)) = number(rest)
            && let Some((value, rest)) = rest.split_at_checked(usize::from(length))
        {
            match (kind, number(value)) {
                (SUPPORTED_VERSIONS, Some((version, _))) => hello.version = TlsVersion(version),
                (KEY_SHARE, Some((group, _))) => hello.group = Some(group),
                _ => {}
            }
            extensions = rest;
        }
        Some(hello)
    }
}

/// The group in a server key exchange. Its form follows from the cipher suite; without a table of
/// them: on a curve it is the octet 3, a number, and a point of fitting length (RFC 8422 section
/// 5.4), else the length of a prime (RFC 5246 section 7.4.3), which is below 0x0300 for all of up
/// to 6,136 bits.
fn key_group(body: &[u8]) -> Option<KeyGroup> {
    match body {
        [3, high, low, point, ..] if *high < 2 && *point >= 32 => {
            Some(KeyGroup::Named(u16::from_be_bytes([*high, *low])))
        }
        _ => {
            let (length, prime) = number(body)?;
            let zeros = prime.iter().take_while(|&&octet| octet == 0).count();
            let bits = usize::from(length).saturating_sub(zeros) * 8;
            let first = prime.get(zeros).map_or(8, |octet| octet.leading_zeros());
            Some(KeyGroup::OwnDh(
                u32::try_from(bits).ok()?.saturating_sub(first),
            ))
        }
    }
}

/// Two octets as a number, and what follows.
fn number(octets: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = octets.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
const TLS_1_3: TlsVersion = TlsVersion(0x0304);
/// The random of a server hello that is a hello retry request (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
/// Most octets of a record: 2^14 of text, 2,048 for what encryption adds (RFC 5246 section 6.2.3).
const MAX_RECORD: usize = 16_384 + 2_048;
/// Octets kept of a handshake message, its header included.
const KEPT: usize = 1_024;
/// The largest prime that is computed with: 40 ms of a core, during which nobody else is served.
const MAX_DH_BITS: u32 = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 3, 3];
        out.extend(
            u16::try_from(body.len())
                .expect("a short body")
                .to_be_bytes(),
        );
        out.extend(body);
        out
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len())
            .expect("a short body")
            .to_be_bytes();
        let mut out = vec![kind, length[1], length[2], length[3]];
        out.extend(body);
        out
    }

    fn server_hello(version: u16, random: [u8; 32], extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend(random);
        body.push(4);
        body.extend([9; 4]);
        body.extend([0xc0, 0x2f, 0]);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).expect("few").to_be_bytes());
            body.extend(extensions);
        }
        message(2, &body)
    }

    #[test]
    fn a_handshake_of_tls_1_2_is_read_to_its_group() {
        let mut flight = server_hello(0x0303, [7; 32], &[0xff, 1, 0, 1, 0]);
        flight.extend(message(11, &[5; 3_000]));
        flight.extend(message(12, &[3, 0, 23, 65, 4, 1, 1]));
        flight.extend(message(13, &[1, 1, 0, 0]));
        flight.extend(message(14, &[]));
        let mut overheard = Overheard::default();
        // Messages may be cut into records anyhow.
        for part in flight.chunks(700) {
            overheard.feed(&record(HANDSHAKE, part)).expect("TLS");
        }
        assert_eq!(overheard.version, Some(TlsVersion(0x0303)));
        assert_eq!(overheard.cipher, Some(0xc02f));
        assert_eq!(overheard.group, Some(KeyGroup::Named(23)));
        assert_eq!(overheard.heard, Some(Heard::ServerHelloDone));
        assert!(overheard.client_certificate_requested);
        overheard
            .feed(&record(CHANGE_CIPHER_SPEC, &[1]))
            .expect("TLS");
        overheard.feed(&record(HANDSHAKE, &[2; 40])).expect("TLS");
        assert_eq!(overheard.heard, Some(Heard::Encrypted));
        assert_eq!(overheard.cipher, Some(0xc02f));
    }

    #[test]
    fn tls_1_3_shows_its_version_and_group_in_extensions_only() {
        let share = [0, 43, 0, 2, 3, 4, 0, 51, 0, 6, 0, 29, 0, 2, 8, 8];
        let retry = [0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 24];
        let mut overheard = Overheard::default();
        let hello = server_hello(0x0303, RETRY, &retry);
        overheard.feed(&record(HANDSHAKE, &hello)).expect("TLS");
        assert_eq!(overheard.heard, Some(Heard::HelloRetryRequest));
        assert_eq!(overheard.group, Some(KeyGroup::Named(24)));
        let hello = server_hello(0x0303, [7; 32], &share);
        overheard.feed(&record(HANDSHAKE, &hello)).expect("TLS");
        assert_eq!(overheard.heard, Some(Heard::ServerHello));
        assert_eq!(overheard.version, Some(TLS_1_3));
        assert_eq!(overheard.group, Some(KeyGroup::Named(29)));
        overheard
            .feed(&record(APPLICATION_DATA, &[0; 99]))
            .expect("TLS");
        assert_eq!(overheard.heard, Some(Heard::Encrypted));
        assert_eq!(overheard.alert, None);
    }

    #[test]
    fn an_old_server_shows_its_version_and_its_alert() {
        let mut overheard = Overheard::default();
        let hello = server_hello(0x0300, [7; 32], &[]);
        overheard.feed(&record(HANDSHAKE, &hello)).expect("TLS");
        assert_eq!(overheard.version, Some(TlsVersion(0x0300)));
        overheard.feed(&[21, 3, 0, 0, 2]).expect("TLS");
        overheard.feed(&[2]).expect("TLS");
        assert_eq!(overheard.alert, None);
        overheard.feed(&[70]).expect("TLS");
        assert_eq!(overheard.alert.map(|alert| alert.number), Some(70));
    }

    #[test]
    fn a_prime_is_measured_before_it_is_computed_with() {
        let exchange = |octets: u16, first: u8| {
            let mut body = octets.to_be_bytes().to_vec();
            body.push(first);
            body.extend(vec![0xab; usize::from(octets) - 1]);
            message(12, &body)
        };
        let group = |octets, first| {
            let mut overheard = Overheard::default();
            let fed = overheard.feed(&record(HANDSHAKE, &exchange(octets, first)));
            (fed, overheard.group)
        };
        assert_eq!(group(64, 0x80), (Ok(()), Some(KeyGroup::OwnDh(512))));
        assert_eq!(group(129, 0), (Ok(()), Some(KeyGroup::OwnDh(1_024))));
        assert_eq!(group(512, 0xff), (Ok(()), Some(KeyGroup::OwnDh(4_096))));
        let (fed, group) = group(1_024, 0xff);
        assert_eq!(fed, Err(TlsFailure::DhTooLarge));
        assert_eq!(group, Some(KeyGroup::OwnDh(8_192)));
    }

    #[test]
    fn what_is_no_tls_is_known_by_its_first_octets() {
        for (octets, failure) in [
            (&b"5"[..], TlsFailure::PlainText),
            (b"\r\n", TlsFailure::Garbage),
            (b"\x80\x2e", TlsFailure::Garbage),
            (b"\x16\x02", TlsFailure::Garbage),
            (b"\x16\x03\x01\xff\xff", TlsFailure::Garbage),
        ] {
            assert_eq!(
                Overheard::default().feed(octets),
                Err(failure),
                "{octets:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic_however_they_are_cut(
            octets in proptest::collection::vec(any::<u8>(), 0..300),
            kind in 20_u8..24,
            cut in 1_usize..50,
        ) {
            let octets = record(kind, &octets);
            let mut whole = Overheard::default();
            let fed = whole.feed(&octets);
            let mut pieces = Overheard::default();
            let cut_fed = octets.chunks(cut).try_for_each(|piece| pieces.feed(piece));
            prop_assert_eq!(fed, cut_fed);
            prop_assert!(whole.message.len() <= KEPT && whole.header.len() <= 5);
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
