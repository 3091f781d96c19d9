//! The name under which we introduce ourselves: a fully qualified domain name, checked.
//!
//! RFC 5321 section 4.1.1.1 wants the client's own FQDN after EHLO, or an address literal where it
//! has none. A literal tells an administrator little about who is calling, so it is only what is
//! left where no name was given ([`EhloName::Literal`]) and never taken for one. The syntax is
//! that of host names, RFC 1123 section 2.1: letters, digits and hyphens, labels of 1 to 63
//! octets, 255 at most in all. A parsed name goes into a command as it stands, so the check is
//! also what keeps a CR, LF or blank from ever splitting a command in two.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// A syntactically valid fully qualified host name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fqdn(Arc<str>);

/// What is said after EHLO and HELO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EhloName {
    /// A name, the way it should be.
    Name(Fqdn),
    /// The address we come from, for want of a name (RFC 5321 section 4.1.3).
    Literal(Ipv4Addr),
}

impl From<Fqdn> for EhloName {
    fn from(name: Fqdn) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for EhloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Literal(address) => write!(f, "[{address}]"),
        }
    }
}

/// Why a text is no fully qualified domain name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FqdnError {
    /// Nothing was given.
    #[error("an empty text is no host name")]
    Empty,
    /// More than 255 octets.
    #[error("host name of {0} octets: 255 is the most that DNS can hold")]
    TooLong(usize),
    /// A single label.
    #[error("host name {0:?} has no dot: give the full name, such as {0}.example.org")]
    SingleLabel(String),
    /// Two dots in a row, or a dot at either end.
    #[error("host name {0:?} has an empty label (a dot too many)")]
    EmptyLabel(String),
    /// A label of more than 63 octets.
    #[error("label {0:?} is longer than 63 octets")]
    LongLabel(String),
    /// A label begins or ends with a hyphen.
    #[error("label {0:?} begins or ends with a hyphen")]
    EdgeHyphen(String),
    /// Something else than a letter, a digit or a hyphen.
    #[error("label {label:?} holds {found:?}: only letters, digits and hyphens may stand there")]
    BadCharacter {
        /// The label at fault.
        label: String,
        /// The first character that may not stand there.
        found: char,
    },
    /// Digits only in the last label: an address, or a slip.
    #[error("{0:?} ends in a number: an address is no host name, give the name in DNS")]
    Numeric(String),
}

impl Fqdn {
    /// The name as text, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fqdn {
    type Err = FqdnError;

    fn from_str(text: &str) -> Result<Self, FqdnError> {
        if text.is_empty() {
            return Err(FqdnError::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(FqdnError::TooLong(text.len()));
        }
        for label in text.split('.') {
            check_label(label, text)?;
        }
        let Some((_, last)) = text.rsplit_once('.') else {
            return Err(FqdnError::SingleLabel(text.to_owned()));
        };
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(FqdnError::Numeric(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

fn check_label(label: &str, name: &str) -> Result<(), FqdnError> {
    if label.is_empty() {
        return Err(FqdnError::EmptyLabel(name.to_owned()));
    }
    if let Some(found) = label
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && *c != '-')
    {
        return Err(FqdnError::BadCharacter {
            label: label.to_owned(),
            found,
        });
    }
    if label.len() > MAX_LABEL {
        return Err(FqdnError::LongLabel(label.to_owned()));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(FqdnError::EdgeHyphen(label.to_owned()));
    }
    Ok(())
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fqdn({})", self.0)
    }
}

const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> FqdnError {
        text.parse::<Fqdn>().expect_err(text)
    }

    #[test]
    fn ordinary_names_pass() {
        for name in [
            "a.b",
            "probe.example.org",
            "xn--bcher-kva.example",
            "3com.example",
            "A-1.b-2.C3",
        ] {
            assert_eq!(name.parse::<Fqdn>().expect(name).to_string(), name);
        }
    }

    #[test]
    fn each_fault_is_named() {
        let text = |s: &str| s.to_owned();
        assert_eq!(refusal(""), FqdnError::Empty);
        assert_eq!(
            refusal("localhost"),
            FqdnError::SingleLabel(text("localhost"))
        );
        assert_eq!(refusal("a..b"), FqdnError::EmptyLabel(text("a..b")));
        assert_eq!(refusal(".a.b"), FqdnError::EmptyLabel(text(".a.b")));
        assert_eq!(refusal("a.b."), FqdnError::EmptyLabel(text("a.b.")));
        assert_eq!(refusal("-a.b"), FqdnError::EdgeHyphen(text("-a")));
        assert_eq!(refusal("a.b-"), FqdnError::EdgeHyphen(text("b-")));
        assert_eq!(refusal("192.0.2.1"), FqdnError::Numeric(text("192.0.2.1")));
        assert_eq!(refusal("host.123"), FqdnError::Numeric(text("host.123")));
        assert!(matches!(
            refusal("[192.0.2.1]"),
            FqdnError::BadCharacter { found: '[', .. }
        ));
        assert!(matches!(
            refusal("a_b.example"),
            FqdnError::BadCharacter { found: '_', .. }
        ));
        assert!(matches!(
            refusal("a.b\r\nMAIL"),
            FqdnError::BadCharacter { found: '\r', .. }
        ));
        assert!(matches!(
            refusal("bücher.example"),
            FqdnError::BadCharacter { found: 'ü', .. }
        ));
    }

    #[test]
    fn lengths_are_exact() {
        let label = "x".repeat(63);
        assert!(format!("{label}.example").parse::<Fqdn>().is_ok());
        assert!(matches!(
            refusal(&format!("x{label}.example")),
            FqdnError::LongLabel(_)
        ));
        let name = format!("{label}.{label}.{label}.{label}"); // 4 * 63 + 3 = 255
        assert!(name.parse::<Fqdn>().is_ok());
        assert_eq!(refusal(&format!("a.{name}")), FqdnError::TooLong(257));
    }

    proptest! {
        #[test]
        fn whatever_passes_is_one_word_of_host_name_octets(text in "\\PC{0,40}|[a-z.\\-0-9\r\n ]{0,40}") {
            if let Ok(name) = text.parse::<Fqdn>() {
                prop_assert_eq!(name.as_str(), text.as_str());
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
                prop_assert!(text.contains('.'));
            }
        }
    }
}
