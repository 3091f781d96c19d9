//! Counting and shares: the arithmetic of a report, without its looks.

use serde::Serialize;

/// A count as part of a whole, with the 95 % confidence interval of its share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// How many.
    pub n: u64,
    /// Of how many.
    pub of: u64,
    /// `n / of`, 0 to 1; absent if `of` is 0.
    pub share: Option<f64>,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
}

impl Share {
    /// `n` of `of`. An `n` beyond `of` (counts of an unfinished sweep) has no share.
    pub fn new(n: u64, of: u64) -> Self {
        let interval = wilson(n, of);
        Self {
            n,
            of,
            share: interval.map(|_| float(n) / float(of)),
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
        }
    }
}

/// The 95 % score interval of a proportion (E. B. Wilson, JASA 22, 1927): unlike the textbook's
/// normal interval it holds for small counts and for shares near 0 and 1. `None` if `of` is 0 or
/// `n` exceeds it.
fn wilson(n: u64, of: u64) -> Option<(f64, f64)> {
    if of == 0 || n > of {
        return None;
    }
    /// The normal distribution's 97.5 % quantile.
    const Z: f64 = 1.959_963_984_540_054;
    let (share, total) = (float(n) / float(of), float(of));
    let spread = Z * Z / total;
    let middle = (share + spread / 2.0) / (1.0 + spread);
    let half = Z / (1.0 + spread) * ((share * (1.0 - share) + spread / 4.0) / total).sqrt();
    // At the ends the interval touches 0 and 1 exactly; rounding must not push it beyond.
    let low = if n == 0 {
        0.0
    } else {
        (middle - half).max(0.0)
    };
    let high = if n == of {
        1.0
    } else {
        (middle + half).min(1.0)
    };
    Some((low, high))
}

/// Counts here stay below 2^53 (the whole of IPv4 is 2^32), so nothing is lost.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

/// Keeps the first `keep` of the rows and folds the rest into one: how many rows, and their sum.
pub(super) fn fold_rest<T>(
    rows: &mut Vec<T>,
    keep: usize,
    count: impl Fn(&T) -> u64,
) -> Option<Rest> {
    // A rest of one row is no shorter than the row itself.
    if rows.len() <= keep.saturating_add(1) {
        return None;
    }
    let rest = rows.split_off(keep);
    Some(Rest {
        kinds: rest.len(),
        hosts: rest.iter().map(count).sum(),
    })
}

/// Rows too small to be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rest {
    /// How many rows.
    pub kinds: usize,
    /// Hosts in them.
    pub hosts: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        for (n, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (l, h) = wilson(n, of).unwrap();
            assert!(
                (l - low).abs() < 5e-5 && (h - high).abs() < 5e-5,
                "{n}/{of}: {l} {h}"
            );
        }
        assert_eq!(wilson(0, 0), None);
        assert_eq!(wilson(2, 1), None);
        assert_eq!(wilson(5, 5).unwrap().1, 1.0);
    }

    #[test]
    fn interval_holds_the_share_for_all_small_counts() {
        for of in 1..=200 {
            for n in 0..=of {
                let share = Share::new(n, of);
                let (low, mid, high) = (
                    share.low.unwrap(),
                    share.share.unwrap(),
                    share.high.unwrap(),
                );
                assert!(
                    0.0 <= low && low <= mid && mid <= high && high <= 1.0,
                    "{n}/{of}"
                );
            }
        }
    }

    #[test]
    fn rest_keeps_the_sum() {
        for len in 0..30u64 {
            for keep in 0..30usize {
                let mut rows: Vec<u64> = (1..=len).collect();
                let rest = fold_rest(&mut rows, keep, |n| *n);
                let sum = rows.iter().sum::<u64>() + rest.map_or(0, |r| r.hosts);
                assert_eq!(sum, len * (len + 1) / 2);
                assert!(rest.is_none_or(|r| r.kinds >= 2));
            }
        }
    }
}
