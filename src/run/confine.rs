//! What the process gives up once everything is open and before a frame of the sweep is parsed.
//!
//! Sockets, rings and the survey file are open by then; what follows needs little of what root may
//! do. So, in this order: another user where one is known, only the capabilities still needed, no
//! way to gain others (`no_new_privs`), no files but the survey's directory and no TCP connection
//! but to the probed port (Landlock), no system calls but those of a sweep (seccomp). Whoever
//! breaks a parser of ours is left with a process that can hardly do more than the sweep does.
//!
//! Threads inherit all this, so it is done before the sweep's threads start. Two threads may
//! run already: those of the `live` backend, which give up their capabilities before their first
//! frame and get the seccomp filter with all others, but no Landlock rules.

mod syscalls;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use caps::{CapSet, Capability};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};

use crate::config::User;
use crate::net::sys;

/// What a sweep goes on needing.
#[derive(Debug)]
pub(super) struct Needs {
    /// Capabilities that must stay.
    pub capabilities: Vec<Capability>,
    /// The survey file.
    pub survey: PathBuf,
    /// The TCP port to which sessions connect.
    pub port: u16,
    /// The user to become, if the command line names one.
    pub user: Option<User>,
}

/// The user who called sudo, out of the environment that sudo sets.
fn caller_of_sudo(variable: impl Fn(&str) -> Option<String>) -> Option<User> {
    let number = |name| variable(name)?.parse().ok();
    Some(User {
        uid: number("SUDO_UID")?,
        gid: number("SUDO_GID")?,
    })
}

/// Whether the owner and the mode of a directory let the user write in it.
fn may_write(user: User, owner: User, mode: u32) -> bool {
    let shift = if owner.uid == user.uid {
        6
    } else if owner.gid == user.gid {
        3
    } else {
        0
    };
    mode >> shift & 0o3 == 0o3
}

const ROOT: User = User { uid: 0, gid: 0 };

/// Gives up what the sweep does not need; says what holds from here on, for the metadata.
///
/// # Errors
/// The named user cannot be had, or the kernel refuses to take something away (which no kernel
/// does that has it). What the kernel does not have at all is named in the text instead.
pub(super) fn confine(needs: &Needs) -> anyhow::Result<String> {
    let mut holds = Vec::new();
    let directory = directory_of(&needs.survey);
    let mut keep: HashSet<_> = needs.capabilities.iter().copied().collect();
    let mut bounded = true;
    if sys::effective_uid() == 0 {
        let found = fs::metadata(&directory)
            .with_context(|| format!("cannot look at {}", directory.display()))?;
        let owner = User {
            uid: found.uid(),
            gid: found.gid(),
        };
        let writes = |user: &User| may_write(*user, owner, found.mode());
        let user = match needs.user {
            Some(user) if !writes(&user) => bail!(
                "--user: user {} may not write in {}, where the survey is kept",
                user.uid,
                directory.display()
            ),
            Some(user) => Some(user),
            None => caller_of_sudo(|name| std::env::var(name).ok()).filter(writes),
        };
        match user {
            Some(user) if user.uid != 0 => {
                give_files(&needs.survey, user)?;
                become_user(user)?;
                holds.push(format!("user {}", user.uid));
            }
            _ => {
                if !writes(&ROOT) {
                    keep.insert(Capability::CAP_DAC_OVERRIDE);
                }
                holds.push("user 0".to_owned());
            }
        }
    } else if let Some(user) = needs.user {
        bail!(
            "--user: only root can become user {}; this process is user {}",
            user.uid,
            sys::effective_uid()
        );
    } else {
        bounded = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
        holds.push(format!("user {}", sys::effective_uid()));
    }
    let kept = keep_only(&keep, bounded).context("cannot drop capabilities")?;
    holds.push(kept);
    sys::no_new_privileges().context("cannot set no_new_privs")?;
    holds.push("no_new_privs".to_owned());
    holds.push(landlock(&directory, needs.port).context("cannot restrict files (Landlock)")?);
    holds.push(syscalls::restrict().context("cannot restrict system calls (seccomp)")?);
    Ok(holds.join(", "))
}

