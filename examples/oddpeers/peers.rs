//! The peers: one function per misconduct, a thread per connection.
//!
//! `unit` is the time that a slow peer lets pass between two of its acts: a second in a test
//! network, less in unit tests. A function returns when the peer would close.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One way to misbehave.
pub(crate) struct Peer {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The name of the outcome that a session with it is to end in.
    pub(crate) outcome: &'static str,
    serve: fn(&mut TcpStream, Duration) -> io::Result<()>,
}

/// All of them, in the order of their ports.
#[rustfmt::skip]
pub(crate) const ALL: &[Peer] = &[
    Peer { name: "good", outcome: "completed", serve: good },
    Peer { name: "silent", outcome: "no_greeting", serve: silent },
    Peer { name: "close-at-once", outcome: "closed_before_greeting", serve: close_at_once },
    Peer { name: "reset-at-once", outcome: "reset_before_greeting", serve: reset_at_once },
    Peer { name: "554-and-stay", outcome: "greeting_5xx", serve: refuse_and_stay },
    Peer { name: "421-and-close", outcome: "greeting_4xx", serve: busy_and_close },
    Peer { name: "421-and-stay", outcome: "greeting_4xx", serve: busy_and_stay },
    Peer { name: "tls", outcome: "not_smtp", serve: tls },
    Peer { name: "ssh", outcome: "not_smtp", serve: ssh },
    Peer { name: "http", outcome: "not_smtp", serve: http },
    Peer { name: "ftp", outcome: "ehlo_rejected", serve: ftp },
    Peer { name: "byte-a-second", outcome: "partial_greeting", serve: byte_a_second },
    Peer { name: "greeting-then-silence", outcome: "dialogue_timeout", serve: greet_then_silence },
    Peer { name: "100-mb-line", outcome: "not_smtp", serve: overlong_line },
    Peer { name: "100-mb-ehlo-reply", outcome: "protocol_error", serve: overlong_ehlo_reply },
    Peer { name: "endless-multi-line", outcome: "not_smtp", serve: endless_greeting },
    Peer { name: "endless-ehlo-reply", outcome: "protocol_error", serve: endless_ehlo_reply },
    Peer { name: "byte-a-second-ehlo-reply", outcome: "dialogue_timeout", serve: slow_ehlo_reply },
    Peer { name: "nul-and-8-bit", outcome: "completed", serve: nul_and_8_bit },
    Peer { name: "200-pieces", outcome: "completed", serve: many_pieces },
    Peer { name: "teaser", outcome: "completed", serve: teaser },
    Peer { name: "double-banner", outcome: "completed", serve: double_banner },
    Peer { name: "recites-all", outcome: "dialogue_timeout", serve: recite_all },
    Peer { name: "reset-after-ehlo", outcome: "reset_in_dialogue", serve: reset_after_ehlo },
    Peer { name: "close-after-ehlo", outcome: "closed_in_dialogue", serve: close_after_ehlo },
    Peer { name: "half-close", outcome: "closed_in_dialogue", serve: half_close },
    Peer { name: "421-after-ehlo", outcome: "service_closing", serve: busy_after_ehlo },
    Peer { name: "garbage-after-ehlo", outcome: "protocol_error", serve: garbage_after_ehlo },
    Peer { name: "masked", outcome: "completed", serve: masked },
    Peer { name: "220-to-all", outcome: "completed", serve: always_220 },
    Peer { name: "250-to-all", outcome: "completed", serve: always_250 },
    Peer { name: "endless-replies", outcome: "completed", serve: endless_replies },
    Peer { name: "quit-unanswered", outcome: "completed", serve: mute_at_quit },
];

/// Serves the connections that arrive at `door`, each by a thread of its own, for ever.
pub(crate) fn spawn(door: TcpListener, peer: &'static Peer, unit: Duration) -> JoinHandle<()> {
    let open = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in door.incoming() {
            let Ok(mut stream) = stream else {
                // Out of descriptors, most likely: let some connections end.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            while open.load(Ordering::Relaxed) >= MAX_OPEN {
                thread::sleep(Duration::from_millis(5));
            }
            open.fetch_add(1, Ordering::Relaxed);
            let served = Arc::clone(&open);
            let serve = move || {
                // That a connection breaks is the caller's doing, and no matter here.
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_nodelay(true);
                let _ = (peer.serve)(&mut stream, unit);
                drop(stream);
                served.fetch_sub(1, Ordering::Relaxed);
            };
            if thread::Builder::new()
                .stack_size(STACK)
                .spawn(serve)
                .is_err()
            {
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    })
}

