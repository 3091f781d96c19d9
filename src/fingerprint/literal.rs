//! Literals that must stand in a text for an expression to match it.
//!
//! Most texts hold few of the words that rules look for. [`required`] finds for each expression a
//! small set of literals one of which is in every match; an automaton over the literals of all
//! rules then says in one pass which expressions are worth running ([`super::matcher`]).
//!
//! Literals are in lower case and looked for in any case: `(?i)` costs nothing, and a literal that
//! is found in the wrong case only costs a run of its expression.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Alternatives an expression may have before it counts as having no literal.
const MAX_ALTERNATIVES: usize = 24;

/// Literals shorter than this stand in too many texts.
const MIN_LENGTH: usize = 3;

/// Words that stand in the replies of most servers: as literals they exclude little.
const COMMON: &[&str] = &[
    "<host>",
    "esmtp",
    "smtp",
    "ready",
    "server",
    "service",
    "hello",
    "220 ",
    "250 ",
    "\nsize",
    "\npipelining",
    "\n8bitmime",
    "\nstarttls",
    "\nenhancedstatuscodes",
    "\ndsn",
    "\nhelp",
    "\nauth",
    "\nchunking",
    "\nsmtputf8",
    "\nvrfy",
    "\netrn",
];

/// Literals of which every match contains at least one; `None` if there are none worth looking for.
pub(super) fn required(expression: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(expression)
        .ok()?;
    let found = best(&hir)?;
    let shortest = found
        .iter()
        .map(|l| text(l.clone()).len())
        .min()
        .unwrap_or(0);
    // A literal that many texts hold is still better than none: `250 ok` is in few replies to EHLO.
    (shortest >= MIN_LENGTH).then(|| {
        let mut literals: Vec<_> = found.into_iter().map(text).collect();
        literals.sort_unstable();
        literals.dedup();
        literals
    })
}

/// How selective a set of alternatives is: the letters of its weakest that are not common.
fn worth(alternatives: &[Vec<u8>]) -> usize {
    alternatives
        .iter()
        .map(|literal| {
            let mut rest = text(literal.clone());
            for word in COMMON {
                rest = rest.replace(word, "");
            }
            rest.trim().len()
        })
        .min()
        .unwrap_or(0)
}

/// The most selective set of literals that an expression needs.
fn best(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => {
            bytes(hir).map(|exact| vec![exact.to_ascii_lowercase()])
        }
        HirKind::Capture(capture) => best(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => best(&repetition.sub),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(best(branch)?);
            }
            (all.len() <= MAX_ALTERNATIVES).then_some(all)
        }
        HirKind::Concat(parts) => {
            let mut candidates: Vec<Vec<Vec<u8>>> = Vec::new();
            let mut run = Vec::new();
            for part in parts {
                if let Some(exact) = bytes(part) {
                    run.extend_from_slice(&exact);
                    continue;
                }
                // A boundary has no width: what stands around it is one run.
                if matches!(part.kind(), HirKind::Look(_)) {
                    continue;
                }
                if !run.is_empty() {
                    candidates.push(vec![std::mem::take(&mut run)]);
                }
                candidates.extend(best(part));
            }
            if !run.is_empty() {
                candidates.push(vec![run]);
            }
            candidates
                .into_iter()
                .map(|set| set.into_iter().map(|l| l.to_ascii_lowercase()).collect())
                .max_by_key(|set: &Vec<Vec<u8>>| (worth(set), set.iter().map(Vec::len).min()))
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// The octets of a part that can be only one text, letters in either case.
fn bytes(hir: &Hir) -> Option<Vec<u8>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.to_vec()),
        HirKind::Class(Class::Bytes(class)) => {
            let mut members = class.ranges().iter().flat_map(|r| r.start()..=r.end());
            let (first, second) = (members.next()?, members.next());
            match second {
                None => Some(vec![first]),
                Some(second)
                    if members.next().is_none() && second == first.to_ascii_lowercase() =>
                {
                    Some(vec![second])
                }
                Some(_) => None,
            }
        }
        HirKind::Concat(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(bytes(part)?);
            }
            Some(all)
        }
        _ => None,
    }
}

/// A literal as text; octets beyond ASCII end it, because they have no case.
fn text(literal: Vec<u8>) -> String {
    let ascii = literal.iter().position(|b| !b.is_ascii());
    String::from_utf8_lossy(&literal[..ascii.unwrap_or(literal.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expression: &str) -> Vec<String> {
        required(expression).unwrap_or_default()
    }

    #[test]
    fn the_most_selective_part_is_taken() {
        assert_eq!(
            of(r"^220 <host> ESMTP Foo (?P<version>[0-9.]+)"),
            ["220 <host> esmtp foo "]
        );
        assert_eq!(of(r"\bESMTP [^\n]*GreenMail[^\n]* ready"), ["greenmail"]);
        assert_eq!(of(r"(?i)sendmail \d+"), ["sendmail "]);
        assert_eq!(
            of(r"^250 \S+\nSIZE(?: \d+)?\nX-ANONYMOUSTLS$"),
            ["\nx-anonymoustls"]
        );
    }

    #[test]
    fn alternatives_need_a_literal_each() {
        let both = of("(?:Zimbra|Scalix)[0-9] ready");
        assert_eq!(both, ["scalix", "zimbra"]);
        assert_eq!(of("(?:Exim|[0-9]+)"), Vec::<String>::new());
    }

    #[test]
    fn common_words_are_the_last_choice() {
        assert_eq!(of(r"^220 <host> ESMTP [a-z]+ Zorp"), [" zorp"]);
        assert_eq!(of(r"^220 <host> ESMTP$"), ["220 <host> esmtp"]);
        for expression in [r"^\d+ [a-z]+$", "^(?:ab|[a-z])", ""] {
            assert_eq!(of(expression), Vec::<String>::new(), "{expression}");
        }
    }

    #[test]
    fn every_match_contains_a_literal() {
        for (expression, text) in [
            (r"ab(?:cde|fgh)+ij", "abcdefghij"),
            (r"(?i)HeLLo W(?:orld|elt)s", "HELLO WELTS"),
            (r"foo\b bar", "foo bar"),
            (r"x(?P<v>abc){2}", "xabcabc"),
        ] {
            let regex = regex::bytes::Regex::new(expression).expect("sound");
            assert!(regex.is_match(text.as_bytes()));
            let lower = text.to_ascii_lowercase();
            let literals = of(expression);
            assert!(
                literals.iter().any(|l| lower.contains(l)),
                "{expression}: {literals:?}"
            );
        }
    }
}
