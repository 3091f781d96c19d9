//! Hostile and broken peers: each kind has its outcome, and none costs more than its share of time
//! and memory; among them no good server is lost, nor when signals end the sweep in the middle.
//!
//! The table of kinds and outcomes is that of the peers themselves (`examples/oddpeers`), which
//! `docs/peers.md` repeats with words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use smtpsweep::smtp::Outcome;

use crate::support::{
    PROGRAM, Run, Testnet, file, oddpeers, one_at_a_time, privileged, repository, run, scratch,
    shell, sqlite,
};

/// The peers are near, so timeouts are short.
const NEAR: &str = "--no-default-blocklist --cooldown-time 1 --connect-timeout 3 \
                    --greeting-timeout 4 --step-timeout 4 --session-timeout 8 \
                    --max-sessions-per-24 500 --ehlo-name scanner.example.org -q";

/// The longest that a session can take by those timeouts: connecting, the dialogue, QUIT; and a
/// second for a busy machine.
const LONGEST_MS: u64 = (3 + 8 + 5 + 1) * 1000;

/// Octets of a peer that are kept, at most (`smtp::Limits`).
const MOST_KEPT: u64 = 65_536;

/// A sweep under way.
struct Sweep {
    child: Child,
    /// The most memory it has been seen to use, in KB.
    peak_kb: u64,
}

impl Sweep {
    fn start(net: &Testnet, arguments: &str, survey: &Path) -> Self {
        let child = net
            .command("scan", PROGRAM)
            .args(arguments.split_whitespace())
            .arg("-o")
            .arg(survey)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, peak_kb: 0 }
    }

    fn signal(&self, signal: &str) {
        // `ip netns exec` becomes the program: the child's id is the sweep's.
        run(std::process::Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()]));
    }

    /// Waits for its end, with an eye on its memory.
    fn end(mut self) -> (Run, u64) {
        while self.child.try_wait().unwrap().is_none() {
            let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
            let peak = status.ok().and_then(|status| {
                let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
                line.split_whitespace().nth(1)?.parse().ok()
            });
            self.peak_kb = self.peak_kb.max(peak.unwrap_or(0));
            thread::sleep(Duration::from_millis(20));
        }
        (self.child.wait_with_output().unwrap().into(), self.peak_kb)
    }
}

/// What a survey holds of one host.
#[derive(Debug)]
struct Host {
    outcome: String,
    detail: String,
    duration_ms: u64,
    /// Octets of the server's that are kept, and those that are not.
    kept: u64,
    cut: u64,
    product: String,
}

fn hosts(survey: &Path) -> BTreeMap<String, Host> {
    let rows = sqlite(
        survey,
        "SELECT saddr, outcome, ifnull(detail, ''), duration_ms, (SELECT ifnull(sum(length(data)), 0) \
         FROM transcripts t WHERE t.host_id = h.id AND side = 'server'), cut, \
         (SELECT ifnull(product, '') FROM v_hosts v WHERE v.saddr = h.saddr) FROM hosts h",
    );
    rows.lines()
        .map(|row| {
            let cells: Vec<&str> = row.split('\t').collect();
            let host = Host {
                outcome: cells[1].to_owned(),
                detail: cells[2].to_owned(),
                duration_ms: cells[3].parse().unwrap(),
                kept: cells[4].parse().unwrap(),
                cut: cells[5].parse().unwrap(),
                product: cells[6].to_owned(),
            };
            (cells[0].to_owned(), host)
        })
        .collect()
}

fn value(survey: &Path, key: &str) -> Value {
    let text = sqlite(
        survey,
        &format!("SELECT value FROM survey WHERE key = '{key}'"),
    );
    serde_json::from_str(&text).unwrap()
}

/// Responders = outcomes = stored hosts, by the counts and in a sound file; their number.
fn adds_up(survey: &Path) -> u64 {
    assert_eq!(sqlite(survey, "PRAGMA integrity_check").trim(), "ok");
    assert_eq!(sqlite(survey, "PRAGMA foreign_key_check").trim(), "");
    let responders = value(survey, "success_unique").as_u64().unwrap();
    let outcomes = value(survey, "outcomes");
    let outcomes = outcomes.as_object().unwrap().values();
    assert_eq!(
        responders,
        outcomes.map(|count| count.as_u64().unwrap()).sum::<u64>()
    );
    let stored = sqlite(survey, "SELECT count(*), count(DISTINCT addr) FROM hosts");
    assert_eq!(stored.trim(), format!("{responders}\t{responders}"));
    responders
}

/// Time and memory of one session are bounded whatever the peer does.
fn bounded(address: &str, host: &Host) {
    assert!(host.duration_ms <= LONGEST_MS, "{address}: {host:?}");
    assert!(host.kept <= MOST_KEPT, "{address}: {host:?}");
}

/// The program's memory in the tests below, in KB: the survey's cache, rings and a few sessions.
const MOST_MEMORY_KB: u64 = 120_000;

