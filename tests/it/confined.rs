//! What a running sweep may still do, read from /proc while it runs.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{PROGRAM, Testnet, file, one_at_a_time, privileged, run, scratch, sqlite};

/// CAP_NET_RAW in the masks of /proc/PID/status.
const NET_RAW: u64 = 1 << 13;
/// CAP_NET_ADMIN.
const NET_ADMIN: u64 = 1 << 12;

/// nobody, and its group in Debian.
const NOBODY: u32 = 65_534;

/// The fields of one thread's status that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    name: String,
    uid: u32,
    permitted: u64,
    effective: u64,
    inheritable: u64,
    bounding: u64,
    no_new_privs: bool,
    filtered: bool,
}

fn thread(status: &str) -> Option<Thread> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    let mask = |name| u64::from_str_radix(&field(name)?, 16).ok();
    Some(Thread {
        name: field("Name:")?,
        uid: field("Uid:")?.parse().ok()?,
        permitted: mask("CapPrm:")?,
        effective: mask("CapEff:")?,
        inheritable: mask("CapInh:")?,
        bounding: mask("CapBnd:")?,
        no_new_privs: field("NoNewPrivs:")? == "1",
        filtered: field("Seccomp:")? == "2",
    })
}

/// Waits until the sweep sends and returns all threads of the process.
fn threads(child: &Child) -> Vec<Thread> {
    let tasks = format!("/proc/{}/task", child.id());
    let started = Instant::now();
    loop {
        let all: Vec<Thread> = fs::read_dir(&tasks)
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .filter_map(|status| thread(&status))
            .collect();
        let sends = all.iter().any(|thread| thread.name == "sender");
        // Those of the live backend give up theirs with the first probe.
        let kept = |thread: &Thread| thread.name.starts_with("live-") && thread.permitted != 0;
        if sends && !all.iter().any(kept) {
            return all;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{all:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a sweep of some seconds in the scanner's namespace.
fn begin(mut command: Command, survey: &std::path::Path, options: &str) -> Child {
    command
        .args(format!("scan 198.18.0.0/24 --no-default-blocklist -r 200 -c 1 {options}").split(' '))
        .arg("-o")
        .arg(survey)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The sweep's end: complete, with every responder stored.
fn end(child: Child, survey: &std::path::Path, net: &Testnet) {
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    let stored = sqlite(survey, "SELECT count(*) FROM hosts");
    assert_eq!(stored.trim(), net.of_kind("smtp").len().to_string());
    let left: Vec<_> = fs::read_dir(survey.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [survey.file_name().unwrap()], "side files are gone");
}

fn net(name: &str) -> Testnet {
    Testnet::up(
        name,
        "--prefix 198.18.0.0/24 --only postfix --shares smtp=50",
    )
}

#[test]
fn a_sweep_of_roots_keeps_only_what_it_needs() {
    if !privileged("a_sweep_of_roots_keeps_only_what_it_needs") {
        return;
    }
    let _turn = one_at_a_time();
    let net = net("confine");
    for backend in ["packet", "xdp", "live"] {
        let directory = scratch();
        let survey = file(&directory, "survey.db");
        let options = format!("--tx {backend}");
        let child = begin(net.command("scan", PROGRAM), &survey, &options);
        for thread in threads(&child) {
            assert_eq!(thread.uid, 0, "{thread:?}");
            assert!(thread.filtered, "{backend}: {thread:?}");
            if thread.name.starts_with("live-") {
                assert_eq!(thread.permitted, 0, "{thread:?}");
                continue;
            }
            assert_eq!(thread.permitted & !(NET_RAW | NET_ADMIN), 0, "{thread:?}");
            assert_eq!(thread.effective, thread.permitted, "{thread:?}");
            assert_eq!((thread.inheritable, thread.bounding), (0, 0), "{thread:?}");
            assert!(thread.no_new_privs, "{backend}: {thread:?}");
        }
        end(child, &survey, &net);
        let says = sqlite(&survey, "SELECT value FROM survey WHERE key='confinement'");
        assert!(
            says.contains("seccomp") && says.contains("Landlock"),
            "{says}"
        );
        assert_eq!(fs::metadata(&survey).unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn root_becomes_the_user_that_is_named_or_that_called_sudo() {
    if !privileged("root_becomes_the_user_that_is_named_or_that_called_sudo") {
        return;
    }
    let _turn = one_at_a_time();
    let net = net("become");
    for named in [true, false] {
        let directory = scratch();
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let survey = file(&directory, "survey.db");
        let mut command = net.command("scan", PROGRAM);
        let number = NOBODY.to_string();
        command.env("SUDO_UID", &number).env("SUDO_GID", &number);
        if named {
            command.env_remove("SUDO_UID");
        }
        let options = if named { "--user nobody" } else { "--tx live" };
        let child = begin(command, &survey, options);
        for thread in threads(&child) {
            assert_eq!(thread.uid, NOBODY, "{thread:?}");
            assert_eq!(thread.permitted & !(NET_RAW | NET_ADMIN), 0, "{thread:?}");
        }
        end(child, &survey, &net);
        let meta = fs::metadata(&survey).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (NOBODY, 0o600));
    }
    // A directory in which that user may not write.
    let directory = scratch();
    let survey = file(&directory, "survey.db");
    let child = begin(net.command("scan", PROGRAM), &survey, "--user nobody -q");
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("user 65534 may not write in"), "{stderr}");
}

#[test]
fn one_capability_is_enough_and_a_missing_one_is_named() {
    if !privileged("one_capability_is_enough_and_a_missing_one_is_named") {
        return;
    }
    let _turn = one_at_a_time();
    let net = net("filecap");
    let directory = scratch();
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    // The build directory may be out of nobody's reach, and its file system without capabilities.
    let program = file(&directory, "smtpsweep");
    fs::copy(PROGRAM, &program).unwrap();
    let as_nobody = || {
        let mut command = net.command("scan", "setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(&program);
        command
    };
    let survey = file(&directory, "survey.db");
    let refused = begin(as_nobody(), &survey, "-q")
        .wait_with_output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("CAP_NET_RAW"), "{stderr}");

    let set = run(Command::new("setcap").arg("cap_net_raw=ep").arg(&program));
    assert_eq!(set.code, 0, "{}", set.stderr);
    let child = begin(as_nobody(), &survey, "--tx packet");
    for thread in threads(&child) {
        assert_eq!((thread.uid, thread.permitted), (NOBODY, 0), "{thread:?}");
        assert!(thread.no_new_privs && thread.filtered, "{thread:?}");
    }
    fs::remove_file(&program).unwrap();
    end(child, &survey, &net);
    assert_eq!(fs::metadata(&survey).unwrap().uid(), NOBODY);
}
