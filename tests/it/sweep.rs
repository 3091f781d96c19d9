//! The whole sweep in the test internet, with real mail servers: every responder is found and
//! named, whatever the seed; the counts add up; signals and limits end a run as documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    PROGRAM, Run, Testnet, file, oddpeers, one_at_a_time, privileged, run, scratch, sqlite,
};

/// What real servers are called in verdicts, and whether their stock greeting tells a version.
const PRODUCTS: &[(&str, &str, Option<&str>)] = &[
    ("postfix", "Postfix", None),
    ("exim", "Exim", Some("4.96")),
    ("opensmtpd", "OpenSMTPD", None),
    ("sendmail", "Sendmail", Some("8.17.1.9")),
    ("courier", "Courier", None),
    ("chasquid", "chasquid", None),
    ("aiosmtpd", "aiosmtpd", Some("1.4.3")),
    ("postscreen", "Postfix", None),
];

/// Options every sweep of the test internet needs; its servers are near, so timeouts are short.
const NEAR: &str = "--no-default-blocklist --cooldown-time 1 --greeting-timeout 4 \
                    --step-timeout 4 --session-timeout 8 --ehlo-name scanner.example.org -q";

fn ok(done: &Run) {
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
}

#[test]
fn ten_seeds_find_the_same_responders_and_name_every_server() {
    if !privileged("ten_seeds_find_the_same_responders_and_name_every_server") {
        return;
    }
    let _turn = one_at_a_time();
    let prefix = "198.18.0.0/19";
    let shares = "smtp=2,odd=0.4,reset=8,icmp=3";
    let net = Testnet::up(
        "seeds",
        &format!(
            "--prefix {prefix} --shares {shares} --oddpeers {}",
            oddpeers()
        ),
    );
    let directory = scratch();
    let expected: BTreeSet<&str> = net
        .truth
        .iter()
        .filter(|truth| truth.kind == "smtp" || truth.kind == "odd")
        .map(|truth| truth.address.as_str())
        .collect();
    assert!(expected.len() > 150, "{}", expected.len());
    for seed in 0..10 {
        let survey = file(&directory, &format!("seed-{seed}.db"));
        let done = net.smtpsweep(&format!(
            "scan {prefix} {NEAR} --rate 5000 --seed {seed} -o {}",
            survey.display()
        ));
        ok(&done);
        let found = sqlite(&survey, "SELECT saddr FROM hosts");
        let found: BTreeSet<&str> = found.lines().collect();
        assert_eq!(found, expected, "seed {seed}");
        let count = |name: &str| -> usize {
            let query =
                format!("SELECT n FROM probe_counts WHERE kind = 'reply' AND name = '{name}'");
            sqlite(&survey, &query).trim().parse().unwrap()
        };
        assert_eq!(count("synack"), expected.len(), "seed {seed}");
        assert_eq!(count("rst"), net.of_kind("reset").len(), "seed {seed}");
        assert_eq!(count("none"), 8192 - net.truth.len(), "seed {seed}");
        icmp_errors_are_told_apart(&net, &survey);
        if seed == 0 {
            every_server_is_named(&net, &survey);
            every_odd_peer_has_its_outcome(&net, &survey);
        }
    }
}

#[test]
fn every_backend_finds_the_same_responders() {
    if !privileged("every_backend_finds_the_same_responders") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "backends",
        "--prefix 198.18.0.0/19 --only postfix,exim --shares smtp=2,reset=5",
    );
    // Without it the far end of the veth takes no frames from XDP programs.
    net.shell("net", "ethtool -K sws0 gro on");
    let directory = scratch();
    let expected: BTreeSet<&str> = net
        .of_kind("smtp")
        .iter()
        .map(|truth| truth.address.as_str())
        .collect();
    for backend in ["packet", "xdp", "live"] {
        let survey = file(&directory, &format!("{backend}.db"));
        let done = net.smtpsweep(&format!(
            "scan 198.18.0.0/19 {NEAR} --rate 10000 --tx {backend} -o {}",
            survey.display()
        ));
        ok(&done);
        assert!(
            done.stderr.is_empty(),
            "{backend} was replaced: {}",
            done.stderr
        );
        let found = sqlite(&survey, "SELECT saddr FROM hosts");
        let found: BTreeSet<&str> = found.lines().collect();
        assert_eq!(found, expected, "{backend}");
        let value = |key: &str| {
            let query = format!("SELECT value FROM survey WHERE key = '{key}'");
            sqlite(&survey, &query).trim().to_owned()
        };
        assert_eq!(value("tx_backend"), format!("\"{backend}\""));
        assert_eq!(value("packets_sent"), "8192", "{backend}");
    }
}

