//! What the integration tests share: running the program, namespaces, the skip that is loud.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_smtpsweep");

/// One finished run of a program.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the program with arguments separated by blanks.
pub(crate) fn smtpsweep(arguments: &str) -> Run {
    run(Command::new(PROGRAM).args(arguments.split_whitespace()))
}

/// Runs any command to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
        .into()
}

/// Runs a shell command that must succeed, and returns what it printed.
pub(crate) fn shell(script: &str) -> String {
    let done = run(Command::new("bash").args(["-euo", "pipefail", "-c", script]));
    assert_eq!(done.code, 0, "{script}\n{}{}", done.stdout, done.stderr);
    done.stdout
}

/// The repository's directory.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The example program with the misbehaving peers, built as the program under test was.
pub(crate) fn oddpeers() -> String {
    example("oddpeers")
}

/// An example program, built as the program under test was.
pub(crate) fn example(name: &str) -> String {
    let directory = Path::new(PROGRAM).parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", name]);
    if directory.ends_with("release") {
        build.arg("--release");
    }
    let built = run(build.current_dir(repository()));
    assert_eq!(built.code, 0, "{}", built.stderr);
    directory.join("examples").join(name).display().to_string()
}

/// A directory of its own for a test, removed at the end.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// True if the privileged tests can run here. Where `SMTPSWEEP_PRIVILEGED` is set, as in
/// `scripts/check`, they must: a test that cannot run then fails instead of being skipped.
pub(crate) fn privileged(test: &str) -> bool {
    let root = shell("id -u").trim() == "0";
    if !root {
        assert!(
            std::env::var_os("SMTPSWEEP_PRIVILEGED").is_none(),
            "{test} needs root, and SMTPSWEEP_PRIVILEGED says that it must run"
        );
        eprintln!("SKIPPED {test}: needs root; run scripts/check as root");
    }
    root
}

/// Privileged tests run one after the other: they share the machine's two cores, and what they
/// measure are servers that need some.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An internet of `scripts/testnet`, taken down at the end.
pub(crate) struct Testnet {
    name: String,
    pub(crate) truth: Vec<Truth>,
}

/// What an address of the test internet is expected to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) address: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) outcome: String,
}

impl Testnet {
    /// Makes the internet; the name tells tests apart that stand side by side.
    pub(crate) fn up(name: &str, options: &str) -> Self {
        let name = format!("t{}-{name}", std::process::id() % 100_000);
        let mut net = Self {
            name,
            truth: Vec::new(),
        };
        net.testnet(&format!("up {options}"));
        net.truth = net
            .testnet("truth")
            .lines()
            .map(|line| {
                let cells: Vec<&str> = line.split('\t').collect();
                Truth {
                    address: cells[0].to_owned(),
                    kind: cells[1].to_owned(),
                    name: cells[2].to_owned(),
                    number: cells[3].parse().unwrap(),
                    outcome: cells[4].to_owned(),
                }
            })
            .collect();
        net
    }

    fn testnet(&self, arguments: &str) -> String {
        let script = repository().join("scripts/testnet");
        let done = run(Command::new(script)
            .env("TESTNET_NAME", &self.name)
            .args(arguments.split_whitespace()));
        assert_eq!(
            done.code, 0,
            "testnet {arguments}\n{}{}",
            done.stdout, done.stderr
        );
        done.stdout
    }

    /// A command to be run in the namespace `scan` or `net`.
    pub(crate) fn command(&self, space: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{space}", self.name), program]);
        command
    }

    /// Runs the program in the scanner's namespace, with arguments separated by blanks.
    pub(crate) fn smtpsweep(&self, arguments: &str) -> Run {
        run(self
            .command("scan", PROGRAM)
            .args(arguments.split_whitespace()))
    }

    /// Runs a shell command in a namespace; it must succeed.
    pub(crate) fn shell(&self, space: &str, script: &str) -> String {
        let done = run(self
            .command(space, "bash")
            .args(["-euo", "pipefail", "-c", script]));
        assert_eq!(done.code, 0, "{script}\n{}{}", done.stdout, done.stderr);
        done.stdout
    }

    /// The addresses of one kind.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&Truth> {
        self.truth
            .iter()
            .filter(|truth| truth.kind == kind)
            .collect()
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        let script = repository().join("scripts/testnet");
        let _ = Command::new(script)
            .env("TESTNET_NAME", &self.name)
            .arg("down")
            .status();
    }
}

/// A file of a scratch directory.
pub(crate) fn file(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

/// Asks the survey file with the `sqlite3` shell, as a user would; columns are separated by tabs.
pub(crate) fn sqlite(survey: &Path, query: &str) -> String {
    let done = run(Command::new("sqlite3")
        .args(["-batch", "-separator", "\t"])
        .arg(survey)
        .arg(query));
    assert_eq!(done.code, 0, "{query}\n{}", done.stderr);
    done.stdout
}
