//! Rules for what no rule names: unknown servers by what they have in common, and a draft for them.
//!
//! Servers are alike in two ways. *By greeting*: the same words once host names, dates and numbers
//! are taken out. *By behaviour*: the same codes and words after all other commands, whatever the
//! greeting says; a server that hides its name is found so. A draft takes from a cluster what all
//! its members share and leaves to its author what nobody can know from replies: the product's name,
//! vendor and category.

use std::fmt::Write as _;

use super::normalise::{VARIABLE, normalise};
use super::verdict::Replies;
use super::view::View;
use crate::smtp::Stage;

/// Stages of which the behaviour consists: what differs from site to site (the greeting, QUIT's
/// farewell in the host's name) or from day to day (TLS) is not in it.
const BEHAVIOUR: &[Stage] = &[
    Stage::Ehlo,
    Stage::Help,
    Stage::Noop,
    Stage::Unknown,
    Stage::Nul,
    Stage::HeloNoarg,
    Stage::Overlong,
    Stage::Quit,
];

/// Stages at which a draft has a pattern, as far as a server was seen there.
const DRAFTED: &[Stage] = &[
    Stage::Greeting,
    Stage::Ehlo,
    Stage::Help,
    Stage::Unknown,
    Stage::Nul,
    Stage::HeloNoarg,
    Stage::Overlong,
];

/// Words of a greeting that may stand in anybody's: such a greeting names nothing.
const ANYBODYS: &[&str] = &[
    "220", "<host>", "esmtp", "smtp", "ready", "server", "service", "mail", "<date>", "<n>",
    "<ip>", "<id>", "at", "hello", "welcome", "to",
];

/// What a server answers to everything but the connection itself, in one line; empty if it was asked
/// nothing. Servers of one kind and configuration have the same.
pub fn behaviour(replies: &Replies) -> String {
    let observation = replies.observation();
    let mut vector = String::new();
    for &stage in BEHAVIOUR {
        let Some(reply) = observation.reply(stage) else {
            continue;
        };
        let view = View::new(stage, reply);
        if !vector.is_empty() {
            vector.push_str(" | ");
        }
        let _ = write!(vector, "{}: ", stage.name());
        if stage == Stage::Ehlo && view.code() == Some(250) {
            // Keywords and their order; what they allow is configuration.
            for keyword in view.keywords() {
                let _ = write!(vector, "{} ", String::from_utf8_lossy(keyword));
            }
            vector.truncate(vector.trim_end().len());
        } else {
            vector.push_str(&normalise(&view));
        }
    }
    vector
}

/// A rule file for servers that are alike, of which some are given: patterns for what all of them
/// say, each with an example. The names in capitals are for its author to fill in.
pub fn draft(members: &[Replies]) -> String {
    let mut text = String::from(
        "family = \"FAMILY\"\n\n[[product]]\nname = \"NAME\"\nvendor = \"VENDOR\"\ncategory = \"other\"\n",
    );
    let mut patterns = 0;
    for &stage in DRAFTED {
        let views: Vec<_> = members
            .iter()
            .filter_map(|m| m.observation().reply(stage).map(|r| View::new(stage, r)))
            .collect();
        let Some(first) = views.first() else {
            continue;
        };
        if views.len() < members.len() {
            let _ = writeln!(text, "\n# {}: only some answer it.", stage.name());
            continue;
        }
        if stage == Stage::Greeting && says_nothing(first) {
            text.push_str("\n# The greeting names nothing.\n");
            continue;
        }
        let regex = expression(stage, first);
        let matches = super::rule::compile(&regex)
            .is_ok_and(|r| views.iter().all(|view| r.is_match(&view.masked)));
        if !matches {
            let _ = writeln!(text, "\n# {}: they do not answer alike.", stage.name());
            continue;
        }
        patterns += 1;
        // What is said of itself weighs more than a form; see docs/rules.md.
        let weight = if stage == Stage::Greeting { 17 } else { 10 };
        let example = example(first);
        let version = super::rule::compile(&regex).ok().and_then(|r| {
            let seen = View::new(stage, example.as_bytes());
            let found = r
                .captures(&seen.masked)?
                .name("version")?
                .as_bytes()
                .to_vec();
            let found = String::from_utf8_lossy(&found).into_owned();
            Some(super::rule::tidy(&found).to_owned())
        });
        let _ = write!(
            text,
            "\n[[product.pattern]]\non = \"{}\"\nregex = '''{regex}'''\nweight = {weight}\n\
             examples = [{{ text = {}",
            stage.name(),
            toml::Value::from(example)
        );
        if let Some(version) = version {
            let _ = write!(text, ", version = {}", toml::Value::from(version));
        }
        text.push_str(" }]\n");
    }
    if patterns == 0 {
        text.push_str("\n# They have nothing in common that a pattern could look for.\n");
    }
    text
}

/// Whether a greeting has no word of its own.
fn says_nothing(view: &View) -> bool {
    normalise(view)
        .to_lowercase()
        .split([' ', ';', ','])
        .all(|word| word.is_empty() || ANYBODYS.contains(&word))
}

