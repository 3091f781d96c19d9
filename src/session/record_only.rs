//! In the engine's place where no session is wanted: every responder becomes its record at once.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Counters, SessionError, SessionRecord};
use crate::probe::Responder;
use crate::smtp::{Outcome, Transcript};

/// How often the counters are renewed while nothing comes.
const TURN: Duration = Duration::from_millis(20);

/// Records between two renewals of the counters while much comes.
const RENEWAL: u64 = 1024;

/// Turns every responder of `input` into a record with [`Outcome::NotContacted`], until the channel
/// is closed and empty; waits for a slow consumer, while the rest stays in `input`.
///
/// # Errors
/// [`SessionError::ConsumerGone`] if the consumer of records went away.
pub fn record_only(
    input: &Receiver<Responder>,
    output: &Sender<SessionRecord>,
    counters: &Counters,
) -> Result<(), SessionError> {
    let mut taken = 0u64;
    loop {
        match input.recv_timeout(TURN) {
            Ok(responder) => {
                let record = SessionRecord {
                    outcome: Outcome::NotContacted,
                    detail: None,
                    transcript: Transcript::default(),
                    tls: None,
                    started_us: responder.seen_us(),
                    connect_ms: None,
                    duration_ms: 0,
                    responder,
                };
                if output.send(record).is_err() {
                    return Err(SessionError::ConsumerGone(input.len() as u64 + 1));
                }
                counters.count(Outcome::NotContacted, 0);
                taken += 1;
                if taken.is_multiple_of(RENEWAL) {
                    counters.set(input.len(), 0, 0);
                }
            }
            Err(RecvTimeoutError::Timeout) => counters.set(input.len(), 0, 0),
            Err(RecvTimeoutError::Disconnected) => {
                counters.set(0, 0, 0);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::responder;
    use crossbeam_channel::{bounded, unbounded};
    use std::thread;

    #[test]
    fn each_responder_becomes_one_record_in_order_however_slow_the_consumer() {
        let (give, input) = unbounded();
        let (output, records) = bounded(3);
        for host in 0..2_500u16 {
            let [high, low] = host.to_be_bytes();
            give.send(responder([10, 0, high, low], 25)).unwrap();
        }
        drop(give);
        let counters = Counters::new();
        thread::scope(|scope| {
            let counters = &counters;
            let stage = scope.spawn(move || record_only(&input, &output, counters));
            for host in 0..2_500u16 {
                let record = records.recv().unwrap();
                let [high, low] = host.to_be_bytes();
                assert_eq!(record.responder.addr().octets(), [10, 0, high, low]);
                assert_eq!(record.outcome, Outcome::NotContacted);
            }
            stage.join().unwrap().unwrap();
        });
        assert!(records.recv().is_err(), "one record each");
        assert_eq!(counters.ended(Outcome::NotContacted), 2_500);
        assert_eq!((counters.done(), counters.queued_ready()), (2_500, 0));
    }

    #[test]
    fn a_consumer_that_went_away_is_an_error_that_counts_what_is_lost() {
        let (give, input) = unbounded();
        for host in 0..5 {
            give.send(responder([10, 0, 0, host], 25)).unwrap();
        }
        let (output, records) = bounded(9);
        drop(records);
        let ended = record_only(&input, &output, &Counters::new());
        assert!(matches!(ended, Err(SessionError::ConsumerGone(5))));
    }
}
