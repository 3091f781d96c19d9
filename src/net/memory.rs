//! A network that is not there: for simulations of a whole sweep, and for trying the program
//! without a privilege.
//!
//! [`MemoryNet::pair`] makes a transmitter and a receiver joined by a policy, which sees every SYN
//! frame and says which frames come back: none (loss), one, two (duplicates), or forged ones. The
//! ready-made answers are [`synack_for`], [`rst_for`], [`icmp_unreachable_for`] and
//! [`icmp_error_for`].
//!
//! ```
//! use std::time::Duration;
//! use smtpsweep::net::memory::{MemoryNet, synack_for};
//! use smtpsweep::net::{Receive, Transmit};
//! use smtpsweep::probe::{Classifier, CookieKey, Cookies, Reply, Syn, SynLayout};
//! use smtpsweep::targets::{RangeSet, Space};
//!
//! let us = "198.18.0.2".parse().unwrap();
//! let cookies = Cookies::new(CookieKey::derive(1, &[0; 16]), 40_000..=49_999, 25);
//! let syn = Syn::new(&[], us, Syn::DEFAULT_TTL, SynLayout::Linux, cookies.clone());
//! let (mut tx, mut rx) = MemoryNet::pair(syn, |frame| synack_for(frame).into_iter().collect());
//!
//! let wanted = RangeSet::from_ranges([(0x0a00_0001, 0x0a00_0001)]);
//! let space = Space::new(&wanted, &RangeSet::from_ranges(std::iter::empty::<(u32, u32)>()));
//! assert_eq!(tx.send(&[space.target(0).unwrap()]).unwrap(), 1);
//!
//! let classifier = Classifier::new(us, cookies, 0);
//! let mut open = Vec::new();
//! rx.poll(Duration::ZERO, &mut |frame, at_us| {
//!     if let Ok(Reply::SynAck(responder)) = classifier.classify(frame, at_us) {
//!         open.push(responder.addr().to_string());
//!     }
//! })
//! .unwrap();
//! assert_eq!(open, ["10.0.0.1"]);
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender};

pub use super::DryRun;
use super::{NetError, Receive, RxStats, Transmit};
use crate::probe::Syn;
pub use crate::probe::answer::{icmp_error_for, icmp_unreachable_for, rst_for, synack_for};
use crate::targets::Target;

/// Makes joined transmitters and receivers.
#[derive(Debug, Clone, Copy)]
pub struct MemoryNet;

impl MemoryNet {
    /// A transmitter of `syn` and a receiver of what `policy` answers to each frame. Answers wait
    /// without bound, in order.
    pub fn pair<P>(syn: Syn, policy: P) -> (MemoryTransmit<P>, MemoryReceive)
    where
        P: FnMut(&[u8]) -> Vec<Vec<u8>> + Send,
    {
        let (answers, queue) = crossbeam_channel::unbounded();
        let mut frame = vec![0; syn.frame_len()];
        syn.prepare(&mut frame);
        let sent = Arc::new(AtomicU64::new(0));
        let transmit = MemoryTransmit {
            syn,
            frame,
            policy,
            answers,
            sent,
            room: usize::MAX,
        };
        (transmit, MemoryReceive { queue, received: 0 })
    }
}

/// The sending end of a [`MemoryNet`].
pub struct MemoryTransmit<P> {
    syn: Syn,
    frame: Vec<u8>,
    policy: P,
    answers: Sender<Vec<u8>>,
    sent: Arc<AtomicU64>,
    room: usize,
}

impl<P> MemoryTransmit<P> {
    /// Takes at most `room` targets a call from now on, as a network with short queues does; with
    /// 0, none at all.
    #[must_use]
    pub fn with_room(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// A counter of the frames taken so far, to be read while the transmitter is at work elsewhere.
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }
}

