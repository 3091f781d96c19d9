//! Bad luck: what the machine or the network denies gives one clear sentence and a truthful exit
//! code, and nothing is lost.

use std::fs;
use std::process::Command;

use crate::support::{
    PROGRAM, Run, Testnet, file, one_at_a_time, privileged, run, scratch, sqlite,
};

/// A run that failed with exit code 1 and one sentence that contains every given part.
fn failed(done: &Run, parts: &[&str]) {
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    assert!(done.stderr.starts_with("smtpsweep: "), "{}", done.stderr);
    assert_eq!(
        done.stderr.trim_end().lines().count(),
        1,
        "one sentence: {}",
        done.stderr
    );
    for part in parts {
        assert!(
            done.stderr.contains(part),
            "{part:?} is not in: {}",
            done.stderr
        );
    }
}

#[test]
fn a_way_out_that_is_not_there_is_explained_and_leaves_no_file() {
    if !privileged("a_way_out_that_is_not_there_is_explained_and_leaves_no_file") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "fault",
        "--prefix 198.18.0.0/24 --only none --shares reset=5",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let scan = |options: &str| {
        let done = net.smtpsweep(&format!(
            "scan --no-default-blocklist -q -c 0 -o {} {options}",
            survey.display()
        ));
        assert!(!survey.exists(), "a failed start left {}", survey.display());
        done
    };
    failed(&scan("198.18.0.0/24 -i nosuch0"), &["nosuch0"]);
    failed(&scan("10.77.0.0/24"), &["no route", "10.77."]);
    failed(&scan("198.18.0.0/24 -S 192.0.2.77"), &["192.0.2.77"]);
    net.shell("net", "ip link set sws0 arp off");
    net.shell("scan", "ip neigh flush dev sws0");
    failed(&scan("198.18.0.0/24"), &["10.200.0.1", "-G"]);
    net.shell("net", "ip link set sws0 arp on");
    net.shell("scan", "ip link set sws0 down");
    failed(&scan("198.18.0.0/24 -i sws0"), &["sws0", "down"]);
}

#[test]
fn a_gateway_that_is_named_needs_no_answer() {
    if !privileged("a_gateway_that_is_named_needs_no_answer") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "named",
        "--prefix 198.18.0.0/24 --only none --shares reset=5",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let mac = net.shell("net", "cat /sys/class/net/sws0/address");
    net.shell("net", "ip link set sws0 arp off");
    net.shell("scan", "ip neigh flush dev sws0");
    // The answering side still finds the scanner: its own table has the entry.
    net.shell(
        "net",
        "ip neigh replace 10.200.0.2 dev sws0 nud permanent lladdr \
         $(ip netns exec $(ip netns identify $$ | sed 's/-net$/-scan/') cat /sys/class/net/sws0/address)",
    );
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/24 --no-default-blocklist -q -c 1 -i sws0 -G {} -o {}",
        mac.trim(),
        survey.display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let resets = sqlite(
        &survey,
        "SELECT n FROM probe_counts WHERE kind='reply' AND name='rst'",
    );
    assert_eq!(resets.trim(), net.of_kind("reset").len().to_string());
}

#[test]
fn a_full_disk_stops_the_sweep_and_keeps_what_is_committed() {
    if !privileged("a_full_disk_stops_the_sweep_and_keeps_what_is_committed") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "full",
        "--prefix 198.18.0.0/20 --only postfix,exim --shares smtp=20",
    );
    // The mount lives in the mount namespace that `ip netns exec` makes, and goes with it.
    let script = format!(
        "mount -t tmpfs -o size=700k none /mnt; code=0; \
         {PROGRAM} scan 198.18.0.0/20 --no-default-blocklist -q -r 2000 -c 1 -o /mnt/s.db \
         --ehlo-name scanner.example.org || code=$?; \
         echo code=$code; sqlite3 /mnt/s.db 'PRAGMA integrity_check; SELECT count(*) FROM hosts'"
    );
    let done = run(net.command("scan", "bash").args(["-c", &script]));
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        ["code=1", "ok"],
        "{}{}",
        done.stdout,
        done.stderr
    );
    let hosts: usize = lines[2].parse().unwrap();
    assert!(hosts > 0 && hosts < net.of_kind("smtp").len(), "{hosts}");
    assert!(
        done.stderr.contains("no space left") && done.stderr.contains("/mnt/s.db"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_link_that_fails_in_mid_sweep_loses_neither_counts_nor_cursor() {
    if !privileged("a_link_that_fails_in_mid_sweep_loses_neither_counts_nor_cursor") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "down",
        "--prefix 198.18.0.0/20 --only postfix --shares smtp=5",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let script = format!(
        "(sleep 1.5; ip link set sws0 down) & \
         {PROGRAM} scan 198.18.0.0/20 --no-default-blocklist -q -r 1000 -c 1 -o {} \
         --connect-timeout 1 --greeting-timeout 2 --step-timeout 2 --session-timeout 4",
        survey.display()
    );
    let done = run(net.command("scan", "bash").args(["-c", &script]));
    failed(&done, &["sws0"]);
    let value = |key: &str| {
        let query = format!("SELECT value FROM survey WHERE key = '{key}'");
        sqlite(&survey, &query).trim().to_owned()
    };
    assert_eq!(value("state"), "\"failed\"");
    let sent: u64 = value("packets_sent").parse().unwrap();
    assert!(sent > 500 && sent < 4096, "{sent}");
    assert!(
        value("cursors").contains("smtpsweep-cursor-1:"),
        "{}",
        value("cursors")
    );
    let stored = sqlite(&survey, "SELECT count(*) FROM hosts");
    assert_eq!(value("success_unique"), stored.trim());
}

#[test]
fn a_killed_sweep_leaves_its_counts() {
    if !privileged("a_killed_sweep_leaves_its_counts") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "kill",
        "--prefix 198.18.0.0/20 --only none --shares reset=20",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let script = format!(
        "timeout -s KILL 3 {PROGRAM} scan 198.18.0.0/20 --no-default-blocklist -q -r 500 -o {}",
        survey.display()
    );
    run(net.command("scan", "bash").args(["-c", &script]));
    let count = |name: &str| -> u64 {
        let query = format!("SELECT n FROM probe_counts WHERE name = '{name}'");
        sqlite(&survey, &query).trim().parse().unwrap()
    };
    assert!(count("sent") > 300, "{}", count("sent"));
    assert!(count("rst") > 30, "{}", count("rst"));
}

#[test]
fn nobody_listening_on_standard_error_is_no_reason_to_stop() {
    if !privileged("nobody_listening_on_standard_error_is_no_reason_to_stop") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "deaf",
        "--prefix 198.18.0.0/22 --only none --shares reset=20",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let script = format!(
        "{PROGRAM} scan 198.18.0.0/22 --no-default-blocklist -r 300 -c 1 -o {} 2> >(head -n 1 >/dev/null)",
        survey.display()
    );
    let done = run(net.command("scan", "bash").args(["-c", &script]));
    assert_eq!(done.code, 0);
    let state = sqlite(&survey, "SELECT value FROM survey WHERE key = 'state'");
    assert_eq!(state.trim(), "\"complete\"");
}

#[test]
fn a_survey_that_was_cut_short_is_named_and_not_believed() {
    let directory = scratch();
    let survey = file(&directory, "cut.db");
    fs::write(&survey, b"SQLite format 3\0 and then nothing").unwrap();
    let done = run(Command::new(PROGRAM).arg("report").arg(&survey));
    failed(&done, &["cut.db"]);
}
