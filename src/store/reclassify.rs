//! Judging stored transcripts anew: rules improve, the data stays.
//!
//! A survey that is complete is read, judged and written in one pass and one transaction: all of
//! the new verdicts are there, or none. One that a sweep still writes gets them so many hosts at a
//! time, each time in a short transaction of its own, so that the sweep never waits long; only the
//! last one makes the new verdicts the ones that count. Either way, whoever reads meanwhile, or after
//! an interruption, has the old ones, and all of them.

use std::collections::BTreeMap;

use rusqlite::TransactionBehavior;

use super::read::{Parts, scan_hosts};
use super::text::tame;
use super::write::{make_current, put_ruleset, put_verdict};
use super::{StoreError, StoredHost, Survey, key};
use crate::fingerprint::Verdict;
use crate::smtp::Outcome;

/// Hosts in one transaction while a sweep writes the same file.
const CHUNK: u32 = 5_000;

/// What is read of a host to judge it.
const PARTS: Parts = Parts {
    transcript: true,
    evidence: false,
    tls: true,
};

/// What a reclassification changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Hosts judged.
    pub hosts: u64,
    /// Hosts whose product is another than before (unknown counts as one).
    pub products_changed: u64,
    /// Hosts whose product stayed and whose version is another than before.
    pub versions_changed: u64,
    /// The moves from product to product, the most frequent first, then by name.
    pub moves: Vec<Change>,
}

/// So many hosts went from one product to another; `None` is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The product before.
    pub from: Option<String>,
    /// The product now.
    pub to: Option<String>,
    /// How many hosts.
    pub hosts: u64,
}

/// A host judged anew, not yet stored.
struct Judged {
    host: i64,
    outcome: Outcome,
    /// Product and version of the verdict that counted so far.
    old: (Option<String>, Option<String>),
    new: Verdict,
}

impl Judged {
    fn new(host: StoredHost, new: Verdict) -> Self {
        let old = host.verdict;
        Self {
            host: host.id,
            outcome: host.row.outcome,
            old: old.map_or((None, None), |old| (old.product, old.version)),
            new,
        }
    }
}

impl Survey {
    /// Judges every stored host by other rules and makes those verdicts the current ones. Verdicts
    /// under other digests are kept; those under the same digest are replaced. Hosts that a running
    /// sweep stores after that are judged by its own rules only, and have no current verdict.
    ///
    /// # Errors
    /// If the database cannot be read or written; the verdicts that counted before still do then.
    pub fn reclassify(
        &mut self,
        digest: &str,
        version: &str,
        judge: impl FnMut(&StoredHost) -> Verdict,
    ) -> Result<Changes, StoreError> {
        if self.meta(key::STATE)? == Some("running".into()) {
            self.reclassify_by(CHUNK, digest, version, judge)
        } else {
            self.reclassify_whole(digest, version, judge)
        }
    }

    /// As [`Survey::reclassify`], in one pass and one transaction.
    fn reclassify_whole(
        &mut self,
        digest: &str,
        version: &str,
        mut judge: impl FnMut(&StoredHost) -> Verdict,
    ) -> Result<Changes, StoreError> {
        self.in_place()?;
        let before = self.current_ruleset()?;
        let path = self.path.clone();
        let failed = |e| StoreError::sql(&path, "reclassify", e);
        let mut tally = Tally::default();
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let ruleset = put_ruleset(&tx, digest, version).map_err(failed)?;
        // Verdicts are written into the table that is being read, by another key: a host's old
        // verdict is sought under the old ruleset, after its row was reached and before its new
        // verdict is stored.
        scan_hosts(&tx, before, PARTS, i64::MIN..=i64::MAX, failed, |host| {
            let new = judge(&host);
            put_verdict(&tx, host.id, ruleset, host.row.outcome, &new).map_err(failed)?;
            tally.add(Judged::new(host, new));
            Ok::<(), StoreError>(())
        })?;
        make_current(&tx, ruleset).map_err(failed)?;
        tx.commit().map_err(failed)?;
        self.ruleset = Some(ruleset);
        Ok(tally.changes())
    }

