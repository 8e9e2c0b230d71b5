//! `[[maintenance]]`

use std::sync::Arc;

use jiff::{Timestamp, civil, tz::TimeZone};

use super::{merge::Merged, routes::conditions, scalar};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{HostMatch, Maintenance, PageId, Recurrence, Route},
        moment,
        source::FileId,
        value::{self, nearest, quoted},
        written::{self, At, List},
    },
    maintenance::{
        Span,
        weekly::{DAYS, Weekly},
    },
};

pub fn all(written: &Merged<'_>, routes: &[Route], findings: &mut Findings) -> Vec<Maintenance> {
    written.maintenance.iter().filter_map(|(file, at)| one(*file, at, written, routes, findings)).collect()
}

fn one(
    file: FileId,
    at: &At<written::Maintenance>,
    written: &Merged<'_>,
    known: &[Route],
    findings: &mut Findings,
) -> Option<Maintenance> {
    let body = &at.value;
    let routes = routes(file, body.route.as_ref(), known, findings);
    let hosts = texts(file, "host", body.host.as_ref(), Code::BadHost, value::host, findings);
    let except = texts(file, "except", body.except.as_ref(), Code::BadPath, value::path_prefix, findings);
    for path in except.iter().filter(|path| **path == "/") {
        let span = body.except.as_ref().map_or(&at.span, |list| &list.span);
        findings.error(
            Code::Contradiction,
            file,
            span,
            format!("maintenance: `except` lets {} through, which is everything", quoted(path)),
        );
    }
    let when = match &body.weekly {
        Some(weekly) => weekly_of(file, body, weekly, findings).map(Recurrence::Weekly),
        None => once(file, body, findings).map(Recurrence::Once),
    };
    let allow = match &body.allow {
        Some(list) => conditions::networks(file, "maintenance: allow", list, written, findings),
        None => Some(Vec::new()),
    };
    let by_default = At { span: at.span.clone(), value: default::PAGE.to_owned() };
    let page = body.page.as_ref().unwrap_or(&by_default);
    let page = written.pages.refer(file, page, "maintenance: page is", Code::NoSuchPage, findings);
    Some(Maintenance {
        routes,
        hosts: hosts.into_iter().collect::<Vec<HostMatch>>(),
        when: when?,
        allow: allow?,
        except: except.into_iter().map(Arc::from).collect(),
        page: PageId(page?),
        why: body.why.as_ref().map_or("", |why| &why.value).into(),
    })
}

fn routes(file: FileId, list: Option<&List>, known: &[Route], findings: &mut Findings) -> Vec<Arc<str>> {
    empty(file, "route", list, findings);
    let mut routes = Vec::new();
    for name in list.into_iter().flat_map(|list| &list.items) {
        match known.iter().find(|route| *route.name == *name.value) {
            Some(route) => routes.push(route.name.clone()),
            // A faulty route isn't among those that are known.
            None if findings.failed() => {}
            None => {
                let message = format!("maintenance: there is no route {}", quoted(&name.value));
                let names = || known.iter().map(|route| &*route.name);
                let near = nearest(&name.value, names()).map(|near| format!("did you mean `{near}`?"));
                let hint = near.or_else(|| value::choice(names()));
                findings.error(Code::NoSuchRoute, file, &name.span, message).maybe_hint(hint);
            }
        }
    }
    routes
}

fn texts<T>(
    file: FileId,
    key: &str,
    list: Option<&List>,
    code: Code,
    parse: impl Fn(&str) -> Result<T, value::Refusal>,
    findings: &mut Findings,
) -> Vec<T> {
    empty(file, key, list, findings);
    let mut values = Vec::new();
    for text in list.into_iter().flat_map(|list| &list.items) {
        match parse(&text.value) {
            Ok(value) => values.push(value),
            Err(refusal) => {
                scalar::refused(file, code, &format!("maintenance: {key}"), text, refusal, findings);
            }
        }
    }
    values
}

/// Nothing named would mean everything, and that is better said by leaving it out.
fn empty(file: FileId, key: &str, list: Option<&List>, findings: &mut Findings) {
    if let Some(list) = list.filter(|list| list.items.is_empty()) {
        let message = format!("maintenance: `{key}` is an empty list");
        findings
            .error(Code::EmptyList, file, &list.span, message)
            .hint("leave the key out, or name something");
    }
}