#[test]
fn every_hostile_peer_has_its_outcome_within_its_bounds() {
    if !privileged("every_hostile_peer_has_its_outcome_within_its_bounds") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "kinds",
        &format!(
            "--prefix 198.18.0.0/22 --only none --shares odd=10 --oddpeers {}",
            oddpeers()
        ),
    );
    let directory = scratch();
    let survey = file(&directory, "kinds.db");
    let sweep = Sweep::start(
        &net,
        &format!("scan 198.18.0.0/22 {NEAR} --rate 2000"),
        &survey,
    );
    let (done, peak_kb) = sweep.end();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(peak_kb < MOST_MEMORY_KB, "{peak_kb} KB");
    let found = hosts(&survey);
    let peers = net.of_kind("odd");
    assert_eq!(adds_up(&survey), peers.len() as u64);
    for truth in &peers {
        let host = &found[&truth.address];
        assert_eq!(host.outcome, truth.outcome, "{truth:?}: {host:?}");
        bounded(&truth.address, host);
        if truth.name.starts_with("100-mb") {
            // The line is given up at its limit: of the rest no more is read than one turn takes.
            assert!(
                host.kept + host.cut < 1 << 20,
                "{truth:?}: {host:?} was read on"
            );
        }
    }
}

/// Starts the peers with a TCP of their own at the addresses from 198.18.0.1 on, and keeps the
/// kernel there from answering for them.
fn raw_peers(net: &Testnet) -> (Child, Vec<[String; 4]>) {
    net.shell(
        "net",
        "nft -f - <<'END'
table ip rawpeers {
	chain departure {
		type filter hook output priority -500; policy accept;
		oifname \"sws0\" tcp sport 25 meta mark != 7 drop
	}
}
END
for host in $(seq 1 40); do
    echo \"add element ip internet fate { 198.18.0.$host : accept }\"
done | nft -f -",
    );
    let mut peers = net
        .command("net", &oddpeers())
        .args(["--raw", "198.18.0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(peers.stdout.take().unwrap()));
    let mut kinds = Vec::new();
    while let Some(Ok(line)) = lines.next()
        && line != "ready"
    {
        let mut words = line.split(' ').map(str::to_owned);
        kinds.push([(); 4].map(|()| words.next().unwrap()));
    }
    (peers, kinds)
}

#[test]
fn misconduct_below_smtp_has_its_outcome_too() {
    if !privileged("misconduct_below_smtp_has_its_outcome_too") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "raw",
        "--prefix 198.18.0.0/24 --only none --shares smtp=0,odd=0,reset=0,icmp=0",
    );
    let (mut peers, kinds) = raw_peers(&net);
    let directory = scratch();
    for connect in ["adopt", "dial"] {
        let survey = file(&directory, &format!("{connect}.db"));
        let scan = format!("scan 198.18.0.0/24 {NEAR} --rate 1000 --connect {connect}");
        let (done, peak_kb) = Sweep::start(&net, &scan, &survey).end();
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(peak_kb < MOST_MEMORY_KB, "{peak_kb} KB");
        let found = hosts(&survey);
        assert_eq!(adds_up(&survey), kinds.len() as u64);
        for [address, name, adopted, dialled] in &kinds {
            let host = &found[address];
            let outcome = if connect == "dial" { dialled } else { adopted };
            assert_eq!(&host.outcome, outcome, "{name}, {connect}: {host:?}");
            bounded(address, host);
            if name == "urgent-data" {
                let good = &found[&kinds[0][0]];
                assert_eq!(host.kept, good.kept, "{connect}: an octet is missing");
            }
            if name.contains("zero-window") {
                assert_eq!(host.detail, "the peer's receive window is zero", "{name}");
            }
        }
    }
    peers.kill().unwrap();
    peers.wait().unwrap();
}

#[test]
fn a_host_that_accepts_everything_on_every_port_is_one_session_a_sweep() {
    if !privileged("a_host_that_accepts_everything_on_every_port_is_one_session_a_sweep") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "all",
        &format!(
            "--prefix 198.18.0.0/24 --only none --shares odd=20 --oddpeers {}",
            oddpeers()
        ),
    );
    let host = net.truth.iter().find(|truth| truth.name == "250-to-all");
    let host = host.unwrap();
    let (address, door) = (&host.address, host.number);
    net.shell(
        "net",
        &format!(
            "nft 'insert rule ip internet arrival ip daddr {address} accept'; \
             nft 'insert rule ip internet behind ip daddr {address} tcp dport 1-65535 redirect to :{door}'"
        ),
    );
    let directory = scratch();
    for port in [1, 25, 26, 443, 65_535] {
        let survey = file(&directory, &format!("{port}.db"));
        let scan = format!("scan {address} {NEAR} -p {port}");
        let (done, _) = Sweep::start(&net, &scan, &survey).end();
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(adds_up(&survey), 1);
        assert_eq!(hosts(&survey)[address].outcome, "completed", "port {port}");
    }
}

