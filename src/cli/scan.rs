//! The options of `smtpsweep scan`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;

use super::{BlocklistArgs, DialogueArgs};
use crate::session::Connect;

/// `smtpsweep scan`.
#[derive(Debug, Clone, Args)]
pub struct ScanArgs {
    /// Addresses, CIDRs or ranges (192.0.2.7, 192.0.2.0/24, 192.0.2.1-192.0.2.9)
    #[arg(value_name = "TARGET", help_heading = "Targets")]
    pub targets: Vec<String>,
    /// TCP port to probe
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        default_value_t = 25,
        help_heading = "Targets"
    )]
    pub target_port: u16,
    /// File of addresses and CIDRs to probe, added to the TARGETs (repeatable)
    #[arg(short = 'w', long, value_name = "FILE", help_heading = "Targets")]
    pub allowlist_file: Vec<PathBuf>,
    /// File of addresses or CIDRs, one a line; `-` reads standard input (repeatable)
    ///
    /// Alone it is the list of targets; together with TARGETs or --allowlist-file only addresses
    /// that are in both are probed, as in zmap.
    #[arg(short = 'I', long, value_name = "FILE", help_heading = "Targets")]
    pub list_of_ips_file: Vec<PathBuf>,
    /// Blocklist options.
    #[command(flatten)]
    pub blocklist: BlocklistArgs,
    /// Probe no more than this many targets (a number, or a percentage of the space as 5%)
    #[arg(short = 'n', long, value_name = "N", help_heading = "Targets")]
    pub max_targets: Option<String>,
    /// Seed of the order in which addresses are probed (default: random)
    #[arg(short = 'e', long, value_name = "SEED", help_heading = "Targets")]
    pub seed: Option<u64>,
    /// Split the sweep into this many shards (needs --seed)
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Targets")]
    pub shards: u16,
    /// Which shard to sweep, counted from 0
    #[arg(long, value_name = "I", default_value_t = 0, help_heading = "Targets")]
    pub shard: u16,

    /// Packets a second [default: 10000]
    #[arg(
        short,
        long,
        value_name = "PPS",
        conflicts_with = "bandwidth",
        help_heading = "Sending"
    )]
    pub rate: Option<f64>,
    /// Bits a second on the wire, with G, M or K
    #[arg(short = 'B', long, value_name = "BPS", help_heading = "Sending")]
    pub bandwidth: Option<String>,
    /// Probes to each target
    ///
    /// The repeats are spaced over the sweep, since loss comes in bursts: a whole pass over the
    /// targets apart, or --probe-spacing.
    #[arg(
        short = 'P',
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=32),
        help_heading = "Sending"
    )]
    pub probes: u8,
    /// Seconds between the probes to one target, instead of a whole pass
    #[arg(long, value_name = "SECONDS", help_heading = "Sending")]
    pub probe_spacing: Option<f64>,
    /// Stop sending after this many seconds
    #[arg(short = 't', long, value_name = "SECONDS", help_heading = "Sending")]
    pub max_runtime: Option<u64>,
    /// Stop sending once this many responders were found
    #[arg(short = 'N', long, value_name = "N", help_heading = "Sending")]
    pub max_results: Option<u64>,
    /// Seconds to wait for replies after the last packet
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 8.0,
        help_heading = "Sending"
    )]
    pub cooldown_time: f64,
    /// TCP options of the SYN
    #[arg(
        long,
        value_name = "LAYOUT",
        default_value = "linux",
        value_parser = ["smallest-probes", "bsd", "linux", "windows"],
        help_heading = "Sending"
    )]
    pub probe_args: String,
    /// IP time to live of the SYN
    #[arg(
        long,
        value_name = "TTL",
        default_value_t = 255,
        value_parser = clap::value_parser!(u8).range(1..),
        help_heading = "Sending"
    )]
    pub probe_ttl: u8,
    /// What to send with: AF_PACKET works everywhere, the others are faster
    ///
    /// `packet` is AF_PACKET, `xdp` AF_XDP, and `live` makes the frames inside the kernel (XDP on live
    /// frames; it takes a whole core). `auto` takes the fastest that works on the interface, and
    /// AF_PACKET below 500,000 packets a second. A backend that fails while sending is replaced by AF_PACKET.
    #[arg(
        long,
        value_name = "BACKEND",
        default_value = "auto",
        value_parser = ["auto", "packet", "xdp", "live"],
        help_heading = "Sending"
    )]
    pub tx: String,
    /// Threads that send, each on a transmit queue of its own
    #[arg(
        short = 'T',
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Sending"
    )]
    pub sender_threads: u16,
    /// Cores to keep the sender threads on, in turn
    #[arg(
        long,
        value_name = "CORE,...",
        value_delimiter = ',',
        help_heading = "Sending"
    )]
    pub cores: Vec<u32>,
    /// Print the probes to standard output instead of sending them
    #[arg(short, long, help_heading = "Sending")]
    pub dryrun: bool,
    /// Make every frame and drop it: how fast targets and frames can be made here
    #[arg(long, conflicts_with = "dryrun", help_heading = "Sending")]
    pub fast_dryrun: bool,

    /// Network interface
    #[arg(short, long, value_name = "NAME", help_heading = "Network")]
    pub interface: Option<String>,
    /// Source address
    #[arg(short = 'S', long, value_name = "ADDRESS", help_heading = "Network")]
    pub source_ip: Option<Ipv4Addr>,
    /// Source port or range of ports of the SYNs
    ///
    /// The default lies below Linux's range for outgoing connections (32768-60999), so that dialled
    /// connections, and those of other programs, never share a port with a probe.
    #[arg(
        short,
        long,
        value_name = "PORTS",
        default_value = "16384-32767",
        help_heading = "Network"
    )]
    pub source_port: String,
    /// Hardware address of the gateway (default: asked of the kernel, then of the network)
    #[arg(short = 'G', long, value_name = "MAC", help_heading = "Network")]
    pub gateway_mac: Option<String>,
    /// Hardware address to send from (default: the interface's)
    #[arg(long, value_name = "MAC", help_heading = "Network")]
    pub source_mac: Option<String>,

    /// Dialogue options.
    #[command(flatten)]
    pub dialogue: DialogueArgs,
    /// Store responders without talking to them: count and list open ports, nothing more
    #[arg(long, help_heading = "Dialogue")]
    pub no_sessions: bool,
    /// How sessions come to their connections: adopt the probe's handshake, or dial anew
    ///
    /// `adopt` completes the handshake that the probe began, so a host sees one SYN and no RST. It
    /// needs CAP_NET_ADMIN (an nftables rule of its own keeps the kernel from answering with RST, as
    /// long as the sweep runs) and source ports outside net.ipv4.ip_local_port_range. `dial` lets
    /// the kernel reset the handshake and opens a second one. `auto` adopts where that is possible.
    #[arg(
        long,
        value_name = "HOW",
        default_value = Connect::Auto.name(),
        value_parser = ["auto", "adopt", "dial"],
        help_heading = "Dialogue"
    )]
    pub connect: String,
    /// Most sessions open at once; fewer where the limit of open files cannot be raised so far
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32_768,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = "Dialogue"
    )]
    pub max_sessions: u32,
    /// Most sessions open at once within one /24
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = "Dialogue"
    )]
    pub max_sessions_per_24: u32,
    /// Most sessions open at once within one autonomous system (needs --prefix2as)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        requires = "prefix2as",
        help_heading = "Dialogue"
    )]
    pub max_sessions_per_as: u32,
    /// Table of prefixes and their AS numbers, a line each: prefix, length, number (CAIDA's pfx2as)
    #[arg(long, value_name = "FILE", help_heading = "Dialogue")]
    pub prefix2as: Option<PathBuf>,
    /// Directory of rules/*.toml to use instead of the built-in rules
    #[arg(long, value_name = "DIR", help_heading = "Dialogue")]
    pub rules: Option<PathBuf>,

    /// Become this user (name or number) once everything is open; only root can
    ///
    /// Without it a sweep started by sudo becomes the user who called sudo, if that user may write
    /// in the survey's directory. The file becomes the user's too.
    #[arg(long, value_name = "USER", help_heading = "Safety")]
    pub user: Option<String>,
    /// Keep all privileges, and leave files and system calls unrestricted
    #[arg(long, conflicts_with = "user", help_heading = "Safety")]
    pub no_sandbox: bool,

    /// Survey file to write; must not exist [default: smtpsweep-DATE-TIME.db]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output_file: Option<PathBuf>,
    /// File for the run's metadata as JSON; `-` writes standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub metadata_file: Option<PathBuf>,
    /// Free text to keep with the metadata
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    pub notes: Option<String>,
    /// JSON value to keep with the metadata
    #[arg(long, value_name = "JSON", help_heading = "Output")]
    pub user_metadata: Option<String>,
    /// No status line
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// Say more on standard error
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
}
