//! The file as the system sees it: making it, opening it, telling it from another.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Which file a path leads to, whatever it is called: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The file to which the path leads now. The file is not opened: closing it again would
    /// release the locks that a connection of this process holds on it.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::from(&meta))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
        }
    }
}

/// A user and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

/// The user who called sudo, out of the environment that sudo sets.
pub(super) fn invoker(variable: impl Fn(&str) -> Option<String>) -> Option<Owner> {
    let number = |name| variable(name)?.parse().ok();
    Some(Owner {
        uid: number("SUDO_UID")?,
        gid: number("SUDO_GID")?,
    })
}

/// Makes an empty file that only its owner may read and write. Made by root on behalf of
/// `invoker`, it becomes that user's; SQLite gives its side files the same owner.
pub(super) fn create_private(path: &Path, invoker: Option<Owner>) -> Result<Identity, StoreError> {
    let failed = |e: io::Error| {
        let path = path.to_owned();
        match e.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists { path },
            io::ErrorKind::StorageFull => StoreError::Full { path },
            _ => StoreError::File {
                path,
                doing: "create",
                source: e,
            },
        }
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if let Some(Owner { uid, gid }) = invoker.filter(|_| meta.uid() == 0) {
        // File systems without owners refuse; the survey is root's then, and as good.
        let _ = fchown(&file, Some(uid), Some(gid));
    }
    Ok(Identity::from(&meta))
}

/// Turns away what SQLite would misreport: what is not there, no file, or still empty.
pub(super) fn examine(path: &Path) -> Result<(), StoreError> {
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => StoreError::Missing {
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

pub(super) fn connect(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
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
pub(super) fn unopenable(path: &Path, access: OpenFlags, e: rusqlite::Error) -> StoreError {
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

pub(super) fn connect_immutable(path: &Path) -> Result<Connection, StoreError> {
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
pub(super) fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
