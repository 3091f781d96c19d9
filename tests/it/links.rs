//! Links that are not Ethernet: loopback, and a tun device whose frames begin at the IP header.

use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{Testnet, file, one_at_a_time, privileged, scratch, sqlite};

fn resets(survey: &std::path::Path) -> String {
    let query = "SELECT n FROM probe_counts WHERE kind = 'reply' AND name = 'rst'";
    sqlite(survey, query).trim().to_owned()
}

#[test]
fn loopback_is_swept_too() {
    if !privileged("loopback_is_swept_too") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up("lo", "--prefix 198.18.0.0/24 --only none --shares reset=5");
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    // A namespace of its own: its loopback has no listener, so every address refuses.
    let done = net.smtpsweep(&format!(
        "scan 127.1.0.0/24 --no-default-blocklist -q -c 1 -o {}",
        survey.display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(resets(&survey), "256");
}

#[test]
fn another_port_than_25_is_swept_too() {
    if !privileged("another_port_than_25_is_swept_too") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "port",
        "--prefix 198.18.0.0/24 --only none --shares reset=5",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let done = net.smtpsweep(&format!(
        "scan 127.1.0.0/28 --no-default-blocklist -q -c 1 -p 2525 -o {}",
        survey.display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(resets(&survey), "16");
}

/// A packet pump between two tun devices, ended with the test.
struct Pump(Child);

impl Drop for Pump {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tun_device_is_swept_too() {
    if !privileged("a_tun_device_is_swept_too") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up("tun", "--prefix 198.18.0.0/24 --only none --shares reset=5");
    let directory = scratch();
    let socket = |end: &str| file(&directory, end).display().to_string();
    let pump = |space: &str, address: &str, mine: &str, other: &str| {
        let tun = format!("TUN:{address}/24,tun-name=tun9,iff-up,iff-no-pi");
        let datagrams = format!("UNIX-SENDTO:{},bind={}", socket(other), socket(mine));
        let mut socat = net.command(space, "socat");
        socat.args([tun, datagrams]).stderr(Stdio::null());
        Pump(socat.spawn().unwrap())
    };
    let _pumps = [
        pump("net", "10.99.0.2", "b", "a"),
        pump("scan", "10.99.0.1", "a", "b"),
    ];
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(100));
        if file(&directory, "a").exists() && file(&directory, "b").exists() {
            break;
        }
    }
    thread::sleep(Duration::from_millis(300));
    net.shell("scan", "ip route replace 198.18.0.0/15 dev tun9");
    // What comes in by the tun is not in the rules of the test internet: every address refuses.
    let survey = file(&directory, "survey.db");
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/24 --no-default-blocklist -q -c 1 -r 2000 -o {}",
        survey.display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(resets(&survey), "256");
    let iface = sqlite(&survey, "SELECT value FROM survey WHERE key = 'iface'");
    assert_eq!(iface.trim(), "\"tun9\"");
}
