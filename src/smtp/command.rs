//! All that we may say to a server. The enum is closed on purpose: there is no variant for MAIL,
//! RCPT, DATA, AUTH, VRFY or EXPN, so a session that sends one does not compile.

use std::fmt;

use super::{EhloName, Stage};

/// A command of ours (RFC 5321 section 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Introduces us and asks for the list of extensions.
    Ehlo(EhloName),
    /// Introduces us to a server that refused EHLO.
    Helo(EhloName),
    /// Says goodbye.
    Quit,
}

impl Command {
    /// The octets on the wire, CR LF included.
    pub fn bytes(&self) -> Vec<u8> {
        format!("{self}\r\n").into_bytes()
    }

    /// The step of the dialogue that this command opens.
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Ehlo(_) => Stage::Ehlo,
            Self::Helo(_) => Stage::Helo,
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
            Self::Quit => f.write_str("QUIT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Fqdn;

    #[test]
    fn each_command_is_one_line() {
        let name: Fqdn = "probe.example.org".parse().expect("a valid name");
        let name = EhloName::from(name);
        let commands = [
            Command::Ehlo(name.clone()),
            Command::Helo(name),
            Command::Quit,
        ];
        let wire = [
            "EHLO probe.example.org\r\n",
            "HELO probe.example.org\r\n",
            "QUIT\r\n",
        ];
        for (command, expected) in commands.iter().zip(wire) {
            assert_eq!(command.bytes(), expected.as_bytes());
        }
    }
}
