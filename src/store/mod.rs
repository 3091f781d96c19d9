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

mod error;
pub mod export;
mod fields;
mod read;
mod reclassify;
mod row;
pub mod schema;
mod summary;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
mod write;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde_json::Value;

pub use error::StoreError;
pub use fields::{FIELDS, Field, Fields, Kind};
pub use reclassify::{Change, Changes};
pub use row::{HostRow, StoredHost};
pub use summary::{ClusterRow, ProductRow, Summary};

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
    /// Text: the address the probes came from.
    pub const SOURCE: &str = "source";
}

/// The kinds and names of the `probe_counts` table that readers of ours rely on. Every count is a
/// total over the whole sweep.
pub mod count {
    /// What was sent: [`SENT`], [`SEND_FAILED`].
    pub const PROBE: &str = "probe";
    /// First validated TCP reply of an address: [`SYN_ACK`], [`RST`]; and [`SYN_ACK_LATER`].
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

    /// Probes that the kernel took.
    pub const SENT: &str = "sent";
    /// Attempts that the kernel refused.
    pub const SEND_FAILED: &str = "send_failed";
    /// SYN-ACK: a responder.
    pub const SYN_ACK: &str = "synack";
    /// SYN-ACK of an address that had answered RST or an ICMP error first: a responder too, but
    /// its probe is counted under that first answer.
    pub const SYN_ACK_LATER: &str = "synack_after_other";
    /// RST: port closed.
    pub const RST: &str = "rst";
}

/// An open survey file.
#[derive(Debug)]
pub struct Survey {
    path: PathBuf,
    conn: Connection,
    /// Row of `rulesets` under which new hosts are judged.
    ruleset: Option<i64>,
}

