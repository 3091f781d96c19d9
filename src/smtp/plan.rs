//! What is said in a dialogue, in which order, and how far it goes.
//!
//! The order is that of the information each reply carries per command said, as measured
//! (docs/sessions.md, `examples/probe_gain.rs`). Everything in clear text comes before STARTTLS: a
//! handshake that fails ends the session, and must not cost the behaviour; and what a server says
//! to a probe is then the same with and without `--starttls`.
//!
//! Whoever answers errors by closing has an *error budget*: Exim and chasquid close after about three
//! errors, msmtpd after one, Courier has each further one wait twice as long. So at most
//! [`ERROR_BUDGET`] errors are provoked, and a reply to HELP that is an error counts.

use super::Stage;

/// How far a dialogue goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Greeting, QUIT.
    Banner,
    /// Greeting, EHLO (HELO where that is refused), QUIT.
    Ehlo,
    /// The same, and between the two HELP and harmless errors that make a server show its hand.
    Behaviour,
}

impl Depth {
    /// The name by which it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Behaviour => "behaviour",
        }
    }
}

/// All that may be said between the greeting and QUIT, in this order, each at most once.
pub(super) const PLAN: &[Stage] = &[
    Stage::Ehlo,
    Stage::Helo,
    Stage::Noop,
    Stage::Help,
    Stage::Unknown,
    Stage::HeloNoarg,
    Stage::Nul,
    Stage::Starttls,
    Stage::TlsEhlo,
];

/// Commands in one dialogue, QUIT included.
pub const MAX_COMMANDS: usize = PLAN.len() + 1;
const _: () = assert!(MAX_COMMANDS <= 10);

/// Replies of 5xx after which no further error is provoked.
pub(super) const ERROR_BUDGET: u8 = 3;

/// Whether a step serves to learn how the server answers, and nothing else.
pub(super) const fn is_probe(stage: Stage) -> bool {
    matches!(stage, Stage::Help) || provokes_error(stage)
}

/// Whether a step is meant to be answered by an error.
pub(super) const fn provokes_error(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Unknown | Stage::Nul | Stage::HeloNoarg | Stage::Overlong
    )
}
