//! The engine against real peers on the loopback interface: every peer's misconduct in its named
//! outcome, and as many records as responders however it ends.

#[path = "../../examples/oddpeers/peers.rs"]
mod peers;

mod flow;
mod tls;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::smtp::{Depth, Side, Stage, Timeouts};
use crate::targets::{RangeSet, Space};

/// A responder at that address and port, made the lawful way: by way of a target.
pub(super) fn responder(octets: [u8; 4], port: u16) -> Responder {
    let addr = Ipv4Addr::from(octets);
    let only = RangeSet::from_ranges([(u32::from(addr), u32::from(addr))]);
    let target = Space::new(&only, &RangeSet::from_ranges([]))
        .admit(addr)
        .expect("the address");
    Responder::dialled(target, port, 0)
}

fn local(port: u16) -> Responder {
    responder([127, 0, 0, 1], port)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Short times, but long enough for peers on a busy machine.
fn config() -> SessionConfig {
    let mut dialogue = DialogueConfig::new(
        "probe.example.org"
            .parse::<crate::smtp::Fqdn>()
            .expect("a valid name"),
    );
    // The peers here know EHLO and QUIT.
    dialogue.depth = Depth::Ehlo;
    dialogue.timeouts = Timeouts {
        connect: ms(2_000),
        greeting: ms(2_000),
        step: ms(1_500),
        quit: ms(500),
        session: ms(6_000),
    };
    SessionConfig {
        per_24: 1_000,
        ..SessionConfig::new(dialogue)
    }
}

/// An engine on its thread and the ends of its channels.
struct Running {
    input: Sender<Responder>,
    output: Receiver<SessionRecord>,
    counters: Arc<Counters>,
    stop: Arc<AtomicU8>,
    thread: JoinHandle<Result<(), SessionError>>,
}

fn start(config: SessionConfig) -> Running {
    start_with(config, usize::MAX, |_| true, |engine| engine)
}

fn start_with(
    config: SessionConfig,
    capacity: usize,
    admit: impl Fn(Ipv4Addr) -> bool + Send + Sync + 'static,
    adjust: impl FnOnce(Engine) -> Engine,
) -> Running {
    let (input, responders) = unbounded();
    let (records, output) = if capacity == usize::MAX {
        unbounded()
    } else {
        bounded(capacity)
    };
    let counters = Arc::new(Counters::new());
    let stop = Arc::new(AtomicU8::new(Stop::Run as u8));
    let (its_counters, its_stop) = (Arc::clone(&counters), Arc::clone(&stop));
    let engine = Engine::new(
        config,
        responders,
        records,
        Arc::new(admit),
        its_counters,
        its_stop,
    )
    .map(adjust)
    .expect("an engine");
    let thread = thread::spawn(move || engine.run());
    Running {
        input,
        output,
        counters,
        stop,
        thread,
    }
}

impl Running {
    /// Closes the channel and waits for all records.
    fn finish(self) -> Vec<SessionRecord> {
        drop(self.input);
        let records: Vec<SessionRecord> = self.output.iter().collect();
        self.thread.join().expect("no panic").expect("no error");
        assert_eq!(self.counters.done(), records.len() as u64);
        assert_eq!((self.counters.open(), self.counters.queued()), (0, 0));
        for outcome in Outcome::ALL {
            let count = records.iter().filter(|r| r.outcome == *outcome).count();
            assert_eq!(self.counters.ended(*outcome), count as u64, "{outcome}");
        }
        records
    }

    fn serve(self, responders: impl IntoIterator<Item = Responder>) -> Vec<SessionRecord> {
        for responder in responders {
            self.input.send(responder).expect("the engine runs");
        }
        self.finish()
    }
}

/// Starts every odd peer; their ports.
fn all_peers() -> Vec<(u16, &'static peers::Peer)> {
    peers::ALL
        .iter()
        .map(|peer| (start_peer(peer), peer))
        .collect()
}

fn start_peer(peer: &'static peers::Peer) -> u16 {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    peers::spawn(door, peer, ms(100));
    port
}

fn peer(name: &str) -> u16 {
    start_peer(
        peers::ALL
            .iter()
            .find(|p| p.name == name)
            .expect("a peer of that name"),
    )
}

/// A server of one connection after another; what each caller said arrives at the receiver.
fn listening(greeting: &'static [u8]) -> (u16, mpsc::Receiver<Vec<u8>>) {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        for stream in door.incoming() {
            let (mut stream, said) = (stream.expect("a connection"), said.clone());
            thread::spawn(move || {
                let mut octets = Vec::new();
                stream
                    .write_all(greeting)
                    .and_then(|()| stream.read_to_end(&mut octets))
                    .ok();
                said.send(octets).ok();
            });
        }
    });
    (port, heard)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(ms(2));
    }
}

#[test]
fn every_odd_peer_ends_in_its_named_outcome() {
    let peers = all_peers();
    let responders: Vec<Responder> = (0..4)
        .flat_map(|_| peers.iter().map(|(port, _)| local(*port)))
        .collect();
    let records = start(config()).serve(responders.iter().copied());
    assert_eq!(records.len(), responders.len());
    for (port, peer) in &peers {
        let of_peer: Vec<_> = records
            .iter()
            .filter(|r| r.responder.dport() == *port)
            .collect();
        assert_eq!(of_peer.len(), 4, "{}", peer.name);
        for record in of_peer {
            assert_eq!(
                record.outcome.name(),
                peer.outcome,
                "{}: {record:?}",
                peer.name
            );
            assert!(record.connect_ms.is_some());
            if record.outcome.is_smtp() && !matches!(record.outcome, Outcome::ResetInDialogue) {
                let last = record
                    .transcript
                    .pieces
                    .iter()
                    .rfind(|p| p.side == Side::Client);
                assert_eq!(
                    last.map(|p| p.bytes.as_slice()),
                    Some(&b"QUIT\r\n"[..]),
                    "{}",
                    peer.name
                );
            }
        }
    }
}

