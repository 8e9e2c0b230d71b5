//! `rate_limit`, `concurrency`, sizes, `timeouts`, `compress`

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{Site, fault, required};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Compress, MiddlewareKind, RateKey, RateLimit},
        validate::scalar::{self, DAY, MILLISECOND},
        value::{self, Refusal, quoted},
        written::{self, At},
    },
    middleware::compress::Coding,
};

const MOST: i64 = 1_000_000;

pub fn rate(
    site: &Site<'_>,
    written: &At<written::RateLimit>,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let body = &written.value;
    let example = "for instance `rate = \"10/s\"`";
    let rate = required(site, &written.span, "rate_limit.rate", example, body.rate.as_ref(), findings)
        .and_then(|rate| match parsed(&rate.value) {
            Ok(parsed) => Some(parsed),
            Err(refusal) => {
                let what = format!("{}: rate", site.by);
                scalar::refused(site.file, Code::BadRate, &what, rate, refusal, findings);
                None
            }
        });
    let burst = match &body.burst {
        None => rate.map(|(count, _)| count),
        Some(burst) => number(site, "rate_limit.burst", burst, findings),
    };
    let by = match &body.by {
        None => Some(RateKey::Client),
        Some(by) => match (&*by.value, by.value.strip_prefix("header:").map(str::parse)) {
            ("client", _) => Some(RateKey::Client),
            ("route", _) => Some(RateKey::Route),
            (_, Some(Ok(name))) => Some(RateKey::Header(name)),
            (other, _) => {
                let message = format!("{} is neither `client` nor `route` nor `header:NAME`", quoted(other));
                fault(site, Code::WrongValue, &by.span, &message, "", findings)
            }
        },
    };
    let (count, period) = rate?;
    Some(MiddlewareKind::RateLimit(RateLimit { every: period / count, burst: burst?, by: by? }))
}

/// As every rate; people's are also counted by the hour, which would be too long for packets.
fn parsed(text: &str) -> Result<(u32, Duration), Refusal> {
    match text.strip_suffix("/h") {
        Some(count) => value::rate(&format!("{count}/m")).map(|(count, minute)| (count, minute * 60)),
        None => value::rate(text),
    }
}

pub fn concurrency(site: &Site<'_>, written: &At<i64>, findings: &mut Findings) -> Option<MiddlewareKind> {
    let most = number(site, "concurrency", written, findings)?;
    Some(MiddlewareKind::Concurrency(most as usize))
}

fn number(site: &Site<'_>, key: &str, written: &At<i64>, findings: &mut Findings) -> Option<u32> {
    match u32::try_from(written.value) {
        Ok(number) if (1..=MOST).contains(&i64::from(number)) => Some(number),
        _ => {
            let message = format!("{key} is `{}`, out of range", written.value);
            fault(site, Code::OutOfRange, &written.span, &message, "it goes from 1 to 1000000", findings)
        }
    }
}

pub fn size(
    site: &Site<'_>,
    key: &str,
    written: &At<String>,
    range: RangeInclusive<u64>,
    findings: &mut Findings,
) -> u64 {
    let what = format!("{}: {key}", site.by);
    let fallback = value::show_size(*range.start());
    scalar::size(site.file, &what, Some(written), &fallback, range, findings)
}

pub fn timeouts(
    site: &Site<'_>,
    written: &At<written::RouteTimeouts>,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let body = &written.value;
    if body.first_byte.is_none() && body.total.is_none() {
        if !findings.found_within(site.file, &written.span) {
            let hint = "for instance `timeouts = { total = \"30s\" }`";
            fault::<()>(site, Code::Missing, &written.span, "there is no timeout", hint, findings);
        }
        return None;
    }
    let mut duration = |key: &str, written: Option<&At<String>>| {
        let what = format!("{}: timeouts.{key}", site.by);
        let duration = |one| scalar::duration(site.file, &what, Some(one), "1s", MILLISECOND..=DAY, findings);
        written.map(duration)
    };
    let first_byte = duration("first_byte", body.first_byte.as_ref());
    let total = duration("total", body.total.as_ref());
    Some(MiddlewareKind::Timeouts { first_byte, total })
}

pub fn compress(
    site: &Site<'_>,
    body: &written::Compress,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let mut with = Vec::new();
    match &body.with {
        None => with.extend(default::CODINGS.iter().filter_map(|name| Coding::named(name))),
        Some(list) => {
            for one in &list.items {
                match Coding::named(&one.value) {
                    Some(coding) if !with.contains(&coding) => with.push(coding),
                    Some(_) => {}
                    None => {
                        let message = format!("{} is none of `zstd`, `br` and `gzip`", quoted(&one.value));
                        fault::<()>(site, Code::WrongValue, &one.span, &message, "", findings);
                    }
                }
            }
            if list.items.is_empty() {
                let hint = "leave the key out for all of them";
                fault::<()>(site, Code::EmptyList, &list.span, "`with` is an empty list", hint, findings);
            }
        }
    }
    let min_size = match &body.min_size {
        None => value::size(default::COMPRESS_FROM).ok(),
        Some(written) => Some(size(site, "compress.min_size", written, 0..=1 << 30, findings)),
    };
    let types: Vec<Arc<str>> = body
        .types
        .iter()
        .flat_map(|list| &list.items)
        .filter_map(|one| {
            let sound =
                one.value.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty())
                    && one
                        .value
                        .bytes()
                        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'*'));
            if sound {
                return Some(one.value.to_ascii_lowercase().into());
            }
            let message = format!("{} is not a media type", quoted(&one.value));
            fault(
                site,
                Code::WrongValue,
                &one.span,
                &message,
                "for instance `application/x-ndjson`",
                findings,
            )
        })
        .collect();
    (!with.is_empty()).then_some(())?;
    Some(MiddlewareKind::Compress(Compress { with, min_size: min_size?, types }))
}
