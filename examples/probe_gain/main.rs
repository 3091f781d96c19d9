//! Which harmless commands tell servers apart, and how well: the measurement behind the order of the
//! dialogue (`src/smtp/plan.rs`, docs/sessions.md).
//!
//! ```text
//! probe_gain record NAME ADDRESS:PORT >> replies.tsv   say each candidate in a session of its own
//! probe_gain errors NAME ADDRESS:PORT                  say XYZZY again and again: the error budget
//! probe_gain table replies.tsv [behaviours.md]         the gain of each candidate
//! ```
//!
//! A reply counts as its code and its text with names, numbers and addresses masked. All servers in
//! the file are taken as equally likely. The entropy, in bits, of the groups into which one reply
//! splits them is what that reply tells; the order is greedy: next comes what tells most beside those
//! before it. Run it against test servers only.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{env, fs};

use smtpsweep::fingerprint::normalise_greeting;

/// Name, octets, and whether a server should answer with an error.
const CANDIDATES: &[(&str, &[u8], bool)] = &[
    ("help", b"HELP\r\n", false),
    ("noop", b"NOOP\r\n", false),
    ("noop contact", b"NOOP abuse@example.org\r\n", false),
    ("unknown", b"XYZZY\r\n", true),
    ("unknown + argument", b"XYZZY abuse@example.org\r\n", true),
    ("nul: NOOP \\0", b"NOOP \0\r\n", true),
    ("nul: HELP\\0", b"HELP\0\r\n", true),
    ("nul: XY\\0ZZY", b"XY\0ZZY\r\n", true),
    ("helo, no argument", b"HELO\r\n", true),
    ("ehlo, no argument", b"EHLO\r\n", true),
    ("empty line", b"\r\n", true),
    ("rset + argument", b"RSET now\r\n", true),
    ("quit + argument", b"QUIT now\r\n", true),
    ("overlong", &OVERLONG, true),
];

const OVERLONG: [u8; 600] = {
    let mut line = [b'X'; 600];
    line[598] = b'\r';
    line[599] = b'\n';
    line
};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["record", name, peer] => record(name, peer),
        ["errors", name, peer] => errors(name, peer),
        ["table", replies, ref corpus @ ..] => table(replies, corpus.first().copied()),
        _ => Err("see the head of examples/probe_gain/main.rs".into()),
    }
}

/// A session that has come to EHLO.
struct Session {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Session {
    fn open(peer: &str) -> Result<(Self, Vec<u8>, Vec<u8>), Failure> {
        let stream = TcpStream::connect(peer)?;
        stream.set_read_timeout(Some(Duration::from_secs(45)))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut session = Self { stream, reader };
        let greeting = session.reply()?;
        let ehlo = session.ask(b"EHLO probe.example.org\r\n")?;
        Ok((session, greeting, ehlo))
    }

    fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>, Failure> {
        self.stream.write_all(command)?;
        self.reply()
    }

