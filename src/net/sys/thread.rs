//! What std lacks for threads: which CPU they run on, and waking them from a system call.

use std::io;
use std::sync::Once;

/// A thread that [`interrupt`] can reach while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct ThreadId(libc::pid_t);

/// The calling thread. From the first call on, [`WAKE`] does nothing in this process but interrupt
/// system calls.
pub(in crate::net) fn this_thread() -> ThreadId {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: sigaction is plain integers and pointers, for which all zeros is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int) = ignore;
        action.sa_sigaction = handler as *const () as usize;
        // SAFETY: the action is live and its handler does nothing, which is safe at any moment.
        // Without SA_RESTART, as interrupting is the purpose.
        unsafe { libc::sigaction(WAKE, &raw const action, std::ptr::null_mut()) };
    });
    // SAFETY: gettid has no arguments, touches no memory and cannot fail.
    ThreadId(unsafe { libc::gettid() })
}

extern "C" fn ignore(_: libc::c_int) {}

/// Interrupts the system call `thread` is in, if any. The caller knows that the thread has not
/// ended; of another process's thread it can be none, since the process is named too.
pub(in crate::net) fn interrupt(thread: ThreadId) {
    // SAFETY: tgkill touches no memory; the signal has a handler that does nothing (see
    // `this_thread`, the only source of a `ThreadId`).
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread.0, WAKE) };
}

/// The CPUs that the calling thread may run on, ascending.
///
/// # Errors
/// What `sched_getaffinity(2)` reports.
pub fn allowed_cpus() -> io::Result<Vec<u32>> {
    // SAFETY: cpu_set_t is an array of integers, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set of the length given, which the call fills.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if status == -1 {
        return Err(io::Error::last_os_error());
    }
    let most = u32::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    Ok((0..most)
        // SAFETY: the set is live and the number below its size.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu as usize, &set) })
        .collect())
}

/// Keeps the calling thread on `cpu` from now on.
///
/// # Errors
/// What `sched_setaffinity(2)` reports: no such CPU, or not allowed here.
pub fn pin_to_cpu(cpu: u32) -> io::Result<()> {
    // SAFETY: cpu_set_t is an array of integers, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let at = cpu as usize;
    if at >= size_of_val(&set) * 8 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the set is live and the number below its size, as just checked.
    unsafe { libc::CPU_SET(at, &mut set) };
    // SAFETY: the pointer is to a live set of the length given, which the call only reads.
    let status = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if status == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The signal that wakes: ignored by default and of no use to us otherwise, as no socket here asks
/// for news of urgent data.
const WAKE: libc::c_int = libc::SIGURG;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_sleeping_thread_is_woken() {
        let (tell, told) = mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            tell.send(this_thread()).unwrap();
            // SAFETY: pause has no arguments and touches no memory.
            unsafe { libc::pause() };
            io::Error::last_os_error().raw_os_error()
        });
        let thread = told.recv().unwrap();
        while !sleeper.is_finished() {
            interrupt(thread);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sleeper.join().unwrap(), Some(libc::EINTR));
    }

    #[test]
    fn a_pinned_thread_may_run_on_one_cpu() {
        std::thread::spawn(|| {
            let all = allowed_cpus().unwrap();
            let last = *all.last().unwrap();
            pin_to_cpu(last).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [last]);
            assert!(pin_to_cpu(1 << 20).is_err());
        })
        .join()
        .unwrap();
    }
}
