//! What is said in a dialogue, in which order, and how far it goes.
//!
//! The order is that of what each reply tells per command said, as measured over real servers
//! (`examples/probe_gain`, docs/sessions.md): HELP tells most and is an error to few; a NUL splits
//! what is left best by code alone, and is no error to most; what an unknown verb is called
//! is the phrase that most rules know; HELO without argument comes last. An overlong verb is left
//! out: it tells next to nothing beside these, and some close on it. Everything in clear text comes
//! before STARTTLS: a handshake that fails ends the session, and must not cost the behaviour; and
//! what a server says to a probe is then the same with and without `--starttls`.
//!
//! **Error budget**: chasquid closes at the third error, Exim at the fourth, msmtpd after the first, and
//! Courier answers the second 8 s late, the third 16 s. So no error is provoked once there were
//! [`ERROR_BUDGET`], HELP's own included. Who calls HELP an error is not asked an unknown verb: it is
//! one, and the words are the same.

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
    Stage::Nul,
    Stage::Unknown,
    Stage::HeloNoarg,
    Stage::Starttls,
    Stage::TlsEhlo,
];

/// Commands in one dialogue, QUIT included.
pub const MAX_COMMANDS: usize = PLAN.len() + 1;
const _: () = assert!(MAX_COMMANDS <= 10);

/// Replies of 5xx after which no further error is provoked.
pub(super) const ERROR_BUDGET: u8 = 2;

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
