//! Which transmit backend: the one asked for, or the fastest that works here.
//!
//! All backends are equals behind [`Transmit`]. `auto` tries them from the fastest down and keeps
//! the reasons why the faster ones would not do, for whoever asks (`-v`, the metadata).

use std::fmt;
use std::str::FromStr;

use super::{Link, LiveTransmit, NetError, PacketTransmit, Transmit, XdpTransmit};
use crate::probe::Syn;

/// What to send with (`--tx`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxBackend {
    /// The fastest that works.
    #[default]
    Auto,
    /// AF_PACKET: works everywhere.
    Packet,
    /// AF_XDP.
    Xdp,
    /// XDP live frames: made and sent inside the kernel.
    Live,
}

impl TxBackend {
    /// The word for it on the command line and in the metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Packet => "packet",
            Self::Xdp => "xdp",
            Self::Live => "live",
        }
    }
}

impl FromStr for TxBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Packet, Self::Xdp, Self::Live]
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or_else(|| format!("no transmit backend is called {text}"))
    }
}

impl fmt::Display for TxBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The transmitters of a sweep, one for each sender thread.
pub struct Transmitters {
    /// One for each sender thread, on queue 0, 1, 2 …
    pub each: Vec<Box<dyn Transmit>>,
    /// What they are; never [`TxBackend::Auto`].
    pub backend: TxBackend,
    /// How frames get to the driver, where that differs: AF_XDP's `zero-copy` or `copy`.
    pub mode: Option<&'static str>,
    /// Why faster ones were passed over, a sentence each.
    pub passed_over: Vec<(TxBackend, String)>,
}

/// Packets a second below which `auto` is content with the packet socket: it keeps up easily, and
/// touches neither queues nor the XDP hook of an interface that others may use.
const AUTO_RATE: f64 = 500_000.0;

/// Opens `threads` transmitters on `link` for `syn`. `rate` is what all of them are to send, in
/// packets a second.
///
/// # Errors
/// The backend that was asked for cannot be had; with [`TxBackend::Auto`] not even the last.
pub fn open_transmit(
    wanted: TxBackend,
    link: &Link,
    syn: &Syn,
    threads: u32,
    rate: f64,
) -> Result<Transmitters, NetError> {
    let mut passed_over = Vec::new();
    let candidates: &[TxBackend] = match wanted {
        TxBackend::Auto if rate < AUTO_RATE => {
            let reason = format!("not needed below {AUTO_RATE:.0} packets a second");
            passed_over.push((TxBackend::Live, reason.clone()));
            passed_over.push((TxBackend::Xdp, reason));
            &[TxBackend::Packet]
        }
        TxBackend::Auto => &[TxBackend::Live, TxBackend::Xdp, TxBackend::Packet],
        TxBackend::Packet => &[TxBackend::Packet],
        TxBackend::Xdp => &[TxBackend::Xdp],
        TxBackend::Live => &[TxBackend::Live],
    };
    let mut last = None;
    for backend in candidates {
        match open_each(*backend, link, syn, threads) {
            Ok(transmitters) => {
                return Ok(Transmitters {
                    passed_over,
                    ..transmitters
                });
            }
            Err(error) => {
                passed_over.push((*backend, error.to_string()));
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| NetError::NoBackend(wanted.name())))
}

/// Transmitters of one kind. If their modes differ, the slower one is told.
fn open_each(
    backend: TxBackend,
    link: &Link,
    syn: &Syn,
    threads: u32,
) -> Result<Transmitters, NetError> {
    let mut mode = None;
    let each = (0..threads)
        .map(|queue| -> Result<Box<dyn Transmit>, NetError> {
            Ok(match backend {
                TxBackend::Live => Box::new(LiveTransmit::open(link, syn.clone(), queue)?),
                TxBackend::Xdp => {
                    let transmit = XdpTransmit::open(link, syn.clone(), queue)?;
                    if !transmit.is_zero_copy() {
                        mode = Some("copy");
                    }
                    mode.get_or_insert("zero-copy");
                    Box::new(transmit)
                }
                TxBackend::Packet | TxBackend::Auto => {
                    Box::new(PacketTransmit::open(link, syn.clone())?)
                }
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Transmitters {
        each,
        backend,
        mode,
        passed_over: Vec::new(),
    })
}
