//! How far a walk came, as one line of text that can be kept and resumed from.
//!
//! ```text
//! smtpsweep-cursor-1:<digest of the space, 64 hex digits>:<seed>:<shard>/<shards>:<steps done>
//! ```
//!
//! Numbers are decimal. The form is canonical: a text that parses is the text that is written. The
//! version number changes whenever the order of a walk does, so an old cursor is refused and not
//! resumed at the wrong place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Shard;

const NAME: &str = "smtpsweep-cursor-1";

/// A place in a walk: which walk it is, and how many of its steps are done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor {
    pub(super) space: [u8; 32],
    pub(super) seed: u64,
    pub(super) shard: Shard,
    pub(super) done: u64,
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CursorError {
    /// It does not begin with the name and version of a cursor.
    #[error("\"{0}\" is no cursor of this version: it must begin with \"{NAME}:\"")]
    Name(String),
    /// A part is missing, or is not what it must be.
    #[error("the cursor's {part} is missing or malformed")]
    Part {
        /// Which part.
        part: &'static str,
    },
}

impl Cursor {
    /// The digest of the space that is walked.
    pub fn space(&self) -> &[u8; 32] {
        &self.space
    }

    /// The seed of its order.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The shard.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// How many steps of the shard are done, skipped ones included.
    pub fn done(&self) -> u64 {
        self.done
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}:")?;
        for byte in self.space {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ":{}:{}:{}", self.seed, self.shard, self.done)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let mut parts = text.trim().split(':');
        if parts.next() != Some(NAME) {
            return Err(CursorError::Name(text.chars().take(40).collect()));
        }
        let space = parts.next().and_then(digest).ok_or(CursorError::Part {
            part: "space digest",
        })?;
        let seed = parts
            .next()
            .and_then(number)
            .ok_or(CursorError::Part { part: "seed" })?;
        let shard = parts
            .next()
            .and_then(shard)
            .ok_or(CursorError::Part { part: "shard" })?;
        let done = parts.next().and_then(number).ok_or(CursorError::Part {
            part: "number of steps",
        })?;
        if parts.next().is_some() {
            return Err(CursorError::Part { part: "end" });
        }
        Ok(Self {
            space,
            seed,
            shard,
            done,
        })
    }
}

/// A decimal number without sign or leading zeros.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn shard(text: &str) -> Option<Shard> {
    let (index, total) = text.split_once('/')?;
    Shard::new(number(index)?, number(total)?).ok()
}

/// 64 lower-case hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for Cursor {
    type Error = CursorError;

    fn try_from(text: String) -> Result<Self, CursorError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Cursor {
        let space = std::array::from_fn(|i| u8::try_from(i * 8).unwrap());
        Cursor {
            space,
            seed: 7,
            shard: Shard { index: 2, total: 5 },
            done: 4_294_967_310,
        }
    }

    #[test]
    fn a_cursor_is_one_token() {
        let text = example().to_string();
        assert_eq!(
            text,
            "smtpsweep-cursor-1:0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8:7:2/5:4294967310"
        );
        assert_eq!(text.parse(), Ok(example()));
        assert_eq!(format!("  {text}\n").parse(), Ok(example()));
        let json = serde_json::to_string(&example()).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), example());
    }

    #[test]
    fn malformed_cursors_are_refused_with_the_part() {
        let text = example().to_string();
        let part = |text: String| match text.parse::<Cursor>() {
            Err(CursorError::Part { part }) => part,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(part(text.replacen("0008", "00G8", 1)), "space digest");
        assert_eq!(part(text.replacen("0008", "008", 1)), "space digest");
        assert_eq!(part(text.replace(":7:", ":+7:")), "seed");
        assert_eq!(part(text.replace(":7:", ":07:")), "seed");
        assert_eq!(part(text.replace(":7:", ":18446744073709551616:")), "seed");
        assert_eq!(part(text.replace("2/5", "5/5")), "shard");
        assert_eq!(part(text.replace("2/5", "0/0")), "shard");
        assert_eq!(part(text.replace("2/5", "2")), "shard");
        assert_eq!(part(text.replace(":4294967310", ":")), "number of steps");
        assert_eq!(part(text.replace(":4294967310", "")), "number of steps");
        assert_eq!(part(text.clone() + ":1"), "end");
        let other = text.replace("cursor-1", "cursor-2").parse::<Cursor>();
        assert!(matches!(other, Err(CursorError::Name(_))));
    }

    proptest! {
        #[test]
        fn any_cursor_survives_the_round_trip(
            space in any::<[u8; 32]>(), seed in any::<u64>(), total in 1u16.., index in any::<u16>(), done in any::<u64>(),
        ) {
            let cursor = Cursor { space, seed, shard: Shard { index: index % total, total }, done };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn what_parses_is_canonical(text in "(smtpsweep-cursor-1)?[:0-9a-f/]{0,90}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
