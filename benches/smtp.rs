//! What SMTP costs without a network: octets through the reply parser, whole dialogues; and
//! with one: sessions per second over the loopback interface.
//!
//! `cargo bench --bench smtp`. The loopback figure includes the server, a bare loop on another
//! thread, and the kernel's work for both sides.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::thread;
use std::time::Instant;

use crossbeam_channel::unbounded;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use smtpsweep::probe::Responder;
use smtpsweep::session::{Counters, Engine, SessionConfig};
use smtpsweep::smtp::{Depth, Dialogue, DialogueConfig, Outcome, ReplyLimits, ReplyParser};
use smtpsweep::targets::{RangeSet, Space};

const GREETING: &[u8] = b"220 mx.example.test ESMTP Postfix (Debian/GNU)\r\n";
const EHLO: &[u8] = b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n\
250-ETRN\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n\
250 CHUNKING\r\n";
const ERROR: &[u8] = b"502 5.5.2 Error: command not recognized\r\n";
const QUIT: &[u8] = b"221 2.0.0 Bye\r\n";

fn main() {
    divan::main();
}

/// EHLO replies one after another, in pieces of that many octets.
#[divan::bench(args = [1, 64, 1_460, 16_384])]
fn parse_replies(bencher: Bencher<'_, '_>, piece: usize) {
    let input = EHLO.repeat(200);
    bencher
        .counter(BytesCount::new(input.len()))
        .bench_local(|| {
            let mut parser = ReplyParser::new(ReplyLimits::default());
            let mut replies = 0;
            for mut rest in input.chunks(piece) {
                while let Some(Ok(reply)) = parser.feed(&mut rest) {
                    replies += usize::from(black_box(reply).code == 250);
                }
            }
            assert_eq!(replies, 200);
        });
}

/// A short dialogue: greeting, EHLO, QUIT.
#[divan::bench]
fn dialogue(bencher: Bencher<'_, '_>) {
    hold(bencher, Depth::Ehlo, &[GREETING, EHLO, QUIT]);
}

/// A whole dialogue, with every probe that the error budget allows.
#[divan::bench]
fn behaviour_dialogue(bencher: Bencher<'_, '_>) {
    let inputs = [GREETING, EHLO, ERROR, ERROR, ERROR, QUIT];
    hold(bencher, Depth::Behaviour, &inputs);
}

fn hold(bencher: Bencher<'_, '_>, depth: Depth, inputs: &[&[u8]]) {
    let config = Arc::new(dialogue_config(depth));
    let now = Instant::now();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let mut dialogue = Dialogue::new(Arc::clone(&config), now);
        for input in inputs {
            dialogue.handle_input(now, input);
            black_box(dialogue.poll_output(now));
        }
        let (outcome, transcript) = dialogue.finish();
        assert_eq!(outcome, Outcome::Completed);
        transcript
    });
}

/// 5,000 short sessions over the loopback interface, at most 500 at once.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn loopback_sessions(bencher: Bencher<'_, '_>) {
    hold_sessions(bencher, Depth::Ehlo);
}

/// The same with whole dialogues.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn loopback_behaviour(bencher: Bencher<'_, '_>) {
    hold_sessions(bencher, Depth::Behaviour);
}

fn hold_sessions(bencher: Bencher<'_, '_>, depth: Depth) {
    const SESSIONS: usize = 5_000;
    let port = fast_server();
    bencher.counter(ItemsCount::new(SESSIONS)).bench_local(|| {
        let (input, responders) = unbounded();
        let (records, output) = unbounded();
        let config = SessionConfig {
            max_sessions: 500,
            per_24: 500,
            ..SessionConfig::new(dialogue_config(depth))
        };
        let stop = Arc::new(AtomicU8::new(0));
        let counters = Arc::new(Counters::new());
        let engine = Engine::new(
            config,
            responders,
            records,
            Arc::new(|_| true),
            counters,
            stop,
        )
        .expect("an engine");
        // Many addresses, so that no pair of addresses runs out of ports.
        for i in 0..SESSIONS {
            let host = u8::try_from(i % usize::from(DOORS) + 1).expect("a small number");
            input
                .send(responder(Ipv4Addr::new(127, 0, 0, host), port))
                .expect("open");
        }
        drop(input);
        let thread = thread::spawn(move || engine.run());
        let completed = output
            .iter()
            .filter(|r| r.outcome == Outcome::Completed)
            .count();
        thread.join().expect("no panic").expect("no error");
        assert_eq!(completed, SESSIONS);
    });
}

fn dialogue_config(depth: Depth) -> DialogueConfig {
    let name: smtpsweep::smtp::Fqdn = "probe.example.org".parse().expect("a valid name");
    DialogueConfig {
        depth,
        ..DialogueConfig::new(name)
    }
}

fn responder(addr: Ipv4Addr, port: u16) -> Responder {
    let only = RangeSet::from_ranges([(u32::from(addr), u32::from(addr))]);
    let target = Space::new(&only, &RangeSet::from_ranges([]))
        .admit(addr)
        .expect("the address");
    Responder::dialled(target, port, 0)
}

/// A server at 127.0.0.1 to 127.0.0.8 that answers every command at once: one thread. Its port.
fn fast_server() -> u16 {
    let first = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = first.local_addr().expect("its address").port();
    let others = (2..=DOORS).map(|host| {
        TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).expect("the same port")
    });
    let doors = std::iter::once(first).chain(others).collect();
    thread::spawn(move || serve(doors));
    port
}

fn serve(doors: Vec<TcpListener>) {
    let mut poll = Poll::new().expect("epoll");
    let mut doors: Vec<mio::net::TcpListener> = doors
        .into_iter()
        .map(|door| {
            door.set_nonblocking(true).expect("a mode");
            mio::net::TcpListener::from_std(door)
        })
        .collect();
    for (i, door) in doors.iter_mut().enumerate() {
        poll.registry()
            .register(door, Token(i), Interest::READABLE)
            .expect("a listener");
    }
    let mut events = Events::with_capacity(1_024);
    let mut callers: HashMap<Token, TcpStream> = HashMap::new();
    let mut next = doors.len();
    let mut buffer = [0; 1_024];
    loop {
        poll.poll(&mut events, None).expect("events");
        for event in &events {
            if let Some(door) = doors.get(event.token().0) {
                while let Ok((mut stream, _)) = door.accept() {
                    let token = Token(next);
                    next += 1;
                    poll.registry()
                        .register(&mut stream, token, Interest::READABLE)
                        .expect("room");
                    stream.write_all(GREETING).ok();
                    callers.insert(token, stream);
                }
                continue;
            }
            let Some(stream) = callers.get_mut(&event.token()) else {
                continue;
            };
            let over = match stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(_) if buffer[0] == b'E' => stream.write_all(EHLO).is_err(),
                Ok(_) if buffer[0] == b'Q' => {
                    stream.write_all(QUIT).ok();
                    true
                }
                Ok(_) => stream.write_all(ERROR).is_err(),
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if over {
                callers.remove(&event.token());
            }
        }
    }
}

const DOORS: u8 = 8;
