//! What the command line means: defaults, units and conflicts become a [`ScanPlan`].
//!
//! Everything that can be refused before a packet leaves is refused here, with a sentence that
//! names the option or the file and line. Reads the files that the options name and the machine's
//! host name; opens no socket.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::cli::{BlocklistArgs, DialogueArgs, ScanArgs};
use crate::fingerprint::{RuleError, RuleSet};
use crate::net::{MacAddr, RouteOptions, TxBackend};
use crate::probe::SynLayout;
use crate::rate::{Bandwidth, PacketsPerSecond};
use crate::session::{AsCap, AsTable, AsTableError, Connect};
use crate::smtp::{
    Contact, ContactError, Depth, DialogueConfig, EhloName, Fqdn, FqdnError, Timeouts, TlsStart,
};
use crate::targets::list::{self, ListError};
use crate::targets::{Blocklist, Permutation, RangeSet, Shard, ShardError, Space, Spacing};

/// The port on which TLS comes first (RFC 8314, "submissions").
const SMTPS: u16 = 465;

/// Packets a second when neither `--rate` nor `--bandwidth` is given: zmap's default.
const DEFAULT_RATE: f64 = 10_000.0;

/// Why the command line cannot be carried out; each is a usage error (exit code 2).
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file of targets or of blocked ranges cannot be opened.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of such a file, or a target on the command line, is malformed.
    #[error(transparent)]
    List(#[from] ListError),
    /// No target was named at all.
    #[error(
        "no targets: name addresses or CIDRs, or give --allowlist-file or --list-of-ips-file \
         (0.0.0.0/0 means all of IPv4)"
    )]
    NoTargets,
    /// The lists that were named hold no address, or have none in common.
    #[error("the target set is empty: {0}")]
    EmptyTargets(&'static str),
    /// Every target is blocked.
    #[error(
        "all {0} target addresses are on the blocklist, so there is nothing to probe \
         (in a test network --no-default-blocklist takes the built-in ranges away)"
    )]
    AllBlocked(u64),
    /// A single address that was named on the command line is blocked.
    #[error(
        "{address} was named as a target but is on the blocklist ({reason}); take it off the \
         command line (in a test network --no-default-blocklist takes the built-in ranges away)"
    )]
    BlockedExplicitly {
        /// The address.
        address: Ipv4Addr,
        /// The blocklist's entry with its comment, or the file it is listed in.
        reason: String,
    },
    /// An option's value is malformed or out of range.
    #[error("--{option} {value}: {reason}")]
    Option {
        /// The option's long name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--shards` without `--seed`: the shards would not belong together.
    #[error("--shards needs --seed: all shards of one sweep must share one seed")]
    ShardsWithoutSeed,
    /// `--shard` does not fit `--shards`.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// `--ehlo-name` is not a fully qualified domain name.
    #[error("--ehlo-name {name}: {source}")]
    EhloName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        source: FqdnError,
    },
    /// `--contact` is neither a mail address nor a web page.
    #[error("--contact {contact:?}: {source}")]
    Contact {
        /// What was given.
        contact: String,
        /// What is wrong with it.
        source: ContactError,
    },
    /// `--prefix2as` cannot be used.
    #[error(transparent)]
    AsTable(#[from] AsTableError),
    /// The rules cannot be used.
    #[error(transparent)]
    Rules(#[from] RuleError),
    /// The survey file is there already.
    #[error("{} exists already; choose another --output-file or move it away", .0.display())]
    OutputExists(PathBuf),
    /// The survey file's directory is not there.
    #[error("cannot write {}: the directory {} does not exist", path.display(), directory.display())]
    NoDirectory {
        /// The survey file.
        path: PathBuf,
        /// The directory that is missing.
        directory: PathBuf,
    },
}

/// How fast probes leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Packets a second.
    Rate(PacketsPerSecond),
    /// Bits a second on the wire.
    Bandwidth(Bandwidth),
}

/// A user and the group that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

