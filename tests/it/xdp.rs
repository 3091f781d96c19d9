//! What the AF_XDP backend puts on a wire, seen by tcpdump at the other end of a veth pair; and
//! that it never claims a probe to have left that did not.
//!
//! A backend sends from the namespace that its process is in, so each test starts its own program
//! again inside ([`Pair::inside`]), which then plays the sender's part ([`sender`]) and prints what
//! the backend told it.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pnet_packet::Packet as _;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::tcp::{self, TcpPacket};
use smtpsweep::net::{self, Link, RouteOptions, Transmit, XdpObstacle, XdpTransmit};
use smtpsweep::probe::{CookieKey, Cookies, Syn, SynLayout};
use smtpsweep::targets::{RangeSet, Space, Target};

use crate::support::{file, one_at_a_time, privileged, run, scratch, shell};

/// Set in the process that plays the sender: which part.
const PART: &str = "SMTPSWEEP_XDP_PART";

/// The directory of [`mark`]s.
const MARKS: &str = "SMTPSWEEP_XDP_MARKS";

const US: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);

/// Two namespaces joined by a veth pair with two queues; `x0` at either end.
struct Pair {
    name: String,
}

impl Pair {
    fn new() -> Self {
        let name = format!("xdp{}", std::process::id());
        let pair = Self { name };
        let n = &pair.name;
        shell(&format!(
            "ip netns add {n}-a; ip netns add {n}-b
             ip link add x0 netns {n}-a numtxqueues 2 numrxqueues 2 type veth \
               peer name x0 netns {n}-b numtxqueues 2 numrxqueues 2
             for s in a b; do
               ip netns exec {n}-$s sysctl -qw net.ipv6.conf.all.disable_ipv6=1
               ip -n {n}-$s link set x0 up
             done
             ip -n {n}-a link set lo up
             ip -n {n}-a addr add 10.200.0.2/30 dev x0
             ip -n {n}-a neigh replace 10.200.0.1 lladdr 02:00:00:00:00:01 dev x0 nud permanent
             ip -n {n}-a route add 10.0.0.0/9 via 10.200.0.1"
        ));
        pair
    }

    /// Starts this program's test `test` again, inside the sender's namespace, as `part`.
    fn start_inside(&self, test: &str, part: &str, marks: &Path) -> Child {
        Command::new("ip")
            .args(["netns", "exec", &format!("{}-a", self.name)])
            .arg(std::env::current_exe().unwrap())
            .args([&format!("xdp::{test}"), "--exact", "--nocapture"])
            .env(PART, part)
            .env(MARKS, marks)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    /// The same to its end. Returns the numbers it printed.
    fn inside(&self, test: &str, part: &str) -> HashMap<String, u64> {
        told(self.start_inside(test, part, Path::new("/")))
    }

    /// tcpdump at the other end, once it has had a moment to begin.
    fn capture(&self, interface: &str, to: &Path) -> Child {
        let child = Command::new("ip")
            .args(["netns", "exec", &format!("{}-b", self.name), "tcpdump"])
            .args(["-i", interface, "-n", "-s", "96", "-B", "262144", "-w"])
            .arg(to)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        child
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in ["a", "b"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &format!("{}-{side}", self.name)])
                .status();
        }
    }
}

/// Waits for a sender's end and reads the `XDP name number` lines out of what it printed.
fn told(child: Child) -> HashMap<String, u64> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text.lines()
        .filter_map(|line| line.split_once("XDP "))
        .filter_map(|(_, pair)| pair.split_once(' '))
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}

/// Stops tcpdump and reads the frames of its file that came from us.
fn captured(mut tcpdump: Child, pcap: &Path) -> Vec<Vec<u8>> {
    std::thread::sleep(Duration::from_millis(1500));
    run(Command::new("kill").arg(tcpdump.id().to_string()));
    tcpdump.wait().unwrap();
    let pcap = fs::read(pcap).unwrap();
    let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(word(0), 0xa1b2_c3d4);
    let (mut frames, mut at) = (Vec::new(), 24);
    while at < pcap.len() {
        let length = word(at + 8);
        assert_eq!(length, word(at + 12), "a frame was cut");
        frames.push(pcap[at + 16..at + 16 + length].to_vec());
        at += 16 + length;
    }
    frames.retain(|frame| frame[12..14] == [8, 0] && frame[26..30] == US.octets());
    frames
}

/// The targets, in a scattered order: 10.0.0.0/14 without a blocked /20.
fn targets() -> Vec<Target> {
    /// Prime, so that its multiples visit every index.
    const STRIDE: u64 = 1_000_003;
    let wanted = RangeSet::from_ranges([(0x0a00_0000, 0x0a03_ffff)]);
    let blocked = RangeSet::from_ranges([(0x0a01_1000, 0x0a01_1fff)]);
    let space = Space::new(&wanted, &blocked);
    (0..space.len())
        .map(|at| space.target(at * STRIDE % space.len()).unwrap())
        .collect()
}

