//! `retry` and `hedge` of a service.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    merge::Item,
    routes::conditions,
    scalar::{self, DAY, MILLISECOND, MINUTE, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Hedge, HedgeAfter, Retry},
    value::{self, quoted},
    written::{self, At, List},
};

/// The largest body that is kept for a repetition.
const MOST_BUFFERED: u64 = 16 << 20;

pub fn retry(item: &Item<'_, written::Service>, findings: &mut Findings) -> Retry {
    let none = written::Retry::default();
    let body = item.body.retry.as_ref().map_or(&none, |retry| &retry.value);
    let file = item.file;
    let what = |key: &str| format!("service `{}`: retry.{key}", item.name.value);
    let mut time =
        |key: &str, written: &Option<At<String>>, default: &str, range: RangeInclusive<Duration>| {
            scalar::duration(file, &what(key), written.as_ref(), default, range, findings)
        };
    let within = time("within", &body.within, default::RETRY_WITHIN, MILLISECOND..=DAY);
    let backoff = time("backoff", &body.backoff, default::RETRY_BACKOFF, Duration::ZERO..=10 * SECOND);
    let (buffer, range) = (body.buffer.as_ref(), 0..=MOST_BUFFERED);
    let buffer = scalar::size(file, &what("buffer"), buffer, default::RETRY_BUFFER, range, findings);
    let attempts = body.attempts.as_ref();
    Retry {
        attempts: scalar::count(file, &what("attempts"), attempts, default::RETRY_ATTEMPTS, 1..=10, findings),
        within,
        buffer: usize::try_from(buffer).unwrap_or(usize::MAX),
        methods: body.methods.as_ref().map_or_else(Vec::new, |list| {
            conditions::method_list(file, &what("methods"), "methods = [\"POST\"]", list, findings)
        }),
        statuses: statuses(item, body.statuses.as_ref(), findings),
        budget: percentage(item, "retry.budget", body.budget.as_ref(), default::RETRY_BUDGET, 0, findings),
        backoff,
    }
}

/// Of a service for which none can be written.
pub fn by_default() -> Retry {
    let time = |default| value::duration(default).unwrap_or_default();
    Retry {
        attempts: default::RETRY_ATTEMPTS,
        within: time(default::RETRY_WITHIN),
        buffer: usize::try_from(value::size(default::RETRY_BUFFER).unwrap_or_default()).unwrap_or_default(),
        methods: Vec::new(),
        statuses: status_range(default::RETRY_STATUSES).into_iter().collect(),
        budget: percent(default::RETRY_BUDGET).unwrap_or_default(),
        backoff: time(default::RETRY_BACKOFF),
    }
}

pub fn hedge(item: &Item<'_, written::Service>, findings: &mut Findings) -> Option<Hedge> {
    let hedge = item.body.hedge.as_ref()?;
    let name = &item.name.value;
    let most = percentage(item, "hedge.most", hedge.value.most.as_ref(), default::HEDGE_MOST, 1, findings);
    let Some(after) = &hedge.value.after else {
        if !findings.lost(&format!("service.{name}.hedge.after")) {
            let message = format!("service `{name}`: `hedge` has no `after`");
            findings
                .error(Code::Missing, item.file, &hedge.span, message)
                .hint("write after which time another server is asked too: `after = \"p95\"`");
        }
        return None;
    };
    let what = format!("service `{name}`: hedge.after");
    let after = match after.value.strip_prefix('p') {
        None => {
            let range = MILLISECOND..=MINUTE;
            HedgeAfter::Delay(scalar::duration(item.file, &what, Some(after), "1s", range, findings))
        }
        Some(number) => match number.parse() {
            Ok(percent @ 50..=99) => HedgeAfter::Quantile(percent),
            _ => {
                let message = format!("{what} {} is no percentile", quoted(&after.value));
                findings
                    .error(Code::WrongValue, item.file, &after.span, message)
                    .hint("it goes from `p50` to `p99`; a fixed time is written `200ms`");
                return None;
            }
        },
    };
    Some(Hedge { after, most })
}

fn statuses(
    item: &Item<'_, written::Service>,
    written: Option<&List>,
    findings: &mut Findings,
) -> Vec<RangeInclusive<u16>> {
    let Some(list) = written else { return status_range(default::RETRY_STATUSES).into_iter().collect() };
    let mut ranges = Vec::new();
    for one in &list.items {
        match status_range(&one.value) {
            Some(range) => ranges.push(range),
            None => {
                let name = &item.name.value;
                let message = format!(
                    "service `{name}`: retry.statuses {} is no status from 400 to 599",
                    quoted(&one.value)
                );
                findings
                    .error(Code::WrongValue, item.file, &one.span, message)
                    .hint("write `503`, or `502-504` for a range");
            }
        }
    }
    ranges
}

/// `503` or `502-504`
fn status_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = |text: &str| text.parse().ok().filter(|status| digits(text) && (400..=599).contains(status));
    let (first, last): (u16, u16) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

fn percentage(
    item: &Item<'_, written::Service>,
    key: &str,
    written: Option<&At<String>>,
    default: &str,
    least: u32,
    findings: &mut Findings,
) -> u32 {
    let fallback = percent(default).unwrap_or_default();
    let Some(written) = written else { return fallback };
    match percent(&written.value) {
        Some(percent) if (least..=100).contains(&percent) => percent,
        found => {
            let is = if found.is_some() { "is out of range" } else { "is not a percentage" };
            let message = format!("service `{}`: {key} {} {is}", item.name.value, quoted(&written.value));
            let code = if found.is_some() { Code::OutOfRange } else { Code::WrongValue };
            findings
                .error(code, item.file, &written.span, message)
                .hint(format!("it goes from `{least}%` to `100%`, in whole percent"));
            fallback
        }
    }
}

/// `20%`
fn percent(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_ones_or_ranges() {
        for (text, range) in [
            ("503", Some(503..=503)),
            ("502-504", Some(502..=504)),
            ("400-599", Some(400..=599)),
            ("504-502", None),
            ("200", None),
            ("399-500", None),
            ("5xx", None),
            ("502-", None),
            ("+503", None),
            ("", None),
        ] {
            assert_eq!(status_range(text), range, "{text}");
        }
    }

    #[test]
    fn a_percentage_is_whole_and_has_its_sign() {
        for (text, number) in [("20%", Some(20)), ("0%", Some(0)), ("20", None), ("%", None), ("-1%", None)] {
            assert_eq!(percent(text), number, "{text}");
        }
    }
}