impl User {
    /// The user of that name or number.
    pub fn named(name: &str) -> Option<Self> {
        let user = match name.parse() {
            Ok(uid) => uzers::get_user_by_uid(uid),
            Err(_) => uzers::get_user_by_name(name),
        }?;
        Some(Self {
            uid: user.uid(),
            gid: user.primary_group_id(),
        })
    }
}

/// How dialogues are held.
#[derive(Debug, Clone)]
pub struct DialoguePlan {
    /// `--ehlo-name`, or the machine's name if that is fully qualified; else the source address
    /// is said as a literal.
    pub ehlo_name: Option<Fqdn>,
    /// `--dialogue`.
    pub depth: Depth,
    /// `--contact`.
    pub contact: Option<Contact>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// How TLS is begun, if at all.
    pub tls: Option<TlsStart>,
    /// The host name to ask for in TLS.
    pub sni: Option<Fqdn>,
}

impl DialoguePlan {
    /// The name to say, given the address the sessions come from.
    pub fn ehlo(&self, source: Ipv4Addr) -> EhloName {
        self.ehlo_name
            .clone()
            .map_or(EhloName::Literal(source), EhloName::Name)
    }

    /// The dialogues to hold from that address.
    pub fn config(&self, source: Ipv4Addr) -> DialogueConfig {
        DialogueConfig {
            timeouts: self.timeouts,
            depth: self.depth,
            contact: self.contact.clone(),
            starttls: self.tls == Some(TlsStart::Starttls),
            ..DialogueConfig::new(self.ehlo(source))
        }
    }
}

/// Everything `smtpsweep scan` needs to know.
#[derive(Debug)]
pub struct ScanPlan {
    /// The addresses to probe, minus the blocklist.
    pub space: Arc<Space>,
    /// Addresses that were asked for, before the blocklist.
    pub wanted: u64,
    /// The blocklist in force.
    pub blocklist: Blocklist,
    /// Whether the built-in blocklist is part of it.
    pub default_blocklist: bool,
    /// Seed of the permutation and, with the nonce, of the cookie key.
    pub seed: u64,
    /// Whether the seed was given by the user.
    pub seed_provided: bool,
    /// Random part of the cookie key.
    pub nonce: [u8; 16],
    /// The order of the sweep.
    pub permutation: Permutation,
    /// The part of it that is ours.
    pub shard: Shard,
    /// Probes to send at the most.
    pub max_targets: Option<u64>,
    /// Probes to each target.
    pub probes: u8,
    /// How far they are apart.
    pub spacing: Spacing,
    /// Time after which sending stops.
    pub max_runtime: Option<Duration>,
    /// Responders after which sending stops.
    pub max_results: Option<u64>,
    /// How fast probes leave.
    pub pace: Pace,
    /// How long replies are awaited after the last probe.
    pub cooldown: Duration,
    /// What probes are sent with.
    pub tx: TxBackend,
    /// How many threads send.
    pub sender_threads: u16,
    /// The cores they are kept on, in turn; none: wherever the system likes.
    pub cores: Vec<u32>,
    /// TCP options of the SYN.
    pub layout: SynLayout,
    /// IP time to live of the SYN.
    pub ttl: u8,
    /// First and last source port of the SYNs.
    pub source_ports: (u16, u16),
    /// Port that is probed.
    pub target_port: u16,
    /// What is known about the way out.
    pub route: RouteOptions,
    /// How dialogues are held.
    pub dialogue: DialoguePlan,
    /// How sessions come to their connections.
    pub connect: Connect,
    /// Whether responders get a session; else they are stored as they answered the probe.
    pub sessions: bool,
    /// Most sessions open at once.
    pub max_sessions: u32,
    /// Most sessions open at once within a /24.
    pub max_sessions_per_24: u32,
    /// `--prefix2as` and `--max-sessions-per-as`.
    pub per_as: Option<AsCap>,
    /// The fingerprint rules.
    pub rules: Arc<RuleSet>,
    /// The survey file to write.
    pub output: PathBuf,
    /// Where the metadata goes besides the survey file (`-`: standard output).
    pub metadata_file: Option<PathBuf>,
    /// Free text kept with the metadata.
    pub notes: Option<String>,
    /// JSON kept with the metadata.
    pub user_metadata: Option<serde_json::Value>,
    /// Print probes instead of sending them.
    pub dryrun: bool,
    /// Make frames and drop them.
    pub fast_dryrun: bool,
    /// The user to become once everything is open, if one was named.
    pub user: Option<User>,
    /// Whether the process gives up what it does not need.
    pub sandbox: bool,
    /// No status line.
    pub quiet: bool,
    /// Say more.
    pub verbose: bool,
    /// The options as typed, for the metadata.
    pub args: ScanArgs,
}

