//! The whole sweep on one page: threads, channels, backpressure, shutdown, accounting.
//!
//! ```text
//!  send ──SYN──▶ wire ──▶ receive ──Responder──▶ session::Engine ──SessionRecord──▶ write ──▶ survey
//!    ▲                                                 │
//!    └───────────── waits while too many are queued ───┘
//! ```
//!
//! [`sweep`] opens everything that can fail first, starts the threads (each owns what it works on
//! and ends when its input does), lets `watch` oversee them, and then checks that the counts add
//! up. A stage that fails stops the sweep, never silently: what is committed stays in the survey
//! file, and the exit code tells.

mod account;
mod confine;
mod connect;
mod judge;
mod network;
mod receive;
mod send;
mod watch;
mod write;

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::ScanPlan;
use crate::net::{Discard, DryRun, Link, MacAddr, Transmit, sys};
use crate::probe::Responder;
use crate::rate::PacketsPerSecond;
use crate::session::{
    Engine, MAX_SESSIONS, SessionConfig, SessionError, SessionRecord, WAIT_MARK, record_only,
};
use crate::smtp::{Fqdn, TlsStart};
use crate::status::say;
use crate::store::Survey;
use crate::targets::{Passes, Walk};

pub use account::{Account, Unbalanced};
pub use network::Network;
pub use receive::ReplyTally;

use account::Metadata;
use watch::Watch;

/// Records that may wait for the writer before sessions stop being admitted.
const RECORD_QUEUE: usize = 4096;

/// Responders that may wait where no session is held (`--no-sessions`): some 250 MB, so that writing
/// them, at tens of thousands a second, holds back no sweep but one that finds millions.
const RESPONDER_BACKLOG: u64 = 1 << 22;

/// Descriptors beside those of sessions: sockets of the sweep, the survey file, standard streams.
const OTHER_DESCRIPTORS: u64 = 64;

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
            Self::Signal(SIGHUP) => "interrupted by SIGHUP".to_owned(),
            Self::Signal(signal) => format!("interrupted by signal {signal}"),
        }
    }
}

/// What the stages share: flags one way, counters the other. No lock is on the packet path: that of
/// the progress is taken a few times a second.
#[derive(Debug, Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    held_back: AtomicBool,
    /// The limit that stopped the sending, if one did.
    limit: OnceLock<Finish>,
    /// Probes that left.
    sent: AtomicU64,
    /// Targets that a probe has left for: fewer, where each gets several.
    targets: AtomicU64,
    responders: AtomicU64,
    dropped: AtomicU64,
    /// How far the sweep has come, renewed several times a second for the survey file.
    progress: Mutex<Progress>,
}

/// How far a sweep has come.
#[derive(Debug, Default, Clone)]
struct Progress {
    /// Where the walk of each sender stands.
    cursors: Vec<String>,
    /// What came back.
    replies: ReplyTally,
}

impl Shared {
    /// The progress, also if a thread that panicked held it.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all senders because a limit was reached; the first one counts.
    fn stop_at(&self, limit: Finish) {
        let _ = self.limit.set(limit);
        self.stop_sending.store(true, Ordering::Relaxed);
    }
}

/// `smtpsweep scan`: the network, then the sweep; or the dry run.
///
/// # Errors
/// Those of [`Network::open`] and [`sweep`].
pub fn scan(plan: ScanPlan) -> anyhow::Result<Finish> {
    if plan.dryrun || plan.fast_dryrun {
        return dry_run(&plan);
    }
    let network = Network::open(&plan)?;
    sweep(plan, network).map(|(finish, _)| finish)
}

/// `--dryrun`: the same walk and the same frames, printed.
fn dry_run(plan: &ScanPlan) -> anyhow::Result<Finish> {
    // With a gateway's address given nobody is asked for it. Without a way out (no route, no
    // privilege) the frames are those of a raw link.
    let mut route = plan.route.clone();
    route.gateway_mac.get_or_insert(MacAddr::ZERO);
    let link = network::way_out(plan, &route)
        .unwrap_or_else(|_| Link::detached(plan.route.source.unwrap_or(Ipv4Addr::UNSPECIFIED)));
    let (syn, _) = network::probe(plan, &link);
    let mut walk = Walk::new(Arc::clone(&plan.space), &plan.permutation, plan.shard, None)?;
    let (started, most) = (Instant::now(), plan.our_max_targets());
    let (sent, done) = if plan.fast_dryrun {
        let sent = send::without_pacing(&mut walk, &mut Discard::new(syn), most)?;
        (sent, "made")
    } else {
        let mut transmit = DryRun::new(syn, io::stdout());
        let sent = send::without_pacing(&mut walk, &mut transmit, most)?;
        transmit.finish()?;
        (sent, "printed")
    };
    if !plan.quiet {
        let seconds = started.elapsed().as_secs_f64();
        say(format_args!(
            "dry run: {sent} probes of {} targets {done} in {seconds:.2} s ({:.1} million a second), \
             nothing sent",
            plan.space.len(),
            sent as f64 / seconds.max(1e-9) / 1e6
        ));
    }
    Ok(Finish::Complete)
}