impl<P> Transmit for MemoryTransmit<P>
where
    P: FnMut(&[u8]) -> Vec<Vec<u8>> + Send,
{
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError> {
        let taken = targets.len().min(self.room);
        for target in &targets[..taken] {
            self.syn.stamp(&mut self.frame, *target);
            for answer in (self.policy)(&self.frame) {
                // With the receiver gone, answers vanish as on any network.
                let _ = self.answers.send(answer);
            }
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(taken)
    }

    fn left(&mut self) -> Result<u64, NetError> {
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

/// The receiving end of a [`MemoryNet`].
pub struct MemoryReceive {
    queue: Receiver<Vec<u8>>,
    received: u64,
}

impl Receive for MemoryReceive {
    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<usize, NetError> {
        let mut frames = 0;
        let first = match self.queue.try_recv() {
            Ok(frame) => Some(frame),
            Err(_) => self.queue.recv_timeout(timeout).ok(),
        };
        for frame in first.into_iter().chain(self.queue.try_iter()) {
            each(&frame, unix_us());
            frames += 1;
        }
        self.received += u64::try_from(frames).unwrap_or(u64::MAX);
        Ok(frames)
    }

    fn stats(&mut self) -> Result<RxStats, NetError> {
        Ok(RxStats {
            received: self.received,
            dropped: 0,
        })
    }
}

/// Now, in microseconds since the Unix epoch.
fn unix_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Classifier, CookieKey, Cookies, DropReason, Reply, SynLayout};
    use crate::targets::{RangeSet, Space};
    use std::net::Ipv4Addr;

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

    fn cookies() -> Cookies {
        Cookies::new(CookieKey::derive(7, &[7; 16]), 40_000..=49_999, 25)
    }

    fn syn() -> Syn {
        Syn::new(
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0],
            US,
            255,
            SynLayout::Linux,
            cookies(),
        )
    }

    fn targets(count: u32) -> Vec<Target> {
        let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
        let wanted = RangeSet::from_ranges([(0x0a00_0000, 0x0a00_0000 + count - 1)]);
        let space = Space::new(&wanted, &nothing);
        (0..u64::from(count))
            .map(|at| space.target(at).unwrap())
            .collect()
    }

    fn collect(rx: &mut MemoryReceive) -> Vec<Result<Reply, DropReason>> {
        let classifier = Classifier::new(US, cookies(), 14);
        let mut replies = Vec::new();
        let frames = rx
            .poll(Duration::ZERO, &mut |f, at| {
                replies.push(classifier.classify(f, at))
            })
            .unwrap();
        assert_eq!(frames, replies.len());
        replies
    }

    #[test]
    fn loss_duplicates_and_forgeries_come_through_as_such() {
        // By the last octet of the target: silent, open, open twice, closed, unreachable, forged.
        let policy = |frame: &[u8]| -> Vec<Vec<u8>> {
            match frame[33] {
                0 => vec![],
                1 => synack_for(frame).into_iter().collect(),
                2 => vec![synack_for(frame).unwrap(); 2],
                3 => rst_for(frame).into_iter().collect(),
                4 => icmp_unreachable_for(frame, 13, 8).into_iter().collect(),
                _ => {
                    let mut forged = synack_for(frame).unwrap();
                    forged[14 + 20 + 11] ^= 1;
                    vec![forged]
                }
            }
        };
        let (mut tx, mut rx) = MemoryNet::pair(syn(), policy);
        let sent = tx.sent();
        assert_eq!(tx.send(&targets(6)).unwrap(), 6);
        assert_eq!(sent.load(Ordering::Relaxed), 6);
        let replies = collect(&mut rx);
        let host = |last| Ipv4Addr::new(10, 0, 0, last);
        let addrs: Vec<_> = replies
            .iter()
            .map(|r| r.map(|reply| reply.addr()))
            .collect();
        assert_eq!(
            addrs,
            [
                Ok(host(1)),
                Ok(host(2)),
                Ok(host(2)),
                Ok(host(3)),
                Ok(host(4)),
                Err(DropReason::BadCookie)
            ]
        );
        assert!(matches!(replies[3], Ok(Reply::Reset { .. })));
        assert!(matches!(
            replies[4],
            Ok(Reply::Unreachable { icmp_code: 13, .. })
        ));
        assert_eq!(
            rx.stats().unwrap(),
            RxStats {
                received: 6,
                dropped: 0
            }
        );
    }

    #[test]
    fn a_short_queue_takes_only_the_first() {
        let (tx, mut rx) = MemoryNet::pair(syn(), |f: &[u8]| synack_for(f).into_iter().collect());
        let mut tx = tx.with_room(2);
        let all = targets(5);
        assert_eq!(tx.send(&all).unwrap(), 2);
        let addrs: Vec<_> = collect(&mut rx).iter().map(|r| r.unwrap().addr()).collect();
        assert_eq!(addrs, [all[0].addr(), all[1].addr()]);
        assert_eq!(tx.with_room(0).send(&all).unwrap(), 0);
    }

    #[test]
    fn an_empty_network_and_a_departed_receiver_are_no_errors() {
        let (mut tx, mut rx) =
            MemoryNet::pair(syn(), |f: &[u8]| synack_for(f).into_iter().collect());
        assert_eq!(collect(&mut rx), []);
        drop(rx);
        assert_eq!(tx.send(&targets(3)).unwrap(), 3);
    }
}
