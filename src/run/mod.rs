//! The whole sweep on one page: threads, channels, backpressure, shutdown, accounting.
//!
//! ```text
//!  send ──SYN──▶ wire ──▶ receive ──Responder──▶ session::Engine ──SessionRecord──▶ write ──▶ survey
//!    ▲                                                 │
//!    └───────────── waits while too many are queued ───┘
//! ```
//!
//! [`sweep`] owns the order of things: it starts the threads, ticks every 50 ms, turns signals and
//! limits into "stop sending", waits for the cooldown, lets the stages end one after the other
//! (each ends when its input does) and then checks that the counts add up. A stage that fails
//! stops the sweep, never silently: what is committed stays, and the exit code tells.

mod account;
mod receive;
mod send;
mod write;

use std::io::{self, BufWriter};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use crossbeam_channel::{bounded, unbounded};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::ScanPlan;
use crate::net::{self, DryRun, Link, PacketReceive, PacketTransmit, Receive, Transmit};
use crate::probe::{Classifier, CookieKey, Cookies, Syn};
use crate::rate::PacketsPerSecond;
use crate::session::{Counters, Engine, SessionConfig, SessionError, Stop};
use crate::smtp::DialogueConfig;
use crate::status::{Snapshot, StatusLine};
use crate::store::Survey;
use crate::targets::Walk;

pub use account::Account;
use account::Metadata;
pub use receive::ReplyTally;

/// How often signals, limits and ended threads are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Records that may wait for the writer before sessions stop being admitted.
const RECORD_QUEUE: usize = 4096;

/// How a sweep ended; [`Finish::exit_code`] is what the shell sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Every target was probed and every session ended.
    Complete,
    /// A limit the user set (`--max-runtime`, `--max-results`) stopped the sending.
    Limit(&'static str),
    /// A signal stopped it.
    Signal(i32),
}

impl Finish {
    /// 0 only for a complete run; 3 at a limit; 128 + the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Limit(_) => 3,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }

    /// The word for the survey's `state`.
    fn state(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Limit(_) | Self::Signal(_) => "interrupted",
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Complete => "complete".to_owned(),
            Self::Limit(option) => format!("stopped by --{option}"),
            Self::Signal(SIGINT) => "interrupted by SIGINT".to_owned(),
            Self::Signal(SIGTERM) => "interrupted by SIGTERM".to_owned(),
            Self::Signal(signal) => format!("interrupted by signal {signal}"),
        }
    }
}

/// The way to the network: what [`sweep`] sends and receives with.
pub struct Network {
    /// Where frames go out.
    pub transmit: Box<dyn Transmit + Send>,
    /// Where frames come in.
    pub receive: Box<dyn Receive + Send>,
    /// What tells a reply from noise.
    pub classifier: Classifier,
    /// Source address of probes and sessions.
    pub source: Ipv4Addr,
    /// Octets of a probe, link header included.
    pub frame_len: usize,
    /// Interface, gateway and backend, for the metadata.
    pub described: Vec<(&'static str, Value)>,
}

impl Network {
    /// Finds the way out and opens the packet sockets.
    pub fn open(plan: &ScanPlan) -> Result<Self, net::NetError> {
        let link = net::discover(&plan.route, sample(plan))?;
        let (syn, cookies) = probe(plan, &link);
        let frame_len = syn.frame_len();
        Ok(Self {
            transmit: Box::new(PacketTransmit::open(&link, syn)?),
            receive: Box::new(PacketReceive::open(
                &link,
                plan.source_ports.0..=plan.source_ports.1,
            )?),
            classifier: Classifier::new(link.source, cookies, link.header_len()),
            source: link.source,
            frame_len,
            described: account::describe(&link),
        })
    }
}

/// An address of the space, to ask the routing table about.
fn sample(plan: &ScanPlan) -> Ipv4Addr {
    plan.space
        .target(0)
        .map_or(Ipv4Addr::UNSPECIFIED, |target| target.addr())
}

/// The prepared SYN and the cookies it carries.
fn probe(plan: &ScanPlan, link: &Link) -> (Syn, Cookies) {
    let key = CookieKey::derive(plan.seed, &plan.nonce);
    let ports = plan.source_ports.0..=plan.source_ports.1;
    let cookies = Cookies::new(key, ports, plan.target_port);
    let syn = Syn::new(
        &link.header(),
        link.source,
        plan.ttl,
        plan.layout,
        cookies.clone(),
    );
    (syn, cookies)
}

/// What the stages share: flags one way, counters the other. No lock is on the packet path.
#[derive(Debug, Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    held_back: AtomicBool,
    sent: AtomicU64,
    responders: AtomicU64,
    dropped: AtomicU64,
}

/// `smtpsweep scan`: the network, the survey file, the sweep.
pub fn scan(plan: ScanPlan) -> anyhow::Result<Finish> {
    if plan.dryrun {
        return dry_run(plan);
    }
    let network = Network::open(&plan)?;
    sweep(plan, network).map(|(finish, _)| finish)
}

