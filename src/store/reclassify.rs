//! Judging stored transcripts anew: rules improve, the data stays.

use std::collections::BTreeMap;

use rusqlite::TransactionBehavior;
use serde::Serialize;

use super::read::{Parts, scan_hosts};
use super::write::{put_ruleset, put_verdict};
use super::{StoreError, StoredHost, Survey};
use crate::fingerprint::Verdict;

/// What a reclassification changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The product before.
    pub from: Option<String>,
    /// The product now.
    pub to: Option<String>,
    /// How many hosts.
    pub hosts: u64,
}

impl Survey {
    /// Judges every stored host by other rules, in one transaction, and makes those verdicts the
    /// current ones. Verdicts under other digests are kept; those under the same digest are
    /// replaced. A sweep that writes the file meanwhile waits, so do this after the sweep.
    ///
    /// # Errors
    /// If the database cannot be read or written; nothing has changed then.
    pub fn reclassify(
        &mut self,
        digest: &str,
        version: &str,
        mut judge: impl FnMut(&StoredHost) -> Verdict,
    ) -> Result<Changes, StoreError> {
        let path = self.path.clone();
        let failed = |e| StoreError::sql(&path, "reclassify", e);
        let before = self.ruleset;
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let id = put_ruleset(&tx, digest, version).map_err(failed)?;
        let mut changes = Changes::default();
        let mut moves: BTreeMap<(Option<String>, Option<String>), u64> = BTreeMap::new();
        // A host's old verdict is fetched before its new one is put, and both by their full key,
        // so the walk is not disturbed by what it writes.
        scan_hosts(
            &tx,
            before,
            Parts {
                transcript: true,
                evidence: false,
            },
            0..=i64::MAX,
            failed,
            |host| {
                let new = judge(&host);
                put_verdict(&tx, host.id, id, &new).map_err(failed)?;
                changes.hosts += 1;
                let (product, version) = host
                    .verdict
                    .map_or((None, None), |old| (old.product, old.version));
                if product != new.product {
                    changes.products_changed += 1;
                    *moves.entry((product, new.product)).or_default() += 1;
                } else if version != new.version {
                    changes.versions_changed += 1;
                }
                Ok::<(), StoreError>(())
            },
        )?;
        tx.commit().map_err(failed)?;
        self.ruleset = Some(id);
        changes.moves = moves
            .into_iter()
            .map(|((from, to), hosts)| Change { from, to, hosts })
            .collect();
        changes
            .moves
            .sort_by_key(|change| std::cmp::Reverse(change.hosts));
        Ok(changes)
    }
}
