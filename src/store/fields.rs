//! The columns of an exported row: name, type, meaning and where each comes from.
//!
//! One table serves CSV, NDJSON, the tool's own list of fields and the documentation. Names
//! follow zmap where zmap has the field; `timestamp_us` too is zmap's: the microseconds within
//! the second, not the whole time as in the `hosts` table.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;

use super::row::StoredHost;
use super::tls::{TlsRow, hex};
use super::{StoreError, text};
use sha2::{Digest as _, Sha256};

use crate::fingerprint::{Category, Verdict};
use crate::smtp::{Certificate, Stage};

/// What a field's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A number with a fraction.
    Number,
    /// `true` or `false` (1 or 0 in CSV).
    Boolean,
    /// Text of our making.
    Text,
    /// Text that a server chose; escaped in CSV.
    Words,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "int",
            Self::Number => "float",
            Self::Boolean => "bool",
            Self::Text | Self::Words => "string",
        })
    }
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    /// Unknown, or does not apply.
    Empty,
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Text(Cow<'a, str>),
    Words(Cow<'a, [u8]>),
}

/// What a row needs to know beside its host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context {
    /// The sweep's source address, if the survey tells it.
    pub(crate) daddr: Option<Ipv4Addr>,
}

/// One column.
pub struct Field {
    /// Its name, the same in all formats.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Whether it is there without being asked for.
    pub default: bool,
    /// What it means, with its unit.
    pub description: &'static str,
    pub(crate) cell: for<'a> fn(&'a StoredHost, Context) -> Cell<'a>,
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish()
    }
}

/// The fields that hold what was said.
pub(super) const DIALOGUE: &[&str] = &[
    "banner",
    "ehlo",
    "helo",
    "help",
    "noop",
    "unknown",
    "nul",
    "helo_noarg",
    "starttls",
    "tls_ehlo",
    "quit",
];

/// A choice of columns, in order.
#[derive(Debug, Clone)]
pub struct Fields(Vec<&'static Field>);

impl Default for Fields {
    fn default() -> Self {
        Self(FIELDS.iter().filter(|f| f.default).collect())
    }
}

impl Fields {
    /// Every field.
    pub(super) fn all() -> Self {
        Self(FIELDS.iter().collect())
    }

    /// The columns of a comma-separated list of names; `*` is all of them.
    ///
    /// # Errors
    /// [`StoreError::UnknownField`], which lists the names there are.
    pub fn parse(list: &str) -> Result<Self, StoreError> {
        if list.trim() == "*" {
            return Ok(Self::all());
        }
        list.split(',')
            .map(|name| {
                let name = name.trim();
                FIELDS
                    .iter()
                    .find(|f| f.name == name)
                    .ok_or_else(|| StoreError::UnknownField {
                        name: text::escape_short(name.as_bytes(), 60),
                        known: FIELDS.iter().map(|f| f.name).collect::<Vec<_>>().join(", "),
                    })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The chosen columns in order.
    pub fn iter(&self) -> impl Iterator<Item = &'static Field> + '_ {
        self.0.iter().copied()
    }

    /// Whether a column about TLS is among them.
    pub(crate) fn want_tls(&self) -> bool {
        self.0.iter().any(|f| f.name.starts_with("tls_"))
    }

    /// Whether a column of the dialogue's text is among them.
    pub(crate) fn want_transcript(&self) -> bool {
        self.0.iter().any(|f| DIALOGUE.contains(&f.name))
    }
}

fn integer<'a>(value: impl Into<i64>) -> Cell<'a> {
    Cell::Integer(value.into())
}

fn maybe<'a, T: Into<i64>>(value: Option<T>) -> Cell<'a> {
    value.map_or(Cell::Empty, integer)
}

fn large<'a>(value: u64) -> Cell<'a> {
    Cell::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn text(value: &str) -> Cell<'_> {
    Cell::Text(Cow::Borrowed(value))
}

fn words(value: Option<&str>) -> Cell<'_> {
    value.map_or(Cell::Empty, |v| Cell::Words(Cow::Borrowed(v.as_bytes())))
}

fn some_text(value: Option<&str>) -> Cell<'_> {
    value.map_or(Cell::Empty, text)
}

fn tls<'a>(host: &'a StoredHost, cell: impl FnOnce(&'a TlsRow) -> Cell<'a>) -> Cell<'a> {
    host.tls.as_ref().map_or(Cell::Empty, cell)
}

fn certified(host: &StoredHost, words: impl FnOnce(&Certificate) -> String) -> Cell<'_> {
    let certificate = host.tls.as_ref().and_then(TlsRow::certificate);
    certificate.map_or(Cell::Empty, |certificate| {
        Cell::Words(Cow::Owned(words(&certificate).into_bytes()))
    })
}

