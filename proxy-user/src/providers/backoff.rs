//! How long to wait before a source that is away is asked again. Pure: randomness is an argument.

use std::time::Duration;

/// After a first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// `failures` counts those in a row; `random`, from 0 to 1, spreads hosts that lost the source at the same moment.
pub fn wait(failures: u32, most: Duration, random: f64) -> Duration {
    let plain = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(most);
    plain.mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_are_spread() {
        let most = Duration::from_secs(30);
        let plain: Vec<_> = (1..=7).map(|failures| wait(failures, most, 0.5).as_secs()).collect();
        assert_eq!(plain, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(wait(99, most, 1.0), Duration::from_millis(37_500));
        assert_eq!(wait(1, most, 0.0), Duration::from_millis(750));
    }
}
