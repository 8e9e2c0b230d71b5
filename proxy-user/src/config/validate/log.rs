//! `[log]` and `[access_log.NAME]`.

mod place;
mod template;

use http::HeaderName;

use super::{
    merge::{Item, Merged},
    scalar::{self, DAY, HOUR, MILLISECOND, MINUTE},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{AccessLog, AccessLogFormat, AccessLogTarget, Filter, Log, Redact, Rotate, Route},
    source::FileId,
    value::{self, nearest, quoted},
    written::{self, At, List},
};
use place::{Place, place};

/// The name of the one that `[log]` describes.
const FIRST: &str = "access";

pub fn log(written: &Merged<'_>, routes: &[Route], findings: &mut Findings) -> Log {
    let section = written.log.map(|(file, section)| (file, &section.value));
    let mut access = Vec::new();
    let by_default = written.access_logs.items.is_empty();
    match section.and_then(|(file, section)| Some((file, section.access.as_ref()?))) {
        None if by_default => access.push(plain(AccessLogTarget::Stdout)),
        None => {}
        Some((file, to)) => {
            let place = place(file, "log.access", to, &["stdout", "off"], findings);
            access.extend(place.and_then(Place::unadorned).map(plain));
        }
    }
    if let Some((file, format)) = section.and_then(|(file, section)| Some((file, section.format.as_ref()?))) {
        match access.first_mut() {
            Some(first) => first.format = template::format(file, "log.format", format, findings),
            None if section.is_some_and(|(_, section)| section.access.is_none()) => {
                let message = "`log.format` is about `log.access`, which is off beside `[access_log.NAME]`";
                findings
                    .error(Code::Contradiction, file, &format.span, message)
                    .hint("write `log.access` too, or give each access log its own `format`");
            }
            None => {}
        }
    }
    for item in &written.access_logs.items {
        access.extend(access_log(item, routes, findings));
        if item.name.value == FIRST && access.iter().filter(|log| *log.name == *FIRST).count() > 1 {
            let message = "the access log `access` is the one that `log.access` describes";
            findings
                .error(Code::DefinedTwice, item.file, &item.name.span, message)
                .hint("give this one another name, or take `log.access` out");
        }
        written_by_one_only(item, &access, findings);
    }
    let level = section.and_then(|(_, section)| section.level.as_ref());
    let level = match level.map(|level| level.value) {
        Some(written::Level::Error) => "error",
        Some(written::Level::Warn) => "warn",
        None | Some(written::Level::Info) => "info",
        Some(written::Level::Debug) => "debug",
        Some(written::Level::Trace) => "trace",
    };
    let redact = section.and_then(|(file, section)| Some((file, &section.redact.as_ref()?.value)));
    let kernel = section.and_then(|(_, section)| section.kernel.as_ref());
    let kernel = kernel.is_some_and(|kernel| kernel.value == written::KernelLog::Debug);
    Log { access, level, kernel, redact: self::redact(redact, findings) }
}

fn plain(to: AccessLogTarget) -> AccessLog {
    AccessLog {
        name: FIRST.into(),
        to,
        format: AccessLogFormat::Json,
        filter: Filter::default(),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    }
}

/// Two logs that append to one file would rotate it away under each other.
fn written_by_one_only(item: &Item<'_, written::AccessLog>, all: &[AccessLog], findings: &mut Findings) {
    let Some((last, others)) = all.split_last() else { return };
    let AccessLogTarget::File { path, .. } = &last.to else { return };
    let same =
        |other: &&AccessLog| matches!(&other.to, AccessLogTarget::File { path: known, .. } if known == path);
    if *last.name == *item.name.value
        && let (Some(other), Some(to)) = (others.iter().find(same), &item.body.to)
    {
        let message = format!(
            "access_log `{}`: {} is written by the access log `{}` already",
            item.name.value,
            quoted(&to.value),
            other.name
        );
        findings.error(Code::Contradiction, item.file, &to.span, message).hint("give it a file of its own");
    }
}

fn redact(written: Option<(FileId, &written::Redact)>, findings: &mut Findings) -> Redact {
    let own = default::REDACTED_HEADERS.map(HeaderName::from_static).to_vec();
    let Some((file, written)) = written else { return Redact { query: Vec::new(), headers: own } };
    let query = written.query.iter().flat_map(|list| &list.items).map(|key| key.value.to_ascii_lowercase());
    let headers = match &written.headers {
        None => own,
        named => header_names(file, "log.redact.headers:", named.as_ref(), findings),
    };
    Redact { query: query.collect(), headers }
}

fn header_names(file: FileId, what: &str, list: Option<&List>, findings: &mut Findings) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for written in list.iter().flat_map(|list| &list.items) {
        match written.value.parse() {
            Ok(name) if !names.contains(&name) => names.push(name),
            Ok(_) => {}
            Err(_) => {
                let message = format!("{what} {} is not a header's name", quoted(&written.value));
                findings
                    .error(Code::BadHeader, file, &written.span, message)
                    .hint("for instance `accept-language`");
            }
        }
    }
    names
}

