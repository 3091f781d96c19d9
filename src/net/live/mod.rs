//! The `live` backend: SYNs made and sent inside the kernel.
//!
//! The kernel can run an XDP program on frames that were never received and do with them what the
//! program says (`BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_ON_LIVE_FRAMES`, Linux 5.18). Ours writes
//! a probe into each and redirects it to the interface: no socket, no `sk_buff`, no queueing
//! discipline, no system call per batch.
//!
//! ```text
//! send() ──slots──▶ ring ──▶ stamp (XDP) ──▶ driver          user space │ kernel, `live-tx`
//! left() ◀──────── done, log of drops ◀── watchers (tracepoints)
//! ```
//!
//! User space computes what differs from probe to probe, checksums included, in batches, as every
//! other backend does; the program copies 16 octets. It takes what was published at once, so
//! pacing is the caller's, as elsewhere.
//!
//! **What left is known exactly.** The watchers count every frame the driver took or refused. A
//! probe that was refused for want of room is sent again; one that can't be sent at all is handed
//! back by [`NetError::Vanished`].
//!
//! **A run takes a whole CPU** while there is something to send and up to 20 ms longer, at any
//! rate: below a million or so probes a second, other backends cost less.

mod layout;
mod ledger;
mod program;
#[cfg(test)]
mod program_tests;
mod runner;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::features::{self, NDO_XMIT};
use super::sys::{self, LoadError, ProgramKind, SharedWords};
use super::{Link, LinkKind, NetError, Transmit};
use crate::probe::Syn;
use crate::targets::Target;
use layout::{
    DONE, Dropped, FAILED, HEAD, LOGGED, RING_LEN, TAIL, WORDS, failure, log_at, ring_index,
};
use ledger::Ledger;
use program::{Place, Template};
use runner::{Control, Runner};

/// Frames that the kernel makes at once, and so the longest burst of its making. 128 cost 3 % less
/// each than 64; 256 as little as 128, but fill veth's queue of 256 to the brim.
const BATCH: u32 = 128;

/// How long a full ring may hold the sender up before it gets to look around.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// How long a sender with a full ring sleeps: a quarter of the time in which the fastest one empties
/// it. Five times as many wakings cost 8 ns a probe.
const FULL_NAP: Duration = Duration::from_millis(1);

/// How long a sender sleeps that waits for the last probes.
const SETTLE_NAP: Duration = Duration::from_micros(100);

/// Sends SYNs by a program in the kernel. Not for loopback and links without Ethernet.
pub struct LiveTransmit {
    // Before the watchers: what a run still sends when it is stopped must be counted.
    runner: Runner,
    /// Watch as long as they are open.
    _watchers: [OwnedFd; 2],
    control: Arc<Control>,
    interface: String,
    syn: Syn,
    /// The target at each slot of the ring.
    targets: Vec<Target>,
    ledger: Ledger,
    /// Log entries read.
    logged: u64,
    /// Set after a failure: what left, for good.
    ended: Option<u64>,
}

impl LiveTransmit {
    /// Whether this backend works on `link`; sends nothing.
    ///
    /// # Errors
    /// [`NetError::Unsupported`] says what is missing: an Ethernet, the kernel's version, the
    /// driver's (on veth, the peer's) readiness; [`NetError::BpfPermission`] which capabilities.
    pub fn probe(link: &Link) -> Result<(), NetError> {
        let unsupported = |reason: String| NetError::Unsupported {
            backend: "live",
            interface: link.interface.clone(),
            reason,
        };
        if !matches!(link.kind, LinkKind::Ethernet { .. }) {
            return Err(unsupported("it is no Ethernet".to_owned()));
        }
        if std::path::Path::new("/sys/kernel/realtime").exists() {
            // There a CPU can be taken from us between queueing frames and their hand-over.
            return Err(unsupported("the kernel is a real-time one".to_owned()));
        }
        // Kernels before 6.3 do not tell; what the driver cannot do then shows at the first frame.
        if let Some(features) = features::xdp_features(link.index)
            && features & NDO_XMIT == 0
        {
            return Err(unsupported(
                "its driver takes no frames from XDP programs (on veth, the peer needs GRO on or \
                 an XDP program of its own)"
                    .to_owned(),
            ));
        }
        let program = load(ProgramKind::Xdp, &program::discard().map_err(other)?, link)?;
        sys::run_live_frames(program.as_fd(), &[0; 60], 1, 1).map_err(|err| {
            match err.raw_os_error() {
                // The kernel's answer to a flag or a field it does not know.
                Some(libc::EINVAL | libc::E2BIG) => {
                    unsupported("the kernel is older than Linux 5.18".to_owned())
                }
                _ => refused("run a program on live frames", link, err),
            }
        })
    }