fn good(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 good.example.test ESMTP\r\n")?;
    answer(
        stream,
        b"250-good.example.test\r\n250 SIZE 1000000\r\n",
        b"250 good.example.test\r\n",
    )
}

fn silent(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    swallow(stream)
}

fn close_at_once(_: &mut TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

fn reset_at_once(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    reset(stream)
}

fn refuse_and_stay(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"554 refuse.example.test no service for you\r\n")?;
    swallow(stream)
}

fn busy_and_close(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"421 4.3.2 busy.example.test too busy\r\n")
}

fn busy_and_stay(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"421 4.3.2 busy.example.test too busy\r\n")?;
    swallow(stream)
}

/// What a TLS server says to whoever does not begin with a handshake: a fatal alert.
fn tls(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"\x15\x03\x01\x00\x02\x02\x0a")?;
    swallow(stream)
}

fn ssh(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")?;
    swallow(stream)
}

fn http(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    swallow(stream)
}

fn ftp(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 ProFTPD Server (Debian) [192.0.2.1]\r\n")?;
    answer(
        stream,
        b"500 EHLO not understood\r\n",
        b"500 HELO not understood\r\n",
    )
}

fn byte_a_second(stream: &mut TcpStream, unit: Duration) -> io::Result<()> {
    for octet in b"220 ".iter().chain(std::iter::repeat(&b'.')) {
        stream.write_all(&[*octet])?;
        thread::sleep(unit);
    }
    Ok(())
}

fn greet_then_silence(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 mute.example.test ESMTP\r\n")?;
    swallow(stream)
}

fn overlong_line(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 ")?;
    write_100_mb(stream)?;
    swallow(stream)
}

fn overlong_ehlo_reply(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 long.example.test ESMTP\r\n")?;
    read_line(stream)?;
    stream.write_all(b"250 ")?;
    write_100_mb(stream)?;
    swallow(stream)
}

fn endless_greeting(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    loop {
        stream.write_all(b"220-there is more to come\r\n")?;
    }
}

fn endless_ehlo_reply(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 endless.example.test ESMTP\r\n")?;
    read_line(stream)?;
    loop {
        stream.write_all(b"250-X-EXTENSION\r\n")?;
    }
}

fn slow_ehlo_reply(stream: &mut TcpStream, unit: Duration) -> io::Result<()> {
    stream.write_all(b"220 slow.example.test ESMTP\r\n")?;
    read_line(stream)?;
    for octet in b"250-".iter().chain(std::iter::repeat(&b'.')) {
        stream.write_all(&[*octet])?;
        thread::sleep(unit);
    }
    Ok(())
}

fn nul_and_8_bit(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 m\xfcller\0.example.test \xff\xfe ESMTP\r\n")?;
    answer(stream, b"250 \0\x80\r\n", b"250 \0\x80\r\n")
}

fn many_pieces(stream: &mut TcpStream, unit: Duration) -> io::Result<()> {
    let greeting = format!("220 pieces.example.test {}\r\n", "z".repeat(174));
    for octet in greeting.bytes() {
        stream.write_all(&[octet])?;
        thread::sleep(unit / 200);
    }
    answer(
        stream,
        b"250 pieces.example.test\r\n",
        b"250 pieces.example.test\r\n",
    )
}

fn teaser(stream: &mut TcpStream, unit: Duration) -> io::Result<()> {
    stream.write_all(b"220-teaser.example.test ESMTP\r\n")?;
    // Whoever speaks now has not waited for the greeting.
    stream.set_read_timeout(Some(unit * 2))?;
    if matches!(stream.read(&mut [0]), Ok(count) if count > 0) {
        return stream.write_all(b"550 5.5.1 Protocol error\r\n");
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"220 teaser.example.test ESMTP\r\n")?;
    answer(
        stream,
        b"250 teaser.example.test\r\n",
        b"250 teaser.example.test\r\n",
    )
}

