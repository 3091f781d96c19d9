//! What each backend puts on a wire over a whole sweep: a million probes, and how they are spread
//! over time.
//!
//! The program sends from one namespace; at the other end of a veth pair `tcpdump` hands every frame
//! to this process, which checks it and ticks its address off: each target of the dry run once, no
//! other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::live::Veth;
use crate::support::{PROGRAM, file, one_at_a_time, privileged, run, scratch, sqlite};

/// 10.0.0.0/12: 1,048,576 addresses.
const FIRST: u32 = 0x0a00_0000;
const ADDRESSES: usize = 1 << 20;

/// 4,353 of them, which must not be probed.
const BLOCKED: &str = "10.3.16.0/20 # asked us\n10.0.7.0/24\n10.1.2.3\n";

fn is_blocked(address: u32) -> bool {
    address >> 12 == 0x000a_0310 >> 4 || address >> 8 == 0x000a_0007 || address == 0x0a01_0203
}

const US: [u8; 4] = [10, 200, 0, 2];

/// A set of addresses of 10.0.0.0/12.
#[derive(PartialEq, Eq)]
struct Addresses(Vec<bool>);

impl Addresses {
    fn none() -> Self {
        Self(vec![false; ADDRESSES])
    }

    /// Adds one that must be new, must be there, and must not be blocked.
    fn add(&mut self, address: u32) {
        let name = Ipv4Addr::from(address);
        assert!(!is_blocked(address), "{name} is blocked");
        let place = address.wrapping_sub(FIRST) as usize;
        assert!(place < ADDRESSES, "{name} is no target");
        let seen = &mut self.0[place];
        assert!(!*seen, "{name} was probed twice");
        *seen = true;
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|seen| **seen).count()
    }
}

/// The targets that a dry run prints.
fn dry_run() -> &'static Addresses {
    static TARGETS: OnceLock<Addresses> = OnceLock::new();
    TARGETS.get_or_init(|| {
        let directory = scratch();
        let blocked = file(&directory, "blocked");
        fs::write(&blocked, BLOCKED).unwrap();
        let mut dry = Command::new(PROGRAM)
            .args("scan 10.0.0.0/12 --no-default-blocklist --dryrun -q -b".split(' '))
            .arg(&blocked)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::with_capacity(1 << 20, dry.stdout.take().unwrap());
        let (mut targets, mut line) = (Addresses::none(), String::new());
        while lines.read_line(&mut line).unwrap() > 0 {
            let rest = &line[line.find("daddr: ").unwrap() + 7..];
            let address: Ipv4Addr = rest[..rest.find(' ').unwrap()].parse().unwrap();
            targets.add(address.to_bits());
            line.clear();
        }
        assert!(dry.wait().unwrap().success());
        assert_eq!(targets.count(), ADDRESSES - 4353);
        targets
    })
}

/// A probe as it came: to whom, and when in microseconds.
type Probe = (u32, u64);

/// tcpdump at the far end, and who reads what it says.
struct Capture {
    tcpdump: Child,
    reader: JoinHandle<Vec<Probe>>,
}

