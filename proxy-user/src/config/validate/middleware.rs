//! `[middleware.NAME]`, and the chains of them that entrypoints and routes name.

mod auth;
mod headers;
mod limits;
mod paths;

use std::ops::Range;

use super::{merge::Merged, routes::conditions};
use crate::config::{
    code::Code,
    findings::Findings,
    model::{Middleware, MiddlewareId, MiddlewareKind},
    source::FileId,
    written::{self, At, Link, Links, List},
};

/// All middleware: those with a name, and behind them those that stand in a chain themselves.
pub struct Chains<'w, 'a> {
    written: &'w Merged<'a>,
    all: Vec<Middleware>,
}

/// Where a middleware stands, for messages.
pub struct Site<'a> {
    pub file: FileId,
    /// "middleware `a`", or "route `r`: middleware 2".
    pub by: &'a str,
    pub span: &'a Range<usize>,
    pub written: &'a Merged<'a>,
}

impl<'w, 'a> Chains<'w, 'a> {
    pub fn new(written: &'w Merged<'a>, findings: &mut Findings) -> Self {
        let all = written.middleware.items.iter().map(|item| {
            let by = format!("middleware `{}`", item.name.value);
            let site = Site { file: item.file, by: &by, span: &item.name.span, written };
            // Without its kind there is no configuration; until then it keeps its number.
            let kind = kind(&site, item.body, findings).unwrap_or(MiddlewareKind::BodyLimit(0));
            Middleware { name: item.name.value.as_str().into(), kind }
        });
        Self { all: all.collect(), written }
    }

    /// The chain that `links` names. Shorter where some of them are faulty.
    pub fn chain(
        &mut self,
        file: FileId,
        owner: &str,
        links: Option<&Links>,
        findings: &mut Findings,
    ) -> Vec<MiddlewareId> {
        let mut chain = Vec::new();
        for (nth, link) in links.iter().flat_map(|links| &links.items).enumerate() {
            match link {
                Link::Name(name) => {
                    let by = format!("{owner} names");
                    let id = self.written.middleware.refer(file, name, &by, Code::NoSuchMiddleware, findings);
                    chain.extend(id.map(MiddlewareId));
                }
                Link::Inline(span, body) => {
                    let by = format!("{owner}: middleware {}", nth + 1);
                    let site = Site { file, by: &by, span, written: self.written };
                    if let Some(kind) = kind(&site, body, findings) {
                        chain.push(MiddlewareId(self.all.len()));
                        self.all.push(Middleware { name: by.replace('`', "").into(), kind });
                    }
                }
            }
        }
        chain
    }

    /// Whether no request gets through the chain.
    pub fn answers_always(&self, chain: &[MiddlewareId]) -> bool {
        chain.iter().any(|id| self.all[id.0].kind.answers_always())
    }

    pub fn into_all(self) -> Vec<Middleware> {
        self.all
    }
}

const KEYS: &str = "headers, redirect, strip_path, add_path, replace_path, clients, basic_auth, forward_auth, \
                    rate_limit, concurrency, body_limit, buffer, timeouts and compress";

