//! `clients`, `basic_auth`, `forward_auth`

use super::{Site, conditions, fault, header_name, header_names, required};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        gather,
        model::{BasicAuth, ForwardAuth, MiddlewareKind, ServiceId},
        validate::scalar::{self, MINUTE},
        value::quoted,
        written::{self, At},
    },
    middleware::basic_auth::User,
};

/// A list of users, not a database.
const LARGEST: u64 = 4 << 20;

pub fn clients(
    site: &Site<'_>,
    written: &At<written::Clients>,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let body = &written.value;
    if body.allow.is_none() && body.deny.is_none() {
        if !findings.found_within(site.file, &written.span) {
            let hint = "for instance `clients = { allow = [\"office\"] }`";
            fault::<()>(site, Code::Missing, &written.span, "it lets in everybody", hint, findings);
        }
        return None;
    }
    let mut networks = |key: &str, list: Option<&written::List>| match list {
        None => Some(None),
        Some(list) if list.items.is_empty() => {
            fault(site, Code::EmptyList, &list.span, &format!("`{key}` is an empty list"), "", findings)
        }
        Some(list) => {
            let what = format!("{}: {key}", site.by);
            conditions::networks(site.file, &what, list, site.written, findings).map(Some)
        }
    };
    let allow = networks("allow", body.allow.as_ref());
    let deny = networks("deny", body.deny.as_ref());
    Some(MiddlewareKind::Clients { allow: allow?, deny: deny?.unwrap_or_default() })
}

pub fn basic(
    site: &Site<'_>,
    written: &At<written::BasicAuth>,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let body = &written.value;
    let before = findings.count();
    let mut users: Vec<User> = Vec::new();
    for one in body.users.iter().flat_map(|list| &list.items) {
        take(site, &one.span, "", &one.value, &mut users, findings);
    }
    if let Some(file) = &body.file {
        let path = findings.sources.resolve(site.file, &file.value);
        findings.watch(&path);
        match gather::text(&path, LARGEST) {
            Ok(text) => {
                for (nth, line) in text.lines().enumerate() {
                    let line = line.trim();
                    if !line.is_empty() && !line.starts_with('#') {
                        let place = format!("{} line {}: ", quoted(&path.to_string_lossy()), nth + 1);
                        take(site, &file.span, &place, line, &mut users, findings);
                    }
                }
            }
            Err(error) => {
                let message = format!(
                    "file {} can't be used: {}",
                    quoted(&path.to_string_lossy()),
                    gather::reason(&error)
                );
                fault::<()>(site, Code::BadUsers, &file.span, &message, "", findings);
            }
        }
    }
    if users.is_empty() && findings.count() == before && !findings.found_within(site.file, &written.span) {
        let hint = "`weir hash-password` makes a line for `users` or the file";
        fault::<()>(site, Code::Missing, &written.span, "there are no users", hint, findings);
    }
    let realm = body.realm.as_ref().map_or(default::REALM, |realm| &realm.value);
    let plain = realm.bytes().all(|byte| (b' '..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\'));
    if let Some(written) = body.realm.as_ref().filter(|_| !plain) {
        let message = format!("{} is not a realm", quoted(realm));
        let hint = "it holds visible ASCII characters, but no quotes and no backslash";
        fault::<()>(site, Code::BadHeader, &written.span, &message, hint, findings);
    }
    let user_header = match &body.user_header {
        Some(name) => Some(header_name(site, name, findings)?),
        None => None,
    };
    (findings.count() == before).then(|| {
        MiddlewareKind::BasicAuth(BasicAuth {
            users,
            realm: realm.into(),
            user_header,
            pass_on: body.pass_on.as_ref().is_some_and(|pass_on| pass_on.value),
        })
    })
}

fn take(
    site: &Site<'_>,
    span: &std::ops::Range<usize>,
    place: &str,
    line: &str,
    users: &mut Vec<User>,
    findings: &mut Findings,
) {
    // The line holds a secret: only the name is repeated.
    let name = quoted(line.split(':').next().unwrap_or_default());
    match User::parse(line) {
        Ok(user) if users.iter().any(|known| known.name == user.name) => {
            let message = format!("{place}user {name} is there twice");
            fault::<()>(site, Code::DefinedTwice, span, &message, "keep one of the two", findings);
        }
        Ok(user) => users.push(user),
        Err(because) => {
            let message = format!("{place}user {name}: {because}");
            let hint = "`weir hash-password` makes a hash that can be used";
            fault::<()>(site, Code::BadUsers, span, &message, hint, findings);
        }
    }
}

pub fn forward(
    site: &Site<'_>,
    written: &At<written::ForwardAuth>,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let body = &written.value;
    let example = "name who decides: `service = \"auth\"`";
    let service =
        required(site, &written.span, "forward_auth.service", example, body.service.as_ref(), findings)
            .and_then(|service| {
                let by = format!("{} asks", site.by);
                site.written.services.refer(site.file, service, &by, Code::NoSuchService, findings)
            });
    let path = match &body.path {
        None => http::uri::PathAndQuery::try_from("/").ok(),
        Some(path) => match path.value.parse() {
            Ok(parsed) if path.value.starts_with('/') && !path.value.contains('#') => Some(parsed),
            _ => {
                let message = format!("path {} is not a path", quoted(&path.value));
                fault(site, Code::BadPath, &path.span, &message, "for instance `/verify`", findings)
            }
        },
    };
    let copy = header_names(site, body.copy.as_ref(), findings);
    let what = format!("{}: forward_auth.timeout", site.by);
    let range = std::time::Duration::from_millis(10)..=MINUTE;
    let timeout = body.timeout.as_ref();
    let timeout = scalar::duration(site.file, &what, timeout, default::FORWARD_AUTH_TIMEOUT, range, findings);
    Some(MiddlewareKind::ForwardAuth(ForwardAuth {
        service: ServiceId(service?),
        path: path?,
        copy: copy?,
        timeout,
    }))
}