    /// Opens the backend on `link` for `syn`, whose link header must be the link's. Several senders
    /// on one interface need a `queue` number each: drivers choose their queue by the CPU, so each
    /// gets a CPU of its own among those that the calling thread may run on, the last one first.
    ///
    /// # Errors
    /// As [`Self::probe`], and [`NetError::System`] if the kernel refuses memory or threads.
    pub fn open(link: &Link, syn: Syn, queue: u32) -> Result<Self, NetError> {
        Self::open_with(link, syn, queue, BATCH)
    }

    /// The same with `batch` frames at once, 1 to 256.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(link: &Link, syn: Syn, queue: u32, batch: u32) -> Result<Self, NetError> {
        let failed = |operation| move |err| refused(operation, link, err);
        let cpus = sys::allowed_cpus().map_err(failed("ask for this thread's CPUs"))?;
        let cpu = nth_from_the_end(&cpus, queue);
        let shared = SharedWords::new(WORDS).map_err(failed("make a map for eBPF programs"))?;
        let place = Place {
            map: shared.map().as_raw_fd(),
            cpu,
            interface: link.index,
        };
        let template = Template::new(&syn);
        let watch = |name, code: Vec<u64>| {
            let program = load(ProgramKind::RawTracepoint, &code, link)?;
            sys::attach_raw_tracepoint(name, program.as_fd())
                .map_err(failed("attach an eBPF program to a tracepoint"))
        };
        let watchers = [
            watch(
                c"xdp_devmap_xmit",
                program::watch_bulks(place).map_err(other)?,
            )?,
            watch(
                c"xdp_redirect_err",
                program::watch_refusals(place).map_err(other)?,
            )?,
        ];
        let code = program::stamp(place, &template).map_err(other)?;
        let stamp = load(ProgramKind::Xdp, &code, link)?;
        let frame = template.frame().to_vec();
        let batch = batch.clamp(1, sys::LIVE_BATCH_MAX);
        let control = Arc::new(Control::new(shared, stamp, frame, batch));
        let runner = Runner::start(Arc::clone(&control), cpu).map_err(failed("start threads"))?;
        Ok(Self {
            runner,
            _watchers: watchers,
            control,
            interface: link.interface.clone(),
            syn,
            targets: Vec::new(),
            ledger: Ledger::new(RING_LEN),
            logged: 0,
            ended: None,
        })
    }

    /// How often a probe was sent again, since the driver had no room for it.
    pub const fn resent(&self) -> u64 {
        self.ledger.resent()
    }

    /// Stops at once and hands back the accepted targets that have not left; all others have.
    /// Nothing can be sent afterwards.
    ///
    /// Were a frame ever handed to the driver and not seen by the watchers, its target would be
    /// neither counted as left nor handed back.
    pub fn stop(&mut self) -> Vec<Target> {
        self.runner.halt();
        if self.ended.is_some() {
            return Vec::new();
        }
        self.reap();
        let outstanding = self.ledger.outstanding();
        let taken = self.control.shared.words()[TAIL].load(Ordering::Acquire);
        let unseen = taken.saturating_sub(outstanding.start);
        let mut unsent: Vec<(u64, Target)> = (outstanding.start + unseen..outstanding.end)
            .map(|position| {
                let target = self.targets[ring_index(position)];
                (self.ledger.accepted_index(position), target)
            })
            .collect();
        unsent.sort_unstable_by_key(|(accepted, _)| *accepted);
        self.ended = Some(self.ledger.accepted() - unsent.len() as u64 - unseen);
        unsent.into_iter().map(|(_, target)| target).collect()
    }

    /// Reads back what became of the probes, and gives those that were dropped another position.
    fn reap(&mut self) {
        let words = self.control.shared.words();
        // Acquire, and in this order: what the log says of positions below `done` was written
        // before `done`, and is read after it.
        let done = words[DONE].load(Ordering::Acquire);
        let logged = words[LOGGED].load(Ordering::Acquire);
        if done == self.ledger.outstanding().start {
            return;
        }
        let mut drops = Vec::new();
        while self.logged < logged {
            let at = log_at(self.logged);
            let entry = [0, 1].map(|word| words[at + word].load(Ordering::Relaxed));
            let dropped = Dropped::from_words(entry);
            if dropped.first >= done {
                break;
            }
            drops.push(dropped);
            self.logged += 1;
        }
        let targets = &mut self.targets;
        self.ledger.settle(done, &drops, |from, to| {
            for word in 0..2 {
                let slot = words[layout::slot_at(from) + word].load(Ordering::Relaxed);
                words[layout::slot_at(to) + word].store(slot, Ordering::Relaxed);
            }
            let target = targets[ring_index(from)];
            put(targets, to, &[target]);
        });
        if !drops.is_empty() {
            self.publish();
        }
    }

    /// Lets the stamp have everything below the ledger's head. Whether a run is to begin first.
    fn publish(&self) -> bool {
        // Release: the slots are written before the stamp sees that they count.
        self.control.shared.words()[HEAD].store(self.ledger.head(), Ordering::Release);
        self.runner.wake()
    }

    /// Waits until a run has begun on what was published, 100 ms at most. Were more accepted
    /// meanwhile, all of it would leave at once, whatever the sender's rate.
    ///
    /// A failure is left for the next call to tell: this one has accepted something.
    fn await_begin(&self) {
        let words = self.control.shared.words();
        let (done, until) = (
            self.ledger.outstanding().start,
            Instant::now() + SEND_PATIENCE,
        );
        while words[DONE].load(Ordering::Acquire) == done
            && words[FAILED].load(Ordering::Acquire) == 0
            && Instant::now() < until
        {
            thread::sleep(SETTLE_NAP);
        }
    }

    /// Ends the backend if it has failed.
    fn check(&mut self) -> Result<(), NetError> {
        let word = self.control.shared.words()[FAILED].load(Ordering::Acquire);
        let Some(source) = failure(word).or_else(|| self.runner.take_failure()) else {
            return Ok(());
        };
        Err(NetError::Vanished {
            interface: self.interface.clone(),
            source,
            unsent: self.stop(),
        })
    }

    /// Writes the slots of `targets` from the ledger's head on.
    fn write(&mut self, targets: &[Target]) {
        let (words, head) = (self.control.shared.words(), self.ledger.head());
        self.syn.patch_each(targets, |at, patch| {
            let slot = &words[layout::slot_at(head + at as u64)..][..2];
            for (word, value) in slot.iter().zip(program::slot_of(patch)) {
                word.store(value, Ordering::Relaxed);
            }
        });
        put(&mut self.targets, head, targets);
    }
}

