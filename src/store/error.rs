//! What can go wrong with a survey file, told so that the user knows what to do.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

use super::text::escape_short;

/// An operation on a survey file failed. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file to be created is already there; nothing of it was touched.
    #[error("{} exists already; name another file with -o, or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file to be opened is not there.
    #[error("{}: no such survey file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be created, opened or removed.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried: "create", "open", …
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is something else than a survey.
    #[error("{} is not a survey file of smtpsweep: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// The file was written by a later version of this program.
    #[error(
        "{} has schema version {found}, this smtpsweep knows versions up to {known}; \
         use a newer smtpsweep",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
        /// The latest version known here.
        known: i64,
    },
    /// The file is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where or how.
        reason: String,
    },
    /// The file is a survey's, but parts of what every survey has are not there.
    #[error("{} is damaged: a survey's tables are not all there ({reason})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is missing, in the database's words.
        reason: String,
    },
    /// The path no longer leads to the file that was being written.
    #[error(
        "{} was moved, replaced or deleted while smtpsweep wrote to it; what was stored is in the \
         file that was there, if that still exists",
        path.display()
    )]
    Displaced {
        /// The path.
        path: PathBuf,
    },
    /// The disk (or the quota) is full. What was committed before is safe in the file.
    #[error("no space left for {}; all that was committed before is kept", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another process has held the file's write lock for longer than we wait (5 s). Nothing has
    /// changed, and the same may be tried again.
    #[error("{} is being written by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A host is already in the survey. The whole batch was rolled back.
    #[error("{}: host {addr} is stored already", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The host's address.
        addr: Ipv4Addr,
    },
    /// Hosts were to be stored before [`super::Survey::use_ruleset`] said who judged them.
    #[error("{}: no ruleset is registered, so verdicts have no author", path.display())]
    NoRuleset {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure of the database.
    #[error("cannot {doing} {}: {source}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The database's reason.
        source: rusqlite::Error,
    },
    /// Exported rows could not be written out.
    #[error("cannot write the exported rows: {0}")]
    Output(#[source] io::Error),
    /// A requested output field is not one of ours.
    #[error("no output field is called \"{name}\"; there are: {known}")]
    UnknownField {
        /// What was asked for.
        name: String,
        /// All names, separated by commas.
        known: String,
    },
}

impl StoreError {
    /// Whether another process was writing to the file. Nothing of what was to be stored is there
    /// then, and it can be stored by trying again.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// Sorts a database error into the kinds above. `doing` completes "cannot … FILE".
    pub(crate) fn sql(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let rusqlite::Error::SqliteFailure(failure, text) = &source else {
            return Self::odd_value(path, doing, source);
        };
        // It may quote names out of a file that anybody wrote.
        let reason = || match text {
            Some(text) => one_line(text),
            None => failure.to_string(),
        };
        match failure.code {
            ErrorCode::DiskFull => Self::Full { path },
            // The shared-memory file beside a WAL database could not grow: a full file system.
            _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::Full { path },
            ErrorCode::NotADatabase => Self::Foreign {
                path,
                reason: "it is not an SQLite database".to_owned(),
            },
            ErrorCode::DatabaseCorrupt => Self::Corrupt {
                path,
                reason: reason(),
            },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy { path },
            // SQL that the database does not understand. All of it is ours, so it is the tables
            // that are not as they should be.
            _ if failure.extended_code == ffi::SQLITE_ERROR => Self::Damaged {
                path,
                reason: reason(),
            },
            _ => Self::Sql {
                path,
                doing,
                source,
            },
        }
    }

    /// A value that no writer of ours stores, or a table that lacks a column, means a damaged
    /// file.
    fn odd_value(path: PathBuf, doing: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match source {
            E::SqlInputError { msg, .. } => Self::Damaged {
                path,
                reason: one_line(&msg),
            },
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::Utf8Error(..)
            | E::InvalidColumnType(..) => Self::Corrupt {
                path,
                reason: source.to_string(),
            },
            _ => Self::Sql {
                path,
                doing,
                source,
            },
        }
    }
}

/// The database's words as one line of a message.
fn one_line(text: &str) -> String {
    escape_short(text.as_bytes(), 200)
}
