//! The status line of a sweep: counters in, one line a second out, in zmap's wording.
//!
//! Rendering reads no clock and no counter: [`crate::run`] takes a [`Snapshot`] of the stages'
//! counters and hands it in, so that the same figures can be rendered in other ways.

use std::fmt;
use std::io::{self, Write as _};
use std::time::Duration;

/// The counters of a sweep at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    /// Time since the sweep began.
    pub elapsed: Duration,
    /// Whether probes are still being sent.
    pub sending: bool,
    /// Time left of the cooldown, once sending is over.
    pub cooldown_left: Option<Duration>,
    /// Probes that left so far.
    pub sent: u64,
    /// Probes that will have left when the sweep is complete.
    pub to_send: u64,
    /// Distinct addresses that answered SYN-ACK.
    pub responders: u64,
    /// Frames lost between the wire and us.
    pub dropped: u64,
    /// Responders waiting for a session.
    pub queued: u64,
    /// Sessions open.
    pub open: u64,
    /// Sessions ended.
    pub done: u64,
    /// Whether a full session queue holds the sender back.
    pub held_back: bool,
}

/// Says a line on standard error, where all that is no result goes. Nobody may be listening (any
/// more), which is no reason to stop a sweep, as `eprintln!` would.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Renders snapshots as lines; remembers the last one for the figures per second.
#[derive(Debug, Default)]
pub struct StatusLine {
    last: Snapshot,
}

impl StatusLine {
    /// The line for `now`, without a newline.
    ///
    /// Shape: `0:05 42% (0:07 left); send: 41943 10.0 Kp/s (9.98 Kp/s avg); recv: …; drops: …;
    /// hitrate: 1.02%; sessions: 17 open 411 done`. After the last probe the send rate is `done`.
    pub fn line(&mut self, now: &Snapshot) -> String {
        let gap = now.elapsed.saturating_sub(self.last.elapsed);
        let per_second = |count: u64, before: u64| rate(count.saturating_sub(before), gap);
        let average = |count: u64| rate(count, now.elapsed);
        let send = if now.sending {
            let held = if now.held_back {
                " (held back by sessions)"
            } else {
                ""
            };
            format!("{}{held}", per_second(now.sent, self.last.sent))
        } else {
            "done".to_owned()
        };
        let line = format!(
            "{elapsed} {percent:.0}%{left}; send: {sent} {send} ({send_avg} avg); \
             recv: {recv} {recv_now} ({recv_avg} avg); drops: {drops} ({drops_avg} avg); \
             hitrate: {hitrate:.2}%; sessions: {open} open {done} done{queued}",
            elapsed = clock(now.elapsed),
            percent = percent(now.sent, now.to_send),
            left = left(now),
            sent = now.sent,
            send_avg = average(now.sent),
            recv = now.responders,
            recv_now = per_second(now.responders, self.last.responders),
            recv_avg = average(now.responders),
            drops = per_second(now.dropped, self.last.dropped),
            drops_avg = average(now.dropped),
            hitrate = percent(now.responders, now.sent),
            open = now.open,
            done = now.done,
            queued = if now.queued > 0 {
                format!(" {} waiting", now.queued)
            } else {
                String::new()
            },
        );
        self.last = *now;
        line
    }
}

/// What remains, in parentheses: the estimate while sending, then the cooldown, then sessions.
fn left(now: &Snapshot) -> String {
    if now.sending {
        if now.sent == 0 || now.elapsed.is_zero() {
            return String::new();
        }
        let rest = now.to_send.saturating_sub(now.sent);
        let seconds = now.elapsed.as_secs_f64() * ratio(rest, now.sent);
        return format!(
            " ({} left)",
            clock(Duration::from_secs_f64(seconds.min(1e9)))
        );
    }
    match now.cooldown_left {
        Some(left) if !left.is_zero() => format!(" ({} cooldown)", clock(left)),
        _ => " (sessions ending)".to_owned(),
    }
}

/// `12:34` or `1:02:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * ratio(part, whole)
}

/// Packets a second with three digits and a unit: `9.98 Kp/s`.
fn rate(count: u64, time: Duration) -> String {
    let value = if time.is_zero() {
        0.0
    } else {
        count as f64 / time.as_secs_f64()
    };
    let (value, unit) = if value >= 1e6 {
        (value / 1e6, " Mp/s")
    } else if value >= 1e3 {
        (value / 1e3, " Kp/s")
    } else {
        (value, " p/s")
    };
    let digits = if value >= 100.0 || (unit == " p/s" && value.fract() == 0.0) {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_while_sending_then_after() {
        let mut status = StatusLine::default();
        let mut now = Snapshot {
            elapsed: Duration::from_secs(5),
            sending: true,
            sent: 50_000,
            to_send: 100_000,
            responders: 500,
            open: 17,
            done: 411,
            ..Snapshot::default()
        };
        assert_eq!(
            status.line(&now),
            "0:05 50% (0:05 left); send: 50000 10.0 Kp/s (10.0 Kp/s avg); \
             recv: 500 100 p/s (100 p/s avg); drops: 0 p/s (0 p/s avg); \
             hitrate: 1.00%; sessions: 17 open 411 done"
        );
        now.elapsed = Duration::from_secs(6);
        now.sending = false;
        now.sent = 100_000;
        now.cooldown_left = Some(Duration::from_secs(8));
        now.queued = 3;
        let line = status.line(&now);
        assert!(
            line.starts_with("0:06 100% (0:08 cooldown); send: 100000 done ("),
            "{line}"
        );
        assert!(
            line.ends_with("sessions: 17 open 411 done 3 waiting"),
            "{line}"
        );
    }

    #[test]
    fn nothing_divides_by_zero() {
        let line = StatusLine::default().line(&Snapshot {
            sending: true,
            ..Snapshot::default()
        });
        assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(Duration::from_secs(59)), "0:59");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }
}
