//! `syn_cookies`, `syn_cookies_from` and `syn_cookies_cdn` of `[entrypoint.NAME]`

use std::time::Duration;

use super::{merge::Item, scalar};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{SynCookies, SynCookiesMode},
    value::{self, quoted},
    written,
};

const SECOND: Duration = Duration::from_secs(1);

pub fn of(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> SynCookies {
    let Item { file, name, body } = *item;
    let mode = match body.syn_cookies.as_ref().map(|mode| mode.value) {
        None | Some(written::SynCookies::Auto) => SynCookiesMode::Auto,
        Some(written::SynCookies::Always) => SynCookiesMode::Always,
        Some(written::SynCookies::Off) => SynCookiesMode::Off,
    };
    let what = format!("entrypoint `{}`: syn_cookies_from", name.value);
    let from = body.syn_cookies_from.as_ref().and_then(|written| match value::rate(&written.value) {
        Ok((from, SECOND)) => Some(from),
        Ok(_) => {
            let message = format!("{what} is {}, and it is counted by the second", quoted(&written.value));
            findings.error(Code::BadRate, file, &written.span, message).hint("write it as `1000/s`");
            None
        }
        Err(refusal) => {
            scalar::refused(file, Code::BadRate, &format!("{what}:"), written, refusal, findings);
            None
        }
    });
    let off = mode == SynCookiesMode::Off;
    let of_use = [
        ("syn_cookies_from", body.syn_cookies_from.as_ref().map(|at| &at.span), mode == SynCookiesMode::Auto),
        ("syn_cookies_cdn", body.syn_cookies_cdn.as_ref().map(|at| &at.span), !off),
    ];
    for (key, span, of_use) in of_use {
        if let (Some(span), false) = (span, of_use) {
            let written = if off { "off" } else { "always" };
            let message = format!(
                "entrypoint `{}`: `{key}` says nothing beside `syn_cookies = \"{written}\"`",
                name.value
            );
            findings.error(Code::Contradiction, file, span, message).hint("take one of them out");
        }
    }
    let usual = || value::rate(default::SYN_COOKIES_FROM).map_or(u32::MAX, |(from, _)| from);
    let cdn = body.syn_cookies_cdn.as_ref().is_some_and(|cdn| cdn.value);
    SynCookies { mode, from: from.unwrap_or_else(usual), cdn }
}
