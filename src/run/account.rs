//! The accounting of a sweep: what was sent, what came back, what was stored, and the proof that
//! it adds up; and the run's metadata, in zmap's keys where they exist.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use thiserror::Error;

use super::Finish;
use super::receive::{Received, ReplyTally};
use super::send::Sent;
use super::watch::Watch;
use crate::config::{Pace, ScanPlan};
use crate::probe::unreachable_name;
use crate::rate::PacketsPerSecond;
use crate::smtp::{Contact, Fqdn, Outcome, TlsStart};
use crate::store::{count, key};

/// Counts of a sweep that contradict each other: a defect of this program, never of the network.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the counts do not add up (please report this): {0}")]
pub struct Unbalanced(String);

/// The final counts of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Addresses in the space.
    pub space: u64,
    /// Addresses for which a probe left.
    pub sent: u64,
    /// Probes that left: so many for each of them.
    pub probes: u64,
    /// Whether the walk (or the shard's part of it) came to its end.
    pub walk_complete: bool,
    /// Whether the walk covers the space: one shard, no limit.
    pub walk_whole: bool,
    /// What came back.
    pub replies: ReplyTally,
    /// Sessions by outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Connections made of the probes' handshakes.
    pub adopted: u64,
    /// Connections begun anew.
    pub dialled: u64,
    /// Commands said in all sessions.
    pub commands: u64,
    /// Hosts to which any was said.
    pub spoken_to: u64,
    /// Hosts stored.
    pub stored: u64,
    /// Time spent sending.
    pub send_time: Duration,
    /// Time within it during which sessions held the sender back.
    pub held_back: Duration,
    /// Where the walk of each sender stands.
    pub cursors: Vec<String>,
    /// How long sessions took: the filled buckets of each histogram, by name.
    pub timings: Vec<(&'static str, Buckets)>,
}

/// For each bucket that is not empty the milliseconds below which it lies, and its count.
type Buckets = Vec<(Option<u64>, u64)>;

impl Account {
    /// Collects the stages' final counts, also of those that failed.
    pub(super) fn new(
        plan: &ScanPlan,
        watch: &Watch,
        sent: &[anyhow::Result<Sent>],
        received: &anyhow::Result<Received>,
        stored: u64,
    ) -> Self {
        let longest = |time: fn(&Sent) -> Duration| sent.iter().flatten().map(time).max();
        // A thread that panicked left what it had told.
        let progress = watch.shared.progress().clone();
        Self {
            space: plan.space.len(),
            sent: watch.shared.targets.load(Ordering::Relaxed),
            probes: watch.shared.sent.load(Ordering::Relaxed),
            walk_complete: sent
                .iter()
                .all(|sent| sent.as_ref().is_ok_and(|sent| sent.complete)),
            walk_whole: plan.shard.total == 1 && plan.max_targets.is_none(),
            replies: received
                .as_ref()
                .map_or(progress.replies, |received| received.tally.clone()),
            outcomes: Outcome::ALL
                .iter()
                .map(|outcome| (*outcome, watch.sessions.ended(*outcome)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            adopted: watch.sessions.adopted(),
            dialled: watch.sessions.dialled(),
            commands: watch.sessions.commands(),
            spoken_to: watch.sessions.spoken_to(),
            stored,
            send_time: longest(|sent| sent.time).unwrap_or_default(),
            held_back: longest(|sent| sent.held_back).unwrap_or_default(),
            cursors: progress.cursors,
            timings: watch
                .sessions
                .timings()
                .named()
                .map(|(name, histogram)| (name, histogram.filled()))
                .into(),
        }
    }

    /// Addresses of the space that were not probed (limit, interrupt, other shards).
    pub fn not_sent(&self) -> u64 {
        self.space.saturating_sub(self.sent)
    }

    /// Probed addresses that never answered.
    pub fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.replies.answered())
    }

    /// Commands said to a host, on the average of those to which any was said.
    pub fn mean_commands(&self) -> Option<f64> {
        (self.spoken_to > 0).then(|| self.commands as f64 / self.spoken_to as f64)
    }

