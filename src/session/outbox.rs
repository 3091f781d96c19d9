//! Finished records on their way to their consumer, who may be slow.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};

use super::{SessionError, SessionRecord};

/// The records that the channel has not yet taken.
#[derive(Debug)]
pub(super) struct Outbox {
    records: VecDeque<SessionRecord>,
    output: Sender<SessionRecord>,
}

impl Outbox {
    pub(super) const fn new(output: Sender<SessionRecord>) -> Self {
        Self {
            records: VecDeque::new(),
            output,
        }
    }

    pub(super) fn push(&mut self, record: SessionRecord) {
        self.records.push_back(record);
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether nothing more should be begun that could wait for the consumer.
    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= MARK
    }

    /// Hands over as many records as the channel takes.
    pub(super) fn hand_over(&mut self) -> Result<(), SessionError> {
        while let Some(record) = self.records.pop_front() {
            match self.output.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Full(record)) => {
                    self.records.push_front(record);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => return Err(self.consumer_gone()),
            }
        }
        Ok(())
    }

    /// Hands over one record, waiting for the consumer for `patience` at most.
    pub(super) fn hand_over_one(&mut self, patience: Duration) -> Result<(), SessionError> {
        let Some(record) = self.records.pop_front() else {
            return Ok(());
        };
        match self.output.send_timeout(record, patience) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(record)) => {
                self.records.push_front(record);
                Ok(())
            }
            Err(SendTimeoutError::Disconnected(_)) => Err(self.consumer_gone()),
        }
    }

    /// Hands over all records, waiting for the consumer.
    pub(super) fn hand_over_all(&mut self) -> Result<(), SessionError> {
        while let Some(record) = self.records.pop_front() {
            if self.output.send(record).is_err() {
                return Err(self.consumer_gone());
            }
        }
        Ok(())
    }

    fn consumer_gone(&self) -> SessionError {
        SessionError::ConsumerGone(self.records.len() as u64 + 1)
    }
}

/// Records above which the outbox is full.
const MARK: usize = 1_024;
