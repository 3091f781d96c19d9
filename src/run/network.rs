//! The way to the network: what a sweep sends and receives with.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::send::Fallback;
use crate::config::ScanPlan;
use crate::net::{
    self, Link, LinkKind, PacketReceive, PacketTransmit, Receive, Transmit, TxBackend,
};
use crate::probe::{Classifier, CookieKey, Cookies, Syn};

/// What [`super::sweep`] sends and receives with. Tests make one of the in-memory backend.
pub struct Network {
    /// Where frames go out: one for each sender thread.
    pub transmit: Vec<Box<dyn Transmit>>,
    /// For each of them, what opens its substitute if it fails.
    pub fallback: Vec<Option<Fallback>>,
    /// Where frames come in.
    pub receive: Box<dyn Receive>,
    /// What tells a reply from noise.
    pub classifier: Classifier,
    /// Source address of probes and sessions.
    pub source: Ipv4Addr,
    /// Octets of a probe, link header included.
    pub frame_len: usize,
    /// Interface, gateway and backend, as keys and values for the metadata.
    pub described: Vec<(&'static str, Value)>,
}

impl Network {
    /// Finds the way out and opens the packet sockets.
    ///
    /// # Errors
    /// No privilege, no such interface, no route, a silent gateway: each says what to do.
    pub fn open(plan: &ScanPlan) -> anyhow::Result<Self> {
        let link = net::discover(&plan.route, sample(plan))?;
        let (syn, cookies) = probe(plan, &link);
        let frame_len = syn.frame_len();
        let rate = plan.rate(frame_len)?.value();
        let threads = plan.sender_threads;
        let out = net::open_transmit(plan.tx, &link, &syn, threads.into(), rate)?;
        let mut described = describe(&link);
        described.push(("tx_backend", json!(out.backend.name())));
        let passed_over = |(backend, reason): &(TxBackend, String)| format!("{backend}: {reason}");
        let passed_over: Vec<String> = out.passed_over.iter().map(passed_over).collect();
        if plan.verbose {
            eprintln!("sending with {} from {threads} thread(s)", out.backend);
            for reason in &passed_over {
                eprintln!("  not {reason}");
            }
        }
        described.push(("tx_passed_over", json!(passed_over)));
        let fallback = out
            .each
            .iter()
            .map(|_| substitute(out.backend, &link, &syn))
            .collect();
        let (first, last) = plan.source_ports;
        Ok(Self {
            transmit: out.each,
            fallback,
            receive: Box::new(PacketReceive::open(&link, first..=last)?),
            classifier: Classifier::new(link.source, cookies, link.header_len()),
            source: link.source,
            frame_len,
            described,
        })
    }
}

/// The packet socket as a substitute, except for itself.
fn substitute(backend: TxBackend, link: &Link, syn: &Syn) -> Option<Fallback> {
    let (link, syn) = (link.clone(), syn.clone());
    (backend != TxBackend::Packet).then(|| -> Fallback {
        Box::new(move || Ok(Box::new(PacketTransmit::open(&link, syn.clone())?)))
    })
}

/// An address of the space, to ask the routing table about.
pub(super) fn sample(plan: &ScanPlan) -> Ipv4Addr {
    plan.space
        .target(0)
        .map_or(Ipv4Addr::UNSPECIFIED, |target| target.addr())
}

/// The prepared SYN and the cookies it carries.
pub(super) fn probe(plan: &ScanPlan, link: &Link) -> (Syn, Cookies) {
    let key = CookieKey::derive(plan.seed, &plan.nonce);
    let (first, last) = plan.source_ports;
    let cookies = Cookies::new(key, first..=last, plan.target_port);
    let syn = Syn::new(
        &link.header(),
        link.source,
        plan.ttl,
        plan.layout,
        cookies.clone(),
    );
    (syn, cookies)
}

/// The link's facts for the metadata.
fn describe(link: &Link) -> Vec<(&'static str, Value)> {
    let mut facts = vec![
        ("iface", json!(link.interface)),
        (
            "gateway_ip",
            json!(link.gateway.map(|address| address.to_string())),
        ),
        ("rx_backend", json!("packet")),
    ];
    if let LinkKind::Ethernet { source, gateway } = link.kind {
        facts.push(("source_mac", json!(source.to_string())));
        facts.push(("gateway_mac", json!(gateway.to_string())));
    }
    facts
}
