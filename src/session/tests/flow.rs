//! How many sessions at once, in which order, and what happens at the end: nobody is lost.

use super::*;

/// A server that holds each caller for a while; the most that were there at once.
fn crowd_counter(addr: &str) -> (u16, Arc<AtomicUsize>) {
    let door = TcpListener::bind((addr, 0)).expect("a port");
    let port = door.local_addr().expect("its address").port();
    let (present, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let result = Arc::clone(&most);
    thread::spawn(move || {
        for stream in door.incoming() {
            let (present, most) = (Arc::clone(&present), Arc::clone(&most));
            thread::spawn(move || {
                most.fetch_max(present.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(ms(20));
                present.fetch_sub(1, Ordering::SeqCst);
                stream.map(drop).ok();
            });
        }
    });
    (port, result)
}

#[test]
fn caps_hold_per_prefix_and_in_all() {
    let (port, most) = crowd_counter("127.0.0.1");
    let records = start(SessionConfig {
        per_24: 3,
        ..config()
    })
    .serve((0..30).map(|_| local(port)));
    assert_eq!(records.len(), 30);
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");

    let (port, most) = crowd_counter("127.0.0.1");
    let records = start(SessionConfig {
        max_sessions: 2,
        ..config()
    })
    .serve((0..20).map(|_| local(port)));
    assert_eq!(records.len(), 20);
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

/// A server that begins a greeting of 60,000 octets, all well formed, and never ends it.
fn wordy() -> u16 {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    thread::spawn(move || {
        let line = format!("220-{}\r\n", "x".repeat(244));
        let mut open = Vec::new();
        for stream in door.incoming().map_while(Result::ok) {
            let _ = (&stream).write_all(line.repeat(240).as_bytes());
            open.push(stream);
        }
    });
    port
}

#[test]
fn peers_that_send_much_cannot_fill_the_memory_together() {
    let (wordy, good) = (wordy(), peer("good"));
    let running = start_with(
        config(),
        usize::MAX,
        |_| true,
        |mut engine| {
            engine.most_held = 300_000;
            engine
        },
    );
    for _ in 0..20 {
        running.input.send(local(wordy)).expect("the engine runs");
    }
    running.input.send(local(good)).expect("the engine runs");
    let records = running.finish();
    assert_eq!(records.len(), 21);
    let held = |outcome: Outcome| -> usize {
        let with = records.iter().filter(|record| record.outcome == outcome);
        with.flat_map(|record| &record.transcript.pieces)
            .map(|piece| piece.bytes.len())
            .sum()
    };
    // Those who stayed to the end held no more together than was allowed.
    assert!((1..=300_000).contains(&held(Outcome::PartialGreeting)));
    let shed: Vec<_> = records
        .iter()
        .filter(|record| record.outcome == Outcome::NotSmtp)
        .collect();
    assert!(shed.len() >= 15, "{}", shed.len());
    for record in shed {
        assert_eq!(
            record.detail.as_deref(),
            Some("more octets than there is room for")
        );
    }
    assert!(held(Outcome::Completed) > 0, "the good one is among them");
}

#[test]
fn a_busy_prefix_does_not_hold_up_others() {
    let (silent, good) = (peer("silent"), {
        let door = TcpListener::bind("127.0.7.1:0").expect("a port");
        let port = door.local_addr().expect("its address").port();
        peers::spawn(door, &peers::ALL[0], ms(100));
        port
    });
    let running = start(SessionConfig {
        per_24: 1,
        ..config()
    });
    for _ in 0..3 {
        running.input.send(local(silent)).expect("the engine runs");
    }
    running
        .input
        .send(responder([127, 0, 7, 1], good))
        .expect("the engine runs");
    let first = running.output.recv().expect("a record");
    assert_eq!(first.outcome, Outcome::Completed);
    assert_eq!(
        running.counters.queued(),
        2,
        "the others wait for the first of their prefix"
    );
    assert_eq!(running.counters.queued_capped(), 2);
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    drop(running.input);
    assert_eq!(running.output.iter().count(), 3);
}

#[test]
fn a_backlog_behind_the_cap_of_a_24_is_counted_apart() {
    let silent = peer("silent");
    let running = start(SessionConfig {
        max_sessions: 1,
        per_24: 1,
        ..config()
    });
    running.input.send(local(silent)).expect("the engine runs");
    until("the first", || running.counters.open() == 1);
    for host in [[127, 0, 0, 1], [127, 0, 7, 1], [127, 0, 8, 1]] {
        for _ in 0..20 {
            let responder = responder(host, silent);
            running.input.send(responder).expect("the engine runs");
        }
    }
    // The first /24 is at its cap, and each of the others could have one more.
    until("all are sorted", || {
        (
            running.counters.queued_ready(),
            running.counters.queued_capped(),
        ) == (2, 58)
    });
    assert_eq!(running.counters.queued(), 60);
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    assert_eq!(running.finish().len(), 61);
}

#[test]
fn draining_lets_open_sessions_finish_and_dials_nobody_else() {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let running = start(SessionConfig {
        per_24: 2,
        ..config()
    });
    let (waiting, late) = (3_000, 10);
    for _ in 0..2 + waiting {
        running.input.send(local(port)).expect("the engine runs");
    }
    let mut open: Vec<TcpStream> = (0..2).map(|_| door.accept().expect("a call").0).collect();
    running.stop.store(Stop::Drain as u8, Ordering::Relaxed);
    until("those who wait are recorded", || {
        running.counters.ended(Outcome::Interrupted) == waiting
    });
    assert_eq!(running.counters.open(), 2);
    for _ in 0..late {
        running.input.send(local(port)).expect("the engine runs");
    }
    until("those who come late are too", || {
        running.counters.ended(Outcome::Interrupted) == waiting + late
    });
    for stream in &mut open {
        stream
            .write_all(b"554 not today\r\n")
            .expect("an open session");
    }
    drop(open);
    until("the open ones have ended", || running.counters.open() == 0);
    running.input.send(local(port)).expect("the engine runs on");
    let counters = Arc::clone(&running.counters);
    assert_eq!(running.finish().len() as u64, waiting + late + 3);
    assert_eq!(counters.ended(Outcome::Greeting5xx), 2);
    door.set_nonblocking(true).expect("a mode");
    door.accept().expect_err("nobody else called");
}

#[test]
fn a_slow_consumer_gets_the_records_of_a_drained_queue_too() {
    let running = start_with(
        SessionConfig {
            per_24: 1,
            ..config()
        },
        1,
        |_| true,
        |engine| engine,
    );
    let silent = peer("silent");
    let count: usize = 3_000;
    for _ in 0..count {
        running.input.send(local(silent)).expect("the engine runs");
    }
    until("one is open", || running.counters.open() == 1);
    running.stop.store(Stop::Drain as u8, Ordering::Relaxed);
    until("a full outbox", || running.counters.done() >= 1_024);
    thread::sleep(ms(50));
    assert!(running.counters.done() <= 1_024 + 2);
    assert!(running.counters.queued() > 1_000);
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    assert_eq!(running.finish().len(), count);
}

#[test]
fn whoever_comes_after_a_stop_at_once_is_recorded_until_the_channel_is_closed() {
    let silent = peer("silent");
    let running = start(config());
    for _ in 0..5 {
        running.input.send(local(silent)).expect("the engine runs");
    }
    until("five sessions", || running.counters.open() == 5);
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    until("all have ended", || running.counters.done() == 5);
    // As the receiver of replies does, which learns of the stop last.
    for sent in 6..=25 {
        running
            .input
            .send(local(silent))
            .expect("the engine takes responders until there can be no more");
        until("it is recorded", || running.counters.done() == sent);
    }
    let records = running.finish();
    assert_eq!(records.len(), 25);
    assert!(records.iter().all(|r| r.outcome == Outcome::Interrupted));
}

#[test]
fn stopped_at_once_open_sessions_say_quit_and_all_are_recorded() {
    let (silent, (mute, heard)) = (peer("silent"), listening(b"220 mute.example.test\r\n"));
    let running = start(SessionConfig {
        max_sessions: 40,
        ..config()
    });
    for port in [silent, mute].into_iter().cycle().take(100) {
        running.input.send(local(port)).expect("the engine runs");
    }
    until("40 sessions open, 60 waiting", || {
        (running.counters.open(), running.counters.queued()) == (40, 60)
    });
    // The mute ones have been told EHLO once the greeting was read.
    thread::sleep(ms(200));
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    let records = running.finish();
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|r| r.outcome == Outcome::Interrupted));
    let opened = records
        .iter()
        .filter(|r| r.responder.dport() == mute && r.connect_ms.is_some());
    for _ in opened {
        let said = heard.recv_timeout(ms(5_000)).expect("a caller");
        assert_eq!(said, b"EHLO probe.example.org\r\nQUIT\r\n");
    }
}

#[test]
fn odd_and_good_peers_mixed_and_stopped_in_the_middle_lose_nobody() {
    let peers = all_peers();
    let good = peer("good");
    let running = start(SessionConfig {
        max_sessions: 150,
        ..config()
    });
    let mut sent = BTreeMap::new();
    for round in 0..20 {
        for (port, _) in &peers {
            for port in [*port, good] {
                *sent.entry(port).or_insert(0) += 1;
                running.input.send(local(port)).expect("the engine runs");
            }
        }
        if round == 15 {
            until("the middle", || running.counters.done() > 50);
        }
    }
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    let mut recorded = BTreeMap::new();
    for record in running.finish() {
        *recorded.entry(record.responder.dport()).or_insert(0) += 1;
    }
    assert_eq!(recorded, sent);
}

#[test]
fn a_slow_consumer_stops_new_sessions_but_loses_nothing() {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    drop(door);
    // Refusals are the fastest outcome; nobody takes the records.
    let running = start_with(
        SessionConfig {
            max_sessions: 10,
            ..config()
        },
        1,
        |_| true,
        |engine| engine,
    );
    let count: usize = 3_000;
    for _ in 0..count {
        running.input.send(local(port)).expect("the engine runs");
    }
    until("a full outbox", || running.counters.done() >= 1_024);
    thread::sleep(ms(100));
    assert!(
        running.counters.done() <= 1_024 + 10 + 1,
        "{}",
        running.counters.done()
    );
    assert!(running.counters.queued() > 1_000);
    assert_eq!(running.finish().len(), count);
}

#[test]
fn a_consumer_that_goes_away_is_an_error() {
    let port = peer("good");
    let running = start(config());
    drop(running.output);
    running.input.send(local(port)).expect("the engine runs");
    let end = running.thread.join().expect("no panic");
    assert!(matches!(end, Err(SessionError::ConsumerGone(1))), "{end:?}");
}

#[test]
fn a_shortage_that_passes_is_waited_for() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let adjust = |mut engine: Engine| {
        engine.dial = |responder, source| match CALLS.fetch_add(1, Ordering::Relaxed) {
            0..3 => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            _ => dial::dial(responder, source),
        };
        engine
    };
    let port = peer("good");
    let records =
        start_with(config(), usize::MAX, |_| true, adjust).serve([local(port), local(port)]);
    assert!(records.iter().all(|r| r.outcome == Outcome::Completed) && records.len() == 2);
}

