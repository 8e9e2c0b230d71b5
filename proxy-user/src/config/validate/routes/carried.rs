//! Routes that carry connections untouched: `[[route]]` with `passthrough`.

use std::{collections::HashMap, ops::Range};

use super::{name_fits, named_entrypoints};
use crate::config::{
    code::Code,
    findings::Findings,
    model::{CarriedRoute, Carries, EntrypointId, HostMatch, MadeOf, PageId, Service, ServiceId},
    parse,
    source::FileId,
    validate::{
        merge::{Item, Merged},
        passthrough::link,
        scalar,
    },
    value::{self, quoted},
    written::{self, At, List},
};

/// A valid route, and where it stands.
pub struct Placed<'a> {
    pub route: CarriedRoute,
    pub file: FileId,
    pub at: &'a At<written::Route>,
}

/// Whether it is written as one.
pub fn is_one(body: &written::Route) -> bool {
    body.passthrough.is_some() || body.sni.is_some() || body.on_outage.is_some()
}

pub fn all<'a>(written: &Merged<'a>, findings: &mut Findings) -> Vec<Placed<'a>> {
    let routes = written.routes.iter().filter(|(_, at)| is_one(&at.value));
    let placed: Vec<Placed<'a>> = routes
        .filter_map(|&(file, at)| Some(Placed { route: one(file, at, written, findings)?, file, at }))
        .collect();
    same_connections(&placed, written, findings);
    placed
}