impl Transmit for LiveTransmit {
    /// Accepts what there is room for. With a full ring waits until a quarter of it is free, 100 ms
    /// at most.
    ///
    /// # Errors
    /// [`NetError::Vanished`] once, if the interface takes no frames (any more); afterwards nothing
    /// is accepted.
    fn send(&mut self, targets: &[Target]) -> Result<usize, NetError> {
        if self.ended.is_some() {
            return Err(self.is_over());
        }
        self.reap();
        self.check()?;
        let wanted = targets.len() as u64;
        if self.ledger.room() < wanted {
            let until = Instant::now() + SEND_PATIENCE;
            while self.ledger.room() < RING_LEN / 4 && Instant::now() < until {
                thread::sleep(FULL_NAP);
                self.reap();
                self.check()?;
            }
        }
        let taken = wanted.min(self.ledger.room());
        let count = ring_len(taken, targets.len());
        self.write(&targets[..count]);
        self.ledger.accept(taken);
        if self.publish() {
            self.await_begin();
        }
        Ok(count)
    }

    /// While some probe waits to be sent again, those accepted after it do not count.
    fn left(&mut self) -> Result<u64, NetError> {
        if let Some(left) = self.ended {
            return Ok(left);
        }
        self.reap();
        self.check()?;
        Ok(self.ledger.left())
    }

    fn settle(&mut self, patience: Duration) -> Result<u64, NetError> {
        let until = Instant::now() + patience;
        loop {
            let left = self.left()?;
            let settled = self.ended.is_some() || left == self.ledger.accepted();
            if settled || Instant::now() >= until {
                return Ok(left);
            }
            thread::sleep(SETTLE_NAP);
        }
    }
}

impl LiveTransmit {
    fn is_over(&self) -> NetError {
        NetError::System {
            operation: "send",
            interface: self.interface.clone(),
            source: io::Error::from_raw_os_error(libc::ESHUTDOWN),
        }
    }
}

