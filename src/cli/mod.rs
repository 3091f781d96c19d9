//! What the user typed: the command line as clap structs, and nothing else.
//!
//! What it means (defaults that depend on the machine, units, conflicts) is decided in
//! [`crate::config`]. Option names are zmap's and zgrab2's where these have one.

mod scan;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::smtp::Timeouts;

pub use scan::ScanArgs;

/// Exit codes and signals, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0    complete: every target was probed and every responder's session is stored
  1    fatal: the machine, the network or the survey file failed; what was stored stays
  2    usage: a wrong option, an unreadable or malformed input, no target left
  3    stopped at a limit (--max-runtime, --max-results) before all targets were probed
  130  stopped by Ctrl-C (SIGINT), 143 by SIGTERM, 129 by SIGHUP; what was seen is stored

Signals: the first of these stops sending, waits for the cooldown and lets open sessions end;
responders still waiting for theirs are stored as interrupted. A second one closes sessions at
once (still one record each).";

/// Exit codes of `probe`, as its `--help` shows them.
const PROBE_EXIT_CODES: &str = "\
Exit codes:
  0    a connection came about, and its dialogue ended in the outcome that is shown
  1    no connection came about (the outcome is shown all the same), or probe failed itself
  2    usage: a wrong option, or a blocked address

Unlike a sweep, probe dials without having sent a SYN of its own before.";

/// Exit codes of `classify`, as its `--help` shows them.
const CLASSIFY_EXIT_CODES: &str = "\
Exit codes:
  0    everything was judged
  1    a line of the input is no record (it is told, the others are judged), or classify failed
  2    usage: a wrong option, or malformed rules";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "smtpsweep", version, about, after_help = EXIT_CODES)]
#[command(propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sweep addresses for mail servers: SYN, dialogue, verdict, survey file
    Scan(Box<ScanArgs>),
    /// Hold one dialogue with one address and show it as it happens, with the verdict
    Probe(ProbeArgs),
    /// Print the tables of a survey file
    Report(ReportArgs),
    /// Apply today's rules to a survey file's transcripts, or to replies in JSON lines
    Classify(ClassifyArgs),
    /// Write the hosts of a survey file as NDJSON or CSV
    Export(ExportArgs),
    /// Check, list, explain, measure or draft fingerprint rules
    Rules(RulesArgs),
}

/// How the SMTP dialogue is held; shared by `scan` and `probe`.
#[derive(Debug, Clone, Args)]
pub struct DialogueArgs {
    /// Name to say in EHLO: a fully qualified domain name that leads to you
    ///
    /// Without it the machine's own name is used if it is fully qualified, else the source
    /// address as an address literal (RFC 5321, section 4.1.3).
    #[arg(long, value_name = "FQDN", help_heading = "Dialogue")]
    pub ehlo_name: Option<String>,
    /// How far to go: `banner` (greeting), `ehlo`, or `behaviour` (HELP and harmless errors as well)
    ///
    /// `behaviour` says ten commands at the most, QUIT included, none that could start a transaction, and
    /// stops when the verdict is certain or the server shows signs of trouble.
    #[arg(
        long,
        value_name = "DEPTH",
        default_value = "behaviour",
        value_parser = ["banner", "ehlo", "behaviour"],
        help_heading = "Dialogue"
    )]
    pub dialogue: String,
    /// Mail address or web page for those who wonder about us
    ///
    /// It is said to each server after EHLO (`NOOP abuse@example.org`), and stands behind the unknown
    /// verb (`XYZZY abuse@example.org`), because servers log what they do not understand.
    #[arg(long, value_name = "CONTACT", help_heading = "Dialogue")]
    pub contact: Option<String>,
    /// Ask for TLS where it is offered, and say EHLO again inside
    ///
    /// The handshake takes whatever the server can do, TLS 1.0 to 1.3, and verifies nothing: version,
    /// cipher suite and certificates are recorded.
    #[arg(long, help_heading = "Dialogue")]
    pub starttls: bool,
    /// Begin with TLS, before the greeting (default where the target port is 465)
    #[arg(long, conflicts_with = "starttls", help_heading = "Dialogue")]
    pub smtps: bool,
    /// Host name to ask for in TLS [default: none, since a sweep knows addresses only]
    #[arg(long, value_name = "NAME", help_heading = "Dialogue")]
    pub sni: Option<String>,
    /// Seconds to wait for the session's connection to be established
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = Timeouts::DEFAULT.connect.as_secs_f64(),
        help_heading = "Dialogue"
    )]
    pub connect_timeout: f64,
    /// Seconds to wait for the greeting (servers with a greet delay take many)
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = Timeouts::DEFAULT.greeting.as_secs_f64(),
        help_heading = "Dialogue"
    )]
    pub greeting_timeout: f64,
    /// Seconds to wait for the answer to a command
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = Timeouts::DEFAULT.step.as_secs_f64(),
        help_heading = "Dialogue"
    )]
    pub step_timeout: f64,
    /// Seconds a whole session may take
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = Timeouts::DEFAULT.session.as_secs_f64(),
        help_heading = "Dialogue"
    )]
    pub session_timeout: f64,
}

