//! placeholder
pub mod fingerprint;
pub mod smtp;
