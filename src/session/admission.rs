//! Who is dialled next: first come, first served, but never more than so many into one /24.
//!
//! Responders wait in one queue per /24. A prefix at its cap keeps its own waiting and holds up
//! nobody else; prefixes that may go take turns. Memory is that of the waiting responders: a
//! prefix with none waiting and none open is forgotten.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

use crate::probe::Responder;

/// The waiting responders.
#[derive(Debug)]
pub(super) struct Admission {
    per_24: usize,
    prefixes: HashMap<u32, Prefix>,
    /// Prefixes with someone waiting and room for one more, each once.
    ready: VecDeque<u32>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Prefix {
    open: usize,
    waiting: VecDeque<Responder>,
    /// Whether it stands in `ready`.
    ready: bool,
}

impl Admission {
    pub(super) fn new(per_24: usize) -> Self {
        Self {
            per_24,
            prefixes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
        }
    }

    /// How many wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether [`Self::next`] would yield someone.
    pub(super) fn has_next(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a responder in.
    pub(super) fn offer(&mut self, responder: Responder) {
        let prefix = self.prefixes.entry(prefix(responder.addr())).or_default();
        prefix.waiting.push_back(responder);
        self.waiting += 1;
        self.settle(responder.addr());
    }

    /// The next one to dial; it counts as open until [`Self::release`].
    pub(super) fn next(&mut self) -> Option<Responder> {
        let bits = self.ready.pop_front()?;
        let prefix = self.prefixes.get_mut(&bits)?;
        prefix.ready = false;
        let responder = prefix.waiting.pop_front()?;
        prefix.open += 1;
        self.waiting -= 1;
        self.settle(responder.addr());
        Some(responder)
    }

    /// A session that [`Self::next`] began has ended.
    pub(super) fn release(&mut self, addr: Ipv4Addr) {
        if let Some(prefix) = self.prefixes.get_mut(&prefix(addr)) {
            prefix.open = prefix.open.saturating_sub(1);
        }
        self.settle(addr);
    }

    /// A responder from [`Self::next`] could not be dialled now and goes back to the head of its
    /// queue.
    pub(super) fn put_back(&mut self, responder: Responder) {
        let prefix = self.prefixes.entry(prefix(responder.addr())).or_default();
        prefix.waiting.push_front(responder);
        self.waiting += 1;
        self.release(responder.addr());
    }

    /// Everyone who waits; nobody does afterwards.
    pub(super) fn drain(&mut self) -> Vec<Responder> {
        self.ready.clear();
        self.waiting = 0;
        self.prefixes
            .drain()
            .flat_map(|(_, prefix)| prefix.waiting)
            .collect()
    }

    /// Restores the two rules after a change: who may go stands in `ready`, and a prefix of
    /// which nothing is left is forgotten.
    fn settle(&mut self, addr: Ipv4Addr) {
        let bits = prefix(addr);
        let Some(prefix) = self.prefixes.get_mut(&bits) else {
            return;
        };
        if prefix.open == 0 && prefix.waiting.is_empty() {
            self.prefixes.remove(&bits);
        } else if !prefix.ready && prefix.open < self.per_24 && !prefix.waiting.is_empty() {
            prefix.ready = true;
            self.ready.push_back(bits);
        }
    }
}

/// The first 24 bits.
fn prefix(addr: Ipv4Addr) -> u32 {
    u32::from(addr) >> 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::tests::responder;

    fn next(admission: &mut Admission) -> Option<[u8; 4]> {
        admission.next().map(|r| r.addr().octets())
    }

    #[test]
    fn a_full_prefix_holds_up_nobody_else() {
        let mut admission = Admission::new(2);
        for host in 1..=4 {
            admission.offer(responder([127, 0, 1, host], 25));
        }
        admission.offer(responder([127, 0, 2, 1], 25));
        assert_eq!(next(&mut admission), Some([127, 0, 1, 1]));
        assert_eq!(
            next(&mut admission),
            Some([127, 0, 2, 1]),
            "prefixes take turns"
        );
        assert_eq!(next(&mut admission), Some([127, 0, 1, 2]));
        assert_eq!(next(&mut admission), None);
        assert_eq!(admission.waiting(), 2);
        admission.release([127, 0, 1, 1].into());
        assert!(admission.has_next());
        assert_eq!(
            next(&mut admission),
            Some([127, 0, 1, 3]),
            "first come, first served"
        );
        assert_eq!(next(&mut admission), None);
    }

    #[test]
    fn who_is_put_back_is_first_again() {
        let mut admission = Admission::new(1);
        admission.offer(responder([127, 0, 1, 1], 25));
        admission.offer(responder([127, 0, 1, 2], 25));
        let first = admission.next().expect("someone waits");
        admission.put_back(first);
        assert_eq!(admission.waiting(), 2);
        assert_eq!(admission.next(), Some(first));
    }

    proptest! {
        #[test]
        fn everyone_goes_once_and_no_prefix_exceeds_its_cap(
            hosts in prop::collection::vec((0_u8..5, any::<u8>()), 0..60),
            cap in 1_usize..4,
            releases in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut admission = Admission::new(cap);
            for (net, host) in &hosts {
                admission.offer(responder([127, 0, *net, *host], 25));
            }
            let mut open: Vec<Ipv4Addr> = Vec::new();
            let mut gone = 0;
            let mut releases = releases.into_iter();
            loop {
                if let Some(responder) = admission.next() {
                    gone += 1;
                    open.push(responder.addr());
                    let same = open.iter().filter(|a| prefix(**a) == prefix(responder.addr())).count();
                    prop_assert!(same <= cap);
                    if releases.next() != Some(true) {
                        continue;
                    }
                }
                let Some(addr) = open.pop() else { break };
                admission.release(addr);
            }
            prop_assert_eq!(gone, hosts.len());
            prop_assert!(admission.prefixes.is_empty() && admission.ready.is_empty());
        }
    }
}
