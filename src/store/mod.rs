//! The survey file: one SQLite database that holds all that a sweep learned.
//!
//! Why SQLite: one file that any tool reads while the sweep writes it (WAL), and a commit that
//! joins results and cursor, so a crash loses neither. Write-ahead log, `synchronous=NORMAL`: a
//! killed process loses nothing that was committed; a power cut may lose the last commits, but
//! never the file's consistency.
//!
//! Invariants:
//! - **No host is stored twice** (`hosts.addr` is UNIQUE); a batch is stored whole or not at all.
//! - **Bytes stay as they were on the wire**; verdicts of older rulesets are kept beside the
//!   current ones.
//! - A file is never overwritten: [`Survey::create`] makes a new one (mode 0600) or fails.
//! - What lies in a file proves nothing: reading gives plain fields, never a
//!   [`crate::probe::Responder`].
//!
//! One writer at a time; readers, other processes among them, never block it. Tables, columns
//! and units: docs/schema.md.

mod dialogue;
mod error;
pub mod export;
mod fields;
mod file;
mod read;
mod reclassify;
mod row;
mod schema;
mod summary;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
mod tls;
mod write;
mod zgrab;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};
use serde_json::Value;

use file::{Identity, connect, connect_immutable, create_private, examine, side_file, unopenable};

pub use error::StoreError;
pub use fields::{FIELDS, Field, Fields, Kind};
pub use reclassify::{Change, Changes};
pub use row::{HostRow, StoredHost};
pub use summary::{ClusterRow, ProductRow, Summary};
pub use tls::{TlsCount, TlsRow, TlsSummary};

/// Well-known keys of the `survey` table. Values are JSON; other keys may stand beside them.
pub mod key {
    /// Number: the ruleset whose verdicts count. Written by [`super::Survey::use_ruleset`] only.
    pub const CURRENT_RULESET: &str = "current_ruleset";
    /// Text: `running`, `complete`, `interrupted` or `failed`.
    pub const STATE: &str = "state";
    /// Text: version of the program that made the survey.
    pub const VERSION: &str = "version";
    /// Number: start of the sweep, unix µs.
    pub const STARTED_US: &str = "started_us";
    /// Number: the last commit of the running sweep, unix µs.
    pub const UPDATED_US: &str = "updated_us";
    /// Number: end of the sweep, unix µs.
    pub const ENDED_US: &str = "ended_us";
    /// List of texts: the targets as the user named them.
    pub const TARGETS: &str = "targets";
    /// Number: addresses in the space (this shard's), after the blocklist.
    pub const ADDRESSES: &str = "addresses";
    /// Number: packets/s asked for.
    pub const RATE: &str = "rate";
    /// Number: seed of the permutation.
    pub const SEED: &str = "seed";
    /// Text: `index/total`, counted from 0; absent without shards.
    pub const SHARD: &str = "shard";
    /// Number: commands said to a host, on the average of those to which any was said.
    pub const MEAN_COMMANDS: &str = "mean_commands";
    /// Text: the address the probes came from.
    pub const SOURCE: &str = "source";
}

/// The kinds and names of the `probe_counts` table that readers of ours rely on. Every count is a
/// total over the whole sweep.
pub mod count {
    /// What became of the space's addresses: [`SENT`], or `not_sent`.
    pub const PROBE: &str = "probe";
    /// First validated TCP reply of an address: [`SYN_ACK`], [`RST`]; [`SYN_ACK_LATER`]; and
    /// `none` for probes that nothing answered.
    pub const REPLY: &str = "reply";
    /// First validated reply of an address being an ICMP error, by the name of type and code.
    pub const ICMP: &str = "icmp";
    /// Validated ICMP messages that settle nothing about their address (quench, redirect).
    pub const ICMP_REMARK: &str = "icmp_remark";
    /// Further validated replies of an address that had replied before.
    pub const DUPLICATE: &str = "duplicate";
    /// Validated replies of addresses on the blocklist by then; never dialled.
    pub const BLOCKED: &str = "blocked";
    /// Ignored frames, by reason.
    pub const DROP: &str = "drop";

    /// The name where a kind has but one count.
    pub const ANY: &str = "any";
    /// Probes that the kernel took.
    pub const SENT: &str = "sent";
    /// SYN-ACK: a responder.
    pub const SYN_ACK: &str = "synack";
    /// SYN-ACK of an address that had answered RST or an ICMP error first: a responder too, but
    /// its probe is counted under that first answer.
    pub const SYN_ACK_LATER: &str = "synack_after_other";
    /// RST: port closed.
    pub const RST: &str = "rst";
}

/// What guards that rows name hosts that there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum References {
    /// Who writes them: a new survey's rows come with the host they belong to, in one transaction,
    /// and nothing is deleted. To look each of them up would be a fifth of the work.
    Given,
    /// SQLite.
    Checked,
}

