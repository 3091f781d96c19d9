//! Many sessions: tens of thousands held open at once in little memory, and a hundred thousand one
//! after the other with few addresses from few ports. None is lost.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    PROGRAM, Run, example, file, one_at_a_time, privileged, run, scratch, shell, sqlite,
};

/// Two namespaces of a test, in the second of which one of `sessionbench`'s servers answers on port
/// 25 of every address of 198.18.0.0/15.
struct Net {
    name: String,
    server: Child,
}

impl Net {
    fn up(name: &str, server: &str) -> Self {
        let name = format!("t{}-{name}", std::process::id() % 100_000);
        shell(&format!(
            "for space in {name}-scan {name}-net; do
                 ip netns add $space
                 ip -n $space link set lo up
                 ip netns exec $space sysctl -qw net.core.somaxconn=1048576 \\
                     net.ipv4.tcp_max_syn_backlog=1048576 net.ipv4.tcp_syncookies=0
             done
             ip link add sws0 netns {name}-scan type veth peer name sws0 netns {name}-net
             for space in scan net; do ip -n {name}-$space link set sws0 up; done
             ip -n {name}-scan address add 10.200.0.2/30 dev sws0
             ip -n {name}-net address add 10.200.0.1/30 dev sws0
             ip -n {name}-scan route add 198.18.0.0/15 via 10.200.0.1
             ip -n {name}-net route add local 198.18.0.0/15 dev lo"
        ));
        let server = Command::new("ip")
            .args(["netns", "exec", &format!("{name}-net")])
            .arg(example("sessionbench"))
            .args(server.split_whitespace())
            .spawn()
            .unwrap();
        let net = Self { name, server };
        net.shell(
            "net",
            "for try in $(seq 100); do
                 grep -q ':0019 00000000:0000 0A' /proc/net/tcp && exit 0; sleep 0.1
             done; exit 1",
        );
        net
    }

    fn command(&self, space: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{space}", self.name), program]);
        command
    }

    fn shell(&self, space: &str, script: &str) -> String {
        let done = run(self
            .command(space, "bash")
            .args(["-euo", "pipefail", "-c", script]));
        assert_eq!(done.code, 0, "{script}\n{}{}", done.stdout, done.stderr);
        done.stdout
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        for space in ["scan", "net"] {
            let _ = Command::new("ip")
                .args(["netns", "delete", &format!("{}-{space}", self.name)])
                .status();
        }
    }
}

#[test]
fn a_hundred_thousand_tarpits_are_held_in_little_memory_and_all_recorded_after_a_signal() {
    if !privileged("a_hundred_thousand_tarpits_are_held_in_little_memory") {
        return;
    }
    let _turn = one_at_a_time();
    // As many as may be open; where the limit can be raised, all of them.
    let most = shell("(ulimit -Hn 100064 && ulimit -Hn) 2>/dev/null || ulimit -Hn");
    let most: u64 = most.trim().parse().unwrap_or(u64::MAX);
    let count = 100_000.min(most - 64);
    let net = Net::up("many", "tarpit 25 0");
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let mut sweep = net
        .command("scan", PROGRAM)
        .args(
            format!(
                "scan 198.18.0.0/15 --no-default-blocklist --max-sessions 100000 \
                 --max-sessions-per-24 256 --max-targets {count} --rate 10000 --cooldown-time 1 \
                 --ehlo-name scanner.example.org -o {}",
                survey.display()
            )
            .split_whitespace(),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = sweep.id();
    let mut said = BufReader::new(sweep.stderr.take().unwrap()).lines();
    let all_open = format!("sessions: {count} open");
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for line in said.by_ref() {
        let line = line.unwrap();
        if line.contains("sessions: ") {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        if line.contains(&all_open) {
            break;
        }
    }
    assert!(
        longest < Duration::from_secs(3),
        "a status line was late: {longest:?}"
    );
    // What is left of the sending (its ring of frames) is not of the sessions.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.trim().strip_suffix(" kB"))
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap();
    assert!(
        resident < 64 * 1024 + 2 * count && resident < 400 * 1024,
        "{resident} kB for {count} sessions"
    );
    let rest = thread::spawn(move || said.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    let stopped = Instant::now();
    run(Command::new("kill").args(["-TERM", &pid.to_string()]));
    let code = sweep.wait().unwrap().code();
    let took = stopped.elapsed();
    let rest = rest.join().unwrap();
    assert_eq!(code, Some(143), "{rest}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(
        rest.contains(&format!(
            "adds up:  {count} responders = {count} session outcomes"
        )),
        "{rest}"
    );
    assert_eq!(
        sqlite(
            &survey,
            "SELECT outcome, count(*) FROM hosts GROUP BY outcome"
        ),
        format!("interrupted\t{count}\n")
    );
}

#[test]
fn a_hundred_thousand_sessions_with_sixteen_addresses_need_two_thousand_ports() {
    if !privileged("a_hundred_thousand_sessions_with_sixteen_addresses") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Net::up("ports", "serve 25");
    net.shell(
        "scan",
        "sysctl -qw net.ipv4.ip_local_port_range='40000 41999'",
    );
    let done: Run = run(net
        .command("scan", &example("sessionbench"))
        .args(["engine", "198.18.0.1", "16", "100000", "25", "1000"])
        .arg("10.200.0.2"));
    assert!(
        done.stdout.starts_with("100000 0 "),
        "{}{}",
        done.stdout,
        done.stderr
    );
    let sockets = net.shell("scan", "cat /proc/net/sockstat");
    let waiting: u32 = sockets
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .and_then(|line| line.split(" tw ").nth(1))
        .and_then(|line| line.split(' ').next())
        .and_then(|count| count.parse().ok())
        .unwrap();
    assert!(
        waiting < 1_000,
        "{waiting} connections that we closed first: {sockets}"
    );
}