fn access_log(
    item: &Item<'_, written::AccessLog>,
    routes: &[Route],
    findings: &mut Findings,
) -> Option<AccessLog> {
    let (file, name, body) = (item.file, &item.name.value, item.body);
    let what = |key: &str| format!("access_log `{name}`: {key}");
    let Some(to) = &body.to else {
        if !findings.lost(&format!("access_log.{name}.to")) {
            let message = format!("access_log `{name}` has no `to`: nobody knows where it goes");
            findings
                .error(Code::Missing, file, &item.name.span, message)
                .hint("write `to = \"/var/log/weir/access.log\"`, `stdout`, `journald` or `syslog`");
        }
        return None;
    };
    let place = place(file, &what("to"), to, &["stdout", "journald", "syslog"], findings);
    let format = match &body.format {
        None => AccessLogFormat::Json,
        Some(format) => template::format(file, &what("format"), format, findings),
    };
    let request_headers =
        header_names(file, &what("request_headers:"), body.request_headers.as_ref(), findings);
    let response_headers =
        header_names(file, &what("response_headers:"), body.response_headers.as_ref(), findings);
    if format != AccessLogFormat::Json {
        for (key, list) in
            [("request_headers", &body.request_headers), ("response_headers", &body.response_headers)]
        {
            let Some(list) = list else { continue };
            let message = format!("access_log `{name}`: `{key}` has no place in this `format`");
            findings.error(Code::Contradiction, file, &list.span, message).hint(
                "write `{request_header:NAME}` and `{response_header:NAME}` into a template, or take `json`",
            );
        }
    }
    let filter = filter(item, routes, findings);
    let to = place?.with(item, rotate(item, findings), findings)?;
    let name = name.as_str().into();
    Some(AccessLog { name, to, format, filter, request_headers, response_headers })
}

fn filter(item: &Item<'_, written::AccessLog>, routes: &[Route], findings: &mut Findings) -> Filter {
    let (file, name, body) = (item.file, &item.name.value, item.body);
    let what = |key: &str| format!("access_log `{name}`: {key}");
    let mut filter = Filter::default();
    for (key, list) in [("status", &body.status), ("routes", &body.routes), ("paths", &body.paths)] {
        if let Some(list) = list.as_ref().filter(|list| list.items.is_empty())
            && !findings.lost(&format!("access_log.{name}.{key}"))
        {
            let message = format!("access_log `{name}`: {key} is an empty list: no request would be written");
            findings.error(Code::EmptyList, file, &list.span, message).hint("leave the key out for all");
        }
    }
    for written in items(body.status.as_ref()) {
        match value::statuses(&written.value) {
            Ok(range) => filter.status.push(range),
            Err(refusal) => {
                scalar::refused(file, Code::BadStatus, &what("status:"), written, refusal, findings);
            }
        }
    }
    for written in items(body.routes.as_ref()) {
        match routes.iter().find(|route| *route.name == *written.value) {
            Some(route) => filter.routes.push(route.name.clone()),
            None if findings.lost("route") || findings.lost_within("route") => {}
            None => {
                let message = format!(
                    "access_log `{name}` names route {}, which does not exist",
                    quoted(&written.value)
                );
                let near = nearest(&written.value, routes.iter().map(|route| &*route.name));
                let finding = findings.error(Code::NoSuchRoute, file, &written.span, message);
                match near {
                    Some(_) => finding.suggest(near),
                    None => finding.hint("a route is known by its `name`, or by what it matches"),
                };
            }
        }
    }
    for written in items(body.paths.as_ref()) {
        if written.value.starts_with('/') {
            filter.paths.push(written.value.clone());
        } else {
            let message = format!("{} {} doesn't begin with `/`", what("paths:"), quoted(&written.value));
            findings
                .error(Code::WrongValue, file, &written.span, message)
                .hint(format!("write `/{}`", written.value));
        }
    }
    filter.slower_than = body.slower_than.as_ref().map(|written| {
        scalar::duration(file, &what("slower_than"), Some(written), "1s", MILLISECOND..=HOUR, findings)
    });
    filter.sample = scalar::share(
        file,
        &what("sample"),
        body.sample.as_ref(),
        default::LOG_SAMPLE,
        0..=Filter::ALL,
        findings,
    );
    filter
}

fn items(list: Option<&List>) -> impl Iterator<Item = &At<String>> {
    list.into_iter().flat_map(|list| &list.items)
}

fn rotate(item: &Item<'_, written::AccessLog>, findings: &mut Findings) -> Option<Rotate> {
    let (file, name) = (item.file, &item.name.value);
    let written = item.body.rotate.as_ref()?;
    let what = |key: &str| format!("access_log `{name}`: rotate.{key}");
    let size =
        written.value.size.as_ref().map(|size| {
            scalar::size(file, &what("size"), Some(size), "100MiB", 64 << 10..=1024 << 30, findings)
        });
    let age = written
        .value
        .age
        .as_ref()
        .map(|age| scalar::duration(file, &what("age"), Some(age), "24h", MINUTE..=365 * DAY, findings));
    let keep = written.value.keep.as_ref();
    let keep = scalar::count(file, &what("keep"), keep, default::LOG_KEEP, 1..=1000, findings);
    if size.is_none() && age.is_none() && !findings.lost_within(&format!("access_log.{name}.rotate")) {
        let message = format!("access_log `{name}`: rotate has neither `size` nor `age`");
        findings
            .error(Code::Missing, file, &written.span, message)
            .hint("write `rotate = { size = \"100MiB\", keep = 7 }`");
    }
    Some(Rotate { size, age, keep })
}
