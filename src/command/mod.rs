//! The commands: each takes its arguments to a result, and the result becomes the exit code.

mod accuracy;
mod classify;
mod probe;
mod rules;
mod suggest;
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
    let prints = is_output_printed(&cli.command);
    let result = match cli.command {
        Command::Scan(args) => ScanPlan::new(*args)
            .map_err(Into::into)
            .and_then(run::scan)
            .map(run::Finish::exit_code),
        Command::Probe(args) => probe::probe(&args).map(|()| 0),
        Command::Report(args) => survey::report(&args).map(|()| 0),
        Command::Classify(args) => classify::classify(&args),
        Command::Export(args) => survey::export(&args).map(|()| 0),
        Command::Rules(args) => rules::rules(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if prints && is_broken_pipe(&error) => ExitCode::SUCCESS,
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

/// Whether what a command is for goes to standard output, so that it has done its work once
/// nobody reads on. What `scan` is for goes to the survey file.
fn is_output_printed(command: &Command) -> bool {
    match command {
        Command::Scan(args) => args.dryrun,
        Command::Export(args) => args.output_file.is_none(),
        Command::Probe(_) | Command::Report(_) | Command::Classify(_) | Command::Rules(_) => true,
    }
}

/// Whether the reader of our output went away.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_printed_ends_well_with_its_reader() {
        for (line, printed) in [
            ("scan 192.0.2.1", false),
            ("scan 192.0.2.1 -m -", false),
            ("scan 192.0.2.1 --dryrun", true),
            ("probe 192.0.2.1", true),
            ("report a.db", true),
            ("classify a.db", true),
            ("classify --ndjson -", true),
            ("export a.db", true),
            ("export a.db -o b.csv", false),
            ("rules list", true),
        ] {
            let words = std::iter::once("smtpsweep").chain(line.split(' '));
            let cli = Cli::try_parse_from(words).expect(line);
            assert_eq!(is_output_printed(&cli.command), printed, "{line}");
        }
    }
}