impl ScanPlan {
    /// Checks the options of `scan` and reads the files they name.
    pub fn new(args: ScanArgs) -> Result<Self, ConfigError> {
        let output = output_path(args.output_file.as_deref())?;
        if !(args.dryrun || args.fast_dryrun) {
            check_output(&output)?;
        }
        let (sports, pace) = (ports(&args.source_port)?, pace(&args)?);
        if args.target_port == 0 {
            return Err(refuse("target-port", 0, "ports are 1 to 65535"));
        }
        let shard = Shard::new(args.shard, args.shards)?;
        if args.shards > 1 && args.seed.is_none() {
            return Err(ConfigError::ShardsWithoutSeed);
        }
        shard.split(0, args.sender_threads)?;
        if args.probes > 1 && args.max_targets.is_some() {
            let reason = "cannot be combined with --max-targets, which would end in the first pass";
            return Err(refuse("probes", args.probes, reason));
        }
        let stdin = |files: &[PathBuf]| files.iter().filter(|file| file.as_os_str() == "-").count();
        if stdin(&args.allowlist_file) + stdin(&args.list_of_ips_file) > 1 {
            let reason = "standard input can be read only once";
            return Err(refuse("list-of-ips-file", "-", reason));
        }
        let dialogue = dialogue(&args.dialogue, args.target_port)?;
        let per_as = args
            .prefix2as
            .as_deref()
            .map(|path| as_cap(path, args.max_sessions_per_as))
            .transpose()?;
        let user_metadata = args.user_metadata.as_deref().map(json).transpose()?;
        let route = RouteOptions {
            interface: args.interface.clone(),
            source: args.source_ip,
            gateway_mac: mac("gateway-mac", args.gateway_mac.as_deref())?,
            source_mac: mac("source-mac", args.source_mac.as_deref())?,
        };
        let rules = Arc::new(rules(args.rules.as_deref())?);

        let blocklist = blocklist(&args.blocklist)?;
        let wanted = wanted(&args, &blocklist)?;
        let space = Space::new(&wanted, blocklist.ranges());
        if space.is_empty() {
            return Err(ConfigError::AllBlocked(wanted.len()));
        }
        let max_targets = args
            .max_targets
            .as_deref()
            .map(|text| max_targets(text, space.len()))
            .transpose()?;
        let seed = match args.seed {
            Some(seed) => seed,
            None => u64::from_ne_bytes(random("seed")?),
        };
        Ok(Self {
            permutation: Permutation::new(space.len(), seed),
            space: Arc::new(space),
            wanted: wanted.len(),
            blocklist,
            default_blocklist: !args.blocklist.no_default_blocklist,
            seed,
            seed_provided: args.seed.is_some(),
            nonce: random("nonce")?,
            shard,
            max_targets,
            probes: args.probes,
            spacing: match args.probe_spacing {
                Some(time) => Spacing::time(seconds("probe-spacing", time)?),
                None => Spacing::FULL_PASS,
            },
            max_runtime: args.max_runtime.map(Duration::from_secs),
            max_results: args.max_results,
            pace,
            cooldown: seconds("cooldown-time", args.cooldown_time)?,
            tx: TxBackend::from_str(&args.tx).map_err(|reason| refuse("tx", &args.tx, reason))?,
            sender_threads: args.sender_threads,
            cores: args.cores.clone(),
            layout: SynLayout::from_str(&args.probe_args)
                .map_err(|error| refuse("probe-args", &args.probe_args, error))?,
            ttl: args.probe_ttl,
            source_ports: sports,
            target_port: args.target_port,
            route,
            dialogue,
            connect: Connect::from_str(&args.connect)
                .map_err(|reason| refuse("connect", &args.connect, reason))?,
            sessions: !args.no_sessions,
            max_sessions: args.max_sessions,
            max_sessions_per_24: args.max_sessions_per_24,
            per_as,
            rules,
            output,
            metadata_file: args.metadata_file.clone(),
            notes: args.notes.clone(),
            user_metadata,
            dryrun: args.dryrun,
            fast_dryrun: args.fast_dryrun,
            user: args.user.as_deref().map(user).transpose()?,
            sandbox: !args.no_sandbox,
            quiet: args.quiet,
            verbose: args.verbose,
            args,
        })
    }

