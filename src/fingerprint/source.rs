//! Reading rule files: TOML text to products and patterns, or the line and column where it fails.
//!
//! The schema is described for authors in `docs/rules.md`. Unknown keys are refused, so that a
//! misspelt one cannot be silently without effect.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use toml::Spanned;

use super::category::Category;
use super::condition::{CodeWanted, Conditions, Echo, Place};
use super::error::RuleError;
use super::rule::{self, Captured, Example, MAX_WEIGHT, NotMail, Owner, Pattern, Product};
use crate::smtp::Stage;

/// The weight that patterns of other protocols carry; it only orders explanations.
const NOT_MAIL_WEIGHT: f64 = 20.0;

/// How carefully expressions are looked at while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Each is compiled, so that a fault has a line and column.
    Compile,
    /// They are known to be sound (the tests compile the built-in ones).
    Trust,
}

/// Everything read so far.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) products: Vec<Product>,
    pub(super) not_mail: Vec<NotMail>,
    pub(super) patterns: Vec<Pattern>,
    /// The family that each family belongs to, where it belongs to one.
    pub(super) parents: BTreeMap<String, String>,
    by_name: HashMap<String, usize>,
    derived: Vec<Derived>,
}

/// What one product says of another, resolved once all files are read.
#[derive(Debug)]
struct Derived {
    product: String,
    from: String,
    /// Where it is said, should a name be unknown.
    error: RuleError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    family: Option<String>,
    /// The family that the file's family belongs to.
    parent: Option<String>,
    #[serde(default)]
    product: Vec<ProductTable>,
    #[serde(default)]
    not_mail: Vec<NotMailTable>,
    #[serde(default)]
    tree: Vec<TreeTable>,
    #[serde(default)]
    derived: Vec<DerivedTable>,
}

/// A family within another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeTable {
    family: String,
    parent: String,
}

/// A product made of another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DerivedTable {
    product: Spanned<String>,
    from: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductTable {
    name: Spanned<String>,
    vendor: Option<String>,
    category: Spanned<String>,
    family: Option<String>,
    homepage: Option<String>,
    cpe: Option<String>,
    os: Option<String>,
    based_on: Option<Spanned<String>>,
    #[serde(default)]
    pattern: Vec<PatternTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternTable {
    on: Spanned<String>,
    regex: Option<Spanned<String>>,
    literal: Option<Spanned<String>>,
    #[serde(default)]
    ehlo_has: Vec<String>,
    #[serde(default)]
    ehlo_lacks: Vec<String>,
    #[serde(default)]
    ehlo_order: Vec<String>,
    #[serde(default)]
    codes: BTreeMap<Spanned<String>, Spanned<Code>>,
    echo: Option<Spanned<String>>,
    weight: Spanned<f64>,
    #[serde(default)]
    sees_host: bool,
    os: Option<String>,
    examples: Spanned<Vec<ExampleTable>>,
    #[serde(default)]
    counter_examples: Vec<String>,
}

/// A reply code: `502`, or `"502 5.5.2"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Number(u16),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleTable {
    text: String,
    #[serde(default)]
    with: BTreeMap<Spanned<String>, String>,
    version: Option<String>,
    patch: Option<String>,
    hostname: Option<String>,
    os: Option<String>,
    build: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotMailTable {
    protocol: String,
    on: Option<Spanned<String>>,
    regex: Spanned<String>,
    examples: Spanned<Vec<String>>,
    #[serde(default)]
    counter_examples: Vec<String>,
}

/// One rule file being read.
struct File<'a> {
    name: &'a str,
    text: &'a str,
    /// Where each line starts, in octets.
    lines: Vec<usize>,
    care: Care,
}

impl Parsed {
    /// Adds the products and patterns of one file.
    ///
    /// # Errors
    /// [`RuleError::Malformed`] with the place, [`RuleError::Twice`] for a repeated product.
    pub(super) fn read(&mut self, name: &str, text: &str, care: Care) -> Result<(), RuleError> {
        let newlines = text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n');
        let file = File {
            name,
            text,
            lines: std::iter::once(0)
                .chain(newlines.map(|(_, next)| next))
                .collect(),
            care,
        };
        let table: FileTable = toml::from_str(text)
            .map_err(|e| file.malformed(e.span().unwrap_or(0..0), e.message().to_owned()))?;
        for product in table.product {
            self.read_product(&file, table.family.as_deref(), product)?;
        }
        if let (Some(family), Some(parent)) = (table.family, table.parent) {
            self.parents.insert(family, parent);
        }
        let branches = table.tree.into_iter().map(|t| (t.family, t.parent));
        self.parents.extend(branches);
        for derived in table.derived {
            self.derive(
                &file,
                derived.product.get_ref().clone(),
                &derived.product,
                derived.from,
            );
        }
        for protocol in table.not_mail {
            self.read_not_mail(&file, protocol)?;
        }
        Ok(())
    }

