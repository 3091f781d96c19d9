//! Mail servers with TLS of all kinds, for a test network: each port has its own.
//!
//! `tlspeers --bind 127.0.0.1 --base-port 2600` listens on consecutive ports, prints a line
//! `port name expected-outcome` for each, and serves until a signal ends it. The outcome is that
//! which smtpsweep is to record for the peer with `--starttls`.

#[expect(dead_code, reason = "what is to be recorded of TLS is asked by tests")]
mod peers;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::ExitCode;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tlspeers: {message}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> Result<(), String> {
    let mut bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut base: u16 = 2_600;
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        let value = args
            .next()
            .ok_or_else(|| format!("{option} wants a value; {USAGE}"))?;
        let fault = |error: &dyn std::error::Error| format!("{option} {value}: {error}");
        match option.as_str() {
            "--bind" => bind = value.parse().map_err(|e| fault(&e))?,
            "--base-port" => base = value.parse().map_err(|e| fault(&e))?,
            _ => return Err(format!("unknown option {option}; {USAGE}")),
        }
    }
    let mut doors = Vec::new();
    for (peer, port) in peers::ALL.iter().zip(base..) {
        let door = TcpListener::bind((bind, port))
            .map_err(|e| format!("listen on {bind} port {port}: {e}"))?;
        println!("{port} {} {}", peer.name, peer.outcome);
        doors.push(peers::spawn(door, peer));
    }
    for door in doors {
        door.join().map_err(|_| "a listener has died".to_owned())?;
    }
    Ok(())
}

const USAGE: &str = "usage: tlspeers [--bind ADDRESS] [--base-port PORT]";
