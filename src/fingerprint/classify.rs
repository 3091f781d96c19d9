//! From an observation to a verdict.
//!
//! Each reply is brought into its views, the patterns that match are found in one pass over each
//! view ([`super::matcher`]), and what they weigh is decided ([`super::decide`]). Captures are taken
//! afterwards and from the patterns of the winning product only: they cost more than finding out
//! which patterns match.

use std::sync::Arc;

use super::decide::{Decision, THRESHOLD, Tally, calibrated};
use super::declared::declared;
use super::matcher::{Hit, Scratch};
use super::normalise::normalise_greeting;
use super::release;
use super::rule::{Owner, Pattern};
use super::ruleset::RuleSet;
use super::verdict::{
    CLAIM, Candidate, Evidence, Explanation, FRONT, Match, Observation, SELF_DECLARED, Verdict,
};
use super::view::{View, code_of};
use crate::smtp::Stage;

/// Confidence of a product that the greeting itself declares and no rule knows.
const DECLARED_WITH_VERSION: f64 = 0.7;

/// The same without a version.
const DECLARED_BARE: f64 = 0.55;

/// What a verdict counts whose greeting had lost its code: the text may be another protocol's.
const CODE_LOST: f64 = 0.97;

/// Stages of a dialogue.
const STAGES: usize = Stage::ALL.len();

/// Judges one observation after another, with memory of what many servers say alike.
#[derive(Debug)]
pub struct Classifier<'r> {
    rules: &'r RuleSet,
    scratch: Scratch,
    views: Views,
    /// Patterns that are left out, by index; none if empty.
    without: Vec<bool>,
}

/// The views of a session's replies, in memory that is used again.
#[derive(Debug, Default)]
struct Views {
    views: [View; STAGES],
    /// Which of them stand for a reply, as bits.
    present: u32,
    /// Whether the greeting came without its code, and was given one.
    code_lost: bool,
}

/// What matched, and what follows from it.
#[derive(Debug, Default)]
struct Findings {
    /// The patterns of products that matched: stage by stage.
    hits: Vec<(Arc<[Hit]>, usize)>,
    /// The first pattern of a protocol that is not mail.
    other_protocol: Option<usize>,
    tallies: Vec<Tally>,
    decision: Decision,
}

impl RuleSet {
    /// Something to judge many observations with.
    pub fn classifier(&self) -> Classifier<'_> {
        Classifier {
            rules: self,
            scratch: Scratch::new(self.patterns.len(), true),
            views: Views::default(),
            without: Vec::new(),
        }
    }

    /// Which product said this. To judge many, take a [`RuleSet::classifier`].
    pub fn classify(&self, observation: &Observation<'_>) -> Verdict {
        self.single().classify(observation)
    }

    /// Which product said this, with everything that was weighed.
    pub fn explain(&self, observation: &Observation<'_>) -> Explanation {
        self.single().explain(observation)
    }

    fn single(&self) -> Classifier<'_> {
        Classifier {
            rules: self,
            scratch: Scratch::new(self.patterns.len(), false),
            views: Views::default(),
            without: Vec::new(),
        }
    }
}

impl Views {
    fn view(&self, stage: Stage) -> Option<&View> {
        (self.present & (1 << stage as u32) != 0).then(|| &self.views[stage as usize])
    }

    fn fill(&mut self, observation: &Observation<'_>) {
        self.present = 0;
        self.code_lost = false;
        for &stage in Stage::ALL {
            if let Some(reply) = observation.reply(stage) {
                self.views[stage as usize].fill(stage, reply);
                self.present |= 1 << stage as u32;
            }
        }
    }

    fn code(&self, stage: Stage) -> Option<u16> {
        self.view(stage).and_then(View::code)
    }
}

