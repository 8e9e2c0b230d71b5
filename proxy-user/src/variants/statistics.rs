//! Is a share of something surely larger than another one's by more than a margin? Pure.
//!
//! The score test of Farrington and Manning ("Test statistics and sample size formulae for comparative binomial trials with
//! null hypothesis of non-zero risk difference or non-unity relative risk", Statistics in Medicine 9, 1990) asks for
//!
//! ```text
//! z = (p1 − p2 − δ) / √( q1 (1 − q1) / n1 + q2 (1 − q2) / n2 )
//! ```
//!
//! where q1 and q2 are the likeliest shares that differ by just δ. It leans on the normal distribution, which is too
//! narrow where little was counted. So a second word is needed: the chance of at least as many among n1, if the
//! share were q1, is at most exp(−n1 · KL(p1 ‖ q1)) (Hoeffding, "Probability inequalities for sums of bounded random variables",
//! 1963, theorem 1), which holds for any n1. Only what both call improbable is believed.

/// So many of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub hits: u64,
    pub all: u64,
}

impl Share {
    pub fn ratio(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.hits as f64 / self.all as f64 }
    }
}

/// Whether the true share behind `new` is above that behind `old` by more than `margin`; wrongly so at most with the
/// probability `alpha`.
pub fn surely_larger(new: Share, old: Share, margin: f64, alpha: f64) -> bool {
    let (p1, p2) = (new.ratio(), old.ratio());
    if new.all == 0 || old.all == 0 || p1 - p2 <= margin {
        return false;
    }
    let (n1, n2) = (new.all as f64, old.all as f64);
    let (q1, q2) = restricted(p1, n1, p2, n2, margin);
    let error = (q1 * (1.0 - q1) / n1 + q2 * (1.0 - q2) / n2).sqrt();
    p1 - p2 - margin > critical(alpha) * error && (-n1 * divergence(p1, q1)).exp() < alpha
}

/// The likeliest two shares that differ by `delta`, given what was counted: the root of a cubic, by Farrington and Manning's
/// appendix.
fn restricted(p1: f64, n1: f64, p2: f64, n2: f64, delta: f64) -> (f64, f64) {
    let theta = n2 / n1;
    let a = 1.0 + theta;
    let b = -(1.0 + theta + p1 + theta * p2 + delta * (theta + 2.0));
    let c = delta * delta + delta * (2.0 * p1 + theta + 1.0) + p1 + theta * p2;
    let d = -p1 * delta * (1.0 + delta);
    let v = (b / (3.0 * a)).powi(3) - b * c / (6.0 * a * a) + d / (2.0 * a);
    let u = ((b / (3.0 * a)).powi(2) - c / (3.0 * a)).max(0.0).sqrt().copysign(v);
    let cosine = if u == 0.0 { 1.0 } else { (v / u.powi(3)).clamp(-1.0, 1.0) };
    let w = (std::f64::consts::PI + cosine.acos()) / 3.0;
    let q1 = (2.0 * u * w.cos() - b / (3.0 * a)).clamp(delta.max(0.0), 1.0);
    (q1, (q1 - delta).clamp(0.0, 1.0))
}

/// Kullback and Leibler's divergence of two coins.
fn divergence(p: f64, q: f64) -> f64 {
    let part = |p: f64, q: f64| if p == 0.0 { 0.0 } else { p * (p / q).ln() };
    part(p, q) + part(1.0 - p, 1.0 - q)
}

/// What a normal variable exceeds with the probability `alpha`: Acklam's rational approximation (relative error below 1.2e-9).
fn critical(alpha: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    let horner = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let alpha = alpha.clamp(1e-300, 0.5);
    if alpha < 0.024_25 {
        let q = (-2.0 * alpha.ln()).sqrt();
        return -horner(&C, q) / horner(&D, q);
    }
    let q = 0.5 - alpha;
    q * horner(&A, q * q) / horner(&B, q * q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_values_are_those_of_the_tables() {
        for (alpha, z) in [
            (0.5, 0.0),
            (0.05, 1.644_853_627),
            (0.01, 2.326_347_874),
            (1e-4, 3.719_016_485),
            (1e-7, 5.199_337_582),
        ] {
            assert!((critical(alpha) - z).abs() < 1e-6, "{alpha}: {}", critical(alpha));
        }
    }

    #[test]
    fn the_likeliest_shares_differ_by_the_margin_and_are_the_likeliest() {
        for (x1, n1, x2, n2, delta) in [
            (8.0, 100.0, 1.0, 100.0, 0.005),
            (40.0, 1000.0, 3.0, 50_000.0, 0.01),
            (3.0, 50.0, 0.0, 400.0, 0.0),
        ] {
            let (q1, q2) = restricted(x1 / n1, n1, x2 / n2, n2, delta);
            assert!((q1 - q2 - delta).abs() < 1e-9);
            let log = |p: f64, x: f64, n: f64| x * p.max(1e-300).ln() + (n - x) * (1.0 - p).ln();
            let likely = |q2: f64| {
                log(q2 + delta, x1, n1) + if x2 == 0.0 { n2 * (1.0 - q2).ln() } else { log(q2, x2, n2) }
            };
            for step in [-1e-4, 1e-4] {
                if q2 + step >= 0.0 {
                    assert!(likely(q2) >= likely(q2 + step), "{q1} {q2} ({x1}/{n1}, {x2}/{n2})");
                }
            }
        }
    }

    #[test]
    fn what_is_plain_is_seen_and_what_is_chance_is_not() {
        let share = |hits, all| Share { hits, all };
        for (new, old, margin, seen) in [
            (share(30, 200), share(10, 2000), 0.005, true),
            (share(200, 200), share(0, 200), 0.005, true),
            (share(2, 100), share(0, 1000), 0.005, false),
            (share(1, 10), share(0, 10), 0.0, false),
            (share(60, 1000), share(50, 1000), 0.005, false),
            // Just below the margin, however many there are.
            (share(14_900, 1_000_000), share(10_000, 1_000_000), 0.005, false),
            (share(17_000, 1_000_000), share(10_000, 1_000_000), 0.005, true),
            // Little is known of the old one.
            (share(1_400, 100_000), share(0, 100), 0.005, false),
            (share(0, 0), share(0, 100), 0.0, false),
        ] {
            assert_eq!(surely_larger(new, old, margin, 1e-3), seen, "{new:?} {old:?}");
        }
    }

    /// At the margin itself, where it is hardest: with rare hits, few requests, and very different numbers of them.
    #[test]
    fn it_is_wrong_no_more_often_than_it_says() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut draw =
            |p: f64, n: u64| Share { hits: (0..n).filter(|_| random.f64() < p).count() as u64, all: n };
        for (p, margin, n1, n2) in [
            (0.0, 0.005, 150, 3000),
            (0.01, 0.005, 100, 2000),
            (0.01, 0.0, 300, 300),
            (0.02, 0.005, 2000, 100),
            (0.3, 0.05, 400, 100),
        ] {
            let (runs, alpha) = (1500, 0.02);
            let wrong =
                (0..runs).filter(|_| surely_larger(draw(p + margin, n1), draw(p, n2), margin, alpha)).count();
            // Three standard deviations above what is allowed.
            let most = f64::from(runs) * alpha + 3.0 * (f64::from(runs) * alpha).sqrt();
            assert!((wrong as f64) < most, "{wrong} of {runs} at {p} + {margin}, {n1} and {n2}");
        }
    }
}