    /// The whole reply; as much of it as came before the server closed.
    fn reply(&mut self) -> Result<Vec<u8>, Failure> {
        let mut reply = Vec::new();
        loop {
            let begin = reply.len();
            let read = self.reader.read_until(b'\n', &mut reply);
            if !read.is_ok_and(|n| n > 0) || reply.get(begin + 3) != Some(&b'-') {
                return Ok(reply);
            }
        }
    }
}

fn record(name: &str, peer: &str) -> Result<(), Failure> {
    let print = |probe: &str, took: Duration, open: bool, reply: &[u8]| {
        println!(
            "{name}\t{probe}\t{}\t{}\t{}",
            took.as_millis(),
            if open { "open" } else { "closed" },
            reply.escape_ascii()
        );
    };
    for (probe, command, _) in CANDIDATES {
        let (mut session, greeting, ehlo) = Session::open(peer)?;
        if *probe == "help" {
            print("greeting", Duration::ZERO, true, &greeting);
            print("ehlo", Duration::ZERO, true, &ehlo);
        }
        let begun = Instant::now();
        let reply = session.ask(command)?;
        let took = begun.elapsed();
        let farewell = session.ask(b"QUIT\r\n").unwrap_or_default();
        print(probe, took, !farewell.is_empty(), &reply);
        if *probe == "help" {
            print("quit", Duration::ZERO, true, &farewell);
        }
    }
    Ok(())
}

fn errors(name: &str, peer: &str) -> Result<(), Failure> {
    let (mut session, _, _) = Session::open(peer)?;
    for n in 1..=8 {
        let begun = Instant::now();
        let reply = session.ask(b"XYZZY\r\n").unwrap_or_default();
        let took = begun.elapsed().as_millis();
        println!("{name}\t{n}\t{took} ms\t{}", reply.escape_ascii());
        if reply.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Which group each server falls into, by what it answers.
type Groups<'a> = BTreeMap<&'a str, String>;

fn table(replies: &str, corpus: Option<&str>) -> Result<(), Failure> {
    let text = fs::read_to_string(replies)?;
    let mut answers: BTreeMap<&str, Groups<'_>> = BTreeMap::new();
    let mut codes: BTreeMap<&str, Groups<'_>> = BTreeMap::new();
    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut closed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let [server, probe, _, state, reply] = cells[..] else {
            return Err(format!("{replies}: not five columns: {line}").into());
        };
        let reply = unescape(reply);
        let group = normalise_greeting(&reply);
        answers.entry(probe).or_default().insert(server, group);
        *failed.entry(probe).or_default() += usize::from(reply.starts_with(b"5"));
        codes.entry(probe).or_default().insert(server, code(&reply));
        if state == "closed" && !probe.starts_with("quit") {
            closed.entry(probe).or_default().insert(server);
        }
    }
    let servers: BTreeSet<&str> = answers.values().flat_map(BTreeMap::keys).copied().collect();
    let most = (servers.len() as f64).log2();
    println!(
        "{} servers, {most:.2} bits to tell them all apart\n",
        servers.len()
    );
    println!("| reply to | text | code | errors | closes after it |\n|---|---|---|---|---|");
    let mut alone: Vec<_> = answers
        .iter()
        .map(|(p, g)| (entropy(&servers, &[g]), *p))
        .collect();
    alone.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (bits, probe) in &alone {
        let by_code = entropy(&servers, &[&codes[probe]]);
        let closers: Vec<&str> = closed.get(probe).into_iter().flatten().copied().collect();
        let errors = failed[probe];
        println!(
            "| {probe} | {bits:.2} | {by_code:.2} | {errors} | {} |",
            closers.join(", ")
        );
    }
    for (title, answers) in [("by text", &answers), ("by code", &codes)] {
        for given in [&[][..], &["help"], &["ehlo", "quit"]] {
            println!("\ngreedy, {title}, {} known:\n", given.join(", "));
            println!("| reply to | gain | together | groups |\n|---|---|---|---|");
            greedy(&servers, answers, given);
        }
    }
    corpus.map_or(Ok(()), known)
}

fn greedy(servers: &BTreeSet<&str>, answers: &BTreeMap<&str, Groups<'_>>, given: &[&str]) {
    let mut chosen: Vec<&Groups<'_>> = given.iter().map(|probe| &answers[*probe]).collect();
    let mut before = entropy(servers, &chosen);
    let mut left: Vec<&str> = CANDIDATES
        .iter()
        .map(|c| c.0)
        .filter(|probe| answers.contains_key(probe))
        .collect();
    println!(
        "| {} | | {before:.2} | {} |",
        given.join(", "),
        groups(servers, &chosen)
    );
    while !left.is_empty() {
        let with = |probe: &str| {
            let mut all = chosen.clone();
            all.push(&answers[probe]);
            entropy(servers, &all)
        };
        let Some(best) = (0..left.len()).max_by(|a, b| with(left[*a]).total_cmp(&with(left[*b])))
        else {
            return;
        };
        let probe = left.remove(best);
        chosen.push(&answers[probe]);
        let after = entropy(servers, &chosen);
        if after - before < 0.005 {
            return;
        }
        println!(
            "| {probe} | {:+.2} | {after:.2} | {} |",
            after - before,
            groups(servers, &chosen)
        );
        before = after;
    }
}

fn sizes(servers: &BTreeSet<&str>, by: &[&Groups<'_>]) -> Vec<usize> {
    let mut groups: BTreeMap<Vec<Option<&String>>, usize> = BTreeMap::new();
    for server in servers {
        let key = by.iter().map(|answers| answers.get(server)).collect();
        *groups.entry(key).or_default() += 1;
    }
    groups.into_values().collect()
}

fn groups(servers: &BTreeSet<&str>, by: &[&Groups<'_>]) -> usize {
    sizes(servers, by).len()
}

/// The entropy, in bits, of the groups into which those answers together split the servers.
fn entropy(servers: &BTreeSet<&str>, by: &[&Groups<'_>]) -> f64 {
    let all = servers.len() as f64;
    sizes(servers, by)
        .into_iter()
        .map(|size| size as f64 / all)
        .map(|share| -share * share.log2())
        .sum()
}

/// The reply's code, its enhanced code, and whether it has several lines: what no translation and no
/// disguise of words changes.
fn code(reply: &[u8]) -> String {
    let mut words = reply.split(|b| b.is_ascii_whitespace() || *b == b'-');
    let code = words.next().unwrap_or_default();
    let enhanced = words
        .next()
        .filter(|w| w.iter().filter(|b| **b == b'.').count() == 2);
    let lines = reply.iter().filter(|b| **b == b'\n').count().min(2);
    format!(
        "{} {} {lines}",
        code.escape_ascii(),
        enhanced.unwrap_or_default().escape_ascii()
    )
}

/// What a collection of known replies (product, probe, reply) says of each probe: the entropy over
/// those products of which the reply is known.
fn known(path: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(path)?;
    let mut answers: BTreeMap<&str, Groups<'_>> = BTreeMap::new();
    let mut product = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("### ") {
            product = name;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", _, probe, reply, _, _, ""] = cells[..]
            && let Some(reply) = reply.strip_prefix('`')
        {
            let group = normalise_greeting(reply.trim_end_matches('`').as_bytes());
            answers.entry(probe).or_default().insert(product, group);
        }
    }
    println!(
        "\n{path}:\n\n| reply to | products | groups | bits | of at most |\n|---|---|---|---|---|"
    );
    let mut rows: Vec<_> = answers
        .iter()
        .filter(|(_, groups)| groups.len() >= 5)
        .map(|(probe, answers)| {
            let products: BTreeSet<&str> = answers.keys().copied().collect();
            let bits = entropy(&products, &[answers]);
            (bits, *probe, products.len(), groups(&products, &[answers]))
        })
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (bits, probe, products, groups) in rows {
        let most = (products as f64).log2();
        println!("| {probe} | {products} | {groups} | {bits:.2} | {most:.2} |");
    }
    Ok(())
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        match rest.next() {
            Some(b'r') => octets.push(b'\r'),
            Some(b'n') => octets.push(b'\n'),
            Some(b't') => octets.push(b'\t'),
            Some(b'x') => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).unwrap_or(0);
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                octets.push(u8::try_from(high * 16 + low).unwrap_or(0));
            }
            Some(other) => octets.push(other),
            None => {}
        }
    }
    octets
}