fn one(
    file: FileId,
    at: &At<written::Route>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<CarriedRoute> {
    let body = &at.value;
    let element = parse::element("route", file, at.span.start);
    let sni = match &body.sni {
        Some(list) => names(file, list, findings),
        None if findings.lost(&format!("{element}.sni")) => None,
        None => Some(Vec::new()),
    };
    let name = body.name.as_ref().map_or_else(|| made_name(body, sni.as_deref()), |name| name.value.clone());
    if let Some(written) = &body.name {
        name_fits(file, written, findings);
    }
    let by = format!("route {}", quoted(&name));
    nothing_of_http(file, &by, body, findings);
    let service = match &body.passthrough {
        Some(service) => {
            let by = format!("{by} carries to");
            written.services.refer(file, service, &by, Code::NoSuchService, findings).map(ServiceId)
        }
        None => {
            if !findings.lost(&format!("{element}.passthrough")) {
                let span = body.sni.as_ref().map(|list| &list.span);
                let span = span.or(body.on_outage.as_ref().map(|one| &one.span)).unwrap_or(&at.span);
                let key = if body.sni.is_some() { "sni" } else { "on_outage" };
                findings
                    .error(Code::Missing, file, span, format!("{by} has `{key}`, but no `passthrough`"))
                    .hint("write where its connections go: `passthrough = \"app\"`; a route of HTTP matches with `host`");
            }
            None
        }
    };
    let entrypoints = match findings.lost(&format!("{element}.entrypoint")) {
        true => None,
        false => entrypoints(file, &by, &name, at, written, findings),
    };
    let on_outage = on_outage(file, &by, body, entrypoints.as_deref(), written, findings);
    if findings.lost_within(&element) {
        return None;
    }
    Some(CarriedRoute {
        name: name.into(),
        entrypoints: entrypoints?,
        sni: sni?,
        service: service?,
        on_outage,
    })
}

/// The first of its names, or what it comes in at.
fn made_name(body: &written::Route, sni: Option<&[HostMatch]>) -> String {
    if let Some(first) = sni.and_then(<[_]>::first) {
        return first.to_string();
    }
    let entrypoints = body.entrypoint.as_ref().or(body.entrypoints.as_ref());
    let first = entrypoints.and_then(|list| list.items.first()).map_or("passthrough", |name| &name.value);
    first.chars().take(64).collect()
}

fn names(file: FileId, list: &List, findings: &mut Findings) -> Option<Vec<HostMatch>> {
    if list.items.is_empty() {
        findings
            .error(Code::EmptyList, file, &list.span, "route: sni is an empty list")
            .hint("name what it takes, `sni = \"legacy.example.com\"`, or leave the key out");
        return None;
    }
    let mut names = Vec::new();
    for one in &list.items {
        let name = match value::host(&one.value) {
            // RFC 6066 §3: no addresses.
            Ok(HostMatch::Exact(name))
                if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() =>
            {
                let message =
                    format!("route: sni {} is an address, and hellos name none", quoted(&one.value));
                findings
                    .error(Code::BadHost, file, &one.span, message)
                    .hint("whoever connects to an address sends no name: a route without `sni` takes these");
                None
            }
            Ok(name) => Some(name),
            Err(refusal) => {
                scalar::refused(file, Code::BadHost, "route: sni", one, refusal, findings);
                None
            }
        };
        if name.is_none() || !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().collect()
}

/// What nobody can ask of a connection that isn't decrypted.
fn nothing_of_http(file: FileId, by: &str, body: &written::Route, findings: &mut Findings) {
    let Some(written) = &body.passthrough else { return };
    let split = "name a service that is split: `[service.NAME]` with `split`";
    let http = "the connection is not decrypted: names are matched with `sni`";
    let untouched = "what is carried untouched is HTTP to its servers alone";
    let keys: [(&str, Option<&Range<usize>>, &str); 15] = [
        ("service", body.service.as_ref().map(|one| &one.span), "a route leads to one of the two"),
        ("split", body.split.as_ref().map(|one| &one.span), split),
        (
            "sticky",
            body.sticky.as_ref().map(|one| &one.span),
            "a split keeps connections by the client's address",
        ),
        ("fall_over", body.fall_over.as_ref().map(|one| &one.span), split),
        ("mirror", body.mirror.as_ref().map(|one| &one.span), untouched),
        ("host", body.host.as_ref().map(|one| &one.span), http),
        ("path", body.path.as_ref().map(|one| &one.span), http),
        ("method", body.method.as_ref().map(|one| &one.span), http),
        ("header", body.header.as_ref().map(|one| &one.span), http),
        ("query", body.query.as_ref().map(|one| &one.span), http),
        (
            "client",
            body.client.as_ref().map(|one| &one.span),
            "`allow` of the entrypoint says who may come in",
        ),
        ("not", body.not.as_ref().map(|one| &one.span), http),
        ("priority", body.priority.as_ref().map(|one| &one.span), "an exact name goes before a wildcard"),
        ("middleware", body.middleware.iter().flat_map(|links| &links.items).next().map(link), untouched),
        (
            "pages",
            body.pages.as_ref().map(|one| &one.span),
            "`on_outage` names the page for when no server can be reached",
        ),
    ];
    for (key, span, hint) in keys {
        let Some(span) = span else { continue };
        findings
            .error(Code::Contradiction, file, span, format!("{by} has `{key}` beside `passthrough`"))
            .related(file, &written.span, "because of this")
            .hint(hint);
    }
}

/// Those that it names, or all that carry what it takes.
fn entrypoints(
    file: FileId,
    by: &str,
    name: &str,
    at: &At<written::Route>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Vec<EntrypointId>> {
    let body = &at.value;
    let named = named_entrypoints(file, body, name, written, findings)?;
    let with_sni = body.sni.is_some();
    let list = body.entrypoint.as_ref().or(body.entrypoints.as_ref());
    let Some(list) = list else {
        if !with_sni {
            // Where there is no `passthrough` either, that was said already.
            let Some(passthrough) = &body.passthrough else { return None };
            findings
                .error(Code::Missing, file, &passthrough.span, format!("{by} has neither `sni` nor `entrypoint`"))
                .hint("write which names it takes, `sni = \"legacy.example.com\"`, or at which entrypoint with `protocol = \"tcp\"` or `\"udp\"`");
            return None;
        }
        let all = written.entrypoints.items.iter().enumerate();
        let fitting: Vec<_> =
            all.filter(|(_, item)| carries_names(item)).map(|(id, _)| EntrypointId(id)).collect();
        let faulty = findings.lost("entrypoint") || findings.lost_within("entrypoint");
        if fitting.is_empty() && !faulty {
            let span = body.sni.as_ref().map_or(&at.span, |list| &list.span);
            findings
                .error(
                    Code::Contradiction,
                    file,
                    span,
                    format!("{by} has `sni`, but no entrypoint reads names"),
                )
                .hint("an entrypoint needs `tls`, or `protocol = \"tcp\"`");
        }
        return (!fitting.is_empty()).then_some(fitting);
    };
    let mut fits = true;
    for name in &list.items {
        let Some(item) = written.entrypoints.id(&name.value).and_then(|id| written.entrypoints.items.get(id))
        else {
            continue;
        };
        let path = format!("entrypoint.{}", name.value);
        if findings.lost(&format!("{path}.protocol")) || findings.lost(&format!("{path}.tls")) {
            continue;
        }
        let (unfit, hint) = match (carries(item.body), with_sni) {
            (Carries::Udp, true) => ("carries datagrams, which have no `sni`", "leave `sni` out there"),
            (Carries::Http, true) if item.body.tls.is_none() => {
                ("has no `tls`: connections there have no `sni`", "give it `tls`, or `protocol = \"tcp\"`")
            }
            (Carries::Http, false) => (
                "speaks HTTP: `passthrough` there needs `sni`",
                "name what it takes, `sni = \"legacy.example.com\"`, or give the entrypoint `protocol = \"tcp\"`",
            ),
            _ => continue,
        };
        fits = false;
        let message = format!("{by}: entrypoint `{}` {unfit}", name.value);
        findings.error(Code::Contradiction, file, &name.span, message).hint(hint);
    }
    fits.then_some(named)
}

/// As it is written, whatever stands beside it.
pub fn carries(body: &written::Entrypoint) -> Carries {
    match body.protocol.as_ref().map(|protocol| protocol.value) {
        Some(written::Protocol::Http) | None => Carries::Http,
        Some(written::Protocol::Tcp) => Carries::Tcp,
        Some(written::Protocol::Udp) => Carries::Udp,
    }
}

/// Whether hellos are read there.
fn carries_names(item: &Item<'_, written::Entrypoint>) -> bool {
    match carries(item.body) {
        Carries::Tcp => true,
        Carries::Http => item.body.tls.is_some(),
        Carries::Udp => false,
    }
}

fn on_outage(
    file: FileId,
    by: &str,
    body: &written::Route,
    entrypoints: Option<&[EntrypointId]>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<PageId> {
    let setting = body.on_outage.as_ref()?;
    let Some(page) = setting.value.strip_prefix("page:") else {
        let message = format!("{by}: on_outage {} is not a page", quoted(&setting.value));
        let finding = findings.error(Code::WrongValue, file, &setting.span, message);
        match written.pages.id(&setting.value) {
            Some(_) => finding.hint(format!("a page is written `page:{}`", setting.value)),
            None => finding.hint("write `page:maintenance`"),
        };
        return None;
    };
    // The name begins behind the quote and `page:`.
    let behind = setting.span.start + "\"page:".len();
    let span = behind.min(setting.span.end)..setting.span.end.saturating_sub(1).max(behind);
    let page = At { span, value: page.to_owned() };
    let wants = format!("{by}: on_outage wants");
    let id = written.pages.refer(file, &page, &wants, Code::NoSuchPage, findings);
    let with_tls = |id: &EntrypointId| written.entrypoints.items[id.0].body.tls.is_some();
    if entrypoints.is_some_and(|ids| !ids.iter().any(with_tls)) {
        let message =
            format!("{by}: `on_outage` at no entrypoint with `tls`: the page could be shown to nobody");
        findings
            .error(Code::Contradiction, file, &setting.span, message)
            .hint("it is served over TLS, with a certificate for the name: take it out, or use an entrypoint with `tls`");
    }
    id.map(PageId)
}

/// One connection, one route.
#[expect(clippy::mutable_key_type, reason = "a pattern is compared by its text, and that stays")]
fn same_connections(placed: &[Placed<'_>], written: &Merged<'_>, findings: &mut Findings) {
    let mut known: HashMap<(EntrypointId, &HostMatch), usize> = HashMap::new();
    for (nth, Placed { route, file, at }) in placed.iter().enumerate() {
        let names = if route.sni.is_empty() { &[HostMatch::Any][..] } else { &route.sni };
        let taken = route.entrypoints.iter().flat_map(|id| names.iter().map(move |name| (*id, name)));
        let mut told = false;
        for (id, name) in taken {
            let first = *known.entry((id, name)).or_insert(nth);
            if first == nth || std::mem::replace(&mut told, true) {
                continue;
            }
            let first = &placed[first];
            let at_entrypoint = &written.entrypoints.items[id.0].name.value;
            let what = match name {
                HostMatch::Any => format!("all connections at entrypoint `{at_entrypoint}`"),
                name => format!("the name `{name}` at entrypoint `{at_entrypoint}`"),
            };
            let message =
                format!("routes {} and {} both take {what}", quoted(&first.route.name), quoted(&route.name));
            findings
                .error(Code::DuplicateRoute, *file, &at.span, message)
                .related(first.file, &first.at.span, "the first one")
                .hint("give one of them another name or entrypoint");
        }
    }
}

/// Every service that connections are carried to ends at servers by `split` and `failover` alone.
pub fn services_carry(placed: &[Placed<'_>], services: &[Service], findings: &mut Findings) {
    for Placed { route, file, at } in placed {
        let mut seen = vec![false; services.len()];
        let mut next = vec![route.service];
        while let Some(id) = next.pop() {
            // A name that leads nowhere was reported already.
            let Some(service) = services.get(id.0) else { continue };
            if std::mem::replace(&mut seen[id.0], true) {
                continue;
            }
            if let Some(MadeOf::Mirror(_)) = service.made_of {
                let span = at.value.passthrough.as_ref().map_or(&at.span, |one| &one.span);
                let message = format!(
                    "route {}: service `{}` mirrors requests, which a connection that isn't decrypted has none of",
                    quoted(&route.name),
                    service.name
                );
                findings
                    .error(Code::Contradiction, *file, span, message)
                    .hint("name the service that answers there");
            }
            next.extend(service.made_of.iter().flat_map(MadeOf::parts));
        }
    }
}
