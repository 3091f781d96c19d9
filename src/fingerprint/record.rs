//! What a server said, as one JSON object: the input of `smtpsweep classify --ndjson`.
//!
//! Two forms are understood, and may be mixed:
//!
//! ```text
//! {"id": 1, "greeting": "220 mx.example ESMTP Postfix\r\n", "ehlo": …, "nul": {"base64": "NTAx"}}
//! {"ip": "192.0.2.1", "data": {"smtp": {"result": {"banner": "220 …", "ehlo": "250-…"}}}}
//! ```
//!
//! The second is zgrab2's, and what `smtpsweep export` writes. A reply is text or `{"base64": text}`;
//! other keys, and values of other types, are ignored: files of other programs have more in them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::verdict::Replies;
use crate::smtp::Stage;

/// One observation with the name its author gave it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// `id`, else `ip`, else `domain`; null if there is none.
    pub id: Value,
    /// What was said.
    pub replies: Replies,
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No JSON, or no object; the text tells the column.
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
    /// A reply's base64 is none.
    #[error("the base64 of {stage} is malformed: {reason}")]
    Base64 {
        /// The reply's stage.
        stage: &'static str,
        /// What is wrong with it.
        reason: base64::DecodeError,
    },
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// If it is no JSON object, or a reply in it is malformed.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let mut object: Object<'_> = serde_json::from_slice(line)?;
        if let Some(replies) = object
            .data
            .take()
            .and_then(|d| d.smtp)
            .and_then(|s| s.result)
        {
            object.replies.0.extend(replies.0);
        }
        let mut record = Self {
            id: object
                .id
                .or(object.ip)
                .or(object.domain)
                .unwrap_or_default(),
            replies: Replies::default(),
        };
        for (stage, reply) in object.replies.0 {
            let octets = match reply {
                Reply::Text(text) => octets(&text),
                Reply::Base64(text) => {
                    STANDARD
                        .decode(text.as_bytes())
                        .map_err(|reason| RecordError::Base64 {
                            stage: stage.name(),
                            reason,
                        })?
                }
            };
            record.replies.set(stage, octets);
        }
        Ok(record)
    }
}

/// The stage of a key.
fn stage(key: &str) -> Option<Stage> {
    match key {
        "banner" => Some(Stage::Greeting),
        "helo-noarg" => Some(Stage::HeloNoarg),
        "tls-ehlo" => Some(Stage::TlsEhlo),
        _ => Stage::from_name(key),
    }
}

/// Text as octets. Telnet's commands, octets of 240 and more, are what some programs write as
/// characters of these numbers; no text has `ÿ` before them.
fn octets(text: &str) -> Vec<u8> {
    if !text.contains("\u{ff}") || !text.chars().all(|c| u32::from(c) < 256) {
        return text.as_bytes().to_vec();
    }
    let telnet = text
        .chars()
        .zip(text.chars().skip(1))
        .any(|(a, b)| a == '\u{ff}' && b >= '\u{f0}');
    if telnet {
        text.chars().filter_map(|c| u8::try_from(c).ok()).collect()
    } else {
        text.as_bytes().to_vec()
    }
}

/// An object's keys that matter.
#[derive(Default)]
struct Object<'a> {
    id: Option<Value>,
    ip: Option<Value>,
    domain: Option<Value>,
    data: Option<Data<'a>>,
    replies: Said<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    smtp: Option<Scan<'a>>,
}

#[derive(Deserialize)]
struct Scan<'a> {
    #[serde(borrow)]
    result: Option<Said<'a>>,
}

/// Replies by stage, in the order in which they stand.
#[derive(Default)]
struct Said<'a>(Vec<(Stage, Reply<'a>)>);

