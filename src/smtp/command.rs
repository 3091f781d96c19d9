//! All that we may say to a server. The enum is closed on purpose: there is no variant for MAIL,
//! RCPT, DATA, AUTH, VRFY or EXPN, so a session that sends one does not compile.

use std::fmt;

use super::{Contact, EhloName, Stage};

/// A command of ours (RFC 5321 section 4.1.1, RFC 3207).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Introduces us and asks for the list of extensions.
    Ehlo(EhloName),
    /// Introduces us to a server that refused EHLO.
    Helo(EhloName),
    /// Asks for nothing, and tells whom to turn to.
    Noop(Option<Contact>),
    /// Asks what the server has to say about itself.
    Help,
    /// A verb that no server knows; who logs it sees whom to turn to.
    Unknown(Option<Contact>),
    /// A NOOP with an octet of zero behind it, which no command may hold.
    Nul,
    /// HELO without the argument that it needs.
    HeloNoarg,
    /// A verb longer than any command line may be.
    Overlong,
    /// Asks for TLS.
    StartTls,
    /// Says goodbye.
    Quit,
}

impl Command {
    /// The octets on the wire, CR LF included.
    pub fn bytes(&self) -> Vec<u8> {
        format!("{self}\r\n").into_bytes()
    }

    /// The step of the dialogue that this command opens. (EHLO within TLS opens
    /// [`Stage::TlsEhlo`].)
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Ehlo(_) => Stage::Ehlo,
            Self::Helo(_) => Stage::Helo,
            Self::Noop(_) => Stage::Noop,
            Self::Help => Stage::Help,
            Self::Unknown(_) => Stage::Unknown,
            Self::Nul => Stage::Nul,
            Self::HeloNoarg => Stage::HeloNoarg,
            Self::Overlong => Stage::Overlong,
            Self::StartTls => Stage::Starttls,
            Self::Quit => Stage::Quit,
        }
    }
}

/// The command line without its line end.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ehlo(name) => write!(f, "EHLO {name}"),
            Self::Helo(name) => write!(f, "HELO {name}"),
            Self::Noop(None) => f.write_str("NOOP"),
            Self::Noop(Some(contact)) => write!(f, "NOOP {contact}"),
            Self::Help => f.write_str("HELP"),
            Self::Unknown(None) => f.write_str(UNKNOWN),
            Self::Unknown(Some(contact)) => write!(f, "{UNKNOWN} {contact}"),
            Self::Nul => f.write_str("NOOP \0"),
            Self::HeloNoarg => f.write_str("HELO"),
            Self::Overlong => (0..OVERLONG).try_for_each(|_| f.write_str("X")),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::Quit => f.write_str("QUIT"),
        }
    }
}

/// A word that no extension has taken.
const UNKNOWN: &str = "XYZZY";

/// Octets of the overlong verb: RFC 5321 section 4.5.3.1.4 allows a command line 512.
const OVERLONG: usize = 598;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Fqdn;

    #[test]
    fn each_command_is_one_line() {
        let name: Fqdn = "probe.example.org".parse().expect("a valid name");
        let name = EhloName::from(name);
        let contact: Contact = "abuse@example.org".parse().expect("a valid contact");
        let commands = [
            Command::Ehlo(name.clone()),
            Command::Helo(name),
            Command::Noop(None),
            Command::Noop(Some(contact.clone())),
            Command::Help,
            Command::Unknown(None),
            Command::Unknown(Some(contact)),
            Command::Nul,
            Command::HeloNoarg,
            Command::StartTls,
            Command::Quit,
        ];
        let wire = [
            "EHLO probe.example.org\r\n",
            "HELO probe.example.org\r\n",
            "NOOP\r\n",
            "NOOP abuse@example.org\r\n",
            "HELP\r\n",
            "XYZZY\r\n",
            "XYZZY abuse@example.org\r\n",
            "NOOP \0\r\n",
            "HELO\r\n",
            "STARTTLS\r\n",
            "QUIT\r\n",
        ];
        for (command, expected) in commands.iter().zip(wire) {
            assert_eq!(command.bytes(), expected.as_bytes());
        }
        let overlong = Command::Overlong.bytes();
        assert!(overlong.len() > 512 && overlong.ends_with(b"XX\r\n"));
        assert_eq!(overlong.iter().filter(|b| **b == b'\n').count(), 1);
    }
}
