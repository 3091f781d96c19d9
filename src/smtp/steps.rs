//! What a transcript says step by step: code, enhanced code, lines, latency, form, extensions.
//!
//! All of it follows from the transcript, so transcripts recorded before this was asked of them tell it
//! too. The first whole reply of a step is its reply; what else the server said in it answered nothing.

use super::{EnhancedCode, Quirks, Reply, ReplyLimits, ReplyParser, Side, Stage, Transcript};

/// The reply to one step of a dialogue; that to the connection is the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step.
    pub stage: Stage,
    /// The reply's code; `None` if no whole reply came.
    pub code: Option<u16>,
    /// Its enhanced code.
    pub enhanced: Option<EnhancedCode>,
    /// Its lines; 0 without a whole reply.
    pub lines: usize,
    /// Milliseconds from the command (from the connection) to the first octet; `None` if none came.
    pub latency_ms: Option<u32>,
    /// In how many pieces, more than a millisecond apart, it came.
    pub pieces: usize,
    /// What was odd about its form.
    pub quirks: Quirks,
}

/// A keyword of the reply to EHLO, and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyword {
    /// The keyword, as the server spelt it.
    pub word: Vec<u8>,
    /// Its parameters, without blanks around them; empty if it has none.
    pub parameters: Vec<u8>,
}

impl Transcript {
    /// Each step that was taken, in order.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut begin = 0;
        while let Some(first) = self.pieces.get(begin) {
            let same = |piece: &&super::Piece| piece.stage == first.stage;
            let count = self.pieces[begin..].iter().take_while(same).count();
            let pieces = &self.pieces[begin..begin + count];
            begin += count;
            let asked = pieces.iter().find(|p| p.side == Side::Client);
            let mut said = pieces.iter().filter(|p| p.side == Side::Server).peekable();
            let from = asked.map_or(0, |p| p.at_ms);
            let latency_ms = said.peek().map(|p| p.at_ms.saturating_sub(from));
            let reply = first_reply(first.stage, said.clone().map(|p| p.bytes.as_slice()));
            steps.push(Step {
                stage: first.stage,
                code: reply.as_ref().map(|r| r.code),
                enhanced: reply.as_ref().and_then(|r| r.enhanced),
                lines: reply.as_ref().map_or(0, |r| r.lines.len()),
                latency_ms,
                pieces: said.count(),
                quirks: reply.map(|r| r.quirks).unwrap_or_default(),
            });
        }
        steps
    }

    /// The extensions offered in a reply to EHLO ([`Stage::Ehlo`] or [`Stage::TlsEhlo`]), in order. The
    /// first line, which names the server, is none.
    pub fn keywords(&self, stage: Stage) -> Vec<Keyword> {
        let said = self
            .pieces
            .iter()
            .filter(|p| p.side == Side::Server && p.stage == stage);
        let reply =
            first_reply(stage, said.map(|p| p.bytes.as_slice())).filter(|r| r.code / 100 == 2);
        let lines = reply.map(|r| r.lines).unwrap_or_default();
        lines
            .iter()
            .skip(1)
            .map(|line| line.trim_ascii())
            .filter(|line| !line.is_empty())
            .map(|line| {
                let end = line
                    .iter()
                    .position(u8::is_ascii_whitespace)
                    .unwrap_or(line.len());
                let (word, parameters) = line.split_at(end);
                Keyword {
                    word: word.to_vec(),
                    parameters: parameters.trim_ascii().to_vec(),
                }
            })
            .collect()
    }
}

