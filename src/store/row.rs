//! A host as a row: what goes in with a session's record, what comes out for readers.

use std::net::Ipv4Addr;

use serde::Serialize;
use serde_json::Value;

use super::tls::TlsRow;
use crate::fingerprint::{Category, Evidence, Replies, SynAck, Verdict};
use crate::session::SessionRecord;
use crate::smtp::{Outcome, Stage, TlsRecord, Transcript};

/// Everything about a host except what was said and what that means. Sequence numbers, window
/// and options are those of the SYN-ACK, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// The host's address.
    pub addr: Ipv4Addr,
    /// The probed port (25).
    pub sport: u16,
    /// When its SYN-ACK was seen, unix µs.
    pub timestamp_us: u64,
    /// When its session started, unix µs.
    pub started_us: u64,
    /// How the session ended.
    pub outcome: Outcome,
    /// What else is known about that end.
    pub detail: Option<String>,
    /// Milliseconds until the session's connection stood.
    pub connect_ms: Option<u32>,
    /// Milliseconds from the connection to the server's first octet.
    pub greeting_delay_ms: Option<u32>,
    /// Milliseconds from the session's start to its end.
    pub duration_ms: u32,
    /// TCP window, unscaled.
    pub window: u16,
    /// IP time to live on arrival.
    pub ttl: u8,
    /// IP identification.
    pub ip_id: u16,
    /// Our source port.
    pub our_port: u16,
    /// The sequence number of our SYN.
    pub our_seq: u32,
    /// The sequence number of the SYN-ACK.
    pub their_seq: u32,
    /// Maximum segment size, octets.
    pub mss: Option<u16>,
    /// Window scale, a power of two.
    pub wscale: Option<u8>,
    /// Selective acknowledgement permitted.
    pub sack_perm: bool,
    /// Timestamp value.
    pub ts_val: Option<u32>,
    /// Timestamp echo.
    pub ts_ecr: Option<u32>,
    /// Octets of the transcript that exceeded its cap and were not kept.
    pub cut: u64,
}

impl HostRow {
    /// What its SYN-ACK shows of the system.
    pub fn syn_ack(&self) -> SynAck {
        SynAck {
            ttl: self.ttl,
            window: self.window,
            mss: self.mss,
            wscale: self.wscale,
            sack_perm: self.sack_perm,
            ts_val: self.ts_val,
        }
    }

    /// The row of a finished session.
    pub(super) fn of(record: &SessionRecord) -> Self {
        let responder = &record.responder;
        let options = responder.options();
        Self {
            addr: responder.addr(),
            sport: responder.dport(),
            timestamp_us: responder.seen_us(),
            started_us: record.started_us,
            outcome: record.outcome,
            detail: record.detail.clone(),
            connect_ms: record.connect_ms,
            greeting_delay_ms: record.transcript.greeting_delay_ms(),
            duration_ms: record.duration_ms,
            window: responder.window(),
            ttl: responder.ttl(),
            ip_id: responder.ip_id(),
            our_port: responder.our_port(),
            our_seq: responder.our_seq(),
            their_seq: responder.their_seq(),
            mss: options.mss,
            wscale: options.wscale,
            sack_perm: options.sack_perm,
            ts_val: options.ts_val,
            ts_ecr: options.ts_ecr,
            cut: record.transcript.cut,
        }
    }
}

/// Whether a host counts as an SMTP server, here and in every table: by its words, and because
/// the session came to a well-formed greeting.
pub(super) fn is_smtp_server(outcome: Outcome, verdict: &Verdict) -> bool {
    verdict.is_smtp && outcome.is_smtp()
}

/// A host on its way into the survey.
#[derive(Debug)]
pub(crate) struct NewHost<'a> {
    pub(crate) row: HostRow,
    pub(crate) transcript: &'a Transcript,
    pub(crate) tls: Option<&'a TlsRecord>,
    pub(crate) verdict: &'a Verdict,
}

/// A host read back, with its transcript and its verdict under the current ruleset.
///
/// It holds plain fields and no [`crate::probe::Responder`]: what lies in a file proves nothing
/// to the session engine.
#[derive(Debug, Clone)]
pub struct StoredHost {
    /// The host's number in the survey, from 1, in the order in which sessions ended.
    pub id: i64,
    /// The host itself.
    pub row: HostRow,
    /// The dialogue, byte for byte.
    pub transcript: Transcript,
    /// What came of TLS, if it was begun.
    pub tls: Option<TlsRow>,
    /// The current verdict, in which `is_smtp` says whether the host counts as an SMTP server (its
    /// outcome counts too, not only its words), and text of servers has U+FFFD in place of control
    /// characters; `None` if this host was never judged under the current ruleset.
    pub verdict: Option<Verdict>,
}

impl StoredHost {
    /// What the server said, stage by stage, as rules judge it.
    pub fn replies(&self) -> Replies {
        let certificate = self.tls.as_ref().and_then(TlsRow::certificate);
        Replies::of(&self.transcript).with_certificate(certificate.as_ref())
    }
}

/// The category of that stable name.
pub(crate) fn category(name: &str) -> Option<Category> {
    const ALL: [Category; 6] = [
        Category::OpenSource,
        Category::Commercial,
        Category::HostedService,
        Category::Appliance,
        Category::Proxy,
        Category::Other,
    ];
    ALL.into_iter().find(|c| c.name() == name)
}

/// A piece of evidence as it is stored; evidence is an array of these.
#[derive(Serialize)]
struct EvidenceJson<'a> {
    stage: &'static str,
    rule: &'a str,
    matched: &'a str,
    weight: f64,
}

/// Evidence as it is stored: a JSON array of `{stage, rule, matched, weight}`.
pub(crate) fn evidence_json(evidence: &[Evidence]) -> impl Serialize {
    let items = evidence.iter().map(|e| EvidenceJson {
        stage: e.stage.name(),
        rule: &e.rule,
        matched: &e.matched,
        weight: e.weight,
    });
    items.collect::<Vec<_>>()
}

/// The reverse of [`evidence_json`]; `None` if it is no such array.
pub(crate) fn evidence_from(text: &str) -> Option<Vec<Evidence>> {
    let Value::Array(items) = serde_json::from_str(text).ok()? else {
        return None;
    };
    items
        .iter()
        .map(|e| {
            Some(Evidence {
                stage: Stage::from_name(e["stage"].as_str()?)?,
                rule: e["rule"].as_str()?.into(),
                matched: e["matched"].as_str()?.into(),
                weight: e["weight"].as_f64()?,
            })
        })
        .collect()
}
