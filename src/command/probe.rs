//! `smtpsweep probe HOST`: one session with one host, shown as it happens.
//!
//! The session is held by the sweep's own [`Engine`], so that what `probe` shows is what a sweep
//! would record, but for one thing: no judge ends the dialogue early, because who probes one host
//! wants to see all of it. And the way to the [`Responder`] differs: nobody has answered a SYN of ours, so
//! it is made of a [`Target`] (an address minus the blocklist) by [`Responder::dialled`].
//!
//! When nobody reads the output any more, the session is ended as by a stop, with QUIT.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use crossbeam_channel::{Sender, unbounded};

use super::rules::print_explanation;
use crate::cli::ProbeArgs;
use crate::config::{self, ConfigError, DialoguePlan};
use crate::fingerprint::Replies;
use crate::probe::Responder;
use crate::session::{Counters, Engine, Seen, SessionConfig, SessionRecord, Stop, Watch};
use crate::smtp::{AltName, Certificate, Fqdn, Side, TlsRecord, TlsStart};
use crate::store::text::escape;
use crate::targets::{RangeSet, Space, Target};

/// Dials, converses, prints, classifies.
///
/// # Errors
/// No connection came about, or the output cannot be written.
pub(super) fn probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let plan = config::dialogue(&args.dialogue, args.target_port)?;
    let rules = config::rules(args.rules.as_deref()).map_err(ConfigError::from)?;
    let blocklist = config::blocklist(&args.blocklist)?;
    let address = resolve(&args.host, args.target_port)?;
    if let Some(reason) = blocklist.reason(address) {
        return Err(ConfigError::BlockedExplicitly { address, reason }.into());
    }
    let bits = address.to_bits();
    let space = Space::new(&RangeSet::from_ranges([(bits, bits)]), blocklist.ranges());
    let target = space
        .target(0)
        .with_context(|| format!("{address} is blocked"))?;
    let peer = SocketAddrV4::new(target.addr(), args.target_port);

    let mut out = io::stdout();
    if args.host.parse() != Ok(address) {
        writeln!(out, "{} is {address}", args.host).context(UNWRITABLE)?;
    }
    writeln!(out, "connecting to {peer}").context(UNWRITABLE)?;
    let record = converse(target, peer, &plan)?;
    let detail = record.detail.as_deref();
    let reason = detail.map_or_else(String::new, |text| {
        format!(" ({})", escape(text.as_bytes()))
    });
    writeln!(out, "\noutcome: {}{reason}", record.outcome).context(UNWRITABLE)?;
    if record.connect_ms.is_none() {
        bail!(
            "no connection to {peer}: {}",
            detail.unwrap_or_else(|| record.outcome.name())
        );
    }
    if let Some(tls) = &record.tls {
        show_tls(&mut out, tls).context(UNWRITABLE)?;
    }
    let certificate = record.tls.as_ref().and_then(|tls| tls.certificate());
    let replies = Replies::of(&record.transcript).with_certificate(certificate.as_ref());
    print_explanation(&rules.explain(&replies.observation())).context(UNWRITABLE)
}

/// What came of TLS, and the certificates that were shown.
fn show_tls(out: &mut impl io::Write, tls: &TlsRecord) -> io::Result<()> {
    writeln!(out, "tls: {}", escape(tls.to_string().as_bytes()))?;
    if let Some(group) = tls.group {
        writeln!(out, "  keys agreed with {group}")?;
    }
    if tls.renegotiations > 0 {
        writeln!(out, "  {} renegotiation declined", tls.renegotiations)?;
    }
    for der in &tls.chain {
        let Some(read) = Certificate::parse(der) else {
            continue;
        };
        let names: Vec<String> = read.alt_names.iter().map(AltName::text).collect();
        let key = read.key_type.as_deref().unwrap_or("unknown key");
        let self_signed = if read.self_signed {
            ", self-signed"
        } else {
            ""
        };
        writeln!(
            out,
            "  certificate of {} by {}: {key} {} bits, {}{self_signed}, ends {}; names: {}",
            escape(read.subject.to_string().as_bytes()),
            escape(read.issuer.to_string().as_bytes()),
            read.key_bits.unwrap_or(0),
            read.signature_algorithm,
            read.not_after
                .and_then(|end| jiff::Timestamp::from_second(end).ok())
                .map_or_else(|| "at no time".to_owned(), |end| end.to_string()),
            escape(names.join(", ").as_bytes())
        )?;
    }
    Ok(())
}

