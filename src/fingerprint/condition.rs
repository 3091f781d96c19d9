//! What a pattern may ask beside its expression: EHLO keywords and their order, the reply codes of
//! several probes, how the server echoes what it did not understand.
//!
//! All conditions of a pattern must hold. They look at the views, never at the wire.

use super::view::View;
use crate::smtp::Stage;

/// The verb that the dialogue sends as an unknown one.
const UNKNOWN_VERB: &str = "XYZZY";

/// A reply code, with or without the enhanced code behind it, that a probe must have brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeWanted {
    pub(super) stage: Stage,
    /// `502`, or `502 5.5.2`: the words with which the reply must begin.
    pub(super) prefix: String,
}

/// How a server repeats a verb that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    /// As it was sent.
    Exact,
    /// In lower case.
    Lower,
    /// Overwritten: something in front of the server masks verbs.
    Masked,
    /// Not at all.
    None,
}

impl Echo {
    /// Every way with the name it has in rule files.
    pub(super) const NAMES: &'static [(&'static str, Self)] = &[
        ("exact", Self::Exact),
        ("lower", Self::Lower),
        ("masked", Self::Masked),
        ("none", Self::None),
    ];

    /// The way of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, e)| *e)
    }

    /// How a reply to the unknown verb echoes it.
    pub(super) fn of(reply: &[u8]) -> Self {
        let has = |word: &str| reply.windows(word.len()).any(|w| w == word.as_bytes());
        if has(UNKNOWN_VERB) {
            Self::Exact
        } else if has(&UNKNOWN_VERB.to_ascii_lowercase()) {
            Self::Lower
        } else if has("XXXX") {
            Self::Masked
        } else {
            Self::None
        }
    }
}

/// A keyword in an order; it may be optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) keyword: String,
    pub(super) optional: bool,
}

/// All that a pattern asks beside its expression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// Keywords the EHLO reply must list.
    pub(super) has: Vec<String>,
    /// Keywords it must not list.
    pub(super) lacks: Vec<String>,
    /// Keywords in the order in which those of them that are listed must come.
    pub(super) order: Vec<Place>,
    /// Replies of several probes.
    pub(super) codes: Vec<CodeWanted>,
    /// The echo of the unknown verb.
    pub(super) echo: Option<Echo>,
}

impl Conditions {
    /// Whether nothing is asked.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn asks_keywords(&self) -> bool {
        !(self.has.is_empty() && self.lacks.is_empty() && self.order.is_empty())
    }

    /// A keyword without which the conditions cannot hold, the longest one.
    pub(super) fn required_keyword(&self) -> Option<&str> {
        let ordered = self
            .order
            .iter()
            .filter(|p| !p.optional)
            .map(|p| &p.keyword);
        self.has
            .iter()
            .chain(ordered)
            .max_by_key(|k| k.len())
            .map(String::as_str)
    }

    /// Whether all of it holds; `own` is the pattern's stage.
    pub(super) fn hold<'v>(&self, own: Stage, view: impl Fn(Stage) -> Option<&'v View>) -> bool {
        let begins = |wanted: &CodeWanted| {
            view(wanted.stage).is_some_and(|v| {
                v.raw
                    .strip_prefix(wanted.prefix.as_bytes())
                    .is_some_and(|rest| matches!(rest.first(), None | Some(b' ' | b'\n')))
            })
        };
        if !self.codes.iter().all(begins) {
            return false;
        }
        if let Some(echo) = self.echo
            && view(Stage::Unknown).is_none_or(|v| Echo::of(&v.raw) != echo)
        {
            return false;
        }
        if !self.asks_keywords() {
            return true;
        }
        let stage = if own == Stage::TlsEhlo {
            own
        } else {
            Stage::Ehlo
        };
        let Some(reply) = view(stage).filter(|v| v.code() == Some(250)) else {
            return false;
        };
        self.keywords_hold(&reply.keywords().collect::<Vec<_>>())
    }

    fn keywords_hold(&self, listed: &[&[u8]]) -> bool {
        let lists = |keyword: &str| listed.iter().any(|k| same(k, keyword));
        if !self.has.iter().all(|k| lists(k)) || self.lacks.iter().any(|k| lists(k)) {
            return false;
        }
        let mut at = 0;
        for keyword in listed {
            let Some(place) = self.order.iter().position(|p| same(keyword, &p.keyword)) else {
                continue;
            };
            // What is skipped over must be optional; a keyword that repeats stays where it is.
            let skipped = self.order.get(at..place);
            if place + 1 == at {
                continue;
            }
            if skipped.is_none_or(|s| s.iter().any(|p| !p.optional)) {
                return false;
            }
            at = place + 1;
        }
        self.order[at..].iter().all(|p| p.optional)
    }
}

