//! Moments as people write them: with their zone, since a time without one is another time everywhere.

use jiff::{Timestamp, Zoned, civil, tz::TimeZone};

/// `2026-12-01T22:00[Europe/Berlin]`, `2026-12-01T21:00Z`, `2026-12-01T22:00+01:00`
///
/// # Errors
/// The end of a sentence that begins with the text.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Some((_, zone)) = text.split_once('[') {
        let zone = zone.trim_end_matches(']');
        self::zone(zone)?;
    }
    match text.parse::<Zoned>() {
        Ok(at) => Ok(at.timestamp()),
        Err(_) if text.parse::<civil::DateTime>().is_ok() && !text.contains('[') => {
            Err("doesn't say in which time zone".to_owned())
        }
        Err(_) => Err("is not a date and time".to_owned()),
    }
}

/// As [`moment`]; where no zone is said, by the clocks of `now`. A time alone is the next one.
///
/// # Errors
/// As [`moment`].
pub fn moment_here(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    if let Ok(at) = moment(text) {
        return Ok(at);
    }
    let here = |at: civil::DateTime| at.to_zoned(now.time_zone().clone()).map(|at| at.timestamp()).ok();
    let beyond = || "is beyond the calendar".to_owned();
    // A date alone would be read as a time without its colon.
    if let Some(time) = time(text) {
        let today = here(now.date().to_datetime(time)).ok_or_else(beyond)?;
        let next = || here(now.date().tomorrow().ok()?.to_datetime(time));
        return if today > now.timestamp() { Ok(today) } else { next().ok_or_else(beyond) };
    }
    match text.parse::<civil::DateTime>() {
        Ok(at) if !text.contains('[') => here(at).ok_or_else(beyond),
        _ => moment(text),
    }
}

/// `22:00`, `22:00:30`
pub fn time(text: &str) -> Option<civil::Time> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    if plain && matches!(text.len(), 5 | 8) && text.as_bytes()[2] == b':' { text.parse().ok() } else { None }
}

/// A zone of the time zone database.
///
/// # Errors
/// As [`moment`].
pub fn zone(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        if TimeZone::get("Europe/London").is_err() {
            format!(
                "needs the time zone `{name}`, and this host has no time zone database (package `tzdata`)"
            )
        } else {
            format!("has a time zone `{name}` that this host doesn't know")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_says_its_zone() {
        for (text, expected) in [
            ("2026-12-01T22:00[Europe/Berlin]", "2026-12-01T21:00:00Z"),
            ("2026-07-01T22:00[Europe/Berlin]", "2026-07-01T20:00:00Z"),
            ("2026-12-01T22:00:30+01:00", "2026-12-01T21:00:30Z"),
            ("2026-12-01 21:00Z", "2026-12-01T21:00:00Z"),
        ] {
            assert_eq!(moment(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for (text, why) in [
            ("2026-12-01T22:00", "doesn't say in which time zone"),
            ("2026-12-01T22:00[Europe/Berln]", "has a time zone `Europe/Berln` that this host doesn't know"),
            ("tomorrow", "is not a date and time"),
            ("2026-13-01T22:00Z", "is not a date and time"),
            ("", "is not a date and time"),
        ] {
            assert_eq!(moment(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn who_types_it_may_mean_the_clock_on_the_wall() {
        let now: Zoned = "2026-11-21T15:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("16:30", "2026-11-21T15:30:00Z"),
            ("14:30", "2026-11-22T13:30:00Z"),
            ("15:00", "2026-11-22T14:00:00Z"),
            ("2026-11-23T02:00", "2026-11-23T01:00:00Z"),
            ("2026-11-23 02:00", "2026-11-23T01:00:00Z"),
            ("2026-11-23T02:00Z", "2026-11-23T02:00:00Z"),
        ] {
            assert_eq!(moment_here(text, &now), Ok(expected.parse().unwrap()), "{text}");
        }
        for wrong in ["25:00", "2:00", "1630", "soon", "2026-11-23T02:00[Nowhere/At_All]"] {
            assert!(moment_here(wrong, &now).is_err(), "{wrong}");
        }
    }
}
