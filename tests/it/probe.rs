//! `smtpsweep probe` against peers on the loopback interface: it is the sweep's session, shown; and
//! it ends well whatever becomes of its output.

#[path = "../../examples/oddpeers/peers.rs"]
mod peers;

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{PROGRAM, Run, run};

/// A probe of a peer of ours.
fn probe(peer: SocketAddr) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["probe", &peer.ip().to_string()]);
    command.args(["-p", &peer.port().to_string()]);
    command.args(
        "--no-default-blocklist --ehlo-name scanner.example.org --connect-timeout 3 \
         --greeting-timeout 2 --step-timeout 1.5 --session-timeout 6"
            .split_whitespace(),
    );
    command
}

fn door() -> (TcpListener, SocketAddr) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = door.local_addr().unwrap();
    (door, addr)
}

#[test]
fn every_odd_peer_is_shown_with_the_outcome_that_a_sweep_would_record() {
    let probes: Vec<_> = peers::ALL
        .iter()
        .map(|peer| {
            let (door, addr) = door();
            peers::spawn(door, peer, Duration::from_millis(100));
            (peer, thread::spawn(move || run(&mut probe(addr))))
        })
        .collect();
    for (peer, probe) in probes {
        let done = probe.join().unwrap();
        let shown = format!("{}: {}{}", peer.name, done.stdout, done.stderr);
        assert_eq!(done.code, 0, "{shown}");
        assert!(done.stderr.is_empty(), "{shown}");
        let outcome = done
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("outcome: "));
        let name = outcome.and_then(|text| text.split(' ').next());
        assert_eq!(name, Some(peer.outcome), "{shown}");
        assert!(done.stdout.contains("\nconnected after "), "{shown}");
        assert!(done.stdout.contains("\nverdict: "), "{shown}");
    }
}

#[test]
fn the_whole_dialogue_is_shown_however_certain_the_verdict() {
    let (door, addr) = door();
    let server = thread::spawn(move || {
        let (mut stream, _) = door.accept().unwrap();
        stream
            .write_all(b"220 mx.example.test ESMTP Exim 4.96\r\n")
            .unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).unwrap() > 0 {
            let reply: &[u8] = match &line[..line.len() - 2] {
                b"EHLO scanner.example.org" => b"250-mx.example.test Hello\r\n250 HELP\r\n",
                b"NOOP https://example.org/survey" => b"250 OK\r\n",
                b"HELP" => b"214-Commands supported:\r\n214 HELO EHLO\r\n",
                b"NOOP \0" => b"501 NUL characters are not allowed in SMTP commands\r\n",
                b"XYZZY https://example.org/survey" => b"500 unrecognized command\r\n",
                b"QUIT" => b"221 mx.example.test closing connection\r\n",
                other => panic!("{}", other.escape_ascii()),
            };
            stream.write_all(reply).unwrap();
            line.clear();
        }
    });
    let done = run(probe(addr).args(["--contact", "https://example.org/survey"]));
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    let said: Vec<&str> = done
        .stdout
        .lines()
        .filter_map(|line| line.split_once("C: "))
        .map(|(_, said)| said)
        .collect();
    assert_eq!(
        said,
        [
            "EHLO scanner.example.org",
            "NOOP https://example.org/survey",
            "HELP",
            "NOOP \\x00",
            "XYZZY https://example.org/survey",
            "QUIT",
        ],
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.contains("S: 501 NUL characters"),
        "{}",
        done.stdout
    );
    server.join().unwrap();
}

#[test]
fn without_a_connection_there_is_an_outcome_and_a_failure() {
    let (door, addr) = door();
    drop(door);
    let done = run(&mut probe(addr));
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("\noutcome: connect_refused ("),
        "{}",
        done.stdout
    );
    assert!(
        done.stderr
            .starts_with(&format!("smtpsweep: no connection to {addr}: ")),
        "{}",
        done.stderr
    );
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
fn a_reader_that_goes_away_ends_the_session_with_quit_and_the_probe_cleanly() {
    let (door, addr) = door();
    let mut command = probe(addr);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stream, _) = door.accept().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("connected after") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "no connection");
    }
    // The empty line after it.
    reader.read_line(&mut line).unwrap();
    drop(reader);
    stream.write_all(b"220 mx.example.test ESMTP\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, "EHLO scanner.example.org\r\nQUIT\r\n");
    let done: Run = child.wait_with_output().unwrap().into();
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let (_door, addr) = door();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = probe(addr);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let done: Run = child.wait_with_output().unwrap().into();
    assert_eq!(done.code, 1);
    assert!(
        done.stderr
            .starts_with("smtpsweep: cannot write to standard output: No space left"),
        "{}",
        done.stderr
    );
}