fn same(keyword: &[u8], wanted: &str) -> bool {
    keyword.eq_ignore_ascii_case(wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ehlo(lines: &str) -> View {
        View::new(Stage::Ehlo, lines.as_bytes())
    }

    fn order(words: &[&str]) -> Conditions {
        Conditions {
            order: words
                .iter()
                .map(|w| Place {
                    keyword: w.trim_end_matches('?').to_owned(),
                    optional: w.ends_with('?'),
                })
                .collect(),
            ..Conditions::default()
        }
    }

    fn holds(conditions: &Conditions, reply: &View) -> bool {
        conditions.hold(Stage::Ehlo, |stage| (stage == Stage::Ehlo).then_some(reply))
    }

    #[test]
    fn keywords_are_had_lacked_and_ordered() {
        let reply = ehlo(
            "250-h\r\n250-PIPELINING\r\n250-SIZE 10\r\n250-AUTH PLAIN\r\n250-AUTH=PLAIN\r\n250 DSN\r\n",
        );
        assert!(holds(&order(&["PIPELINING", "SIZE", "DSN"]), &reply));
        assert!(holds(
            &order(&["PIPELINING", "VRFY?", "SIZE", "AUTH", "DSN"]),
            &reply
        ));
        assert!(!holds(&order(&["SIZE", "PIPELINING"]), &reply));
        assert!(!holds(&order(&["PIPELINING", "VRFY", "SIZE"]), &reply));
        assert!(!holds(&order(&["SIZE", "DSN", "CHUNKING"]), &reply));
        let set = Conditions {
            has: vec!["size".into()],
            lacks: vec!["CHUNKING".into()],
            ..Conditions::default()
        };
        assert!(holds(&set, &reply));
        assert!(!holds(&set, &ehlo("250-h\r\n250-SIZE\r\n250 CHUNKING\r\n")));
        assert!(!holds(&set, &ehlo("502 what?\r\n")));
    }

    #[test]
    fn codes_may_name_the_enhanced_code() {
        let unknown = View::new(
            Stage::Unknown,
            b"502 5.5.2 Error: command not recognized\r\n",
        );
        let wants = |prefix: &str| Conditions {
            codes: vec![CodeWanted {
                stage: Stage::Unknown,
                prefix: prefix.into(),
            }],
            ..Conditions::default()
        };
        let holds =
            |c: Conditions| c.hold(Stage::Ehlo, |s| (s == Stage::Unknown).then_some(&unknown));
        assert!(holds(wants("502")) && holds(wants("502 5.5.2")));
        assert!(!holds(wants("500")) && !holds(wants("502 5.5")) && !holds(wants("502 5.5.1")));
    }

    #[test]
    fn echoes_are_told_apart() {
        assert_eq!(Echo::of(b"500 XYZZY: unknown"), Echo::Exact);
        assert_eq!(Echo::of(b"500 no xyzzy here"), Echo::Lower);
        assert_eq!(Echo::of(b"500 \"XXXXX\" unrecognized"), Echo::Masked);
        assert_eq!(Echo::of(b"502 unimplemented"), Echo::None);
    }
}