/// The directory in which a file stands.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes the survey and its side files the user's.
fn give_files(survey: &Path, user: User) -> anyhow::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = OsString::from(survey);
        name.push(suffix);
        match chown(&name, Some(user.uid), Some(user.gid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let name = Path::new(&name).display();
                return Err(error)
                    .with_context(|| format!("cannot give {name} to user {}", user.uid));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Becomes the user and keeps the permitted capabilities over it, to choose from.
fn become_user(user: User) -> anyhow::Result<()> {
    caps::securebits::set_keepcaps(true).context("cannot keep capabilities (PR_SET_KEEPCAPS)")?;
    // What is taken from the bounding set cannot be done by another user any more.
    clear_bounding()?;
    sys::become_user(user.uid, user.gid)
        .with_context(|| format!("cannot become user {}", user.uid))?;
    caps::securebits::set_keepcaps(false).context("cannot end PR_SET_KEEPCAPS")
}

/// Has no program that is ever executed gain a capability.
fn clear_bounding() -> anyhow::Result<()> {
    for capability in caps::runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability)?;
    }
    Ok(())
}

/// Reduces this thread, and those it will start, to the capabilities in `keep` that it has.
fn keep_only(keep: &HashSet<Capability>, bounded: bool) -> anyhow::Result<String> {
    if bounded && caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        clear_bounding()?;
    }
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: HashSet<_> = had.intersection(keep).copied().collect();
    caps::clear(None, CapSet::Inheritable)?;
    // Effective first: it may not exceed what is permitted.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    let mut names: Vec<_> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(if names.is_empty() {
        "no capabilities".to_owned()
    } else {
        names.join(" ")
    })
}

/// The newest rules asked for; older kernels enforce what they know.
const LANDLOCK: ABI = ABI::V6;

/// Leaves of all files only the survey's directory to write to, and of TCP connections only those
/// to the probed port.
fn landlock(directory: &Path, port: u16) -> anyhow::Result<String> {
    // What the C library, SQLite and the substitute for a failed backend may want to look at.
    const READABLE: [&str; 4] = ["/proc", "/sys", "/dev/urandom", "/etc/localtime"];
    let read = AccessFs::from_read(LANDLOCK);
    let all = AccessFs::from_all(LANDLOCK);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::ConnectTcp)?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, read))?
        .add_rules(path_beneath_rules([directory], all & !AccessFs::Execute))?
        .add_rule(NetPort::new(port, AccessNet::ConnectTcp))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "Landlock",
        RulesetStatus::PartiallyEnforced => "Landlock (as far as this kernel has it)",
        RulesetStatus::NotEnforced => "no Landlock on this kernel",
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_names_who_called_it() {
        let set = |name: &str| match name {
            "SUDO_UID" => Some("1000".to_owned()),
            "SUDO_GID" => Some("100".to_owned()),
            _ => None,
        };
        let user = User {
            uid: 1000,
            gid: 100,
        };
        assert_eq!(caller_of_sudo(set), Some(user));
        assert_eq!(caller_of_sudo(|_| None), None);
        assert_eq!(caller_of_sudo(|_| Some("x".to_owned())), None);
    }

    #[test]
    fn who_may_write_in_a_directory() {
        let user = User {
            uid: 1000,
            gid: 100,
        };
        let owned = |uid, gid, mode| may_write(user, User { uid, gid }, mode);
        assert!(owned(1000, 0, 0o40700));
        assert!(!owned(1000, 0, 0o40577));
        assert!(owned(0, 100, 0o40770));
        assert!(!owned(0, 0, 0o40770));
        assert!(owned(0, 0, 0o41777));
    }

    #[test]
    fn a_bare_file_name_stands_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("survey.db")), Path::new("."));
        assert_eq!(directory_of(Path::new("/tmp/s.db")), Path::new("/tmp"));
    }
}