impl Classifier<'_> {
    /// Which product said this.
    pub fn classify(&mut self, observation: &Observation<'_>) -> Verdict {
        let findings = self.find(observation);
        self.verdict(observation, &findings)
    }

    /// Which product said this, with everything that was weighed.
    pub fn explain(&mut self, observation: &Observation<'_>) -> Explanation {
        let findings = self.find(observation);
        self.explanation(observation, &findings)
    }

    /// The same without memory of what was said before.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.scratch = Scratch::new(self.rules.patterns.len(), false);
        self
    }

    /// The same without the patterns of which `leave_out` says so, given their identifiers: to see
    /// what the others do.
    #[must_use]
    pub fn without(mut self, leave_out: impl Fn(&str) -> bool) -> Self {
        self.without = self
            .rules
            .patterns
            .iter()
            .map(|p| leave_out(&p.id))
            .collect();
        self
    }

    /// Finds what matches and decides; what is said without a code is tried with one.
    fn find(&mut self, observation: &Observation<'_>) -> Findings {
        self.views.fill(observation);
        let findings = self.matches();
        let Some(text) = observation.reply(Stage::Greeting) else {
            return findings;
        };
        // `2200 x` is no greeting with a lost code but a wrong one.
        let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
        let lost = code_of(text).is_none() && digits < 3;
        if !lost || findings.other_protocol.is_some() {
            return findings;
        }
        self.views.views[Stage::Greeting as usize].fill_with_code(
            Stage::Greeting,
            Some("220"),
            text,
        );
        self.views.code_lost = true;
        let restored = self.matches();
        if restored.decision.winner.is_some() && restored.other_protocol.is_none() {
            return restored;
        }
        self.views.fill(observation);
        findings
    }

    /// Runs the patterns over every view and weighs what matched.
    fn matches(&mut self) -> Findings {
        let rules = self.rules;
        let mut findings = Findings::default();
        for &stage in Stage::ALL {
            let Some(view) = self.views.view(stage) else {
                continue;
            };
            let [masked, raw] = &rules.matchers[stage as usize];
            let scratch = &mut self.scratch;
            let masked = masked
                .as_ref()
                .map(|m| scratch.masked(m, &rules.patterns, stage, view));
            let raw = raw.as_ref().map(|m| scratch.raw(m, &rules.patterns, view));
            for hits in [masked, raw].into_iter().flatten() {
                for at in 0..hits.len() {
                    self.note(&mut findings, stage, &hits, at);
                }
            }
        }
        findings.decision = Decision::of(&findings.tallies, &rules.products);
        findings
    }

    /// Takes note of a pattern whose expression matched, if its other conditions hold.
    fn note(&self, findings: &mut Findings, stage: Stage, hits: &Arc<[Hit]>, at: usize) {
        let index = hits[at].pattern;
        if self.without.get(index) == Some(&true) {
            return;
        }
        let pattern = &self.rules.patterns[index];
        match pattern.owner {
            Owner::NotMail(_) => {
                findings.other_protocol.get_or_insert(index);
            }
            Owner::Product(product) => {
                let holds = pattern.conditions.is_empty()
                    || pattern.conditions.hold(stage, |s| self.views.view(s));
                if !holds {
                    return;
                }
                findings.hits.push((Arc::clone(hits), at));
                let known = findings.tallies.iter().position(|t| t.product == product);
                let tally = known.unwrap_or_else(|| {
                    findings.tallies.push(Tally::new(product));
                    findings.tallies.len() - 1
                });
                findings.tallies[tally].add(stage as usize, pattern.weight);
            }
        }
    }

    fn explanation(&self, observation: &Observation<'_>, findings: &Findings) -> Explanation {
        let rules = self.rules;
        let mut matches: Vec<_> = findings
            .hits()
            .map(|hit| self.explain_match(findings, hit))
            .collect();
        if let Some(index) = findings.other_protocol {
            let pattern = &rules.patterns[index];
            if let Owner::NotMail(protocol) = pattern.owner {
                let matched = self
                    .views
                    .view(pattern.stage)
                    .and_then(|v| pattern.find(v.text(false)));
                matches.push(Match {
                    product: rules.not_mail[protocol].protocol.clone(),
                    rule: Arc::clone(&pattern.id),
                    stage: pattern.stage,
                    matched: matched.map(|(text, _)| text).unwrap_or_default().into(),
                    weight: pattern.weight,
                    counted: true,
                });
            }
        }
        matches.sort_by(|a, b| a.stage.cmp(&b.stage).then(b.weight.total_cmp(&a.weight)));
        let decision = &findings.decision;
        let mut candidates: Vec<_> = findings
            .tallies
            .iter()
            .zip(decision.bits.iter().zip(&decision.posterior))
            .map(|(tally, (&bits, &posterior))| Candidate {
                product: rules.products[tally.product].name.clone(),
                bits,
                confidence: posterior,
            })
            .collect();
        candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        Explanation {
            verdict: self.verdict(observation, findings),
            matches,
            candidates,
        }
    }

    fn explain_match(&self, findings: &Findings, hit: &Hit) -> Match {
        let pattern = &self.rules.patterns[hit.pattern];
        let product = pattern.product();
        let tally = findings.tallies.iter().find(|t| Some(t.product) == product);
        Match {
            product: product.map_or_else(String::new, |p| self.rules.products[p].name.clone()),
            rule: Arc::clone(&pattern.id),
            stage: pattern.stage,
            matched: self.matched(hit),
            weight: pattern.weight,
            counted: tally.is_some_and(|t| t.counts(pattern.stage as usize, pattern.weight)),
        }
    }

    /// The text that a pattern matched.
    fn matched(&self, hit: &Hit) -> Arc<str> {
        let pattern = &self.rules.patterns[hit.pattern];
        let found = self
            .views
            .view(pattern.stage)
            .map(|view| hit.found(pattern, view));
        match found {
            Some(Some((matched, _))) => Arc::clone(matched),
            _ => Arc::from(""),
        }
    }

    fn verdict(&self, observation: &Observation<'_>, findings: &Findings) -> Verdict {
        let rules = self.rules;
        let mut verdict = Verdict {
            is_smtp: self.is_smtp(findings),
            hostname: self.host_name(),
            ..Verdict::default()
        };
        if !verdict.is_smtp {
            verdict.protocol = findings.other_protocol.and_then(|index| {
                let Owner::NotMail(protocol) = rules.patterns[index].owner else {
                    return None;
                };
                Some(rules.not_mail[protocol].protocol.clone())
            });
        } else if let Some(winner) = findings.decision.winner {
            self.name(&mut verdict, findings, winner);
        } else if findings.other_protocol.is_none() {
            self.take_at_its_word(&mut verdict, findings);
        }
        if verdict.product.is_none() {
            verdict.cluster = observation.reply(Stage::Greeting).map(normalise_greeting);
        }
        verdict
    }

    /// Fills in the product and what its patterns captured, the strongest first.
    fn name(&self, verdict: &mut Verdict, findings: &Findings, winner: usize) {
        let rules = self.rules;
        let index = findings.tallies[winner].product;
        let product = &rules.products[index];
        let mut own: Vec<_> = findings
            .hits()
            .filter(|h| rules.patterns[h.pattern].product() == Some(index))
            .collect();
        own.sort_by(|a, b| {
            let weight = |hit: &Hit| rules.patterns[hit.pattern].weight;
            weight(b).total_cmp(&weight(a))
        });
        for hit in own {
            let pattern = &rules.patterns[hit.pattern];
            let Some(view) = self.views.view(pattern.stage) else {
                continue;
            };
            let Some((matched, captured)) = hit.found(pattern, view) else {
                continue;
            };
            verdict.evidence.push(Evidence {
                stage: pattern.stage,
                rule: Arc::clone(&pattern.id),
                matched: Arc::clone(matched),
                weight: pattern.weight,
            });
            if verdict.version.is_none() && captured.version.is_some() {
                verdict.version.clone_from(&captured.version);
                verdict.patch.clone_from(&captured.patch);
            }
            let fill = |slot: &mut Option<String>, value: &Option<String>| {
                if slot.is_none() {
                    slot.clone_from(value);
                }
            };
            fill(&mut verdict.os, &captured.os);
            fill(&mut verdict.build, &captured.build);
            if pattern.sees_host && captured.hostname.is_some() {
                verdict.hostname.clone_from(&captured.hostname);
            }
        }
        verdict.os = verdict.os.take().or_else(|| product.os.clone());
        verdict.product = Some(product.name.clone());
        verdict.vendor.clone_from(&product.vendor);
        verdict.family = Some(product.family.clone());
        verdict.category = Some(product.category);
        verdict.confidence = calibrated(findings.decision.posterior[winner]);
        if self.views.code_lost {
            verdict.confidence *= CODE_LOST;
        }
        if let Some(stated) = verdict.version.take() {
            let version = release::split(&stated);
            verdict.release = release::name(&product.name, &version.number);
            verdict.version = Some(version.number);
            verdict.package = version.package;
        }
        self.layers(verdict, findings);
    }

    /// Adds what else was seen: a proxy in front, a greeting that claims to be another.
    fn layers(&self, verdict: &mut Verdict, findings: &Findings) {
        let named = |tally: usize| findings.tallies[tally].product;
        let decision = &findings.decision;
        let front = decision.front.map(|t| (named(t), FRONT, 0.0));
        let claimed = decision.contradicted.map(|t| (named(t), CLAIM, -1.0));
        for (product, mark, sign) in [front, claimed].into_iter().flatten() {
            let strongest = findings
                .hits()
                .filter(|h| self.rules.patterns[h.pattern].product() == Some(product))
                .filter(|h| sign >= 0.0 || self.rules.patterns[h.pattern].stage == Stage::Greeting)
                .max_by(|a, b| {
                    let weight = |hit: &Hit| self.rules.patterns[hit.pattern].weight;
                    weight(a).total_cmp(&weight(b))
                });
            if let Some(hit) = strongest {
                let pattern = &self.rules.patterns[hit.pattern];
                verdict.evidence.push(Evidence {
                    stage: pattern.stage,
                    rule: format!("{mark}{}", pattern.id).into(),
                    matched: self.matched(hit),
                    weight: sign * pattern.weight,
                });
            }
        }
        verdict.contradiction = claimed.map(|(p, ..)| self.rules.products[p].name.clone());
        if let (Some((front, ..)), Some(server)) = (front, &verdict.product) {
            verdict.layers = vec![self.rules.products[front].name.clone(), server.clone()];
        }
    }

    /// Names what no rule names by the greeting's own words, where these are plain.
    fn take_at_its_word(&self, verdict: &mut Verdict, findings: &Findings) {
        // Two known products that match alike are ambiguous, not unlisted.
        if findings.decision.posterior.iter().sum::<f64>() >= THRESHOLD {
            return;
        }
        let greeting = self.views.view(Stage::Greeting);
        let Some(found) = greeting.and_then(|view| declared(&view.masked)) else {
            return;
        };
        verdict.confidence = if found.version.is_some() {
            DECLARED_WITH_VERSION
        } else {
            DECLARED_BARE
        };
        verdict.product = Some(found.name);
        verdict.version = found.version;
        verdict.self_declared = true;
        verdict.evidence.push(Evidence {
            stage: Stage::Greeting,
            rule: SELF_DECLARED.into(),
            matched: found.matched.into(),
            weight: 0.0,
        });
    }

    /// Whether a mail server spoke. An EHLO or HELO answered with 250 settles it; otherwise the
    /// greeting must be one that RFC 5321 §4.2 knows (220, or a refusal) with text behind the code
    /// that has to do with mail or names a host, must not be the greeting of another protocol, and
    /// the server must not find both EHLO and HELO strange.
    fn is_smtp(&self, findings: &Findings) -> bool {
        let code = |stage: Stage| self.views.code(stage);
        let hello = code(Stage::Ehlo) == Some(250) || code(Stage::Helo) == Some(250);
        let named = !findings.hits.is_empty();
        let foreign = findings.other_protocol.is_some();
        let Some(greeting) = self.views.view(Stage::Greeting) else {
            let answers = Stage::ALL
                .iter()
                .any(|&s| matches!(code(s), Some(211..=599)));
            return hello || named || (answers && !foreign);
        };
        let Some(number @ (220 | 400..=599)) = greeting.code() else {
            return false;
        };
        // Unknown command, not implemented, log in first: what FTP servers answer.
        let strange = |stage| matches!(code(stage), Some(500 | 502 | 530));
        let refuses = strange(Stage::Ehlo) && strange(Stage::Helo) && !named;
        let says = !greeting.first_text().is_empty();
        let like_mail = number != 220
            || named
            || greeting.host_name().is_some()
            || speaks_of_mail(&greeting.raw);
        hello || (says && !foreign && !refuses && like_mail)
    }

    fn host_name(&self) -> Option<String> {
        let hello = self
            .views
            .view(Stage::Ehlo)
            .filter(|v| v.code() == Some(250));
        self.views
            .view(Stage::Greeting)
            .and_then(View::host_name)
            .or_else(|| hello.and_then(View::host_name))
    }
}

