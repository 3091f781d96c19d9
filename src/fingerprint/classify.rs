//! From an observation to a verdict.
//!
//! Each reply is brought into its views once, each group of patterns runs over its view once, the
//! weights of what matched are added ([`super::decide`]), and captures are taken afterwards from the
//! patterns of the winning product only: they cost more than finding out which patterns match.

use super::decide::{self, THRESHOLD, Tally};
use super::normalise::normalise_greeting;
use super::rule::{Owner, Pattern};
use super::ruleset::RuleSet;
use super::verdict::{Candidate, Evidence, Explanation, Match, Observation, Verdict};
use super::view::View;
use crate::smtp::Stage;

/// What was seen and which patterns matched it.
struct Findings {
    views: [Option<View>; Stage::ALL.len()],
    /// Patterns of products, by index.
    matched: Vec<usize>,
    /// The first pattern of a protocol that is not mail.
    other_protocol: Option<usize>,
    tallies: Vec<Tally>,
    posterior: Vec<f64>,
    winner: Option<usize>,
}

impl RuleSet {
    /// Which product said this.
    pub fn classify(&self, observation: &Observation<'_>) -> Verdict {
        self.verdict(observation, &self.find(observation))
    }

    /// Which product said this, with everything that was weighed.
    pub fn explain(&self, observation: &Observation<'_>) -> Explanation {
        let findings = self.find(observation);
        let mut matches: Vec<_> = findings
            .matched
            .iter()
            .map(|&index| self.explain_match(&findings, index))
            .collect();
        matches.extend(
            findings
                .other_protocol
                .map(|index| self.explain_match(&findings, index)),
        );
        matches.sort_by(|a, b| a.stage.cmp(&b.stage).then(b.weight.total_cmp(&a.weight)));
        let mut candidates: Vec<_> = findings
            .tallies
            .iter()
            .zip(&findings.posterior)
            .map(|(tally, &confidence)| Candidate {
                product: self.products[tally.product].name.clone(),
                bits: tally.bits(),
                confidence,
            })
            .collect();
        candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        Explanation {
            verdict: self.verdict(observation, &findings),
            matches,
            candidates,
        }
    }

    fn explain_match(&self, findings: &Findings, index: usize) -> Match {
        let pattern = &self.patterns[index];
        let (product, counted) = match pattern.owner {
            Owner::NotMail(i) => (&self.not_mail[i].protocol, true),
            Owner::Product(i) => {
                let tally = findings.tallies.iter().find(|t| t.product == i);
                let counted =
                    tally.is_some_and(|t| t.counts(pattern.stage as usize, pattern.weight));
                (&self.products[i].name, counted)
            }
        };
        Match {
            product: product.clone(),
            rule: pattern.id.clone(),
            stage: pattern.stage,
            matched: findings
                .view(pattern)
                .and_then(|view| pattern.find(view))
                .map(|(matched, _)| matched)
                .unwrap_or_default(),
            weight: pattern.weight,
            counted,
        }
    }

    /// Runs every group over the reply of its stage and weighs what matched.
    fn find(&self, observation: &Observation<'_>) -> Findings {
        let mut findings = Findings {
            views: std::array::from_fn(|i| {
                let stage = Stage::ALL[i];
                observation
                    .reply(stage)
                    .map(|reply| View::new(stage, reply))
            }),
            matched: Vec::new(),
            other_protocol: None,
            tallies: Vec::new(),
            posterior: Vec::new(),
            winner: None,
        };
        for group in &self.groups {
            let Some(view) = &findings.views[group.stage as usize] else {
                continue;
            };
            let text = if group.sees_host {
                &view.raw
            } else {
                &view.masked
            };
            for hit in group.set.matches(text) {
                let index = group.patterns[hit];
                let pattern = &self.patterns[index];
                match pattern.owner {
                    Owner::NotMail(_) => {
                        findings.other_protocol.get_or_insert(index);
                    }
                    Owner::Product(product) => {
                        findings.matched.push(index);
                        let known = findings.tallies.iter().position(|t| t.product == product);
                        let at = known.unwrap_or_else(|| {
                            findings.tallies.push(Tally::new(product));
                            findings.tallies.len() - 1
                        });
                        findings.tallies[at].add(pattern.stage as usize, pattern.weight);
                    }
                }
            }
        }
        findings.posterior = decide::posterior(&findings.tallies);
        findings.winner = (0..findings.tallies.len())
            .max_by(|&a, &b| findings.posterior[a].total_cmp(&findings.posterior[b]))
            .filter(|&best| findings.posterior[best] >= THRESHOLD);
        findings
    }

