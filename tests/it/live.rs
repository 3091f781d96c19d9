//! The `live` backend between two network namespaces joined by a veth: what the peer receives, held
//! against what the backend says and what a dry run prints; and what happens when the interface
//! takes nothing (any more).
//!
//! The sender runs in a namespace, so this test binary starts itself there: see [`sender`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pnet_packet::Packet as _;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::tcp::{self, TcpPacket};
use smtpsweep::net::{DryRun, Link, LiveTransmit, NetError, RouteOptions, Transmit as _, discover};
use smtpsweep::probe::{CookieKey, Cookies, Syn, SynLayout};
use smtpsweep::targets::{Permutation, RangeSet, Shard, Space, Target, Walk};

use crate::support::{file, one_at_a_time, privileged, run, scratch, shell};

/// 131,072 addresses, of which 257 are blocked.
fn space() -> Space {
    let wanted = RangeSet::from_ranges([(0x0a00_0000, 0x0a01_ffff)]);
    let blocked = RangeSet::from_ranges([(0x0a00_0700, 0x0a00_07ff), (0x0a01_0203, 0x0a01_0203)]);
    Space::new(&wanted, &blocked)
}

fn targets() -> Vec<Target> {
    let space = Arc::new(space());
    let permutation = Permutation::new(space.len(), 3);
    let mut walk = Walk::new(space, &permutation, Shard::WHOLE, None).unwrap();
    let mut targets = Vec::new();
    while walk.fill(&mut targets, 4096) > 0 {}
    assert_eq!(targets.len(), 131_072 - 257);
    targets
}

fn syn(link: &Link) -> Syn {
    let cookies = Cookies::new(CookieKey::derive(9, &[9; 16]), 16_384..=32_767, 25);
    Syn::new(&link.header(), link.source, 255, SynLayout::Linux, cookies)
}

/// Two namespaces, joined, with two queues: `live0` is the sender's end, `live1` the peer's.
pub(crate) struct Veth {
    pub(crate) sender: String,
    pub(crate) peer: String,
}

impl Veth {
    pub(crate) fn up(name: &str) -> Self {
        let base = format!("t{}-live-{name}", std::process::id() % 100_000);
        let veth = Self {
            sender: format!("{base}-a"),
            peer: format!("{base}-b"),
        };
        let (a, b) = (&veth.sender, &veth.peer);
        shell(&format!(
            "ip netns add {a}; ip netns add {b}
             ip link add live0 netns {a} numtxqueues 2 numrxqueues 2 type veth \
               peer name live1 netns {b} numtxqueues 2 numrxqueues 2
             ip -n {a} addr add 10.200.0.2/30 dev live0; ip -n {b} addr add 10.200.0.1/30 dev live1
             ip -n {a} link set live0 up; ip -n {b} link set live1 up
             ip netns exec {b} sysctl -qw net.ipv4.ip_forward=0
             ip netns exec {b} ethtool -K live1 gro on
             ip -n {a} route add 10.0.0.0/8 via 10.200.0.1
             ip -n {a} neigh replace 10.200.0.1 dev live0 nud permanent lladdr \
             $(ip netns exec {b} cat /sys/class/net/live1/address)"
        ));
        veth
    }

    /// Runs [`sender`] in the sender's namespace in a role; returns what it wrote.
    fn send(&self, role: &str) -> Vec<String> {
        let directory = scratch();
        let said = file(&directory, "said");
        let done = run(Command::new("ip")
            .args(["netns", "exec", &self.sender])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "live::sender", "--nocapture"])
            .env("SMTPSWEEP_LIVE_ROLE", role)
            .env("SMTPSWEEP_LIVE_SAID", &said));
        assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
        let text = fs::read_to_string(said).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        for name in [&self.sender, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// What arrives at the peer, by tcpdump.
struct Capture {
    tcpdump: Child,
    directory: tempfile::TempDir,
}

impl Capture {
    fn start(veth: &Veth) -> Self {
        let directory = scratch();
        let mut tcpdump = Command::new("ip")
            .args(["netns", "exec", &veth.peer, "tcpdump", "-i", "live1"])
            .args(["-n", "-s", "0", "-B", "65536", "-Q", "in", "-w"])
            .arg(file(&directory, "pcap"))
            .arg("tcp dst port 25")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(tcpdump.stderr.take().unwrap());
        let mut line = String::new();
        words.read_line(&mut line).unwrap();
        assert!(line.contains("listening"), "{line}");
        tcpdump.stderr = Some(words.into_inner());
        Self { tcpdump, directory }
    }

    /// Ends the capture: a line a frame, in the words of a dry run. Every frame has good checksums.
    fn finish(mut self) -> Vec<String> {
        // tcpdump sees a block of frames a second after its first one at the latest.
        thread::sleep(Duration::from_millis(1500));
        run(Command::new("kill").args(["-INT", &self.tcpdump.id().to_string()]));
        let mut words = String::new();
        let mut stderr = self.tcpdump.stderr.take().unwrap();
        stderr.read_to_string(&mut words).unwrap();
        self.tcpdump.wait().unwrap();
        assert!(words.contains("\n0 packets dropped by kernel"), "{words}");
        lines_of(&file(&self.directory, "pcap"))
    }
}

fn lines_of(pcap: &Path) -> Vec<String> {
    let pcap = fs::read(pcap).unwrap();
    let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap()) as usize;
    let (mut lines, mut at) = (Vec::new(), 24);
    while at < pcap.len() {
        let length = word(at + 8);
        lines.push(line(&pcap[at + 16..at + 16 + length]));
        at += 16 + length;
    }
    lines
}

