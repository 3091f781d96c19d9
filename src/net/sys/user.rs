//! Becoming another user for good, and giving up the ways back.

use std::io;

/// Becomes that user and group in every thread of the process, without supplementary groups.
/// Capabilities of threads that did not ask to keep theirs (`PR_SET_KEEPCAPS`) are gone with it,
/// if the user was root (capabilities(7)).
///
/// # Errors
/// Without CAP_SETUID and CAP_SETGID, or if the user has too many processes already.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: a count of zero: no pointer is read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: three numbers, no memory. The C library changes all threads (nptl(7)).
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

/// From here on nothing that this thread, or those it starts, executes gains privileges
/// (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// On kernels before 3.5.
pub fn no_new_privileges() -> io::Result<()> {
    const ON: libc::c_ulong = 1;
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: this request takes numbers and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ON, UNUSED, UNUSED, UNUSED) })
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
