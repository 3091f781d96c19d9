//! The way to the network: what a sweep sends and receives with.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::config::ScanPlan;
use crate::net::{
    self, Link, LinkKind, NetError, PacketReceive, PacketTransmit, Receive, Transmit,
};
use crate::probe::{Classifier, CookieKey, Cookies, Syn};

/// What [`super::sweep`] sends and receives with. Tests make one of the in-memory backend.
pub struct Network {
    /// Where frames go out.
    pub transmit: Box<dyn Transmit>,
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
    pub fn open(plan: &ScanPlan) -> Result<Self, NetError> {
        let link = net::discover(&plan.route, sample(plan))?;
        let (syn, cookies) = probe(plan, &link);
        let (first, last) = plan.source_ports;
        Ok(Self {
            frame_len: syn.frame_len(),
            transmit: Box::new(PacketTransmit::open(&link, syn)?),
            receive: Box::new(PacketReceive::open(&link, first..=last)?),
            classifier: Classifier::new(link.source, cookies, link.header_len()),
            source: link.source,
            described: describe(&link),
        })
    }
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
        ("tx_backend", json!("packet")),
        ("rx_backend", json!("packet")),
    ];
    if let LinkKind::Ethernet { source, gateway } = link.kind {
        facts.push(("source_mac", json!(source.to_string())));
        facts.push(("gateway_mac", json!(gateway.to_string())));
    }
    facts
}
