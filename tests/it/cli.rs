//! Bad input and the plain commands, as a user without root meets them.

use std::fs;
use std::process::Command;

use crate::support::{PROGRAM, Run, file, run, scratch, smtpsweep};

/// A run that must be refused with exit code 2 and one line that contains every given part.
fn refused(done: &Run, parts: &[&str]) {
    assert_eq!(done.code, 2, "{}{}", done.stdout, done.stderr);
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
    assert!(done.stdout.is_empty(), "{}", done.stdout);
}

#[test]
fn help_and_version_succeed_and_unknown_options_do_not() {
    let help = smtpsweep("--help");
    assert_eq!(help.code, 0);
    for command in [
        "scan",
        "probe",
        "report",
        "classify",
        "export",
        "rules",
        "Exit codes",
    ] {
        assert!(help.stdout.contains(command), "{command}: {}", help.stdout);
    }
    assert_eq!(
        smtpsweep("--version").stdout,
        format!("smtpsweep {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(smtpsweep("scan --no-such-option").code, 2);
    assert_eq!(smtpsweep("").code, 2);
}

#[test]
fn targets_must_be_named_and_well_formed() {
    refused(&smtpsweep("scan"), &["no targets", "0.0.0.0/0"]);
    refused(
        &smtpsweep("scan 192.0.2.0/33"),
        &["192.0.2.0/33", "prefix length"],
    );
    refused(
        &smtpsweep("scan mail.example.com"),
        &["mail.example.com", "host name"],
    );
    refused(&smtpsweep("scan 2001:db8::1"), &["IPv6"]);
}

#[test]
fn blocked_targets_are_refused_with_the_reason() {
    refused(
        &smtpsweep("scan 192.168.0.0/16"),
        &["65536", "blocklist", "--no-default-blocklist"],
    );
    refused(
        &smtpsweep("scan 1.2.3.0/24 10.1.2.3"),
        &["10.1.2.3", "10.0.0.0/8", "RFC 1918"],
    );
    refused(
        &smtpsweep("probe 127.0.0.1"),
        &["127.0.0.1", "127.0.0.0/8", "loopback"],
    );
    let directory = scratch();
    let list = file(&directory, "optouts.txt");
    fs::write(&list, "1.2.3.4 # asked us\n").unwrap();
    let list = list.display();
    refused(
        &smtpsweep(&format!("scan 1.2.3.4 -b {list}")),
        &["1.2.3.4", "optouts.txt"],
    );
}

#[test]
fn a_bad_line_names_file_line_text_and_reason() {
    let directory = scratch();
    let list = file(&directory, "list.txt");
    fs::write(&list, "1.2.3.4\n\n# fine\n1.2.3.400 # not\n").unwrap();
    let name = list.display();
    for option in ["-w", "-I", "-b"] {
        let done = smtpsweep(&format!("scan 9.9.9.0/24 {option} {name}"));
        refused(&done, &["list.txt", "line 4", "1.2.3.400", "above 255"]);
    }
    let missing = smtpsweep("scan -w /no/such/file");
    refused(&missing, &["/no/such/file", "No such file"]);
    fs::write(&list, "# nobody\n").unwrap();
    refused(&smtpsweep(&format!("scan -w {name}")), &["empty"]);
    fs::write(&list, "9.9.9.9\n").unwrap();
    refused(
        &smtpsweep(&format!("scan 1.1.1.0/24 -I {name}")),
        &["empty"],
    );
}

#[test]
fn contradictory_and_malformed_options_are_refused() {
    refused(&smtpsweep("scan 9.9.9.9 --shards 4"), &["--seed"]);
    refused(
        &smtpsweep("scan 9.9.9.9 --seed 1 --shards 4 --shard 4"),
        &["shard"],
    );
    refused(&smtpsweep("scan 9.9.9.9 --rate 0"), &["--rate"]);
    refused(&smtpsweep("scan 9.9.9.9 -B 10X"), &["--bandwidth", "10X"]);
    refused(
        &smtpsweep("scan 9.9.9.9 -s 99-12"),
        &["--source-port", "99-12"],
    );
    refused(&smtpsweep("scan 9.9.9.9 -n 0"), &["--max-targets"]);
    refused(&smtpsweep("scan 9.9.9.9 -n 101%"), &["--max-targets"]);
    refused(
        &smtpsweep("scan 9.9.9.9 -G nonsense"),
        &["--gateway-mac", "nonsense"],
    );
    refused(
        &smtpsweep("scan 9.9.9.9 --ehlo-name localhost"),
        &["--ehlo-name", "localhost"],
    );
    for (contact, reason) in [
        ("abuse", "mail address"),
        ("abuse@localhost", "no dot"),
        ("a@b.example,c@d.example", "mail address"),
    ] {
        refused(
            &smtpsweep(&format!("scan 9.9.9.9 --contact {contact}")),
            &["--contact", contact, reason],
        );
    }
    assert_eq!(smtpsweep("scan 9.9.9.9 --dialogue mail").code, 2);
    refused(
        &smtpsweep("scan 9.9.9.9 --prefix2as /dev/no/table"),
        &["/dev/no/table"],
    );
    assert_eq!(smtpsweep("scan 9.9.9.9 --max-sessions-per-as 4").code, 2);
    let directory = scratch();
    let table = file(&directory, "table");
    fs::write(&table, "10.0.0.0\t8\t64496\n10.0.0.0\t33\t1\n").unwrap();
    refused(
        &smtpsweep(&format!("scan 9.9.9.9 --prefix2as {}", table.display())),
        &["table, line 2", "length"],
    );
    refused(
        &smtpsweep("scan 9.9.9.9 --greeting-timeout 0"),
        &["--greeting-timeout"],
    );
    refused(
        &smtpsweep("scan 9.9.9.9 --user-metadata {"),
        &["--user-metadata"],
    );
    refused(
        &smtpsweep("scan 9.9.9.9 --rules /no/such/directory"),
        &["/no/such/directory"],
    );
    refused(
        &smtpsweep("scan 9.9.9.9 -o -"),
        &["--output-file", "export"],
    );
    assert_eq!(smtpsweep("scan 9.9.9.9 -r 10 -B 10M").code, 2);
}

#[test]
fn an_existing_output_file_is_never_touched() {
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    fs::write(&survey, "precious").unwrap();
    let done = smtpsweep(&format!("scan 9.9.9.9 -o {}", survey.display()));
    refused(&done, &["survey.db", "exists already"]);
    assert_eq!(fs::read_to_string(&survey).unwrap(), "precious");
    refused(
        &smtpsweep("scan 9.9.9.9 -o /no/such/place/survey.db"),
        &["/no/such/place"],
    );
}

#[test]
fn a_dry_run_prints_each_probe_once_and_needs_no_root() {
    let directory = scratch();
    let blocked = file(&directory, "blocked.txt");
    fs::write(&blocked, "198.18.0.64/26\n").unwrap();
    let done = smtpsweep(&format!(
        "scan 198.18.0.0/24 --no-default-blocklist -b {} --dryrun --seed 7 -S 198.18.9.9",
        blocked.display()
    ));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 192);
    let targets: std::collections::BTreeSet<u8> = lines
        .iter()
        .map(|line| {
            let daddr = line
                .split("daddr: ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            daddr.strip_prefix("198.18.0.").unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(targets, (0..64).chain(128..=255).collect());
    assert!(done.stderr.contains("nothing sent"), "{}", done.stderr);
}

#[test]
fn shards_of_a_dry_run_partition_the_targets() {
    let mut all = Vec::new();
    for shard in 0..3 {
        let done = smtpsweep(&format!(
            "scan 198.18.0.0/22 --no-default-blocklist -d -q --seed 7 --shards 3 --shard {shard}"
        ));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let daddr = |line: &str| {
            line.split("daddr: ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        all.extend(done.stdout.lines().map(daddr));
    }
    assert_eq!(all.len(), 1024);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 1024);
}

#[test]
fn a_list_can_come_from_standard_input() {
    let script = format!(
        "printf '198.18.0.1\\n198.18.0.9\\n' | {PROGRAM} scan -I - --no-default-blocklist -d"
    );
    let done = run(Command::new("bash").args(["-c", &script]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stdout.lines().count(), 2);
}

#[test]
fn a_broken_pipe_is_a_clean_end() {
    let script = format!(
        "set -o pipefail; {PROGRAM} scan 198.18.0.0/16 --no-default-blocklist -d -q | head -n 1"
    );
    let done = run(Command::new("bash").args(["-c", &script]));
    assert_eq!(
        (done.code, done.stdout.lines().count()),
        (0, 1),
        "{}",
        done.stderr
    );
    assert!(done.stderr.is_empty(), "{}", done.stderr);
}

#[test]
fn the_builtin_rules_are_sound_and_explain_themselves() {
    let check = smtpsweep("rules check");
    assert_eq!(check.code, 0, "{}", check.stdout);
    assert!(check.stdout.contains(" 0 problems"), "{}", check.stdout);
    let list = smtpsweep("rules list");
    for product in ["Postfix", "Exim", "Sendmail", "OpenSMTPD"] {
        assert!(
            list.stdout.lines().any(|line| line.starts_with(product)),
            "{product}"
        );
    }
    let explained = run(Command::new(PROGRAM).args([
        "rules",
        "explain",
        "--greeting",
        "220 mx.example.test ESMTP Exim 4.96 Sun, 22 Nov 2026 12:00:00 +0000",
    ]));
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    assert!(
        explained.stdout.contains("verdict: Exim 4.96"),
        "{}",
        explained.stdout
    );
    assert!(
        explained.stdout.contains("evidence"),
        "{}",
        explained.stdout
    );
}

#[test]
fn files_that_are_no_surveys_are_named() {
    let directory = scratch();
    let foreign = file(&directory, "foreign.db");
    fs::write(
        &foreign,
        "this is no database, and long enough to be looked at as one ...",
    )
    .unwrap();
    for command in ["report", "export", "classify"] {
        for path in [
            foreign.display().to_string(),
            "/no/such/survey.db".to_owned(),
        ] {
            let done = smtpsweep(&format!("{command} {path}"));
            assert_eq!(done.code, 1, "{command}: {}", done.stderr);
            assert!(done.stderr.contains(&path), "{command}: {}", done.stderr);
            assert!(done.stdout.is_empty(), "{command}: {}", done.stdout);
        }
    }
}

#[test]
fn without_privilege_the_missing_capability_is_named() {
    // As root, become nobody; as anybody else, just run.
    let script = format!(
        "cd / && if [ $(id -u) = 0 ]; then cp {PROGRAM} /tmp/smtpsweep-$$; \
         setpriv --reuid 65534 --regid 65534 --clear-groups /tmp/smtpsweep-$$ scan 127.0.0.0/30 \
         --no-default-blocklist -o /tmp/smtpsweep-$$.db; code=$?; rm -f /tmp/smtpsweep-$$; exit $code; \
         else {PROGRAM} scan 127.0.0.0/30 --no-default-blocklist -o /tmp/smtpsweep-$$.db; fi"
    );
    let done = run(Command::new("bash").args(["-c", &script]));
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("CAP_NET_RAW"), "{}", done.stderr);
    assert!(
        done.stderr.contains("sudo") || done.stderr.contains("root"),
        "{}",
        done.stderr
    );
}
