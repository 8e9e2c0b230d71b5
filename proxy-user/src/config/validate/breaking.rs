//! `eject` and `breaker` of a service: what is made of requests that fail.

use std::time::Duration;

use super::{
    health::statuses,
    merge::Item,
    scalar::{self, DAY, HOUR, MILLISECOND, MINUTE, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Breaker, Eject, Slow},
    value,
    written::{self, At},
};

pub fn eject(
    item: &Item<'_, written::Service>,
    written: &At<written::Eject>,
    findings: &mut Findings,
) -> Eject {
    let (file, body) = (item.file, &written.value);
    let what = |key: &str| format!("service `{}`: eject.{key}", item.name.value);
    let faults_before = findings.count();
    let range = 100 * MILLISECOND..=HOUR;
    let first =
        scalar::duration(file, &what("for"), body.r#for.as_ref(), default::EJECT_FOR, range, findings);
    let range = 100 * MILLISECOND..=DAY;
    let setting = body.longest.as_ref();
    let longest = scalar::duration(file, &what("longest"), setting, default::EJECT_LONGEST, range, findings);
    if let Some(setting) = setting
        && longest < first
        && findings.count() == faults_before
    {
        let message = format!("{} is {}, shorter than the first time", what("longest"), value::show(longest));
        findings
            .error(Code::Contradiction, file, &setting.span, message)
            .hint("`longest` can't be shorter than `for`");
    }
    Eject {
        after: scalar::count(
            file,
            &what("after"),
            body.after.as_ref(),
            default::EJECT_AFTER,
            1..=1000,
            findings,
        ),
        first,
        longest: longest.max(first),
        most: share(file, &what("most"), body.most.as_ref(), 1..=100, findings)
            .unwrap_or_else(|| value::percent(default::EJECT_MOST).unwrap_or_default()),
        status: body
            .status
            .as_ref()
            .map(|list| statuses(file, &what("status"), list, findings))
            .unwrap_or_default(),
    }
}

pub fn breaker(
    item: &Item<'_, written::Service>,
    written: &At<written::Breaker>,
    findings: &mut Findings,
) -> Breaker {
    let (file, body) = (item.file, &written.value);
    let name = &item.name.value;
    let what = |key: &str| format!("service `{name}`: breaker.{key}");
    let quantile = share(file, &what("quantile"), body.quantile.as_ref(), 1..=99, findings)
        .unwrap_or_else(|| value::percent(default::BREAKER_QUANTILE).unwrap_or_default());
    let limit = body.latency.as_ref().map(|latency| {
        scalar::duration(file, &what("latency"), Some(latency), "1s", MILLISECOND..=HOUR, findings)
    });
    let lost = ["network", "errors", "latency"]
        .iter()
        .any(|key| findings.lost(&format!("service.{name}.breaker.{key}")));
    if body.network.is_none() && body.errors.is_none() && limit.is_none() && !lost {
        let message = format!("service `{name}`: nothing would open its breaker");
        findings
            .error(Code::Missing, file, &written.span, message)
            .hint("write what does: `errors = \"50%\"`, `network = \"30%\"` or `latency = \"2s\"`");
    }
    if let (Some(setting), None) = (&body.quantile, limit) {
        let message = format!("{} does nothing without `latency`", what("quantile"));
        findings
            .error(Code::Contradiction, file, &setting.span, message)
            .hint("write how long that quantile may take: `latency = \"2s\"`");
    }
    let mut time = |key: &str, written: Option<&At<String>>, default, range| {
        scalar::duration(file, &what(key), written, default, range, findings)
    };
    let over = time("over", body.over.as_ref(), default::BREAKER_OVER, SECOND..=10 * MINUTE);
    let open = time("open", body.open.as_ref(), default::BREAKER_OPEN, 100 * MILLISECOND..=HOUR);
    let recover = time("recover", body.recover.as_ref(), default::BREAKER_RECOVER, Duration::ZERO..=HOUR);
    let at_least = body.at_least.as_ref();
    Breaker {
        network: share(file, &what("network"), body.network.as_ref(), 1..=100, findings),
        errors: share(file, &what("errors"), body.errors.as_ref(), 1..=100, findings),
        latency: limit.map(|limit| Slow { limit, quantile }),
        over,
        at_least: scalar::count(
            file,
            &what("at_least"),
            at_least,
            default::BREAKER_AT_LEAST,
            1..=1_000_000,
            findings,
        ),
        open,
        recover,
    }
}

/// A share that is written, if it is one.
pub fn share(
    file: crate::config::source::FileId,
    what: &str,
    written: Option<&At<String>>,
    range: std::ops::RangeInclusive<u8>,
    findings: &mut Findings,
) -> Option<u8> {
    let written = written?;
    match value::percent(&written.value) {
        Ok(share) if range.contains(&share) => Some(share),
        Ok(_) => {
            let message = format!("{what} is {}, out of range", value::quoted(&written.value));
            findings.error(Code::BadPercent, file, &written.span, message).hint(format!(
                "it goes from {}% to {}%",
                range.start(),
                range.end()
            ));
            None
        }
        Err(refusal) => {
            scalar::refused(file, Code::BadPercent, &format!("{what}:"), written, refusal, findings);
            None
        }
    }
}
