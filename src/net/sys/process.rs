//! What this process is and may do: user, capabilities, descriptor limit.

use std::io;

/// A Linux capability that a sweep can want (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Packet and raw sockets.
    NetRaw,
    /// Interface configuration, larger socket buffers, connection adoption.
    NetAdmin,
    /// Loading eBPF programs.
    Bpf,
    /// Exceeding resource limits.
    SysResource,
}

impl Capability {
    /// Its name as `setcap` takes it, in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetRaw => "CAP_NET_RAW",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Bpf => "CAP_BPF",
            Self::SysResource => "CAP_SYS_RESOURCE",
        }
    }

    /// Its bit in the kernel's masks.
    const fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::NetRaw => 13,
            Self::SysResource => 24,
            Self::Bpf => 39,
        }
    }
}

/// The user whose rights this process has; 0 is root.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid has no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// Lets the calling thread's sleeps end within a microsecond of their time, where the kernel by
/// default adds up to 50 µs so that wake-ups fall together (`PR_SET_TIMERSLACK`).
pub fn fine_sleep() {
    const SLACK_NS: libc::c_ulong = 1_000;
    // SAFETY: this request takes one number and touches no memory. Should it fail, sleeps are
    // coarser; nothing depends on it.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

/// Whether `capability` is in effect. Without a readable `/proc`, whether we are root.
pub fn has_capability(capability: Capability) -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective_mask(&status))
        .map_or_else(
            || effective_uid() == 0,
            |mask| mask >> capability.bit() & 1 == 1,
        )
}

/// The effective set out of the text of `/proc/self/status`.
fn effective_mask(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Raises the soft limit of open descriptors to `wanted`, and the hard limit with it where that is
/// allowed (`CAP_SYS_RESOURCE`, up to the system's `fs.nr_open`). Returns the soft limit that now holds,
/// which may be below `wanted`; never lowers it.
///
/// # Errors
/// When the limit cannot be read.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<u64> {
    let now = descriptor_limit()?;
    if now.rlim_cur >= wanted {
        return Ok(now.rlim_cur);
    }
    let most = wanted.min(nr_open());
    let both = libc::rlimit {
        rlim_cur: most,
        rlim_max: most.max(now.rlim_max),
    };
    let soft = libc::rlimit {
        rlim_cur: wanted.min(now.rlim_max),
        rlim_max: now.rlim_max,
    };
    for limit in [both, soft] {
        // SAFETY: the pointer is to a live rlimit, which setrlimit only reads.
        let status = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        if status == 0 {
            break;
        }
    }
    Ok(descriptor_limit()?.rlim_cur)
}

/// The most that any process may be allowed; a limit beyond it is refused as a whole.
fn nr_open() -> u64 {
    std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(u64::MAX)
}

fn descriptor_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit, which getrlimit fills.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if status == 0 {
        Ok(limit)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_masks() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003000\n";
        assert_eq!(effective_mask(status), Some(0x3000));
        assert_eq!(0x3000 >> Capability::NetRaw.bit() & 1, 1);
        assert_eq!(0x3000 >> Capability::NetAdmin.bit() & 1, 1);
        assert_eq!(0x3000u64 >> Capability::Bpf.bit() & 1, 0);
        assert_eq!(effective_mask("Name:\tx\n"), None);
        assert_eq!(effective_mask("CapEff:\tzz\n"), None);
    }

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = descriptor_limit().unwrap();
        assert_eq!(raise_descriptor_limit(1).unwrap(), before.rlim_cur);
        let most = raise_descriptor_limit(before.rlim_max).unwrap();
        assert_eq!(most, before.rlim_max);
        if has_capability(Capability::SysResource) {
            let all = raise_descriptor_limit(u64::MAX - 1).unwrap();
            assert_eq!(all, nr_open(), "as far as the system goes");
        }
    }
}
