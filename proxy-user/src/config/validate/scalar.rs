//! Single settings: a text becomes a value, or a fault that names the setting.

use std::{ops::RangeInclusive, time::Duration};

use crate::config::{
    code::Code,
    findings::Findings,
    source::FileId,
    value::{self, Refusal, quoted},
    written::At,
};

pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// `what` names the setting: "service `app`: health.every".
pub fn duration(
    file: FileId,
    what: &str,
    written: Option<&At<String>>,
    default: &str,
    range: RangeInclusive<Duration>,
    findings: &mut Findings,
) -> Duration {
    let fallback = || value::duration(default).unwrap_or_default();
    let Some(written) = written else { return fallback() };
    match value::duration(&written.value) {
        Ok(duration) if range.contains(&duration) => duration,
        Ok(_) => {
            let (least, most) = (value::show(*range.start()), value::show(*range.end()));
            let message = format!("{what} is {}, out of range", quoted(&written.value));
            findings
                .error(Code::BadDuration, file, &written.span, message)
                .hint(format!("it goes from {least} to {most}"));
            fallback()
        }
        Err(refusal) => {
            refused(file, Code::BadDuration, &format!("{what}:"), written, refusal, findings);
            fallback()
        }
    }
}

/// A number of bytes.
pub fn size(
    file: FileId,
    what: &str,
    written: Option<&At<String>>,
    default: &str,
    range: RangeInclusive<u64>,
    findings: &mut Findings,
) -> u64 {
    let fallback = || value::size(default).unwrap_or_default();
    let Some(written) = written else { return fallback() };
    match value::size(&written.value) {
        Ok(size) if range.contains(&size) => size,
        Ok(_) => {
            let (least, most) = (value::show_size(*range.start()), value::show_size(*range.end()));
            let message = format!("{what} is {}, out of range", quoted(&written.value));
            findings
                .error(Code::BadSize, file, &written.span, message)
                .hint(format!("it goes from {least} to {most}"));
            fallback()
        }
        Err(refusal) => {
            refused(file, Code::BadSize, &format!("{what}:"), written, refusal, findings);
            fallback()
        }
    }
}

/// A percentage, in hundredths of a percent.
pub fn share(
    file: FileId,
    what: &str,
    written: Option<&At<String>>,
    default: &str,
    range: RangeInclusive<u32>,
    findings: &mut Findings,
) -> u32 {
    let fallback = || value::share(default).unwrap_or_default();
    let Some(written) = written else { return fallback() };
    match value::share(&written.value) {
        Ok(share) if range.contains(&share) => share,
        Ok(_) => {
            let (least, most) = (value::show_share(*range.start()), value::show_share(*range.end()));
            let message = format!("{what} is {}, out of range", quoted(&written.value));
            findings
                .error(Code::BadShare, file, &written.span, message)
                .hint(format!("it goes from {least} to {most}"));
            fallback()
        }
        Err(refusal) => {
            refused(file, Code::BadShare, &format!("{what}:"), written, refusal, findings);
            fallback()
        }
    }
}

/// A whole number in a range.
pub fn count(
    file: FileId,
    what: &str,
    written: Option<&At<i64>>,
    default: u32,
    range: RangeInclusive<u32>,
    findings: &mut Findings,
) -> u32 {
    let Some(written) = written else { return default };
    if let Ok(number) = u32::try_from(written.value)
        && range.contains(&number)
    {
        return number;
    }
    let message = format!("{what} is `{}`, out of range", written.value);
    findings.error(Code::OutOfRange, file, &written.span, message).hint(format!(
        "it goes from {} to {}",
        range.start(),
        range.end()
    ));
    default
}

/// Reports "`before` `text` is not …".
pub fn refused(
    file: FileId,
    code: Code,
    before: &str,
    written: &At<String>,
    refusal: Refusal,
    findings: &mut Findings,
) {
    let message = format!("{before} {} {}", quoted(&written.value), refusal.because);
    findings.error(code, file, &written.span, message).maybe_hint(refusal.hint);
}
