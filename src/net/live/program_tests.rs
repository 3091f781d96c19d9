//! The programs, run in the interpreter.

use std::net::Ipv4Addr;

use super::layout::{
    DONE, Dropped, FAILED, HEAD, IDLE, LOGGED, PAUSE, RING_LEN, SEEN, TAIL, WORDS, failure, log_at,
    slot_at,
};
use super::program::{Place, Template, discard, slot_of, stamp, watch_bulks, watch_refusals};
use crate::net::ebpf::interpreter::Machine;
use crate::probe::{CookieKey, Cookies, Syn, SynLayout};
use crate::targets::{RangeSet, Space, Target};

const PLACE: Place = Place {
    map: 7,
    cpu: 3,
    interface: 42,
};
const LINK: [u8; 14] = [2, 0, 0x5e, 0x10, 0, 1, 2, 0, 0x5e, 0x10, 0, 2, 8, 0];
const XDP_DROP: u64 = 1;
const XDP_REDIRECT: u64 = 4;

/// The programs on a machine of their own.
struct Bench {
    machine: Machine,
    stamp: Vec<u64>,
    bulks: Vec<u64>,
    refusals: Vec<u64>,
}

fn syn(layout: SynLayout) -> Syn {
    let cookies = Cookies::new(CookieKey::derive(7, &[7; 16]), 40_000..=49_999, 25);
    Syn::new(&LINK, Ipv4Addr::new(198, 18, 0, 2), 255, layout, cookies)
}

fn targets(count: u64) -> Vec<Target> {
    let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
    let space = Space::new(&RangeSet::from_ranges([(0, u32::MAX)]), &nothing);
    (0..count)
        .map(|at| {
            space
                .target(at * (u64::from(u32::MAX) / count.max(2)))
                .unwrap()
        })
        .collect()
}

impl Bench {
    fn new(syn: &Syn) -> Self {
        let template = Template::new(syn);
        let mut machine = Machine::new(WORDS * 8, vec![0; template.frame().len()]);
        machine.cpu = 3;
        Self {
            machine,
            stamp: stamp(PLACE, &template).unwrap(),
            bulks: watch_bulks(PLACE).unwrap(),
            refusals: watch_refusals(PLACE).unwrap(),
        }
    }

    /// Puts the slot of the probe for `target` at a position.
    fn put(&mut self, position: u64, syn: &Syn, target: Target) {
        syn.patch_each(&[target], |_, patch| {
            for (at, word) in slot_of(patch).into_iter().enumerate() {
                self.machine.set_word((slot_at(position) + at) * 8, word);
            }
        });
    }

    fn publish(&mut self, head: u64) {
        self.machine.set_word(HEAD * 8, head);
    }

    fn word(&self, word: usize) -> u64 {
        self.machine.word(word * 8)
    }

    /// Lets the stamp have a frame; returns what it decided.
    fn run(&mut self) -> u64 {
        self.machine.frame.fill(0xa5);
        let stamp = std::mem::take(&mut self.stamp);
        let verdict = self.machine.xdp(&stamp);
        self.stamp = stamp;
        verdict
    }

    fn bulk(&mut self, sent: u64, dropped: u64, error: i32) {
        let error = u64::from(error.cast_unsigned());
        let arguments = [1, 2, sent, dropped, error];
        let program = std::mem::take(&mut self.bulks);
        self.machine.tracepoint(&program, &arguments);
        self.bulks = program;
    }

    fn logged(&self, entry: u64) -> Dropped {
        let at = log_at(entry);
        Dropped::from_words([self.word(at), self.word(at + 1)])
    }
}

#[test]
fn every_octet_of_every_layout_is_written() {
    for layout in SynLayout::ALL {
        let syn = syn(*layout);
        let mut bench = Bench::new(&syn);
        let mut frame = vec![0; bench.machine.frame.len()];
        assert_eq!(frame.len(), syn.frame_len().max(60));
        syn.prepare(&mut frame);
        for (position, target) in (0..).zip(targets(1000)) {
            syn.stamp(&mut frame, target);
            bench.put(position, &syn, target);
            bench.publish(position + 1);
            assert_eq!(bench.run(), XDP_REDIRECT);
            assert_eq!(bench.machine.redirected, Some(42));
            assert_eq!(bench.machine.frame, frame, "{layout:?} {target:?}");
        }
    }
}

#[test]
fn nothing_to_send_is_a_drop_and_head_is_looked_at_when_all_known_was_sent() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    assert_eq!((bench.run(), bench.machine.redirected), (XDP_DROP, None));
    bench.publish(2);
    assert_eq!((bench.run(), bench.word(SEEN)), (XDP_REDIRECT, 2));
    bench.publish(3);
    assert_eq!((bench.run(), bench.word(SEEN)), (XDP_REDIRECT, 2));
    assert_eq!((bench.run(), bench.word(SEEN)), (XDP_REDIRECT, 3));
    assert_eq!((bench.run(), bench.word(TAIL)), (XDP_DROP, 3));
    assert_eq!(bench.word(IDLE), 2);
    assert_eq!(bench.word(DONE), 0, "no bulk has passed yet");
}

