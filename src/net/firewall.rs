//! Keeps the kernel out of the sweep's handshakes: a packet-filter rule of our own.
//!
//! The kernel knows nothing of our SYNs and answers each SYN-ACK with RST. The rule drops what
//! comes from the probed port to the sweep's address and source ports, on the sweep's interface.
//! The sweep's own packet socket has seen it before.
//!
//! **Where sessions adopt connections** it drops what belongs to no socket of this machine:
//!
//! ```text
//! iif IF ip daddr SOURCE tcp sport 25 tcp dport 16384-32767 jump unclaimed
//! chain unclaimed {
//!   tcp flags SYN without ACK    accept  # someone opens a connection to a server here
//!   socket, not a listening one  accept  # an adopted connection, or another program's
//!   tcp flags SYN and ACK        drop    # the answer to a probe; also where a server listens
//!   socket of any kind           accept  # TIME_WAIT and the like
//!   drop                                 # data, FIN or RST of a connection not adopted (yet)
//! }
//! ```
//!
//! So a peer whose connection waits to be adopted hears nothing from us, whatever it sends, and
//! sends it again; once a socket stands for the connection the kernel sees to all of that, a
//! SYN-ACK that is sent again because our ACK was lost included. Traffic of others passes: other
//! ports by the first line, other programs' connections by their sockets.
//!
//! **Where there are no sessions** it drops SYN-ACKs in the interface's ingress hook, before the
//! IP layer, which is cheaper.
//!
//! **Removal.** The table belongs to our netlink socket (`NFT_TABLE_F_OWNER`, Linux 5.12), so the
//! kernel removes it when the process ends, however it ends. On older kernels the table's name,
//! `smtpsweep-PID`, tells the next sweep whose process is dead; it removes those.

use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process;

use super::Link;
use super::nftables::{Batch, Expression, Family, NfTables};

/// The rule, in force as long as this lives.
pub struct Firewall {
    filter: NfTables,
    family: Family,
    table: String,
}

/// Why there is no rule.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The process may not change the packet filter.
    #[error("the capability CAP_NET_ADMIN is missing")]
    Permission,
    /// The kernel has no packet filter that can do it.
    #[error("the kernel takes no nftables rule for it ({0}; it needs nf_tables with nft_socket)")]
    Refused(#[source] io::Error),
}

impl Firewall {
    /// Keeps answers on `link` from port `dport` to the ports `sports` of `source` from the
    /// kernel's TCP as long as no socket is there for them. Also removes what sweeps that are dead
    /// have left.
    ///
    /// # Errors
    /// No privilege, or a kernel without nftables or its `socket` expression.
    pub fn around_sockets(
        link: &Link,
        source: Ipv4Addr,
        sports: &RangeInclusive<u16>,
        dport: u16,
    ) -> Result<Self, FirewallError> {
        use Expression as E;
        Self::install(Family::IPV4, |batch, table| {
            batch.add_chain(table, UNCLAIMED);
            for rule in [
                &[E::Flags(SYN_ACK, SYN), E::Accept][..],
                &[E::ConnectedSocket, E::Accept],
                &[E::Flags(SYN_ACK, SYN_ACK), E::Drop],
                &[E::AnySocket, E::Accept],
                &[E::Drop],
            ] {
                batch.add_rule(table, UNCLAIMED, rule);
            }
            batch.add_raw_prerouting(table, ANSWERS);
            let mut rule = vec![E::Interface(link.index)];
            rule.extend(answers(source, sports, dport));
            rule.push(E::Jump(UNCLAIMED));
            batch.add_rule(table, ANSWERS, &rule);
        })
    }

    /// Keeps all SYN-ACKs from there to there from the kernel: for sweeps without sessions, whose
    /// ports no other program has. Also removes what sweeps that are dead have left.
    ///
    /// # Errors
    /// No privilege, or a kernel without nftables or its `netdev` family.
    pub fn before_ip(
        link: &Link,
        source: Ipv4Addr,
        sports: &RangeInclusive<u16>,
        dport: u16,
    ) -> Result<Self, FirewallError> {
        use Expression as E;
        Self::install(Family::NETDEV, |batch, table| {
            batch.add_ingress(table, ANSWERS, &link.interface);
            let mut rule = vec![E::Ipv4];
            rule.extend(answers(source, sports, dport));
            rule.extend([E::Flags(SYN_ACK | RST, SYN_ACK), E::Drop]);
            batch.add_rule(table, ANSWERS, &rule);
        })
    }

    /// The name of its table.
    pub fn table(&self) -> &str {
        &self.table
    }

    fn install(family: Family, rules: impl Fn(&mut Batch, &str)) -> Result<Self, FirewallError> {
        remove_leftovers().map_err(refusal)?;
        let table = format!("{PREFIX}{}", process::id());
        let mut last = None;
        // Kernels before 5.12 know no owner.
        for owned in [true, false] {
            let mut filter = NfTables::open().map_err(refusal)?;
            let mut batch = Batch::new(family);
            batch.add_table(&table, owned);
            rules(&mut batch, &table);
            match filter.commit(batch) {
                Ok(()) => {
                    return Ok(Self {
                        filter,
                        family,
                        table,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(refusal(last.unwrap_or_else(|| io::ErrorKind::Other.into())))
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // An owned table would go with the socket anyway.
        let mut batch = Batch::new(self.family);
        batch.delete_table(&self.table);
        let _ = self.filter.commit(batch);
    }
}

/// What all rules begin with.
fn answers(source: Ipv4Addr, sports: &RangeInclusive<u16>, dport: u16) -> [Expression; 4] {
    [
        Expression::Tcp,
        Expression::Destination(source),
        Expression::SourcePort(dport),
        Expression::DestinationPorts(*sports.start(), *sports.end()),
    ]
}

/// Removes the tables of sweeps whose process is dead.
fn remove_leftovers() -> io::Result<()> {
    let mut filter = NfTables::open()?;
    for table in filter.tables()? {
        let dead = pid_of(&table.name).is_some_and(|pid| pid == process::id() || !is_alive(pid));
        // One that has an owner is in use, in a container of its own maybe, whose processes we
        // cannot see; nobody but its owner could remove it.
        if dead && !table.owned {
            let mut batch = Batch::new(table.family);
            batch.delete_table(&table.name);
            // Another sweep that starts may have been faster.
            match filter.commit(batch) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The process that a table's name names.
fn pid_of(table: &str) -> Option<u32> {
    table.strip_prefix(PREFIX)?.parse().ok()
}

/// Whether a process is there; without a `/proc` to ask, all are.
fn is_alive(pid: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{pid}")).exists()
}

fn refusal(error: io::Error) -> FirewallError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => FirewallError::Permission,
        _ => FirewallError::Refused(error),
    }
}

const PREFIX: &str = "smtpsweep-";
const ANSWERS: &str = "answers";
const UNCLAIMED: &str = "unclaimed";
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_tables_name_a_process() {
        assert_eq!(pid_of("smtpsweep-4711"), Some(4711));
        assert_eq!(pid_of("smtpsweep-"), None);
        assert_eq!(pid_of("smtpsweep-47x"), None);
        assert_eq!(pid_of("filter"), None);
        assert!(is_alive(process::id()));
        // Above the kernel's highest (PID_MAX_LIMIT).
        assert!(!is_alive(1 << 23));
    }
}
