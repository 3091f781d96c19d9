//! Proof that rules do what their authors say.
//!
//! Everything here is found by running the rules over their own examples: no rule may miss its own,
//! and none may take another's. [`RuleSet::check`] is empty for the built-in rules; a test holds it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::decide::{Decision, PRIOR_BITS, THRESHOLD, Tally};
use super::matcher::needed;
use super::rule::{Captured, Example, Owner, Pattern};
use super::ruleset::RuleSet;
use super::verdict::Observation;
use super::view::View;
use crate::smtp::Stage;

/// Something that is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The rule file.
    pub file: String,
    /// The line of the pattern or product, counted from 1.
    pub line: usize,
    /// The pattern's identifier, or the product's name.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.file, self.line, self.rule, self.reason
        )
    }
}

impl RuleSet {
    /// Everything that is wrong with the rules, in the order of the files; empty if they are sound.
    ///
    /// - every example matches its pattern, with exactly the captures it states;
    /// - no other product wins an example, and the own one does if the pattern is strong enough;
    /// - no counter-example matches;
    /// - no two patterns of a stage are the same, but for hints that two products share;
    /// - every product can be named at all, and every pattern adds something;
    /// - a host name made of a product's name names nothing.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_duplicates(&mut problems);
        for pattern in &self.patterns {
            if pattern.regex().is_none() {
                problems.push(problem(pattern, "regex does not compile".into()));
                continue;
            }
            for example in &pattern.examples {
                self.check_example(pattern, example, &mut problems);
            }
            for text in &pattern.counter_examples {
                if pattern
                    .find_in(&Observation::only(pattern.stage, text.as_bytes()))
                    .is_some()
                {
                    problems.push(problem(
                        pattern,
                        format!("counter-example matches: {text:?}"),
                    ));
                }
            }
            self.check_use(pattern, &mut problems);
        }
        for (index, product) in self.products.iter().enumerate() {
            for reason in [self.unreachable(index), self.named_by_host(&product.name)]
                .into_iter()
                .flatten()
            {
                problems.push(Problem {
                    file: product.file.clone(),
                    line: product.line,
                    rule: product.name.clone(),
                    reason,
                });
            }
        }
        problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        problems
    }

    /// Patterns that match an example of another product, which wins it all the same: where two rules
    /// look at the same words, and what a change of weight would turn around.
    pub fn overlaps(&self) -> Vec<Problem> {
        let mut overlaps = Vec::new();
        for owner in &self.patterns {
            for example in &owner.examples {
                let explained = self.explain(&example.observation(owner.stage));
                for found in explained.matches.iter().filter(|f| f.rule != owner.id) {
                    let Some(pattern) = self.patterns.iter().find(|p| p.id == found.rule) else {
                        continue;
                    };
                    if pattern.owner == owner.owner {
                        continue;
                    }
                    let reason = format!(
                        "matches an example of {} with {} bits against {}: {:?}",
                        owner.id, pattern.weight, owner.weight, example.text
                    );
                    overlaps.push(problem(pattern, reason));
                }
            }
        }
        overlaps.sort_by(|a, b| (&a.file, a.line, &a.reason).cmp(&(&b.file, b.line, &b.reason)));
        overlaps.dedup_by(|a, b| a.rule == b.rule && a.reason == b.reason);
        overlaps
    }

    /// Patterns whose expression has no words of its own, so that it is tried on every reply.
    pub fn unfiltered(&self) -> Vec<&Pattern> {
        self.patterns
            .iter()
            .filter(|p| needed(p).is_none())
            .collect()
    }

    /// Two products may share a hint, which names neither; a strong expression belongs to one.
    fn check_duplicates(&self, problems: &mut Vec<Problem>) {
        let mut first: HashMap<_, &Pattern> = HashMap::new();
        for pattern in &self.patterns {
            let key = (pattern.stage, pattern.sees_host, pattern.text.as_str());
            if !pattern.conditions.is_empty() {
                continue;
            }
            let Some(other) = first.insert(key, pattern) else {
                continue;
            };
            let hints = pattern.weight < PRIOR_BITS && other.weight < PRIOR_BITS;
            if pattern.owner == other.owner || !hints {
                let reason = format!("the same expression as {}", other.id);
                problems.push(problem(pattern, reason));
            }
        }
    }

    fn check_example(&self, pattern: &Pattern, example: &Example, problems: &mut Vec<Problem>) {
        let text = &example.text;
        let observation = example.observation(pattern.stage);
        let Some(found) = pattern.find_in(&observation) else {
            problems.push(problem(
                pattern,
                format!("example does not match: {text:?}"),
            ));
            return;
        };
        for ((name, found), (_, expected)) in found.iter().zip(example.captured.iter()) {
            // A fixed `os` need not be repeated by every example.
            let fixed = name == "os" && expected.is_none() && found == pattern.os.as_deref();
            if found != expected && !fixed {
                let reason =
                    format!("{name} is {found:?}, the example says {expected:?}: {text:?}");
                problems.push(problem(pattern, reason));
            }
        }
        let verdict = self.classify(&observation);
        match pattern.owner {
            Owner::Product(index) => {
                let own = self.products[index].name.as_str();
                let strong = pattern.weight >= PRIOR_BITS;
                let reason = match verdict.product.as_deref() {
                    Some(other) if other != own && !verdict.self_declared => {
                        format!("{other} wins the example {text:?}")
                    }
                    None if strong => format!("nobody wins the example {text:?}"),
                    _ => return,
                };
                problems.push(problem(pattern, reason));
            }
            Owner::NotMail(index) => {
                let own = self.not_mail[index].protocol.as_str();
                if verdict.is_smtp || verdict.protocol.as_deref() != Some(own) {
                    let taken = verdict.product.or(verdict.protocol);
                    let reason = format!("the example is taken for {taken:?}: {text:?}");
                    problems.push(problem(pattern, reason));
                }
            }
        }
    }

    /// A pattern is of no use if, on all its examples, a pattern of the same product and stage that
    /// is at least as strong matches too and finds as much.
    fn check_use(&self, pattern: &Pattern, problems: &mut Vec<Problem>) {
        let rivals = self.patterns.iter().filter(|other| {
            other.owner == pattern.owner
                && other.stage == pattern.stage
                && other.id != pattern.id
                && other.weight >= pattern.weight
        });
        for rival in rivals {
            let outdone = pattern.examples.iter().all(|example| {
                let observation = example.observation(pattern.stage);
                match (pattern.find_in(&observation), rival.find_in(&observation)) {
                    (Some(own), Some(others)) => own
                        .iter()
                        .zip(others.iter())
                        .all(|((_, own), (_, other))| own.is_none() || own == other),
                    _ => false,
                }
            });
            if outdone {
                problems.push(problem(pattern, format!("adds nothing to {}", rival.id)));
                return;
            }
        }
    }

    /// Why a product can never be named: all its evidence together is too weak.
    fn unreachable(&self, product: usize) -> Option<String> {
        let mut best = Tally::new(product);
        for pattern in self
            .patterns
            .iter()
            .filter(|p| p.owner == Owner::Product(product))
        {
            best.add(pattern.stage as usize, pattern.weight);
        }
        let confidence = Decision::of(&[best], &self.products).posterior[0];
        (confidence < THRESHOLD)
            .then(|| format!("can never be named: all its patterns together reach {confidence:.2}"))
    }

    /// Why host names name a product: greetings of hosts called like it must stay unknown.
    fn named_by_host(&self, name: &str) -> Option<String> {
        let mut labels = BTreeSet::new();
        for spelling in [name.to_owned(), name.to_lowercase()] {
            let whole: String = spelling
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect();
            labels.insert(whole);
            let words = spelling.split(|c: char| !c.is_ascii_alphanumeric());
            labels.extend(words.filter(|w| w.len() >= 3).map(str::to_owned));
        }
        for label in labels.iter().filter(|l| !l.is_empty()) {
            for greeting in [
                format!("220 {label}.example.com ESMTP\r\n"),
                format!("220 {label}.example.com ESMTP ready\r\n"),
                format!("220 {} ESMTP\r\n", label.to_lowercase()),
                format!("220 mail.{label}.org ESMTP; Thu, 30 Nov 2017 10:15:31 +0100\r\n"),
                format!("220 mx1-{label}.example.net SMTP service ready\r\n"),
            ] {
                let verdict =
                    self.classify(&Observation::only(Stage::Greeting, greeting.as_bytes()));
                if let (Some(named), false) = (verdict.product, verdict.self_declared) {
                    return Some(format!(
                        "a host name alone is taken for {named}: {greeting:?}"
                    ));
                }
            }
        }
        None
    }
}

