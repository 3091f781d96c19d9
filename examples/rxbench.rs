//! What the receiver takes without loss: ring → classifier → duplicate filter → channel, fed by
//! `scripts/bench-replies` at the other end of a veth pair.
//!
//! ```text
//! rxbench table FILE COUNT MAC-OF-THE-RECEIVER MAC-OF-THE-SENDER
//! rxbench receive INTERFACE SECONDS
//! ```
//!
//! `table` writes valid SYN-ACKs to our own SYNs: first one whole frame of 74 octets, then for each
//! of COUNT addresses (a power of two, at most 2^22) the octets in which its frame differs.
//!
//! `receive` does what the sweep's receiver does, until half a second after the last frame or SECONDS
//! in all, and prints one line: frames that the interface received, frames out of the ring, frames
//! lost for want of room there, valid answers, distinct addresses handed over, million frames a
//! second between the first and the last, and the thread's CPU time per frame in nanoseconds. The
//! first three add up only if every loss is counted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossbeam_channel::Sender;
use smtpsweep::net::{self, MacAddr, PacketReceive, Receive, RouteOptions};
use smtpsweep::probe::answer::synack_for;
use smtpsweep::probe::{Classifier, CookieKey, Cookies, Dedup, Reply, Responder, Syn, SynLayout};
use smtpsweep::targets::{RangeSet, Space};

const US: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);

/// The answering addresses: 10.0.0.0/10, all of which are targets.
const FIRST: u32 = 0x0a00_0000;
const MOST: u32 = 1 << 22;

/// However long it is asked to run.
const MOST_SECONDS: f64 = 60.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["table", file, count, to, from] => table(file, count, to, from),
        ["receive", interface, seconds] => receive(interface, seconds),
        _ => Err(anyhow::anyhow!(
            "usage: rxbench table FILE COUNT MAC MAC | receive INTERFACE SECONDS"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rxbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cookies() -> Cookies {
    Cookies::new(CookieKey::derive(7, &[7; 16]), 16_384..=32_767, 25)
}

fn space() -> Space {
    let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
    Space::new(
        &RangeSet::from_ranges([(FIRST, FIRST + MOST - 1)]),
        &nothing,
    )
}

fn table(file: &str, count: &str, to: &str, from: &str) -> Result<()> {
    let count: u32 = count.parse()?;
    ensure!(
        count.is_power_of_two() && count <= MOST,
        "COUNT is a power of two up to 2^22"
    );
    let (to, from) = (mac(to)?, mac(from)?);
    // The SYN leaves the receiver, so its answer goes back there.
    let header = [&from.0[..], &to.0, &[8, 0]].concat();
    let syn = Syn::new(&header, US, Syn::DEFAULT_TTL, SynLayout::Linux, cookies());
    let space = space();
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    let mut out = BufWriter::new(File::create(file)?);
    for at in 0..u64::from(count) {
        // An odd factor visits every index of a power of two, scattered as a sweep does.
        let index = (at * 2_654_435_761) % u64::from(MOST);
        let target = space.target(index).context("an index of the space")?;
        syn.stamp(&mut frame, target);
        let answer = synack_for(&frame).context("a SYN has an answer")?;
        ensure!(
            answer.len() == 74,
            "the layout of the table is for 74 octets"
        );
        if at == 0 {
            out.write_all(&answer)?;
        }
        // IP checksum and TCP destination port, source address, sequence number, acknowledgement,
        // TCP checksum.
        out.write_all(&answer[24..26])?;
        out.write_all(&answer[36..38])?;
        out.write_all(&answer[26..30])?;
        out.write_all(&answer[38..46])?;
        out.write_all(&answer[50..52])?;
        out.write_all(&[0; 2])?;
    }
    out.flush()?;
    Ok(())
}

fn mac(text: &str) -> Result<MacAddr> {
    text.parse()
        .map_err(|_| anyhow::anyhow!("{text} is no hardware address"))
}

fn receive(interface: &str, seconds: &str) -> Result<()> {
    let seconds = seconds.parse::<f64>()?.min(MOST_SECONDS);
    let options = RouteOptions {
        interface: Some(interface.to_owned()),
        source: Some(US),
        ..RouteOptions::default()
    };
    let link = net::discover(&options, Ipv4Addr::from(FIRST))?;
    let receiver = PacketReceive::open(&link, cookies().sports())?;
    let classifier = Classifier::new(US, cookies(), link.header_len());
    let before = interface_received(interface)?;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let (responders, queue) = crossbeam_channel::unbounded();
    let worker = std::thread::spawn(move || take(receiver, &classifier, &responders, deadline));
    // The sessions' part: taking responders in lots.
    let mut handed = 0u64;
    while !worker.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
        handed += queue.try_iter().count() as u64;
    }
    let seen = worker
        .join()
        .map_err(|_| anyhow::anyhow!("the receiver died"))??;
    handed += queue.try_iter().count() as u64;
    println!(
        "interface {} ring {} lost {} valid {} handed {handed} {:.3} M/s {} ns/frame",
        interface_received(interface)? - before,
        seen.frames,
        seen.lost,
        seen.valid,
        seen.frames as f64 / seen.last_us.saturating_sub(seen.first_us).max(1) as f64,
        seen.cpu_ns / seen.frames.max(1),
    );
    Ok(())
}

/// What the receiver counted.
#[derive(Default)]
struct Seen {
    frames: u64,
    valid: u64,
    lost: u64,
    cpu_ns: u64,
    first_us: u64,
    last_us: u64,
}

/// The receiver's thread: the same steps as in the sweep.
fn take(
    mut receiver: PacketReceive,
    classifier: &Classifier,
    responders: &Sender<Responder>,
    deadline: Instant,
) -> Result<Seen> {
    /// Silence that ends it, once there was something to hear.
    const SILENCE: Duration = Duration::from_millis(500);

    let space = space();
    let mut seen = Seen::default();
    let (mut answered, mut responded) = (Dedup::new(), Dedup::new());
    let mut heard = Instant::now();
    while Instant::now() < deadline && (seen.frames == 0 || heard.elapsed() < SILENCE) {
        let frames = receiver.poll(Duration::from_millis(50), &mut |frame, at_us| {
            if seen.frames == 0 {
                seen.first_us = at_us;
            }
            seen.frames += 1;
            seen.last_us = at_us;
            let Ok(reply) = classifier.classify(frame, at_us) else {
                return;
            };
            if space.admit(reply.addr()).is_none() || !reply.is_final() {
                return;
            }
            seen.valid += 1;
            let address = reply.addr().to_bits();
            answered.first(address);
            if let Reply::SynAck(responder) = reply
                && responded.first(address)
            {
                let _ = responders.send(responder);
            }
        })?;
        if frames > 0 {
            heard = Instant::now();
        }
        seen.lost = receiver.stats()?.dropped;
    }
    seen.cpu_ns = thread_cpu_ns()?;
    Ok(seen)
}

fn interface_received(interface: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{interface}/statistics/rx_packets");
    Ok(std::fs::read_to_string(path)?.trim().parse()?)
}

/// Processor time of this thread (the first number of its `schedstat`).
fn thread_cpu_ns() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text
        .split_whitespace()
        .next()
        .context("an empty schedstat")?;
    Ok(first.parse()?)
}