fn judged<'a>(host: &'a StoredHost, cell: impl FnOnce(&'a Verdict) -> Cell<'a>) -> Cell<'a> {
    host.verdict.as_ref().map_or(Cell::Empty, cell)
}

fn stage<'a>(host: &StoredHost, stage: Stage) -> Cell<'a> {
    host.transcript
        .server(stage)
        .map_or(Cell::Empty, |said| Cell::Words(Cow::Owned(said)))
}

/// Unix microseconds as zmap writes times, always UTC: `2026-11-22T14:39:00.123+0000`.
fn zmap_time(us: u64) -> String {
    time(us).strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string()
}

/// Unix microseconds as a moment; what exceeds the calendar (year 9999) becomes its end.
pub(crate) fn time(us: u64) -> jiff::Timestamp {
    i64::try_from(us)
        .ok()
        .and_then(|us| jiff::Timestamp::from_microsecond(us).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

macro_rules! fields {
    ($($name:literal $kind:ident $default:literal $description:literal $cell:expr;)*) => {
        /// Every column there is, in the order of a row.
        pub static FIELDS: &[Field] = &[$(Field {
            name: $name,
            kind: Kind::$kind,
            default: $default,
            description: $description,
            cell: $cell,
        },)*];
    };
}

fields! {
    "saddr" Text true "the host's address (the source of its SYN-ACK)"
        |h, _| Cell::Text(Cow::Owned(h.row.addr.to_string()));
    "sport" Integer true "the probed port"
        |h, _| integer(h.row.sport);
    "daddr" Text false "our address (the destination of its SYN-ACK)"
        |_, c| c.daddr.map_or(Cell::Empty, |a| Cell::Text(Cow::Owned(a.to_string())));
    "dport" Integer false "our port"
        |h, _| integer(h.row.our_port);
    "seqnum" Integer false "sequence number of the SYN-ACK"
        |h, _| integer(h.row.their_seq);
    "acknum" Integer false "acknowledgement number of the SYN-ACK"
        |h, _| integer(h.row.our_seq.wrapping_add(1));
    "window" Integer true "TCP window of the SYN-ACK, unscaled octets"
        |h, _| integer(h.row.window);
    "ttl" Integer true "IP time to live of the SYN-ACK on arrival"
        |h, _| integer(h.row.ttl);
    "ipid" Integer true "IP identification of the SYN-ACK"
        |h, _| integer(h.row.ip_id);
    "tcpopt_mss" Integer true "TCP option: maximum segment size, octets"
        |h, _| maybe(h.row.mss);
    "tcpopt_wscale" Integer true "TCP option: window scale, power of two"
        |h, _| maybe(h.row.wscale);
    "tcpopt_sack_perm" Boolean true "TCP option: selective acknowledgement permitted"
        |h, _| Cell::Boolean(h.row.sack_perm);
    "tcpopt_ts_val" Integer true "TCP option: timestamp value"
        |h, _| maybe(h.row.ts_val);
    "tcpopt_ts_ecr" Integer true "TCP option: timestamp echo"
        |h, _| maybe(h.row.ts_ecr);
    "classification" Text true "kind of the reply to the probe: always synack"
        |_, _| text("synack");
    "success" Boolean true "whether the probe found the port open: always true"
        |_, _| Cell::Boolean(true);
    "timestamp_str" Text true "when the SYN-ACK came, UTC"
        |h, _| Cell::Text(Cow::Owned(zmap_time(h.row.timestamp_us)));
    "timestamp_ts" Integer true "when the SYN-ACK came, unix seconds"
        |h, _| large(h.row.timestamp_us / 1_000_000);
    "timestamp_us" Integer true "microseconds within that second"
        |h, _| large(h.row.timestamp_us % 1_000_000);
    "outcome" Text true "how the session ended"
        |h, _| text(h.row.outcome.name());
    "detail" Words true "what else is known about that end"
        |h, _| words(h.row.detail.as_deref());
    "product" Words true "the mail server software; empty if unknown"
        |h, _| judged(h, |v| words(v.product.as_deref()));
    "vendor" Words true "its vendor"
        |h, _| judged(h, |v| words(v.vendor.as_deref()));
    "version" Words true "its version, where the server says it"
        |h, _| judged(h, |v| words(v.version.as_deref()));
    "family" Words true "what the product is counted under in coarser tables"
        |h, _| judged(h, |v| words(v.family.as_deref()));
    "patch" Words true "a patch level stated apart from the version"
        |h, _| judged(h, |v| words(v.patch.as_deref()));
    "category" Text true "open source, commercial, hosted service, appliance, proxy, other"
        |h, _| judged(h, |v| v.category.map_or(Cell::Empty, |c| text(Category::name(c))));
    "confidence" Number true "how sure the verdict is, 0 to 1"
        |h, _| judged(h, |v| Cell::Number(v.confidence));
    "is_smtp" Boolean true "whether the host counts as an SMTP server"
        |h, _| judged(h, |v| Cell::Boolean(v.is_smtp));
    "protocol" Words true "what spoke instead of SMTP, if known: FTP, SSH, ..."
        |h, _| judged(h, |v| words(v.protocol.as_deref()));
    "hostname" Words true "the name by which the server calls itself"
        |h, _| judged(h, |v| words(v.hostname.as_deref()));
    "os" Words true "the operating system, where it shows"
        |h, _| judged(h, |v| words(v.os.as_deref()));
    "tcp_os" Text false "system guessed from the SYN-ACK: window, options, time to live"
        |h, _| h.row.syn_ack().system().map_or(Cell::Empty, text);
    "uptime_days_min" Number false "days since that system started, at least; empty where timestamps tell nothing"
        |h, _| h.row.syn_ack().uptime_days().map_or(Cell::Empty, |(least, _)| Cell::Number(least));
    "uptime_days_max" Number false "the same at most: the clock's rate is not known"
        |h, _| h.row.syn_ack().uptime_days().map_or(Cell::Empty, |(_, most)| Cell::Number(most));
    "cluster" Words true "normalised greeting of an unknown server"
        |h, _| judged(h, |v| words(v.cluster.as_deref()));
    "connect_ms" Integer true "time until the session's connection stood, ms"
        |h, _| maybe(h.row.connect_ms);
    "greeting_delay_ms" Integer true "time from the connection to the first octet, ms"
        |h, _| maybe(h.row.greeting_delay_ms);
    "duration_ms" Integer true "time from the session's start to its end, ms"
        |h, _| integer(h.row.duration_ms);
    "tls_start" Text false "how TLS was begun: starttls, implicit; empty if it was not"
        |h, _| tls(h, |t| text(&t.start));
    "tls_version" Text true "the TLS version that the server chose"
        |h, _| tls(h, |t| some_text(t.version.as_deref()));
    "tls_cipher" Text true "the cipher suite that the server chose, by IANA's name"
        |h, _| tls(h, |t| some_text(t.cipher.as_deref()));
    "tls_group" Text true "what the keys were agreed with: a named group, or dhBITS"
        |h, _| tls(h, |t| some_text(t.key_group.as_deref()));
    "tls_failure" Text true "why no TLS came about, or why it broke"
        |h, _| tls(h, |t| some_text(t.failure.as_deref()));
    "tls_alert" Text true "the alert that came with the failure"
        |h, _| tls(h, |t| some_text(t.alert_name.as_deref()));
    "tls_handshake_ms" Integer false "time of the handshake, ms"
        |h, _| tls(h, |t| maybe(t.handshake_ms));
    "tls_sha256" Text false "SHA-256 of the server's certificate"
        |h, _| tls(h, |t| t.chain.first().map_or(Cell::Empty, |der| Cell::Text(Cow::Owned(hex(&Sha256::digest(der))))));
    "tls_subject" Words false "whom the server's certificate is for"
        |h, _| certified(h, |c| c.subject.to_string());
    "tls_issuer" Words false "who made the server's certificate"
        |h, _| certified(h, |c| c.issuer.to_string());
    "cut" Integer false "octets beyond the transcript's cap, not kept"
        |h, _| large(h.row.cut);
    "banner" Words false "the greeting"
        |h, _| stage(h, Stage::Greeting);
    "ehlo" Words false "the reply to EHLO"
        |h, _| stage(h, Stage::Ehlo);
    "helo" Words false "the reply to HELO"
        |h, _| stage(h, Stage::Helo);
    "help" Words false "the reply to HELP"
        |h, _| stage(h, Stage::Help);
    "noop" Words false "the reply to NOOP with a contact"
        |h, _| stage(h, Stage::Noop);
    "unknown" Words false "the reply to an unknown verb"
        |h, _| stage(h, Stage::Unknown);
    "nul" Words false "the reply to NOOP with a NUL behind it"
        |h, _| stage(h, Stage::Nul);
    "helo_noarg" Words false "the reply to HELO without argument"
        |h, _| stage(h, Stage::HeloNoarg);
    "starttls" Words false "the reply to STARTTLS"
        |h, _| stage(h, Stage::Starttls);
    "tls_ehlo" Words false "the reply to EHLO within TLS"
        |h, _| stage(h, Stage::TlsEhlo);
    "quit" Words false "the reply to QUIT"
        |h, _| stage(h, Stage::Quit);
}
