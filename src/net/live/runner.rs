//! The threads behind a sender: one in which the kernel runs the stamp, and its keeper.
//!
//! A test run takes its thread for as long as it lasts: with nothing to send it spins. Setting one
//! up and taking it down takes some milliseconds, so it isn't done per batch either. So a run begins
//! when probes wait, and the **keeper** ends it, by a signal, when none have come for
//! [`IDLE_LIMIT`], when the programs reported a failure, or when it is asked to.
//!
//! Neither thread shares a lock with the sender. `HEAD` is published before `running` is read, and
//! `running` cleared before `HEAD` is read, each pair with a sequentially consistent fence in
//! between, so that probes never wait for a run which nobody begins.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use caps::CapSet;

use super::layout::{DONE, FAILED, HEAD};
use crate::net::sys::{self, SharedWords, ThreadId};

/// How long a run goes on with nothing to send. Beginning another one costs as much.
const IDLE_LIMIT: Duration = Duration::from_millis(20);

/// How often the keeper looks.
const KEEPER_NAP: Duration = Duration::from_millis(2);

/// Frames of one test run: all a counter of 32 bits allows, so runs end for a reason. A run that
/// comes to its end is followed by another.
const REPEAT: u32 = u32::MAX;

/// What a test run needs, and how it is going.
pub(super) struct Control {
    pub(super) shared: SharedWords,
    program: OwnedFd,
    frame: Vec<u8>,
    batch: u32,
    running: AtomicBool,
    /// No further run is to begin.
    halted: AtomicBool,
    /// Both threads are to end.
    quit: AtomicBool,
    failure: Mutex<Option<io::Error>>,
}

impl Control {
    pub(super) fn new(shared: SharedWords, program: OwnedFd, frame: Vec<u8>, batch: u32) -> Self {
        Self {
            shared,
            program,
            frame,
            batch,
            running: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.shared.words()[at].load(Ordering::Acquire)
    }

    /// Whether a run is to begin.
    fn wanted(&self) -> bool {
        !self.halted.load(Ordering::Acquire)
            && self.word(FAILED) == 0
            && self.word(HEAD) != self.word(DONE)
    }

    /// The system's error for which no run can go on, if any.
    fn take_failure(&self) -> Option<io::Error> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The two threads. They end when this is dropped.
pub(super) struct Runner {
    control: Arc<Control>,
    run: Option<JoinHandle<()>>,
    keep: Option<JoinHandle<()>>,
}

impl Runner {
    /// Begins both threads; runs will stay on `cpu`.
    pub(super) fn start(control: Arc<Control>, cpu: u32) -> io::Result<Self> {
        let (tell, told) = mpsc::channel();
        let run = {
            let control = Arc::clone(&control);
            thread::Builder::new()
                .name("live-tx".to_owned())
                .spawn(move || run(&control, cpu, &tell))?
        };
        let mut runner = Self {
            control,
            run: Some(run),
            keep: None,
        };
        // The thread tells before it ends, whatever happens.
        let (thread, keeper) = told.recv().map_err(io::Error::other)??;
        let keep = {
            let control = Arc::clone(&runner.control);
            thread::Builder::new()
                .name("live-keeper".to_owned())
                .spawn(move || keep(&control, thread))?
        };
        // A thread that has ended meanwhile wants no keeper.
        let _ = keeper.send(keep.thread().clone());
        runner.keep = Some(keep);
        Ok(runner)
    }

    /// Sees to it that what was published is sent. Whether a run is to begin for it first.
    pub(super) fn wake(&self) -> bool {
        fence(Ordering::SeqCst);
        let asleep = !self.control.running.load(Ordering::Relaxed);
        if asleep {
            self.unpark();
        }
        asleep
    }

    /// Ends the run and lets none begin. All that was handed to the driver is accounted for when
    /// this returns.
    pub(super) fn halt(&self) {
        self.control.halted.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        // The run may be about to begin: it does so only after another look at `halted`, and the
        // keeper ends it then.
        while self.control.running.load(Ordering::Acquire) {
            self.unpark();
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// The system's error for which no run can go on, if any.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.control.take_failure()
    }

    fn unpark(&self) {
        for thread in [&self.run, &self.keep].into_iter().flatten() {
            thread.thread().unpark();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.halt();
        self.control.quit.store(true, Ordering::Release);
        self.unpark();
        for thread in [self.run.take(), self.keep.take()].into_iter().flatten() {
            // It cannot panic, and if it did the sender would be right to end all the same.
            let _ = thread.join();
        }
    }
}

/// What the running thread tells at its start: who it is, and where to say who keeps it.
type Started = io::Result<(ThreadId, Sender<Thread>)>;

/// The running thread.
fn run(control: &Control, cpu: u32, tell: &Sender<Started>) {
    let (keeper, who) = mpsc::channel();
    if let Err(err) = sys::pin_to_cpu(cpu) {
        let _ = tell.send(Err(err));
        return;
    }
    let _ = tell.send(Ok((sys::this_thread(), keeper)));
    let Ok(keeper) = who.recv() else { return };
    let mut confined = false;
    while !control.quit.load(Ordering::Acquire) {
        if !control.wanted() {
            thread::park();
            continue;
        }
        if !confined {
            give_up_capabilities();
            confined = true;
        }
        control.running.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        keeper.unpark();
        // `halt` may have been called before it could see that we run.
        let ran = if control.halted.load(Ordering::Acquire) {
            Ok(())
        } else {
            let program = control.program.as_fd();
            sys::run_live_frames(program, &control.frame, REPEAT, control.batch)
        };
        match ran {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => {
                control.halted.store(true, Ordering::Release);
                let mut failure = control
                    .failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *failure = Some(err);
            }
        }
        control.running.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

/// Both threads work with what is open already. They give up their capabilities when the first
/// probe is to leave: before that the process may yet become another user, which all of its threads
/// must be able to do. A kernel before 5.19 that lets nobody but the privileged call bpf(2) at all
/// makes the first run fail, which is told as any failure is.
fn give_up_capabilities() {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // The thread goes on with what it has where that cannot be done: it parses nothing.
        let _ = caps::clear(None, set);
    }
}

/// The keeper.
fn keep(control: &Control, thread: ThreadId) {
    let mut idle_since = None;
    let mut confined = false;
    while !control.quit.load(Ordering::Acquire) {
        if !control.running.load(Ordering::Acquire) {
            idle_since = None;
            thread::park();
            continue;
        }
        if !confined {
            give_up_capabilities();
            confined = true;
        }
        let busy = control.word(HEAD) != control.word(DONE);
        if busy {
            idle_since = None;
        } else if idle_since.is_none() {
            idle_since = Some(Instant::now());
        }
        let idle = idle_since.is_some_and(|since: Instant| since.elapsed() >= IDLE_LIMIT);
        if idle || control.word(FAILED) != 0 || control.halted.load(Ordering::Acquire) {
            sys::interrupt(thread);
        }
        thread::park_timeout(KEEPER_NAP);
    }
}
