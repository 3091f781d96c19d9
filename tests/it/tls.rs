//! TLS with real servers in the test internet, with servers of every version and state of repair,
//! and with `openssl s_server`: what the survey file says of each.

#[path = "../../examples/tlspeers/peers.rs"]
#[expect(
    dead_code,
    reason = "the peers run as a program; here it is only asked what to expect"
)]
mod peers;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{
    PROGRAM, Testnet, example, file, one_at_a_time, privileged, run, scratch, shell, sqlite,
};

const NEAR: &str = "--no-default-blocklist --cooldown-time 1 --greeting-timeout 4 \
                    --step-timeout 4 --session-timeout 20 --ehlo-name scanner.example.org -q";

fn rows(survey: &Path, query: &str) -> Vec<Vec<String>> {
    sqlite(survey, query)
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

#[test]
fn real_servers_are_met_in_tls() {
    if !privileged("real_servers_are_met_in_tls") {
        return;
    }
    let _turn = one_at_a_time();
    let servers = ["postfix", "exim", "opensmtpd", "chasquid"];
    let net = Testnet::up(
        "tls",
        &format!(
            "--prefix 198.18.0.0/21 --shares smtp=2,reset=2 --only {}",
            servers.join(",")
        ),
    );
    let directory = scratch();
    let survey = file(&directory, "tls.db");
    let done = net.smtpsweep(&format!(
        "scan 198.18.0.0/21 {NEAR} --rate 2000 --starttls -o {}",
        survey.display()
    ));
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    let said = |stage: &str| -> BTreeMap<String, String> {
        let query = format!(
            "SELECT h.saddr, replace(group_concat(t.data, ''), char(13) || char(10), ' ')
             FROM transcripts AS t JOIN hosts AS h ON h.id = t.host_id
             WHERE t.side = 'server' AND t.stage = '{stage}' GROUP BY h.id"
        );
        let rows = rows(&survey, &query).into_iter();
        rows.map(|row| (row[0].clone(), row[1].clone())).collect()
    };
    let (before, after) = (said("ehlo"), said("tls_ehlo"));
    let channels: BTreeMap<String, Vec<String>> = rows(
        &survey,
        "SELECT v.saddr, h.outcome, v.version, v.cipher IS NOT NULL, v.key_group,
           ifnull(v.failure, '-'), v.key_type, v.key_bits, v.subject, v.self_signed
         FROM v_tls AS v JOIN hosts AS h ON h.saddr = v.saddr",
    )
    .into_iter()
    .map(|row| (row[0].clone(), row[1..].to_vec()))
    .collect();
    let mut met = BTreeMap::<&str, u32>::new();
    for truth in net.of_kind("smtp") {
        let (address, name) = (&truth.address, truth.name.as_str());
        let channel = channels
            .get(address)
            .unwrap_or_else(|| panic!("{name}: no TLS"));
        assert!(before[address].contains("STARTTLS"), "{name}");
        *met.entry(name).or_default() += 1;
        if name == "opensmtpd" {
            // Debian 12's cannot sign with OpenSSL 3 and says so with an alert, to any client.
            assert_eq!(channel[0], "tls_failed");
            assert_eq!(channel[4], "alert");
            continue;
        }
        assert_eq!(channel[..3], ["completed", "TLSv1.3", "1"], "{name}");
        let key = ["x25519", "-", "RSA", "2048"];
        if name == "exim" {
            let subject = "O=Test Internet, CN=mail.example.test";
            assert_eq!(channel[5..], ["ECDSA", "256", subject, "1"], "{name}");
        } else {
            assert_eq!(channel[3..7], key, "{name}");
        }
        assert!(after[address].starts_with("250-"), "{name}");
        assert!(!after[address].contains("STARTTLS"), "{name}");
    }
    let alerts = sqlite(
        &survey,
        "SELECT DISTINCT alert_name, alert_by FROM tls WHERE failure IS NOT NULL",
    );
    assert_eq!(alerts, "internal_error\tserver\n");
    assert_eq!(met.len(), servers.len(), "{met:?}");
    // Each certificate is there once, however many hosts show it.
    let kept = sqlite(
        &survey,
        "SELECT count(*), count(DISTINCT der) = count(*) FROM certificates",
    );
    assert_eq!(kept.trim(), "4\t1");
    let report = run(Command::new(PROGRAM).arg("report").arg(&survey));
    assert!(report.stdout.contains("TLSv1.3"), "{}", report.stdout);
    let json = run(Command::new(PROGRAM)
        .args(["report", "--json"])
        .arg(&survey));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["tls"]["starttls"]["share"], 1.0);
    // What is stored suffices to judge anew.
    let judged = run(Command::new(PROGRAM).arg("classify").arg(&survey));
    assert_eq!(judged.code, 0, "{}", judged.stderr);
}