    /// Sessions that ended.
    pub fn sessions(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Addresses in space = sent + not sent, answered ≤ sent, and
    /// validated responders = session outcomes = stored hosts.
    ///
    /// # Errors
    /// Says which of the identities does not hold, with the numbers.
    pub fn check(&self) -> Result<(), Unbalanced> {
        let (sent, space) = (self.sent, self.space);
        if sent > space || (self.walk_complete && self.walk_whole && sent != space) {
            return Err(Unbalanced(format!(
                "{sent} probes were sent to {space} addresses"
            )));
        }
        let answered = self.replies.answered();
        if answered > sent {
            return Err(Unbalanced(format!(
                "{answered} addresses answered {sent} probes"
            )));
        }
        let (responders, sessions) = (self.replies.responders(), self.sessions());
        if responders != sessions || sessions != self.stored {
            return Err(Unbalanced(format!(
                "{responders} responders, {sessions} session outcomes, {} stored hosts",
                self.stored
            )));
        }
        Ok(())
    }

    /// The probes' fate as (kind, name, count), for the survey file.
    pub(super) fn probe_counts(&self) -> Vec<(&'static str, String, u64)> {
        probe_counts(self.space, self.sent, &self.replies)
    }

    /// A limit that was reached with the last target changes nothing: the run is complete.
    pub(super) fn finish(&self, finish: Finish) -> Finish {
        match finish {
            Finish::Limit(_) if self.walk_complete => Finish::Complete,
            finish => finish,
        }
    }

    /// What a person wants to read at the end of a sweep.
    pub(super) fn summary(&self, finish: Finish, elapsed: Duration, file: &Path) -> String {
        let replies = &self.replies;
        let mut text = format!(
            "\n{} in {:.1} s: {} of {} addresses probed ({} not)\n",
            finish.describe(),
            elapsed.as_secs_f64(),
            self.sent,
            self.space,
            self.not_sent(),
        );
        let mut put = |line: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(line);
        };
        put(format_args!(
            "answers:  {} SYN-ACK, {} RST, {} ICMP errors, {} none; {} repeats, {} frames lost\n",
            replies.responders(),
            replies.reset,
            replies.icmp.values().sum::<u64>(),
            self.unanswered(),
            replies.repeats,
            replies.lost,
        ));
        put(format_args!("sessions: {} =", self.sessions()));
        for (place, (outcome, count)) in self.outcomes.iter().enumerate() {
            let plus = if place == 0 { "" } else { " +" };
            put(format_args!("{plus} {count} {outcome}"));
        }
        if self.outcomes.is_empty() {
            put(format_args!(" none"));
        }
        put(format_args!(
            "\nadds up:  {} responders = {} session outcomes = {} stored hosts\n",
            replies.responders(),
            self.sessions(),
            self.stored
        ));
        if let Some(mean) = self.mean_commands() {
            let hosts = self.spoken_to;
            put(format_args!(
                "dialogue: {mean:.2} commands a host on the average of {hosts}\n"
            ));
        }
        if self.timings.iter().any(|(_, buckets)| !buckets.is_empty()) {
            put(format_args!(
                "times:    {}\n",
                times(&self.timings).join("; ")
            ));
        }
        let file = file.display();
        put(format_args!(
            "survey:   {file}\nnext:     smtpsweep report {file}\n"
        ));
        text
    }
}