/// A captured probe as the dry run words it.
fn line(frame: &[u8]) -> String {
    let ethernet = EthernetPacket::new(frame).unwrap();
    let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
    assert_eq!(ipv4::checksum(&ip), ip.get_checksum());
    let segment = TcpPacket::new(ip.payload()).unwrap();
    let sum = tcp::ipv4_checksum(&segment, &ip.get_source(), &ip.get_destination());
    assert_eq!(sum, segment.get_checksum());
    format!(
        "tcp {{ source: {} | dest: {} | seq: {} | window: {} | checksum: {:#06X} }} ip {{ saddr: {} \
         | daddr: {} | ttl: {} | id: {} | checksum: {:#06X} }}",
        segment.get_source(),
        segment.get_destination(),
        segment.get_sequence(),
        segment.get_window(),
        segment.get_checksum(),
        ip.get_source(),
        ip.get_destination(),
        ip.get_ttl(),
        ip.get_identification(),
        ip.get_checksum(),
    )
}

/// What a dry run prints for these targets.
fn dry_run(targets: &[Target]) -> BTreeSet<String> {
    let link = Link::detached(Ipv4Addr::new(10, 200, 0, 2));
    let mut dry = DryRun::new(syn(&link), Vec::new());
    dry.send(targets).unwrap();
    let text = String::from_utf8(dry.finish().unwrap()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Whether captured lines are exactly those, each once.
fn assert_same(captured: Vec<String>, wanted: &BTreeSet<String>) {
    let count = captured.len();
    let captured: BTreeSet<String> = captured.into_iter().collect();
    assert_eq!(captured.len(), count, "some probe was sent twice");
    let missing: Vec<_> = wanted.difference(&captured).take(3).collect();
    let stray: Vec<_> = captured.difference(wanted).take(3).collect();
    assert!(
        missing.is_empty() && stray.is_empty(),
        "{count} captured, {} wanted; missing {missing:?}, stray {stray:?}",
        wanted.len()
    );
}

/// Not a test by itself: the sender's end, started by the tests below in a namespace.
#[test]
fn sender() {
    let Ok(role) = std::env::var("SMTPSWEEP_LIVE_ROLE") else {
        return;
    };
    let options = RouteOptions {
        interface: Some("live0".to_owned()),
        ..RouteOptions::default()
    };
    let link = discover(&options, Ipv4Addr::new(10, 0, 0, 1)).unwrap();
    let mut said = Vec::new();
    if role == "probe" {
        said.push(match LiveTransmit::probe(&link) {
            Ok(()) => "works".to_owned(),
            Err(err) => err.to_string(),
        });
    } else {
        LiveTransmit::probe(&link).unwrap_or_else(|err| {
            assert!(role == "deaf", "{err}");
        });
        let transmit = LiveTransmit::open(&link, syn(&link), 0).unwrap();
        said = send_as(&role, transmit);
    }
    fs::write(
        std::env::var("SMTPSWEEP_LIVE_SAID").unwrap(),
        said.join("\n"),
    )
    .unwrap();
}

/// Sends all targets in bursts that a capture can follow. Says how many were accepted and how many
/// left, and which targets were handed back.
fn send_as(role: &str, mut transmit: LiveTransmit) -> Vec<String> {
    let targets = targets();
    let (mut accepted, mut unsent) = (0, None);
    let mut bursts = 0;
    while accepted < targets.len() {
        let burst = if role == "stop" { targets.len() } else { 512 };
        let end = targets.len().min(accepted + burst);
        match transmit.send(&targets[accepted..end]) {
            Ok(taken) => accepted += taken,
            Err(NetError::Vanished { unsent: back, .. }) => {
                unsent = Some(back);
                break;
            }
            Err(err) => panic!("{err}"),
        }
        bursts += 1;
        match role {
            // With the ring full and a few thousand probes gone, mid-flight.
            "stop" => {
                // A run takes its time to begin, on a busy machine more than a second.
                let begun = Instant::now();
                while transmit.left().unwrap() == 0 && begun.elapsed() < Duration::from_secs(10) {
                    thread::sleep(Duration::from_micros(100));
                }
                unsent = Some(transmit.stop());
                break;
            }
            "down" if bursts == 100 => {
                shell("ip link set live0 down");
            }
            // Longer than a run waits for more: it ends, and another one begins.
            "all" if bursts == 50 => thread::sleep(Duration::from_millis(60)),
            _ => thread::sleep(Duration::from_millis(2)),
        }
    }
    let left = match transmit.settle(Duration::from_secs(10)) {
        Ok(left) => left,
        Err(NetError::Vanished { unsent: back, .. }) => {
            unsent = Some(back);
            transmit.left().unwrap()
        }
        Err(err) => panic!("{err}"),
    };
    let unsent = unsent.unwrap_or_default();
    let mut said = vec![accepted.to_string(), left.to_string()];
    said.extend(unsent.iter().map(|target| target.addr().to_string()));
    said
}

/// What the sender said: how many of the first targets were accepted, how many left, and which of
/// them were handed back.
fn account(said: &[String]) -> (usize, usize, BTreeSet<Ipv4Addr>) {
    let unsent: BTreeSet<Ipv4Addr> = said[2..].iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(
        unsent.len(),
        said.len() - 2,
        "a target was handed back twice"
    );
    (said[0].parse().unwrap(), said[1].parse().unwrap(), unsent)
}

/// What must have arrived if `accepted` targets were accepted and some of them handed back.
fn arrived(accepted: usize, unsent: &BTreeSet<Ipv4Addr>) -> BTreeSet<String> {
    let mut gone = targets();
    gone.truncate(accepted);
    gone.retain(|target| !unsent.contains(&target.addr()));
    assert_eq!(gone.len() + unsent.len(), accepted);
    dry_run(&gone)
}

#[test]
fn live_sends_each_target_once_as_a_dry_run_prints_it_and_no_blocked_one() {
    if !privileged("live_sends_each_target_once_as_a_dry_run_prints_it_and_no_blocked_one") {
        return;
    }
    let _turn = one_at_a_time();
    let veth = Veth::up("all");
    let capture = Capture::start(&veth);
    let (accepted, left, unsent) = account(&veth.send("all"));
    let captured = capture.finish();
    assert_eq!((accepted, left), (130_815, 130_815));
    assert!(unsent.is_empty());
    for blocked in ["daddr: 10.0.7.", "daddr: 10.1.2.3 "] {
        assert!(!captured.iter().any(|line| line.contains(blocked)));
    }
    assert_same(captured, &arrived(accepted, &unsent));
}

#[test]
fn live_stopped_in_the_middle_hands_back_exactly_what_has_not_left() {
    if !privileged("live_stopped_in_the_middle_hands_back_exactly_what_has_not_left") {
        return;
    }
    let _turn = one_at_a_time();
    let veth = Veth::up("stop");
    let capture = Capture::start(&veth);
    let (accepted, left, unsent) = account(&veth.send("stop"));
    let captured = capture.finish();
    assert_eq!(left, accepted - unsent.len());
    assert!(left > 0 && !unsent.is_empty(), "{left} of {accepted} left");
    assert_same(captured, &arrived(accepted, &unsent));
}

#[test]
fn live_on_an_interface_that_goes_down_hands_back_what_has_not_left() {
    if !privileged("live_on_an_interface_that_goes_down_hands_back_what_has_not_left") {
        return;
    }
    let _turn = one_at_a_time();
    let veth = Veth::up("down");
    let capture = Capture::start(&veth);
    let (accepted, left, unsent) = account(&veth.send("down"));
    let captured = capture.finish();
    assert!(accepted < 130_815 && !unsent.is_empty(), "{accepted}");
    assert_eq!(left, accepted - unsent.len());
    assert_same(captured, &arrived(accepted, &unsent));
}

#[test]
fn live_says_that_a_peer_does_not_poll_and_loses_nothing_to_it() {
    if !privileged("live_says_that_a_peer_does_not_poll_and_loses_nothing_to_it") {
        return;
    }
    let _turn = one_at_a_time();
    let veth = Veth::up("deaf");
    assert_eq!(veth.send("probe"), ["works"]);
    shell(&format!(
        "ip netns exec {} ethtool -K live1 gro off",
        veth.peer
    ));
    let said = veth.send("probe");
    assert!(said[0].contains("GRO"), "{said:?}");
    let capture = Capture::start(&veth);
    let (accepted, left, unsent) = account(&veth.send("deaf"));
    assert!(capture.finish().is_empty());
    assert_eq!((left, unsent.len()), (0, accepted));
    assert!(accepted > 0);
}
