//! Which frames are on their way.
//!
//! Frames go out of a fixed number of slots, in turn: probe `n` out of slot `n` modulo that number.
//! The kernel says which slots it is done with, mostly but not always in order; a probe counts as
//! left when it and all before it have, and only then is its slot used again. So "how many have
//! left" means "which": the first so many.

/// The frames on their way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// For each slot, how many completions its probe still waits for: one, or more if its frame had
    /// to be sent again.
    owed: Box<[u8]>,
    accepted: u64,
    left: u64,
}

impl Flight {
    /// Nothing under way, in `slots` slots (a power of two).
    pub(super) fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "slots are numbered by masking");
        Self {
            owed: vec![0; slots].into_boxed_slice(),
            accepted: 0,
            left: 0,
        }
    }

    /// Probes that can be accepted now.
    pub(super) fn room(&self) -> usize {
        self.owed.len() - self.under_way()
    }

    /// Probes accepted and not known to have left, at most as many as there are slots.
    pub(super) fn under_way(&self) -> usize {
        usize::try_from(self.accepted - self.left).unwrap_or(usize::MAX)
    }

    /// Probes that have left: the first so many that were accepted.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }

    /// Accepts the next probe and says which slot it goes out of. There must be room.
    pub(super) fn accept(&mut self) -> usize {
        debug_assert!(self.room() > 0, "a slot is free");
        let slot = self.slot(self.accepted);
        self.owed[slot] = 1;
        self.accepted += 1;
        slot
    }

    /// The frame in `slot` was dropped and is sent again: one more completion will come for it.
    pub(super) fn again(&mut self, slot: usize) {
        if let Some(owed) = self.owed.get_mut(slot) {
            *owed = owed.saturating_add(1);
        }
    }

    /// The kernel is done with the frame in `slot`. Slots that are not under way, which a kernel
    /// has no reason to name, change nothing.
    pub(super) fn complete(&mut self, slot: usize) {
        let Some(owed) = self.owed.get_mut(slot) else {
            return;
        };
        *owed = owed.saturating_sub(1);
        while self.left < self.accepted && self.owed[self.slot(self.left)] == 0 {
            self.left += 1;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the low bits name the slot"
    )]
    fn slot(&self, number: u64) -> usize {
        number as usize & (self.owed.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_go_round_and_come_back_when_done() {
        let mut flight = Flight::new(4);
        assert_eq!([(); 4].map(|()| flight.accept()), [0, 1, 2, 3]);
        assert_eq!((flight.room(), flight.left()), (0, 0));
        flight.complete(0);
        flight.complete(1);
        assert_eq!(
            (flight.room(), flight.left(), flight.under_way()),
            (2, 2, 2)
        );
        assert_eq!([(); 2].map(|()| flight.accept()), [0, 1]);
        for slot in [2, 3, 0, 1] {
            flight.complete(slot);
        }
        assert_eq!((flight.left(), flight.under_way()), (6, 0));
    }

    #[test]
    fn one_that_is_late_holds_the_count_and_its_slot() {
        let mut flight = Flight::new(4);
        for _ in 0..4 {
            flight.accept();
        }
        for slot in [1, 3, 2] {
            flight.complete(slot);
            assert_eq!((flight.left(), flight.room()), (0, 0));
        }
        flight.complete(0);
        assert_eq!((flight.left(), flight.room()), (4, 4));
    }

    #[test]
    fn a_frame_sent_again_has_left_only_the_second_time() {
        let mut flight = Flight::new(2);
        flight.accept();
        flight.accept();
        flight.again(0);
        flight.complete(0);
        flight.complete(1);
        assert_eq!(flight.left(), 0);
        flight.complete(0);
        assert_eq!(flight.left(), 2);
    }

    #[test]
    fn nonsense_from_below_changes_nothing() {
        let mut flight = Flight::new(2);
        flight.complete(0);
        flight.complete(usize::MAX);
        flight.again(7);
        assert_eq!((flight.left(), flight.room()), (0, 2));
    }

    proptest! {
        #[test]
        fn left_is_the_longest_completed_beginning(steps in prop::collection::vec(0usize..9, 0..200)) {
            // 8 accepts if there is room, anything below completes that slot if it is under way.
            let mut flight = Flight::new(8);
            let mut done: Vec<bool> = Vec::new();
            for step in steps {
                if step == 8 {
                    if flight.room() > 0 {
                        prop_assert_eq!(flight.accept(), done.len() % 8);
                        done.push(false);
                    }
                } else if let Some(number) = (0..done.len()).rev().find(|n| n % 8 == step)
                    && !done[number]
                {
                    done[number] = true;
                    flight.complete(step);
                }
                let left = done.iter().take_while(|done| **done).count();
                prop_assert_eq!(flight.left(), left as u64);
                prop_assert_eq!(flight.room(), 8 - (done.len() - left));
            }
        }
    }
}
