//! Who is dialled next: first come, first served, but never more than so many into one /24, nor
//! into one autonomous system.
//!
//! Responders wait in one queue per /24. A prefix at its cap keeps its own waiting and holds up
//! nobody else; prefixes that may go take turns. One whose turn comes while its AS is at its cap is
//! parked there until a session into that AS ends. (A /24 counts to the AS of its first address: longer
//! prefixes are not routed.) Memory is that of the waiting responders: a prefix or AS with none
//! waiting and none open is forgotten.
//!
//! Those who wait are of two kinds: *ready* are those who could be dialled at once were there
//! room for any number of sessions, *capped* those who could not even then, because the ones
//! before them fill their /24 or their AS up to its cap. One /24 of thousands of tarpits is nearly
//! all capped, and stays so for as long as its sessions take.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

use super::AsCap;
use crate::probe::Responder;

/// The waiting responders.
#[derive(Debug)]
pub(super) struct Admission {
    per_24: usize,
    as_cap: Option<AsCap>,
    systems: HashMap<u32, System>,
    prefixes: HashMap<u32, Prefix>,
    /// Prefixes with someone waiting and room for one more, each once.
    turns: VecDeque<u32>,
    waiting: usize,
    /// How many of those waiting are ready.
    ready: usize,
}

#[derive(Debug, Default)]
struct Prefix {
    open: usize,
    waiting: VecDeque<Responder>,
    /// Whether it stands in `turns`, or is parked.
    has_turn: bool,
    /// Whether it waits for its AS.
    parked: bool,
}

/// An autonomous system with sessions open or prefixes parked.
#[derive(Debug, Default)]
struct System {
    open: usize,
    parked: VecDeque<u32>,
}

impl Prefix {
    fn ready(&self, per_24: usize) -> usize {
        if self.parked {
            return 0;
        }
        self.waiting.len().min(per_24.saturating_sub(self.open))
    }
}

impl Admission {
    pub(super) fn new(per_24: usize, as_cap: Option<AsCap>) -> Self {
        Self {
            per_24,
            as_cap,
            systems: HashMap::new(),
            prefixes: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            ready: 0,
        }
    }

    /// How many wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many of them wait for nothing but room for more sessions.
    pub(super) const fn ready(&self) -> usize {
        self.ready
    }

    /// How many of them wait for sessions within their /24 to end.
    pub(super) const fn capped(&self) -> usize {
        self.waiting - self.ready
    }

