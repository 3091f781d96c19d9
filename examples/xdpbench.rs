//! How fast a transmit backend sends, measured by itself: targets come from a table, nothing is
//! paced, nobody listens.
//!
//! ```text
//! xdpbench BACKEND SECONDS [THREADS] [PEER]
//! ```
//!
//! BACKEND is `packet` or `xdp`; each of THREADS (default 1) has a queue and a core of its own. To
//! be run in a network namespace whose route to 10.0.0.0/8 leads to a peer that discards. With PEER
//! as `NAMESPACE/INTERFACE`, frames are counted by the peer's interface, else by ours.
//!
//! Prints one line: backend, threads, million frames a second, microseconds of this process's CPU time
//! per frame, frames accepted, frames left, frames counted by the interface.

use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use smtpsweep::net::{self, Link, PacketTransmit, RouteOptions, Transmit, XdpTransmit};
use smtpsweep::probe::{CookieKey, Cookies, Syn, SynLayout};
use smtpsweep::targets::{RangeSet, Space, Target};

/// Targets in the table, all over 10.0.0.0/8.
const TARGETS: u64 = 1 << 16;

/// Targets for each call, as the sweep's sender does it.
const BATCH: usize = 256;

/// However long it is asked to run: a minute, and so many frames a thread.
const MOST_SECONDS: f64 = 60.0;
const MOST_FRAMES: u64 = 400_000_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xdpbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backend, seconds, rest @ ..] = arguments.as_slice() else {
        bail!("usage: xdpbench packet|xdp SECONDS [THREADS] [NAMESPACE/INTERFACE]");
    };
    let seconds = seconds.parse::<f64>()?.min(MOST_SECONDS);
    let threads: u32 = rest.first().map_or(Ok(1), |text| text.parse())?;
    let peer = rest.get(1).map(String::as_str);

    let link = net::discover(&RouteOptions::default(), Ipv4Addr::new(10, 0, 0, 1))?;
    let before = counter(&link, peer)?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let workers: Vec<_> = (0..threads)
        .map(|queue| {
            let transmit = open(backend, &link, queue)?;
            Ok(std::thread::spawn(move || {
                send(transmit, Duration::from_secs_f64(seconds))
            }))
        })
        .collect::<Result<_>>()?;
    let (mut accepted, mut left) = (0, 0);
    for worker in workers {
        let done = worker
            .join()
            .map_err(|_| anyhow::anyhow!("a thread died"))??;
        accepted += done.0;
        left += done.1;
    }
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    std::thread::sleep(Duration::from_millis(50));
    let counted = counter(&link, peer)? - before;
    println!(
        "{backend} {threads} {:.3} Mpps {:.3} us/frame accepted {accepted} left {left} counted {counted}",
        counted as f64 / elapsed / 1e6,
        cpu / counted.max(1) as f64 * 1e6,
    );
    Ok(())
}

fn open(backend: &str, link: &Link, queue: u32) -> Result<Box<dyn Transmit>> {
    let cookies = Cookies::new(CookieKey::derive(7, &[7; 16]), 16_384..=32_767, 25);
    let syn = Syn::new(
        &link.header(),
        link.source,
        Syn::DEFAULT_TTL,
        SynLayout::Linux,
        cookies,
    );
    Ok(match backend {
        "packet" => Box::new(PacketTransmit::open(link, syn)?),
        "xdp" => Box::new(XdpTransmit::open(link, syn, queue)?),
        _ => bail!("no backend is called {backend}"),
    })
}

/// Sends for that long. Returns how many probes were accepted and how many have left.
fn send(mut transmit: Box<dyn Transmit>, time: Duration) -> Result<(u64, u64)> {
    let targets = targets();
    let started = Instant::now();
    let mut accepted = 0;
    while started.elapsed() < time && accepted < MOST_FRAMES {
        for chunk in targets.chunks(BATCH).take(16) {
            accepted += transmit.send(chunk)? as u64;
        }
    }
    let left = transmit.settle(Duration::from_secs(1))?;
    Ok((accepted, left))
}

fn targets() -> Vec<Target> {
    let wanted = RangeSet::from_ranges([(0x0a00_0000, 0x0aff_ffff)]);
    let space = Space::new(&wanted, &RangeSet::from_ranges([(0, 0)]));
    (0..TARGETS)
        .filter_map(|at| space.target((at * 2_654_435_761) % (1 << 24)))
        .collect()
}

/// Frames our interface has sent, or the peer's has received.
fn counter(link: &Link, peer: Option<&str>) -> Result<u64> {
    let mut command = Command::new("ip");
    let (interface, side) = match peer {
        Some(peer) => {
            let (space, interface) = peer
                .split_once('/')
                .context("PEER is NAMESPACE/INTERFACE")?;
            command.args(["-n", space]);
            (interface, "rx")
        }
        None => (link.interface.as_str(), "tx"),
    };
    let output = command
        .args(["-json", "-statistics", "link", "show", "dev", interface])
        .output()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    links[0]["stats64"][side]["packets"]
        .as_u64()
        .with_context(|| format!("no counters of {interface}"))
}

/// Processor time of this process, both modes, in seconds.
fn cpu_seconds() -> Result<f64> {
    /// Ticks a second in `/proc/self/stat`: 100 on Linux (proc(5), `USER_HZ`).
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat is odd")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / TICKS)
}
