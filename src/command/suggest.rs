//! `smtpsweep rules suggest FILE [CLUSTER]`: the largest clusters of unknown servers, or a draft of a
//! rule for one.
//!
//! The survey is judged by today's rules, not by those it was stored under, so that what has been
//! written since is no longer listed. It is read twice where a draft is asked for: once to count, once
//! to collect members of the cluster.

use std::collections::HashMap;
use std::io::{self, Write as _};

use anyhow::{Context as _, bail};

use crate::cli::SuggestArgs;
use crate::fingerprint::{Replies, RuleSet, behaviour, draft, normalise_greeting};
use crate::smtp::Stage;
use crate::store::text::escape_short;
use crate::store::{StoreError, Survey};

/// Members of a cluster that a draft is made from at most.
const MEMBERS: usize = 50;

/// Clusters of a kind that are counted; what comes after that many is not (a sweep of hosts that
/// each greet like nobody else must not fill the memory).
const COUNTED: usize = 200_000;

/// Characters of a cluster shown.
const SHOWN: usize = 160;

/// How servers are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Greeting,
    Behaviour,
}

/// Clusters of one kind: what the members share, their number, the address of one.
type Clusters = HashMap<String, (u64, String)>;

/// Lists clusters, or drafts a rule.
pub(super) fn suggest(rules: &RuleSet, args: &SuggestArgs) -> anyhow::Result<()> {
    let survey = Survey::open_readonly(&args.file)?;
    let [mut greetings, mut behaviours] = [Clusters::new(), Clusters::new()];
    each_unknown(&survey, rules, |address, replies| {
        for (kind, clusters) in [
            (Kind::Greeting, &mut greetings),
            (Kind::Behaviour, &mut behaviours),
        ] {
            let Some(shared) = kind.of(replies) else {
                continue;
            };
            if clusters.len() >= COUNTED && !clusters.contains_key(&shared) {
                continue;
            }
            let cluster = clusters.entry(shared);
            cluster.or_insert_with(|| (0, address.to_owned())).0 += 1;
        }
    })?;
    let greetings = largest(greetings);
    let behaviours = largest(behaviours);
    let mut out = io::stdout().lock();
    let Some(wanted) = &args.cluster else {
        for (kind, letter, clusters) in [
            ("greeting", 'g', &greetings),
            ("behaviour", 'b', &behaviours),
        ] {
            writeln!(
                out,
                "unknown servers by {kind}: {} clusters",
                clusters.len()
            )?;
            for (n, (shared, hosts, example)) in (1..).zip(clusters).take(args.clusters) {
                let shared = escape_short(shared.as_bytes(), SHOWN);
                writeln!(
                    out,
                    "  {letter}{n:<4}{hosts:>9} hosts, such as {example}: {shared}"
                )?;
            }
        }
        return Ok(out.flush()?);
    };
    let (kind, clusters) = match wanted.chars().next() {
        Some('g') => (Kind::Greeting, &greetings),
        Some('b') => (Kind::Behaviour, &behaviours),
        _ => bail!("{wanted:?} is no cluster; give one of the list, such as g1"),
    };
    let (shared, hosts, _) = wanted[1..]
        .parse::<usize>()
        .ok()
        .and_then(|n| clusters.get(n.checked_sub(1)?))
        .with_context(|| format!("there is no cluster {wanted}"))?;
    let mut members = Vec::new();
    each_unknown(&survey, rules, |_, replies| {
        if members.len() < MEMBERS && kind.of(replies).as_ref() == Some(shared) {
            members.push(replies.clone());
        }
    })?;
    let shared = escape_short(shared.as_bytes(), SHOWN);
    writeln!(
        out,
        "# Drafted from {} of {hosts} servers: {shared}",
        members.len()
    )?;
    out.write_all(draft(&members).as_bytes())?;
    Ok(out.flush()?)
}

impl Kind {
    /// What the server shares with those of its cluster.
    fn of(self, replies: &Replies) -> Option<String> {
        match self {
            Self::Greeting => replies
                .observation()
                .reply(Stage::Greeting)
                .map(normalise_greeting),
            Self::Behaviour => Some(behaviour(replies)).filter(|vector| !vector.is_empty()),
        }
    }
}

/// Hands over every mail server that no rule names, with its address.
fn each_unknown(
    survey: &Survey,
    rules: &RuleSet,
    mut each: impl FnMut(&str, &Replies),
) -> anyhow::Result<()> {
    let mut classifier = rules.classifier();
    survey.for_each_host(|host| {
        let replies = host.replies();
        let verdict = classifier.classify(&replies.observation());
        if verdict.is_smtp && (verdict.product.is_none() || verdict.self_declared) {
            each(&host.row.addr.to_string(), &replies);
        }
        Ok::<(), StoreError>(())
    })?;
    Ok(())
}

/// The clusters, largest first, those of one size in the order of their text.
fn largest(clusters: Clusters) -> Vec<(String, u64, String)> {
    let mut clusters: Vec<_> = clusters
        .into_iter()
        .map(|(shared, (hosts, example))| (shared, hosts, example))
        .collect();
    clusters.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    clusters
}