/// `--dryrun`: the same walk and the same frames, printed.
fn dry_run(plan: ScanPlan) -> anyhow::Result<Finish> {
    // Without a way out (no route, no privilege) the frames are those of a raw link.
    let link = net::discover(&plan.route, sample(&plan))
        .unwrap_or_else(|_| Link::detached(plan.route.source.unwrap_or(Ipv4Addr::UNSPECIFIED)));
    let (syn, _) = probe(&plan, &link);
    let mut walk = Walk::new(Arc::clone(&plan.space), &plan.permutation, plan.shard, None)?;
    let mut transmit = DryRun::new(syn, BufWriter::with_capacity(1 << 16, io::stdout()));
    let sent = send::without_pacing(&mut walk, &mut transmit, plan.max_targets)?;
    transmit.finish()?;
    if !plan.quiet {
        eprintln!(
            "dry run: {sent} probes of {} targets printed, nothing sent",
            plan.space.len()
        );
    }
    Ok(Finish::Complete)
}

/// The threads of a running sweep.
struct Threads {
    sender: JoinHandle<Result<send::Sent, net::NetError>>,
    receiver: JoinHandle<Result<ReplyTally, net::NetError>>,
    engine: JoinHandle<Result<(), SessionError>>,
    writer: JoinHandle<Result<write::Written, write::WriteError>>,
}

/// Sweeps the plan's space over `network` into the plan's survey file.
///
/// # Errors
/// A stage that failed (network, survey file, a thread's panic), or counts that do not add up.
/// What was committed before stays in the survey file, with the metadata of the run.
pub fn sweep(plan: ScanPlan, network: Network) -> anyhow::Result<(Finish, Account)> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
    let started = Instant::now();
    let rate = plan.rate(network.frame_len)?;
    let mut metadata = Metadata::begin(&plan, &network, rate);
    let mut survey = Survey::create(&plan.output, &metadata.entries())?;
    survey.use_ruleset(&plan.rules.digest(), env!("CARGO_PKG_VERSION"))?;

    let shared = Arc::new(Shared::default());
    let sessions = Arc::new(Counters::default());
    let stop = Arc::new(AtomicU8::new(Stop::Run as u8));
    let to_send = plan.to_send();
    let threads = start(&plan, network, rate, survey, &shared, &sessions, &stop)?;

    let mut status = StatusLine::default();
    let mut next_status = started + Duration::from_secs(1);
    let mut finish = Finish::Complete;
    let mut cooldown_end: Option<Instant> = None;
    let mut signalled = 0u32;
    while !threads.writer.is_finished() || !threads.engine.is_finished() {
        thread::sleep(TICK);
        let now = Instant::now();
        for signal in signals.pending() {
            signalled += 1;
            finish = Finish::Signal(signal);
            shared.stop_sending.store(true, Ordering::Relaxed);
            if signalled == 1 {
                eprintln!(
                    "\n{}: no more probes; waiting {:.0} s for replies and for {} open sessions \
                     (again: stop at once)",
                    finish.describe(),
                    plan.cooldown.as_secs_f64(),
                    sessions.open()
                );
            } else {
                cooldown_end = Some(now);
                stop.store(Stop::Now as u8, Ordering::Relaxed);
            }
        }
        if cooldown_end.is_none()
            && finish == Finish::Complete
            && let Some(limit) = plan.limit_reached(now - started, &shared)
        {
            finish = Finish::Limit(limit);
            shared.stop_sending.store(true, Ordering::Relaxed);
        }
        if threads.receiver.is_finished() || threads.writer.is_finished() {
            // One of them failed: without it nothing that is sent would be of use.
            shared.stop_sending.store(true, Ordering::Relaxed);
        }
        if threads.writer.is_finished() {
            shared.stop_receiving.store(true, Ordering::Relaxed);
            stop.store(Stop::Now as u8, Ordering::Relaxed);
        }
        if threads.sender.is_finished() {
            let end = *cooldown_end.get_or_insert(now + plan.cooldown);
            if now >= end {
                shared.stop_receiving.store(true, Ordering::Relaxed);
            }
        }
        if now >= next_status {
            next_status += Duration::from_secs(1);
            if !plan.quiet {
                eprintln!(
                    "{}",
                    status.line(&snapshot(
                        &shared,
                        &sessions,
                        &threads,
                        to_send,
                        started,
                        cooldown_end
                    ))
                );
            }
        }
    }

    let sent = joined(threads.sender, "sender");
    let tally = joined(threads.receiver, "receiver");
    let engine = joined(threads.engine, "sessions");
    let written = joined(threads.writer, "writer");
    let (mut survey, written) = match written {
        Ok(write::Written { survey, hosts }) => (survey, hosts),
        Err(error) => {
            return Err(error.context(format!(
                "the sweep was stopped; what was committed before is in {}",
                plan.output.display()
            )));
        }
    };
    let account = Account::new(
        &plan,
        sent.as_ref().ok(),
        tally.as_ref().ok(),
        &sessions,
        written,
    );
    metadata.end(&account, finish, started.elapsed());
    survey.add_with(&[], &counts(&account.probe_counts()), &metadata.entries())?;
    survey.close()?;
    let put = metadata.write(plan.metadata_file.as_deref());
    sent?;
    tally?;
    engine?;
    put?;
    account.check()?;
    if !plan.quiet {
        eprint!(
            "{}",
            account.summary(finish, started.elapsed(), &plan.output)
        );
    }
    Ok((finish, account))
}