impl Survey {
    /// Creates a survey file, readable and writable by its owner only, with that metadata.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is anything at `path`, a dangling link included; else what
    /// the system refused. A file that could not be completed is removed again.
    pub fn create(path: impl AsRef<Path>, metadata: &[(&str, Value)]) -> Result<Self, StoreError> {
        let path = path.as_ref();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| {
                let path = path.to_owned();
                match e.kind() {
                    std::io::ErrorKind::AlreadyExists => StoreError::Exists { path },
                    std::io::ErrorKind::StorageFull => StoreError::Full { path },
                    _ => StoreError::File {
                        path,
                        doing: "create",
                        source: e,
                    },
                }
            })?;
        Self::lay_out(path, metadata).inspect_err(|_| {
            // The first error is the one to tell; the file is ours, and worth nothing.
            let _ = fs::remove_file(path);
        })
    }

    fn lay_out(path: &Path, metadata: &[(&str, Value)]) -> Result<Self, StoreError> {
        let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut survey = Self {
            path: path.to_owned(),
            conn,
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
        survey.tune_for_writing()?;
        let tx = survey.conn.transaction().map_err(failed)?;
        tx.pragma_update(None, "application_id", schema::APPLICATION_ID)
            .map_err(failed)?;
        tx.pragma_update(None, "user_version", schema::VERSION)
            .map_err(failed)?;
        tx.execute_batch(schema::TABLES).map_err(failed)?;
        tx.execute_batch(schema::VIEWS).map_err(failed)?;
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
        let survey = Self {
            path: path.to_owned(),
            conn,
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
        survey.tune_for_writing()?;
        Ok(survey)
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
    ///
    /// # Errors
    /// As [`Survey::meta`].
    pub fn metadata(&self) -> Result<BTreeMap<String, Value>, StoreError> {
        let rows: Vec<(String, String)> = self
            .conn
            .prepare_cached("SELECT key, value FROM survey")
            .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
            .map_err(|e| self.failed("read", e))?;
        rows.into_iter()
            .map(|(key, text)| Ok((key.clone(), self.json(&key, &text)?)))
            .collect()
    }

    /// Reads every page and every index entry, and reports the first damage found. Takes time
    /// in proportion to the file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with what was found, or what kept the check from running.
    pub fn check(&self) -> Result<(), StoreError> {
        let found: String = self
            .conn
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|e| self.failed("check", e))?;
        if found == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            path: self.path.clone(),
            reason: found,
        })
    }

    /// Moves the log into the file and closes it, so that the one file holds everything. A reader
    /// that is still at work keeps its log; nothing is lost then either.
    ///
    /// # Errors
    /// If what was committed could not be moved; it stays in the log.
    pub fn close(self) -> Result<(), StoreError> {
        let Self { path, conn, .. } = self;
        let failed = |e| StoreError::sql(&path, "close", e);
        // With a reader at work this reports busy as a value, not as an error.
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(failed)?;
        conn.close().map_err(|(_, e)| failed(e))
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

    fn tune_for_writing(&self) -> Result<(), StoreError> {
        // A larger log before it is moved into the file: fewer fsyncs, and index pages that
        // change often are moved once. 16,384 pages are 64 MiB.
        self.conn
            .execute_batch(
                "PRAGMA synchronous = NORMAL;
                 PRAGMA foreign_keys = ON;
                 PRAGMA wal_autocheckpoint = 16384;
                 PRAGMA journal_size_limit = 134217728;
                 PRAGMA cache_size = -65536;",
            )
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

/// Turns away what SQLite would misreport: what is not there, no file, or still empty.
fn examine(path: &Path) -> Result<(), StoreError> {
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => StoreError::Missing {
            path: path.to_owned(),
        },
        _ => StoreError::File {
            path: path.to_owned(),
            doing: "open",
            source: e,
        },
    })?;
    // The file is not opened here to try its permissions: closing it again would release the
    // locks that a connection of this process holds on it (POSIX locks belong to the process).
    let reason = if !meta.is_file() {
        "it is no regular file"
    } else if meta.len() == 0 && !side_file(path, "-wal").exists() {
        "it is empty"
    } else if meta.len() < 512 && !side_file(path, "-wal").exists() {
        "it is too short for a database"
    } else {
        return Ok(());
    };
    Err(StoreError::Foreign {
        path: path.to_owned(),
        reason: reason.to_owned(),
    })
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let failed = |e| StoreError::sql(path, "open", e);
    // No SQLITE_OPEN_URI: a file may well be called "file:x?mode=memory". A leading "./" keeps
    // the names that SQLite itself gives a meaning (":memory:", "") from having one.
    let plain = if path.is_absolute() {
        path.to_owned()
    } else {
        Path::new(".").join(path)
    };
    let conn = Connection::open_with_flags(plain, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| unopenable(path, access, e))?;
    prepare(&conn).map_err(failed)?;
    Ok(conn)
}

/// SQLite says only that it could not open a file; the system knows why.
fn unopenable(path: &Path, access: OpenFlags, e: rusqlite::Error) -> StoreError {
    let write = access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
    match OpenOptions::new().read(true).write(write).open(path) {
        Err(source) => StoreError::File {
            path: path.to_owned(),
            doing: "open",
            source,
        },
        Ok(_) => StoreError::sql(path, "open", e),
    }
}

fn connect_immutable(path: &Path) -> Result<Connection, StoreError> {
    let failed = |e| StoreError::sql(path, "open", e);
    let absolute = std::path::absolute(path).map_err(|e| StoreError::File {
        path: path.to_owned(),
        doing: "open",
        source: e,
    })?;
    let mut uri = "file:".to_owned();
    for &octet in absolute.as_os_str().as_bytes() {
        if octet.is_ascii_alphanumeric() || b"/-_.".contains(&octet) {
            uri.push(char::from(octet));
        } else {
            uri.push_str(&format!("%{octet:02X}"));
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri, flags).map_err(failed)?;
    prepare(&conn).map_err(failed)?;
    Ok(conn)
}

/// A survey may come from anybody: its schema gets no say beyond plain SQL.
fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The name of a file that SQLite keeps beside the database.
fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