#[test]
fn positions_wrap_around_the_ring() {
    let syn = syn(SynLayout::Linux);
    let mut bench = Bench::new(&syn);
    let begin = 3 * RING_LEN - 2;
    for word in [HEAD, TAIL, SEEN, DONE] {
        bench.machine.set_word(word * 8, begin);
    }
    let targets = targets(4);
    for (position, target) in (begin..).zip(&targets) {
        bench.put(position, &syn, *target);
    }
    bench.publish(begin + 4);
    for target in targets {
        assert_eq!(bench.run(), XDP_REDIRECT);
        assert_eq!(bench.machine.frame[30..34], target.addr().octets());
    }
    assert_eq!(bench.run(), XDP_DROP);
}

#[test]
fn bulks_are_counted_and_drops_logged() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    bench.publish(100);
    for _ in 0..16 {
        assert_eq!(bench.run(), XDP_REDIRECT);
    }
    bench.bulk(16, 0, 0);
    assert_eq!((bench.word(DONE), bench.word(LOGGED)), (16, 0));
    for _ in 0..16 {
        bench.run();
    }
    bench.bulk(10, 6, 0);
    assert_eq!((bench.word(DONE), bench.word(LOGGED)), (32, 1));
    assert_eq!(
        bench.logged(0),
        Dropped {
            first: 26,
            count: 6
        }
    );
    assert!(failure(bench.word(FAILED)).is_none());
    // A pause, and on.
    let pause = bench.word(PAUSE);
    for _ in 0..pause {
        assert_eq!(bench.run(), XDP_DROP);
    }
    assert_eq!((bench.run(), bench.word(TAIL)), (XDP_REDIRECT, 33));
}

#[test]
fn a_driver_that_takes_nothing_stops_the_stamp() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    bench.publish(100);
    for _ in 0..5 {
        bench.run();
    }
    bench.bulk(0, 5, -libc::ENXIO);
    assert_eq!(bench.word(DONE), 5);
    assert_eq!(bench.logged(0), Dropped { first: 0, count: 5 });
    let failed = failure(bench.word(FAILED)).unwrap();
    assert_eq!(failed.raw_os_error(), Some(libc::ENXIO));
    for _ in 0..1000 {
        assert_eq!(bench.run(), XDP_DROP);
    }
    assert_eq!(bench.word(TAIL), 5);
}

#[test]
fn a_frame_that_was_not_queued_is_put_back() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    bench.publish(100);
    for _ in 0..4 {
        bench.run();
    }
    let refusals = std::mem::take(&mut bench.refusals);
    let error = u64::from((-libc::EOPNOTSUPP).cast_unsigned());
    bench
        .machine
        .tracepoint(&refusals, &[1, 2, 3, error, 0, 0, 0]);
    assert_eq!(bench.word(TAIL), 3);
    assert_eq!(bench.run(), XDP_DROP);
    bench.bulk(3, 0, 0);
    assert_eq!((bench.word(DONE), bench.word(TAIL)), (3, 3));
    let failed = failure(bench.word(FAILED)).unwrap();
    assert_eq!(failed.raw_os_error(), Some(libc::EOPNOTSUPP));
    // Nothing of ours is queued: the next refusal on this CPU is another's.
    bench
        .machine
        .tracepoint(&refusals, &[1, 2, 3, error, 0, 0, 0]);
    assert_eq!(bench.word(TAIL), 3);
}

#[test]
fn bulks_of_others_are_not_counted() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    bench.publish(100);
    bench.bulk(16, 0, 0);
    assert_eq!(bench.word(DONE), 0, "nothing of ours was queued");
    bench.run();
    bench.machine.cpu = 2;
    bench.bulk(16, 0, 0);
    assert_eq!(bench.word(DONE), 0, "another CPU's");
    bench.machine.cpu = 3;
    bench.bulk(1, 0, 0);
    assert_eq!(bench.word(DONE), 1);
}

#[test]
fn on_another_cpu_the_stamp_stops() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    bench.publish(100);
    bench.machine.cpu = 0;
    assert_eq!((bench.run(), bench.word(TAIL)), (XDP_DROP, 0));
    bench.machine.cpu = 3;
    assert_eq!(bench.run(), XDP_DROP);
    let failed = failure(bench.word(FAILED)).unwrap();
    assert_eq!(failed.raw_os_error(), Some(libc::EXDEV));
}

#[test]
fn a_frame_too_short_for_the_probe_is_dropped() {
    let mut bench = Bench::new(&syn(SynLayout::Linux));
    bench.publish(1);
    bench.machine.frame.truncate(73);
    assert_eq!((bench.run(), bench.word(TAIL)), (XDP_DROP, 0));
}

#[test]
fn discarding_is_a_drop() {
    let mut machine = Machine::new(0, vec![0; 60]);
    assert_eq!(machine.xdp(&discard().unwrap()), XDP_DROP);
}
