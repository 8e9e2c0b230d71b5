//! When a certificate is ordered. Pure: time and randomness are arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::tls::validity::Validity;

/// After a first failure; it doubles with each further one. Let's Encrypt allows five failures an hour for a name.
const RETRY: Duration = Duration::from_secs(60);

/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// A certificate is renewed when two thirds of its life are over, give or take a hundredth of it, so that those that
/// came at the same moment don't all go at the same moment. `random` goes from 0 to 1.
pub fn renewal(validity: Validity, random: f64) -> SystemTime {
    let life = u64::try_from(validity.not_after.saturating_sub(validity.not_before)).unwrap_or(0);
    let begin = UNIX_EPOCH + Duration::from_secs(u64::try_from(validity.not_before).unwrap_or(0));
    let share = 2.0 / 3.0 + 0.02 * (random.clamp(0.0, 1.0) - 0.5);
    begin + Duration::from_secs(life).mul_f64(share)
}

/// A certificate whose dates lie must not be ordered without end.
pub fn least(validity: Validity) -> Duration {
    let life = validity.not_after.saturating_sub(validity.not_before);
    let tenth = Duration::from_secs(u64::try_from(life).unwrap_or(0)) / 10;
    tenth.clamp(Duration::from_secs(1), Duration::from_secs(3600))
}

/// How long to wait after so many failures in a row, give or take a tenth.
pub fn retry(failures: u32, random: f64) -> Duration {
    let plain = RETRY.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST);
    plain.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_thirds_of_a_life_is_when_it_is_renewed() {
        let day = 24 * 3600;
        let validity = Validity { not_before: 1_700_000_000, not_after: 1_700_000_000 + 90 * day };
        let after =
            |random| renewal(validity, random).duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_700_000_000;
        assert_eq!(after(0.5), 60 * 24 * 3600);
        assert!(after(0.0) > 59 * 24 * 3600 && after(1.0) < 61 * 24 * 3600);
    }

    #[test]
    fn failures_are_tried_again_less_and_less_often() {
        let waits: Vec<_> = (1..=12).map(|failures| retry(failures, 0.5).as_secs()).collect();
        assert_eq!(waits[..5], [60, 120, 240, 480, 960]);
        assert_eq!(waits[11], 6 * 3600);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_spin(failures: u32, random in 0.0f64..=1.0, before: i64, after: i64) {
            prop_assert!(retry(failures, random) >= Duration::from_secs(54));
            // Nonsense of an authority's is no reason to panic.
            let validity = Validity { not_before: before.rem_euclid(1 << 40), not_after: after.rem_euclid(1 << 40) };
            let _ = renewal(validity, random);
            prop_assert!(least(validity) >= Duration::from_secs(1));
        }
    }
}