fn syn(header: &[u8]) -> Syn {
    let cookies = Cookies::new(CookieKey::derive(7, &[7; 16]), 16_384..=32_767, 25);
    Syn::new(header, US, Syn::DEFAULT_TTL, SynLayout::Linux, cookies)
}

/// The frames that must have been sent to `targets`, made as the dry run makes them.
fn frames_for<'a>(
    header: &'a [u8],
    targets: &'a [Target],
) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let syn = syn(header);
    let mut frame = vec![0; syn.frame_len()];
    syn.prepare(&mut frame);
    targets.iter().map(move |target| {
        syn.stamp(&mut frame, *target);
        frame.clone()
    })
}

/// How often each frame was seen. Panics at a wrong checksum.
fn counts(frames: Vec<Vec<u8>>) -> HashMap<Vec<u8>, u32> {
    let mut counts = HashMap::with_capacity(frames.len());
    for frame in frames {
        {
            let ethernet = EthernetPacket::new(&frame).unwrap();
            let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
            assert_eq!(ipv4::checksum(&ip), ip.get_checksum());
            let segment = TcpPacket::new(ip.payload()).unwrap();
            let sum = tcp::ipv4_checksum(&segment, &US, &ip.get_destination());
            assert_eq!(sum, segment.get_checksum());
        }
        *counts.entry(frame).or_insert(0) += 1;
    }
    counts
}

fn link() -> Link {
    net::discover(&RouteOptions::default(), Ipv4Addr::new(10, 0, 0, 1)).unwrap()
}

fn open(queue: u32) -> Result<XdpTransmit, XdpObstacle> {
    let link = link();
    XdpTransmit::open(&link, syn(&link.header()), queue)
}

/// Offers `targets` until all are accepted.
fn send_all(transmit: &mut XdpTransmit, targets: &[Target]) {
    let mut rest = targets;
    while !rest.is_empty() {
        let accepted = transmit.send(&rest[..rest.len().min(256)]).unwrap();
        rest = &rest[accepted..];
    }
}

/// The sender's part, in a process of its own; true if this is that process.
fn sender() -> bool {
    let Ok(part) = std::env::var(PART) else {
        return false;
    };
    let targets = targets();
    match part.as_str() {
        "all, from two queues" => {
            let (first, second) = targets.split_at(targets.len() / 2);
            let left: u64 = std::thread::scope(|scope| {
                let threads = [(0, first), (1, second)].map(|(queue, targets)| {
                    scope.spawn(move || {
                        let mut transmit = open(queue).unwrap();
                        assert!(!transmit.is_zero_copy(), "veth cannot");
                        send_all(&mut transmit, targets);
                        transmit.settle(Duration::from_secs(5)).unwrap()
                    })
                });
                threads.map(|thread| thread.join().unwrap()).iter().sum()
            });
            println!("\nXDP left {left}");
        }
        "stopped in the middle" => {
            let mut transmit = open(0).unwrap();
            send_all(&mut transmit, &targets[..50_001]);
            println!("\nXDP left {}", transmit.left().unwrap());
        }
        "into a link without carrier" => {
            let mut transmit = open(0).unwrap();
            mark("open");
            await_that("the carrier's end", || {
                fs::read_to_string("/sys/class/net/x0/carrier")
                    .unwrap()
                    .trim()
                    == "0"
            });
            let accepted = transmit.send(&targets[..1000]).unwrap();
            let left = transmit.left().unwrap();
            println!("\nXDP accepted {accepted}\nXDP left-meanwhile {left}");
            mark("sent");
            let left = transmit.settle(Duration::from_secs(20)).unwrap();
            println!("XDP left {left}");
        }
        "obstacles" => {
            let first = open(0).unwrap();
            assert!(matches!(
                open(0),
                Err(XdpObstacle::QueueTaken { queue: 0, .. })
            ));
            assert!(matches!(
                open(2),
                Err(XdpObstacle::NoQueue { queue: 2, .. })
            ));
            drop(first);
            open(0).unwrap();
            XdpTransmit::probe(&link()).unwrap();
            let options = RouteOptions {
                interface: Some("lo".to_owned()),
                source: Some(US),
                ..RouteOptions::default()
            };
            let loopback = net::discover(&options, Ipv4Addr::LOCALHOST).unwrap();
            let refused = XdpTransmit::probe(&loopback);
            assert!(matches!(refused, Err(XdpObstacle::NotEthernet { .. })));
            println!("\nXDP refused 3");
        }
        other => panic!("no part is called {other}"),
    }
    true
}

/// Tells the test how far its sender is, by a file.
fn mark(name: &str) {
    let directory = std::env::var(MARKS).unwrap();
    fs::write(Path::new(&directory).join(name), "").unwrap();
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain for {what}");
}

