//! Loading the rules and classifying what servers say.
//!
//! `cargo bench --bench fingerprint`. A session is all replies of a behaviour dialogue.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use smtpsweep::fingerprint::{Classifier, Observation, Replies, RuleSet, normalise_greeting};
use smtpsweep::smtp::Stage;

/// What a server says at every step of a behaviour dialogue, as stage and text.
type Session = &'static [(Stage, &'static str)];

/// Five servers, as a sweep meets them: three that are common, one disguised, one unknown.
const SESSIONS: &[Session] = &[
    &[
        (
            Stage::Greeting,
            "220 mx1.example.com ESMTP Postfix (Debian/GNU)\r\n",
        ),
        (Stage::Ehlo, POSTFIX_EHLO),
        (Stage::Help, "502 5.5.2 Error: command not recognized\r\n"),
        (Stage::Noop, "250 2.0.0 Ok\r\n"),
        (
            Stage::Unknown,
            "502 5.5.2 Error: command not recognized\r\n",
        ),
        (Stage::Nul, "502 5.5.2 Error: command not recognized\r\n"),
        (Stage::HeloNoarg, "501 Syntax: HELO hostname\r\n"),
        (
            Stage::Overlong,
            "502 5.5.2 Error: command not recognized\r\n",
        ),
        (Stage::Quit, "221 2.0.0 Bye\r\n"),
    ],
    &[
        (
            Stage::Greeting,
            "220 mail.example.net ESMTP Exim 4.96 Sun, 22 Nov 2026 21:42:53 +0000\r\n",
        ),
        (
            Stage::Ehlo,
            "250-mail.example.net Hello probe.example.org [198.51.100.7]\r\n250-SIZE 52428800\r\n\
             250-8BITMIME\r\n250-PIPELINING\r\n250-PIPECONNECT\r\n250-CHUNKING\r\n250-STARTTLS\r\n\
             250-PRDR\r\n250 HELP\r\n",
        ),
        (
            Stage::Help,
            "214-Commands supported:\r\n214 AUTH STARTTLS HELO EHLO MAIL RCPT DATA BDAT NOOP QUIT RSET HELP\r\n",
        ),
        (Stage::Noop, "250 OK\r\n"),
        (Stage::Unknown, "500 unrecognized command\r\n"),
        (
            Stage::Nul,
            "501 NUL characters are not allowed in SMTP commands\r\n",
        ),
        (
            Stage::HeloNoarg,
            "501 Syntactically invalid HELO argument(s)\r\n",
        ),
        (Stage::Overlong, "500 unrecognized command\r\n"),
        (Stage::Quit, "221 mail.example.net closing connection\r\n"),
    ],
    &[
        (
            Stage::Greeting,
            "220 exchange.example.org Microsoft ESMTP MAIL Service ready at Sun, 22 Nov 2026 21:42:53 +0100\r\n",
        ),
        (
            Stage::Ehlo,
            "250-exchange.example.org Hello [198.51.100.7]\r\n250-SIZE 37748736\r\n250-PIPELINING\r\n\
             250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-STARTTLS\r\n250-X-ANONYMOUSTLS\r\n250-AUTH NTLM\r\n\
             250-X-EXPS GSSAPI NTLM\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250-CHUNKING\r\n250 XRDST\r\n",
        ),
        (
            Stage::Help,
            "214-This server supports the following commands:\r\n214 HELO EHLO STARTTLS RCPT DATA RSET MAIL QUIT HELP AUTH BDAT\r\n",
        ),
        (Stage::Noop, "250 2.0.0 OK\r\n"),
        (Stage::Unknown, "500 5.3.3 Unrecognized command 'XYZZY'\r\n"),
        (Stage::Nul, "500 5.3.3 Unrecognized command 'NOOP '\r\n"),
        (
            Stage::HeloNoarg,
            "250 exchange.example.org Hello [198.51.100.7]\r\n",
        ),
        (
            Stage::Overlong,
            "500 5.3.3 Unrecognized command 'XXXXXX'\r\n",
        ),
        (
            Stage::Quit,
            "221 2.0.0 Service closing transmission channel\r\n",
        ),
    ],
    &[
        (Stage::Greeting, "220 relay.example.com ESMTP\r\n"),
        (Stage::Ehlo, POSTFIX_EHLO),
        (Stage::Help, "502 5.5.2 Error: command not recognized\r\n"),
        (
            Stage::Unknown,
            "502 5.5.2 Error: command not recognized\r\n",
        ),
        (Stage::HeloNoarg, "501 Syntax: HELO hostname\r\n"),
        (Stage::Quit, "221 2.0.0 Bye\r\n"),
    ],
    &[
        (
            Stage::Greeting,
            "220 mail.example.org Nobody knows; Sun, 22 Nov 2026 21:42:53 +0000\r\n",
        ),
        (
            Stage::Ehlo,
            "250-mail.example.org\r\n250-SIZE 1000000\r\n250-STARTTLS\r\n250 HELP\r\n",
        ),
        (Stage::Help, "214 no help\r\n"),
        (Stage::Unknown, "500 what?\r\n"),
        (Stage::Quit, "221 see you\r\n"),
    ],
];

const POSTFIX_EHLO: &str = "250-mx1.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n\
     250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n\
     250 CHUNKING\r\n";

/// A session of a host of that number: host names differ from host to host, as they do.
fn session(replies: Session, host: usize) -> Replies {
    let mut said = Replies::default();
    for (stage, text) in replies {
        let text = text.replace(".example.", &format!("{host}.example."));
        said.set(*stage, text.into_bytes());
    }
    said
}

