//! Which probe stands where: the arithmetic of positions, apart from the memory they live in.
//!
//! *Accepted* counts probes as the sender hands them over; *positions* count slots of the ring. As
//! long as the driver takes everything, the two are the same. A probe that was dropped gets a
//! second position behind all others, and from then on positions run ahead by one. Everything
//! below `done` has left or was given a new position, so a position is outstanding if and only if
//! `done ≤ position < head`.

use std::collections::VecDeque;

use super::layout::Dropped;

/// The account of one sender.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Slots of the ring.
    ring_len: u64,
    accepted: u64,
    head: u64,
    done: u64,
    /// Probes on their second or later position, of those outstanding; ascending.
    again: VecDeque<Again>,
    /// How many probes ever got another position.
    resent: u64,
}

/// A probe that is to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Again {
    position: u64,
    /// Which of the accepted probes it is, from 0.
    accepted: u64,
}

impl Ledger {
    /// The account of a ring of `ring_len` slots, from its first position on.
    pub(super) const fn new(ring_len: u64) -> Self {
        Self {
            ring_len,
            accepted: 0,
            head: 0,
            done: 0,
            again: VecDeque::new(),
            resent: 0,
        }
    }

    /// How many more probes there is room for.
    pub(super) const fn room(&self) -> u64 {
        self.ring_len - (self.head - self.done)
    }

    /// Positions below are ready to be sent.
    pub(super) const fn head(&self) -> u64 {
        self.head
    }

    /// Probes accepted so far.
    pub(super) const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Probes that were dropped and got another position so far.
    pub(super) const fn resent(&self) -> u64 {
        self.resent
    }

    /// Positions that are neither sent nor dropped.
    pub(super) const fn outstanding(&self) -> std::ops::Range<u64> {
        self.done..self.head
    }

    /// Accepts `count` probes, at most [`Self::room`], at the positions from [`Self::head`] on.
    pub(super) const fn accept(&mut self, count: u64) {
        self.head += count;
        self.accepted += count;
    }

    /// Takes notice that all positions below `done` were sent, except those in `drops` (ascending).
    /// Calls `again(from, to)` for each of these, in order: the probe's slot is to be copied to its
    /// new position. That copying never overwrites a slot still to be copied.
    pub(super) fn settle(&mut self, done: u64, drops: &[Dropped], mut again: impl FnMut(u64, u64)) {
        for drop in drops {
            for position in drop.first..drop.first + drop.count {
                let accepted = self.accepted_index(position);
                again(position, self.head);
                self.again.push_back(Again {
                    position: self.head,
                    accepted,
                });
                self.head += 1;
                self.resent += 1;
            }
        }
        self.done = done;
        while self.again.front().is_some_and(|next| next.position < done) {
            self.again.pop_front();
        }
    }

    /// How many of the first accepted probes have all left.
    pub(super) fn left(&self) -> u64 {
        let oldest = self.again.iter().map(|again| again.accepted).min();
        // What is below `done` for the first time.
        let reached = self.done - (self.resent - self.again.len() as u64);
        oldest.map_or(reached, |oldest| oldest.min(reached))
    }

    /// Which of the accepted probes stands at an outstanding position.
    pub(super) fn accepted_index(&self, position: u64) -> u64 {
        let at = self
            .again
            .partition_point(|again| again.position < position);
        match self.again.get(at) {
            Some(again) if again.position == position => again.accepted,
            // All that ever got another position, but for those that got one further on.
            _ => position - (self.resent - (self.again.len() - at) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RING: u64 = 256;

    fn dropped(first: u64, count: u64) -> Dropped {
        Dropped { first, count }
    }

    #[test]
    fn without_drops_positions_are_probes() {
        let mut ledger = Ledger::new(RING);
        ledger.accept(100);
        assert_eq!((ledger.room(), ledger.left()), (RING - 100, 0));
        ledger.settle(60, &[], |_, _| panic!("nothing was dropped"));
        assert_eq!((ledger.left(), ledger.outstanding()), (60, 60..100));
        assert_eq!(ledger.accepted_index(61), 61);
        ledger.settle(100, &[], |_, _| panic!("nothing was dropped"));
        assert_eq!((ledger.left(), ledger.room()), (100, RING));
    }

    #[test]
    fn a_dropped_probe_holds_the_count_until_it_has_left() {
        let mut ledger = Ledger::new(RING);
        ledger.accept(100);
        let mut moves = Vec::new();
        ledger.settle(32, &[dropped(10, 2)], |from, to| moves.push((from, to)));
        assert_eq!(moves, [(10, 100), (11, 101)]);
        assert_eq!((ledger.left(), ledger.head()), (10, 102));
        assert_eq!(
            (ledger.accepted_index(50), ledger.accepted_index(101)),
            (50, 11)
        );
        ledger.accept(1);
        assert_eq!(ledger.accepted_index(102), 100);
        // The second one is dropped again.
        ledger.settle(102, &[dropped(101, 1)], |from, to| moves.push((from, to)));
        assert_eq!(moves[2..], [(101, 103)]);
        assert_eq!((ledger.left(), ledger.accepted_index(103)), (11, 11));
        ledger.settle(104, &[], |_, _| panic!("nothing was dropped"));
        assert_eq!(
            (ledger.left(), ledger.accepted(), ledger.resent()),
            (101, 101, 3)
        );
        assert!(ledger.outstanding().is_empty());
    }

    proptest! {
        /// Against a model that keeps the ring of probes itself.
        #[test]
        fn any_history_agrees_with_the_model(
            steps in prop::collection::vec((0..RING, 0..RING, any::<u64>()), 1..40),
        ) {
            let mut ledger = Ledger::new(RING);
            let mut ring = vec![0u64; usize::try_from(RING).unwrap()];
            let slot = |position: u64| usize::try_from(position % RING).unwrap();
            let mut gone = Vec::new();
            let mut done = 0;
            for (offer, progress, pattern) in steps {
                let taken = offer.min(ledger.room());
                for at in 0..taken {
                    ring[slot(ledger.head() + at)] = ledger.accepted() + at;
                }
                ledger.accept(taken);
                for position in ledger.outstanding() {
                    prop_assert_eq!(ledger.accepted_index(position), ring[slot(position)]);
                }
                // Some of what is outstanding passes; some of it is dropped.
                let to = (done + progress).min(ledger.head());
                let mut drops = Vec::new();
                for position in done..to {
                    if pattern >> (position % 61) & 7 == 7 {
                        drops.push(dropped(position, 1));
                    } else {
                        gone.push(ring[slot(position)]);
                    }
                }
                ledger.settle(to, &drops, |from, to| ring[slot(to)] = ring[slot(from)]);
                done = to;
                let left = usize::try_from(ledger.left()).unwrap();
                let mut sorted = gone.clone();
                sorted.sort_unstable();
                let first_missing = (0..).zip(&sorted).take_while(|(n, probe)| n == *probe).count();
                prop_assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]), "sent twice");
                prop_assert_eq!(left, first_missing);
            }
        }
    }
}