impl Findings {
    fn hits(&self) -> impl Iterator<Item = &Hit> {
        self.hits.iter().map(|(hits, at)| &hits[*at])
    }
}

impl Pattern {
    /// The product it speaks for.
    pub(super) const fn product(&self) -> Option<usize> {
        match self.owner {
            Owner::Product(index) => Some(index),
            Owner::NotMail(_) => None,
        }
    }
}

/// Whether a greeting has a word in it that only servers of mail say, or is masked.
fn speaks_of_mail(text: &[u8]) -> bool {
    let has = |word: &[u8]| {
        text.windows(word.len())
            .any(|w| w.eq_ignore_ascii_case(word))
    };
    has(b"smtp") || has(b"mail") || has(b"mta") || has(b"spam") || has(b"****") || has(b"xxxxxxxx")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(text: &str) -> Verdict {
        RuleSet::builtin().classify(&Observation::only(Stage::Greeting, text.as_bytes()))
    }

    #[test]
    fn debian_servers_are_named_with_the_version_they_state() {
        for (text, product, version, os) in [
            (
                "220 mx.example.test ESMTP Postfix (Debian/GNU)\r\n",
                "Postfix",
                None,
                Some("Debian"),
            ),
            (
                "220 mx.example.test ESMTP Exim 4.96 Sun, 22 Nov 2026 21:42:53 +0000\r\n",
                "Exim",
                Some("4.96"),
                None,
            ),
            (
                "220 mx.example.test ESMTP OpenSMTPD\r\n",
                "OpenSMTPD",
                None,
                None,
            ),
            (
                "220 mx.example.test ESMTP Sendmail 8.17.1.9/8.17.1.9/Debian-2+deb12u2; Sun, 22 Nov \
                 2026 21:42:53 GMT; (No UCE/UBE) logging access from: [198.18.0.1](OK)-[198.18.0.1]\r\n",
                "Sendmail",
                Some("8.17.1.9"),
                Some("Debian"),
            ),
        ] {
            let verdict = greeting(text);
            assert_eq!(verdict.product.as_deref(), Some(product), "{text}");
            assert_eq!(verdict.version.as_deref(), version, "{text}");
            assert_eq!(verdict.os.as_deref(), os, "{text}");
            assert_eq!(verdict.hostname.as_deref(), Some("mx.example.test"));
            assert!(verdict.confidence > 0.95 && verdict.is_smtp);
            assert_eq!(verdict.cluster, None);
        }
    }

    #[test]
    fn a_disguised_greeting_is_a_cluster() {
        let verdict = greeting("220 mx.example.test ESMTP\r\n");
        assert_eq!(verdict.product, None);
        assert!(verdict.is_smtp);
        assert!(verdict.confidence.abs() < f64::EPSILON);
        assert_eq!(verdict.cluster.as_deref(), Some("220 <host> ESMTP"));
    }

    #[test]
    fn stages_add_up_and_behaviour_outweighs_a_claim() {
        let rules = RuleSet::builtin();
        let ehlo: &[u8] =
            b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n\
            250-ETRN\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n\
            250-SMTPUTF8\r\n250 CHUNKING\r\n";
        let alone = rules.classify(&Observation::only(Stage::Ehlo, ehlo));
        let observation = Observation::only(Stage::Greeting, b"220 h.example ESMTP Postfix\r\n")
            .with(Stage::Ehlo, ehlo);
        let both = rules.classify(&observation);
        assert_eq!(alone.product.as_deref(), Some("Postfix"));
        assert!(both.confidence > alone.confidence);
        assert!(both.evidence.len() >= 2 && both.evidence[0].weight >= both.evidence[1].weight);

        // A greeting is one line of configuration: the behaviour goes before it.
        let disguised = observation.with(Stage::Greeting, b"220 h.example ESMTP Exim 4.96\r\n");
        let explained = rules.explain(&disguised);
        let verdict = &explained.verdict;
        assert_eq!(verdict.product.as_deref(), Some("Postfix"));
        assert_eq!(verdict.contradiction.as_deref(), Some("Exim"));
        let against = verdict.evidence.last().expect("what the greeting claims");
        assert!(against.rule.starts_with("contradicted: Exim/greeting/") && against.weight < 0.0);
        assert_eq!(
            explained.runner_up().map(|c| c.product.as_str()),
            Some("Exim")
        );
    }

    #[test]
    fn greetings_that_lost_their_code_are_read_all_the_same() {
        let verdict = greeting("mx.example.test ESMTP Exim 4.96 Sun, 22 Nov 2026 21:42:53 +0000");
        assert_eq!(verdict.product.as_deref(), Some("Exim"));
        assert_eq!(verdict.version.as_deref(), Some("4.96"));
        assert!(verdict.is_smtp && verdict.confidence < 0.98);
        assert!(!greeting("Connection refused by access control").is_smtp);
        assert_eq!(
            greeting("ProFTPD 1.3.5 Server (Postfix) [192.0.2.1]").product,
            None
        );
    }

    #[test]
    fn an_unlisted_product_is_taken_at_its_word() {
        let verdict = greeting("220 mx.example.test ESMTP FooMail 3.2 ready\r\n");
        assert_eq!(verdict.product.as_deref(), Some("FooMail"));
        assert_eq!(verdict.version.as_deref(), Some("3.2"));
        assert!(verdict.self_declared && verdict.confidence < 0.8);
        assert_eq!(&*verdict.evidence[0].rule, "self-declared");
    }

    #[test]
    fn a_classifier_remembers_and_does_not_confuse() {
        let rules = RuleSet::builtin();
        let mut classifier = rules.classifier();
        for _ in 0..3 {
            for (text, product) in [
                (&b"220 a.example ESMTP Postfix\r\n"[..], "Postfix"),
                (b"220 b.example.org ESMTP Exim 4.96\r\n", "Exim"),
                (b"220 c.example ESMTP Postfix\r\n", "Postfix"),
            ] {
                let observation = Observation::only(Stage::Greeting, text);
                let verdict = classifier.classify(&observation);
                assert_eq!(verdict.product.as_deref(), Some(product));
                assert_eq!(verdict, rules.classify(&observation));
            }
        }
    }

    #[test]
    fn other_protocols_are_no_mail_and_no_product() {
        for (text, protocol) in [
            (
                "220 ProFTPD 1.3.5 Server (Postfix) [192.0.2.1]\r\n",
                Some("FTP"),
            ),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Some("SSH")),
            (
                "* OK Microsoft Exchange IMAP4rev1 server ready\r\n",
                Some("IMAP"),
            ),
            ("+OK Dovecot ready.\r\n", Some("POP3")),
            ("HTTP/1.1 400 Bad Request\r\n", Some("HTTP")),
            ("2200 mail.example.com ESMTP Postfix\r\n", None),
            ("220\r\n", None),
            ("\r\n", None),
        ] {
            let verdict = greeting(text);
            assert!(!verdict.is_smtp, "{text:?}");
            assert_eq!(verdict.product, None, "{text:?}");
            assert_eq!(verdict.protocol.as_deref(), protocol, "{text:?}");
        }
    }

    #[test]
    fn what_knows_neither_ehlo_nor_helo_is_no_mail_server() {
        let refused = Observation::only(Stage::Greeting, b"220 Printer 4711 ready\r\n")
            .with(Stage::Ehlo, b"500 EHLO not understood\r\n")
            .with(Stage::Helo, b"500 HELO not understood\r\n");
        let rules = RuleSet::builtin();
        assert!(!rules.classify(&refused).is_smtp);
        let answered = refused.with(Stage::Helo, b"250 hello\r\n");
        assert!(rules.classify(&answered).is_smtp);
    }

    #[test]
    fn refusals_are_mail_servers_too() {
        assert!(greeting("554 5.7.1 Rejected: your address is on a list\r\n").is_smtp);
        assert_eq!(
            greeting("421 mx.example.org ESMTP Postfix busy\r\n")
                .product
                .as_deref(),
            Some("Postfix")
        );
    }

    #[test]
    fn nothing_said_is_nothing_known() {
        let verdict = RuleSet::builtin().classify(&Observation::default());
        assert!(!verdict.is_smtp && verdict.product.is_none() && verdict.cluster.is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_have_a_verdict(
            greeting in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
            ehlo in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
        ) {
            static RULES: std::sync::LazyLock<RuleSet> = std::sync::LazyLock::new(RuleSet::builtin);
            let observation =
                Observation::only(Stage::Greeting, &greeting).with(Stage::Ehlo, &ehlo);
            let verdict = RULES.classify(&observation);
            proptest::prop_assert!((0.0..=1.0).contains(&verdict.confidence));
            proptest::prop_assert_eq!(verdict.product.is_some(), !verdict.evidence.is_empty());
        }
    }
}
