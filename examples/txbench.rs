//! How fast a transmit backend sends, by the interface's own counters.
//!
//! ```text
//! txbench send INTERFACE packet|live COUNT [THREADS [BATCH [PPS]]]
//! txbench discard INTERFACE
//! ```
//!
//! `send` walks the space 10.0.0.0/8 (a shard a thread) and sends COUNT probes in all, with no
//! pacing or PPS a second, to the gateway of the interface's route to 10.0.0.1. It prints one line:
//! probes a second by `tx_packets`, CPU time per probe of the whole process, what was accepted, what
//! left, what the interface counted. `discard` lets every frame that arrives at INTERFACE drop in
//! XDP, until its standard input ends: the far end. Use both in network namespaces only.

use std::error::Error;
use std::io::Read;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use smtpsweep::net::sys::pin_to_cpu;
use smtpsweep::net::{
    Link, LiveTransmit, NetError, PacketTransmit, RouteOptions, Transmit, XdpDiscard, discover,
};
use smtpsweep::probe::{CookieKey, Cookies, Syn, SynLayout};
use smtpsweep::rate::{PacketsPerSecond, TokenBucket};
use smtpsweep::targets::{Permutation, RangeSet, Shard, Space, Walk};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["discard", interface] => {
            let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
            let _discard = XdpDiscard::attach(index.trim().parse()?)?;
            println!("discarding");
            std::io::stdin().read_to_end(&mut Vec::new())?;
            Ok(())
        }
        ["send", interface, backend, count, rest @ ..] => {
            let number = |at: usize, default: u64| {
                rest.get(at).map_or(Ok(default), |word| word.parse::<u64>())
            };
            let (threads, batch, pps) = (number(0, 1)?, number(1, 128)?, number(2, 0)?);
            let bench = Bench {
                link: link(interface)?,
                backend: (*backend).to_owned(),
                count: count.parse()?,
                threads: u16::try_from(threads)?,
                batch: u32::try_from(batch)?,
                pps,
            };
            bench.run()
        }
        _ => Err(
            "usage: txbench send INTERFACE packet|live COUNT [THREADS [BATCH [PPS]]] | \
                  txbench discard INTERFACE"
                .into(),
        ),
    }
}

fn link(interface: &str) -> Outcome<Link> {
    let options = RouteOptions {
        interface: Some(interface.to_owned()),
        ..RouteOptions::default()
    };
    Ok(discover(&options, "10.0.0.1".parse()?)?)
}

/// What is measured.
struct Bench {
    link: Link,
    backend: String,
    count: u64,
    threads: u16,
    batch: u32,
    /// 0: as fast as it goes.
    pps: u64,
}

impl Bench {
    fn run(&self) -> Outcome<()> {
        let wanted = RangeSet::from_ranges([(0x0a00_0000, 0x0aff_ffff)]);
        let space = Arc::new(Space::new(&wanted, &RangeSet::default()));
        let permutation = Permutation::new(space.len(), 1);
        let begin = Arc::new(Barrier::new(usize::from(self.threads) + 1));
        let finished = Arc::new(Barrier::new(usize::from(self.threads) + 1));
        thread::scope(|scope| {
            let senders: Vec<_> = (0..self.threads)
                .map(|index| {
                    let shard = Shard {
                        index,
                        total: self.threads,
                    };
                    let walk = Walk::new(Arc::clone(&space), &permutation, shard, None);
                    let (begin, finished) = (Arc::clone(&begin), Arc::clone(&finished));
                    scope.spawn(move || self.send(index, walk?, &begin, &finished))
                })
                .collect();
            begin.wait();
            let (packets, cpu, clock) = (self.counter("tx_packets")?, cpu_time()?, Instant::now());
            finished.wait();
            let seconds = clock.elapsed().as_secs_f64();
            let packets = self.counter("tx_packets")? - packets;
            let cpu = cpu_time()? - cpu;
            let (mut accepted, mut left) = (0, 0);
            for sender in senders {
                let done = sender.join().map_err(|_| "a sender panicked")??;
                accepted += done.0;
                left += done.1;
            }
            println!(
                "{} {}t batch {}: {:.3} Mpps, {:.0} ns CPU/probe, {seconds:.2} s; accepted {accepted}, left \
                 {left}, counted {packets}, dropped {}",
                self.backend,
                self.threads,
                self.batch,
                packets as f64 / seconds / 1e6,
                cpu.as_nanos() as f64 / packets.max(1) as f64,
                self.counter("tx_dropped")?,
            );
            Ok(())
        })
    }

    /// One sender's probes: accepted, left.
    fn send(
        &self,
        index: u16,
        mut walk: Walk,
        begin: &Barrier,
        finished: &Barrier,
    ) -> Outcome<(u64, u64)> {
        let opened = self.open(index);
        begin.wait();
        let sent = opened.map_err(Into::into).and_then(|mut transmit| {
            let sent = self.send_all(&mut walk, transmit.as_mut());
            finished.wait();
            sent
        });
        if sent.is_err() {
            finished.wait();
        }
        sent
    }

    fn open(&self, index: u16) -> Result<Box<dyn Transmit>, NetError> {
        let link = &self.link;
        let cookies = Cookies::new(CookieKey::derive(1, &[1; 16]), 16_384..=32_767, 25);
        let syn = Syn::new(
            &link.header(),
            link.source,
            255,
            SynLayout::Windows,
            cookies,
        );
        if self.backend == "live" {
            LiveTransmit::probe(link)?;
            return Ok(Box::new(LiveTransmit::open_with(
                link,
                syn,
                u32::from(index),
                self.batch,
            )?));
        }
        if self.threads > 1 {
            let _ = pin_to_cpu(u32::from(index));
        }
        Ok(Box::new(PacketTransmit::open(link, syn)?))
    }

    fn send_all(&self, walk: &mut Walk, transmit: &mut dyn Transmit) -> Outcome<(u64, u64)> {
        let bucket = (self.pps > 0).then(|| {
            let rate = PacketsPerSecond::new(self.pps as f64 / f64::from(self.threads));
            rate.map(|rate| TokenBucket::new(rate, Instant::now()))
        });
        let mut bucket = bucket.transpose()?;
        let (mut targets, mut next, mut accepted) = (Vec::with_capacity(256), 0, 0);
        let share = self.count / u64::from(self.threads);
        while accepted < share {
            if next == targets.len() {
                targets.clear();
                next = 0;
                if walk.fill(&mut targets, 256) == 0 {
                    break;
                }
            }
            let most = usize::try_from(share - accepted)?;
            let mut want = (targets.len() - next).min(most);
            if let Some(bucket) = &mut bucket {
                want = bucket.take(Instant::now(), want);
                if want == 0 {
                    std::hint::spin_loop();
                    continue;
                }
            }
            let taken = transmit.send(&targets[next..next + want])?;
            if let Some(bucket) = &mut bucket {
                bucket.give_back(want - taken);
            }
            next += taken;
            accepted += taken as u64;
        }
        Ok((accepted, transmit.settle(Duration::from_secs(5))?))
    }

    fn counter(&self, name: &str) -> Outcome<u64> {
        let path = format!("/sys/class/net/{}/statistics/{name}", self.link.interface);
        Ok(fs::read_to_string(path)?.trim().parse()?)
    }
}

/// User and system time of this process so far, to a hundredth of a second.
fn cpu_time() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    // Fields 14 and 15 of proc_pid_stat(5), counted after the name; 100 ticks a second.
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