/// An XDP program on an interface that lets every frame it receives drop: the far end of a link in
/// benches and tests. Removed when dropped.
pub struct Discard {
    _link: OwnedFd,
}

impl Discard {
    /// Attaches it to interface `index`.
    ///
    /// # Errors
    /// [`NetError::BpfPermission`], or what the driver says.
    pub fn attach(index: u32) -> Result<Self, NetError> {
        let mut link = Link::detached(std::net::Ipv4Addr::UNSPECIFIED);
        link.index = index;
        link.interface = format!("number {index}");
        let program = load(ProgramKind::Xdp, &program::discard().map_err(other)?, &link)?;
        let attached = sys::attach_xdp(program.as_fd(), index)
            .map_err(|err| refused("attach an XDP program", &link, err))?;
        Ok(Self { _link: attached })
    }
}

/// Sets the targets at the positions from `first` on; no position may be left out.
fn put(targets: &mut Vec<Target>, first: u64, new: &[Target]) {
    let at = ring_index(first);
    let (here, around) = new.split_at(new.len().min(layout::SLOTS - at));
    for (at, piece) in [(at, here), (0, around)] {
        let known = targets.len().saturating_sub(at).min(piece.len());
        targets[at..at + known].copy_from_slice(&piece[..known]);
        targets.extend_from_slice(&piece[known..]);
    }
}

/// `taken` as a length; it is at most `most`.
fn ring_len(taken: u64, most: usize) -> usize {
    usize::try_from(taken).map_or(most, |taken| taken.min(most))
}

/// The `queue`-th CPU from the end, beginning anew where there are fewer.
fn nth_from_the_end(cpus: &[u32], queue: u32) -> u32 {
    let count = cpus.len().max(1);
    let back = usize::try_from(queue).unwrap_or(0) % count;
    cpus.get(count - 1 - back).copied().unwrap_or(0)
}

/// Loads a program, a missing capability told apart.
fn load(kind: ProgramKind, code: &[u64], link: &Link) -> Result<OwnedFd, NetError> {
    sys::load_program(kind, code).map_err(|err| {
        let LoadError { source, .. } = &err;
        if source.raw_os_error() == Some(libc::EPERM) {
            return refused("load an eBPF program", link, other_of(source));
        }
        refused("load an eBPF program", link, io::Error::other(err))
    })
}

fn other_of(source: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(source.raw_os_error().unwrap_or(libc::EIO))
}

/// The error of `operation`, a missing capability told apart.
fn refused(operation: &'static str, link: &Link, source: io::Error) -> NetError {
    if source.raw_os_error() == Some(libc::EPERM) {
        return NetError::BpfPermission { operation };
    }
    NetError::System {
        operation,
        interface: link.interface.clone(),
        source,
    }
}

/// A program that could not be assembled.
fn other(err: super::ebpf::AsmError) -> NetError {
    NetError::System {
        operation: "assemble an eBPF program",
        interface: String::new(),
        source: io::Error::other(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{RangeSet, Space};

    #[test]
    fn queues_get_cpus_from_the_end() {
        let cpus = [0, 2, 3];
        let got: Vec<u32> = (0..5).map(|queue| nth_from_the_end(&cpus, queue)).collect();
        assert_eq!(got, [3, 2, 0, 3, 2]);
        assert_eq!(nth_from_the_end(&[], 7), 0);
    }

    #[test]
    fn targets_stand_where_their_positions_say() {
        let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
        let space = Space::new(&RangeSet::from_ranges([(0, u32::MAX)]), &nothing);
        let mut ring = Vec::new();
        let mut position = 0;
        // Pieces of all lengths, three times around the ring.
        for len in (1..).take_while(|len| len * (len + 1) / 2 < 3 * RING_LEN) {
            let piece: Vec<Target> = (position..position + len)
                .map(|index| space.target(index).unwrap())
                .collect();
            put(&mut ring, position, &piece);
            position += len;
        }
        assert_eq!(ring.len(), layout::SLOTS);
        for past in position - RING_LEN..position {
            assert_eq!(u64::from(ring[ring_index(past)].bits()), past);
        }
    }

    #[test]
    fn links_without_ethernet_are_refused() {
        let link = Link::detached(std::net::Ipv4Addr::LOCALHOST);
        let err = LiveTransmit::probe(&link).unwrap_err();
        assert!(err.to_string().contains("no Ethernet"), "{err}");
    }
}
