//! Peers that misbehave, for a test network: each port has its own way.
//!
//! `oddpeers --bind 127.0.0.1 --base-port 2600` listens on consecutive ports, prints a line
//! `port name expected-outcome` for each, and serves until a signal ends it. The outcome is that
//! which smtpsweep is to record for the peer. `oddpeers --raw 198.18.0.1` speaks a TCP of its own
//! for the addresses from that one on, for misconduct below SMTP, and prints lines
//! `address name expected-outcome` with the outcome if the session dials behind it, and then `ready`;
//! `raw.rs` tells what that needs. `oddpeers --list` prints all peers of both kinds so, without
//! addresses.

mod peers;
mod raw;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("oddpeers: {message}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> Result<(), String> {
    let mut bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut base: u16 = 2_600;
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        if option == "--list" {
            list();
            return Ok(());
        }
        let value = args
            .next()
            .ok_or_else(|| format!("{option} wants a value; {USAGE}"))?;
        let fault = |error: &dyn std::error::Error| format!("{option} {value}: {error}");
        match option.as_str() {
            "--bind" => bind = value.parse().map_err(|e| fault(&e))?,
            "--raw" => return serve_raw(value.parse().map_err(|e| fault(&e))?),
            "--base-port" => base = value.parse().map_err(|e| fault(&e))?,
            _ => return Err(format!("unknown option {option}; {USAGE}")),
        }
    }
    let mut doors = Vec::new();
    for (peer, port) in peers::ALL.iter().zip(base..) {
        let door = TcpListener::bind((bind, port))
            .map_err(|e| format!("listen on {bind} port {port}: {e}"))?;
        println!("{port} {} {}", peer.name, peer.outcome);
        doors.push(peers::spawn(door, peer, Duration::from_secs(1)));
    }
    for door in doors {
        door.join().map_err(|_| "a listener has died".to_owned())?;
    }
    Ok(())
}

fn list() {
    for peer in peers::ALL {
        println!("{} {} {}", peer.name, peer.outcome, peer.outcome);
    }
    for peer in raw::ALL {
        println!("{} {} {}", peer.name, peer.outcome, peer.dialled);
    }
}

fn serve_raw(first: Ipv4Addr) -> Result<(), String> {
    for (peer, bits) in raw::ALL.iter().zip(first.to_bits()..) {
        let address = Ipv4Addr::from_bits(bits);
        println!("{address} {} {} {}", peer.name, peer.outcome, peer.dialled);
    }
    raw::serve(first, || println!("ready"))
        .map_err(|error| format!("serve {first} and those after it: {error}"))
}

const USAGE: &str = "usage: oddpeers [--bind ADDRESS] [--base-port PORT] | --raw ADDRESS | --list";
