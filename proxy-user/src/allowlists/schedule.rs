//! When a list is fetched next. Pure: randomness is an argument.

use std::time::Duration;

/// After a first failure; it doubles with each further one, up to the list's own interval.
const RETRY: Duration = Duration::from_secs(30);

/// From the end of a fetch to the next one. `failures` counts those in a row; `random`, from 0 to 1, spreads hosts that
/// began at the same moment over a tenth of the interval to either side.
pub fn delay(every: Duration, failures: u32, random: f64) -> Duration {
    let plain = match failures {
        0 => every,
        n => RETRY.saturating_mul(1 << (n - 1).min(20)).min(every),
    };
    plain.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOURS: Duration = Duration::from_secs(12 * 3600);

    #[test]
    fn it_is_the_interval_give_or_take_a_tenth() {
        assert_eq!(delay(HOURS, 0, 0.5), HOURS);
        assert_eq!(delay(HOURS, 0, 0.0), HOURS.mul_f64(0.9));
        assert_eq!(delay(HOURS, 0, 1.0), HOURS.mul_f64(1.1));
    }

    #[test]
    fn failures_are_tried_again_soon_and_then_less_often() {
        let delays: Vec<u64> = (1..=12).map(|failures| delay(HOURS, failures, 0.5).as_secs()).collect();
        assert_eq!(delays[..4], [30, 60, 120, 240]);
        assert_eq!(delays[11], HOURS.as_secs(), "never less often than a list that is well");
    }

    proptest! {
        #[test]
        fn it_is_never_nothing_and_never_longer_than_a_tenth_more(
            seconds in 1u64..=720 * 3600, failures: u32, random in 0.0f64..=1.0,
        ) {
            let every = Duration::from_secs(seconds);
            let delay = delay(every, failures, random);
            prop_assert!(delay >= Duration::from_millis(900));
            prop_assert!(delay <= every.mul_f64(1.1001));
        }
    }
}