/// 1,008 hostile peers and as many good servers.
const MIXED: &str = "--prefix 198.18.0.0/19 --only postfix,exim,opensmtpd \
                     --shares smtp=12.3,odd=12.3,reset=1,icmp=1";

/// What a good server is called in a verdict.
fn product(name: &str) -> &'static str {
    match name {
        "postfix" => "Postfix",
        "exim" => "Exim",
        _ => "OpenSMTPD",
    }
}

#[test]
fn a_thousand_hostile_peers_hide_none_of_a_thousand_good_ones() {
    if !privileged("a_thousand_hostile_peers_hide_none_of_a_thousand_good_ones") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up("mixed", &format!("{MIXED} --oddpeers {}", oddpeers()));
    let (good, odd) = (net.of_kind("smtp"), net.of_kind("odd"));
    assert!(good.len() >= 1000 && odd.len() >= 1000);
    let directory = scratch();
    let scan = format!("scan 198.18.0.0/19 {NEAR} --rate 1000");

    let survey = file(&directory, "mixed.db");
    let (done, peak_kb) = Sweep::start(&net, &scan, &survey).end();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(peak_kb < 2 * MOST_MEMORY_KB, "{peak_kb} KB");
    let found = hosts(&survey);
    assert_eq!(adds_up(&survey), (good.len() + odd.len()) as u64);
    for truth in &good {
        let host = &found[&truth.address];
        assert_eq!(host.outcome, "completed", "{truth:?}: {host:?}");
        assert_eq!(host.product, product(&truth.name), "{truth:?}");
    }
    for truth in &odd {
        let host = &found[&truth.address];
        assert_eq!(host.outcome, truth.outcome, "{truth:?}: {host:?}");
        bounded(&truth.address, host);
    }
    for (signals, code) in [(&["TERM"][..], 143), (&["INT", "INT"], 130)] {
        stopped_in_the_middle(
            &net,
            &scan,
            &file(&directory, &format!("{code}.db")),
            signals,
            code,
        );
    }
}

/// A sweep that signals end in its middle: who has answered is stored, once, and truthfully.
fn stopped_in_the_middle(net: &Testnet, scan: &str, survey: &Path, signals: &[&str], code: i32) {
    let sweep = Sweep::start(net, scan, survey);
    // At a thousand probes a second this is about the middle.
    thread::sleep(Duration::from_secs(4));
    for signal in signals {
        sweep.signal(signal);
        thread::sleep(Duration::from_millis(500));
    }
    let signalled = Instant::now();
    let (done, _) = sweep.end();
    assert_eq!(done.code, code, "{}", done.stderr);
    // One signal lets open sessions end, the second does not wait for them.
    let most = if signals.len() > 1 { 3_000 } else { LONGEST_MS };
    let took = signalled.elapsed();
    assert!(took < Duration::from_millis(most + 1_000), "{took:?}");

    assert_eq!(value(survey, "state"), "interrupted");
    assert_eq!(value(survey, "exit_code"), code);
    let stored = adds_up(survey);
    assert!((400..1_800).contains(&stored), "{stored} is not the middle");
    let truths: BTreeMap<&str, _> = net.truth.iter().map(|t| (t.address.as_str(), t)).collect();
    let mut ended = BTreeSet::new();
    for (address, host) in hosts(survey) {
        let truth = truths[address.as_str()];
        bounded(&address, &host);
        ended.insert(if host.outcome == "interrupted" {
            "interrupted"
        } else {
            "by itself"
        });
        if host.outcome == "interrupted" {
            continue;
        }
        if truth.kind == "smtp" {
            assert_eq!(host.outcome, "completed", "{truth:?}: {host:?}");
            assert_eq!(host.product, product(&truth.name), "{truth:?}");
        } else {
            assert_eq!(host.outcome, truth.outcome, "{truth:?}: {host:?}");
        }
    }
    assert!(ended.contains("by itself"));
    if signals.len() > 1 {
        assert!(ended.contains("interrupted"), "nothing was open");
    }
    // A user can read it: the report and the export.
    for command in ["report", "export"] {
        let shown = shell(&format!("{PROGRAM} {command} {} | wc -l", survey.display()));
        assert!(shown.trim().parse::<u32>().unwrap() > 10);
    }
}

#[test]
fn the_documented_table_is_that_of_the_peers() {
    let page = fs::read_to_string(repository().join("docs/peers.md")).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| {
            let cells = line.split('|');
            let cells: Vec<&str> = cells.map(|cell| cell.trim().trim_matches('`')).collect();
            let (name, outcome) = (cells.get(1)?, cells.get(3)?);
            Outcome::from_name(outcome)?;
            let dialled = cells.get(4).filter(|cell| !cell.is_empty());
            Some(format!("{name} {outcome} {}", dialled.unwrap_or(outcome)))
        })
        .collect();
    let listed = shell(&format!("{} --list", oddpeers()));
    let served: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    assert_eq!(documented, served);
}
