//! The integration tests: one binary, one module a theme. Those that need root make network
//! namespaces; without root they say loudly that they were skipped, and on CI they fail instead.

#![expect(
    clippy::unwrap_used,
    reason = "a test that stops there says where and why"
)]

mod adopt;
mod capture;
mod cli;
mod confined;
mod faults;
mod hostile;
mod layers;
mod links;
mod live;
mod probe;
mod scale;
mod support;
mod sweep;
mod tls;
mod wire;
mod xdp;
