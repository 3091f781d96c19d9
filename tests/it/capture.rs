//! What is really on the wire, seen by tcpdump in the test internet: one SYN per target, none to a
//! blocked address, good checksums, and sessions that end with QUIT, those with odd peers too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use pnet_packet::Packet as _;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::tcp::{self, TcpFlags, TcpPacket};

use smtpsweep::smtp::Outcome;

use crate::support::{Testnet, file, oddpeers, one_at_a_time, privileged, run, scratch};

/// The frames of a pcap file (little-endian, microseconds; the format tcpdump writes here).
pub(crate) fn frames(pcap: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(word(0), 0xa1b2_c3d4);
    let (mut frames, mut at) = (Vec::new(), 24);
    while at < pcap.len() {
        let length = word(at + 8);
        frames.push(&pcap[at + 16..at + 16 + length]);
        at += 16 + length;
    }
    frames
}

/// tcpdump at the scanner's interface.
pub(crate) struct Capture {
    tcpdump: Child,
    pcap: PathBuf,
}

impl Capture {
    pub(crate) fn start(net: &Testnet, pcap: PathBuf) -> Self {
        let tcpdump = net
            .command("net", "tcpdump")
            .args("-i sws0 -B 16384 -U -n -s 0 -w".split_whitespace())
            .arg(&pcap)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        Self { tcpdump, pcap }
    }

    /// What it caught.
    pub(crate) fn stop(mut self) -> Vec<u8> {
        std::thread::sleep(Duration::from_millis(500));
        run(std::process::Command::new("kill").arg(self.tcpdump.id().to_string()));
        self.tcpdump.wait().unwrap();
        fs::read(&self.pcap).unwrap()
    }
}

/// The scanner's address.
pub(crate) const US: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);

/// What left the scanner.
#[derive(Default)]
struct Left {
    /// Probes per address.
    probes: BTreeMap<Ipv4Addr, u32>,
    /// What was said in each session (address and our port), retransmissions left out.
    said: BTreeMap<(Ipv4Addr, u16), Vec<u8>>,
    /// Every address that anything was sent to.
    contacted: BTreeSet<Ipv4Addr>,
}

impl Left {
    fn of(pcap: &[u8]) -> Self {
        let mut left = Self::default();
        let mut told = BTreeSet::new();
        for frame in frames(pcap) {
            let ethernet = EthernetPacket::new(frame).unwrap();
            let Some(ip) = Ipv4Packet::new(ethernet.payload()) else {
                continue;
            };
            if ip.get_version() != 4 || ip.get_source() != US {
                continue;
            }
            let to = ip.get_destination();
            left.contacted.insert(to);
            let length =
                usize::from(ip.get_total_length()) - usize::from(ip.get_header_length()) * 4;
            let Some(segment) = TcpPacket::new(&ip.payload()[..length]) else {
                continue;
            };
            let session = (to, segment.get_source());
            if segment.get_flags() == TcpFlags::SYN && segment.get_source() < 32768 {
                // Of the kernel's own frames, checksum offload would show unfinished ones.
                assert_eq!(ipv4::checksum(&ip), ip.get_checksum());
                let sum = tcp::ipv4_checksum(&segment, &US, &to);
                assert_eq!(sum, segment.get_checksum());
                *left.probes.entry(to).or_default() += 1;
            } else if !segment.payload().is_empty()
                && told.insert((session, segment.get_sequence()))
            {
                let said = left.said.entry(session).or_default();
                said.extend_from_slice(segment.payload());
            }
        }
        left
    }

    /// The lines said in each session.
    fn lines(&self) -> impl Iterator<Item = (Ipv4Addr, Vec<String>)> {
        self.said.iter().map(|((address, _), octets)| {
            let text = String::from_utf8_lossy(octets);
            (
                *address,
                text.split_inclusive('\n').map(str::to_owned).collect(),
            )
        })
    }
}

#[test]
fn one_good_syn_per_target_none_to_blocked_ones_and_quit_at_the_end() {
    if !privileged("one_good_syn_per_target_none_to_blocked_ones_and_quit_at_the_end") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "wire",
        "--prefix 198.18.0.0/20 --only postfix,exim,opensmtpd,sendmail --shares smtp=2,reset=5",
    );
    let directory = scratch();
    let (pcap, blocked) = (
        file(&directory, "wire.pcap"),
        file(&directory, "blocked.txt"),
    );
    fs::write(&blocked, "198.18.2.0/24 # asked us\n198.18.5.77\n").unwrap();
    let capture = Capture::start(&net, pcap);
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/20 --no-default-blocklist -b {} --rate 4000 --cooldown-time 1 -q \
         --ehlo-name scanner.example.org -o {}",
        blocked.display(),
        file(&directory, "survey.db").display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let left = Left::of(&capture.stop());
    let targets: BTreeSet<Ipv4Addr> = (0..4096u32)
        .map(|host| Ipv4Addr::from_bits(0xC612_0000 + host))
        .filter(|address| address.octets()[2] != 2 && address.octets()[2..] != [5, 77])
        .collect();
    assert!(
        left.probes.values().all(|count| *count == 1),
        "an address was probed twice"
    );
    assert_eq!(
        left.probes.keys().copied().collect::<BTreeSet<_>>(),
        targets
    );
    assert!(
        left.contacted.is_subset(&targets),
        "a blocked address was contacted"
    );
    let servers = net
        .of_kind("smtp")
        .iter()
        .filter(|truth| targets.contains(&truth.address.parse().unwrap()))
        .count();
    assert_eq!(left.said.len(), servers, "one session per server");
    for (address, lines) in left.lines() {
        assert_eq!(lines, [EHLO, "QUIT\r\n"], "{address}");
    }
}

const EHLO: &str = "EHLO scanner.example.org\r\n";

#[test]
fn whoever_has_greeted_is_told_quit_however_odd_it_is() {
    if !privileged("whoever_has_greeted_is_told_quit_however_odd_it_is") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "quit",
        &format!(
            "--prefix 198.18.0.0/22 --only none --shares odd=8 --oddpeers {}",
            oddpeers()
        ),
    );
    let directory = scratch();
    let capture = Capture::start(&net, file(&directory, "quit.pcap"));
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/22 --no-default-blocklist --rate 1000 --cooldown-time 1 -q \
         --greeting-timeout 4 --step-timeout 4 --session-timeout 12 \
         --ehlo-name scanner.example.org -o {}",
        file(&directory, "survey.db").display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let left = Left::of(&capture.stop());

    let said: BTreeMap<Ipv4Addr, Vec<String>> = left.lines().collect();
    let (mut told, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for truth in net.of_kind("odd") {
        let lines = said.get(&truth.address.parse().unwrap());
        let outcome = Outcome::from_name(&truth.outcome).unwrap();
        if outcome == Outcome::ResetInDialogue {
            // After a reset there is nobody to say it to.
            continue;
        }
        if !outcome.is_smtp() {
            assert_eq!(lines, None, "{truth:?}: spoke to a peer that did not greet");
            silent.insert(&truth.name);
            continue;
        }
        let lines = lines.unwrap_or_else(|| panic!("{truth:?}: not a word"));
        let quits = lines.iter().filter(|line| *line == "QUIT\r\n").count();
        assert_eq!(
            (lines.last().map(String::as_str), quits),
            (Some("QUIT\r\n"), 1),
            "{truth:?}: {lines:?}"
        );
        told.insert(&truth.name);
    }
    assert!(told.len() >= 15 && silent.len() >= 6, "{told:?} {silent:?}");
}