fn once(file: FileId, body: &written::Maintenance, findings: &mut Findings) -> Option<Span> {
    let from = moment(file, "from", body.from.as_ref(), findings)?;
    let until = moment(file, "until", body.until.as_ref(), findings)?;
    if let (Some(first), Some(last), Some(written)) = (from, until, &body.until)
        && last <= first
    {
        let message = format!("maintenance: it ends ({}) before it begins", quoted(&written.value));
        findings.error(Code::Contradiction, file, &written.span, message);
        return None;
    }
    Some(Span { from, until })
}

/// `None`: it is faulty.
fn moment(
    file: FileId,
    key: &str,
    written: Option<&At<String>>,
    findings: &mut Findings,
) -> Option<Option<Timestamp>> {
    let Some(written) = written else { return Some(None) };
    match moment::moment(&written.value) {
        Ok(at) => Some(Some(at)),
        Err(because) => {
            let message = format!("maintenance: {key} {} {because}", quoted(&written.value));
            findings
                .error(Code::BadTime, file, &written.span, message)
                .hint("write `2026-12-01T22:00[Europe/Berlin]`, or `2026-12-01T21:00Z`");
            None
        }
    }
}

fn weekly_of(
    file: FileId,
    body: &written::Maintenance,
    weekly: &At<written::Weekly>,
    findings: &mut Findings,
) -> Option<Weekly> {
    if let Some(other) = body.from.as_ref().or(body.until.as_ref()) {
        findings
            .error(Code::Contradiction, file, &other.span, "maintenance: it has `weekly`, and a date")
            .related(file, &weekly.span, "the other one")
            .hint("make two of them: one by date, one by the week");
        return None;
    }
    let part = &weekly.value;
    let days = days(file, weekly, part.days.as_ref(), findings);
    let from = time(file, weekly, "from", part.from.as_ref(), findings);
    let until = time(file, weekly, "until", part.until.as_ref(), findings);
    let zone = match &part.zone {
        None => Some(TimeZone::UTC),
        Some(name) => match moment::zone(&name.value) {
            Ok(zone) => Some(zone),
            Err(because) => {
                let message = format!("maintenance: weekly.zone {} {because}", quoted(&name.value));
                findings
                    .error(Code::BadTime, file, &name.span, message)
                    .hint("for instance `Europe/Berlin`, or `UTC`");
                None
            }
        },
    };
    Some(Weekly { days: days?, from: from?, until: until?, zone: zone? })
}

fn days(
    file: FileId,
    weekly: &At<written::Weekly>,
    list: Option<&List>,
    findings: &mut Findings,
) -> Option<Vec<civil::Weekday>> {
    let Some(list) = list.filter(|list| !list.items.is_empty()) else {
        findings
            .error(Code::Missing, file, &weekly.span, "maintenance: `weekly` has no `days`")
            .hint("name at least one: `days = [\"sun\"]`");
        return None;
    };
    let mut days = Vec::new();
    for name in &list.items {
        let day = DAYS.iter().find(|(known, _)| *known == name.value).map(|(_, day)| *day);
        if day.is_none() {
            let message = format!("maintenance: weekly.days: {} is not a day", quoted(&name.value));
            findings
                .error(Code::BadTime, file, &name.span, message)
                .maybe_hint(value::choice(DAYS.iter().map(|(name, _)| *name)));
        }
        days.push(day);
    }
    days.into_iter().collect()
}

fn time(
    file: FileId,
    weekly: &At<written::Weekly>,
    key: &str,
    written: Option<&At<String>>,
    findings: &mut Findings,
) -> Option<civil::Time> {
    let Some(written) = written else {
        findings
            .error(Code::Missing, file, &weekly.span, format!("maintenance: `weekly` has no `{key}`"))
            .hint(format!("write the time of day: `{key} = \"02:00\"`"));
        return None;
    };
    let time = moment::time(&written.value);
    if time.is_none() {
        let message = format!("maintenance: weekly.{key} {} is not a time of day", quoted(&written.value));
        findings.error(Code::BadTime, file, &written.span, message).hint("write `02:00`");
    }
    time
}