fn icmp_errors_are_told_apart(net: &Testnet, survey: &Path) {
    let mut expected = BTreeMap::<u32, usize>::new();
    for truth in net.of_kind("icmp") {
        *expected.entry(truth.number).or_default() += 1;
    }
    let rows = sqlite(
        survey,
        "SELECT name, n FROM probe_counts WHERE kind = 'icmp'",
    );
    let found: BTreeMap<u32, usize> = rows
        .lines()
        .map(|row| {
            let (name, count) = row.split_once('\t').unwrap();
            let code = name.strip_prefix("3/").unwrap().split(' ').next().unwrap();
            (code.parse().unwrap(), count.parse().unwrap())
        })
        .collect();
    assert_eq!(found, expected);
}

fn every_server_is_named(net: &Testnet, survey: &Path) {
    let rows = sqlite(
        survey,
        "SELECT saddr, outcome, product, version FROM v_hosts",
    );
    let found: BTreeMap<&str, Vec<&str>> = rows
        .lines()
        .map(|row| {
            let mut cells = row.split('\t');
            (cells.next().unwrap(), cells.collect())
        })
        .collect();
    for truth in net.of_kind("smtp") {
        let host = &found[truth.address.as_str()];
        assert_eq!(host[0], "completed", "{truth:?}");
        let Some((_, product, version)) = PRODUCTS.iter().find(|row| row.0 == truth.name) else {
            assert_eq!(truth.name, "postfix-disguised");
            assert!(
                host[1].is_empty() || host[1] == "Postfix",
                "{truth:?}: {host:?}"
            );
            continue;
        };
        assert_eq!(&host[1], product, "{truth:?}");
        assert_eq!(host[2], version.unwrap_or(""), "{truth:?}");
    }
}

/// The odd peers themselves tell which outcome each must lead to.
fn every_odd_peer_has_its_outcome(net: &Testnet, survey: &Path) {
    let rows = sqlite(survey, "SELECT saddr, outcome FROM hosts");
    let found: BTreeMap<&str, &str> = rows
        .lines()
        .map(|row| row.split_once('\t').unwrap())
        .collect();
    let peers = net.of_kind("odd");
    assert!(peers.len() > 20);
    for truth in peers {
        assert_eq!(found[truth.address.as_str()], truth.outcome, "{truth:?}");
    }
}