    fn derive(&mut self, file: &File<'_>, product: String, place: &Spanned<String>, from: String) {
        let reason = format!("{product:?} is made of {from:?}, and one of them has no rule");
        self.derived.push(Derived {
            product,
            from,
            error: file.malformed(place.span(), reason),
        });
    }

    /// Settles what needs all files: which product is made of which.
    ///
    /// # Errors
    /// The first place that names a product without a rule, or closes a circle.
    pub(super) fn finish(&mut self) -> Result<(), RuleError> {
        for pattern in &self.patterns {
            if let Owner::Product(product) = pattern.owner {
                self.products[product].known |= 1 << pattern.stage as u32;
            }
        }
        for derived in std::mem::take(&mut self.derived) {
            let known = |name: &str| self.by_name.get(name).copied();
            let (Some(product), Some(from)) = (known(&derived.product), known(&derived.from))
            else {
                return Err(derived.error);
            };
            let mut ancestor = Some(from);
            while let Some(index) = ancestor {
                if index == product {
                    return Err(derived.error);
                }
                ancestor = self.products[index].based_on;
            }
            self.products[product].based_on = Some(from);
        }
        Ok(())
    }

    fn read_product(
        &mut self,
        file: &File<'_>,
        family: Option<&str>,
        table: ProductTable,
    ) -> Result<(), RuleError> {
        let line = file.line(&table.name.span());
        let name = table.name.get_ref().clone();
        if name.trim().is_empty() {
            return Err(file.malformed(table.name.span(), "a product needs a name".into()));
        }
        let category = Category::from_name(table.category.get_ref()).ok_or_else(|| {
            let known: Vec<_> = Category::ALL.iter().map(|c| c.name()).collect();
            let reason = format!(
                "unknown category {:?}; one of: {}",
                table.category.get_ref(),
                known.join(", ")
            );
            file.malformed(table.category.span(), reason)
        })?;
        let Some(family) = table.family.or_else(|| family.map(str::to_owned)) else {
            let reason = "no family: set `family` at the top of the file or in the product".into();
            return Err(file.malformed(table.name.span(), reason));
        };
        if let Some(&first) = self.by_name.get(&name) {
            let other = self.products[first].file.clone();
            return Err(RuleError::Twice {
                file: file.name.into(),
                line,
                name,
                other,
            });
        }
        if table.pattern.is_empty() {
            let reason = format!("product {name:?} has no [[product.pattern]]");
            return Err(file.malformed(table.name.span(), reason));
        }
        let index = self.products.len();
        let mut numbers = [0_usize; Stage::ALL.len()];
        for pattern in table.pattern {
            let stage = file.stage(&pattern.on)?;
            numbers[stage as usize] += 1;
            let id = format!("{name}/{}/{}", stage.name(), numbers[stage as usize]);
            self.patterns
                .push(file.pattern(id.into(), stage, Owner::Product(index), pattern)?);
        }
        if let Some(from) = &table.based_on {
            self.derive(file, name.clone(), from, from.get_ref().clone());
        }
        self.by_name.insert(name.clone(), index);
        self.products.push(Product {
            name,
            vendor: table.vendor,
            category,
            family,
            homepage: table.homepage,
            cpe: table.cpe,
            os: table.os,
            based_on: None,
            known: 0,
            file: file.name.into(),
            line,
        });
        Ok(())
    }

    fn read_not_mail(&mut self, file: &File<'_>, table: NotMailTable) -> Result<(), RuleError> {
        let index = self.not_mail.len();
        let number = 1 + self
            .not_mail
            .iter()
            .filter(|p| p.protocol == table.protocol)
            .count();
        let stage = table
            .on
            .as_ref()
            .map_or(Ok(Stage::Greeting), |on| file.stage(on))?;
        file.sound(&table.regex)?;
        if table.examples.get_ref().is_empty() {
            return Err(file.malformed(table.examples.span(), "a pattern needs an example".into()));
        }
        let examples = table.examples.into_inner().into_iter();
        self.patterns.push(Pattern {
            id: format!("{}/{}/{number}", table.protocol, stage.name()).into(),
            stage,
            line: file.line(&table.regex.span()),
            text: table.regex.into_inner(),
            weight: NOT_MAIL_WEIGHT,
            sees_host: false,
            os: None,
            examples: examples
                .map(|text| Example {
                    text,
                    with: Vec::new(),
                    captured: Captured::default(),
                })
                .collect(),
            counter_examples: table.counter_examples,
            file: file.name.into(),
            owner: Owner::NotMail(index),
            conditions: Conditions::default(),
            compiled: OnceLock::new(),
        });
        self.not_mail.push(NotMail {
            protocol: table.protocol,
        });
        Ok(())
    }
}