/// For people: below which times half and nearly all sessions stayed.
fn times(timings: &[(&'static str, Buckets)]) -> Vec<String> {
    timings
        .iter()
        .filter(|(_, buckets)| !buckets.is_empty())
        .map(|(name, buckets)| {
            let all: u64 = buckets.iter().map(|(_, count)| count).sum();
            let below = |share: f64| {
                let mut counted = 0;
                let bucket = buckets.iter().find(|(_, count)| {
                    counted += count;
                    counted as f64 >= share * all as f64
                });
                match bucket.and_then(|(bound, _)| *bound) {
                    Some(ms) if ms < 1_000 => format!("<{ms} ms"),
                    Some(ms) => format!("<{:.0} s", ms as f64 / 1_000.0),
                    None => "more".to_owned(),
                }
            };
            let name = name.trim_end_matches("_ms").replace('_', " ");
            format!("{name} {}, 99 % {}", below(0.5), below(0.99))
        })
        .collect()
}

/// Histograms as JSON: for each the counts by the milliseconds that all in a bucket fell short of.
fn timings_json(timings: &[(&'static str, Buckets)]) -> Value {
    let object = |buckets: &Buckets| {
        buckets
            .iter()
            .map(|(bound, count)| {
                let name = bound.map_or_else(|| "more".to_owned(), |ms| format!("<{ms}"));
                (name, json!(count))
            })
            .collect::<serde_json::Map<_, _>>()
    };
    timings
        .iter()
        .map(|(name, buckets)| ((*name).to_owned(), Value::Object(object(buckets))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The probes' fate as (kind, name, count), for the survey file.
pub(super) fn probe_counts(
    space: u64,
    sent: u64,
    replies: &ReplyTally,
) -> Vec<(&'static str, String, u64)> {
    let unanswered = sent.saturating_sub(replies.answered());
    let mut counts = vec![
        (count::PROBE, count::SENT.to_owned(), sent),
        (
            count::PROBE,
            "not_sent".to_owned(),
            space.saturating_sub(sent),
        ),
        (count::REPLY, count::SYN_ACK.to_owned(), replies.synack),
        (
            count::REPLY,
            count::SYN_ACK_LATER.to_owned(),
            replies.synack_later,
        ),
        (count::REPLY, count::RST.to_owned(), replies.reset),
        (count::REPLY, "none".to_owned(), unanswered),
    ];
    for ((icmp_type, icmp_code), count) in &replies.icmp {
        counts.push((count::ICMP, icmp_name(*icmp_type, *icmp_code), *count));
    }
    counts.push((count::DUPLICATE, "any".to_owned(), replies.repeats));
    counts.push((
        count::ICMP_REMARK,
        "source quench, redirect".to_owned(),
        replies.remarks,
    ));
    counts.push((count::BLOCKED, "any".to_owned(), replies.not_admitted));
    counts.push((count::DROP, "lost by the kernel".to_owned(), replies.lost));
    for (reason, count) in &replies.ignored {
        counts.push((count::DROP, (*reason).to_owned(), *count));
    }
    counts
}

fn icmp_name(icmp_type: u8, icmp_code: u8) -> String {
    format!(
        "{icmp_type}/{icmp_code} {}",
        unreachable_name(icmp_type, icmp_code)
    )
}

/// The run's metadata: an ordered object of JSON values.
pub(super) struct Metadata(serde_json::Map<String, Value>);

impl Metadata {
    /// What is known before the first probe.
    pub(super) fn begin(
        plan: &ScanPlan,
        source: Ipv4Addr,
        described: &[(&'static str, Value)],
        rate: PacketsPerSecond,
    ) -> Self {
        let mut map = serde_json::Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("program", json!("smtpsweep"));
        put(key::VERSION, json!(env!("CARGO_PKG_VERSION")));
        put(key::STATE, json!("running"));
        put(key::STARTED_US, json!(Timestamp::now().as_microsecond()));
        put("start_time", json!(Timestamp::now().to_string()));
        put(key::TARGETS, json!(named_targets(plan)));
        put(key::ADDRESSES, json!(plan.space.len()));
        put(
            "local_hostname",
            json!(read_line("/proc/sys/kernel/hostname")),
        );
        put("target_ports", json!([plan.target_port]));
        put(key::SOURCE, json!(source.to_string()));
        put("source_ips", json!([source.to_string()]));
        put("source_port_first", json!(plan.source_ports.0));
        put("source_port_last", json!(plan.source_ports.1));
        for (key, value) in described {
            put(key, value.clone());
        }
        put(key::RATE, json!(rate.value()));
        put(
            "bandwidth",
            match plan.pace {
                Pace::Rate(_) => Value::Null,
                Pace::Bandwidth(bandwidth) => json!(bandwidth.bits_per_second()),
            },
        );
        put("sender_threads", json!(plan.sender_threads));
        put("probe_args", json!(plan.layout.name()));
        put("probe_ttl", json!(plan.ttl));
        put("cooldown_secs", json!(plan.cooldown.as_secs_f64()));
        put("probes", json!(plan.probes));
        put("max_targets", json!(plan.max_targets));
        put(
            "max_runtime",
            json!(plan.max_runtime.map(|time| time.as_secs())),
        );
        put("max_results", json!(plan.max_results));
        put(key::SEED, json!(plan.seed));
        put("seed_provided", json!(plan.seed_provided));
        put("nonce", json!(hex(&plan.nonce)));
        put("prime", json!(plan.permutation.prime()));
        put("generator", json!(plan.permutation.generator()));
        if plan.shard.total > 1 {
            put(key::SHARD, json!(plan.shard.to_string()));
        }
        put("shard_num", json!(plan.shard.index));
        put("total_shards", json!(plan.shard.total));
        put("targets_wanted", json!(plan.wanted));
        put("blocklist_total_allowed", json!(plan.space.len()));
        put(
            "blocklist_total_not_allowed",
            json!(plan.wanted - plan.space.len()),
        );
        put("default_blocklist", json!(plan.default_blocklist));
        put("blocklist_digest", json!(hex(&plan.blocklist.digest())));
        put("space_digest", json!(hex(&plan.space.digest())));
        put(
            "blocklist_filename",
            json!(names(&plan.args.blocklist.blocklist_file)),
        );
        put(
            "allowlist_filename",
            json!(names(&plan.args.allowlist_file)),
        );
        put(
            "list_of_ips_filename",
            json!(names(&plan.args.list_of_ips_file)),
        );
        put("cli_cidr_destinations", json!(plan.args.targets));
        put("output_filename", json!(plan.output.to_string_lossy()));
        put("ehlo_name", json!(plan.dialogue.ehlo(source).to_string()));
        put("dialogue", json!(plan.dialogue.depth.name()));
        let contact = plan.dialogue.contact.as_ref().map(Contact::as_str);
        put("contact", json!(contact));
        put("tls", json!(plan.dialogue.tls.map(TlsStart::name)));
        put(
            "sni",
            json!(plan.dialogue.sni.as_ref().map(Fqdn::to_string)),
        );
        put("max_sessions", json!(plan.max_sessions));
        put("max_sessions_per_24", json!(plan.max_sessions_per_24));
        let per_as = plan.per_as.as_ref().map(|cap| cap.most);
        put("max_sessions_per_as", json!(per_as));
        put(
            "prefix2as_filename",
            json!(
                plan.args
                    .prefix2as
                    .as_ref()
                    .map(|path| path.to_string_lossy())
            ),
        );
        let timeouts = &plan.dialogue.timeouts;
        put(
            "connect_timeout_secs",
            json!(timeouts.connect.as_secs_f64()),
        );
        put(
            "greeting_timeout_secs",
            json!(timeouts.greeting.as_secs_f64()),
        );
        put("step_timeout_secs", json!(timeouts.step.as_secs_f64()));
        put(
            "session_timeout_secs",
            json!(timeouts.session.as_secs_f64()),
        );
        put("rules_digest", json!(plan.rules.digest()));
        put("notes", json!(plan.notes));
        put(
            "user-metadata",
            plan.user_metadata.clone().unwrap_or(Value::Null),
        );
        Self(map)
    }

    /// Adds what is known after the last record.
    pub(super) fn end(
        &mut self,
        account: &Account,
        smtp_hosts: Option<u64>,
        finish: Finish,
        failure: Option<&anyhow::Error>,
        elapsed: Duration,
    ) {
        let mut put = |key: &str, value: Value| {
            self.0.insert(key.to_owned(), value);
        };
        let replies = &account.replies;
        if let Some(failure) = failure {
            put(key::STATE, json!("failed"));
            put("finish", json!(failure.to_string()));
            put("exit_code", json!(1));
        } else {
            put(key::STATE, json!(finish.state()));
            put("finish", json!(finish.describe()));
            put("exit_code", json!(finish.exit_code()));
        }
        put(key::ENDED_US, json!(Timestamp::now().as_microsecond()));
        put("end_time", json!(Timestamp::now().to_string()));
        put("duration_secs", json!(elapsed.as_secs_f64()));
        put("send_duration_secs", json!(account.send_time.as_secs_f64()));
        put("held_back_secs", json!(account.held_back.as_secs_f64()));
        put("cursors", json!(account.cursors));
        put("packets_sent", json!(account.probes));
        put("targets_scanned", json!(account.sent));
        put("targets_not_sent", json!(account.not_sent()));
        put(
            "validation_passed",
            json!(replies.answered() + replies.synack_later + replies.repeats),
        );
        put(
            "validation_failed",
            json!(replies.ignored.values().sum::<u64>()),
        );
        put("success_unique", json!(replies.responders()));
        put(
            "failure_total",
            json!(replies.reset + replies.icmp.values().sum::<u64>()),
        );
        put("app_success_unique", json!(smtp_hosts));
        put(
            "hitrate",
            json!(100.0 * replies.responders() as f64 / account.sent.max(1) as f64),
        );
        put("commands_sent", json!(account.commands));
        put(key::MEAN_COMMANDS, json!(account.mean_commands()));
        put("pcap_recv", json!(replies.frames));
        put("pcap_drop", json!(replies.lost));
        let counts = |pairs: Vec<(String, u64)>| {
            Value::Object(
                pairs
                    .into_iter()
                    .map(|(name, count)| (name, json!(count)))
                    .collect(),
            )
        };
        let named = account
            .probe_counts()
            .into_iter()
            .map(|(kind, name, count)| (format!("{kind}.{name}"), count));
        put("probe_counts", counts(named.collect()));
        let outcomes = account
            .outcomes
            .iter()
            .map(|(o, n)| (o.name().to_owned(), *n));
        put("outcomes", counts(outcomes.collect()));
        put("sessions_adopted", json!(account.adopted));
        put("sessions_dialled", json!(account.dialled));
        put("timings", timings_json(&account.timings));
        put("stored_hosts", json!(account.stored));
    }

    /// Adds what became known after the beginning.
    pub(super) fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Every key with its value.
    pub(super) fn entries(&self) -> Vec<(&str, Value)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect()
    }

    /// Writes the metadata as JSON to what [`open_metadata`] opened.
    pub(super) fn write(&self, out: Option<(String, Box<dyn Write>)>) -> anyhow::Result<()> {
        let Some((name, mut out)) = out else {
            return Ok(());
        };
        let text = format!("{:#}\n", Value::Object(self.0.clone()));
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .with_context(|| format!("cannot write the metadata to {name}"))
    }
}

/// Opens what `--metadata-file` names, before anything is sent.
pub(super) fn open_metadata(
    path: Option<&Path>,
) -> anyhow::Result<Option<(String, Box<dyn Write>)>> {
    let Some(path) = path else { return Ok(None) };
    if path == Path::new("-") {
        return Ok(Some((
            "standard output".to_owned(),
            Box::new(std::io::stdout()),
        )));
    }
    let file = File::create(path)
        .with_context(|| format!("cannot write the metadata to {}", path.display()))?;
    Ok(Some((path.display().to_string(), Box::new(file))))
}

/// The targets as the user named them: on the command line, and the files of lists.
fn named_targets(plan: &ScanPlan) -> Vec<String> {
    let mut targets = plan.args.targets.clone();
    for (option, files) in [
        ("-w", &plan.args.allowlist_file),
        ("-I", &plan.args.list_of_ips_file),
    ] {
        targets.extend(
            files
                .iter()
                .map(|file| format!("{option} {}", file.display())),
        );
    }
    targets
}

fn names(paths: &[std::path::PathBuf]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn read_line(path: &str) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_for_people_and_for_programs() {
        let timings = [
            ("connect_ms", vec![(Some(1), 90), (Some(512), 9), (None, 1)]),
            ("greeting_delay_ms", vec![(Some(8), 1), (Some(8_192), 1)]),
            ("step_ms", vec![]),
        ];
        assert_eq!(
            times(&timings),
            [
                "connect <1 ms, 99 % <512 ms",
                "greeting delay <8 ms, 99 % <8 s"
            ]
        );
        assert_eq!(
            timings_json(&timings),
            json!({
                "connect_ms": {"<1": 90, "<512": 9, "more": 1},
                "greeting_delay_ms": {"<8": 1, "<8192": 1},
                "step_ms": {},
            })
        );
    }
}
