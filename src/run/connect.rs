//! How this sweep's sessions come to their connections: adoption where the machine allows it, else
//! by dialling, with the reason.
//!
//! Also without sessions the firewall rule is wanted: nothing is gained then by the kernel's RST,
//! which costs more than all the rest of receiving an answer.

use std::fs;
use std::io;
use std::ops::RangeInclusive;

use anyhow::bail;
use serde_json::{Value, json};

use crate::config::ScanPlan;
use crate::net::{Firewall, FirewallError, Link};
use crate::probe::Offer;
use crate::session::{self, Adopter};
use crate::status::say;

/// What sessions begin with.
pub struct Connect {
    /// The word for it in the metadata.
    mode: &'static str,
    /// Why it is not adoption, or why the kernel answers with RST.
    reason: Option<String>,
    /// In force until the sweep is over.
    pub(super) firewall: Option<Firewall>,
    /// Makes the connections, where they are not dialled.
    pub(super) adopter: Option<Adopter>,
}

impl Connect {
    /// Adopts if the plan and the machine let us. Must precede the first probe.
    ///
    /// # Errors
    /// Adoption was demanded and is impossible.
    pub(super) fn choose(plan: &ScanPlan, link: &Link, offer: Offer) -> anyhow::Result<Self> {
        let chosen = if !plan.sessions {
            let firewall = without_sessions(plan, link);
            Self {
                mode: "none",
                reason: firewall.as_ref().err().map(ToString::to_string),
                firewall: firewall.ok(),
                adopter: None,
            }
        } else if plan.connect == session::Connect::Dial {
            Self::dial(None)
        } else {
            match adoption(plan, link, offer) {
                Ok((adopter, firewall)) => Self {
                    mode: "adopt",
                    reason: None,
                    firewall: Some(firewall),
                    adopter: Some(adopter),
                },
                Err(reason) if plan.connect == session::Connect::Adopt => {
                    bail!("--connect adopt is not possible: {reason}")
                }
                Err(reason) => Self::dial(Some(reason)),
            }
        };
        chosen.tell(plan);
        Ok(chosen)
    }

    const fn dial(reason: Option<String>) -> Self {
        Self {
            mode: "dial",
            reason,
            firewall: None,
            adopter: None,
        }
    }

    /// Says what was chosen: who has not asked for dialling should know that it came to that.
    fn tell(&self, plan: &ScanPlan) {
        match (self.mode, &self.reason) {
            ("dial", Some(reason)) if !plan.quiet => say(format_args!(
                "sessions dial, since connections cannot be adopted: {reason}"
            )),
            ("dial", None) if plan.verbose => say(format_args!("sessions dial")),
            ("adopt", _) if plan.verbose => say(format_args!(
                "sessions adopt the probes' handshakes; nftables table {} is in force",
                self.table().unwrap_or_default()
            )),
            ("none", Some(reason)) if plan.verbose => say(format_args!(
                "the kernel answers each SYN-ACK with RST, which costs speed: {reason}"
            )),
            _ => {}
        }
    }

    fn table(&self) -> Option<&str> {
        self.firewall.as_ref().map(Firewall::table)
    }

    /// The choice as keys and values for the metadata.
    pub(super) fn described(&self) -> [(&'static str, Value); 3] {
        [
            ("connect_mode", json!(self.mode)),
            ("connect_reason", json!(self.reason)),
            ("firewall", json!(self.table())),
        ]
    }
}

/// What adoption needs, or why it cannot be had.
fn adoption(plan: &ScanPlan, link: &Link, offer: Offer) -> Result<(Adopter, Firewall), String> {
    check_ports(plan)?;
    let (first, last) = plan.source_ports;
    let firewall = Firewall::around_sockets(link, link.source, &(first..=last), plan.target_port)
        .map_err(|error| error.to_string())?;
    let adopter = Adopter::open(link.source, offer).map_err(|error| {
        let source = link.source;
        match error.raw_os_error() {
            Some(libc::EPERM) => FirewallError::Permission.to_string(),
            Some(libc::EADDRNOTAVAIL) => format!("{source} is no address of this machine"),
            _ => format!("the kernel refuses to repair sockets (TCP_REPAIR): {error}"),
        }
    })?;
    Ok((adopter, firewall))
}

/// The rule of a sweep without sessions: the cheaper one, unless that could meet connections of
/// other programs.
fn without_sessions(plan: &ScanPlan, link: &Link) -> Result<Firewall, FirewallError> {
    let (first, last) = plan.source_ports;
    let rule = if check_ports(plan).is_ok() {
        Firewall::before_ip
    } else {
        Firewall::around_sockets
    };
    rule(link, link.source, &(first..=last), plan.target_port)
}

/// Whether the sweep's ports are its own.
fn check_ports(plan: &ScanPlan) -> Result<(), String> {
    let (first, last) = plan.source_ports;
    let kernel = local_ports()
        .map_err(|error| format!("net.ipv4.ip_local_port_range cannot be read: {error}"))?;
    if first <= *kernel.end() && *kernel.start() <= last {
        return Err(format!(
            "the source ports {first}-{last} overlap those the kernel gives to other connections, \
             {}-{} (net.ipv4.ip_local_port_range); choose others with --source-port",
            kernel.start(),
            kernel.end()
        ));
    }
    Ok(())
}

/// The ports that the kernel chooses from for connections.
fn local_ports() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ports = text.split_whitespace().map(str::parse::<u16>);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::Error::other(text)),
    }
}