impl File<'_> {
    fn pattern(
        &self,
        id: Arc<str>,
        stage: Stage,
        owner: Owner,
        table: PatternTable,
    ) -> Result<Pattern, RuleError> {
        let weight = *table.weight.get_ref();
        if !(weight > 0.0 && weight <= MAX_WEIGHT) {
            let reason = format!("weight {weight} is not above 0 and at most {MAX_WEIGHT} bits");
            return Err(self.malformed(table.weight.span(), reason));
        }
        if table.examples.get_ref().is_empty() {
            let reason = "a pattern needs at least one example, { text = \"…\" }".into();
            return Err(self.malformed(table.examples.span(), reason));
        }
        let conditions = self.conditions(&table)?;
        let (text, line) = match (table.regex, table.literal) {
            (Some(regex), None) => {
                self.sound(&regex)?;
                let line = self.line(&regex.span());
                (regex.into_inner(), line)
            }
            (None, Some(literal)) => (regex::escape(literal.get_ref()), self.line(&literal.span())),
            (None, None) if !conditions.is_empty() => (String::new(), self.line(&table.on.span())),
            (Some(_), Some(second)) => {
                let reason = "a pattern has `regex` or `literal`, not both".into();
                return Err(self.malformed(second.span(), reason));
            }
            (None, None) => {
                let reason = "a pattern needs `regex`, `literal`, `ehlo_has`, `ehlo_order`, `codes` \
                              or `echo`";
                return Err(self.malformed(table.on.span(), reason.into()));
            }
        };
        let mut examples = Vec::new();
        for example in table.examples.into_inner() {
            let mut with = Vec::new();
            for (name, text) in example.with {
                with.push((self.stage(&name)?, text));
            }
            examples.push(Example {
                text: example.text,
                with,
                captured: Captured {
                    version: example.version,
                    patch: example.patch,
                    hostname: example.hostname,
                    os: example.os,
                    build: example.build,
                },
            });
        }
        Ok(Pattern {
            id,
            stage,
            line,
            text,
            weight,
            sees_host: table.sees_host,
            os: table.os,
            examples,
            counter_examples: table.counter_examples,
            file: self.name.into(),
            owner,
            conditions,
            compiled: OnceLock::new(),
        })
    }

    fn conditions(&self, table: &PatternTable) -> Result<Conditions, RuleError> {
        let mut codes = Vec::new();
        for (probe, code) in &table.codes {
            let prefix = match code.get_ref() {
                Code::Number(number) => number.to_string(),
                Code::Text(text) => text.clone(),
            };
            let digits = prefix
                .as_bytes()
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            if digits != 3 {
                let reason = format!("{prefix:?} is no reply code, such as 502 or \"502 5.5.2\"");
                return Err(self.malformed(code.span(), reason));
            }
            codes.push(CodeWanted {
                stage: self.stage(probe)?,
                prefix,
            });
        }
        let echo = match &table.echo {
            None => None,
            Some(name) => Some(Echo::from_name(name.get_ref()).ok_or_else(|| {
                let known: Vec<_> = Echo::NAMES.iter().map(|(name, _)| *name).collect();
                let reason = format!("unknown echo; one of: {}", known.join(", "));
                self.malformed(name.span(), reason)
            })?),
        };
        let places = table.ehlo_order.iter().map(|word| Place {
            keyword: word.trim_end_matches('?').to_owned(),
            optional: word.ends_with('?'),
        });
        Ok(Conditions {
            has: table.ehlo_has.clone(),
            lacks: table.ehlo_lacks.clone(),
            order: places.collect(),
            codes,
            echo,
        })
    }

    fn stage(&self, on: &Spanned<String>) -> Result<Stage, RuleError> {
        // `helo-noarg` is as good as `helo_noarg`.
        Stage::from_name(&on.get_ref().replace('-', "_")).ok_or_else(|| {
            let known: Vec<_> = Stage::ALL.iter().map(|s| s.name()).collect();
            let reason = format!(
                "unknown stage {:?}; one of: {}",
                on.get_ref(),
                known.join(", ")
            );
            self.malformed(on.span(), reason)
        })
    }

    /// Refuses an expression that does not compile or captures what nobody reads.
    fn sound(&self, regex: &Spanned<String>) -> Result<(), RuleError> {
        if self.care == Care::Trust {
            return Ok(());
        }
        let compiled = rule::compile(regex.get_ref()).map_err(|error| {
            // The engine draws the expression and a caret; the last line says what is wrong.
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or("")
                .trim_start_matches("error: ");
            self.malformed(regex.span(), format!("regex does not compile: {reason}"))
        })?;
        for name in compiled.capture_names().flatten() {
            if !Captured::NAMES.contains(&name) {
                let known = Captured::NAMES.join(", ");
                let reason = format!("unknown capture {name:?}; one of: {known}");
                return Err(self.malformed(regex.span(), reason));
            }
        }
        Ok(())
    }

    fn malformed(&self, span: Range<usize>, reason: String) -> RuleError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        RuleError::Malformed {
            file: self.name.into(),
            line: self.line(&span),
            column: before[line_start..].chars().count() + 1,
            reason,
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|&start| start <= span.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"family = "Foo"

[[product]]
name = "Foo"
category = "open source"

[[product.pattern]]
on = "greeting"
regex = 'ESMTP Foo (?P<version>[0-9.]+)'
weight = 17
examples = [{ text = "220 a.example ESMTP Foo 3.2", version = "3.2" }]
"#;

    fn error(text: &str) -> String {
        Parsed::default()
            .read("rules/foo.toml", text, Care::Compile)
            .expect_err("malformed")
            .to_string()
    }

    #[test]
    fn a_sound_file_is_read() {
        let mut parsed = Parsed::default();
        parsed.read("foo.toml", GOOD, Care::Compile).expect("sound");
        assert_eq!(parsed.products[0].name, "Foo");
        assert_eq!(parsed.products[0].line, 4);
        assert_eq!(&*parsed.patterns[0].id, "Foo/greeting/1");
        assert_eq!(parsed.patterns[0].line, 9);
    }

    #[test]
    fn faults_are_told_with_file_line_column_and_reason() {
        for (from, to, expected) in [
            (
                "open source",
                "free",
                "rules/foo.toml:5:12: unknown category \"free\"; one of: open source",
            ),
            (
                "\"greeting\"",
                "\"banner\"",
                "rules/foo.toml:8:6: unknown stage \"banner\"; one of: greeting",
            ),
            (
                "'ESMTP Foo ",
                "'ESMTP (Foo ",
                "rules/foo.toml:9:9: regex does not compile: unclosed group",
            ),
            (
                "P<version>",
                "P<verison>",
                "rules/foo.toml:9:9: unknown capture \"verison\"; one of: version",
            ),
            (
                "= 17",
                "= 0",
                "rules/foo.toml:10:10: weight 0 is not above 0",
            ),
            (
                "= 17",
                "= 31",
                "rules/foo.toml:10:10: weight 31 is not above 0",
            ),
            (
                "weight = 17",
                "wieght = 17",
                "rules/foo.toml:10:1: unknown field `wieght`",
            ),
            (
                "on = \"greeting\"\n",
                "",
                "rules/foo.toml:7:1: missing field `on`",
            ),
            ("name = \"Foo\"", "name = \"Foo", "rules/foo.toml:4:"),
            ("family = \"Foo\"", "", "rules/foo.toml:4:8: no family"),
        ] {
            let told = error(&GOOD.replacen(from, to, 1));
            assert!(told.starts_with(expected), "{told}\nis not\n{expected}");
        }
    }

    #[test]
    fn a_product_needs_patterns_and_a_pattern_examples() {
        let bare = GOOD
            .split("\n[[product.pattern]]")
            .next()
            .expect("the head");
        assert!(error(bare).contains("has no [[product.pattern]]"));
        let (head, _) = GOOD.split_once("examples").expect("examples");
        assert!(error(&format!("{head}examples = []\n")).contains("at least one example"));
    }

    #[test]
    fn a_product_is_defined_once() {
        let mut parsed = Parsed::default();
        parsed.read("a.toml", GOOD, Care::Compile).expect("sound");
        let told = parsed
            .read("b.toml", GOOD, Care::Compile)
            .expect_err("twice")
            .to_string();
        assert_eq!(
            told,
            "b.toml:4: product \"Foo\" is already defined in a.toml"
        );
    }

    #[test]
    fn columns_are_counted_in_characters() {
        let told = error("family = \"Fö\" x\n");
        assert!(told.starts_with("rules/foo.toml:1:15:"), "{told}");
    }
}