/// The link header that the sender discovers, as seen in a frame.
fn header(counts: &HashMap<Vec<u8>, u32>) -> Vec<u8> {
    counts.keys().next().unwrap()[..14].to_vec()
}

#[test]
fn every_target_gets_one_good_frame_the_same_as_in_the_dry_run() {
    const TEST: &str = "every_target_gets_one_good_frame_the_same_as_in_the_dry_run";
    if sender() || !privileged(TEST) {
        return;
    }
    let _turn = one_at_a_time();
    let (pair, directory) = (Pair::new(), scratch());
    let pcap = file(&directory, "xdp.pcap");
    let tcpdump = pair.capture("x0", &pcap);
    let told = pair.inside(TEST, "all, from two queues");
    let seen = counts(captured(tcpdump, &pcap));

    let targets = targets();
    assert_eq!(targets.len(), (1 << 18) - (1 << 12));
    assert_eq!(told["left"], targets.len() as u64);
    let header = header(&seen);
    let wanted: HashMap<Vec<u8>, u32> = frames_for(&header, &targets)
        .map(|frame| (frame, 1))
        .collect();
    assert!(seen == wanted, "{} distinct frames", seen.len());
}

#[test]
fn what_is_said_to_have_left_when_stopped_in_the_middle_has_left() {
    const TEST: &str = "what_is_said_to_have_left_when_stopped_in_the_middle_has_left";
    if sender() || !privileged(TEST) {
        return;
    }
    let _turn = one_at_a_time();
    let (pair, directory) = (Pair::new(), scratch());
    let pcap = file(&directory, "xdp.pcap");
    let tcpdump = pair.capture("x0", &pcap);
    let told = pair.inside(TEST, "stopped in the middle");
    let mut seen = counts(captured(tcpdump, &pcap));

    let targets = targets();
    let left = usize::try_from(told["left"]).unwrap();
    // No more than the frames under way are missing.
    assert!((50_001 - 256..=50_001).contains(&left), "{left}");
    let header = header(&seen);
    for (number, frame) in frames_for(&header, &targets[..left]).enumerate() {
        assert_eq!(seen.remove(&frame), Some(1), "probe {number} of {left}");
    }
    // The others were accepted and may have left, once.
    for frame in frames_for(&header, &targets[left..50_001]) {
        assert!(matches!(seen.remove(&frame), None | Some(1)));
    }
    assert!(seen.is_empty(), "{} frames nobody asked for", seen.len());
}

#[test]
fn frames_that_the_driver_drops_have_not_left_and_leave_later() {
    const TEST: &str = "frames_that_the_driver_drops_have_not_left_and_leave_later";
    if sender() || !privileged(TEST) {
        return;
    }
    let _turn = one_at_a_time();
    let (pair, directory) = (Pair::new(), scratch());
    let pcap = file(&directory, "xdp.pcap");
    // tcpdump gives up when its interface goes down, so it listens where copies go that stays up.
    shell(&format!(
        "ip -n {0}-b link add copy type veth peer name copies
         ip -n {0}-b link set copy up
         ip -n {0}-b link set copies up
         ip netns exec {0}-b nft '
             table netdev copy {{
                 chain in {{
                     type filter hook ingress device x0 priority 0; policy accept;
                     dup to copy
                 }}
             }}'",
        pair.name
    ));
    let tcpdump = pair.capture("copies", &pcap);
    let child = pair.start_inside(TEST, "into a link without carrier", directory.path());
    await_that("the sender's socket", || file(&directory, "open").exists());
    shell(&format!("ip -n {}-b link set x0 down", pair.name));
    await_that("the sender's frames", || file(&directory, "sent").exists());
    shell(&format!("ip -n {}-b link set x0 up", pair.name));
    let told = told(child);
    let seen = counts(captured(tcpdump, &pcap));

    assert_eq!(told["left-meanwhile"], 0);
    let (accepted, left) = (told["accepted"], told["left"]);
    assert!((1..=256).contains(&accepted), "{accepted}");
    let targets = targets();
    let header = header(&seen);
    let first = &targets[..usize::try_from(accepted).unwrap()];
    let wanted: HashMap<Vec<u8>, u32> =
        frames_for(&header, first).map(|frame| (frame, 1)).collect();
    if left == accepted {
        assert!(seen == wanted, "{} of {accepted} came", seen.len());
    } else {
        // A kernel before 6.17, which does not say which frames it dropped.
        assert!(
            left <= seen.len() as u64,
            "{left} left, {} came",
            seen.len()
        );
        assert!(
            seen.iter()
                .all(|(frame, count)| wanted.get(frame) == Some(count))
        );
    }
}

#[test]
fn obstacles_are_told_apart() {
    const TEST: &str = "obstacles_are_told_apart";
    if sender() || !privileged(TEST) {
        return;
    }
    let _turn = one_at_a_time();
    let pair = Pair::new();
    assert_eq!(pair.inside(TEST, "obstacles")["refused"], 3);
}