fn double_banner(stream: &mut TcpStream, unit: Duration) -> io::Result<()> {
    stream.write_all(b"220 twice.example.test ESMTP\r\n")?;
    thread::sleep(unit / 20);
    stream.write_all(b"220 twice.example.test ESMTP\r\n")?;
    answer(
        stream,
        b"250 twice.example.test\r\n",
        b"250 twice.example.test\r\n",
    )
}

fn recite_all(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 trap.example.test\r\n250 trap.example.test\r\n221 bye\r\n")?;
    swallow(stream)
}

fn reset_after_ehlo(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 reset.example.test ESMTP\r\n")?;
    read_line(stream)?;
    reset(stream)
}

fn close_after_ehlo(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 close.example.test ESMTP\r\n")?;
    read_line(stream)
}

fn half_close(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 half.example.test ESMTP\r\n")?;
    stream.shutdown(Shutdown::Write)?;
    swallow(stream)
}

fn busy_after_ehlo(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 busy.example.test ESMTP\r\n")?;
    answer(
        stream,
        b"421 4.3.2 shutting down\r\n",
        b"421 4.3.2 shutting down\r\n",
    )
}

fn garbage_after_ehlo(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 garbage.example.test ESMTP\r\n")?;
    read_line(stream)?;
    stream.write_all(b"\x16\x03\x01 what is this\r\n")?;
    swallow(stream)
}

fn masked(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 *************************************************\r\n")?;
    answer(
        stream,
        b"502 5.5.1 Command not implemented\r\n",
        b"250 masked.example.test\r\n",
    )
}

fn always_220(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    let line = b"220 parrot.example.test\r\n";
    stream.write_all(line)?;
    answer(stream, line, line)
}

/// Accepts whatever is said, as a trap for spammers does.
fn always_250(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 trap.example.test\r\n")?;
    let commands = BufReader::new(stream.try_clone()?);
    for command in commands.split(b'\n') {
        command?;
        stream.write_all(b"250 ok\r\n")?;
    }
    Ok(())
}

/// Answers EHLO for ever, each time as if it were the only time.
fn endless_replies(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 endless.example.test ESMTP\r\n")?;
    read_line(stream)?;
    loop {
        stream.write_all(b"250 endless.example.test\r\n")?;
    }
}

fn mute_at_quit(stream: &mut TcpStream, _: Duration) -> io::Result<()> {
    stream.write_all(b"220 mute.example.test ESMTP\r\n")?;
    let commands = BufReader::new(stream.try_clone()?);
    for command in commands.split(b'\n') {
        let command = command?;
        if command.starts_with(b"EHLO") {
            stream.write_all(b"250 mute.example.test\r\n")?;
        } else if !command.starts_with(b"QUIT") {
            stream.write_all(b"500 what?\r\n")?;
        }
    }
    Ok(())
}

/// Answers commands until QUIT or the caller's close.
fn answer(stream: &mut TcpStream, ehlo: &[u8], helo: &[u8]) -> io::Result<()> {
    let commands = BufReader::new(stream.try_clone()?);
    for command in commands.split(b'\n') {
        let command = command?.to_ascii_uppercase();
        if command.starts_with(b"QUIT") {
            return stream.write_all(b"221 2.0.0 bye\r\n");
        }
        stream.write_all(match command.get(..4) {
            Some(b"EHLO") => ehlo,
            Some(b"HELO") => helo,
            _ => b"500 5.5.2 what?\r\n",
        })?;
    }
    Ok(())
}

fn write_100_mb(stream: &mut TcpStream) -> io::Result<()> {
    for _ in 0..1_600 {
        stream.write_all(&[b'x'; 65_536])?;
    }
    Ok(())
}

/// Reads and says nothing until the caller closes.
fn swallow(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

/// Reads to the end of a line.
fn read_line(stream: &mut TcpStream) -> io::Result<()> {
    let mut octet = [0];
    while stream.read(&mut octet)? > 0 && octet != *b"\n" {}
    Ok(())
}

/// Has the close that follows send RST.
fn reset(stream: &mut TcpStream) -> io::Result<()> {
    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))
}

/// How long a peer waits for a caller who says nothing and does not close.
const PATIENCE: Duration = Duration::from_secs(180);
/// Connections of one peer at once; more wait in the backlog.
const MAX_OPEN: usize = 2_000;
const STACK: usize = 256 * 1_024;