    /// This shard's part of `--max-targets`, which counts for all shards together.
    pub fn our_max_targets(&self) -> Option<u64> {
        let (index, total) = (u64::from(self.shard.index), u64::from(self.shard.total));
        self.max_targets
            .map(|most| most / total + u64::from(index < most % total))
    }

    /// Packets a second for frames of `frame_len` octets (Ethernet header included).
    ///
    /// # Errors
    /// A bandwidth that is less than the slowest rate there is, or more than the fastest.
    pub fn rate(&self, frame_len: usize) -> Result<PacketsPerSecond, ConfigError> {
        match self.pace {
            Pace::Rate(rate) => Ok(rate),
            Pace::Bandwidth(bandwidth) => bandwidth
                .packets_per_second(frame_len)
                .map_err(|error| refuse("bandwidth", bandwidth.bits_per_second(), error)),
        }
    }
}

/// The dialogue options of `scan` and `probe`, for sessions with that port.
pub fn dialogue(args: &DialogueArgs, target_port: u16) -> Result<DialoguePlan, ConfigError> {
    let ehlo_name = match &args.ehlo_name {
        Some(name) => Some(
            Fqdn::from_str(name).map_err(|source| ConfigError::EhloName {
                name: name.clone(),
                source,
            })?,
        ),
        None => host_name(),
    };
    let timeouts = Timeouts {
        connect: positive_seconds("connect-timeout", args.connect_timeout)?,
        greeting: positive_seconds("greeting-timeout", args.greeting_timeout)?,
        step: positive_seconds("step-timeout", args.step_timeout)?,
        session: positive_seconds("session-timeout", args.session_timeout)?,
        ..Timeouts::default()
    };
    if timeouts.session < timeouts.greeting.max(timeouts.step) {
        return Err(refuse(
            "session-timeout",
            args.session_timeout,
            "a session must last at least as long as --greeting-timeout and --step-timeout",
        ));
    }
    let depth = match args.dialogue.as_str() {
        "banner" => Depth::Banner,
        "ehlo" => Depth::Ehlo,
        _ => Depth::Behaviour,
    };
    let contact = args.contact.as_ref().map(|contact| {
        Contact::from_str(contact).map_err(|source| ConfigError::Contact {
            contact: contact.clone(),
            source,
        })
    });
    let tls = match args {
        DialogueArgs { starttls: true, .. } => Some(TlsStart::Starttls),
        DialogueArgs { smtps: true, .. } => Some(TlsStart::Implicit),
        _ => (target_port == SMTPS).then_some(TlsStart::Implicit),
    };
    let sni = match args.sni.as_deref() {
        Some(_) if tls.is_none() => {
            let reason = "is said in TLS only; ask for that with --starttls or --smtps";
            return Err(refuse(
                "sni",
                args.sni.as_deref().unwrap_or_default(),
                reason,
            ));
        }
        Some(name) => Some(Fqdn::from_str(name).map_err(|error| refuse("sni", name, error))?),
        None => None,
    };
    Ok(DialoguePlan {
        ehlo_name,
        depth,
        contact: contact.transpose()?,
        timeouts,
        tls,
        sni,
    })
}

