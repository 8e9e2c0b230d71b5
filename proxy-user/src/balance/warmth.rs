//! Slow start: a server that has just come up gets a share that grows from a tenth to its whole weight. Caches fill,
//! connections open and code is compiled before it gets all of its work.

use std::time::Duration;

use crate::clock::Moment;

/// What it begins with.
const LEAST: f32 = 0.1;

/// How much of its weight a server has that is usable since then.
pub fn warmth(since: Moment, slow_start: Duration, now: Moment) -> f32 {
    let whole = slow_start.as_millis() as f32;
    if whole == 0.0 {
        return 1.0;
    }
    (LEAST + (1.0 - LEAST) * now.since(since) as f32 / whole).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_a_tenth_to_all() {
        let at =
            |milliseconds: u64| warmth(Moment(1000), Duration::from_secs(10), Moment(1000 + milliseconds));
        for (milliseconds, share) in [(0, 0.1), (5_000, 0.55), (10_000, 1.0), (60_000, 1.0)] {
            assert!((at(milliseconds) - share).abs() < 0.001, "{milliseconds}: {}", at(milliseconds));
        }
        assert_eq!(warmth(Moment(5), Duration::ZERO, Moment(5)), 1.0);
    }
}
