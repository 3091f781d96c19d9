//! What is really on the wire, seen by tcpdump in the test internet: one SYN per target, none to a
//! blocked address, good checksums, and sessions that end with QUIT.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use pnet_packet::Packet as _;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::tcp::{self, TcpFlags, TcpPacket};

use crate::support::{Testnet, file, one_at_a_time, privileged, run, scratch};

/// The frames of a pcap file (little-endian, microseconds; the format tcpdump writes here).
fn frames(pcap: &[u8]) -> Vec<&[u8]> {
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
    // Checksum offload would leave the kernel's own frames unfinished in the capture.
    let mut tcpdump = net
        .command("net", "tcpdump")
        .args([
            "-i",
            "sws0",
            "-w",
            &pcap.display().to_string(),
            "-B",
            "16384",
            "-U",
            "-n",
            "-s",
            "0",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/20 --no-default-blocklist -b {} --rate 4000 --cooldown-time 1 -q \
         --ehlo-name scanner.example.org -o {}",
        blocked.display(),
        file(&directory, "survey.db").display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    std::thread::sleep(Duration::from_millis(500));
    run(std::process::Command::new("kill").arg(tcpdump.id().to_string()));
    tcpdump.wait().unwrap();

    let pcap = fs::read(&pcap).unwrap();
    let us: Ipv4Addr = "10.200.0.2".parse().unwrap();
    let mut probes = BTreeMap::<Ipv4Addr, u32>::new();
    let mut said = BTreeMap::<(Ipv4Addr, u16), Vec<u8>>::new();
    let mut contacted = BTreeSet::new();
    for frame in frames(&pcap) {
        let ethernet = EthernetPacket::new(frame).unwrap();
        let Some(ip) = Ipv4Packet::new(ethernet.payload()) else {
            continue;
        };
        if ip.get_version() != 4 || ip.get_source() != us {
            continue;
        }
        contacted.insert(ip.get_destination());
        let length = usize::from(ip.get_total_length()) - usize::from(ip.get_header_length()) * 4;
        let Some(segment) = TcpPacket::new(&ip.payload()[..length]) else {
            continue;
        };
        if segment.get_flags() == TcpFlags::SYN && segment.get_source() < 32768 {
            assert_eq!(ipv4::checksum(&ip), ip.get_checksum());
            let sum = tcp::ipv4_checksum(&segment, &us, &ip.get_destination());
            assert_eq!(sum, segment.get_checksum());
            *probes.entry(ip.get_destination()).or_default() += 1;
        } else if !segment.payload().is_empty() {
            let session = (ip.get_destination(), segment.get_source());
            said.entry(session)
                .or_default()
                .extend_from_slice(segment.payload());
        }
    }
    let targets: BTreeSet<Ipv4Addr> = (0..4096u32)
        .map(|host| Ipv4Addr::from_bits(0xC612_0000 + host))
        .filter(|address| address.octets()[2] != 2 && address.octets()[2..] != [5, 77])
        .collect();
    assert!(
        probes.values().all(|count| *count == 1),
        "an address was probed twice"
    );
    assert_eq!(probes.keys().copied().collect::<BTreeSet<_>>(), targets);
    assert!(
        contacted.is_subset(&targets),
        "a blocked address was contacted"
    );
    let servers = net
        .of_kind("smtp")
        .iter()
        .filter(|truth| targets.contains(&truth.address.parse().unwrap()))
        .count();
    assert_eq!(said.len(), servers, "one session per server");
    for (session, octets) in said {
        let lines: Vec<&[u8]> = octets.split_inclusive(|octet| *octet == b'\n').collect();
        assert_eq!(
            lines,
            [&b"EHLO scanner.example.org\r\n"[..], b"QUIT\r\n"],
            "{session:?}"
        );
    }
}