/// The cap on sessions into one AS, by the table at that path.
fn as_cap(path: &Path, most: u32) -> Result<AsCap, ConfigError> {
    let table = AsTable::read(open(path)?, &path.to_string_lossy())?;
    Ok(AsCap {
        table: Arc::new(table),
        most: most as usize,
    })
}

/// The built-in rules, or those of a directory.
pub fn rules(directory: Option<&Path>) -> Result<RuleSet, RuleError> {
    directory.map_or_else(|| Ok(RuleSet::builtin()), RuleSet::load)
}

/// The default blocklist, unless taken away, plus the files.
pub fn blocklist(args: &BlocklistArgs) -> Result<Blocklist, ConfigError> {
    let mut blocklist = if args.no_default_blocklist {
        Blocklist::empty()
    } else {
        Blocklist::builtin()
    };
    for path in &args.blocklist_file {
        blocklist.add(open(path)?, &path.to_string_lossy())?;
    }
    Ok(blocklist)
}

/// The addresses asked for: (targets ∪ allowlists) ∩ lists of addresses, as in zmap.
fn wanted(args: &ScanArgs, blocklist: &Blocklist) -> Result<RangeSet, ConfigError> {
    if args.targets.is_empty() && args.allowlist_file.is_empty() && args.list_of_ips_file.is_empty()
    {
        return Err(ConfigError::NoTargets);
    }
    let mut named = Vec::with_capacity(args.targets.len());
    for text in &args.targets {
        let (first, last) =
            list::parse_entry(text).map_err(|reason| refuse_target(text, &reason.to_string()))?;
        if first == last
            && let Some(reason) = blocklist.reason(Ipv4Addr::from_bits(first))
        {
            let address = Ipv4Addr::from_bits(first);
            return Err(ConfigError::BlockedExplicitly { address, reason });
        }
        named.push((first, last));
    }
    let mut wanted = RangeSet::from_ranges(named);
    for path in &args.allowlist_file {
        wanted = wanted.union(&read_list(path)?);
    }
    if !args.list_of_ips_file.is_empty() {
        let mut listed = RangeSet::default();
        for path in &args.list_of_ips_file {
            listed = listed.union(&read_list(path)?);
        }
        if args.targets.is_empty() && args.allowlist_file.is_empty() {
            wanted = listed;
        } else {
            wanted = wanted.intersect(&listed);
            if wanted.is_empty() {
                return Err(ConfigError::EmptyTargets(
                    "no address of --list-of-ips-file lies within the other targets",
                ));
            }
        }
    }
    if wanted.is_empty() {
        return Err(ConfigError::EmptyTargets("the files name no address"));
    }
    Ok(wanted)
}

fn refuse_target(text: &str, reason: &str) -> ConfigError {
    ConfigError::Option {
        option: "target",
        value: text.to_owned(),
        reason: reason.to_owned(),
    }
}

fn read_list(path: &Path) -> Result<RangeSet, ConfigError> {
    if path == Path::new("-") {
        return Ok(list::parse_list(io::stdin().lock(), "standard input")?);
    }
    Ok(list::parse_list(open(path)?, &path.to_string_lossy())?)
}

fn open(path: &Path) -> Result<BufReader<File>, ConfigError> {
    File::open(path)
        .map(|file| BufReader::with_capacity(1 << 18, file))
        .map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })
}

fn refuse(option: &'static str, value: impl ToString, reason: impl ToString) -> ConfigError {
    ConfigError::Option {
        option,
        value: value.to_string(),
        reason: reason.to_string(),
    }
}

