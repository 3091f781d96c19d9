//! The client that does the least that a greeting, EHLO and QUIT take.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

pub(crate) fn run(first: Ipv4Addr, count: u32, port: u16, open: usize) -> Result<()> {
    ensure!(open > 0, "no connection may be open");
    let started = Instant::now();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut sessions: Vec<Option<Session>> = (0..open).map(|_| None).collect();
    let mut free: Vec<usize> = (0..open).collect();
    let (mut begun, mut complete, mut failed) = (0, 0_u32, 0_u32);
    let mut buffer = [0; 4096];
    while complete + failed < count {
        for _ in 0..128 {
            let Some(place) = free.pop() else { break };
            if begun == count {
                free.push(place);
                break;
            }
            let address = Ipv4Addr::from_bits(first.to_bits() + begun);
            begun += 1;
            let mut stream = TcpStream::connect(SocketAddr::from((address, port)))?;
            poll.registry()
                .register(&mut stream, Token(place), Interest::READABLE)?;
            sessions[place] = Some(Session { stream, step: 0 });
        }
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        for event in &events {
            let place = event.token().0;
            let Some(session) = &mut sessions[place] else {
                continue;
            };
            let Some(well) = session.step(&mut buffer) else {
                continue;
            };
            complete += u32::from(well);
            failed += u32::from(!well);
            sessions[place] = None;
            free.push(place);
        }
        ensure!(
            started.elapsed() < LONGEST,
            "{complete} of {count} sessions are complete and time is over"
        );
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{complete} {failed} {seconds:.3}");
    Ok(())
}

struct Session {
    stream: TcpStream,
    /// Replies that have come.
    step: usize,
}

impl Session {
    /// Reads a reply and sends the next command; at the end whether it went well. What stands in
    /// a reply is not looked at, and that it comes whole is taken for granted.
    fn step(&mut self, buffer: &mut [u8]) -> Option<bool> {
        match self.stream.read(buffer) {
            Ok(0) => return Some(false),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(_) => return Some(false),
        }
        let Some(command) = COMMANDS.get(self.step) else {
            return Some(true);
        };
        self.step += 1;
        self.stream.write(command).is_err().then_some(false)
    }
}

const COMMANDS: [&[u8]; 2] = [b"EHLO scanner.example.org\r\n", b"QUIT\r\n"];
/// However many sessions it is asked for.
const LONGEST: Duration = Duration::from_secs(120);
