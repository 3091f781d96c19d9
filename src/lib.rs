//! `smtpsweep`: which mail server software runs at every address that accepts TCP port 25?
//!
//! A stateless SYN sender walks a permutation of the address space minus a blocklist; a receiver
//! validates the replies; each address that answers SYN-ACK gets one polite SMTP dialogue, whose
//! transcript is classified by rules and stored in one SQLite file.
//!
//! ```text
//! target → probe → reply → responder → session → transcript → verdict → record → report
//! ```
//!
//! | module | one idea |
//! |---|---|
//! | [`targets`] | which addresses, in which order |
//! | [`rate`] | when the next packet may leave |
//! | [`wire`] | frames: Ethernet, ARP, IPv4, TCP, ICMP |
//! | [`smtp`] | commands, replies, the dialogue, its transcript and outcome |
//! | [`probe`] | the SYN, the cookie in it, and what a reply means |
//! | [`net`] | frames in and out of the machine; routes; every `unsafe` |
//! | [`session`] | thousands of dialogues on one thread |
//! | [`fingerprint`] | transcript → verdict |
//! | [`store`] | the survey file |
//! | [`report`] | tables out of stored rows |
//! | [`status`], [`config`] | counters → lines; options → a plan |
//! | [`run`] | the whole sweep: threads, channels, shutdown, accounting |
//! | [`cli`], [`command`] | what the user typed; exit codes |
//!
//! `docs/architecture.md` has the rules this layout keeps, `docs/decisions.md` the reasons.

pub mod cli;
pub mod command;
pub mod config;
pub mod fingerprint;
pub mod net;
pub mod probe;
pub mod rate;
pub mod report;
pub mod run;
pub mod session;
pub mod smtp;
pub mod status;
pub mod store;
pub mod targets;
pub mod wire;
