//! SMTP as a polite client sees it: commands, replies, the dialogue, its transcript and outcome.
//!
//! Nothing here opens a socket or reads a clock: bytes and instants go in, bytes and deadlines
//! come out (RFC 5321 for the syntax, RFC 2034 and 3463 for enhanced codes).

mod certificate;
mod command;
mod contact;
mod dialogue;
mod fqdn;
mod outcome;
mod plan;
mod reply;
mod settings;
mod steps;
mod tls;
mod transcript;

pub use certificate::{AltName, Certificate, DistinguishedName};
pub use command::Command;
pub use contact::{Contact, ContactError};
pub use dialogue::Dialogue;
pub use fqdn::{EhloName, Fqdn, FqdnError};
pub use outcome::Outcome;
pub use plan::{Depth, MAX_COMMANDS};
pub use reply::{EnhancedCode, FaultKind, Quirks, Reply, ReplyFault, ReplyLimits, ReplyParser};
pub use settings::{DialogueConfig, Limits, Timeouts};
pub use steps::{Keyword, Step};
pub use tls::{Alert, CipherSuite, Heard, KeyGroup, TlsFailure, TlsRecord, TlsStart, TlsVersion};
pub use transcript::{Piece, Side, Stage, Transcript};