/// The threads of a running sweep.
struct Threads {
    senders: Vec<JoinHandle<send::Sent>>,
    receiver: JoinHandle<receive::Received>,
    engine: JoinHandle<Result<(), SessionError>>,
    writer: JoinHandle<write::Written>,
}

/// Sweeps the plan's space over `network` into the plan's survey file.
///
/// # Errors
/// A stage that failed (network, survey file, a thread's panic), or counts that do not add up.
/// What was committed before stays in the survey file, with the metadata of the run.
pub fn sweep(mut plan: ScanPlan, mut network: Network) -> anyhow::Result<(Finish, Account)> {
    let started = Instant::now();
    let mut watch = Watch::new(started).context("cannot handle signals")?;
    let rate = plan.rate(network.frame_len)?;
    let metadata_out = account::open_metadata(plan.metadata_file.as_deref())?;
    let (responders, queue) = unbounded();
    let (records, finished) = bounded(RECORD_QUEUE);
    let adopting = network.connect.adopter.is_some();
    let needs = needs(&plan, &network.fallback, adopting);
    let sessions = sessions(&mut plan, &mut network, &watch, queue, records)?;
    let senders = senders(
        &plan,
        network.transmit,
        network.fallback,
        rate,
        adopting,
        &watch,
    )?;
    let mut metadata = Metadata::begin(&plan, network.source, &network.described, rate);
    let mut survey = Survey::create(&plan.output, &metadata.entries())?;
    survey.use_ruleset(&plan.rules.digest(), env!("CARGO_PKG_VERSION"))?;
    if plan.sandbox {
        let holds = confine::confine(&needs)?;
        if plan.verbose {
            say(format_args!("confined to: {holds}"));
        }
        metadata.put("confinement", json!(holds));
        survey.add_with(&[], &[], &metadata.entries())?;
    }

    let writer = write::Writer {
        survey,
        rules: Arc::clone(&plan.rules),
        records: finished,
        space: plan.space.len(),
        shared: Arc::clone(&watch.shared),
    };
    let receiver = receive::Receiver {
        network: network.receive,
        classifier: network.classifier,
        space: Arc::clone(&plan.space),
        responders,
        shared: Arc::clone(&watch.shared),
    };
    // Those that take before those that give.
    let threads = Threads {
        writer: spawn("writer", move || writer.run())?,
        engine: spawn("sessions", sessions)?,
        receiver: spawn("receiver", move || receiver.run())?,
        senders: senders
            .into_iter()
            .map(|sender| spawn("sender", move || sender.run()))
            .collect::<Result<_, _>>()?,
    };
    let finish = watch.until_done(&plan, &threads);

    let sent: Vec<_> = threads
        .senders
        .into_iter()
        .map(|sender| joined(sender, "sender"))
        .collect();
    let received = joined(threads.receiver, "receiver");
    let engine = joined(threads.engine, "sessions");
    let mut written = joined(threads.writer, "writer")?;
    let account = Account::new(&plan, &watch, &sent, &received, written.hosts);
    let finish = account.finish(finish);
    // The writer's failure first: it is what stopped the others.
    let mut outcome = written.result;
    for sender in sent {
        outcome = outcome.and_then(|()| Ok(sender?.ended?));
    }
    let outcome = outcome
        .and_then(|()| Ok(received?.ended?))
        .and_then(|()| Ok(engine??))
        .and_then(|()| Ok(account.check()?));
    // A file that cannot be read any more has said so to the writer already.
    let smtp_hosts = written.survey.smtp_hosts().ok();
    metadata.end(
        &account,
        smtp_hosts,
        finish,
        outcome.as_ref().err(),
        started.elapsed(),
    );
    let counts = account.probe_counts();
    let closed = written
        .survey
        .add_with(&[], &borrowed(&counts), &metadata.entries())
        .and_then(|()| written.survey.close());
    let file = plan.output.display();
    outcome
        .with_context(|| format!("the sweep was stopped; what was stored before is in {file}"))?;
    closed?;
    if !plan.quiet {
        let summary = account.summary(finish, started.elapsed(), &plan.output);
        say(format_args!("{}", summary.trim_end()));
    }
    metadata.write(metadata_out)?;
    Ok((finish, account))
}

/// What the sweep needs once everything is open.
fn needs(plan: &ScanPlan, fallback: &[Option<send::Fallback>], adopting: bool) -> confine::Needs {
    let mut capabilities = Vec::new();
    if adopting {
        // To put a connection together (TCP_REPAIR).
        capabilities.push(caps::Capability::CAP_NET_ADMIN);
    }
    if fallback.iter().any(Option::is_some) {
        // To open a packet socket in place of a backend that fails.
        capabilities.push(caps::Capability::CAP_NET_RAW);
    }
    confine::Needs {
        capabilities,
        survey: plan.output.clone(),
        port: plan.target_port,
        user: plan.user,
    }
}