    fn verdict(&self, observation: &Observation<'_>, findings: &Findings) -> Verdict {
        let mut verdict = Verdict {
            is_smtp: findings.is_smtp(),
            hostname: findings.host_name(),
            ..Verdict::default()
        };
        if !verdict.is_smtp {
            verdict.protocol = findings.other_protocol.and_then(|index| {
                let Owner::NotMail(protocol) = self.patterns[index].owner else {
                    return None;
                };
                Some(self.not_mail[protocol].protocol.clone())
            });
        } else if let Some(winner) = findings.winner {
            self.name(&mut verdict, findings, winner);
        }
        if verdict.product.is_none() {
            verdict.cluster = observation.reply(Stage::Greeting).map(normalise_greeting);
        }
        verdict
    }

    /// Fills in the product and what its patterns captured, the strongest first.
    fn name(&self, verdict: &mut Verdict, findings: &Findings, winner: usize) {
        let index = findings.tallies[winner].product;
        let product = &self.products[index];
        let mut own: Vec<_> = findings
            .matched
            .iter()
            .map(|&i| &self.patterns[i])
            .filter(|p| p.owner == Owner::Product(index))
            .collect();
        own.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        for pattern in own {
            let Some((matched, captured)) =
                findings.view(pattern).and_then(|view| pattern.find(view))
            else {
                continue;
            };
            verdict.evidence.push(Evidence {
                stage: pattern.stage,
                rule: pattern.id.clone(),
                matched,
                weight: pattern.weight,
            });
            if verdict.version.is_none() && captured.version.is_some() {
                verdict.version = captured.version;
                verdict.patch = captured.patch;
            }
            verdict.os = verdict.os.take().or(captured.os);
            if pattern.sees_host && captured.hostname.is_some() {
                verdict.hostname = captured.hostname;
            }
        }
        verdict.os = verdict.os.take().or_else(|| product.os.clone());
        verdict.product = Some(product.name.clone());
        verdict.vendor.clone_from(&product.vendor);
        verdict.family = Some(product.family.clone());
        verdict.category = Some(product.category);
        verdict.confidence = findings.posterior[winner];
    }
}

impl Findings {
    fn view(&self, pattern: &Pattern) -> Option<&[u8]> {
        let view = self.views[pattern.stage as usize].as_ref()?;
        Some(if pattern.sees_host {
            &view.raw
        } else {
            &view.masked
        })
    }

    /// Whether a mail server spoke. An EHLO or HELO answered with 250 settles it; otherwise the
    /// greeting must be one that RFC 5321 §4.2 knows (220, or a refusal) with text behind the code,
    /// must not be the greeting of another protocol, and the server must not find both EHLO and
    /// HELO strange.
    fn is_smtp(&self) -> bool {
        let code = |stage: Stage| self.views[stage as usize].as_ref().and_then(View::code);
        let hello = code(Stage::Ehlo) == Some(250) || code(Stage::Helo) == Some(250);
        let named = !self.matched.is_empty();
        let Some(greeting) = &self.views[Stage::Greeting as usize] else {
            return hello || named || code(Stage::Quit) == Some(221);
        };
        if !matches!(greeting.code(), Some(220 | 400..=599)) {
            return false;
        }
        // Unknown command, not implemented, log in first: what FTP servers answer.
        let strange = |stage| matches!(code(stage), Some(500 | 502 | 530));
        let foreign = strange(Stage::Ehlo) && strange(Stage::Helo) && !named;
        let says = !greeting.first_text().is_empty();
        hello || (says && self.other_protocol.is_none() && !foreign)
    }

    fn host_name(&self) -> Option<String> {
        let named = |stage: Stage| {
            self.views[stage as usize]
                .as_ref()
                .and_then(View::host_name)
        };
        let hello = self.views[Stage::Ehlo as usize]
            .as_ref()
            .filter(|v| v.code() == Some(250));
        named(Stage::Greeting).or_else(|| hello.and_then(View::host_name))
    }
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
            assert!(verdict.confidence > 0.99 && verdict.is_smtp);
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
    fn stages_add_up_and_the_greeting_outweighs_a_keyword_order() {
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

        let disguised = observation.with(Stage::Greeting, b"220 h.example ESMTP Exim 4.96\r\n");
        let explained = rules.explain(&disguised);
        assert_eq!(explained.verdict.product.as_deref(), Some("Exim"));
        assert_eq!(
            explained.runner_up().map(|c| c.product.as_str()),
            Some("Postfix")
        );
        assert!(
            explained
                .matches
                .iter()
                .any(|m| m.rule.starts_with("Postfix/ehlo/"))
        );
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