/// Which addresses must not be contacted; shared by `scan` and `probe`.
#[derive(Debug, Clone, Args)]
pub struct BlocklistArgs {
    /// File of addresses and CIDRs never to probe, added to the default blocklist (repeatable)
    #[arg(short, long, value_name = "FILE", help_heading = "Targets")]
    pub blocklist_file: Vec<PathBuf>,
    /// Take the built-in blocklist of special-purpose ranges away (test networks only)
    #[arg(long, help_heading = "Targets")]
    pub no_default_blocklist: bool,
}

/// `smtpsweep probe`.
#[derive(Debug, Args)]
#[command(after_help = PROBE_EXIT_CODES)]
pub struct ProbeArgs {
    /// IPv4 address or host name
    pub host: String,
    /// TCP port
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 25)]
    pub target_port: u16,
    /// Blocklist options.
    #[command(flatten)]
    pub blocklist: BlocklistArgs,
    /// Dialogue options.
    #[command(flatten)]
    pub dialogue: DialogueArgs,
    /// Directory of rules/*.toml to use instead of the built-in rules
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
}

/// `smtpsweep report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Survey file
    pub file: PathBuf,
    /// Write the figures as JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Level at which products are counted
    #[arg(long, value_enum, default_value_t = ReportLevel::Product)]
    pub by: ReportLevel,
}

/// The levels of `smtpsweep report --by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportLevel {
    /// Each product, with its versions
    Product,
    /// Products of one family together
    Family,
    /// Families that belong together as one (Symantec under Broadcom)
    RootFamily,
    /// Products of one vendor together
    Vendor,
    /// Products of one kind together
    Category,
}

/// `smtpsweep classify`.
#[derive(Debug, Args)]
#[command(after_help = CLASSIFY_EXIT_CODES)]
pub struct ClassifyArgs {
    /// Survey file; with --ndjson a file of JSON lines, or - for standard input
    pub file: PathBuf,
    /// Judge replies, one JSON object a line, and print a verdict a line
    ///
    /// An object has any of "greeting", "ehlo", "helo", "help", "noop", "unknown", "nul",
    /// "helo_noarg", "overlong", "starttls", "tls", "tls_ehlo" and "quit", each as text or as
    /// {"base64": "…"}, and an "id" that is given back; or it is zgrab2's. Other keys are ignored.
    #[arg(long)]
    pub ndjson: bool,
    /// Directory of rules/*.toml to use instead of the built-in rules
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
}

/// The formats of `smtpsweep export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One JSON object a line: zmap's fields and zgrab2's envelope
    Ndjson,
    /// One row a host; transcripts only where -f names them
    Csv,
}

/// `smtpsweep export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Survey file
    #[arg(required_unless_present = "list_output_fields")]
    pub file: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    pub format: ExportFormat,
    /// CSV columns or NDJSON keys, separated by commas; `*` is all of them
    #[arg(short = 'f', long, value_name = "FIELDS")]
    pub output_fields: Option<String>,
    /// List the columns with their types and meanings, and stop
    #[arg(long)]
    pub list_output_fields: bool,
    /// Leave the header row of CSV out
    #[arg(long)]
    pub no_header_row: bool,
    /// File to write (default: standard output); must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output_file: Option<PathBuf>,
}