impl Capture {
    fn start(veth: &Veth) -> Self {
        let mut tcpdump = Command::new("ip")
            .args(["netns", "exec", &veth.peer, "tcpdump", "-i", "live1"])
            .args("-n -s 96 -B 262144 -Q in -U -w - tcp".split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(tcpdump.stderr.take().unwrap());
        let mut line = String::new();
        words.read_line(&mut line).unwrap();
        assert!(line.contains("listening"), "{line}");
        tcpdump.stderr = Some(words.into_inner());
        let pcap = tcpdump.stdout.take().unwrap();
        let reader = thread::spawn(move || read(BufReader::with_capacity(1 << 20, pcap)));
        Self { tcpdump, reader }
    }

    /// Everything that came. Nothing may have been lost.
    fn finish(mut self) -> Vec<Probe> {
        // tcpdump sees a block of frames a second after its first one at the latest.
        thread::sleep(Duration::from_millis(1500));
        run(Command::new("kill").args(["-INT", &self.tcpdump.id().to_string()]));
        let probes = self.reader.join().unwrap();
        let mut words = String::new();
        let mut stderr = self.tcpdump.stderr.take().unwrap();
        stderr.read_to_string(&mut words).unwrap();
        self.tcpdump.wait().unwrap();
        assert!(words.contains("\n0 packets dropped by kernel"), "{words}");
        probes
    }
}

/// Checks every frame of a pcap stream (little-endian, microseconds).
fn read(mut pcap: impl Read) -> Vec<Probe> {
    let mut probes = Vec::with_capacity(ADDRESSES);
    let mut head = [0; 24];
    pcap.read_exact(&mut head).unwrap();
    assert_eq!(head[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    let (mut record, mut frame) = ([0; 16], [0; 96]);
    while pcap.read_exact(&mut record).is_ok() {
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        let length = word(8) as usize;
        assert_eq!(word(8), word(12), "a frame was cut");
        pcap.read_exact(&mut frame[..length]).unwrap();
        let at_us = u64::from(word(0)) * 1_000_000 + u64::from(word(4));
        probes.push((check(&frame[..length]), at_us));
    }
    probes
}

/// Checks a frame octet by octet, apart from the program's own code. Returns where it goes.
fn check(frame: &[u8]) -> u32 {
    assert_eq!(frame.len(), 74, "Ethernet, IPv4, TCP with Linux's options");
    let (ip, tcp) = frame[14..].split_at(20);
    assert_eq!(frame[12..14], [8, 0]);
    assert_eq!((ip[0], &ip[2..4], ip[9]), (0x45, &[0, 60][..], 6));
    assert_eq!(ip[12..16], US);
    assert_eq!(sum(ip, 0), 0xffff, "checksum of {ip:x?}");
    // The pseudo-header: both addresses, the protocol, the segment's length.
    let pseudo = sum(&ip[12..20], 6 + 40);
    assert_eq!(sum(tcp, pseudo), 0xffff, "checksum of {tcp:x?}");
    assert_eq!((&tcp[2..4], tcp[12], tcp[13]), (&[0, 25][..], 0xa0, 2));
    u32::from_be_bytes(ip[16..20].try_into().unwrap())
}

/// The sum of RFC 1071, without the complement: 0xffff over what carries a good checksum.
fn sum(octets: &[u8], begin: u32) -> u32 {
    let mut sum = begin;
    for pair in octets.chunks_exact(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum
}

/// A sweep in the sender's namespace, without waiting for answers.
fn sweep(veth: &Veth, backend: &str, more: &str) {
    let directory = scratch();
    let (blocked, survey) = (file(&directory, "blocked"), file(&directory, "survey.db"));
    fs::write(&blocked, BLOCKED).unwrap();
    let done = run(Command::new("ip")
        .args(["netns", "exec", &veth.sender, PROGRAM, "scan"])
        .args("--no-default-blocklist --no-sessions -q -c 0 --tx".split(' '))
        .arg(backend)
        .args(more.split(' '))
        .arg("-b")
        .arg(&blocked)
        .arg("-o")
        .arg(&survey));
    assert_eq!(done.code, 0, "{}", done.stderr);
    // veth knows no other mode of AF_XDP.
    let mode = if backend == "xdp" { "\"copy\"" } else { "null" };
    let used = "SELECT value FROM survey WHERE key IN ('tx_backend', 'tx_mode') ORDER BY key";
    assert_eq!(sqlite(&survey, used), format!("\"{backend}\"\n{mode}\n"));
    assert_eq!(done.stderr, "", "no other backend took over");
}

fn a_million_probes(backend: &str, threads: u32) {
    if !privileged(&format!("wire::a_million_probes_by_{backend}")) {
        return;
    }
    let _turn = one_at_a_time();
    let wanted = dry_run();
    let veth = Veth::up(backend);
    let capture = Capture::start(&veth);
    sweep(
        &veth,
        backend,
        &format!("10.0.0.0/12 -r 250000 -T {threads}"),
    );
    let mut seen = Addresses::none();
    for (address, _) in capture.finish() {
        seen.add(address);
    }
    let (seen_count, wanted_count) = (seen.count(), wanted.count());
    assert!(seen == *wanted, "{seen_count} of {wanted_count} came");
}

#[test]
fn a_million_probes_by_packet() {
    a_million_probes("packet", 2);
}

#[test]
fn a_million_probes_by_xdp() {
    a_million_probes("xdp", 2);
}

#[test]
fn a_million_probes_by_live() {
    a_million_probes("live", 1);
}

/// The rates that every backend is held to, and how many probes that are some two seconds.
const RATES: [(u64, u64); 3] = [(2, 6), (1_000, 2_001), (50_000, 100_001)];
const BACKENDS: [&str; 3] = ["packet", "xdp", "live"];

#[test]
fn no_backend_exceeds_the_rate() {
    if !privileged("wire::no_backend_exceeds_the_rate") {
        return;
    }
    let _turn = one_at_a_time();
    let veth = Veth::up("rate");
    let capture = Capture::start(&veth);
    let at_rate = |of: usize, backend: usize| {
        let (rate, probes) = RATES[of];
        // 10.0.0.0/15 for the first of them, and so on.
        let net = 2 * (of * BACKENDS.len() + backend);
        let more = format!("10.{net}.0.0/15 -r {rate} -n {probes}");
        sweep(&veth, BACKENDS[backend], &more);
    };
    thread::scope(|scope| {
        // Little work, so all at once.
        for backend in 0..BACKENDS.len() {
            scope.spawn(move || at_rate(0, backend));
        }
    });
    for of in 1..RATES.len() {
        for backend in 0..BACKENDS.len() {
            at_rate(of, backend);
        }
    }
    let mut times: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for (address, at_us) in capture.finish() {
        let run = (address >> 17 & 0x7f) as usize;
        times.entry(run).or_default().push(at_us);
    }
    for (of, (rate, probes)) in RATES.into_iter().enumerate() {
        for (at, backend) in BACKENDS.into_iter().enumerate() {
            let name = format!("{backend} at {rate}");
            pace(&name, rate, probes, &times[&(of * BACKENDS.len() + at)]);
        }
    }
}

/// Checks that no second had more probes than its share. How many fewer depends on what else the
/// machine does, as other tests run beside this one: the figures are printed (`--nocapture`), and
/// exactness is held in virtual time (`rate`).
fn pace(name: &str, rate: u64, probes: u64, times: &[u64]) {
    assert_eq!(times.len() as u64, probes, "{name}");
    let mut seconds: BTreeMap<u64, u64> = BTreeMap::new();
    let mut milliseconds: BTreeMap<u64, u64> = BTreeMap::new();
    for time in times {
        let since = time - times[0];
        *seconds.entry(since / 1_000_000).or_default() += 1;
        *milliseconds.entry(since / 1_000).or_default() += 1;
    }
    // The last one is not over.
    seconds.pop_last();
    let seconds: Vec<u64> = seconds.into_values().collect();
    let crowd = milliseconds.values().max().unwrap();
    println!("{name}: in each second {seconds:?}, in a millisecond at most {crowd}");
    // Frames of `live` wait for its thread in the kernel, where that is kept from its processor.
    let percent = if name.starts_with("live") { 3 } else { 1 };
    let most = rate + rate * percent / 100 + 1;
    assert!(seconds.iter().all(|n| *n <= most), "{name}: {seconds:?}");
    let best = seconds.iter().max().unwrap();
    assert!(*best > rate / 2, "{name}: {seconds:?}");
}
