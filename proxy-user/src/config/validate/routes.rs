//! `[[route]]`

pub(super) mod carried;
pub(super) mod conditions;
mod hidden;
mod overlap;

use super::{merge::Merged, middleware::Chains, pages::by_status, variants::OfRoutes};
use crate::config::{
    code::Code,
    findings::Findings,
    model::{Carries, EntrypointId, HostMatch, PathMatch, Route, ServiceId},
    parse,
    source::FileId,
    value::quoted,
    written::{self, At},
};

/// A valid route, and where it stands.
pub struct Placed<'a> {
    pub route: Route,
    pub file: FileId,
    pub at: &'a At<written::Route>,
}

pub fn all(
    written: &Merged<'_>,
    chains: &mut Chains<'_, '_>,
    services: &mut OfRoutes<'_, '_>,
    carried: &[carried::Placed<'_>],
    findings: &mut Findings,
) -> Vec<Route> {
    let placed: Vec<Placed<'_>> = written
        .routes
        .iter()
        .filter(|(_, at)| !carried::is_one(&at.value))
        .filter_map(|(file, at)| {
            Some(Placed { route: one(*file, at, written, chains, services, findings)?, file: *file, at })
        })
        .collect();
    overlap::same_requests(&placed, findings);
    overlap::same_names(&placed, carried, findings);
    overlap::shadowed(&placed, findings);
    hidden::warn(&placed, carried, written, findings);
    placed.into_iter().map(|placed| placed.route).collect()
}

fn one(
    file: FileId,
    route: &At<written::Route>,
    written: &Merged<'_>,
    chains: &mut Chains<'_, '_>,
    services: &mut OfRoutes<'_, '_>,
    findings: &mut Findings,
) -> Option<Route> {
    let body = &route.value;
    let element = parse::element("route", file, route.span.start);
    let hosts = match &body.host {
        Some(hosts) => conditions::hosts(file, "route: host", hosts, findings),
        None => Some(vec![HostMatch::Any]),
    };
    let path = match &body.path {
        Some(path) => conditions::path(file, "route: path", path, findings),
        None => Some(PathMatch::Prefix("/".into())),
    };
    let name = match &body.name {
        Some(name) => {
            name_fits(file, name, findings);
            name.value.clone()
        }
        None => made_name(hosts.as_deref(), path.as_ref()),
    };
    let entrypoints = match findings.lost(&format!("{element}.entrypoint")) {
        true => None,
        false => entrypoints(file, body, &name, written, findings),
    };
    let by = format!("route {}", quoted(&name));
    let when = conditions::when(file, &by, body, written, findings);
    let not = conditions::not(file, &by, body, written, findings);
    let priority = conditions::priority(file, &by, body.priority.as_ref(), findings);
    let middleware = chains.chain(file, &by, body.middleware.as_ref(), findings);
    let service = match &body.service {
        Some(service) => {
            let by = format!("{by} sends to");
            written.services.refer(file, service, &by, Code::NoSuchService, findings)
        }
        None if body.split.is_some() => None,
        None => {
            // What later versions write in its place was reported already; nor is anything known of a faulty chain.
            let lost = |key| findings.lost(&format!("{element}.{key}"));
            let elsewhere = chains.answers_always(&middleware)
                || body.middleware.as_ref().is_some_and(|links| links.items.len() != middleware.len());
            if !elsewhere && !["service", "split", "passthrough", "middleware"].into_iter().any(lost) {
                findings
                    .error(Code::Missing, file, &route.span, format!("{by} has no `service`"))
                    .hint("write where it leads: `service = \"app\"`");
            }
            None
        }
    };
    let service = services.lead(file, &name, route, service.map(ServiceId), findings);
    let pages = by_status::pages(file, &by, body.pages.as_ref(), written, findings);
    // A route whose conditions aren't all known would look like another one's duplicate.
    if findings.lost_within(&element) {
        return None;
    }
    Some(Route {
        name: name.into(),
        entrypoints: entrypoints?,
        hosts: hosts?,
        path: path?,
        when: when?,
        not: not?,
        priority,
        middleware,
        service,
        pages,
    })
}

/// `app.example.com/shop`, `*.example.com`, or `*` for everything. Of several hosts the first.
fn made_name(hosts: Option<&[HostMatch]>, path: Option<&PathMatch>) -> String {
    let host = hosts.and_then(<[_]>::first).unwrap_or(&HostMatch::Any);
    let mut name = match path {
        None => host.to_string(),
        Some(PathMatch::Prefix(path)) if **path == *"/" => host.to_string(),
        Some(PathMatch::Prefix(path) | PathMatch::Exact(path)) => format!("{host}{path}"),
        Some(path @ PathMatch::Regex(_)) => format!("{host}{path}"),
    };
    if let Some((end, _)) = name.char_indices().nth(64) {
        name.truncate(end);
    }
    name
}

fn name_fits(file: FileId, name: &At<String>, findings: &mut Findings) {
    if name.value.is_empty() || name.value.len() > 64 || name.value.chars().any(char::is_control) {
        let message =
            format!("the route name {} doesn't have 1 to 64 printable characters", quoted(&name.value));
        findings.error(Code::BadName, file, &name.span, message);
    }
}

/// None: at least one is unknown or speaks no HTTP, so which requests the route is for isn't known either.
fn entrypoints(
    file: FileId,
    body: &written::Route,
    route: &str,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Vec<EntrypointId>> {
    let ids = named_entrypoints(file, body, route, written, findings)?;
    let mut fit = true;
    for id in &ids {
        let item = &written.entrypoints.items[id.0];
        if carried::carries(item.body) == Carries::Http {
            continue;
        }
        fit = false;
        let list = body.entrypoint.as_ref().or(body.entrypoints.as_ref());
        let name = list.and_then(|list| list.items.iter().find(|name| name.value == item.name.value));
        let Some(name) = name else { continue };
        let message = format!(
            "route {} is one of HTTP, and entrypoint `{}` carries connections untouched",
            quoted(route),
            item.name.value
        );
        findings
            .error(Code::Contradiction, file, &name.span, message)
            .hint("write `passthrough` in the place of `service`, or leave `protocol` of the entrypoint out");
    }
    fit.then_some(ids)
}

/// None: at least one is unknown.
fn named_entrypoints(
    file: FileId,
    body: &written::Route,
    route: &str,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Vec<EntrypointId>> {
    let list = match (&body.entrypoint, &body.entrypoints) {
        (Some(one), Some(other)) => {
            let message = format!("route {} has both `entrypoint` and `entrypoints`", quoted(route));
            findings
                .error(Code::Contradiction, file, &other.span, message)
                .related(file, &one.span, "the other one")
                .hint("they mean the same: keep one list");
            return None;
        }
        (one, other) => one.as_ref().or(other.as_ref()),
    };
    let Some(list) = list else { return Some(Vec::new()) };
    if list.items.is_empty() {
        findings
            .error(
                Code::EmptyList,
                file,
                &list.span,
                format!("route {}: `entrypoint` is an empty list", quoted(route)),
            )
            .hint("leave the key out to match at every entrypoint");
        return None;
    }
    let by = format!("route {} is limited to", quoted(route));
    let mut ids = Vec::new();
    for name in &list.items {
        ids.push(
            written.entrypoints.refer(file, name, &by, Code::NoSuchEntrypoint, findings).map(EntrypointId),
        );
    }
    let mut ids = ids.into_iter().collect::<Option<Vec<_>>>()?;
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}