/// An expression for a reply and those like it: what varies is left open, the first version is
/// captured.
fn expression(stage: Stage, view: &View) -> String {
    if stage == Stage::Ehlo && view.code() == Some(250) {
        let mut regex = String::from(r"^250 [^\n]*");
        for keyword in view.keywords() {
            let _ = write!(
                regex,
                r"\n{}(?:[ =][^\n]*)?",
                regex::escape(&String::from_utf8_lossy(keyword))
            );
        }
        return regex + "$";
    }
    let text = &view.masked;
    let code = if view.code().is_some() { 3 } else { 0 };
    let mut regex = format!("^{}", String::from_utf8_lossy(&text[..code]));
    let (mut at, mut versioned) = (code, false);
    for found in VARIABLE.captures_iter(&text[code..]) {
        let Some(whole) = found.get(0) else { continue };
        let (start, end) = (code + whole.start(), code + whole.end());
        let word = whole.as_bytes();
        if found.name("word").is_some() && !word.iter().any(u8::is_ascii_digit) {
            continue;
        }
        regex.push_str(&literal(&text[at..start]));
        let number = word.iter().all(|b| b.is_ascii_digit() || *b == b'.') && word.contains(&b'.');
        regex.push_str(match (found.name("date"), found.name("ip")) {
            (Some(_), _) => r"[^\n]*",
            (_, Some(_)) => r"\S+",
            _ if number && stage == Stage::Greeting && !versioned => {
                versioned = true;
                r"(?P<version>[0-9][0-9.]*)"
            }
            _ => r"[^\s;,]+",
        });
        at = end;
    }
    regex.push_str(&literal(&text[at..]));
    // What follows a date differs in form from host to host as well.
    if let Some(dated) = regex.strip_suffix(r"[^\n]*") {
        return dated.to_owned();
    }
    regex + "$"
}

/// Words as an expression that matches them. Octets that are no printable ASCII are left open.
fn literal(octets: &[u8]) -> String {
    let mut out = String::new();
    // A quote would end the string that the expression is written in.
    let odd = |b: &u8| !(b.is_ascii_graphic() || *b == b' ') || *b == b'\'';
    for run in octets.split_inclusive(odd) {
        let (text, last) = match run.split_last() {
            Some((b'\n', text)) => (text, r"\n"),
            Some((last, text)) if odd(last) => (text, "."),
            _ => (run, ""),
        };
        out.push_str(&regex::escape(&String::from_utf8_lossy(text)));
        out.push_str(last);
    }
    out
}

/// A reply as an example: nobody's host name in it, lines as on the wire.
fn example(view: &View) -> String {
    let text = String::from_utf8_lossy(&view.masked).replace("<host>", "mail.example.com");
    if view.code().is_none() {
        return text;
    }
    let (code, text) = text.split_at(3);
    let lines: Vec<_> = text.trim_start().split('\n').collect();
    let (last, before) = lines.split_last().unwrap_or((&"", &[]));
    let mut reply = String::new();
    for line in before {
        let _ = write!(reply, "{code}-{line}\r\n");
    }
    let _ = write!(reply, "{code} {last}");
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::RuleSet;

    fn server(host: &str, date: &str, version: &str) -> Replies {
        let mut said = Replies::default();
        said.set(
            Stage::Greeting,
            format!("220 {host} Zorp gateway (it's {version}) up; {date}\r\n").into_bytes(),
        );
        said.set(
            Stage::Ehlo,
            format!(
                "250-{host} hi\r\n250-SIZE {}\r\n250-XZORP\r\n250 HELP\r\n",
                version.len()
            )
            .into_bytes(),
        );
        said.set(Stage::Unknown, b"500 Zorp knows not XYZZY\r\n".to_vec());
        said.set(Stage::Quit, format!("221 {host} out\r\n").into_bytes());
        said
    }

    fn servers() -> [Replies; 2] {
        [
            server("a.example.org", "Thu, 30 Nov 2017 10:15:31 +0100", "3.2.1"),
            server("mx7.b.example", "Sun, 22 Nov 2026 21:42:53 -0800", "12.0"),
        ]
    }

    #[test]
    fn servers_of_one_kind_behave_alike() {
        let [one, two] = servers();
        assert_eq!(behaviour(&one), behaviour(&two));
        assert_eq!(
            behaviour(&one),
            "ehlo: SIZE XZORP HELP | unknown: 500 Zorp knows not XYZZY | quit: 221 <host> out"
        );
        assert_eq!(behaviour(&Replies::default()), "");
    }

    #[test]
    fn a_draft_is_a_rule_that_names_its_cluster() {
        let members = servers();
        let text = draft(&members);
        let rules =
            RuleSet::parse(&[("draft.toml", &text)]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let told: Vec<_> = rules.check().iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{}\n{text}", told.join("\n"));
        let verdict = rules.classify(&members[1].observation());
        assert_eq!(verdict.product.as_deref(), Some("NAME"));
        assert_eq!(verdict.version.as_deref(), Some("12.0"));
        assert_eq!(verdict.evidence.len(), 3, "{text}");
    }

    #[test]
    fn what_is_not_shared_is_left_out_and_said() {
        let [one, mut two] = servers();
        two.set(Stage::Greeting, b"220 mail.example.net ESMTP\r\n".to_vec());
        two.set(Stage::Unknown, Vec::new());
        let text = draft(&[two, one]);
        assert!(
            text.contains("# The greeting names nothing.") && text.contains("# unknown: only some")
        );
        assert!(draft(&[Replies::default()]).contains("nothing in common"));
    }

    proptest::proptest! {
        #[test]
        fn a_draft_can_always_be_read(greeting in "\\PC{0,60}", unknown in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let mut said = Replies::default();
            said.set(Stage::Greeting, format!("220 h.example {greeting}").into_bytes());
            said.set(Stage::Unknown, unknown);
            let text = draft(&[said]);
            if text.contains("[[product.pattern]]") {
                let read = RuleSet::parse(&[("draft.toml", &text)]);
                proptest::prop_assert!(read.is_ok(), "{:?}\n{}", read.err().map(|e| e.to_string()), text);
            }
        }
    }
}
