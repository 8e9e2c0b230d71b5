//! `pages = { "502-504" = "maintenance" }` of routes and services.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::config::{
    code::Code,
    findings::Findings,
    model::{PageId, StatusPages},
    source::FileId,
    validate::merge::Merged,
    value::quoted,
    written::{At, Name},
};

/// `by` names whose pages they are: "route `shop`".
pub fn pages(
    file: FileId,
    by: &str,
    pages: Option<&At<BTreeMap<Name, At<String>>>>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> StatusPages {
    let mut all: Vec<(RangeInclusive<u16>, PageId, &Name)> = Vec::new();
    let mut pages: Vec<_> = pages.into_iter().flat_map(|pages| &pages.value).collect();
    pages.sort_by_key(|(statuses, _)| statuses.span.start);
    for (statuses, page) in pages {
        let by = format!("{by}: pages");
        let id = written.pages.refer(file, page, &format!("{by} wants"), Code::NoSuchPage, findings);
        let Some(range) = range(&statuses.value) else {
            let message = format!(
                "{by}: {} is not a status, or none that a page can stand in for",
                quoted(&statuses.value)
            );
            findings
                .error(Code::BadStatus, file, &statuses.span, message)
                .hint("write `\"503\"`, `\"502-504\"` or `\"5xx\"`; they go from 400 to 599");
            continue;
        };
        let overlaps =
            |known: &RangeInclusive<u16>| known.start() <= range.end() && range.start() <= known.end();
        if let Some((_, _, first)) = all.iter().find(|(known, ..)| overlaps(known)) {
            let message = format!("{by}: {} overlaps with {}", quoted(&statuses.value), quoted(&first.value));
            findings
                .error(Code::Contradiction, file, &statuses.span, message)
                .related(file, &first.span, "the other one")
                .hint("name each status once");
            continue;
        }
        all.push((range, PageId(id.unwrap_or_default()), statuses));
    }
    let mut pages: StatusPages = all.into_iter().map(|(range, page, _)| (range, page)).collect();
    pages.sort_by_key(|(range, _)| *range.start());
    pages
}

/// `503`, `502-504`, `5xx`
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|status| plain && (400..=599).contains(status))
    };
    match text {
        "4xx" => Some(400..=499),
        "5xx" => Some(500..=599),
        _ => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (status(first.trim())?, status(last.trim())?);
            (first <= last).then_some(first..=last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_range_or_a_class() {
        for (text, expected) in [
            ("503", Some(503..=503)),
            ("502-504", Some(502..=504)),
            ("502 - 504", Some(502..=504)),
            ("4xx", Some(400..=499)),
            ("5xx", Some(500..=599)),
            ("504-502", None),
            ("200", None),
            ("399-500", None),
            ("600", None),
            ("5", None),
            ("+503", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }
}