#[test]
fn servers_of_every_version_and_state_are_recorded_as_they_are() {
    if !privileged("servers_of_every_version_and_state_are_recorded_as_they_are") {
        return;
    }
    let _turn = one_at_a_time();
    let net = Testnet::up(
        "versions",
        &format!(
            "--prefix 198.18.0.0/21 --only none --shares odd=5 --oddpeers {}",
            example("tlspeers")
        ),
    );
    let directory = scratch();
    for (option, start) in [("--starttls", "starttls"), ("--smtps", "implicit")] {
        let survey = file(&directory, &format!("{start}.db"));
        let done = net.smtpsweep(&format!(
            "scan 198.18.0.0/21 {NEAR} --rate 2000 {option} -o {}",
            survey.display()
        ));
        assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
        let found: BTreeMap<String, Vec<String>> = rows(
            &survey,
            "SELECT h.saddr, h.outcome, ifnull(t.start, ''), ifnull(t.version, ''),
               ifnull(t.failure, ''), ifnull(t.alert_name, ''), ifnull(v.expired, '')
             FROM hosts AS h LEFT JOIN tls AS t ON t.host_id = h.id
             LEFT JOIN v_tls AS v ON v.saddr = h.saddr",
        )
        .into_iter()
        .map(|row| (row[0].clone(), row[1..].to_vec()))
        .collect();
        assert_eq!(found.len(), net.of_kind("odd").len());
        let mut met = BTreeMap::<&str, u32>::new();
        for truth in net.of_kind("odd") {
            let row = &found[&truth.address];
            let peer = peers::ALL.iter().find(|p| p.name == truth.name).unwrap();
            let name = peer.name;
            *met.entry(name).or_default() += 1;
            let implicit = name.starts_with("implicit");
            if start == "implicit" {
                // Those that greet, or send an alert, have said so before the client's hello could
                // be heard.
                let expected = match name {
                    "alert-first" => ["tls_failed", "implicit", "", "alert", "unexpected_message"],
                    _ if implicit => ["completed", "implicit", peer.version, "", ""],
                    _ => ["tls_failed", "implicit", "", "plain_text", ""],
                };
                assert_eq!(row[..5], expected, "{name}");
                continue;
            }
            let begun = !implicit && !["refuses", "alert-first"].contains(&name);
            let begun = if begun { "starttls" } else { "" };
            let version = if implicit { "" } else { peer.version };
            let expected = [peer.outcome, begun, version, peer.failure, peer.alert];
            assert_eq!(row[..5], expected, "{name}");
            if name == "expired" {
                assert_eq!(row[5], "1");
            }
        }
        assert_eq!(met.len(), peers::ALL.len(), "{met:?}");
    }
}

/// `openssl s_server` with its standard input, ended with the test.
struct Server(Child);

impl Server {
    fn start(port: u16, directory: &Path, options: &str) -> Self {
        let child = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-key", "key.pem", "-cert", "cert.pem"])
            .args(options.split_whitespace())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It says that it listens on a stream that also carries other things; a try is surer.
        thread::sleep(Duration::from_millis(700));
        Self(child)
    }

    fn say(&mut self, line: &str) {
        assert!(self.try_to_say(line));
    }

    /// In one write, since it takes what it reads for a line.
    fn try_to_say(&mut self, line: &str) -> bool {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    door.local_addr().unwrap().port()
}

#[test]
fn openssls_own_server_is_met_in_each_version_and_may_not_renegotiate() {
    let directory = scratch();
    let at = directory.path();
    shell(&format!(
        "cd {} && openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=s.example.test \
         -keyout key.pem -out cert.pem 2>/dev/null",
        at.display()
    ));
    for (options, version) in [
        ("-tls1 -cipher ALL:@SECLEVEL=0", "TLSv1.0"),
        ("-tls1_1 -cipher ALL:@SECLEVEL=0", "TLSv1.1"),
        ("-tls1_2", "TLSv1.2"),
        ("-tls1_3", "TLSv1.3"),
    ] {
        let port = free_port();
        let mut server = Server::start(port, at, options);
        let client = Command::new(PROGRAM)
            .args(["probe", "127.0.0.1", "-p", &port.to_string(), "--smtps"])
            .args("--sni s.example.test --no-default-blocklist --step-timeout 5".split_whitespace())
            .args(["--ehlo-name", "scanner.example.org"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(700));
        let renegotiates = version == "TLSv1.2";
        server.say("220 s.example.test ESMTP");
        if renegotiates {
            thread::sleep(Duration::from_millis(300));
            server.say("r");
            thread::sleep(Duration::from_millis(300));
        }
        // Whatever is asked is refused, and QUIT is known by its place: the last.
        for _ in 0..12 {
            thread::sleep(Duration::from_millis(150));
            if !server.try_to_say("250 s.example.test") {
                break;
            }
        }
        let done: crate::support::Run = client.wait_with_output().unwrap().into();
        let shown = format!("{version}: {}", done.stdout);
        assert_eq!(done.code, 0, "{shown}");
        assert!(
            done.stdout.contains(&format!("-- TLS: {version}, TLS_")),
            "{shown}"
        );
        assert!(
            done.stdout.contains("S: 220 s.example.test ESMTP"),
            "{shown}"
        );
        // OpenSSL's server insists on what it was declined, and ends the session with an alert.
        let (outcome, declined) = if renegotiates {
            ("reset_in_dialogue (TLS: alert: handshake_failure", true)
        } else {
            ("completed", false)
        };
        let outcome = format!("\noutcome: {outcome}");
        assert!(done.stdout.contains(&outcome), "{shown}");
        let told = done.stdout.contains("1 renegotiation declined");
        assert_eq!(told, declined, "{shown}");
    }
}
