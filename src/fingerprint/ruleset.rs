//! All rules together: where they come from, their digest, their patterns grouped for matching.
//!
//! Patterns are grouped by stage and by the view they want, and each group has one matcher: a reply
//! is read once per group, however many rules there are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::builtin;
use super::category::Category;
use super::error::RuleError;
use super::matcher::Matcher;
use super::rule::{NotMail, Owner, Pattern, Product};
use super::source::{Care, Parsed};
use crate::smtp::Stage;

/// A checked set of rules.
#[derive(Debug)]
pub struct RuleSet {
    pub(super) products: Vec<Product>,
    pub(super) not_mail: Vec<NotMail>,
    pub(super) patterns: Vec<Pattern>,
    /// By stage: the patterns that see masked replies, and those that see host names.
    pub(super) matchers: [[Option<Matcher>; 2]; Stage::ALL.len()],
    /// The family that each family belongs to, where it belongs to one.
    pub(super) parents: BTreeMap<String, String>,
    digest: String,
}

/// A product in an overview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The canonical name.
    pub product: String,
    /// Who makes or runs it.
    pub vendor: Option<String>,
    /// Its kind.
    pub category: Category,
    /// The family it is counted under.
    pub family: String,
    /// How many patterns speak for it.
    pub patterns: usize,
}

impl RuleSet {
    /// The rules that were compiled into the program.
    ///
    /// # Panics
    /// Never in a tested build: the tests read and check exactly these rules.
    pub fn builtin() -> Self {
        Self::from_sources(builtin::FILES, Care::Trust)
            .expect("the built-in rules are read and checked by this module's tests")
    }

    /// The rule files that were compiled into the program, as (file name, content).
    pub fn builtin_sources() -> &'static [(&'static str, &'static str)] {
        builtin::FILES
    }

    /// The rules of a directory: all its `*.toml` files, in the order of their names.
    ///
    /// # Errors
    /// An unreadable directory or file, a directory without rules, or the place and reason of the
    /// first fault.
    pub fn load(dir: &Path) -> Result<Self, RuleError> {
        let unreadable = |path: &Path, source| RuleError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| unreadable(dir, e))? {
            let path = entry.map_err(|e| unreadable(dir, e))?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(RuleError::Empty {
                path: dir.to_owned(),
            });
        }
        paths.sort();
        let mut texts = Vec::with_capacity(paths.len());
        for path in &paths {
            let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, e))?;
            texts.push((path.display().to_string(), text));
        }
        let sources: Vec<_> = texts
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        Self::from_sources(&sources, Care::Compile)
    }

    /// The rules of texts that are already in memory, as (file name, content).
    ///
    /// # Errors
    /// The place and reason of the first fault.
    pub fn parse(sources: &[(&str, &str)]) -> Result<Self, RuleError> {
        Self::from_sources(sources, Care::Compile)
    }

    /// The same of texts that are known to be sound: expressions are compiled at first use, and one
    /// that does not compile then matches nothing.
    ///
    /// # Errors
    /// The place and reason of the first fault that is not an expression's.
    pub fn parse_trusted(sources: &[(&str, &str)]) -> Result<Self, RuleError> {
        Self::from_sources(sources, Care::Trust)
    }

    fn from_sources(sources: &[(&str, &str)], care: Care) -> Result<Self, RuleError> {
        let mut parsed = Parsed::default();
        for (name, text) in sources {
            parsed.read(name, text, care)?;
        }
        parsed.finish()?;
        let matchers = matchers(&parsed.patterns)?;
        Ok(Self {
            products: parsed.products,
            not_mail: parsed.not_mail,
            patterns: parsed.patterns,
            matchers,
            parents: parsed.parents,
            digest: digest(sources),
        })
    }

    /// SHA-256 over the rule files in lower-case hexadecimal. It depends on the files' base names
    /// and contents only, so the same rules have the same digest built in or loaded.
    pub fn digest(&self) -> String {
        self.digest.clone()
    }

    /// Every pattern, in the order of the rule files.
    pub fn rules(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Every product, in the order of the rule files.
    pub fn products(&self) -> &[Product] {
        &self.products
    }

    /// The families that a family belongs to, from itself to the outermost.
    pub fn families<'a>(&'a self, family: &'a str) -> impl Iterator<Item = &'a str> {
        // A circle in the files would have no end; no tree is this deep.
        std::iter::successors(Some(family), |f| self.parents.get(*f).map(String::as_str)).take(8)
    }

    /// The outermost family that a family belongs to.
    pub fn top_family<'a>(&'a self, family: &'a str) -> &'a str {
        self.families(family).last().unwrap_or(family)
    }

    /// The products in the order of their names, with the number of their patterns.
    pub fn list(&self) -> Vec<Listing> {
        let mut list: Vec<_> = self
            .products
            .iter()
            .enumerate()
            .map(|(index, product)| Listing {
                product: product.name.clone(),
                vendor: product.vendor.clone(),
                category: product.category,
                family: product.family.clone(),
                patterns: self
                    .patterns
                    .iter()
                    .filter(|p| p.owner == Owner::Product(index))
                    .count(),
            })
            .collect();
        list.sort_by_key(|l| l.product.to_lowercase());
        list
    }
}

fn matchers(patterns: &[Pattern]) -> Result<[[Option<Matcher>; 2]; Stage::ALL.len()], RuleError> {
    let mut matchers = [const { [const { None }; 2] }; Stage::ALL.len()];
    for &stage in Stage::ALL {
        for sees_host in [false, true] {
            let members = (0..patterns.len())
                .filter(|&i| patterns[i].stage == stage && patterns[i].sees_host == sees_host);
            matchers[stage as usize][usize::from(sees_host)] =
                Matcher::new(stage, patterns, members)?;
        }
    }
    Ok(matchers)
}

fn digest(sources: &[(&str, &str)]) -> String {
    let mut named: Vec<_> = sources
        .iter()
        .map(|(name, text)| (name.rsplit('/').next().unwrap_or(name), text))
        .collect();
    named.sort_unstable();
    let mut hasher = Sha256::new();
    for (name, text) in named {
        // Lengths keep (name, text) apart from any other split of the same bytes.
        hasher.update(name.len().to_be_bytes());
        hasher.update(name);
        hasher.update(text.len().to_be_bytes());
        hasher.update(text);
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_directory_equals_the_built_in_rules() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/rules"));
        let loaded = RuleSet::load(directory).expect("the repository's rules");
        let builtin = RuleSet::builtin();
        assert_eq!(loaded.digest(), builtin.digest());
        assert_eq!(loaded.list(), builtin.list());
        assert!(loaded.list().len() >= 40);
    }

    #[test]
    fn a_changed_rule_has_another_digest() {
        let text = |weight| {
            format!(
                "family = 'F'\n[[product]]\nname = 'F'\ncategory = 'other'\n[[product.pattern]]\n\
                 on = 'greeting'\nregex = 'F'\nweight = {weight}\nexamples = [{{ text = 'F' }}]\n"
            )
        };
        let digest = |weight| {
            RuleSet::parse(&[("f.toml", &text(weight))])
                .expect("sound")
                .digest()
        };
        assert_ne!(digest(10), digest(11));
        assert_eq!(digest(10).len(), 64);
    }

    #[test]
    fn directories_without_rules_are_refused() {
        let empty = tempfile::tempdir().expect("a temporary directory");
        assert!(matches!(
            RuleSet::load(empty.path()),
            Err(RuleError::Empty { .. })
        ));
        let missing = empty.path().join("missing");
        assert!(matches!(
            RuleSet::load(&missing),
            Err(RuleError::Unreadable { .. })
        ));
    }
}
