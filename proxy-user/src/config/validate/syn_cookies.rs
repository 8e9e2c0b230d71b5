//! `syn_cookies`, `syn_cookies_from` and `syn_cookies_cdn` of `[entrypoint.NAME]`

use super::{merge::Item, scalar};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{SynCookies, SynCookiesMode},
    value::{self, quoted},
    written,
};

const MOST: u32 = 10_000_000;

pub fn of(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> SynCookies {
    let Item { file, name, body } = *item;
    let mode = match body.syn_cookies.as_ref().map(|mode| mode.value) {
        None | Some(written::SynCookies::Auto) => SynCookiesMode::Auto,
        Some(written::SynCookies::Always) => SynCookiesMode::Always,
        Some(written::SynCookies::Off) => SynCookiesMode::Off,
    };
    let what = format!("entrypoint `{}`: syn_cookies_from", name.value);
    let default = value::per_second(default::SYN_COOKIES_FROM).unwrap_or(MOST);
    let from = body.syn_cookies_from.as_ref().map_or(default, |written| {
        match value::per_second(&written.value) {
            Ok(from) if (1..=MOST).contains(&from) => return from,
            Ok(_) => {
                let message = format!("{what} is {}, out of range", quoted(&written.value));
                let hint = format!("it goes from 1/s to {MOST}/s");
                findings.error(Code::OutOfRange, file, &written.span, message).hint(hint);
            }
            Err(refusal) => {
                scalar::refused(file, Code::OutOfRange, &format!("{what}:"), written, refusal, findings);
            }
        }
        default
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
    SynCookies { mode, from, cdn: body.syn_cookies_cdn.as_ref().is_some_and(|cdn| cdn.value) }
}