/// The counts in the form the store takes them.
fn counts<'a>(counts: &'a [(&'static str, String, u64)]) -> Vec<(&'a str, &'a str, u64)> {
    counts
        .iter()
        .map(|(kind, name, count)| (*kind, name.as_str(), *count))
        .collect()
}

/// Starts the four threads; each owns what it works on.
fn start(
    plan: &ScanPlan,
    network: Network,
    rate: PacketsPerSecond,
    survey: Survey,
    shared: &Arc<Shared>,
    sessions: &Arc<Counters>,
    stop: &Arc<AtomicU8>,
) -> anyhow::Result<Threads> {
    let (responders, queue) = unbounded();
    let (records, finished) = bounded(RECORD_QUEUE);

    let engine = Engine::new(
        SessionConfig {
            dialogue: DialogueConfig {
                timeouts: plan.dialogue.timeouts,
                ..DialogueConfig::new(plan.dialogue.ehlo(network.source))
            },
            max_sessions: plan.max_sessions,
            per_24: plan.max_sessions_per_24,
            source: Some(network.source),
        },
        queue,
        records,
        {
            let space = Arc::clone(&plan.space);
            Arc::new(move |address| space.admit(address).is_some())
        },
        Arc::clone(sessions),
        Arc::clone(stop),
    )
    .context("cannot set up the session engine")?;
    let engine = spawn("sessions", move || engine.run())?;

    let writer = write::Writer {
        survey,
        rules: Arc::clone(&plan.rules),
        records: finished,
    };
    let writer = spawn("writer", move || writer.run())?;

    let receiver = receive::Receiver {
        network: network.receive,
        classifier: network.classifier,
        space: Arc::clone(&plan.space),
        responders,
        shared: Arc::clone(shared),
    };
    let receiver = spawn("receiver", move || receiver.run())?;

    let sender = send::Sender {
        walk: Walk::new(Arc::clone(&plan.space), &plan.permutation, plan.shard, None)?,
        transmit: network.transmit,
        rate,
        limit: plan.max_targets,
        backlog_mark: plan.max_sessions as u64,
        shared: Arc::clone(shared),
        sessions: Arc::clone(sessions),
    };
    let sender = spawn("sender", move || sender.run())?;
    Ok(Threads {
        sender,
        receiver,
        engine,
        writer,
    })
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("cannot start the {name} thread"))
}

/// A thread's result, with a panic turned into an error that names the thread.
fn joined<T, E>(thread: JoinHandle<Result<T, E>>, name: &str) -> anyhow::Result<T>
where
    E: Into<anyhow::Error>,
{
    thread
        .join()
        .map_err(|_| anyhow!("the {name} thread panicked"))?
        .map_err(Into::into)
}

/// The stages' counters at this moment.
fn snapshot(
    shared: &Shared,
    sessions: &Counters,
    threads: &Threads,
    to_send: u64,
    started: Instant,
    cooldown_end: Option<Instant>,
) -> Snapshot {
    let now = Instant::now();
    Snapshot {
        elapsed: now - started,
        sending: !threads.sender.is_finished(),
        cooldown_left: cooldown_end.map(|end| end.saturating_duration_since(now)),
        sent: shared.sent.load(Ordering::Relaxed),
        to_send,
        responders: shared.responders.load(Ordering::Relaxed),
        dropped: shared.dropped.load(Ordering::Relaxed),
        queued: sessions.queued(),
        open: sessions.open(),
        done: sessions.done(),
        held_back: shared.held_back.load(Ordering::Relaxed),
    }
}

impl ScanPlan {
    /// Probes this run will send if nothing stops it; an estimate where there are shards.
    fn to_send(&self) -> u64 {
        let ours = self.space.len().div_ceil(u64::from(self.shard.total));
        self.max_targets.map_or(ours, |limit| ours.min(limit))
    }

    /// The name of the limit option that was reached, if one was.
    fn limit_reached(&self, elapsed: Duration, shared: &Shared) -> Option<&'static str> {
        if self.max_runtime.is_some_and(|limit| elapsed >= limit) {
            return Some("max-runtime");
        }
        let found = shared.responders.load(Ordering::Relaxed);
        self.max_results
            .is_some_and(|limit| found >= limit)
            .then_some("max-results")
    }
}
