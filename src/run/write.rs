//! The writer: session records → verdicts → the survey file, in transactions.
//!
//! One thread owns the database. Records are committed at the latest half a second after they
//! came, so that a reader of the running sweep's file sees it grow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use thiserror::Error;

use crate::fingerprint::{Replies, RuleSet, Verdict};
use crate::session::SessionRecord;
use crate::store::{StoreError, Survey};

/// Records in one transaction at the most.
const BATCH: usize = 2048;

/// Time a record waits for its transaction at the most.
const LATEST: Duration = Duration::from_millis(500);

/// The survey file could not take the records.
#[derive(Debug, Error)]
#[error("cannot store results ({stored} hosts are stored, {unstored} are not): {source}")]
pub(super) struct WriteError {
    stored: u64,
    unstored: u64,
    source: StoreError,
}

/// What the writer did.
pub(super) struct Written {
    /// The survey, given back for the closing metadata.
    pub survey: Survey,
    /// Hosts stored.
    pub hosts: u64,
}

/// Everything the writer's thread owns.
pub(super) struct Writer {
    pub survey: Survey,
    pub rules: Arc<RuleSet>,
    pub records: Receiver<SessionRecord>,
}

impl Writer {
    /// Stores records until the sessions end.
    pub(super) fn run(mut self) -> Result<Written, WriteError> {
        let mut batch: Vec<(SessionRecord, Verdict)> = Vec::with_capacity(BATCH);
        let (mut hosts, mut due, mut ended) = (0, Instant::now() + LATEST, false);
        while !ended {
            match self.records.recv_deadline(due) {
                Ok(record) => {
                    let replies = Replies::of(&record.transcript);
                    let verdict = self.rules.classify(&replies.observation());
                    batch.push((record, verdict));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => ended = true,
            }
            if ended || batch.len() >= BATCH || Instant::now() >= due {
                due = Instant::now() + LATEST;
                if batch.is_empty() {
                    continue;
                }
                if let Err(source) = self.survey.add(&batch) {
                    let unstored = (batch.len() + self.records.len()) as u64;
                    return Err(WriteError {
                        stored: hosts,
                        unstored,
                        source,
                    });
                }
                hosts += batch.len() as u64;
                batch.clear();
            }
        }
        Ok(Written {
            survey: self.survey,
            hosts,
        })
    }
}