    /// Whether [`Self::next`] may yield someone.
    pub(super) fn has_next(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Who [`Self::next`] would yield.
    pub(super) fn peek(&self) -> Option<&Responder> {
        let prefix = self.prefixes.get(self.turns.front()?)?;
        prefix.waiting.front()
    }

    /// Takes a responder in.
    pub(super) fn offer(&mut self, responder: Responder) {
        self.waiting += 1;
        self.change(prefix(responder.addr()), |prefix| {
            prefix.waiting.push_back(responder);
        });
    }

    /// The next one to dial; it counts as open until [`Self::release`].
    pub(super) fn next(&mut self) -> Option<Responder> {
        loop {
            let bits = self.turns.pop_front()?;
            if let Some(asn) = self.full_system(bits) {
                self.change(bits, |prefix| prefix.parked = true);
                self.systems.entry(asn).or_default().parked.push_back(bits);
                continue;
            }
            let responder = self.change(bits, |prefix| {
                prefix.has_turn = false;
                let responder = prefix.waiting.pop_front()?;
                prefix.open += 1;
                Some(responder)
            })?;
            if let Some(asn) = self.system(bits) {
                self.systems.entry(asn).or_default().open += 1;
            }
            self.waiting -= 1;
            return Some(responder);
        }
    }

    /// The AS of a /24, where sessions are counted by AS.
    fn system(&self, bits: u32) -> Option<u32> {
        self.as_cap
            .as_ref()?
            .table
            .of(Ipv4Addr::from_bits(bits << 8))
    }

    /// The AS of a /24 if that has as many sessions open as it may.
    fn full_system(&self, bits: u32) -> Option<u32> {
        let asn = self.system(bits)?;
        let open = self.systems.get(&asn).map_or(0, |system| system.open);
        (open >= self.as_cap.as_ref()?.most).then_some(asn)
    }

    /// A session into that /24 is over: whoever is parked at its AS may try again.
    fn leave_system(&mut self, bits: u32) {
        let Some(asn) = self.system(bits) else { return };
        let Some(system) = self.systems.get_mut(&asn) else {
            return;
        };
        system.open = system.open.saturating_sub(1);
        let parked = system.parked.pop_front();
        if system.open == 0 && system.parked.is_empty() {
            self.systems.remove(&asn);
        }
        if let Some(bits) = parked {
            self.change(bits, |prefix| {
                prefix.parked = false;
                prefix.has_turn = false;
            });
        }
    }

    /// A session that [`Self::next`] began has ended.
    pub(super) fn release(&mut self, addr: Ipv4Addr) {
        self.change(prefix(addr), |prefix| {
            prefix.open = prefix.open.saturating_sub(1);
        });
        self.leave_system(prefix(addr));
    }

    /// A responder from [`Self::next`] could not be dialled now and goes back to the head of its
    /// queue.
    pub(super) fn put_back(&mut self, responder: Responder) {
        self.waiting += 1;
        self.change(prefix(responder.addr()), |prefix| {
            prefix.waiting.push_front(responder);
            prefix.open = prefix.open.saturating_sub(1);
        });
        self.leave_system(prefix(responder.addr()));
    }

    /// Everyone who waits; nobody does afterwards. Those who were open still are.
    pub(super) fn drain(&mut self) -> Vec<Responder> {
        let mut gone = Vec::with_capacity(self.waiting);
        self.prefixes.retain(|_, prefix| {
            gone.extend(prefix.waiting.drain(..));
            prefix.has_turn = false;
            prefix.parked = false;
            prefix.open > 0
        });
        self.turns.clear();
        self.systems.retain(|_, system| {
            system.parked.clear();
            system.open > 0
        });
        (self.waiting, self.ready) = (0, 0);
        gone
    }

    /// Changes a prefix and restores the three rules: `ready` is the sum over the prefixes, who
    /// may go has its turn, and a prefix of which nothing is left is forgotten.
    fn change<T>(&mut self, bits: u32, change: impl FnOnce(&mut Prefix) -> T) -> T {
        let prefix = self.prefixes.entry(bits).or_default();
        let before = prefix.ready(self.per_24);
        let result = change(prefix);
        let after = prefix.ready(self.per_24);
        self.ready = self.ready + after - before;
        if !prefix.has_turn && after > 0 {
            prefix.has_turn = true;
            self.turns.push_back(bits);
        }
        if prefix.open == 0 && prefix.waiting.is_empty() {
            self.prefixes.remove(&bits);
        }
        result
    }
}

/// The first 24 bits.
fn prefix(addr: Ipv4Addr) -> u32 {
    u32::from(addr) >> 8
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::session::AsTable;
    use crate::session::tests::responder;

    fn next(admission: &mut Admission) -> Option<[u8; 4]> {
        admission.next().map(|r| r.addr().octets())
    }

    #[test]
    fn a_full_prefix_holds_up_nobody_else() {
        let mut admission = Admission::new(2, None);
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
        let mut admission = Admission::new(1, None);
        admission.offer(responder([127, 0, 1, 1], 25));
        admission.offer(responder([127, 0, 1, 2], 25));
        let first = admission.next().expect("someone waits");
        admission.put_back(first);
        assert_eq!(admission.waiting(), 2);
        assert_eq!(admission.next(), Some(first));
    }

    #[test]
    fn those_behind_a_cap_are_told_from_those_who_only_want_room() {
        let mut admission = Admission::new(2, None);
        for host in 1..=100 {
            admission.offer(responder([127, 0, 1, host], 25));
        }
        admission.offer(responder([127, 0, 2, 1], 25));
        assert_eq!((admission.ready(), admission.capped()), (3, 98));
        while admission.next().is_some() {}
        assert_eq!((admission.ready(), admission.capped()), (0, 98));
        admission.release([127, 0, 1, 1].into());
        assert_eq!((admission.ready(), admission.capped()), (1, 97));
        assert_eq!(admission.drain().len(), 98);
        assert_eq!((admission.ready(), admission.capped()), (0, 0));
        assert!(!admission.has_next());
        admission.offer(responder([127, 0, 2, 2], 25));
        admission.offer(responder([127, 0, 2, 3], 25));
        assert_eq!(admission.ready(), 1, "one of that /24 is still open");
    }

    #[test]
    fn a_full_system_holds_up_its_own_prefixes_only() {
        let text = "127.0.0.0 16 64496\n";
        let table = Arc::new(AsTable::read(text.as_bytes(), "table").expect("a table"));
        let mut admission = Admission::new(8, Some(AsCap { table, most: 2 }));
        for net in 1..=4 {
            admission.offer(responder([127, 0, net, 1], 25));
        }
        admission.offer(responder([127, 1, 0, 1], 25));
        assert_eq!(next(&mut admission), Some([127, 0, 1, 1]));
        assert_eq!(next(&mut admission), Some([127, 0, 2, 1]));
        assert_eq!(next(&mut admission), Some([127, 1, 0, 1]));
        assert_eq!(next(&mut admission), None);
        assert_eq!((admission.ready(), admission.capped()), (0, 2));
        admission.release([127, 0, 2, 1].into());
        assert_eq!((admission.ready(), admission.capped()), (1, 1));
        assert_eq!(next(&mut admission), Some([127, 0, 3, 1]));
        assert_eq!(next(&mut admission), None);
        assert_eq!(admission.drain().len(), 1);
        assert_eq!((admission.ready(), admission.capped()), (0, 0));
    }

    proptest! {
        #[test]
        fn everyone_goes_once_and_no_prefix_exceeds_its_cap(
            hosts in prop::collection::vec((0_u8..5, any::<u8>()), 0..60),
            cap in 1_usize..4,
            as_cap in 1_usize..6,
            releases in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            // 127.0.0.0/24 and 127.0.1.0/24 are one AS, 127.0.2.0/24 another, the rest nobody's.
            let text = "127.0.0.0 23 1\n127.0.2.0 24 2\n";
            let table = Arc::new(AsTable::read(text.as_bytes(), "table").expect("a table"));
            let system = |addr: Ipv4Addr| table.of(addr);
            let mut admission = Admission::new(cap, Some(AsCap { table: Arc::clone(&table), most: as_cap }));
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
                    let own = system(responder.addr());
                    let same = open.iter().filter(|a| own.is_some() && system(**a) == own).count();
                    prop_assert!(same <= as_cap);
                let ready: usize = admission.prefixes.values().map(|p| p.ready(cap)).sum();
                let waiting: usize = admission.prefixes.values().map(|p| p.waiting.len()).sum();
                prop_assert_eq!(admission.ready(), ready);
                prop_assert_eq!(admission.waiting(), waiting);
                prop_assert_eq!(admission.has_next(), ready > 0);
                let parked: usize = admission.systems.values().map(|s| s.parked.len()).sum();
                prop_assert_eq!(admission.prefixes.values().filter(|p| p.parked).count(), parked);
                    if releases.next() != Some(true) {
                        continue;
                    }
                }
                let Some(addr) = open.pop() else { break };
                admission.release(addr);
            }
            prop_assert_eq!(gone, hosts.len());
            prop_assert!(admission.prefixes.is_empty() && admission.turns.is_empty());
            prop_assert!(admission.systems.is_empty());
        }
    }
}
