//! Loading the rules and classifying what servers say.
//!
//! `cargo bench --bench fingerprint`; times are per transcript (greeting, EHLO and QUIT replies).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use divan::{Bencher, black_box};
use smtpsweep::fingerprint::{Observation, RuleSet, normalise_greeting};
use smtpsweep::smtp::Stage;

fn postfix() -> Observation<'static> {
    Observation::only(
        Stage::Greeting,
        b"220 mx1.example.com ESMTP Postfix (Debian/GNU)\r\n",
    )
    .with(
        Stage::Ehlo,
        b"250-mx1.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n\
          250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n\
          250 CHUNKING\r\n",
    )
    .with(Stage::Quit, b"221 2.0.0 Bye\r\n")
}

fn unknown() -> Observation<'static> {
    Observation::only(
        Stage::Greeting,
        b"220 mail.example.org Nobody knows 3.14; Sun, 22 Nov 2026 21:42:53 +0000\r\n",
    )
    .with(
        Stage::Ehlo,
        b"250-mail.example.org\r\n250-SIZE 1000000\r\n250-STARTTLS\r\n250 HELP\r\n",
    )
    .with(Stage::Quit, b"221 see you\r\n")
}

fn main() {
    divan::main();
}

#[divan::bench]
fn load_builtin() -> RuleSet {
    RuleSet::builtin()
}

#[divan::bench]
fn classify_named(bencher: Bencher<'_, '_>) {
    let rules = RuleSet::builtin();
    bencher.bench(|| rules.classify(black_box(&postfix())));
}

#[divan::bench]
fn classify_unknown(bencher: Bencher<'_, '_>) {
    let rules = RuleSet::builtin();
    bencher.bench(|| rules.classify(black_box(&unknown())));
}

/// Replies made to be slow: long, never the same, full of what patterns look for.
#[divan::bench]
fn classify_hostile(bencher: Bencher<'_, '_>) {
    let rules = RuleSet::builtin();
    let seed = AtomicU64::new(1);
    bencher
        .with_inputs(|| (hostile(&seed), hostile(&seed)))
        .bench_refs(|(greeting, ehlo)| {
            let observation = Observation::only(Stage::Greeting, greeting).with(Stage::Ehlo, ehlo);
            rules.classify(black_box(&observation))
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
        unknown().reply(Stage::Greeting).unwrap_or_default(),
    ))
}

/// The same transcript against ever more products, to show how cost grows with the rules.
#[divan::bench(args = [100, 300, 1000, 3000])]
fn classify_with_rules(bencher: Bencher<'_, '_>, products: usize) {
    let mut text = String::from("family = \"Bench\"\n");
    for n in 0..products {
        let _ = write!(
            text,
            "[[product]]\nname = \"P{n}\"\ncategory = \"other\"\n[[product.pattern]]\n\
             on = \"greeting\"\nregex = '\\bESMTP Product{n}x (?P<version>[0-9.]+)'\nweight = 17\n\
             examples = [{{ text = \"220 h ESMTP Product{n}x 1\", version = \"1\" }}]\n"
        );
    }
    let rules = RuleSet::parse(&[("bench.toml", &text)]).expect("generated rules are sound");
    let named = postfix().with(Stage::Greeting, b"220 h.example ESMTP Product42x 3.2\r\n");
    bencher.bench(|| rules.classify(black_box(&named)));
}
