//! The integration tests: one binary, one module a theme. Those that need root make network
//! namespaces; without root they say loudly that they were skipped, and on CI they fail instead.

mod capture;
mod cli;
mod layers;
mod support;
mod sweep;