#[test]
fn the_transcript_is_what_was_said() {
    let port = peer("good");
    let record = start(config())
        .serve([local(port)])
        .pop()
        .expect("a record");
    let stage = |stage| {
        String::from_utf8(record.transcript.server(stage).expect("a reply")).expect("ASCII")
    };
    assert_eq!(stage(Stage::Greeting), "220 good.example.test ESMTP\r\n");
    assert_eq!(
        stage(Stage::Ehlo),
        "250-good.example.test\r\n250 SIZE 1000000\r\n"
    );
    assert_eq!(stage(Stage::Quit), "221 2.0.0 bye\r\n");
    assert_eq!(record.transcript.server(Stage::Helo), None);
    assert!(record.started_us > 1_600_000_000_000_000);
}

#[test]
fn a_watcher_is_told_of_all_that_is_said() {
    let port = peer("good");
    let (told, hears) = mpsc::channel();
    let watch = move |_: &Responder, seen: Seen<'_>| {
        let told_now = match seen {
            Seen::Octets(side, octets) => Told::Octets(side, octets.to_vec()),
            Seen::Tls(_) => panic!("nobody asked for TLS"),
            Seen::Connected => Told::Connected,
            Seen::Closed => Told::Closed,
            Seen::Lost => Told::Lost,
        };
        told.send(told_now).expect("open");
    };
    let running = start_with(
        config(),
        usize::MAX,
        |_| true,
        |engine| engine.watched_by(Box::new(watch)),
    );
    let (shut, reset) = (peer("close-after-ehlo"), peer("reset-at-once"));
    running.input.send(local(port)).expect("the engine runs");
    let record = running.output.recv().expect("a record");
    let mut expected = vec![Told::Connected];
    let pieces = record.transcript.pieces.into_iter();
    expected.extend(pieces.map(|p| Told::Octets(p.side, p.bytes)));
    assert_eq!(hears.try_iter().collect::<Vec<_>>(), expected);
    running.input.send(local(shut)).expect("the engine runs");
    running.output.recv().expect("a record");
    assert_eq!(
        hears.try_iter().skip(3).collect::<Vec<_>>(),
        [
            Told::Closed,
            Told::Octets(Side::Client, b"QUIT\r\n".to_vec())
        ]
    );
    running.input.send(local(reset)).expect("the engine runs");
    drop(running.input);
    assert_eq!(
        hears.iter().collect::<Vec<_>>(),
        [Told::Connected, Told::Lost]
    );
}

/// What a watcher saw.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Connected,
    Octets(Side, Vec<u8>),
    Closed,
    Lost,
}

#[test]
fn a_closed_port_refuses() {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    drop(door);
    let record = start(config())
        .serve([local(port)])
        .pop()
        .expect("a record");
    assert_eq!(record.outcome, Outcome::ConnectRefused);
    assert_eq!(record.connect_ms, None);
    assert!(record.detail.is_some());
}

#[test]
fn a_full_backlog_times_out() {
    let door =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    door.bind(
        &"127.0.0.1:0"
            .parse::<std::net::SocketAddr>()
            .expect("an address")
            .into(),
    )
    .expect("a port");
    door.listen(0).expect("a listener");
    let addr = door
        .local_addr()
        .expect("its address")
        .as_socket()
        .expect("IPv4");
    let _first = TcpStream::connect(addr).expect("room for one");
    let mut config = config();
    config.dialogue.timeouts.connect = ms(300);
    let record = start(config)
        .serve([local(addr.port())])
        .pop()
        .expect("a record");
    assert_eq!(record.outcome, Outcome::ConnectTimeout);
}

#[test]
fn who_is_not_admitted_is_not_dialled() {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let running = start_with(
        config(),
        usize::MAX,
        |addr| !addr.is_loopback(),
        |engine| engine,
    );
    let records = running.serve([local(port), local(port)]);
    assert!(records.iter().all(|r| r.outcome == Outcome::Blocked) && records.len() == 2);
    door.set_nonblocking(true).expect("a mode");
    assert_eq!(
        door.accept().expect_err("nobody called").kind(),
        io::ErrorKind::WouldBlock
    );
}

#[test]
fn a_zero_window_is_recognised() {
    let port = peer("silent");
    let adjust = |mut engine: Engine| {
        engine.shared.window = |_| Some(0);
        engine
    };
    let record = start_with(config(), usize::MAX, |_| true, adjust)
        .serve([local(port)])
        .pop();
    assert_eq!(record.expect("a record").outcome, Outcome::ZeroWindow);
}

#[test]
fn the_source_address_is_used_and_checked() {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let source = Ipv4Addr::new(127, 0, 0, 9);
    let running = start(SessionConfig {
        source: Some(source),
        ..config()
    });
    running.input.send(local(port)).expect("the engine runs");
    let (stream, caller) = door.accept().expect("a call");
    assert_eq!(caller.ip(), source);
    drop(stream);
    running.finish();

    let foreign = SessionConfig {
        source: Some(Ipv4Addr::new(192, 0, 2, 1)),
        ..config()
    };
    let (_, responders) = unbounded();
    let (records, _) = unbounded();
    let engine = Engine::new(
        foreign,
        responders,
        records,
        Arc::new(|_| true),
        Arc::default(),
        Arc::default(),
    );
    assert!(matches!(engine, Err(SessionError::Source { .. })));
}
