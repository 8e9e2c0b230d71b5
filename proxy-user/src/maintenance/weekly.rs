//! Windows that come again every week, by the clock on a wall somewhere: when that clock is set for summer or winter, they
//! move with it. Pure.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Time, Weekday},
    tz::TimeZone,
};

use super::Span;

/// `weekly = { days = ["sun"], from = "02:00", until = "04:00", zone = "Europe/Berlin" }`
#[derive(Debug, Clone, PartialEq)]
pub struct Weekly {
    /// On which it begins; at least one.
    pub days: Vec<Weekday>,
    pub from: Time,
    /// On the next day, if it is not behind `from`.
    pub until: Time,
    pub zone: TimeZone,
}

pub const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

// === impl Weekly ===

impl Weekly {
    /// The window that holds now, or the next one.
    pub fn next(&self, now: Timestamp) -> Option<Span> {
        let mut day = now.to_zoned(self.zone.clone()).date().yesterday().ok()?;
        // One that began yesterday may still hold; after two weeks all days were asked, even if the clock leaves one of them out.
        for _ in 0..16 {
            if self.days.contains(&day.weekday())
                && let Some(span) = self.on(day).filter(|span| !span.is_over(now))
            {
                return Some(span);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// A time that the clock leaves out begins as late as it is set; one that comes twice, the first time.
    fn on(&self, day: jiff::civil::Date) -> Option<Span> {
        let last = if self.until > self.from { day } else { day.tomorrow().ok()? };
        let at = |day: jiff::civil::Date, time| {
            let zoned = day.to_datetime(time).to_zoned(self.zone.clone()).ok()?;
            Some(zoned.timestamp())
        };
        let (from, until) = (at(day, self.from)?, at(last, self.until)?);
        (from < until).then_some(Span { from: Some(from), until: Some(until) })
    }
}

impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |day: &Weekday| DAYS.iter().find(|(_, known)| known == day).map_or("", |(name, _)| *name);
        let days: Vec<_> = self.days.iter().map(name).collect();
        let time = |time: Time| time.strftime("%H:%M").to_string();
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{} {}–{} {zone}", days.join(", "), time(self.from), time(self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekly(days: &[Weekday], from: &str, until: &str, zone: &str) -> Weekly {
        Weekly {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            until: until.parse().unwrap(),
            zone: TimeZone::get(zone).unwrap(),
        }
    }

    fn next(weekly: &Weekly, now: &str) -> String {
        let span = weekly.next(now.parse().unwrap()).unwrap();
        format!("{} {}", span.from.unwrap(), span.until.unwrap())
    }

    const SUNDAY: &[Weekday] = &[Weekday::Sunday];

    #[test]
    fn the_one_that_holds_or_the_next_one_is_found() {
        let utc = weekly(SUNDAY, "02:00", "04:00", "UTC");
        for (now, expected) in [
            ("2026-11-21T23:00:00Z", "2026-11-22T02:00:00Z 2026-11-22T04:00:00Z"),
            ("2026-11-22T03:59:59Z", "2026-11-22T02:00:00Z 2026-11-22T04:00:00Z"),
            ("2026-11-22T04:00:00Z", "2026-11-29T02:00:00Z 2026-11-29T04:00:00Z"),
        ] {
            assert_eq!(next(&utc, now), expected, "{now}");
        }
        assert_eq!(utc.to_string(), "sun 02:00–04:00 UTC");
    }

    #[test]
    fn one_that_goes_over_midnight_holds_on_the_day_after() {
        let night = weekly(&[Weekday::Friday, Weekday::Saturday], "23:00", "01:00", "UTC");
        assert_eq!(next(&night, "2026-11-21T00:30:00Z"), "2026-11-20T23:00:00Z 2026-11-21T01:00:00Z");
        assert_eq!(next(&night, "2026-11-21T01:00:00Z"), "2026-11-21T23:00:00Z 2026-11-22T01:00:00Z");
        let whole_day = weekly(SUNDAY, "00:00", "00:00", "UTC");
        assert_eq!(next(&whole_day, "2026-11-22T12:00:00Z"), "2026-11-22T00:00:00Z 2026-11-23T00:00:00Z");
    }

    #[test]
    fn it_goes_by_the_wall_when_the_clock_is_set() {
        let berlin = weekly(SUNDAY, "05:00", "06:00", "Europe/Berlin");
        // Summer time ended on the 25th of October.
        assert_eq!(next(&berlin, "2026-10-17T12:00:00Z"), "2026-10-18T03:00:00Z 2026-10-18T04:00:00Z");
        assert_eq!(next(&berlin, "2026-10-24T12:00:00Z"), "2026-10-25T04:00:00Z 2026-10-25T05:00:00Z");
    }

    #[test]
    fn hours_that_the_clock_leaves_out_or_has_twice_are_windows_all_the_same() {
        let berlin = weekly(SUNDAY, "02:00", "03:00", "Europe/Berlin");
        // In spring, two o'clock is three o'clock: nothing is left of the window, and the week after has the next.
        assert_eq!(next(&berlin, "2026-03-28T12:00:00Z"), "2026-04-05T00:00:00Z 2026-04-05T01:00:00Z");
        let wider = weekly(SUNDAY, "02:30", "04:00", "Europe/Berlin");
        assert_eq!(next(&wider, "2026-03-28T12:00:00Z"), "2026-03-29T01:30:00Z 2026-03-29T02:00:00Z");
        // In autumn the hour from two comes twice.
        assert_eq!(next(&berlin, "2026-10-24T12:00:00Z"), "2026-10-25T00:00:00Z 2026-10-25T02:00:00Z");
    }
}