/// An open survey file.
#[derive(Debug)]
pub struct Survey {
    path: PathBuf,
    conn: Connection,
    /// The file written to; `None` for a reader, which does not mind.
    file: Option<Identity>,
    /// Row of `rulesets` under which new hosts are judged.
    ruleset: Option<i64>,
}

impl Survey {
    /// Creates a survey file, readable and writable by its owner only, with that metadata. Its
    /// owner is the user who started the program, also where that was by way of sudo.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is anything at `path`, a dangling link included; else what
    /// the system refused. A file that could not be completed is removed again.
    pub fn create(path: impl AsRef<Path>, metadata: &[(&str, Value)]) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let file = create_private(path, file::invoker(|name| std::env::var(name).ok()))?;
        Self::lay_out(path, file, metadata).inspect_err(|_| {
            // The first error is the one to tell; the file is ours, and worth nothing.
            let _ = fs::remove_file(path);
        })
    }

    fn lay_out(
        path: &Path,
        file: Identity,
        metadata: &[(&str, Value)],
    ) -> Result<Self, StoreError> {
        let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut survey = Self {
            path: path.to_owned(),
            conn,
            file: Some(file),
            ruleset: None,
        };
        let failed = |e| StoreError::sql(path, "create", e);
        let mode: String = survey
            .conn
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(failed)?;
        if mode != "wal" {
            let source = std::io::Error::other("its file system does not support shared memory");
            return Err(StoreError::File {
                path: path.to_owned(),
                doing: "create",
                source,
            });
        }
        survey.tune_for_writing(References::Given)?;
        let tx = survey.conn.transaction().map_err(failed)?;
        tx.pragma_update(None, "application_id", schema::APPLICATION_ID)
            .map_err(failed)?;
        tx.pragma_update(None, "user_version", schema::VERSION)
            .map_err(failed)?;
        tx.execute_batch(schema::TABLES).map_err(failed)?;
        tx.execute_batch(schema::VIEWS).map_err(failed)?;
        tx.execute_batch(schema::SINCE_2).map_err(failed)?;
        tx.execute_batch(schema::TLS).map_err(failed)?;
        write::put_metadata(&tx, metadata).map_err(failed)?;
        tx.commit().map_err(failed)?;
        Ok(survey)
    }

    /// Opens an existing survey for reading and writing. What a killed writer had committed is
    /// there.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`Foreign`](StoreError::Foreign), [`Newer`](StoreError::Newer),
    /// [`Corrupt`](StoreError::Corrupt), or what the system refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        examine(path)?;
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let conn = connect(path, access)?;
        let mut survey = Self {
            path: path.to_owned(),
            conn,
            file: None,
            ruleset: None,
        }
        .verified()
        // The file itself is opened only now, with the first read.
        .map_err(|e| match e {
            StoreError::Sql { source, .. } => unopenable(path, access, source),
            other => other,
        })?;
        // SQLite falls back to reading, silently, where the file may not be written.
        if survey
            .conn
            .is_readonly("main")
            .map_err(|e| survey.failed("open", e))?
        {
            let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            return Err(StoreError::File {
                path: path.to_owned(),
                doing: "write to",
                source,
            });
        }
        survey.file = Some(Identity::of(path).map_err(|source| StoreError::File {
            path: path.to_owned(),
            doing: "open",
            source,
        })?);
        survey.tune_for_writing(References::Checked)?;
        survey.upgrade()?;
        Ok(survey)
    }

    /// Brings a file of an older version to ours: what came since is added, empty. Hosts that it holds
    /// already have their transcripts, from which all of it follows.
    fn upgrade(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let failed = |e| StoreError::sql(&path, "open", e);
        let found: i64 = self
            .conn
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        if found == schema::VERSION {
            return Ok(());
        }
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        tx.execute_batch(schema::SINCE_2).map_err(failed)?;
        tx.execute_batch(schema::TLS).map_err(failed)?;
        tx.pragma_update(None, "user_version", schema::VERSION)
            .map_err(failed)?;
        tx.commit().map_err(failed)
    }

    /// Opens an existing survey for reading only, while a sweep writes it or not.
    ///
    /// # Errors
    /// As [`Survey::open`].
    pub fn open_readonly(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        examine(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let survey = Self {
            path: path.to_owned(),
            conn: connect(path, flags)?,
            file: None,
            ruleset: None,
        }
        .verified();
        match survey {
            // A WAL database wants its side files even for reading. On read-only storage they
            // cannot be made; without a log there is no writer either, so read it as it lies.
            Err(StoreError::Sql { .. }) if !side_file(path, "-wal").exists() => {
                let conn = connect_immutable(path)?;
                Self {
                    path: path.to_owned(),
                    conn,
                    file: None,
                    ruleset: None,
                }
                .verified()
            }
            other => other,
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One value of the survey's metadata; see [`key`].
    ///
    /// # Errors
    /// If the database cannot be read, or the value is no JSON.
    pub fn meta(&self, key: &str) -> Result<Option<Value>, StoreError> {
        let text: Option<String> = self
            .conn
            .prepare_cached("SELECT value FROM survey WHERE key = ?1")
            .and_then(|mut s| s.query_row([key], |row| row.get(0)).optional())
            .map_err(|e| self.failed("read", e))?;
        text.map(|text| self.json(key, &text)).transpose()
    }

    /// All the metadata, by key.
    fn metadata(&self) -> Result<BTreeMap<String, Value>, StoreError> {
        let rows: Vec<(String, String)> = self
            .conn
            .prepare_cached("SELECT key, value FROM survey")
            .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
            .map_err(|e| self.failed("read", e))?;
        rows.into_iter()
            .map(|(key, text)| Ok((key.clone(), self.json(&key, &text)?)))
            .collect()
    }

    /// Moves the log into the file and closes it, so that the one file holds everything. A reader
    /// that is still at work keeps its log; nothing is lost then either.
    ///
    /// # Errors
    /// [`StoreError::Displaced`] if the path no longer leads to the file; else if what was
    /// committed could not be moved; it stays in the log.
    pub fn close(self) -> Result<(), StoreError> {
        self.in_place()?;
        let Self { path, conn, .. } = self;
        let failed = |e| StoreError::sql(&path, "close", e);
        checkpoint(&conn).map_err(failed)?;
        conn.close().map_err(|(_, e)| failed(e))
    }

    /// Checks that the path still leads to the file that is open: SQLite would go on writing to a
    /// deleted file without a word.
    fn in_place(&self) -> Result<(), StoreError> {
        let Some(file) = self.file else { return Ok(()) };
        match Identity::of(&self.path) {
            Ok(found) if found == file => Ok(()),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::File {
                path: self.path.clone(),
                doing: "find",
                source: e,
            }),
            _ => {
                // Its log does not follow a file that was moved; what can be saved goes into the
                // file. If that fails too, the error to tell is the same.
                let _ = checkpoint(&self.conn);
                Err(StoreError::Displaced {
                    path: self.path.clone(),
                })
            }
        }
    }

    /// Checks that this is a survey of a version we know.
    fn verified(mut self) -> Result<Self, StoreError> {
        let read = |name: &str| -> Result<i64, StoreError> {
            self.conn
                .pragma_query_value(None, name, |row| row.get(0))
                .map_err(|e| self.failed("open", e))
        };
        let path = || self.path.clone();
        if read("application_id")? != schema::APPLICATION_ID {
            let reason = "it is an SQLite database of another program".to_owned();
            return Err(StoreError::Foreign {
                path: path(),
                reason,
            });
        }
        let found = read("user_version")?;
        if found > schema::VERSION {
            return Err(StoreError::Newer {
                path: path(),
                found,
                known: schema::VERSION,
            });
        }
        if found < 1 {
            let reason = format!("its schema version is {found}");
            return Err(StoreError::Foreign {
                path: path(),
                reason,
            });
        }
        self.ruleset = self.current_ruleset()?;
        Ok(self)
    }

    /// The ruleset whose verdicts count now; a writer may have named another since we opened.
    fn current_ruleset(&self) -> Result<Option<i64>, StoreError> {
        Ok(self
            .meta(key::CURRENT_RULESET)?
            .as_ref()
            .and_then(Value::as_i64))
    }

    fn tune_for_writing(&self, references: References) -> Result<(), StoreError> {
        // A larger log before it is moved into the file: fewer fsyncs, and index pages that
        // change often are moved once. 16,384 pages are 64 MiB.
        self.conn
            .execute_batch(
                "PRAGMA synchronous = NORMAL;
                 PRAGMA wal_autocheckpoint = 16384;
                 PRAGMA journal_size_limit = 134217728;
                 PRAGMA cache_size = -65536;",
            )
            .and_then(|()| {
                let checked = references == References::Checked;
                self.conn.pragma_update(None, "foreign_keys", checked)
            })
            .map_err(|e| self.failed("open", e))
    }

    fn failed(&self, doing: &'static str, e: rusqlite::Error) -> StoreError {
        StoreError::sql(&self.path, doing, e)
    }

    fn json(&self, key: &str, text: &str) -> Result<Value, StoreError> {
        serde_json::from_str(text).map_err(|e| StoreError::Corrupt {
            path: self.path.clone(),
            reason: format!("survey.{key} is no JSON: {e}"),
        })
    }
}

/// Moves the log into the file. With a reader at work SQLite reports that as a value, not as an
/// error; the rest stays in the log then.
fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests;
