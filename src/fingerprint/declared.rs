//! Products that no rule knows but whose greeting names them plainly.
//!
//! `220 mx.example.com ESMTP FooMail 3.2 ready` says what it is. The words are taken where products
//! stand, next to `ESMTP` or `SMTP` and before a version, and only if they are no words that any
//! server may say of itself. Host names cannot be taken: the view has masked them.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// A name and a version that a greeting states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) version: Option<String>,
    /// The words they were taken from.
    pub(super) matched: String,
}

/// Words of a name at most; longer ones are sentences.
const MAX_WORDS: usize = 4;

/// A name, then a version, behind the protocol's name or before it; or a name that is written as
/// only products are, with a capital inside.
static FORMS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    let name = r"(?P<name>[A-Z][A-Za-z0-9+-]*(?: [A-Z][A-Za-z0-9+-]*){0,5})";
    let version = r"(?:[vV]|[vV]ersion |[vV]er\.? |[Rr]elease )?(?P<version>[0-9]+(?:\.[0-9]+)+[A-Za-z0-9.-]*)";
    let end = r"(?:[ ;,)\]\n]|$)";
    [
        format!(r"^220 (?:<host> )?E?SMTP (?:[Ss]erver |[Ss]ervice )?[(\[]?{name}[ /,-]\(?{version}{end}"),
        format!(r"^220 (?:<host> )?{name} {version} E?SMTP(?: |$)"),
        r"^220 (?:<host> )?E?SMTP (?P<name>[A-Z][a-z0-9]+(?:[A-Z]{1,4}[a-z0-9]*)+)(?: (?:ready|Ready|server|Server|service|Service)\b|;|$)"
            .into(),
    ]
    .map(|text| {
        RegexBuilder::new(&text)
            .unicode(false)
            .build()
            .expect("a constant expression; the tests of this module run it")
    })
});

/// Words that name no product: what servers, systems and dates are called.
const GENERIC: &[&str] = &[
    "a",
    "access",
    "agent",
    "and",
    "anti",
    "antispam",
    "antivirus",
    "apr",
    "aug",
    "authorized",
    "available",
    "banner",
    "build",
    "bulk",
    "centos",
    "cluster",
    "connection",
    "corp",
    "daemon",
    "debian",
    "dec",
    "delivery",
    "domain",
    "e",
    "e-mail",
    "email",
    "enterprise",
    "esmtp",
    "exchanger",
    "extended",
    "feb",
    "fedora",
    "filter",
    "filtering",
    "for",
    "fri",
    "from",
    "gateway",
    "gmt",
    "good",
    "hello",
    "hi",
    "host",
    "hub",
    "id",
    "inbound",
    "internet",
    "is",
    "jan",
    "jul",
    "jun",
    "linux",
    "local",
    "mail",
    "mailer",
    "mailgateway",
    "mailhost",
    "mailhub",
    "mailserver",
    "mar",
    "may",
    "message",
    "messaging",
    "mon",
    "mta",
    "mx",
    "my",
    "mycorp",
    "network",
    "no",
    "node",
    "nov",
    "oct",
    "on",
    "only",
    "our",
    "outbound",
    "please",
    "private",
    "protocol",
    "proxy",
    "public",
    "rc",
    "ready",
    "receiver",
    "redhat",
    "relay",
    "release",
    "rev",
    "revision",
    "rhel",
    "sat",
    "secure",
    "security",
    "sep",
    "server",
    "service",
    "services",
    "simple",
    "smtp",
    "smtpd",
    "software",
    "spam",
    "ssl",
    "starttls",
    "suite",
    "sun",
    "system",
    "systems",
    "test",
    "the",
    "this",
    "thu",
    "time",
    "tls",
    "to",
    "transfer",
    "tue",
    "ubuntu",
    "uce",
    "ube",
    "unit",
    "unix",
    "ver",
    "version",
    "virus",
    "wed",
    "welcome",
    "windows",
    "with",
    "you",
    "your",
];

/// What the masked view of a greeting calls its server.
pub(super) fn declared(masked: &[u8]) -> Option<Declared> {
    for form in FORMS.iter() {
        let Some(found) = form.captures(masked) else {
            continue;
        };
        let text = |name| {
            let value = found.name(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let Some(name) = text("name").and_then(|n| product_words(&n)) else {
            continue;
        };
        let whole = found.get(0).map_or(&b""[..], |m| m.as_bytes());
        return Some(Declared {
            name,
            version: text("version").map(|v| v.trim_end_matches(['.', '-']).to_owned()),
            matched: String::from_utf8_lossy(whole).trim_end().to_owned(),
        });
    }
    None
}

/// The words of a name, if the first is its own: "Foo Mail Server", not "Mail Server Foo".
fn product_words(name: &str) -> Option<String> {
    let generic = |word: &str| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        word.len() < 3 || GENERIC.contains(&word.to_ascii_lowercase().as_str())
    };
    let words: Vec<_> = name.split(' ').collect();
    if generic(words[0]) {
        return None;
    }
    let last = words.iter().rposition(|w| {
        !matches!(
            *w,
            "ESMTP" | "SMTP" | "Version" | "Ver" | "Release" | "Build"
        )
    })?;
    let kept = words.get(..=last)?;
    (kept.len() <= MAX_WORDS).then(|| kept.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::view::View;
    use crate::smtp::Stage;

    fn of(greeting: &str) -> Option<(String, Option<String>)> {
        let view = View::new(Stage::Greeting, greeting.as_bytes());
        declared(&view.masked).map(|d| (d.name, d.version))
    }

    fn named(name: &str, version: Option<&str>) -> Option<(String, Option<String>)> {
        Some((name.into(), version.map(Into::into)))
    }

    #[test]
    fn plain_names_are_taken_with_their_versions() {
        let version = Some("3.2");
        for text in [
            "220 mx.example.com ESMTP FooMail 3.2 ready\r\n",
            "220 mx ESMTP FooMail 3.2 ready\r\n",
            "220 mx.example.com ESMTP FooMail/3.2",
            "220 mx.example.com SMTP Server FooMail v3.2; Thu, 30 Nov 2017",
            "220 mx.example.com ESMTP (FooMail 3.2)",
            "220 mx.example.com FooMail 3.2 ESMTP ready",
        ] {
            assert_eq!(of(text), named("FooMail", version), "{text}");
        }
        assert_eq!(
            of("220 a.example ESMTP Foo Mail Server Version 3.2.1-beta ready"),
            named("Foo Mail Server", Some("3.2.1-beta"))
        );
        assert_eq!(of("220 a.example ESMTP FooMail"), named("FooMail", None));
    }

    #[test]
    fn general_words_and_host_names_name_nothing() {
        for text in [
            "220 postfix.example.com ESMTP",
            "220 FooMail.example.com ESMTP ready",
            "220 FOOMAIL ESMTP",
            "220 smtp ESMTP MailServer v1.0",
            "220 mail.example.com ESMTP Server (MyCorp 3.1)",
            "220 mail.example.com 2.0.0 ESMTP ready",
            "220 mail.example.com ESMTP Mail Server",
            "220 mail.example.com ESMTP Linux 5.4 ready",
            "220 mail.example.com ESMTP MX1 2.0",
            "220 mail.example.com ESMTP Thu, 30 Nov 2017 10:15:31 +0100",
            "220 mail.example.com ESMTP Debian 12.4",
            "554 5.7.1 Rejected by Foo 3.2 ESMTP",
            "220 Welcome to Foo Mail 3.2",
            "220 mail.example.com ESMTP NO SPAM HERE 1.0 IN ANY FORM AT ALL",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
