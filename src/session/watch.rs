//! Looking on while sessions are held (`smtpsweep probe` shows its one session so).

use crate::probe::Responder;
use crate::smtp::{Side, TlsRecord};

/// What a watcher sees of a session, as it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// The connection stands.
    Connected,
    /// A TLS handshake is over, with success or not.
    Tls(&'a TlsRecord),
    /// A run of octets came or went, decrypted where TLS is spoken.
    Octets(Side, &'a [u8]),
    /// The peer closed its side of the connection.
    Closed,
    /// The peer reset the connection, or the system gave it up.
    Lost,
}

/// Told of all that is seen. It runs on the engine's thread, between two acts of its own, so it
/// must not wait.
pub type Watch = Box<dyn FnMut(&Responder, Seen<'_>) + Send>;
