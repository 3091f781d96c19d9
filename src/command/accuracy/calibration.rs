//! Whether confidence is what it says: of verdicts said 90 %, 90 % are right.

use std::fmt::Write as _;

use super::tables::float;

/// Verdicts that a step of the isotonic fit holds at least; smaller ones would follow chance.
const STEP: usize = 25;

/// Bounds of the bins in which the diagram counts.
const BINS: &[f64] = &[0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0];

/// Verdicts with what was said of them and whether they were right.
#[derive(Debug, Default)]
pub(super) struct Calibration(Vec<Said>);

#[derive(Debug, Clone, Copy)]
struct Said {
    /// Log odds of the posterior, in bits.
    odds: f64,
    confidence: f64,
    right: bool,
}

/// Verdicts of nearly the same confidence.
pub(super) struct Bin {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) verdicts: usize,
    pub(super) said: f64,
    pub(super) right: usize,
}

impl Calibration {
    pub(super) fn add(&mut self, posterior: f64, confidence: f64, right: bool) {
        self.0.push(Said {
            odds: (posterior / (1.0 - posterior).max(1e-12)).log2(),
            confidence,
            right,
        });
    }

    /// The verdicts by confidence, in bins that are not empty.
    pub(super) fn bins(&self) -> Vec<Bin> {
        BINS.windows(2)
            .map(|bounds| {
                let (from, to) = (bounds[0], bounds[1]);
                let inside: Vec<_> = self
                    .0
                    .iter()
                    .filter(|s| s.confidence >= from && s.confidence < to)
                    .collect();
                Bin {
                    from,
                    to,
                    verdicts: inside.len(),
                    said: inside.iter().map(|s| s.confidence).sum::<f64>()
                        / float(inside.len().max(1)),
                    right: inside.iter().filter(|s| s.right).count(),
                }
            })
            .filter(|bin| bin.verdicts > 0)
            .collect()
    }

    /// Mean confidence minus the share that was right, over all verdicts.
    pub(super) fn bias(&self) -> f64 {
        let n = float(self.0.len().max(1));
        let said: f64 = self.0.iter().map(|s| s.confidence).sum();
        (said - float(self.0.iter().filter(|s| s.right).count())) / n
    }

    /// The isotonic fit of what was right on the log odds (pool adjacent violators, Ayer et al.
    /// 1955), each step's share after Laplace's rule of succession: (log odds, share, verdicts).
    pub(super) fn fit(&self) -> Vec<(f64, f64, usize)> {
        struct Pool {
            odds: f64,
            right: usize,
            verdicts: usize,
        }
        let share = |p: &Pool| (float(p.right) + 1.0) / (float(p.verdicts) + 2.0);
        let mut sorted = self.0.clone();
        sorted.sort_by(|a, b| a.odds.total_cmp(&b.odds));
        let mut pools: Vec<Pool> = Vec::new();
        for step in sorted.chunks(STEP) {
            pools.push(Pool {
                odds: step.iter().map(|s| s.odds).sum(),
                right: step.iter().filter(|s| s.right).count(),
                verdicts: step.len(),
            });
            while let [.., before, last] = pools.as_slice() {
                if share(before) < share(last) {
                    break;
                }
                let last = pools.pop().unwrap_or_else(|| unreachable!("two were seen"));
                if let Some(before) = pools.last_mut() {
                    before.odds += last.odds;
                    before.right += last.right;
                    before.verdicts += last.verdicts;
                }
            }
        }
        pools
            .iter()
            .map(|p| (p.odds / float(p.verdicts), share(p), p.verdicts))
            .collect()
    }

    /// The reliability diagram: said along the bottom, right up the side, the area of a mark its
    /// number of verdicts; on the diagonal what is said is true.
    pub(super) fn svg(&self) -> String {
        const SIDE: f64 = 400.0;
        const EDGE: f64 = 50.0;
        let x = |share: f64| EDGE + (share - 0.5) * 2.0 * SIDE;
        let y = |share: f64| EDGE + SIDE - share * SIDE;
        let whole = SIDE + 2.0 * EDGE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole} {whole}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{whole}\" height=\"{whole}\" fill=\"white\"/>\n\
             <path d=\"M{EDGE} {EDGE}V{0}H{0}\" fill=\"none\" stroke=\"black\"/>\n\
             <path d=\"M{1} {2}L{3} {4}\" stroke=\"gray\" stroke-dasharray=\"4\"/>\n",
            EDGE + SIDE,
            x(0.5),
            y(0.5),
            x(1.0),
            y(1.0)
        );
        for percent in [50.0, 60.0, 70.0, 80.0, 90.0, 100.0] {
            let share = percent / 100.0;
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{percent}</text>",
                x(share),
                EDGE + SIDE + 18.0
            );
        }
        for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{percent}</text>",
                EDGE - 8.0,
                y(percent / 100.0) + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{0}\" y=\"{1}\" text-anchor=\"middle\">confidence said, %</text>\n\
             <text x=\"{0}\" y=\"24\" text-anchor=\"middle\">verdicts right, % (cross-validated)</text>",
            whole / 2.0,
            whole - 10.0
        );
        for bin in self.bins() {
            let right = float(bin.right) / float(bin.verdicts);
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{:.1}\" fill=\"steelblue\" fill-opacity=\"0.6\">\
                 <title>{} verdicts</title></circle>",
                x(bin.said),
                y(right),
                3.0 + float(bin.verdicts).sqrt(),
                bin.verdicts
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred verdicts at each of these odds, so many of them right.
    fn verdicts(groups: &[(f64, usize)]) -> Calibration {
        let mut calibration = Calibration::default();
        for &(posterior, right) in groups {
            for n in 0..100 {
                calibration.add(posterior, posterior, n < right);
            }
        }
        calibration
    }

    #[test]
    fn bins_say_what_was_said_and_what_was_right() {
        let calibration = verdicts(&[(0.9, 90), (0.97, 40)]);
        let bins = calibration.bins();
        assert_eq!(bins.len(), 2);
        assert_eq!((bins[0].verdicts, bins[0].right), (100, 90));
        assert!((bins[1].said - 0.97).abs() < 1e-9 && bins[1].right == 40);
        assert!((calibration.bias() - (0.935 - 0.65)).abs() < 1e-9);
    }

    #[test]
    fn the_fit_never_falls() {
        let fit = verdicts(&[(0.6, 50), (0.8, 90), (0.9, 70), (0.99, 99)]).fit();
        assert!(fit.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
        assert_eq!(fit.iter().map(|(.., n)| n).sum::<usize>(), 400);
        let pooled = fit.iter().find(|(_, share, _)| (share - 0.8).abs() < 0.02);
        assert!(pooled.is_some(), "{fit:?}");
    }

    #[test]
    fn the_diagram_is_whole() {
        let svg = verdicts(&[(0.9, 90)]).svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 1);
    }
}
