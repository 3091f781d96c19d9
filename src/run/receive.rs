//! The receiver: frame → reply → one probe outcome per address → responder to the sessions.
//!
//! The first valid answer of an address decides its probe outcome, so that the table of probe
//! outcomes adds up to what was sent. A SYN-ACK is handed over once per address, even where an
//! ICMP error or RST came first (counted as such).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Shared;
use crate::net::{NetError, Receive};
use crate::probe::{Classifier, Dedup, DropReason, Reply, Responder};
use crate::targets::Space;

/// How long one wait for frames lasts at the most; bounds how late a stop is seen.
const WAIT: Duration = Duration::from_millis(50);

/// How often the tally is told, for the survey file.
const TELL: Duration = Duration::from_millis(200);

/// What came back, counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReplyTally {
    /// Addresses whose first answer was a SYN-ACK.
    pub synack: u64,
    /// Addresses that answered SYN-ACK after an RST or an ICMP error.
    pub synack_later: u64,
    /// Addresses whose first answer was an RST.
    pub reset: u64,
    /// Addresses whose first answer was an ICMP error, by type and code.
    pub icmp: BTreeMap<(u8, u8), u64>,
    /// Valid answers beyond an address's first (retransmitted SYN-ACKs for the most part).
    pub repeats: u64,
    /// Valid ICMP messages that settle nothing: source quench and redirect.
    pub remarks: u64,
    /// Valid answers of addresses that are blocked or no targets (any more).
    pub not_admitted: u64,
    /// Frames that were no valid answer, by reason, in the order of [`DropReason::ALL`].
    pub ignored: BTreeMap<&'static str, u64>,
    /// Frames that passed the kernel's filter.
    pub frames: u64,
    /// Frames lost between the wire and us, as the kernel counts them.
    pub lost: u64,
}

impl ReplyTally {
    /// Distinct addresses that answered SYN-ACK: what the sessions were handed.
    pub fn responders(&self) -> u64 {
        self.synack + self.synack_later
    }

    /// Distinct addresses that answered in any way.
    pub fn answered(&self) -> u64 {
        self.synack + self.reset + self.icmp.values().sum::<u64>()
    }
}

/// What the receiver did.
pub(super) struct Received {
    /// What came back.
    pub(super) tally: ReplyTally,
    /// What ended it early, if the network did.
    pub(super) ended: Result<(), NetError>,
}

/// Everything the receiver's thread owns.
pub(super) struct Receiver {
    pub network: Box<dyn Receive>,
    pub classifier: Classifier,
    pub space: Arc<Space>,
    pub responders: Sender<Responder>,
    pub shared: Arc<Shared>,
}

impl Receiver {
    /// Receives until told to stop; dropping the channel's end then tells the sessions.
    pub(super) fn run(mut self) -> Received {
        let mut tally = ReplyTally::default();
        let ended = self.receive(&mut tally);
        self.shared.progress().replies = tally.clone();
        Received { tally, ended }
    }

    fn receive(&mut self, tally: &mut ReplyTally) -> Result<(), NetError> {
        let (mut answered, mut responded) = (Dedup::new(), Dedup::new());
        let mut told = Instant::now();
        while !self.shared.stop_receiving.load(Ordering::Relaxed) {
            let (classifier, space, responders) = (&self.classifier, &self.space, &self.responders);
            self.network.poll(WAIT, &mut |frame, at_us| {
                tally.frames += 1;
                let reply = match classifier.classify(frame, at_us) {
                    Ok(reply) => reply,
                    Err(reason) => return tally.ignore(reason),
                };
                if space.admit(reply.addr()).is_none() {
                    tally.not_admitted += 1;
                    return;
                }
                if !reply.is_final() {
                    // Source quench, redirect: remarks about a probe that is still on its way.
                    tally.remarks += 1;
                    return;
                }
                let address = reply.addr().to_bits();
                let first = answered.first(address);
                match reply {
                    Reply::SynAck(responder) if responded.first(address) => {
                        if first {
                            tally.synack += 1;
                        } else {
                            tally.synack_later += 1;
                        }
                        // The engine takes responders until this end is dropped, or it failed;
                        // then the run ends with its error.
                        let _ = responders.send(responder);
                    }
                    Reply::Reset { .. } if first => tally.reset += 1,
                    Reply::Unreachable {
                        icmp_type,
                        icmp_code,
                        ..
                    } if first => {
                        *tally.icmp.entry((icmp_type, icmp_code)).or_default() += 1;
                    }
                    _ => tally.repeats += 1,
                }
            })?;
            tally.lost = self.network.stats()?.dropped;
            self.shared
                .responders
                .store(tally.responders(), Ordering::Relaxed);
            self.shared.dropped.store(tally.lost, Ordering::Relaxed);
            if told.elapsed() >= TELL {
                told = Instant::now();
                self.shared.progress().replies = tally.clone();
            }
        }
        Ok(())
    }
}

impl ReplyTally {
    fn ignore(&mut self, reason: DropReason) {
        *self.ignored.entry(reason.name()).or_default() += 1;
    }
}
