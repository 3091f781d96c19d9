//! What can be wrong with rule files, always with the place to look at.

use std::path::PathBuf;

/// Why a set of rules could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// A place in a rule file does not say what it must.
    #[error("{file}:{line}:{column}: {reason}")]
    Malformed {
        /// The file as it was named to us.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A directory or file could not be read.
    #[error("cannot read rules from {path}: {source}")]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A directory without a single rule file.
    #[error("no *.toml rule file in {path}")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Two products under one name; verdicts could not be told apart.
    #[error("{file}:{line}: product {name:?} is already defined in {other}")]
    Twice {
        /// The file of the second definition.
        file: String,
        /// Its line, counted from 1.
        line: usize,
        /// The product's name.
        name: String,
        /// The file of the first definition.
        other: String,
    },
    /// The expressions are sound one by one, but too large together.
    #[error("the patterns on {stage} do not compile together: {reason}")]
    TooLarge {
        /// The stage whose set failed.
        stage: &'static str,
        /// The regex engine's reason.
        reason: String,
    },
}