/// `smtpsweep rules`.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// Directory of rules/*.toml to use instead of the built-in rules
    #[arg(long, value_name = "DIR", global = true)]
    pub rules: Option<PathBuf>,
    /// What to do with them.
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// The commands on rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Check that every example matches its rule and no other product wins
    Check(CheckArgs),
    /// List the products the rules know
    List,
    /// Show what matched, with which weight, and the runner-up
    Explain(ExplainArgs),
    /// List what a survey's unknown servers have in common, or draft a rule for a cluster of them
    Suggest(SuggestArgs),
    /// Measure the rules on labelled replies and print the figures in Markdown
    Accuracy(AccuracyArgs),
}

/// `smtpsweep rules check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// List patterns that match another product's example, and those tried on every reply
    #[arg(long)]
    pub overlaps: bool,
}

/// `smtpsweep rules suggest`.
#[derive(Debug, Args)]
pub struct SuggestArgs {
    /// Survey file
    pub file: PathBuf,
    /// Cluster to draft a rule for, as the list names it: g1, g2, … by greeting, b1, b2, … by behaviour
    pub cluster: Option<String>,
    /// Clusters of each kind to list
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub clusters: usize,
}

/// `smtpsweep rules accuracy`.
#[derive(Debug, Args)]
pub struct AccuracyArgs {
    /// Files of labelled replies, one JSON object a line
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Tell every row that is not right
    #[arg(long)]
    pub wrong: bool,
    /// File to write the reliability diagram to
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Per cent of the identifiable rows that must be right, else the exit code is 1
    #[arg(long, value_name = "PERCENT", help_heading = "Thresholds")]
    pub min_right: Option<f64>,
    /// Per cent of them that may be wrong
    #[arg(long, value_name = "PERCENT", help_heading = "Thresholds")]
    pub max_wrong: Option<f64>,
    /// Per cent of the negatives that may be given a product
    #[arg(long, value_name = "PERCENT", help_heading = "Thresholds")]
    pub max_false: Option<f64>,
    /// Per cent of the disguised sessions whose family must be right
    #[arg(long, value_name = "PERCENT", help_heading = "Thresholds")]
    pub min_disguised: Option<f64>,
}

/// `smtpsweep rules explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Survey file to take the transcript from
    #[arg(requires = "address", conflicts_with_all = ["greeting", "ehlo", "helo", "quit", "reply"])]
    pub file: Option<PathBuf>,
    /// Address of the host within the survey file
    pub address: Option<std::net::Ipv4Addr>,
    /// A greeting, such as "220 mx.example ESMTP Postfix"
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["file", "ehlo", "helo", "quit", "reply"])]
    pub greeting: Option<String>,
    /// A reply to EHLO (\r and \n are understood)
    #[arg(long, value_name = "TEXT")]
    pub ehlo: Option<String>,
    /// A reply to HELO
    #[arg(long, value_name = "TEXT")]
    pub helo: Option<String>,
    /// A reply to QUIT
    #[arg(long, value_name = "TEXT")]
    pub quit: Option<String>,
    /// A reply at any other stage, such as unknown="500 what?"
    #[arg(long, value_name = "STAGE=TEXT")]
    pub reply: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::session::{MAX_SESSIONS, MAX_SESSIONS_PER_24};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn its_defaults_are_those_of_the_library() {
        let cli = Cli::try_parse_from(["smtpsweep", "scan", "192.0.2.1"]).expect("a command line");
        let Command::Scan(args) = cli.command else {
            panic!("not a scan");
        };
        assert_eq!(args.max_sessions as usize, MAX_SESSIONS);
        assert_eq!(args.max_sessions_per_24 as usize, MAX_SESSIONS_PER_24);
        assert!((args.dialogue.session_timeout - 180.0).abs() < 1e-9);
    }
}
