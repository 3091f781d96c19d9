//! Both ends of the session benchmarks, `scripts/bench-sessions`, and of the tests of scale.
//!
//! ```text
//! sessionbench serve PORT                      answers at every local address, fast and politely
//! sessionbench tarpit PORT MS                  accepts all, then an octet every MS ms (0: never one)
//! sessionbench bare FIRST COUNT PORT OPEN      a client that does the least: greeting, EHLO, QUIT
//! sessionbench engine FIRST ADDRESSES COUNT PORT OPEN [SOURCE…]
//!                                              smtpsweep's engine alone: COUNT sessions in turn
//!                                              to ADDRESSES addresses
//! ```
//!
//! `bare` visits COUNT addresses from FIRST on, each once, with OPEN connections at a time, keeps
//! nothing, and prints how many sessions were complete, how many were not, and the seconds. It is the
//! measure of what the kernel gives one thread. `engine` prints the same three, then the outcomes.
//!
//! The servers never relay nor deliver: they know no command but those of a greeting. They serve until
//! a signal ends them.

mod bare;
mod engine;
mod serve;

use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sessionbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["serve", port] => serve::serve(number(port)?),
        ["tarpit", port, every] => serve::tarpit(number(port)?, number(every)?),
        ["bare", first, count, port, open] => {
            bare::run(number(first)?, number(count)?, number(port)?, number(open)?)
        }
        ["engine", first, addresses, count, port, open, sources @ ..] => engine::run(
            &engine::Work {
                first: number(first)?,
                addresses: number(addresses)?,
                count: number(count)?,
                port: number(port)?,
                open: number(open)?,
            },
            &sources
                .iter()
                .map(|s| number(s))
                .collect::<Result<Vec<_>>>()?,
        ),
        _ => bail!(
            "usage: serve PORT | tarpit PORT MS | bare FIRST COUNT PORT OPEN | \
             engine FIRST ADDRESSES COUNT PORT OPEN [SOURCE…]"
        ),
    }
}

fn number<T: FromStr<Err: Display>>(word: &str) -> Result<T> {
    word.parse()
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("{word:?}"))
}
