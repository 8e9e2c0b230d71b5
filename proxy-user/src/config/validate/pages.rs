//! `[page.NAME]`, and the built-in ones.

mod assets;
pub(super) mod by_status;

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, uri::PathAndQuery};

use super::{
    merge::{Item, Merged},
    scalar::{self, DAY, MILLISECOND, SECOND},
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        gather,
        model::{LivePage, Page, ServiceId},
        value::{self, quoted},
        written::{self, At},
    },
    page::template,
};

const LARGEST: u64 = 1 << 20;

pub fn all(written: &Merged<'_>, findings: &mut Findings) -> Vec<Page> {
    let mut pages: Vec<_> = written.pages.items.iter().map(|item| one(item, written, findings)).collect();
    for name in written.pages.built_in() {
        pages.push(Page {
            name: name.into(),
            html: built_in(name),
            languages: Vec::new(),
            status: None,
            retry_after: value::duration(default::RETRY_AFTER).unwrap_or_default(),
            live: None,
            assets: Vec::new(),
        });
    }
    pages
}

fn built_in(name: &str) -> Bytes {
    Bytes::from_static(match name {
        default::ERROR_PAGE => default::ERROR_PAGE_HTML.as_bytes(),
        _ => default::PAGE_HTML.as_bytes(),
    })
}

fn one(item: &Item<'_, written::Page>, written: &Merged<'_>, findings: &mut Findings) -> Page {
    let Item { file, name, body } = *item;
    let what = format!("page `{}`", name.value);
    let setting = format!("{what}: retry_after");
    let retry = body.retry_after.as_ref();
    let retry_after = scalar::duration(file, &setting, retry, default::RETRY_AFTER, SECOND..=DAY, findings);
    if let Some(written) = retry
        && retry_after.subsec_millis() != 0
    {
        let message = format!("{setting} is {}, not whole seconds", quoted(&written.value));
        findings
            .error(Code::BadDuration, file, &written.span, message)
            .hint(format!("browsers are told in seconds: write `{}s`", retry_after.as_secs() + 1));
    }
    let status = body.status.as_ref().map(|status| {
        scalar::count(file, &format!("{what}: status"), Some(status), 503, 400..=599, findings)
    });
    Page {
        name: name.value.as_str().into(),
        html: html(item, &what, findings),
        languages: languages(item, &what, findings),
        status: status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok()),
        retry_after,
        live: live(item, &what, written, findings),
        assets: body
            .assets
            .as_ref()
            .map(|folder| assets::read(file, &what, folder, findings))
            .unwrap_or_default(),
    }
}

fn html(item: &Item<'_, written::Page>, what: &str, findings: &mut Findings) -> Bytes {
    let name = &item.name.value;
    let Some(html) = &item.body.html else {
        // Of a built-in page, what is written may be only how it is served; any other page is nothing without its own.
        let has_text = matches!(&**name, default::PAGE | default::ERROR_PAGE) || item.body.service.is_some();
        let lost = ["html", "service"].iter().any(|key| findings.lost(&format!("page.{name}.{key}")));
        if !has_text && !lost {
            let message = format!("{what} has no `html`");
            findings
                .error(Code::Missing, item.file, &item.name.span, message)
                .hint("name its file: `html = \"/etc/weir/sorry.html\"`");
        }
        return built_in(name);
    };
    text(item, what, html, findings).unwrap_or_else(|| built_in(name))
}

fn languages(item: &Item<'_, written::Page>, what: &str, findings: &mut Findings) -> Vec<(Arc<str>, Bytes)> {
    let mut languages = Vec::new();
    for (name, file) in item.body.languages.iter().flat_map(|languages| &languages.value) {
        let letters = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if name.value.len() < 2 || name.value.len() > 35 || !name.value.split('-').all(letters) {
            let message = format!("{what}: {} is not a language", quoted(&name.value));
            findings
                .error(Code::WrongValue, item.file, &name.span, message)
                .hint("languages are written as browsers ask for them: `de`, `pt-BR`");
        }
        if let Some(html) = text(item, what, file, findings) {
            languages.push((name.value.as_str().into(), html));
        }
    }
    if let Some(written) = &item.body.languages
        && item.body.html.is_none()
    {
        let message = format!("{what} has `languages`, but no `html` for everybody else");
        findings
            .error(Code::Missing, item.file, &written.span, message)
            .hint("name the file for whoever speaks none of them: `html = \"/etc/weir/sorry.html\"`");
    }
    languages
}

/// A file's text. `None`: it can't be served, which was reported.
fn text(
    item: &Item<'_, written::Page>,
    what: &str,
    html: &At<String>,
    findings: &mut Findings,
) -> Option<Bytes> {
    let path = findings.sources.resolve(item.file, &html.value);
    findings.watch(&path);
    let shown = quoted(&path.to_string_lossy());
    let reason = match gather::bytes(&path, LARGEST) {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => "it is empty".to_owned(),
        Ok(bytes) => match template::unknown(&bytes) {
            None => return Some(Bytes::from(bytes)),
            Some(unknown) => {
                let name = quoted(&format!("{{{{{}}}}}", unknown.name));
                let message =
                    format!("{what}: file {shown}, line {}: {name} is not a variable of pages", unknown.line);
                let known = || template::KNOWN.iter().map(|(name, _)| *name);
                let hint = match value::nearest(&unknown.name, known()) {
                    Some(near) => format!("did you mean `{{{{{near}}}}}`?"),
                    None => value::choice(known()).unwrap_or_default(),
                };
                findings.error(Code::BadVariable, item.file, &html.span, message).hint(hint);
                return None;
            }
        },
        Err(error) => gather::reason(&error),
    };
    let message = format!("{what}: file {shown} can't be served: {reason}");
    findings
        .error(Code::BadPage, item.file, &html.span, message)
        .hint("leave the page out to serve the built-in one");
    None
}

fn live(
    item: &Item<'_, written::Page>,
    what: &str,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<LivePage> {
    let Item { file, body, .. } = *item;
    let Some(service) = &body.service else {
        let alone = body.path.as_ref().map(|path| ("path", path));
        if let Some((key, setting)) = alone.or(body.timeout.as_ref().map(|timeout| ("timeout", timeout)))
            && !findings.lost(&format!("page.{}.service", item.name.value))
        {
            let message = format!("{what} has `{key}`, but no `service` to ask");
            findings
                .error(Code::Missing, file, &setting.span, message)
                .hint("name the service that makes the page: `service = \"pages\"`");
        }
        return None;
    };
    let service =
        written.services.refer(file, service, &format!("{what} comes from"), Code::NoSuchService, findings);
    let path = match &body.path {
        None => Some(PathAndQuery::from_static(default::PAGE_PATH)),
        Some(path) => {
            let parsed = path.value.parse().ok();
            let parsed = parsed.filter(|_| path.value.starts_with('/') && !path.value.contains('#'));
            if parsed.is_none() {
                let message = format!("{what}: path {} is not a path", quoted(&path.value));
                findings
                    .error(Code::BadPath, file, &path.span, message)
                    .hint("it begins with `/`, for instance `/sorry.html`");
            }
            parsed
        }
    };
    let range = 10 * MILLISECOND..=10 * SECOND;
    let setting = format!("{what}: timeout");
    let timeout =
        scalar::duration(file, &setting, body.timeout.as_ref(), default::PAGE_TIMEOUT, range, findings);
    Some(LivePage { service: ServiceId(service?), path: path?, timeout })
}
