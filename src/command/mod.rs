//! The commands: each takes its arguments to a result, and the result becomes the exit code.

mod probe;
mod rules;
mod survey;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::config::{ConfigError, ScanPlan};
use crate::run;
use crate::status::say;

/// Exit code of a run that failed.
const FATAL: u8 = 1;

/// Exit code of a command line that cannot be carried out.
const USAGE: u8 = 2;

/// Parses the command line and carries it out; see `smtpsweep --help` for the exit codes.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Scan(args) => ScanPlan::new(*args)
            .map_err(Into::into)
            .and_then(run::scan)
            .map(run::Finish::exit_code),
        Command::Probe(args) => probe::probe(&args).map(|()| 0),
        Command::Report(args) => survey::report(&args).map(|()| 0),
        Command::Classify(args) => survey::classify(&args).map(|()| 0),
        Command::Export(args) => survey::export(&args).map(|()| 0),
        Command::Rules(args) => rules::rules(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("smtpsweep: {}", sentence(&error)));
            ExitCode::from(if error.is::<ConfigError>() {
                USAGE
            } else {
                FATAL
            })
        }
    }
}

/// An error with its causes; a cause that its effect has named already is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Whether the reader of our output went away, which ends a command like any other end.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
