//! What user space and the programs share: one map element of 64-bit words.
//!
//! ```text
//! word 0          HEAD                  written by user space alone
//! word 16 …       the programs' state   written by the programs alone, on one CPU
//! word 32 …       the log of drops      LOG_LEN entries of two words, likewise
//! then            the ring of slots     RING_LEN slots of two words, written by user space
//! ```
//!
//! Positions count slots from 0 without end; a position's slot is the position modulo
//! [`RING_LEN`]. They stand in the order `DONE ≤ TAIL ≤ HEAD ≤ DONE + RING_LEN`.

/// Slots in the ring, a power of two. 65,536 (1 MiB) keep the fastest sender (15 million a second)
/// busy for 4 ms, so user space may sleep in between.
pub(super) const RING_LEN: u64 = 1 << 16;

/// Entries in the log. An entry tells of one dropped probe at least and is read before the slots
/// of its probes are used again, so as many as slots are never too few.
pub(super) const LOG_LEN: u64 = RING_LEN;

/// The same as a number of things in memory.
pub(super) const SLOTS: usize = 1 << RING_LEN.trailing_zeros();

/// Where new probes go: all positions below are ready to be sent.
pub(super) const HEAD: usize = 0;
/// The next position to be handed to the driver.
pub(super) const TAIL: usize = 16;
/// The programs' copy of `HEAD`, so that they look at user space's cache line only when they have
/// sent all they knew of.
pub(super) const SEEN: usize = 17;
/// The driver has taken or dropped all positions below. The log says which it dropped.
pub(super) const DONE: usize = 18;
/// Entries ever written to the log.
pub(super) const LOGGED: usize = 19;
/// Not 0: an error code (negative, in the upper half) for which the programs stopped for good.
pub(super) const FAILED: usize = 20;
/// Frames to let pass without a probe: the driver's queue was full.
pub(super) const PAUSE: usize = 21;
/// Frames that passed without a probe so far.
pub(super) const IDLE: usize = 22;
/// Of no meaning: an atomic operation on it is a memory barrier.
pub(super) const FENCE: usize = 23;
/// The first entry of the log.
const LOG: usize = 32;
/// The first slot of the ring.
const RING: usize = LOG + 2 * SLOTS;
/// Words in all.
pub(super) const WORDS: usize = RING + 2 * SLOTS;

/// The first word of a position's slot.
pub(super) const fn slot_at(position: u64) -> usize {
    RING + 2 * ring_index(position)
}

/// The first word of a log entry, counted from 0 without end.
pub(super) const fn log_at(entry: u64) -> usize {
    LOG + 2 * ring_index(entry)
}

/// A position's place among [`RING_LEN`].
pub(super) const fn ring_index(position: u64) -> usize {
    (position % RING_LEN) as usize
}

/// The octet at which a word begins, as programs address it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the map has some 2 MiB"
)]
pub(super) const fn octet(word: usize) -> i32 {
    (word * 8) as i32
}

/// A run of dropped probes, as the log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The first position.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u64,
}

impl Dropped {
    /// Reads an entry's two words; the error code in the second is told by `FAILED` too.
    pub(super) const fn from_words(words: [u64; 2]) -> Self {
        Self {
            first: words[0],
            count: words[1] & 0xffff_ffff,
        }
    }
}

/// The system's error that `FAILED` tells of, if any.
pub(super) fn failure(word: u64) -> Option<std::io::Error> {
    let code = i32::try_from(word.cast_signed() >> 32).unwrap_or(i32::MIN);
    (code != 0).then(|| std::io::Error::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap_and_the_ring_closes_on_itself() {
        const { assert!(HEAD < TAIL && FENCE < LOG && LOG_LEN == RING_LEN) };
        assert_eq!(log_at(0), LOG);
        assert_eq!(log_at(LOG_LEN), LOG);
        assert_eq!(log_at(LOG_LEN - 1) + 2, slot_at(0));
        assert_eq!(slot_at(RING_LEN - 1) + 2, WORDS);
        assert_eq!(slot_at(5 * RING_LEN + 3), slot_at(3));
        // The programs' words share one cache line, and user space's is two away.
        assert_eq!((TAIL * 8) % 128, 0);
        const { assert!(FENCE < TAIL + 8 && TAIL >= HEAD + 16) };
    }

    #[test]
    fn failures_are_error_codes() {
        assert!(failure(0).is_none());
        let word = u64::from((-libc::ENXIO).cast_unsigned()) << 32;
        assert_eq!(failure(word).unwrap().raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn log_entries() {
        let words = [70_000, 0xffff_fffa_0000_0010];
        let want = Dropped {
            first: 70_000,
            count: 16,
        };
        assert_eq!(Dropped::from_words(words), want);
    }
}
