//! Whom an administrator turns to who wonders about us: a mail address or a web page, checked.
//!
//! It is said as the text of a NOOP (RFC 5321 section 4.1.1.9 allows one), so it must stay one word
//! on one line: the check is also what keeps a CR, LF or blank from splitting a command in two.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::{Fqdn, FqdnError};

/// A mail address (`abuse@example.org`) or the address of a web page. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Contact(Arc<str>);

/// Why a text is no contact.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContactError {
    /// Neither `name@domain` nor `http(s)://…`.
    #[error("give a mail address (abuse@example.org) or a web page (https://example.org/survey)")]
    Neither,
    /// More than a command line has room for.
    #[error("it has {0} octets, and a NOOP has room for {MAX_CONTACT}")]
    TooLong(usize),
    /// Not an octet of a mail address or URL.
    #[error("it holds {0:?}: printable ASCII without blanks is all that a command may carry")]
    BadCharacter(char),
    /// What stands for a domain is none.
    #[error("{0}")]
    Domain(#[from] FqdnError),
}

impl Contact {
    /// The contact as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Contact {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        if text.len() > MAX_CONTACT {
            return Err(ContactError::TooLong(text.len()));
        }
        if let Some(found) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(ContactError::BadCharacter(found));
        }
        let page = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let domain = match (page, text.rsplit_once('@')) {
            (Some(page), _) => {
                let host = page.split(['/', '?', '#']).next().unwrap_or(page);
                host.split_once(':').map_or(host, |(host, _port)| host)
            }
            (None, Some((local, domain))) if !local.is_empty() && !local.contains('@') => domain,
            _ => return Err(ContactError::Neither),
        };
        domain.parse::<Fqdn>()?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 5321 section 4.5.3.1.4 allows a command line 512 octets; old servers have less room.
const MAX_CONTACT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_pages_are_contacts() {
        for text in [
            "abuse@example.org",
            "first.last+survey@mail.example.org",
            "https://survey.example.org/",
            "http://example.org:8080/why?x=1#you",
            "https://example.org",
        ] {
            let contact: Contact = text.parse().expect(text);
            assert_eq!(contact.as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "give a mail address"),
            ("abuse", "give a mail address"),
            ("@example.org", "give a mail address"),
            ("a@b@example.org", "give a mail address"),
            ("ftp://example.org", "give a mail address"),
            ("abuse@localhost", "no dot"),
            ("https://localhost/x", "no dot"),
            ("https://", "empty"),
            ("abuse@example.org\r\nMAIL FROM:<>", "'\\r'"),
            ("call me@example.org", "' '"),
            ("abusé@example.org", "'é'"),
        ] {
            let error = text.parse::<Contact>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = format!("{}@example.org", "x".repeat(200));
        assert_eq!(long.parse::<Contact>(), Err(ContactError::TooLong(212)));
    }
}
