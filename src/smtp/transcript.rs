//! The record of a dialogue: every piece as it came or went, with its time.
//!
//! Bytes are kept exactly (8-bit, NUL, bare LF). Times are milliseconds since the connection was
//! established. What exceeds the cap is cut, and the cut is recorded, never silent.

/// Which step of the dialogue a piece belongs to. A server's piece belongs to the step whose
/// answer was being awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the connection to the end of the greeting.
    Greeting,
    /// EHLO and its reply.
    Ehlo,
    /// HELO and its reply (only after EHLO was refused).
    Helo,
    /// QUIT and its reply.
    Quit,
}

impl Stage {
    /// Every stage in dialogue order.
    pub const ALL: &'static [Self] = &[Self::Greeting, Self::Ehlo, Self::Helo, Self::Quit];

    /// The stable name under which the stage is stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Helo => "helo",
            Self::Quit => "quit",
        }
    }

    /// The stage of that stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.name() == name)
    }
}

/// Who sent a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Us.
    Client,
    /// The peer.
    Server,
}

/// One run of bytes that arrived, or was sent, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Milliseconds since the connection was established.
    pub at_ms: u32,
    /// Who sent it.
    pub side: Side,
    /// The step it belongs to.
    pub stage: Stage,
    /// The bytes exactly as they were on the wire.
    pub bytes: Vec<u8>,
}

/// All pieces of one dialogue, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The pieces, in the order in which they came and went.
    pub pieces: Vec<Piece>,
    /// Octets received beyond the cap and therefore not kept (0: nothing was cut).
    pub cut: u64,
}

impl Transcript {
    /// The server's bytes of one stage, joined; `None` if the stage was never reached or the
    /// server said nothing in it.
    pub fn server(&self, stage: Stage) -> Option<Vec<u8>> {
        let mut joined = Vec::new();
        for piece in &self.pieces {
            if piece.side == Side::Server && piece.stage == stage {
                joined.extend_from_slice(&piece.bytes);
            }
        }
        (!joined.is_empty()).then_some(joined)
    }

    /// Milliseconds from the connection to the server's first byte.
    pub fn greeting_delay_ms(&self) -> Option<u32> {
        self.pieces.iter().find(|p| p.side == Side::Server).map(|p| p.at_ms)
    }
}
