//! One deadline per open session: a hashed timing wheel (Varghese and Lauck, 1987, scheme 6).
//!
//! The wheel has a slot per tick of 8 ms and 65 s in all; a later deadline shares the slot of an
//! earlier one and is passed over until its round comes. Slots are doubly linked lists threaded
//! through one array, so to set, move and cancel a deadline costs a few stores and no memory.
//! A heap with lazy deletion would keep an entry for every session of the last minute, most of
//! which ended within a second.
//!
//! Deadlines are rounded up to a tick: a timer fires late by up to 8 ms, never early.

use std::time::{Duration, Instant};

/// The deadlines of sessions, by slab index.
#[derive(Debug)]
pub(super) struct Wheel {
    origin: Instant,
    /// The first tick not yet visited.
    tick: u64,
    /// The first session of each slot's list.
    heads: Vec<u32>,
    links: Vec<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    /// The tick at which it fires; [`IDLE`] if none is set.
    due: u64,
    next: u32,
    previous: u32,
}

impl Wheel {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            origin,
            tick: 0,
            heads: vec![NONE; SLOTS],
            links: Vec::new(),
        }
    }

    /// Sets the deadline of a session, in place of the one it had.
    pub(super) fn arm(&mut self, index: u32, deadline: Instant) {
        self.disarm(index);
        if self.links.len() <= index as usize {
            self.links.resize(index as usize + 1, UNLINKED);
        }
        let due = self
            .ticks(deadline, Duration::from_millis(TICK_MS - 1))
            .max(self.tick);
        let head = &mut self.heads[slot(due)];
        let next = std::mem::replace(head, index);
        self.links[index as usize] = Link {
            due,
            next,
            previous: NONE,
        };
        if next != NONE {
            self.links[next as usize].previous = index;
        }
    }

    /// Takes a session's deadline away, if it has one.
    pub(super) fn disarm(&mut self, index: u32) {
        let Some(link) = self
            .links
            .get(index as usize)
            .copied()
            .filter(|l| l.due != IDLE)
        else {
            return;
        };
        match link.previous {
            NONE => self.heads[slot(link.due)] = link.next,
            previous => self.links[previous as usize].next = link.next,
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        self.links[index as usize] = UNLINKED;
    }

    /// Appends to `fired` the sessions whose deadline has come, and takes it away from them.
    pub(super) fn expire(&mut self, now: Instant, fired: &mut Vec<u32>) {
        let until = self.ticks(now, Duration::ZERO);
        if until < self.tick {
            return;
        }
        let rounds = (until - self.tick + 1).min(SLOTS as u64);
        for tick in self.tick..self.tick + rounds {
            let mut index = self.heads[slot(tick)];
            while index != NONE {
                let link = self.links[index as usize];
                if link.due <= until {
                    self.disarm(index);
                    fired.push(index);
                }
                index = link.next;
            }
        }
        self.tick = until + 1;
    }

    /// Whole ticks from the origin to `instant + extra`.
    fn ticks(&self, instant: Instant, extra: Duration) -> u64 {
        let elapsed = instant.saturating_duration_since(self.origin) + extra;
        u64::try_from(elapsed.as_millis() / u128::from(TICK_MS)).unwrap_or(IDLE - 1)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is less than SLOTS"
)]
const fn slot(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

const TICK_MS: u64 = 8;
const SLOTS: usize = 8_192;
const NONE: u32 = u32::MAX;
const IDLE: u64 = u64::MAX;
const UNLINKED: Link = Link {
    due: IDLE,
    next: NONE,
    previous: NONE,
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel, at: Instant) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.expire(at, &mut fired);
        fired.sort_unstable();
        fired
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn deadlines_move_and_go() {
        let origin = Instant::now();
        let mut wheel = Wheel::new(origin);
        for index in 0..3 {
            wheel.arm(index, origin + ms(80));
        }
        wheel.disarm(1);
        wheel.disarm(1);
        wheel.disarm(99);
        wheel.arm(2, origin + ms(160));
        assert!(fired(&mut wheel, origin + ms(79)).is_empty());
        assert_eq!(fired(&mut wheel, origin + ms(88)), [0]);
        assert_eq!(fired(&mut wheel, origin + ms(200)), [2]);
        wheel.arm(0, origin);
        assert_eq!(
            fired(&mut wheel, origin + ms(300)),
            [0],
            "a deadline in the past fires next"
        );
    }

    #[test]
    fn a_deadline_beyond_the_wheel_waits_for_its_round() {
        let origin = Instant::now();
        let mut wheel = Wheel::new(origin);
        wheel.arm(0, origin + ms(120_000));
        wheel.arm(1, origin + ms(400_000));
        for at in (0..119_000).step_by(1_000) {
            assert!(fired(&mut wheel, origin + ms(at)).is_empty());
        }
        assert_eq!(fired(&mut wheel, origin + ms(120_010)), [0]);
        assert_eq!(
            fired(&mut wheel, origin + ms(500_000)),
            [1],
            "after a sleep of many rounds"
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(steps in prop::collection::vec((0_u32..12, 0_u64..200_000, 0_u64..40_000), 1..60)) {
            let origin = Instant::now();
            let mut wheel = Wheel::new(origin);
            let mut list: Vec<(u32, u64)> = Vec::new();
            let mut now = 0;
            for (index, delay, pass) in steps {
                list.retain(|(i, _)| *i != index);
                if delay % 7 == 0 {
                    wheel.disarm(index);
                } else {
                    wheel.arm(index, origin + ms(now + delay));
                    list.push((index, now + delay));
                }
                now += pass;
                let got = fired(&mut wheel, origin + ms(now));
                // Between its deadline and a tick later a timer may or may not have fired.
                for (index, due) in &list {
                    if *due > now {
                        prop_assert!(!got.contains(index), "early");
                    } else if *due + TICK_MS <= now {
                        prop_assert!(got.contains(index), "late");
                    }
                }
                prop_assert!(got.iter().all(|g| list.iter().any(|(i, _)| i == g)));
                list.retain(|(i, _)| !got.contains(i));
            }
        }
    }
}