/// The one kind that is written.
fn kind(site: &Site<'_>, body: &written::Middleware, findings: &mut Findings) -> Option<MiddlewareKind> {
    let before = findings.count();
    let mut kinds: Vec<(&str, &Range<usize>, Option<MiddlewareKind>)> = Vec::new();
    if let Some(one) = &body.headers {
        kinds.push(("headers", &one.span, headers::headers(site, &one.value, findings)));
    }
    if let Some(one) = &body.redirect {
        kinds.push(("redirect", &one.span, paths::redirect(site, one, findings)));
    }
    if let Some(one) = &body.strip_path {
        kinds.push(("strip_path", &one.span, paths::strip(site, one, findings)));
    }
    if let Some(one) = &body.add_path {
        kinds.push(("add_path", &one.span, paths::add(site, one, findings)));
    }
    if let Some(one) = &body.replace_path {
        let replaced = paths::replace(site, "replace_path", one, findings);
        kinds.push(("replace_path", &one.span, replaced.map(MiddlewareKind::ReplacePath)));
    }
    if let Some(one) = &body.clients {
        kinds.push(("clients", &one.span, auth::clients(site, one, findings)));
    }
    if let Some(one) = &body.basic_auth {
        kinds.push(("basic_auth", &one.span, auth::basic(site, one, findings)));
    }
    if let Some(one) = &body.forward_auth {
        kinds.push(("forward_auth", &one.span, auth::forward(site, one, findings)));
    }
    if let Some(one) = &body.rate_limit {
        kinds.push(("rate_limit", &one.span, limits::rate(site, one, findings)));
    }
    if let Some(one) = &body.concurrency {
        kinds.push(("concurrency", &one.span, limits::concurrency(site, one, findings)));
    }
    if let Some(one) = &body.body_limit {
        let size = limits::size(site, "body_limit", one, 0..=1 << 50, findings);
        kinds.push(("body_limit", &one.span, Some(MiddlewareKind::BodyLimit(size))));
    }
    if let Some(one) = &body.buffer {
        let size = limits::size(site, "buffer", one, 1..=64 << 20, findings);
        kinds.push(("buffer", &one.span, Some(MiddlewareKind::Buffer(size))));
    }
    if let Some(one) = &body.timeouts {
        kinds.push(("timeouts", &one.span, limits::timeouts(site, one, findings)));
    }
    if let Some(one) = &body.compress {
        kinds.push(("compress", &one.span, limits::compress(site, &one.value, findings)));
    }
    match kinds.as_slice() {
        [] => {
            // What was written but is faulty was reported already.
            let path =
                format!("middleware.{}", site.by.trim_start_matches("middleware `").trim_end_matches('`'));
            let lost = findings.lost(&path) || findings.lost_within(&path);
            if findings.count() == before && !lost && !findings.found_within(site.file, site.span) {
                findings
                    .error(Code::Missing, site.file, site.span, format!("{} does nothing", site.by))
                    .hint(format!("it takes one of {KEYS}"));
            }
            None
        }
        [_] => kinds.pop().and_then(|(_, _, kind)| kind),
        [(first, first_span, _), (second, span, _), ..] => {
            let message = format!("{} has both `{first}` and `{second}`", site.by);
            findings
                .error(Code::Contradiction, site.file, span, message)
                .related(site.file, first_span, "the other one")
                .hint("each does one thing: write two, and name both in the chain");
            None
        }
    }
}

/// Reports a value that can't be used. `None`, for the caller's convenience.
fn fault<T>(
    site: &Site<'_>,
    code: Code,
    span: &Range<usize>,
    message: &str,
    hint: &str,
    findings: &mut Findings,
) -> Option<T> {
    let finding = findings.error(code, site.file, span, format!("{}: {message}", site.by));
    if !hint.is_empty() {
        finding.hint(hint);
    }
    None
}

/// A key that a kind can't do without.
fn required<'a, T>(
    site: &Site<'_>,
    table: &Range<usize>,
    key: &str,
    example: &str,
    written: Option<&'a T>,
    findings: &mut Findings,
) -> Option<&'a T> {
    if written.is_none() && !findings.found_within(site.file, table) {
        fault::<()>(site, Code::Missing, table, &format!("there is no `{key}`"), example, findings);
    }
    written
}

fn header_name(site: &Site<'_>, name: &At<String>, findings: &mut Findings) -> Option<http::HeaderName> {
    match name.value.parse() {
        Ok(name) => Some(name),
        Err(_) => {
            let message = format!("{} is not a header's name", crate::config::quoted(&name.value));
            fault(site, Code::BadHeader, &name.span, &message, "for instance `X-User`", findings)
        }
    }
}

fn header_names(
    site: &Site<'_>,
    list: Option<&List>,
    findings: &mut Findings,
) -> Option<Vec<http::HeaderName>> {
    let names: Vec<_> =
        list.iter().flat_map(|list| &list.items).map(|name| header_name(site, name, findings)).collect();
    names.into_iter().collect()
}
