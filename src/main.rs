//! The `smtpsweep` program: parse, run, exit code; all else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    smtpsweep::command::main()
}
