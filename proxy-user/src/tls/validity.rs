//! From when to when a certificate is good, and how near its end is. Pure: the time is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::X509Certificate;

/// Seconds since 1970, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

/// Where a certificate is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    NotYet,
    Fine,
    /// It expires within this time, the shortest of the steps that are reported.
    Soon(Duration),
    Expired,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is reported again, when the end has come nearer.
const STEPS: [Duration; 2] = [DAY, DAY.saturating_mul(7)];

impl Validity {
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }

    /// `warning` before its end it counts as about to expire; but not before three quarters of its life are over, since
    /// a certificate that lives for six days would be about to expire all its life.
    pub fn standing(self, now: SystemTime, warning: Duration) -> Standing {
        let now = seconds(now);
        if now < self.not_before {
            return Standing::NotYet;
        }
        if now > self.not_after {
            return Standing::Expired;
        }
        let left = Duration::from_secs((self.not_after - now).unsigned_abs());
        let quarter = Duration::from_secs(self.not_after.abs_diff(self.not_before)) / 4;
        let warning = warning.min(quarter);
        let step =
            STEPS.into_iter().filter(|step| *step < warning).chain([warning]).find(|step| left < *step);
        step.map_or(Standing::Fine, Standing::Soon)
    }

    pub fn ends(self) -> String {
        date(self.not_after)
    }

    pub fn begins(self) -> String {
        date(self.not_before)
    }
}

impl Standing {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotYet => "not_yet_valid",
            Self::Fine => "valid",
            Self::Soon(_) => "expires_soon",
            Self::Expired => "expired",
        }
    }
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// `2026-11-21 10:00 UTC`
fn date(at: i64) -> String {
    match jiff::Timestamp::from_second(at) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        // RFC 5280 writes 99991231235959Z for "no end".
        Err(_) => "the end of time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_announced_in_steps() {
        let days = |days: u64| DAY.saturating_mul(u32::try_from(days).unwrap());
        let day = 24 * 3600_i64;
        for (lifetime, warning, at, expected) in [
            (365, days(30), -1, Standing::NotYet),
            (365, days(30), 0, Standing::Fine),
            (365, days(30), 334, Standing::Fine),
            (365, days(30), 336, Standing::Soon(days(30))),
            (365, days(30), 359, Standing::Soon(days(7))),
            (365, days(30), 365, Standing::Soon(days(1))),
            (365, days(30), 366, Standing::Expired),
            // Renewed by certbot 30 days before its end: no word until that has failed for a week.
            (90, days(30), 61, Standing::Fine),
            (90, days(30), 68, Standing::Soon(days(90) / 4)),
            (6, days(30), 4, Standing::Fine),
            (6, days(30), 5, Standing::Soon(days(6) / 4)),
            (365, days(3), 361, Standing::Fine),
            (365, days(3), 363, Standing::Soon(days(3))),
            (365, Duration::ZERO, 365, Standing::Fine),
        ] {
            let begins = 1_700_000_000;
            let validity = Validity { not_before: begins, not_after: begins + lifetime * day };
            let now = UNIX_EPOCH + Duration::from_secs((begins + at * day).unsigned_abs());
            assert_eq!(validity.standing(now, warning), expected, "day {at} of {lifetime}");
        }
    }

    #[test]
    fn dates_are_readable_and_the_last_one_too() {
        let validity = Validity { not_before: 0, not_after: i64::MAX };
        assert_eq!(
            (validity.begins().as_str(), validity.ends().as_str()),
            ("1970-01-01 00:00 UTC", "the end of time")
        );
    }
}