/// So many hosts, of all kinds.
fn hosts(n: usize) -> Vec<Replies> {
    (0..n)
        .map(|host| session(SESSIONS[host % SESSIONS.len()], host))
        .collect()
}

fn main() {
    divan::main();
}

#[divan::bench]
fn load_builtin() -> RuleSet {
    RuleSet::builtin()
}

/// Whole sessions of hosts that differ by their names, judged one after another by one thread.
#[divan::bench]
fn classify_sessions(bencher: Bencher<'_, '_>) {
    let rules = RuleSet::builtin();
    let hosts = hosts(1000);
    let mut classifier = rules.classifier();
    bencher
        .counter(ItemsCount::new(hosts.len()))
        .bench_local(|| judge(&mut classifier, &hosts));
}

/// The same with nothing remembered from host to host.
#[divan::bench]
fn classify_sessions_each_anew(bencher: Bencher<'_, '_>) {
    let rules = RuleSet::builtin();
    let hosts = hosts(1000);
    let mut classifier = rules.classifier().forgetful();
    bencher
        .counter(ItemsCount::new(hosts.len()))
        .bench_local(|| judge(&mut classifier, &hosts));
}

fn judge(classifier: &mut Classifier<'_>, hosts: &[Replies]) -> usize {
    let named = |replies: &Replies| {
        classifier
            .classify(&replies.observation())
            .product
            .is_some()
    };
    hosts.iter().map(named).filter(|named| *named).count()
}

/// Replies made to be slow: long, never the same, full of what patterns look for.
#[divan::bench]
fn classify_hostile(bencher: Bencher<'_, '_>) {
    let rules = RuleSet::builtin();
    let mut classifier = rules.classifier();
    let seed = AtomicU64::new(1);
    bencher
        .with_inputs(|| (hostile(&seed), hostile(&seed)))
        .bench_local_refs(|(greeting, ehlo)| {
            let observation = Observation::only(Stage::Greeting, greeting).with(Stage::Ehlo, ehlo);
            classifier.classify(black_box(&observation))
        });
}

fn hostile(shared: &AtomicU64) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "ESMTP",
        "SMTP",
        "Sendmail",
        "Exim",
        "4.9",
        "ready",
        "Hello",
        "[192.0.2.1]",
        "\n250-SIZE 1",
        "\n250-PIPELINING",
        "FTP",
        "Service",
        "(",
        "version",
        "Lotus",
        "\n250-8BITMIME",
        "x.y",
        "*",
    ];
    let mut seed = shared.load(Relaxed);
    let mut text = b"220 h.example ".to_vec();
    while text.len() < 16 * 1024 {
        // xorshift: the bench needs variety, not quality.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let word = usize::try_from(seed % 1024).unwrap_or(0);
        text.extend_from_slice(WORDS[word % WORDS.len()].as_bytes());
        if word > 100 {
            text.push(b' ');
        }
    }
    shared.store(seed, Relaxed);
    text
}

#[divan::bench]
fn normalise() -> String {
    normalise_greeting(black_box(
        b"220 mail.example.org Nobody knows 3.14; Sun, 22 Nov 2026 21:42:53 +0000\r\n",
    ))
}

/// The same sessions against ever more rules: the built-in ones and as many more products, each with
/// patterns on three stages.
#[divan::bench(args = [0, 100, 300, 1000, 3000])]
fn classify_sessions_with_more_products(bencher: Bencher<'_, '_>, products: usize) {
    let text = products_of(products);
    let rules = with_builtin(&text);
    let hosts = hosts(1000);
    let mut classifier = rules.classifier();
    bencher
        .counter(ItemsCount::new(hosts.len()))
        .bench_local(|| judge(&mut classifier, &hosts));
}

/// Reading and building ever more rules, beside the built-in ones.
#[divan::bench(args = [0, 1000, 3000])]
fn load_with_more_products(bencher: Bencher<'_, '_>, products: usize) {
    let text = products_of(products);
    bencher.bench(|| with_builtin(black_box(&text)));
}

/// The built-in rules and those of a text.
fn with_builtin(text: &str) -> RuleSet {
    let builtin = RuleSet::builtin_sources().iter().copied();
    let sources: Vec<_> = builtin.chain([("bench.toml", text)]).collect();
    RuleSet::parse_trusted(&sources).expect("generated rules are sound")
}

/// Rules for so many made-up products.
fn products_of(products: usize) -> String {
    let mut text = String::from("family = \"Bench\"\n");
    for n in 0..products {
        let _ = write!(
            text,
            "[[product]]\nname = \"P{n}\"\ncategory = \"other\"\n[[product.pattern]]\n\
             on = \"greeting\"\nregex = '\\bESMTP Product{n}x (?P<version>[0-9.]+)'\nweight = 17\n\
             examples = [{{ text = \"220 h ESMTP Product{n}x 1\", version = \"1\" }}]\n\
             [[product.pattern]]\non = \"ehlo\"\nregex = '\\nX-PRODUCT-{n}(?:\\n|$)'\nweight = 17\n\
             examples = [{{ text = \"250-h\\r\\n250 X-PRODUCT-{n}\" }}]\n\
             [[product.pattern]]\non = \"unknown\"\nregex = '^500 .*command of {n} unknown'\nweight = 17\n\
             examples = [{{ text = \"500 your command of {n} unknown\" }}]\n"
        );
    }
    text
}
