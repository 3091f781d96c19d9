//! The record of a dialogue: every piece as it came or went, with its time.
//!
//! Bytes are kept exactly (8-bit, NUL, bare LF). Times are milliseconds since the connection was
//! established. What exceeds the cap is cut, and the cut is recorded, never silent. Octets that
//! arrive within one millisecond make one piece; a peer that sends in thousands of pieces has the
//! last ones joined, so that many small pieces cannot cost more memory than few large ones.

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
    /// HELP and its reply.
    Help,
    /// NOOP and its reply.
    Noop,
    /// A verb that no server knows, and the reply.
    Unknown,
    /// A command with a NUL in it, and the reply.
    Nul,
    /// HELO without its argument, and the reply.
    HeloNoarg,
    /// A verb longer than any command line may be, and the reply.
    Overlong,
    /// STARTTLS and its reply in clear text.
    Starttls,
    /// The server's certificate, told in text; no piece of a transcript.
    Tls,
    /// EHLO and its reply inside TLS.
    TlsEhlo,
    /// QUIT and its reply.
    Quit,
}

impl Stage {
    /// Every stage, the greeting first and QUIT last.
    pub const ALL: &'static [Self] = &[
        Self::Greeting,
        Self::Ehlo,
        Self::Helo,
        Self::Help,
        Self::Noop,
        Self::Unknown,
        Self::Nul,
        Self::HeloNoarg,
        Self::Overlong,
        Self::Starttls,
        Self::Tls,
        Self::TlsEhlo,
        Self::Quit,
    ];

    /// The stable name under which the stage is stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Helo => "helo",
            Self::Help => "help",
            Self::Noop => "noop",
            Self::Unknown => "unknown",
            Self::Nul => "nul",
            Self::HeloNoarg => "helo_noarg",
            Self::Overlong => "overlong",
            Self::Starttls => "starttls",
            Self::Tls => "tls",
            Self::TlsEhlo => "tls_ehlo",
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
    /// Adds octets that came or went, keeping at most `room` of them; the rest is counted as cut.
    pub(super) fn record(
        &mut self,
        at_ms: u32,
        side: Side,
        stage: Stage,
        octets: &[u8],
        room: usize,
    ) {
        let kept = &octets[..octets.len().min(room)];
        self.cut += (octets.len() - kept.len()) as u64;
        if kept.is_empty() {
            return;
        }
        let full = self.pieces.len() >= MAX_PIECES;
        match self.pieces.last_mut() {
            Some(last)
                if last.side == side && last.stage == stage && (full || last.at_ms == at_ms) =>
            {
                last.bytes.extend_from_slice(kept);
            }
            _ => self.pieces.push(Piece {
                at_ms,
                side,
                stage,
                bytes: kept.to_vec(),
            }),
        }
    }

    /// Commands that were said: each is a piece of its own.
    pub fn commands(&self) -> usize {
        self.pieces
            .iter()
            .filter(|piece| piece.side == Side::Client)
            .count()
    }

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
        self.pieces
            .iter()
            .find(|p| p.side == Side::Server)
            .map(|p| p.at_ms)
    }
}

/// Pieces after which only a change of side or stage makes a new one.
const MAX_PIECES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_time_side_and_stage_and_join_within_a_millisecond() {
        let mut transcript = Transcript::default();
        transcript.record(3, Side::Server, Stage::Greeting, b"220 ", 99);
        transcript.record(3, Side::Server, Stage::Greeting, b"a\r", 99);
        transcript.record(4, Side::Server, Stage::Greeting, b"\n", 99);
        transcript.record(4, Side::Client, Stage::Ehlo, b"EHLO b.c\r\n", 99);
        let sizes: Vec<usize> = transcript.pieces.iter().map(|p| p.bytes.len()).collect();
        assert_eq!(sizes, [6, 1, 10]);
        assert_eq!(
            transcript.server(Stage::Greeting).as_deref(),
            Some(&b"220 a\r\n"[..])
        );
        assert_eq!(transcript.server(Stage::Ehlo), None);
        assert_eq!(transcript.greeting_delay_ms(), Some(3));
        assert_eq!(transcript.cut, 0);
    }

    #[test]
    fn what_exceeds_the_room_is_counted() {
        let mut transcript = Transcript::default();
        transcript.record(0, Side::Server, Stage::Greeting, b"abcdef", 4);
        transcript.record(1, Side::Server, Stage::Greeting, b"gh", 0);
        assert_eq!(
            transcript.server(Stage::Greeting).as_deref(),
            Some(&b"abcd"[..])
        );
        assert_eq!(transcript.cut, 4);
        assert_eq!(transcript.pieces.len(), 1);
    }

    #[test]
    fn pieces_are_bounded_and_lose_nothing() {
        let mut transcript = Transcript::default();
        for at_ms in 0..5_000 {
            transcript.record(at_ms, Side::Server, Stage::Greeting, b"x", 99);
        }
        assert_eq!(transcript.pieces.len(), MAX_PIECES);
        assert_eq!(
            transcript.server(Stage::Greeting).map(|b| b.len()),
            Some(5_000)
        );
    }
}
