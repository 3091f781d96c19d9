//! What all dialogues of a sweep share: the name, the plan, the bounds on time and size.

use std::time::Duration;

use super::{Contact, Depth, EhloName, ReplyLimits};

/// How long each part of a session may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the SYN to the established connection (used by the driver, not by the dialogue).
    pub connect: Duration,
    /// From the connection to the end of the greeting. Long, because greet delays are a common
    /// defence against those who do not wait.
    pub greeting: Duration,
    /// From a command to the end of its reply.
    pub step: Duration,
    /// From QUIT to its reply. Short, because nothing hangs on it.
    pub quit: Duration,
    /// From the connection to QUIT.
    pub session: Duration,
}

impl Timeouts {
    /// What they are unless told otherwise; the command line takes its defaults from here.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(10),
        greeting: Duration::from_secs(60),
        step: Duration::from_secs(30),
        quit: Duration::from_secs(5),
        session: Duration::from_secs(180),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How much a peer may send, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bounds on single replies.
    pub reply: ReplyLimits,
    /// Octets of the peer that a transcript keeps; more is counted as cut.
    pub transcript: usize,
    /// Octets after which a session is ended, however well formed they are.
    pub received: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reply: ReplyLimits::default(),
            transcript: 65_536,
            received: 262_144,
        }
    }
}

/// What all dialogues of a sweep share.
#[derive(Debug, Clone)]
pub struct DialogueConfig {
    /// The name under which we introduce ourselves.
    pub ehlo_name: EhloName,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Bounds on size.
    pub limits: Limits,
    /// How far it goes.
    pub depth: Depth,
    /// Whom an administrator may turn to; said in a NOOP.
    pub contact: Option<Contact>,
    /// Whether to ask for TLS where it is offered.
    pub starttls: bool,
}

impl DialogueConfig {
    /// The default bounds, under that name: behaviour, no contact, no TLS.
    pub fn new(ehlo_name: impl Into<EhloName>) -> Self {
        Self {
            ehlo_name: ehlo_name.into(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            depth: Depth::Behaviour,
            contact: None,
            starttls: false,
        }
    }
}