    /// As [`Survey::reclassify`], so many hosts at a time.
    pub(super) fn reclassify_by(
        &mut self,
        chunk: u32,
        digest: &str,
        version: &str,
        mut judge: impl FnMut(&StoredHost) -> Verdict,
    ) -> Result<Changes, StoreError> {
        let before = self.current_ruleset()?;
        let mut tally = Tally::default();
        let mut done = i64::MIN;
        loop {
            // The rules' work is the larger part, so it is done while others may write.
            let judged = self.judge_after(done, chunk, before, &mut judge)?;
            done = judged.last().map_or(done, |last| last.host);
            let ended = self.put_judged(digest, version, &judged, done)?;
            judged.into_iter().for_each(|judged| tally.add(judged));
            if ended {
                return Ok(tally.changes());
            }
        }
    }

    /// Judges the next hosts behind `done`, as of one moment.
    fn judge_after(
        &self,
        done: i64,
        chunk: u32,
        before: Option<i64>,
        judge: &mut impl FnMut(&StoredHost) -> Verdict,
    ) -> Result<Vec<Judged>, StoreError> {
        let failed = |e| self.failed("reclassify", e);
        let mut judged = Vec::new();
        let snapshot = self.conn.unchecked_transaction().map_err(failed)?;
        let ids: (Option<i64>, Option<i64>) = snapshot
            .prepare_cached(
                "SELECT min(id), max(id)
                 FROM (SELECT id FROM hosts WHERE id > ?1 ORDER BY id LIMIT ?2)",
            )
            .and_then(|mut s| s.query_row((done, chunk), |r| Ok((r.get(0)?, r.get(1)?))))
            .map_err(failed)?;
        let (Some(first), Some(last)) = ids else {
            return Ok(judged);
        };
        scan_hosts(&snapshot, before, PARTS, first..=last, failed, |host| {
            let new = judge(&host);
            judged.push(Judged::new(host, new));
            Ok::<(), StoreError>(())
        })?;
        Ok(judged)
    }

    /// Stores those verdicts, and lets them count if there is no host behind `done`. Says whether
    /// that was so.
    fn put_judged(
        &mut self,
        digest: &str,
        version: &str,
        judged: &[Judged],
        done: i64,
    ) -> Result<bool, StoreError> {
        self.in_place()?;
        let path = self.path.clone();
        let failed = |e| StoreError::sql(&path, "reclassify", e);
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let ruleset = put_ruleset(&tx, digest, version).map_err(failed)?;
        for judged in judged {
            put_verdict(&tx, judged.host, ruleset, judged.outcome, &judged.new).map_err(failed)?;
        }
        let more: bool = tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM hosts WHERE id > ?1)")
            .and_then(|mut s| s.query_row([done], |row| row.get(0)))
            .map_err(failed)?;
        if !more {
            make_current(&tx, ruleset).map_err(failed)?;
        }
        tx.commit().map_err(failed)?;
        if !more {
            self.ruleset = Some(ruleset);
        }
        Ok(!more)
    }
}

/// What has changed so far.
#[derive(Default)]
struct Tally {
    changes: Changes,
    moves: BTreeMap<(Option<String>, Option<String>), u64>,
}

impl Tally {
    fn add(&mut self, judged: Judged) {
        // As it was stored, or it would differ from what was read.
        let stored = |text: Option<String>| text.map(|text| tame(&text).into_owned());
        let (product, version) = (stored(judged.new.product), stored(judged.new.version));
        let (old_product, old_version) = judged.old;
        self.changes.hosts += 1;
        if old_product != product {
            self.changes.products_changed += 1;
            *self.moves.entry((old_product, product)).or_default() += 1;
        } else if old_version != version {
            self.changes.versions_changed += 1;
        }
    }

    fn changes(self) -> Changes {
        let mut changes = self.changes;
        changes.moves = self
            .moves
            .into_iter()
            .map(|((from, to), hosts)| Change { from, to, hosts })
            .collect();
        changes
            .moves
            .sort_by_key(|change| std::cmp::Reverse(change.hosts));
        changes
    }
}