#[test]
fn a_shortage_that_lasts_is_a_local_error() {
    let adjust = |mut engine: Engine| {
        engine.dial = |_, _| Err(io::Error::from_raw_os_error(libc::EMFILE));
        engine
    };
    let records =
        start_with(config(), usize::MAX, |_| true, adjust).serve((0..200).map(|_| local(1)));
    assert_eq!(records.len(), 200);
    for record in records {
        assert_eq!(record.outcome, Outcome::LocalError);
        assert!(
            record
                .detail
                .expect("a reason")
                .contains("Too many open files")
        );
    }
}

#[test]
fn caps_of_zero_are_refused() {
    for config in [
        SessionConfig {
            max_sessions: 0,
            ..config()
        },
        SessionConfig {
            per_24: 0,
            ..config()
        },
    ] {
        let (_, responders) = unbounded();
        let (records, _) = unbounded();
        let engine = Engine::new(
            config,
            responders,
            records,
            Arc::new(|_| true),
            Arc::default(),
            Arc::default(),
        );
        assert!(matches!(engine, Err(SessionError::ZeroCap(_))));
    }
}

/// Greets, answers EHLO and QUIT and one thing more, then does `after` with the connection.
fn farewell<T: Send + 'static>(
    after: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let thread = thread::spawn(move || {
        let (mut stream, _) = door.accept().expect("a call");
        let mut buffer = [0; 512];
        for reply in [&b"220 a.example\r\n"[..], b"250 a\r\n", b"221 bye\r\n"] {
            stream.write_all(reply).expect("an open session");
            if !reply.starts_with(b"221") {
                assert!(stream.read(&mut buffer).expect("a command") > 0);
            }
        }
        stream
            .write_all(b"500 and another thing\r\n")
            .expect("open");
        after(stream)
    });
    (port, thread)
}

