//! The engine against servers with TLS of all kinds: what is recorded of each, and that what is
//! said inside arrives.

#[path = "../../../examples/tlspeers/peers.rs"]
mod peers;

use super::*;
use crate::smtp::TlsRecord;

fn peer(peer: &'static peers::Peer) -> u16 {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    peers::spawn(door, peer);
    port
}

fn named(name: &str) -> &'static peers::Peer {
    peers::ALL
        .iter()
        .find(|peer| peer.name == name)
        .expect("a peer of that name")
}

/// What is recorded of those peers, in their order.
fn session_with(config: SessionConfig, peers: &[&'static peers::Peer]) -> Vec<SessionRecord> {
    let running = start(config);
    let ports: Vec<u16> = peers.iter().map(|known| peer(known)).collect();
    for &port in &ports {
        running.input.send(local(port)).expect("the engine runs");
    }
    let mut records = running.finish();
    records.sort_by_key(|record| {
        let port = record.responder.dport();
        ports.iter().position(|known| *known == port)
    });
    assert_eq!(records.len(), peers.len());
    records
}

fn starttls() -> SessionConfig {
    let mut config = config();
    config.dialogue.starttls = true;
    config.dialogue.depth = Depth::Ehlo;
    config
}

fn version(record: &TlsRecord) -> String {
    record
        .version
        .map_or_else(String::new, |version| version.to_string())
}

#[test]
fn every_server_with_tls_is_recorded_as_it_is() {
    let peers: Vec<_> = peers::ALL.iter().collect();
    for (record, peer) in session_with(starttls(), &peers).iter().zip(peers) {
        let name = peer.name;
        assert_eq!(record.outcome.name(), peer.outcome, "{name}: {record:?}");
        let Some(tls) = record.tls.as_deref() else {
            let begun_by_peer = ["refuses", "alert-first", "implicit", "implicit10"];
            assert!(begun_by_peer.contains(&name), "{name}");
            continue;
        };
        assert_eq!(version(tls), peer.version, "{name}: {tls:?}");
        let failure = tls.failure.map_or("", crate::smtp::TlsFailure::name);
        assert_eq!(failure, peer.failure, "{name}: {tls:?}");
        let alert = tls.alert.map(|alert| alert.name().into_owned());
        assert_eq!(alert.unwrap_or_default(), peer.alert, "{name}: {tls:?}");
        if peer.outcome == "completed" {
            let ehlo = |stage| record.transcript.server(stage).expect("a reply");
            let holds = |stage, word: &[u8]| ehlo(stage).windows(word.len()).any(|at| at == word);
            assert!(holds(Stage::Ehlo, b"STARTTLS"), "{name}");
            assert!(holds(Stage::TlsEhlo, b"AUTH PLAIN"), "{name}");
            assert!(!holds(Stage::TlsEhlo, b"STARTTLS"), "{name}");
            assert_eq!(ehlo(Stage::Quit), b"221 2.0.0 bye\r\n", "{name}");
            assert!(tls.certificate().is_some(), "{name}");
        }
    }
}

#[test]
fn tls_comes_first_where_it_is_implicit() {
    let config = SessionConfig {
        implicit_tls: true,
        ..config()
    };
    let peers = ["implicit", "implicit10", "tls13", "silent"].map(named);
    let records = session_with(config, &peers);
    for (record, expected) in records.iter().zip(["TLSv1.3", "TLSv1.0"]) {
        assert_eq!(record.outcome, Outcome::Completed, "{record:?}");
        let tls = record.tls.as_deref().expect("TLS");
        assert_eq!(tls.start, crate::smtp::TlsStart::Implicit);
        assert_eq!(version(tls), expected);
        let greeting = record.transcript.server(Stage::Greeting);
        assert_eq!(
            greeting.as_deref(),
            Some(&b"220 tls.example.test ESMTP\r\n"[..])
        );
        assert!(record.transcript.server(Stage::Starttls).is_none());
    }
    for record in &records[2..] {
        assert_eq!(record.outcome, Outcome::TlsFailed, "{record:?}");
        let tls = record.tls.as_deref().expect("TLS");
        assert_eq!(tls.failure, Some(crate::smtp::TlsFailure::PlainText));
        assert!(record.connect_ms.is_some());
        assert_eq!(record.transcript, Transcript::default());
        let detail = record.detail.as_deref().unwrap_or_default();
        assert!(detail.starts_with("TLS: plain_text: 220 "), "{detail}");
    }
}

#[test]
fn an_alert_in_place_of_a_greeting_is_named() {
    let record = session_with(starttls(), &[named("alert-first")]).remove(0);
    assert_eq!(record.outcome, Outcome::NotSmtp);
    let detail = record.detail.as_deref();
    assert_eq!(detail, Some("a TLS alert: unexpected_message (10)"));
}

#[test]
fn what_is_injected_before_tls_is_no_word_of_the_server() {
    let record = session_with(starttls(), &[named("injects")]).remove(0);
    let inside = record.transcript.server(Stage::TlsEhlo).expect("a reply");
    assert!(inside.starts_with(b"250-tls.example.test"));
    let detail = record.detail.as_deref().unwrap_or_default();
    assert!(detail.contains("octets in clear text"), "{detail}");
}

#[test]
fn a_stop_in_the_handshake_is_recorded() {
    let running = start(starttls());
    let port = peer(named("silent"));
    running.input.send(local(port)).expect("the engine runs");
    thread::sleep(ms(500));
    running.stop.store(Stop::Now as u8, Ordering::Relaxed);
    let record = running.finish().remove(0);
    assert_eq!(record.outcome, Outcome::Interrupted);
    let tls = record.tls.expect("a handshake was under way");
    assert_eq!(tls.failure, Some(crate::smtp::TlsFailure::Interrupted));
}