#[test]
fn what_a_survey_holds_can_be_reported_exported_and_classified_again() {
    if !privileged("what_a_survey_holds_can_be_reported_exported_and_classified_again") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "look",
        "--prefix 198.18.0.0/22 --only postfix,exim --shares smtp=2",
    );
    let directory = scratch();
    let (survey, metadata) = (
        file(&directory, "survey.db"),
        file(&directory, "metadata.json"),
    );
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/22 {NEAR} -e 5 -B 5M -o {} -m {} --notes trial --user-metadata {{\"a\":1}}",
        survey.display(),
        metadata.display()
    ));
    ok(&done);
    let hosts = net.of_kind("smtp").len();

    let metadata: Value = serde_json::from_str(&fs::read_to_string(metadata).unwrap()).unwrap();
    assert_eq!(metadata["state"], "complete");
    assert_eq!(metadata["packets_sent"], 1024);
    assert_eq!(metadata["success_unique"], hosts);
    assert_eq!(metadata["stored_hosts"], hosts);
    assert_eq!(metadata["outcomes"]["completed"], hosts);
    assert_eq!(metadata["seed"], 5);
    assert_eq!(metadata["default_blocklist"], false);
    assert_eq!(metadata["notes"], "trial");
    assert_eq!(metadata["user-metadata"]["a"], 1);
    assert_eq!(metadata["source_ips"][0], "10.200.0.2");

    let shown = run(Command::new(PROGRAM).arg("report").arg(&survey));
    ok(&shown);
    for word in ["SYN-ACK", "completed", "Postfix", "Exim", "4.96"] {
        assert!(shown.stdout.contains(word), "{word}: {}", shown.stdout);
    }
    let json = run(Command::new(PROGRAM)
        .arg("report")
        .arg("--json")
        .arg(&survey));
    serde_json::from_str::<Value>(&json.stdout).unwrap();

    let exported = run(Command::new(PROGRAM)
        .args(["export", "--format", "ndjson"])
        .arg(&survey));
    ok(&exported);
    assert_eq!(exported.stdout.lines().count(), hosts);
    for line in exported.stdout.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["outcome"], "completed");
        assert_eq!(row["data"]["smtp"]["status"], "success");
        let result = &row["data"]["smtp"]["result"];
        assert!(
            result["banner"].as_str().unwrap().starts_with("220 "),
            "{result}"
        );
        assert!(result["ehlo"].as_str().unwrap().contains("250"), "{result}");
        assert!(
            result["quit"].as_str().unwrap().starts_with("221 "),
            "{result}"
        );
    }
    let csv = run(Command::new(PROGRAM)
        .args(["export", "--format", "csv"])
        .arg(&survey));
    let columns: Vec<&str> = csv.stdout.lines().next().unwrap().split(',').collect();
    for column in [
        "saddr",
        "sport",
        "timestamp_ts",
        "outcome",
        "product",
        "vendor",
        "version",
    ] {
        assert!(columns.contains(&column), "{column}: {columns:?}");
    }
    let again = run(Command::new(PROGRAM).arg("classify").arg(&survey));
    ok(&again);
    assert!(
        again.stdout.contains("no product changed"),
        "{}",
        again.stdout
    );
    let explained = run(Command::new(PROGRAM)
        .args(["rules", "explain"])
        .arg(&survey)
        .arg(&net.of_kind("smtp")[0].address));
    ok(&explained);
    assert!(
        explained.stdout.contains("verdict: "),
        "{}",
        explained.stdout
    );
    let probed = net.smtpsweep(&format!(
        "probe {} --no-default-blocklist --ehlo-name scanner.example.org",
        net.of_kind("smtp")[0].address
    ));
    ok(&probed);
    for word in [
        "S: 220 ",
        "C: EHLO scanner.example.org",
        "C: QUIT",
        "outcome: completed",
    ] {
        assert!(probed.stdout.contains(word), "{word}: {}", probed.stdout);
    }
}

