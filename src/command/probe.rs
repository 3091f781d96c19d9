//! `smtpsweep probe HOST`: one dialogue over a plain connection, shown as it happens.
//!
//! The dialogue is the sweep's own state machine; only the loop around it is simpler: one
//! blocking socket instead of thousands.

use std::io::{self, Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs as _,
};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::rules::print_explanation;
use crate::cli::ProbeArgs;
use crate::config::{self, ConfigError};
use crate::fingerprint::Replies;
use crate::smtp::{Dialogue, DialogueConfig, Outcome, Side, Transcript};
use crate::store::text::escape;
use crate::targets::Target;
use crate::targets::{RangeSet, Space};

/// Dials, converses, prints, classifies.
pub(super) fn probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let plan = config::dialogue(&args.dialogue)?;
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

    let (outcome, transcript) = converse(target, args, &plan)?;
    println!("\noutcome: {outcome}");
    print_explanation(&rules.explain(&Replies::of(&transcript).observation()))?;
    Ok(())
}

/// The IPv4 address of a host, by its digits or its name.
fn resolve(host: &str, port: u16) -> anyhow::Result<Ipv4Addr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let addresses = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?;
    for address in addresses {
        if let IpAddr::V4(address) = address.ip() {
            println!("{host} is {address}");
            return Ok(address);
        }
    }
    bail!("{host} has no IPv4 address")
}

/// Holds the dialogue; prints each piece as it comes and goes.
fn converse(
    target: Target,
    args: &ProbeArgs,
    plan: &config::DialoguePlan,
) -> anyhow::Result<(Outcome, Transcript)> {
    let peer = SocketAddrV4::new(target.addr(), args.target_port);
    println!("connecting to {peer}");
    let dialled = Instant::now();
    let mut stream = match TcpStream::connect_timeout(&peer.into(), plan.timeouts.connect) {
        Ok(stream) => stream,
        Err(error) => bail!("no connection to {peer}: {error}"),
    };
    let now = Instant::now();
    println!("connected after {} ms\n", (now - dialled).as_millis());
    let SocketAddr::V4(source) = stream.local_addr()? else {
        bail!("an IPv4 connection has an IPv6 address")
    };
    stream.set_nodelay(true)?;
    let mut dialogue = Dialogue::new(
        Arc::new(DialogueConfig {
            timeouts: plan.timeouts,
            ..DialogueConfig::new(plan.ehlo(*source.ip()))
        }),
        now,
    );
    let mut buffer = [0; 4096];
    loop {
        while let Some(octets) = dialogue.poll_output(Instant::now()) {
            show(now, Side::Client, &octets);
            // A failed write shows as a close or reset in the next read.
            let _ = stream.write_all(&octets);
        }
        let Some(deadline) = dialogue.poll_timeout().filter(|_| !dialogue.is_done()) else {
            break;
        };
        let wait = deadline.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            dialogue.handle_timeout(Instant::now(), None);
            continue;
        }
        stream.set_read_timeout(Some(wait))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                println!(
                    "{:>6} ms  -- closed by the server",
                    now.elapsed().as_millis()
                );
                dialogue.handle_close(Instant::now());
            }
            Ok(length) => {
                show(now, Side::Server, &buffer[..length]);
                dialogue.handle_input(Instant::now(), &buffer[..length]);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    dialogue.handle_timeout(Instant::now(), None);
                }
                io::ErrorKind::Interrupted => {}
                _ => {
                    println!("{:>6} ms  -- {error}", now.elapsed().as_millis());
                    dialogue.handle_reset(Instant::now());
                }
            },
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    Ok(dialogue.finish())
}

/// Prints a piece line by line, with its time and side; hostile bytes are escaped.
fn show(begin: Instant, side: Side, octets: &[u8]) {
    let mark = match side {
        Side::Client => "C:",
        Side::Server => "S:",
    };
    let at = begin.elapsed().as_millis();
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        println!("{at:>6} ms  {mark} {}", escape(line));
    }
}
