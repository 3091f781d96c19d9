//! The way to the network: what a sweep sends and receives with.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::connect::Connect;
use super::send::Fallback;
use crate::config::ScanPlan;
use crate::net::{
    self, Link, LinkKind, NetError, PacketReceive, PacketTransmit, Receive, RingSize, RouteOptions,
    Transmit, TxBackend,
};
use crate::probe::{Classifier, CookieKey, Cookies, Syn};
use crate::status::say;

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
    /// How sessions come to their connections.
    pub connect: Connect,
    /// Interface, gateway and backend, as keys and values for the metadata.
    pub described: Vec<(&'static str, Value)>,
}

impl Network {
    /// Finds the way out and opens the packet sockets.
    ///
    /// # Errors
    /// No privilege, no such interface, no route, a silent gateway: each says what to do.
    pub fn open(plan: &ScanPlan) -> anyhow::Result<Self> {
        let link = way_out(plan, &plan.route)?;
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
            let mode = out.mode.map(|mode| format!(", {mode} mode"));
            say(format_args!(
                "sending with {}{} from {threads} thread(s)",
                out.backend,
                mode.unwrap_or_default()
            ));
            for reason in &passed_over {
                say(format_args!("  not {reason}"));
            }
        }
        described.push(("tx_mode", json!(out.mode)));
        described.push(("tx_passed_over", json!(passed_over)));
        let fallback = out
            .each
            .iter()
            .map(|_| substitute(out.backend, &link, &syn))
            .collect();
        let connect = Connect::choose(plan, &link, syn.offer())?;
        described.extend(connect.described());
        let (first, last) = plan.source_ports;
        Ok(Self {
            transmit: out.each,
            fallback,
            receive: Box::new(PacketReceive::open_with(
                &link,
                first..=last,
                plan.target_port,
                RingSize::default(),
            )?),
            classifier: Classifier::new(link.source, cookies, link.header_len()),
            source: link.source,
            frame_len,
            connect,
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

/// The way to the targets: one link serves all of them, so several addresses spread over the space
/// are asked about until one has a way that a sweep can take (its first may be on a local network).
///
/// # Errors
/// Why the first of them has none.
pub(super) fn way_out(plan: &ScanPlan, route: &RouteOptions) -> Result<Link, NetError> {
    const ASKED: u64 = 8;
    let step = (plan.space.len() / ASKED).max(1);
    let mut first = None;
    for index in (0..plan.space.len()).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let Some(target) = plan.space.target(index) else {
            break;
        };
        match net::discover(route, target.addr()) {
            Ok(link) => return Ok(link),
            Err(error @ (NetError::OnLink { .. } | NetError::NoRoute { .. })) => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| NetError::NoRoute {
        to: Ipv4Addr::UNSPECIFIED,
        interface: route.interface.clone(),
    }))
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
