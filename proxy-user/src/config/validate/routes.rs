//! `[[route]]`

use super::{merge::Merged, scalar};
use crate::config::{
    code::Code,
    findings::Findings,
    model::{EntrypointId, HostMatch, Route, ServiceId},
    parse,
    source::FileId,
    value::{self, quoted},
    written::{self, At},
};

pub fn all(written: &Merged<'_>, findings: &mut Findings) -> Vec<Route> {
    let mut routes: Vec<(Route, FileId, &At<written::Route>)> = Vec::new();
    for (file, route) in &written.routes {
        let valid = one(*file, route, written, findings);
        let Some(valid) = valid else { continue };
        if let Some((first, first_file, first_at)) =
            routes.iter().find(|(known, ..)| same_requests(known, &valid))
        {
            let message = if first.name == valid.name {
                format!("two routes match the same requests: {}", quoted(&valid.name))
            } else {
                format!("routes {} and {} match the same requests", quoted(&first.name), quoted(&valid.name))
            };
            findings
                .error(Code::DuplicateRoute, *file, &route.span, message)
                .related(*first_file, &first_at.span, "the first one")
                .hint("give one of them another host, path or entrypoint");
        }
        routes.push((valid, *file, route));
    }
    same_names(&routes, findings);
    routes.into_iter().map(|(route, ..)| route).collect()
}

/// One request, one route: two of them may not match the same.
fn same_requests(one: &Route, other: &Route) -> bool {
    let entrypoints = one.entrypoints.is_empty()
        || other.entrypoints.is_empty()
        || one.entrypoints.iter().any(|id| other.entrypoints.contains(id));
    entrypoints && one.host == other.host && one.path_prefix == other.path_prefix
}

/// Metrics tell routes apart by name.
fn same_names(routes: &[(Route, FileId, &At<written::Route>)], findings: &mut Findings) {
    for (nth, (route, file, at)) in routes.iter().enumerate() {
        let Some(name) = &at.value.name else { continue };
        let first = routes[..nth].iter().find(|(known, ..)| known.name == route.name);
        if let Some((_, first_file, first_at)) = first {
            let first_span = first_at.value.name.as_ref().map_or(&first_at.span, |name| &name.span);
            findings
                .error(
                    Code::DefinedTwice,
                    *file,
                    &name.span,
                    format!("two routes are named {}", quoted(&name.value)),
                )
                .related(*first_file, first_span, "first named here")
                .hint("logs and metrics tell routes apart by name");
        }
    }
}

fn one(
    file: FileId,
    route: &At<written::Route>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Route> {
    let body = &route.value;
    let element = parse::element("route", file, route.span.start);
    let host = match &body.host {
        Some(host) => refusable(file, Code::BadHost, "route: host", host, value::host, findings),
        None => Some(HostMatch::Any),
    };
    let path = match &body.path {
        Some(path) => refusable(file, Code::BadPath, "route: path", path, value::path_prefix, findings),
        None => Some("/".to_owned()),
    };
    let name = match &body.name {
        Some(name) => {
            if name.value.is_empty() || name.value.len() > 64 || name.value.chars().any(char::is_control) {
                let message = format!(
                    "the route name {} doesn't have 1 to 64 printable characters",
                    quoted(&name.value)
                );
                findings.error(Code::BadName, file, &name.span, message);
            }
            name.value.clone()
        }
        None => made_name(host.as_ref(), path.as_deref()),
    };
    let entrypoints = match findings.lost(&format!("{element}.entrypoint")) {
        true => None,
        false => entrypoints(file, body, &name, written, findings),
    };
    let service = match &body.service {
        Some(service) => {
            let by = format!("route {} sends to", quoted(&name));
            written.services.refer(file, service, &by, Code::NoSuchService, findings)
        }
        None => {
            // What later versions write in its place was reported already.
            let lost = |key| findings.lost(&format!("{element}.{key}"));
            if !["service", "split", "passthrough"].into_iter().any(lost) {
                findings
                    .error(
                        Code::Missing,
                        file,
                        &route.span,
                        format!("route {} has no `service`", quoted(&name)),
                    )
                    .hint("write where it leads: `service = \"app\"`");
            }
            None
        }
    };
    // A route whose conditions aren't all known would look like another one's duplicate.
    if findings.lost_within(&element) {
        return None;
    }
    Some(Route {
        name: name.into(),
        entrypoints: entrypoints?,
        host: host?,
        path_prefix: path?.into(),
        // Without a service there is no configuration; until then the route takes part in the search for duplicates.
        service: ServiceId(service.unwrap_or_default()),
    })
}

fn refusable<T>(
    file: FileId,
    code: Code,
    what: &str,
    written: &At<String>,
    parse: impl Fn(&str) -> Result<T, value::Refusal>,
    findings: &mut Findings,
) -> Option<T> {
    match parse(&written.value) {
        Ok(value) => Some(value),
        Err(refusal) => {
            scalar::refused(file, code, what, written, refusal, findings);
            None
        }
    }
}

/// `app.example.com/shop`, `*.example.com`, or `*` for everything.
fn made_name(host: Option<&HostMatch>, path: Option<&str>) -> String {
    let host = match host {
        Some(HostMatch::Exact(host)) => host.to_string(),
        Some(HostMatch::Wildcard(host)) => format!("*.{host}"),
        Some(HostMatch::Any) | None => "*".to_owned(),
    };
    match path {
        None | Some("/") => host,
        Some(path) => format!("{host}{path}"),
    }
}

/// None: at least one is unknown, so which requests the route is for isn't known either.
fn entrypoints(
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