/// Raises the limit of open files for the sessions, or lowers the number of sessions to it.
fn fit_descriptors(plan: &mut ScanPlan) -> anyhow::Result<()> {
    let wanted = u64::from(plan.max_sessions) + OTHER_DESCRIPTORS;
    let limit = sys::raise_descriptor_limit(wanted)
        .context("cannot ask for the limit of open files (RLIMIT_NOFILE)")?;
    if limit < wanted {
        let fitting = limit.saturating_sub(OTHER_DESCRIPTORS).max(1);
        // Who asked for a number is told; who did not, unless it is to be quiet.
        if !plan.quiet || plan.max_sessions as usize != MAX_SESSIONS {
            say(format_args!(
                "only {limit} files may be open, so at most {fitting} sessions instead of {} are \
                 held at once (ulimit -Hn raises it, and sysctl fs.nr_open bounds that)",
                plan.max_sessions
            ));
        }
        plan.max_sessions = u32::try_from(fitting).unwrap_or(plan.max_sessions);
    }
    Ok(())
}

/// What is done with responders: sessions, or with `--no-sessions` nothing but a record of each.
fn sessions(
    plan: &mut ScanPlan,
    network: &mut Network,
    watch: &Watch,
    queue: Receiver<Responder>,
    records: Sender<SessionRecord>,
) -> anyhow::Result<Box<dyn FnOnce() -> Result<(), SessionError> + Send>> {
    if !plan.sessions {
        let counters = Arc::clone(&watch.sessions);
        return Ok(Box::new(move || record_only(&queue, &records, &counters)));
    }
    fit_descriptors(plan)?;
    let mut engine = engine(plan, network, watch, queue, records)?;
    if let Some(adopter) = network.connect.adopter.take() {
        engine = engine.adopting(adopter);
    }
    Ok(Box::new(move || engine.run()))
}

/// One sender for each transmitter, each with its part of the walk and of the rate.
fn senders(
    plan: &ScanPlan,
    transmit: Vec<Box<dyn Transmit>>,
    fallback: Vec<Option<send::Fallback>>,
    rate: PacketsPerSecond,
    adopting: bool,
    watch: &Watch,
) -> anyhow::Result<Vec<send::Sender>> {
    let threads = u16::try_from(transmit.len()).context("too many sender threads")?;
    watch.shared.progress().cursors = vec![String::new(); threads.into()];
    let rate = PacketsPerSecond::new(rate.value() / f64::from(threads))?;
    let deadline = plan.max_runtime.map(|most| watch.started + most);
    let limits = Arc::new(send::Limits::new(
        plan.our_max_targets(),
        deadline,
        plan.max_results,
    ));
    (0..threads)
        .zip(transmit.into_iter().zip(fallback))
        .map(|(thread, (transmit, fallback))| {
            let shard = plan.shard.split(thread, threads)?;
            let mut cores = plan.cores.iter().copied().cycle();
            Ok(send::Sender {
                thread: thread.into(),
                walk: Passes::new(
                    &plan.space,
                    &plan.permutation,
                    shard,
                    plan.probes,
                    plan.spacing,
                    None,
                )?,
                transmit,
                fallback,
                rate,
                core: cores.nth(thread.into()),
                limits: Arc::clone(&limits),
                backlog_mark: if plan.sessions {
                    plan.max_sessions.into()
                } else {
                    RESPONDER_BACKLOG
                },
                wait_mark: adopting.then_some(WAIT_MARK),
                shared: Arc::clone(&watch.shared),
                sessions: Arc::clone(&watch.sessions),
            })
        })
        .collect()
}

/// The session engine for this plan.
fn engine(
    plan: &ScanPlan,
    network: &Network,
    watch: &Watch,
    queue: Receiver<Responder>,
    records: Sender<SessionRecord>,
) -> Result<Engine, SessionError> {
    let config = SessionConfig {
        dialogue: plan.dialogue.config(network.source),
        max_sessions: plan.max_sessions as usize,
        per_24: plan.max_sessions_per_24 as usize,
        per_as: plan.per_as.clone(),
        source: Some(network.source),
        implicit_tls: plan.dialogue.tls == Some(TlsStart::Implicit),
        sni: plan.dialogue.sni.as_ref().map(Fqdn::to_string),
    };
    let space = Arc::clone(&plan.space);
    let engine = Engine::new(
        config,
        queue,
        records,
        Arc::new(move |address| space.admit(address).is_some()),
        Arc::clone(&watch.sessions),
        Arc::clone(&watch.stop),
    )?;
    Ok(engine.judged_by(judge::judge(Arc::clone(&plan.rules))))
}

/// The counts in the form in which the store takes them.
fn borrowed<'a>(counts: &'a [(&'static str, String, u64)]) -> Vec<(&'a str, &'a str, u64)> {
    counts
        .iter()
        .map(|(kind, name, count)| (*kind, name.as_str(), *count))
        .collect()
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

/// What a thread returned; a panic becomes an error that names the thread.
fn joined<T>(thread: JoinHandle<T>, name: &str) -> anyhow::Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("the {name} thread panicked; please report this"))
}