fn user(name: &str) -> Result<User, ConfigError> {
    User::named(name).ok_or_else(|| refuse("user", name, "there is no such user"))
}

fn pace(args: &ScanArgs) -> Result<Pace, ConfigError> {
    if let Some(text) = &args.bandwidth {
        return Bandwidth::from_str(text)
            .map(Pace::Bandwidth)
            .map_err(|error| refuse("bandwidth", text, error));
    }
    let rate = args.rate.unwrap_or(DEFAULT_RATE);
    PacketsPerSecond::new(rate)
        .map(Pace::Rate)
        .map_err(|error| refuse("rate", rate, error))
}

/// `16384-32767`, or one port.
fn ports(text: &str) -> Result<(u16, u16), ConfigError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => Ok((first, last)),
        _ => Err(refuse(
            "source-port",
            text,
            "must be a port or a range of ports such as 16384-32767",
        )),
    }
}

/// A number, or a percentage of `space`, rounded up.
fn max_targets(text: &str, space: u64) -> Result<u64, ConfigError> {
    let wrong = || {
        refuse(
            "max-targets",
            text,
            "must be a number above 0, or a percentage as 5%",
        )
    };
    let count = match text.strip_suffix('%') {
        Some(percent) => {
            let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
            if !(percent > 0.0 && percent <= 100.0) {
                return Err(wrong());
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 < percent <= 100 keeps the product between 0 and the space"
            )]
            let share = (space as f64 * percent / 100.0).ceil() as u64;
            share
        }
        None => text.trim().parse().map_err(|_| wrong())?,
    };
    if count == 0 {
        Err(wrong())
    } else {
        Ok(count.min(space))
    }
}

fn mac(option: &'static str, text: Option<&str>) -> Result<Option<MacAddr>, ConfigError> {
    text.map(|text| {
        MacAddr::from_str(text)
            .map_err(|_| refuse(option, text, "must be six octets such as 02:00:5e:10:00:01"))
    })
    .transpose()
}

fn json(text: &str) -> Result<serde_json::Value, ConfigError> {
    serde_json::from_str(text).map_err(|error| refuse("user-metadata", text, error))
}

fn seconds(option: &'static str, value: f64) -> Result<Duration, ConfigError> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|time| *time <= Duration::from_secs(86_400))
        .ok_or_else(|| refuse(option, value, "must be between 0 and 86400 seconds"))
}

fn positive_seconds(option: &'static str, value: f64) -> Result<Duration, ConfigError> {
    seconds(option, value)
        .ok()
        .filter(|time| *time >= Duration::from_millis(10))
        .ok_or_else(|| refuse(option, value, "must be between 0.01 and 86400 seconds"))
}

/// The survey's file: the one named, or one named by the date (UTC).
fn output_path(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = given {
        if path == Path::new("-") {
            return Err(refuse(
                "output-file",
                "-",
                "the survey is a database file; use `smtpsweep export` to write to standard output",
            ));
        }
        return Ok(path.to_owned());
    }
    Ok(PathBuf::from(
        jiff::Timestamp::now()
            .strftime("smtpsweep-%Y%m%d-%H%M%S.db")
            .to_string(),
    ))
}

fn check_output(path: &Path) -> Result<(), ConfigError> {
    if path.symlink_metadata().is_ok() {
        return Err(ConfigError::OutputExists(path.to_owned()));
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match directory {
        Some(directory) if !directory.is_dir() => Err(ConfigError::NoDirectory {
            path: path.to_owned(),
            directory: directory.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The machine's name, if it is fully qualified.
fn host_name() -> Option<Fqdn> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Fqdn::from_str(name.trim()).ok()
}

/// Random octets of the operating system, for the seed and the cookie's nonce.
fn random<const N: usize>(what: &'static str) -> Result<[u8; N], ConfigError> {
    let mut octets = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut source| io::Read::read_exact(&mut source, &mut octets))
        .map_err(|source| refuse(what, "/dev/urandom", source))?;
    Ok(octets)
}