/// The first whole reply among octets, if one comes before the first fault. A 220 to EHLO is a
/// greeting that came twice if another reply follows.
fn first_reply<'a>(stage: Stage, pieces: impl Iterator<Item = &'a [u8]>) -> Option<Reply> {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    let mut greeting = None;
    for mut rest in pieces {
        while let Some(reply) = parser.feed(&mut rest) {
            match reply {
                Ok(reply) if stage == Stage::Ehlo && reply.code == 220 && greeting.is_none() => {
                    greeting = Some(reply);
                }
                Ok(reply) => return Some(reply),
                Err(_) => return greeting,
            }
        }
    }
    parser.finish().or(greeting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(pieces: &[(u32, Side, Stage, &str)]) -> Transcript {
        let mut transcript = Transcript::default();
        for (at_ms, side, stage, text) in pieces {
            transcript.record(*at_ms, *side, *stage, text.as_bytes(), 9_999);
        }
        transcript
    }

    #[test]
    fn each_step_has_its_code_form_and_latency() {
        let steps = transcript(&[
            (250, Side::Server, Stage::Greeting, "220-a "),
            (6_250, Side::Server, Stage::Greeting, "b\r\n220 c\r\n"),
            (6_250, Side::Client, Stage::Ehlo, "EHLO d.e\r\n"),
            (6_260, Side::Server, Stage::Ehlo, "250-a\r\n250 X\r\n"),
            (6_260, Side::Client, Stage::Unknown, "XYZZY\r\n"),
            (
                6_300,
                Side::Server,
                Stage::Unknown,
                "500 5.5.1 what\n500 again\r\n",
            ),
            (6_300, Side::Client, Stage::Quit, "QUIT\r\n"),
        ])
        .steps();
        let told: Vec<_> = steps
            .iter()
            .map(|s| (s.stage, s.code, s.lines, s.latency_ms, s.pieces))
            .collect();
        assert_eq!(
            told,
            [
                (Stage::Greeting, Some(220), 2, Some(250), 2),
                (Stage::Ehlo, Some(250), 2, Some(10), 1),
                (Stage::Unknown, Some(500), 1, Some(40), 1),
                (Stage::Quit, None, 0, None, 0),
            ]
        );
        assert_eq!(steps[2].enhanced, Some((5, 5, 1)));
        assert!(steps[2].quirks.contains(Quirks::BARE_LF));
        assert!(steps[0].quirks.is_empty());
    }

    #[test]
    fn a_greeting_that_comes_twice_is_no_reply_to_ehlo() {
        let told = |said: &str| {
            let pieces = [(1, Side::Server, Stage::Ehlo, said)];
            transcript(&pieces).steps()[0].code
        };
        assert_eq!(told("220 a\r\n250 b\r\n"), Some(250));
        assert_eq!(told("220 a\r\n220 b\r\n250 c\r\n"), Some(220));
        assert_eq!(told("220 a\r\n"), Some(220));
        assert_eq!(told("220 a\r\ngarbage\r\n"), Some(220));
        assert_eq!(told("garbage\r\n"), None);
    }

    #[test]
    fn keywords_keep_order_spelling_and_parameters() {
        let ehlo = "250-mx.example.test Hello\r\n250-SIZE 10240000\r\n250-auth=LOGIN  PLAIN\r\n\
                    250- \r\n250 STARTTLS\r\n";
        let transcript = transcript(&[
            (1, Side::Client, Stage::Ehlo, "EHLO d.e\r\n"),
            (2, Side::Server, Stage::Ehlo, ehlo),
            (3, Side::Server, Stage::TlsEhlo, "550 no\r\n550 SIZE\r\n"),
        ]);
        let told: Vec<(String, String)> = transcript
            .keywords(Stage::Ehlo)
            .into_iter()
            .map(|k| (k.word, k.parameters))
            .map(|(w, p)| (w.escape_ascii().to_string(), p.escape_ascii().to_string()))
            .collect();
        let pair = |word: &str, parameters: &str| (word.to_owned(), parameters.to_owned());
        assert_eq!(
            told,
            [
                pair("SIZE", "10240000"),
                pair("auth=LOGIN", "PLAIN"),
                pair("STARTTLS", ""),
            ]
        );
        assert!(transcript.keywords(Stage::TlsEhlo).is_empty());
        assert!(transcript.keywords(Stage::Greeting).is_empty());
    }
}
