//! The writer: session records → verdicts → the survey file, in transactions.
//!
//! One thread owns the database. Records are committed at the latest half a second after they
//! came, together with the counts and the cursors of that moment, so that a reader of the running
//! sweep's file sees it grow, and a crash leaves a file that tells how far the sweep had come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::account::probe_counts;
use super::{Shared, borrowed};
use crate::fingerprint::{Replies, RuleSet, Verdict};
use crate::session::SessionRecord;
use crate::status::say;
use crate::store::{StoreError, Survey, key};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use jiff::Timestamp;
use serde_json::json;

/// Records in one transaction at the most. Addresses come in no order, so each transaction writes
/// nearly all pages of the index on them: with eight times 2,048 records, a million responders that
/// nobody talks to are stored in six seconds instead of ten.
const BATCH: usize = 16_384;

/// Octets of dialogue in one transaction at the most, but for the last record's.
const BATCH_OCTETS: usize = 8 << 20;

/// Time a record waits for its transaction at the most.
const LATEST: Duration = Duration::from_millis(500);

/// What the writer did.
pub(super) struct Written {
    /// The survey, given back for the closing metadata.
    pub survey: Survey,
    /// Hosts stored.
    pub hosts: u64,
    /// Whether the survey file took everything.
    pub result: anyhow::Result<()>,
}

/// Everything the writer's thread owns.
pub(super) struct Writer {
    pub survey: Survey,
    pub rules: Arc<RuleSet>,
    pub records: Receiver<SessionRecord>,
    /// Addresses in the space.
    pub space: u64,
    /// How far the sweep has come.
    pub shared: Arc<Shared>,
}

impl Writer {
    /// Stores records until the sessions end, or until the survey file takes no more.
    pub(super) fn run(mut self) -> Written {
        let mut hosts = 0;
        let result = self.store(&mut hosts).with_context(|| {
            let waiting = self.records.len();
            format!("cannot store results ({hosts} hosts are stored, {waiting} and more are not)")
        });
        Written {
            survey: self.survey,
            hosts,
            result,
        }
    }

    fn store(&mut self, hosts: &mut u64) -> Result<(), StoreError> {
        let mut batch: Vec<(SessionRecord, Verdict)> = Vec::with_capacity(BATCH);
        let rules = Arc::clone(&self.rules);
        let mut classifier = rules.classifier();
        let (mut due, mut ended) = (Instant::now() + LATEST, false);
        let mut octets = 0;
        while !ended {
            match self.records.recv_deadline(due) {
                Ok(record) => {
                    let certificate = record.tls.as_ref().and_then(|tls| tls.certificate());
                    let replies =
                        Replies::of(&record.transcript).with_certificate(certificate.as_ref());
                    let verdict = classifier.classify(&replies.observation());
                    let pieces = record.transcript.pieces.iter();
                    octets += pieces.map(|piece| piece.bytes.len()).sum::<usize>();
                    batch.push((record, verdict));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => ended = true,
            }
            let full = batch.len() >= BATCH || octets >= BATCH_OCTETS;
            if ended || full || Instant::now() >= due {
                self.commit(&batch)?;
                *hosts += batch.len() as u64;
                batch.clear();
                octets = 0;
                due = Instant::now() + LATEST;
            }
        }
        Ok(())
    }

    /// Commits records together with how far the sweep has come. While another program holds the
    /// file's lock nothing is lost: the records wait, then the sessions, then the sender.
    fn commit(&mut self, batch: &[(SessionRecord, Verdict)]) -> Result<(), StoreError> {
        let mut told = false;
        loop {
            match self.try_commit(batch) {
                Err(error) if error.is_busy() => {
                    if !told {
                        say(format_args!("{error}; waiting"));
                        told = true;
                    }
                }
                ended => return ended,
            }
        }
    }

    fn try_commit(&mut self, batch: &[(SessionRecord, Verdict)]) -> Result<(), StoreError> {
        let progress = self.shared.progress().clone();
        let sent = self.shared.targets.load(Ordering::Relaxed);
        let packets = self.shared.sent.load(Ordering::Relaxed);
        let counts = probe_counts(self.space, sent, &progress.replies);
        let metadata = [
            ("cursors", json!(progress.cursors)),
            ("packets_sent", json!(packets)),
            (key::UPDATED_US, json!(Timestamp::now().as_microsecond())),
        ];
        self.survey.add_with(batch, &borrowed(&counts), &metadata)
    }
}