#[test]
fn after_its_reply_to_quit_the_server_closes_first() {
    let (port, server) = farewell(|mut stream| {
        stream
            .set_read_timeout(Some(ms(600)))
            .expect("a read timeout");
        let said = stream.read(&mut [0; 64]).map_err(|error| error.kind());
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        stream.set_read_timeout(None).expect("no read timeout");
        (said, stream.read(&mut [0; 64]).expect("our close"))
    });
    let record = start(config()).serve([local(port)]).pop();
    let record = record.expect("a record");
    let (early, late) = server.join().expect("no panic");
    assert_eq!(early, Err(io::ErrorKind::WouldBlock), "nothing before its");
    assert_eq!(late, 0);
    assert_eq!(record.outcome, Outcome::Completed);
    assert!(record.duration_ms < 600, "the farewell is not counted");
}

#[test]
fn a_server_that_does_not_close_is_left_with_a_fin() {
    let (port, server) = farewell(|mut stream| {
        let waits = Instant::now();
        (
            stream.read(&mut [0; 64]).expect("no reset"),
            waits.elapsed(),
        )
    });
    start(config()).serve([local(port)]);
    let (said, waited) = server.join().expect("no panic");
    assert_eq!(said, 0);
    assert!(waited > ms(800) && waited < ms(5_000), "{waited:?}");
}

#[test]
fn times_are_counted_for_each_session() {
    let running = start(config());
    let counters = Arc::clone(&running.counters);
    let (good, silent) = (peer("good"), peer("silent"));
    running.serve([local(good), local(good), local(silent)]);
    let counted = |name: &str| -> u64 {
        let named = counters.timings().named();
        let (_, histogram) = named.iter().find(|(n, _)| *n == name).expect("known");
        histogram.filled().iter().map(|(_, count)| count).sum()
    };
    assert_eq!(counted("connect_ms"), 3);
    assert_eq!(counted("greeting_delay_ms"), 2);
    assert_eq!(counted("session_ms"), 3);
    assert!(counted("step_ms") >= 4, "EHLO and QUIT of the good ones");
    let longest = counters.timings().session.filled().pop();
    assert!(
        longest.is_some_and(|(below, count)| below >= Some(2_048) && count == 1),
        "the silent one took its two seconds: {longest:?}"
    );
}
