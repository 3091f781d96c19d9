//! How a session ended: every validated responder ends in exactly one [`Outcome`].
//!
//! The names (`Outcome::name`) are stored, exported and documented; they are stable. A remote
//! peer's conduct is data, not an error, so this is no `Error` type. [`Outcome::zgrab_status`]
//! maps each to the status words of zgrab2, for tools that know those.

use std::fmt;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $zgrab:literal;)*) => {
        /// The one way in which a session with a responder ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Outcome { $($(#[$doc])* $variant,)* }

        impl Outcome {
            /// Every outcome, in the order in which tables list them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name under which the outcome is stored and exported.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The status word zgrab2 would use for the same end.
            pub const fn zgrab_status(self) -> &'static str {
                match self { $(Self::$variant => $zgrab,)* }
            }

            /// The outcome of that stable name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

outcomes! {
    /// 220, EHLO (or HELO) accepted (2xx), QUIT said: the dialogue, as far as was wanted.
    Completed = "completed", "success";
    /// A greeting of 220, but EHLO and then HELO were refused; QUIT said.
    EhloRejected = "ehlo_rejected", "success";
    /// The greeting had a 5xx code (554: no service, or not for us).
    Greeting5xx = "greeting_5xx", "application-error";
    /// The greeting had a 4xx code (421: not now).
    Greeting4xx = "greeting_4xx", "application-error";
    /// The greeting was a well-formed reply with another code than 220, 4xx or 5xx.
    GreetingOdd = "greeting_odd", "application-error";
    /// 220, then a 421 (or 221) before QUIT: the server shuts the channel down.
    ServiceClosing = "service_closing", "application-error";
    /// What came instead of a greeting was no SMTP reply (SSH, HTTP, TLS, noise), or no acceptable
    /// one (a line or a multi-line reply beyond all limits).
    NotSmtp = "not_smtp", "protocol-error";
    /// A proper greeting, then bytes that are no reply, or a reply beyond the size limits.
    ProtocolError = "protocol_error", "protocol-error";
    /// Connected; not one byte came before the greeting timeout (silent, or a tarpit).
    NoGreeting = "no_greeting", "io-timeout";
    /// Some bytes of a greeting came, but not all of it in time (a slow tarpit).
    PartialGreeting = "partial_greeting", "io-timeout";
    /// A proper greeting, then an answer failed to come in time.
    DialogueTimeout = "dialogue_timeout", "io-timeout";
    /// STARTTLS was accepted, or TLS was to come first, and none came about; what was said before
    /// is kept.
    TlsFailed = "tls_failed", "protocol-error";
    /// No whole greeting came in time from a peer whose receive window is zero: it accepts
    /// connections and takes nothing.
    ZeroWindow = "zero_window", "io-timeout";
    /// The peer closed the connection before its greeting was whole.
    ClosedBeforeGreeting = "closed_before_greeting", "connection-closed";
    /// The peer reset the established connection before its greeting was whole.
    ResetBeforeGreeting = "reset_before_greeting", "connection-closed";
    /// A proper greeting, then the peer closed the connection before we said QUIT.
    ClosedInDialogue = "closed_in_dialogue", "connection-closed";
    /// A proper greeting, then the peer reset the connection before we said QUIT.
    ResetInDialogue = "reset_in_dialogue", "connection-closed";
    /// The SYN-ACK came, but the session's own connection was refused.
    ConnectRefused = "connect_refused", "connection-refused";
    /// The SYN-ACK came, but the session's own connection never completed.
    ConnectTimeout = "connect_timeout", "connection-timeout";
    /// The SYN-ACK came, but an ICMP error ended the session's own connection.
    ConnectUnreachable = "connect_unreachable", "connection-timeout";
    /// The address was opted out between its SYN-ACK and its session.
    Blocked = "blocked", "blocklisted-target";
    /// This machine could not open the connection (descriptors, ports, memory).
    LocalError = "local_error", "unknown-error";
    /// The sweep was stopped before the session ended.
    Interrupted = "interrupted", "unknown-error";
    /// No session was wanted (`--no-sessions`): the host answered the probe, and that was all.
    NotContacted = "not_contacted", "unknown-error";
}

impl Outcome {
    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the peer showed itself to be an SMTP server: it greeted with a well-formed reply.
    pub const fn is_smtp(self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::EhloRejected
                | Self::Greeting5xx
                | Self::Greeting4xx
                | Self::ServiceClosing
                | Self::DialogueTimeout
                | Self::TlsFailed
                | Self::ClosedInDialogue
                | Self::ResetInDialogue
                | Self::ProtocolError
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(Outcome::from_name(outcome.name()), Some(*outcome));
            assert_eq!(outcome.index(), i);
            assert!(
                Outcome::ALL[i + 1..]
                    .iter()
                    .all(|o| o.name() != outcome.name())
            );
        }
        assert_eq!(Outcome::from_name("no such outcome"), None);
    }
}
