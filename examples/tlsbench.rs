//! What sessions with TLS cost: the engine alone, against one of the servers of `tlspeers` in a
//! process of its own.
//!
//! ```text
//! tlsbench serve PEER PORT                      serves at every local address, for ever
//! tlsbench engine COUNT OPEN PORT [--starttls]  COUNT sessions to 127.1.0.0 and up, OPEN at once
//! ```
//!
//! `engine` prints sessions, seconds, sessions a second, processor time a session, and how much
//! memory the process has taken at its peak beyond what it had before the first session. With a peer
//! that falls silent inside TLS (`quiet-inside`) and OPEN = COUNT that is what a held session takes.
//! Nothing leaves the machine: all addresses are loopback.

#[path = "tlspeers/peers.rs"]
mod peers;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use crossbeam_channel::unbounded;
use smtpsweep::probe::Responder;
use smtpsweep::session::{Counters, Engine, SessionConfig};
use smtpsweep::smtp::{Depth, DialogueConfig, Fqdn};
use smtpsweep::targets::{RangeSet, Space};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", peer, port] => serve(peer, port.parse()?),
        ["engine", count, open, port] => {
            engine(count.parse()?, open.parse()?, port.parse()?, false)
        }
        ["engine", count, open, port, "--starttls"] => {
            engine(count.parse()?, open.parse()?, port.parse()?, true)
        }
        _ => bail!("usage: serve PEER PORT | engine COUNT OPEN PORT [--starttls]"),
    }
}

fn serve(name: &str, port: u16) -> Result<()> {
    let known = peers::ALL.iter().find(|peer| peer.name == name);
    let peer = known.with_context(|| format!("no peer {name}"))?;
    println!(
        "{name}, with which a session ends in {} ({} {} {})",
        peer.outcome, peer.version, peer.failure, peer.alert
    );
    let door = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    door.set_reuse_address(true)?;
    door.bind(&std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    door.listen(4_096)?;
    let door = TcpListener::from(door);
    peers::spawn(door, peer)
        .join()
        .map_err(|_| anyhow::anyhow!("the listener has died"))
}

fn engine(count: u32, open: usize, port: u16, starttls: bool) -> Result<()> {
    let name: Fqdn = "bench.example.org".parse()?;
    let mut dialogue = DialogueConfig::new(name);
    dialogue.depth = Depth::Ehlo;
    dialogue.starttls = starttls;
    // Peers that fall silent are given up once all are held.
    dialogue.timeouts.step = Duration::from_secs(20);
    let config = SessionConfig {
        max_sessions: open,
        per_24: open,
        ..SessionConfig::new(dialogue)
    };
    let first = Ipv4Addr::new(127, 1, 0, 0).to_bits();
    let range = RangeSet::from_ranges([(first, first + count - 1)]);
    let space = Space::new(&range, &RangeSet::from_ranges([]));
    let (responders, input) = unbounded();
    let (output, records) = unbounded();
    for n in 0..count {
        let target = space.target(u64::from(n)).context("a target")?;
        responders.send(Responder::dialled(target, port, 0))?;
    }
    drop(responders);
    let engine = Engine::new(
        config,
        input,
        output,
        Arc::new(|_| true),
        Arc::new(Counters::new()),
        Arc::new(AtomicU8::new(0)),
    )?;
    let before = memory("VmRSS:")?;
    let (begun, spent) = (Instant::now(), processor_seconds()?);
    let thread = std::thread::spawn(move || engine.run());
    let mut outcomes = BTreeMap::<String, u32>::new();
    for record in records {
        let tls = record.tls.and_then(|tls| tls.version);
        let tls = tls.map_or_else(|| "no TLS".to_owned(), |version| version.to_string());
        *outcomes
            .entry(format!("{} ({tls})", record.outcome))
            .or_default() += 1;
    }
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("the engine panicked"))??;
    let (seconds, spent) = (begun.elapsed().as_secs_f64(), processor_seconds()? - spent);
    let sessions = f64::from(count);
    println!(
        "{count} sessions, {seconds:.2} s, {:.0} sessions/s, {:.3} ms of processor a session, \
         {:.1} KiB of memory at the peak for each of {open}: {outcomes:?}",
        sessions / seconds,
        spent / sessions * 1e3,
        (memory("VmHWM:")? - before) / f64::from(u32::try_from(open)?),
    );
    Ok(())
}

/// Of this process, in KiB.
fn memory(line: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|text| text.strip_prefix(line));
    let value = value.and_then(|text| text.trim().strip_suffix(" kB"));
    Ok(value.context("a line of /proc/self/status")?.parse()?)
}

/// Of this process, user's and system's.
fn processor_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').context("a name")?;
    let ticks: Vec<f64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // A tick is 10 ms on every Linux that user space sees.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