#[test]
fn dialogues_go_as_far_as_told_and_no_further_than_needed() {
    if !privileged("dialogues_go_as_far_as_told_and_no_further_than_needed") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "depth",
        "--prefix 198.18.0.0/22 --only postfix,postfix-disguised,exim,courier,aiosmtpd,postscreen \
         --shares smtp=4",
    );
    let directory = scratch();
    let prefixes = file(&directory, "prefix2as.txt");
    fs::write(
        &prefixes,
        "198.18.0.0 23 64496\n198.18.2.0\t24\t64497_64498\n",
    )
    .unwrap();
    let sweep = |options: &str| {
        let survey = file(
            &directory,
            &format!("{}.db", options.replace([' ', '/'], "-")),
        );
        let done = net.smtpsweep(&format!(
            "scan 198.18.0.0/22 {NEAR} --rate 2000 --prefix2as {} --max-sessions-per-as 5 {options} -o {}",
            prefixes.display(),
            survey.display()
        ));
        ok(&done);
        let outcomes = sqlite(&survey, "SELECT DISTINCT outcome FROM hosts");
        assert_eq!(outcomes.trim(), "completed", "{options}");
        survey
    };
    let hosts = net.of_kind("smtp").len();
    let stages = |survey: &Path, name: &str| -> BTreeSet<String> {
        let addresses: Vec<String> = (net.of_kind("smtp").iter())
            .filter(|truth| truth.name == name)
            .map(|truth| format!("'{}'", truth.address))
            .collect();
        let rows = sqlite(
            survey,
            &format!(
                "SELECT group_concat(stage || ' ' || code) FROM v_replies WHERE saddr IN ({}) GROUP BY saddr",
                addresses.join(",")
            ),
        );
        rows.lines().map(str::to_owned).collect()
    };
    let only = |text: &str| BTreeSet::from([text.to_owned()]);

    let survey = sweep("--dialogue banner");
    assert_eq!(stages(&survey, "exim"), only("greeting 220,quit 221"));
    let mean = "SELECT value FROM survey WHERE key = 'mean_commands'";
    assert_eq!(sqlite(&survey, mean).trim(), "1.0");

    let survey = sweep("--dialogue ehlo");
    assert_eq!(
        stages(&survey, "aiosmtpd"),
        only("greeting 220,ehlo 250,quit 221")
    );
    assert_eq!(sqlite(&survey, mean).trim(), "2.0");
    let pipelining = "SELECT count(*) FROM v_ehlo_keywords WHERE keyword = 'PIPELINING'";
    assert!(sqlite(&survey, pipelining).trim().parse::<usize>().unwrap() > hosts / 2);

    let survey = sweep("--contact abuse@example.org");
    let told = "SELECT count(DISTINCT host_id) FROM v_transcript
                WHERE side = 'C:' AND text = 'NOOP abuse@example.org'";
    assert_eq!(sqlite(&survey, told).trim(), hosts.to_string());
    // Greeting and keywords agree: nothing more is asked.
    let short = "greeting 220,ehlo 250,noop 250,quit 221";
    assert_eq!(stages(&survey, "exim"), only(short));
    // Behind a disguise it is, until HELP confirms what the keywords say.
    let long = "greeting 220,ehlo 250,noop 250,help 500,quit 221";
    assert_eq!(stages(&survey, "postfix-disguised"), only(long));
    let most = sqlite(&survey, "SELECT max(commands) FROM dialogues");
    assert!(most.trim().parse::<usize>().unwrap() <= 10);
    let average: f64 = sqlite(&survey, mean).trim().parse().unwrap();
    assert!(average > 3.0 && average < 6.0, "{average}");
    // postscreen's teaser and its wait are sat out, and told apart.
    let teased = "SELECT count(*) FROM v_hosts AS h JOIN v_replies AS r ON r.host_id = h.id
                  WHERE r.stage = 'greeting' AND r.pieces = 2 AND h.greeting LIKE '%please wait\\n220 %'
                    AND h.product = 'Postfix' AND h.duration_ms >= 3000";
    assert!(sqlite(&survey, teased).trim().parse::<usize>().unwrap() > 0);
    let report = run(Command::new(PROGRAM).arg("report").arg(&survey));
    assert!(
        report.stdout.contains("commands a host on the average"),
        "{}",
        report.stdout
    );
}

#[test]
fn without_sessions_every_responder_is_stored_and_none_is_dialled() {
    if !privileged("without_sessions_every_responder_is_stored_and_none_is_dialled") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "nosess",
        "--prefix 198.18.0.0/20 --only postfix --shares smtp=4,reset=4",
    );
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/20 {NEAR} --no-sessions --rate 20000 -o {}",
        survey.display()
    ));
    ok(&done);
    let found = sqlite(&survey, "SELECT saddr, outcome FROM hosts");
    let found: BTreeSet<&str> = found.lines().collect();
    let expected: BTreeSet<String> = net
        .of_kind("smtp")
        .iter()
        .map(|truth| format!("{}\tnot_contacted", truth.address))
        .collect();
    assert!(expected.len() > 100, "{}", expected.len());
    assert_eq!(found, expected.iter().map(String::as_str).collect());
    let words = sqlite(&survey, "SELECT count(*) FROM transcripts");
    assert_eq!(words.trim(), "0");
    // The kernel counts what was dialled since the namespace was made.
    let dialled = net.shell("scan", "awk '/^Tcp: [0-9]/ { print $6 }' /proc/net/snmp");
    assert_eq!(dialled.trim(), "0", "active opens");
}