enum Reply<'a> {
    Text(Cow<'a, str>),
    Base64(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of replies")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut object = Object::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    match &*key.0 {
                        "id" => object.id = Some(map.next_value()?),
                        "ip" => object.ip = Some(map.next_value()?),
                        "domain" => object.domain = Some(map.next_value()?),
                        "data" => object.data = map.next_value::<Maybe<Data<'de>>>()?.0,
                        key => object.replies.take(key, &mut map)?,
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Said<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of replies")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut said = Said::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    said.take(&key.0, &mut map)?;
                }
                Ok(said)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl<'de> Said<'de> {
    fn take<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let Some(stage) = stage(key) else {
            map.next_value::<IgnoredAny>()?;
            return Ok(());
        };
        if let Some(reply) = map.next_value::<Maybe<Reply<'de>>>()?.0 {
            self.0.push((stage, reply));
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A value of the wanted type, or nothing if it has another: what programs write under our names
/// need not be what we mean by them (zgrab2's `tls` is an object).
struct Maybe<T>(Option<T>);

impl<'de: 'a, 'a> Deserialize<'de> for Maybe<Reply<'a>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Maybe<Reply<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reply")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Maybe(Some(Reply::Text(text.into()))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Maybe(Some(Reply::Text(text.to_owned().into()))))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut reply = None;
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    if key.0 != "base64" {
                        map.next_value::<IgnoredAny>()?;
                    } else if let Some(Reply::Text(text)) = map.next_value::<Self::Value>()?.0 {
                        reply = Some(Reply::Base64(text));
                    }
                }
                Ok(Maybe(reply))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Maybe(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Maybe<Data<'a>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What is under `data` and not zgrab2's says nothing of ours.
        let raw: &serde_json::value::RawValue = Deserialize::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(raw.get()).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Record {
        Record::parse(line.as_bytes()).expect(line)
    }

    fn replies(pairs: &[(Stage, &[u8])]) -> Replies {
        let mut replies = Replies::default();
        for (stage, text) in pairs {
            replies.set(*stage, text.to_vec());
        }
        replies
    }

    #[test]
    fn any_subset_of_the_stages_is_read() {
        let record = said(
            r#"{"id": "a", "greeting": "220 x\r\n", "nul": {"base64": "NTAxIABuCg=="}, "ehlo": null,
               "helo_noarg": "501 y", "tls": {"version": 3}, "quit": 7, "help": ["214"], "seen": {}}"#,
        );
        assert_eq!(record.id, "a");
        assert_eq!(
            record.replies,
            replies(&[
                (Stage::Greeting, b"220 x\r\n"),
                (Stage::Nul, b"501 \0n\n"),
                (Stage::HeloNoarg, b"501 y"),
            ])
        );
        assert!(said("{}").replies.is_empty() && said("{}").id.is_null());
    }

    #[test]
    fn zgrab2s_form_is_read() {
        let record = said(
            r#"{"ip":"192.0.2.1","data":{"smtp":{"status":"success","protocol":"smtp","result":
               {"banner":"220 x\r\n","ehlo":"250 y\r\n","tls":{"handshake_log":{}}}}}}"#,
        );
        assert_eq!(record.id, "192.0.2.1");
        assert_eq!(
            record.replies,
            replies(&[(Stage::Greeting, b"220 x\r\n"), (Stage::Ehlo, b"250 y\r\n")])
        );
        assert!(
            said(r#"{"ip":"192.0.2.1","data":{"smtp":{"status":"connection-timeout"}}}"#)
                .replies
                .is_empty()
        );
        assert!(said(r#"{"data":[1,2]}"#).replies.is_empty());
    }

    #[test]
    fn what_is_no_record_is_told() {
        for (line, reason) in [
            ("{\"greeting\": ", "EOF while parsing"),
            (
                "[]",
                "invalid type: sequence, expected an object of replies",
            ),
            (
                "{\"greeting\": {\"base64\": \"!\"}}",
                "the base64 of greeting is malformed",
            ),
            ("{} {}", "trailing characters"),
            ("", "EOF while parsing"),
        ] {
            let told = Record::parse(line.as_bytes()).expect_err(line).to_string();
            assert!(told.starts_with(reason), "{told}");
        }
    }

    #[test]
    fn telnet_in_characters_is_telnet_in_octets() {
        assert_eq!(octets("\u{ff}\u{fd}\u{18}"), b"\xff\xfd\x18");
        assert_eq!(octets("220 Grüß Gott ÿ"), "220 Grüß Gott ÿ".as_bytes());
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_a_record_or_an_error(line in "\\PC{0,80}") {
            let _ = Record::parse(line.as_bytes());
        }
    }
}
