//! The servers: one thread, one epoll, any number of connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

/// A mail server in a few words; after QUIT it closes first.
pub(crate) fn serve(port: u16) -> Result<()> {
    Server::listen(port, Some(GREETING))?.run(None)
}

/// Connects with everybody and says nothing, or an octet every `every` milliseconds.
///
/// Who says nothing need not take its callers out of the kernel's queue either, where they cost no
/// descriptors: so one process holds any number of them (`net.core.somaxconn` permitting).
pub(crate) fn tarpit(port: u16, every: u64) -> Result<()> {
    let server = Server::listen(port, None)?;
    if every > 0 {
        return server.run(Some(Duration::from_millis(every)));
    }
    loop {
        thread::park();
    }
}

struct Server {
    poll: Poll,
    door: TcpListener,
    greeting: Option<&'static [u8]>,
    /// By token.
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
}

struct Client {
    stream: TcpStream,
    /// A command whose end has not come yet.
    line: Vec<u8>,
}

impl Server {
    fn listen(port: u16, greeting: Option<&'static [u8]>) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        socket
            .bind(&address.into())
            .with_context(|| format!("listen on port {port}"))?;
        socket.listen(BACKLOG)?;
        let (poll, mut door) = (Poll::new()?, TcpListener::from_std(socket.into()));
        poll.registry()
            .register(&mut door, DOOR, Interest::READABLE)?;
        Ok(Self {
            poll,
            door,
            greeting,
            clients: Vec::new(),
            free: Vec::new(),
        })
    }

    fn run(mut self, pace: Option<Duration>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut waiting_at_door = false;
        let (mut next, mut dripped) = (Instant::now(), 0);
        loop {
            let timeout = if waiting_at_door {
                Some(Duration::ZERO)
            } else {
                pace.map(|_| DRIP)
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    DOOR => waiting_at_door = true,
                    token => self.talk(token.0),
                }
            }
            if waiting_at_door {
                waiting_at_door = self.accept();
            }
            if let Some(pace) = pace
                && next <= Instant::now()
            {
                next += DRIP;
                let rounds = usize::try_from(pace.as_millis() / DRIP.as_millis())?.max(1);
                self.drip(&mut dripped, self.clients.len().div_ceil(rounds));
            }
        }
    }

    /// Lets some callers in; whether more may be waiting.
    fn accept(&mut self) -> bool {
        for _ in 0..ACCEPTS {
            let Ok((mut stream, _)) = self.door.accept() else {
                // Nobody, or a caller who has left, or no descriptor: a later turn tells.
                return false;
            };
            let place = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            let greeted = self
                .greeting
                .is_none_or(|greeting| stream.write(greeting).is_ok());
            let heard =
                self.poll
                    .registry()
                    .register(&mut stream, Token(place), Interest::READABLE);
            if greeted && heard.is_ok() {
                let line = Vec::new();
                self.clients[place] = Some(Client { stream, line });
            } else {
                self.free.push(place);
            }
        }
        true
    }

    fn talk(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if !client.answer(self.greeting.is_some()) {
            self.clients[place] = None;
            self.free.push(place);
        }
    }

    /// An octet to the next `share` clients.
    fn drip(&mut self, from: &mut usize, share: usize) {
        for _ in 0..share.min(self.clients.len()) {
            *from = (*from + 1) % self.clients.len();
            if let Some(client) = &mut self.clients[*from] {
                // A client who has left shows that by its end of the stream.
                let _ = client.stream.write(b"2");
            }
        }
    }
}

impl Client {
    /// Reads and answers; false at the end.
    fn answer(&mut self, answers: bool) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) if !answers => {}
                Ok(count) => {
                    self.line.extend_from_slice(&buffer[..count]);
                    while let Some(end) = self.line.iter().position(|octet| *octet == b'\n') {
                        let reply = reply_to(&self.line[..end]);
                        self.line.drain(..=end);
                        if self.stream.write(reply).is_err() || reply == BYE {
                            return false;
                        }
                    }
                    if count < buffer.len() {
                        return self.line.len() < LONGEST;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn reply_to(line: &[u8]) -> &'static [u8] {
    let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
    match verb.as_slice() {
        b"EHLO" => {
            b"250-mail.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ETRN\r\n\
              250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250 CHUNKING\r\n"
        }
        b"HELO" if line.len() > 6 => b"250 mail.example.net\r\n",
        b"HELO" => b"501 Syntax: HELO hostname\r\n",
        b"NOOP" => b"250 2.0.0 Ok\r\n",
        b"QUIT" => BYE,
        _ => b"500 5.5.2 Error: command not recognized\r\n",
    }
}

const GREETING: &[u8] = b"220 mail.example.net ESMTP Postfix (Debian/GNU)\r\n";
const BYE: &[u8] = b"221 2.0.0 Bye\r\n";
const DOOR: Token = Token(usize::MAX);
/// As many as the kernel's `net.core.somaxconn` allows.
const BACKLOG: i32 = 1 << 20;
/// Callers let in before those inside are served.
const ACCEPTS: usize = 64;
/// Octets of a command line that never ends.
const LONGEST: usize = 4_096;
/// How often some clients get their octet.
const DRIP: Duration = Duration::from_millis(100);