#[test]
fn signals_and_limits_end_a_sweep_with_everything_stored() {
    if !privileged("signals_and_limits_end_a_sweep_with_everything_stored") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "stop",
        "--prefix 198.18.0.0/20 --only postfix --shares smtp=2",
    );
    let directory = scratch();
    for (signals, code, finish) in [
        (&["INT"][..], 130, "interrupted by SIGINT"),
        (&["TERM"][..], 143, "interrupted by SIGTERM"),
        (&["INT", "TERM"][..], 143, "interrupted by SIGTERM"),
        (&["HUP"][..], 129, "interrupted by SIGHUP"),
    ] {
        let survey = file(&directory, &format!("{code}-{}.db", signals.len()));
        let mut sweep = net.command("scan", PROGRAM);
        sweep.args(
            format!(
                "scan 198.18.0.0/20 {NEAR} --rate 500 -o {}",
                survey.display()
            )
            .split_whitespace(),
        );
        let child = sweep
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Wait for the first stored hosts, so that there is something to lose.
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
            // Not before it is there: the shell would make an empty file of that name.
            if !survey.exists() {
                continue;
            }
            let asked = Command::new("sqlite3")
                .arg(&survey)
                .arg("SELECT count(*) FROM hosts")
                .output();
            if asked.is_ok_and(|output| output.stdout.len() > 1 && output.stdout[0] != b'0') {
                break;
            }
        }
        for signal in signals {
            // `ip netns exec` becomes the program: the child's id is the sweep's.
            run(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]));
            std::thread::sleep(Duration::from_millis(150));
        }
        let done: Run = child.wait_with_output().unwrap().into();
        assert_eq!(done.code, code, "{}", done.stderr);
        let value = |key: &str| {
            sqlite(
                &survey,
                &format!("SELECT value FROM survey WHERE key = '{key}'"),
            )
            .trim()
            .to_owned()
        };
        assert_eq!(value("state"), "\"interrupted\"");
        assert_eq!(value("finish"), format!("\"{finish}\""));
        let sent: u64 = value("packets_sent").parse().unwrap();
        assert!(sent > 0 && sent < 4096, "{sent}");
        assert_eq!(
            value("success_unique"),
            sqlite(&survey, "SELECT count(*) FROM hosts").trim()
        );
    }
    // Three probes a target: each host once all the same.
    let survey = file(&directory, "three.db");
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/20 {NEAR} --rate 20000 -P 3 -o {}",
        survey.display()
    ));
    ok(&done);
    let value = |key: &str| {
        sqlite(
            &survey,
            &format!("SELECT value FROM survey WHERE key = '{key}'"),
        )
        .trim()
        .to_owned()
    };
    assert_eq!(value("packets_sent"), (3 * 4096).to_string());
    assert_eq!(value("targets_scanned"), "4096");
    assert_eq!(
        value("success_unique"),
        net.of_kind("smtp").len().to_string()
    );

    let limited = |options: &str| {
        let survey = file(
            &directory,
            &format!("{}.db", options.replace([' ', '%'], "")),
        );
        let done = net.smtpsweep(&format!(
            "scan 198.18.0.0/20 {NEAR} --rate 1000 {options} -o {}",
            survey.display()
        ));
        let sent = sqlite(&survey, "SELECT n FROM probe_counts WHERE name = 'sent'");
        (done.code, sent.trim().parse::<u64>().unwrap())
    };
    assert_eq!(limited("-n 700"), (0, 700));
    assert_eq!(limited("-n 10%"), (0, 410));
    let (code, sent) = limited("-t 1");
    assert!(code == 3 && sent > 900 && sent < 1300, "{code} {sent}");
    let (code, sent) = limited("-N 5");
    assert!(code == 3 && sent < 4096, "{code} {sent}");
}