/// The IPv4 address of a host, by its digits or its name.
fn resolve(host: &str, port: u16) -> anyhow::Result<Ipv4Addr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    (host, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?
        .find_map(|address| match address.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .with_context(|| format!("{host} has no IPv4 address"))
}

/// Holds the session; prints each piece as it comes and goes.
fn converse(
    target: Target,
    peer: SocketAddrV4,
    plan: &DialoguePlan,
) -> anyhow::Result<SessionRecord> {
    // Without a route there will be no connection, and so no name to say either.
    let source = source_towards(peer).ok();
    let dialogue = plan.config(source.unwrap_or(Ipv4Addr::UNSPECIFIED));
    let config = SessionConfig {
        source,
        implicit_tls: plan.tls == Some(TlsStart::Implicit),
        sni: plan.sni.as_ref().map(Fqdn::to_string),
        ..SessionConfig::new(dialogue)
    };
    let (responders, input) = unbounded();
    let (output, records) = unbounded();
    let stop = Arc::new(AtomicU8::new(Stop::Run as u8));
    let (told, failures) = unbounded();
    let engine = Engine::new(
        config,
        input,
        output,
        Arc::new(move |address| address == target.addr()),
        Arc::new(Counters::new()),
        Arc::clone(&stop),
    )?
    .watched_by(printer(stop, told));
    responders.send(Responder::dialled(target, peer.port(), unix_us()))?;
    drop(responders);
    engine.run()?;
    if let Ok(error) = failures.try_recv() {
        return Err(error).context(UNWRITABLE);
    }
    records
        .try_recv()
        .context("the session left no record; please report this")
}

/// The address from which the routing table has us reach that peer. Connecting a datagram socket
/// asks for it and sends nothing.
fn source_towards(peer: SocketAddrV4) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(peer)?;
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok(*local.ip()),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Prints what is seen of the session. The first failure to print is told and stops the session.
fn printer(stop: Arc<AtomicU8>, failed: Sender<io::Error>) -> Watch {
    let begun = Instant::now();
    let mut connected = begun;
    Box::new(move |_, seen| {
        if stop.load(Ordering::Relaxed) != Stop::Run as u8 {
            return;
        }
        let shown = match seen {
            Seen::Connected => {
                connected = Instant::now();
                let took = (connected - begun).as_millis();
                writeln!(io::stdout(), "connected after {took} ms\n")
            }
            Seen::Tls(record) => note(connected, &format!("TLS: {record}")),
            Seen::Octets(side, octets) => show(connected, side, octets),
            Seen::Closed => note(connected, "closed by the server"),
            Seen::Lost => note(connected, "connection lost"),
        };
        if let Err(error) = shown {
            stop.store(Stop::Now as u8, Ordering::Relaxed);
            // Who would hear of it has gone only if the probe is over.
            let _ = failed.send(error);
        }
    })
}

/// Prints a piece line by line, with its time and side; hostile bytes are escaped.
fn show(begin: Instant, side: Side, octets: &[u8]) -> io::Result<()> {
    let mark = match side {
        Side::Client => "C:",
        Side::Server => "S:",
    };
    let at = begin.elapsed().as_millis();
    let mut out = io::stdout().lock();
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        writeln!(out, "{at:>6} ms  {mark} {}", escape(line))?;
    }
    Ok(())
}

fn note(begin: Instant, what: &str) -> io::Result<()> {
    let at = begin.elapsed().as_millis();
    writeln!(io::stdout(), "{at:>6} ms  -- {}", escape(what.as_bytes()))
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// What failed when standard output does.
const UNWRITABLE: &str = "cannot write to standard output";
