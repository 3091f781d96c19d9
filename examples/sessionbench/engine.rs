//! smtpsweep's session engine without a sweep: as many sessions with as few addresses as wanted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use crossbeam_channel::{bounded, unbounded};
use smtpsweep::probe::Responder;
use smtpsweep::session::{Engine, SessionConfig};
use smtpsweep::smtp::{DialogueConfig, EhloName, Outcome};
use smtpsweep::targets::{RangeSet, Space};

pub(crate) struct Work {
    pub(crate) first: Ipv4Addr,
    pub(crate) addresses: u32,
    pub(crate) count: u32,
    pub(crate) port: u16,
    pub(crate) open: usize,
}

pub(crate) fn run(work: &Work, sources: &[Ipv4Addr]) -> Result<()> {
    ensure!(work.addresses > 0, "no address");
    let first = work.first.to_bits();
    let only = RangeSet::from_ranges([(first, first + (work.addresses - 1))]);
    let space = Space::new(&only, &RangeSet::from_ranges([]));
    let source = sources.first().copied();
    let name = EhloName::Literal(source.unwrap_or(Ipv4Addr::LOCALHOST));
    let config = SessionConfig {
        max_sessions: work.open,
        per_24: work.open,
        source,
        ..SessionConfig::new(DialogueConfig::new(name))
    };
    let (responders, queue) = unbounded();
    let (records, finished) = bounded(4096);
    let engine = Engine::new(
        config,
        queue,
        records,
        Arc::new(|_| true),
        Arc::default(),
        Arc::default(),
    )?;
    for index in 0..work.count {
        let target = space
            .target(u64::from(index % work.addresses))
            .context("an address of the space")?;
        responders.send(Responder::dialled(target, work.port, 0))?;
    }
    drop(responders);
    let started = Instant::now();
    let thread = thread::spawn(move || engine.run());
    let mut outcomes = BTreeMap::<&str, (u32, Option<String>)>::new();
    for record in finished {
        let entry = outcomes.entry(record.outcome.name()).or_default();
        entry.0 += 1;
        if entry.1.is_none() {
            entry.1 = record.detail;
        }
    }
    thread
        .join()
        .map_err(|_| anyhow!("the engine has panicked"))??;
    let seconds = started.elapsed().as_secs_f64();
    let complete = outcomes
        .get(Outcome::Completed.name())
        .map_or(0, |entry| entry.0);
    println!("{complete} {} {seconds:.3}", work.count - complete);
    for (outcome, (count, detail)) in outcomes {
        println!("{count} {outcome} {}", detail.unwrap_or_default());
    }
    Ok(())
}