fn problem(pattern: &Pattern, reason: String) -> Problem {
    Problem {
        file: pattern.file.clone(),
        line: pattern.line,
        rule: pattern.id.to_string(),
        reason,
    }
}

impl Pattern {
    /// What the pattern finds in an observation, if it matches and its conditions hold.
    fn find_in(&self, observation: &Observation<'_>) -> Option<Captured> {
        let views: Vec<_> = Stage::ALL
            .iter()
            .map(|&stage| {
                observation
                    .reply(stage)
                    .map(|reply| View::new(stage, reply))
            })
            .collect();
        let view = |stage: Stage| views[stage as usize].as_ref();
        let own = view(self.stage)?;
        if !self.conditions.hold(self.stage, view) {
            return None;
        }
        self.find(own.text(self.sees_host))
            .map(|(_, captured)| captured)
    }
}

impl Example {
    /// The example as an observation: its reply at the pattern's stage, and what goes with it.
    fn observation(&self, stage: Stage) -> Observation<'_> {
        self.with.iter().fold(
            Observation::only(stage, self.text.as_bytes()),
            |seen, (stage, text)| seen.with(*stage, text.as_bytes()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The regex, the weight and the lines that follow them.
    type PatternText<'a> = (&'a str, u8, &'a str);

    /// A rule file of products with their patterns.
    fn rules(products: &[(&str, &[PatternText<'_>])]) -> RuleSet {
        let mut text = String::from("family = \"Test\"\n");
        for (name, patterns) in products {
            text += &format!("[[product]]\nname = \"{name}\"\ncategory = \"other\"\n");
            for (regex, weight, example) in *patterns {
                text += &format!(
                    "[[product.pattern]]\non = \"greeting\"\nregex = '{regex}'\nweight = {weight}\n{example}\n"
                );
            }
        }
        RuleSet::parse(&[("test.toml", &text)]).expect("sound")
    }

    fn reasons(rules: &RuleSet) -> String {
        rules.check().iter().map(|p| format!("{p}\n")).collect()
    }

    #[test]
    fn the_built_in_rules_are_sound() {
        let found = RuleSet::builtin().check();
        let told: Vec<_> = found.iter().map(Problem::to_string).collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
    }

    #[test]
    fn sound_rules_have_no_problems() {
        let rules = rules(&[(
            "Foo",
            &[(
                "Foo/(?P<version>[0-9]+)",
                17,
                "examples = [{ text = '220 x ESMTP Foo/3', version = '3' }]",
            )],
        )]);
        assert_eq!(reasons(&rules), "");
    }

    #[test]
    fn a_missed_example_is_a_problem_with_its_place() {
        let rules = rules(&[(
            "Foo",
            &[("Foo", 17, "examples = [{ text = '220 x ESMTP Bar' }]")],
        )]);
        assert_eq!(
            reasons(&rules),
            "test.toml:7: Foo/greeting/1: example does not match: \"220 x ESMTP Bar\"\n"
        );
    }

    #[test]
    fn captures_must_be_stated_and_right() {
        for (stated, expected) in [("", "says None"), (", version = '4'", "says Some(\"4\")")] {
            let example = format!("examples = [{{ text = '220 x ESMTP Foo/3'{stated} }}]");
            let rules = rules(&[("Foo", &[("Foo/(?P<version>[0-9]+)", 17, &example)])]);
            assert!(reasons(&rules).contains(expected), "{}", reasons(&rules));
        }
    }

    #[test]
    fn another_products_win_is_a_problem() {
        let rules = rules(&[
            (
                "Foo",
                &[("Foo", 12, "examples = [{ text = '220 x ESMTP Foo Bar' }]")],
            ),
            (
                "Bar",
                &[("Bar", 20, "examples = [{ text = '220 x ESMTP Bar' }]")],
            ),
        ]);
        assert!(reasons(&rules).contains("Foo/greeting/1: Bar wins the example"));
    }

    #[test]
    fn counter_examples_must_not_match() {
        let example =
            "examples = [{ text = '220 x ESMTP Foo' }]\ncounter_examples = ['220 x ESMTP Food']";
        let rules = rules(&[("Foo", &[("ESMTP Foo", 17, example)])]);
        assert!(reasons(&rules).contains("counter-example matches"));
    }

    #[test]
    fn duplicates_and_idle_patterns_are_found() {
        let example = "examples = [{ text = '220 x ESMTP Foo' }]";
        let rules = rules(&[(
            "Foo",
            &[
                ("ESMTP Foo", 17, example),
                ("ESMTP Foo", 17, example),
                ("Foo", 9, example),
            ],
        )]);
        let told = reasons(&rules);
        assert!(
            told.contains("Foo/greeting/2: the same expression as Foo/greeting/1"),
            "{told}"
        );
        assert!(
            told.contains("Foo/greeting/3: adds nothing to Foo/greeting/1"),
            "{told}"
        );
    }

    #[test]
    fn a_product_that_can_never_be_named_is_found() {
        let rules = rules(&[(
            "Foo",
            &[("Foo", 5, "examples = [{ text = '220 x ESMTP Foo' }]")],
        )]);
        assert!(reasons(&rules).contains("Foo: can never be named"));
    }

    #[test]
    fn overlaps_are_told_though_the_right_product_wins() {
        let example = "examples = [{ text = '220 x ESMTP Foo Bar' }]";
        let rules = rules(&[
            (
                "Foo",
                &[("Foo", 12, "examples = [{ text = '220 x ESMTP Foo' }]")],
            ),
            ("FooBar", &[("Foo Bar", 20, example)]),
        ]);
        assert_eq!(reasons(&rules), "");
        let overlaps = rules.overlaps();
        assert_eq!(overlaps.len(), 1);
        let told = overlaps[0].to_string();
        assert!(
            told.contains("Foo/greeting/1: matches an example of FooBar/greeting/1"),
            "{told}"
        );
    }

    #[test]
    fn conditions_are_proven_by_examples_with_more_than_one_reply() {
        let text = r#"
            family = "Test"
            [[product]]
            name = "Foo"
            category = "other"
            [[product.pattern]]
            on = "unknown"
            codes = { unknown = "502 5.5.2", nul = 501 }
            echo = "none"
            weight = 12
            examples = [{ text = "502 5.5.2 What?", with = { nul = "501 no" } }]
            [[product.pattern]]
            on = "ehlo"
            ehlo_order = ["PIPELINING", "SIZE?", "XFOO"]
            ehlo_lacks = ["CHUNKING"]
            weight = 12
            examples = [{ text = "250-h\r\n250-PIPELINING\r\n250 XFOO" }]
            [[product.pattern]]
            on = "help"
            literal = "ask (foo) [or not]"
            weight = 12
            examples = [{ text = "214 ask (foo) [or not]" }]
        "#;
        let sound = |text: &str| RuleSet::parse(&[("test.toml", text)]).map(|r| reasons(&r));
        assert_eq!(sound(text).expect("sound"), "");
        for (from, to) in [
            ("nul = \"501 no\"", "nul = \"500 no\""),
            ("502 5.5.2 What?", "502 5.5.2 XYZZY?"),
            (
                "250-PIPELINING\\r\\n250 XFOO",
                "250-XFOO\\r\\n250 PIPELINING",
            ),
            ("250 XFOO", "250-XFOO\\r\\n250 CHUNKING"),
            ("214 ask (foo) [or not]", "214 ask foo or not"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            assert!(
                sound(&changed)
                    .expect("sound")
                    .contains("example does not match"),
                "{from}"
            );
        }
        for (from, to, told) in [
            (
                "nul = 501",
                "nul = 51",
                "test.toml:8:52: \"51\" is no reply code",
            ),
            (
                "nul = 501",
                "nil = 501",
                "test.toml:8:46: unknown stage \"nil\"",
            ),
            (
                "\"none\"",
                "\"loud\"",
                "test.toml:9:20: unknown echo; one of: exact",
            ),
            ("literal = ", "regex = 'x'\nliteral = ", "not both"),
            (
                "literal = \"ask (foo) [or not]\"",
                "",
                "a pattern needs `regex`, `literal`",
            ),
        ] {
            let changed = text.replace(from, to);
            let error = sound(&changed).expect_err(from).to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn patterns_that_take_host_names_for_products_are_found() {
        let example = "sees_host = true\nexamples = [{ text = '220 x ESMTP foo' }]";
        let rules = rules(&[("Foo", &[("foo", 17, example)])]);
        assert!(reasons(&rules).contains("a host name alone is taken for Foo"));
    }
}
