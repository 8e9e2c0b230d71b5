//! `redirect`, `strip_path`, `add_path`, `replace_path`

use http::{StatusCode, uri::Scheme};

use super::{Site, conditions, fault, required};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{MiddlewareKind, Redirect, ReplacePath},
    value::{self, quoted},
    written::{self, At, List},
};

pub fn redirect(
    site: &Site<'_>,
    written: &At<written::Redirect>,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let body = &written.value;
    let scheme = body.scheme.as_ref().map(|scheme| match &*scheme.value {
        "https" => Some(Scheme::HTTPS),
        "http" => Some(Scheme::HTTP),
        other => {
            let message = format!("the scheme {} is neither `https` nor `http`", quoted(other));
            fault(site, Code::WrongValue, &scheme.span, &message, "", findings)
        }
    });
    let host = body.host.as_ref().map(|host| {
        let authority = host.value.parse::<http::uri::Authority>().ok();
        let plain = authority.filter(|host| !host.as_str().contains('@') && !host.host().is_empty());
        match plain {
            Some(authority) => Some(authority.as_str().to_ascii_lowercase().into()),
            None => {
                let message = format!("{} is not a host", quoted(&host.value));
                fault(site, Code::BadHost, &host.span, &message, "for instance `www.example.com`", findings)
            }
        }
    });
    let path = body.path.as_ref().map(|path| replace(site, "path", path, findings));
    let status = match &body.status {
        None => u16::try_from(default::REDIRECT_STATUS).ok().and_then(|code| StatusCode::from_u16(code).ok()),
        Some(status) => match status.value {
            301 => Some(StatusCode::MOVED_PERMANENTLY),
            302 => Some(StatusCode::FOUND),
            303 => Some(StatusCode::SEE_OTHER),
            307 => Some(StatusCode::TEMPORARY_REDIRECT),
            308 => Some(StatusCode::PERMANENT_REDIRECT),
            other => {
                let message = format!("status `{other}` is none of 301, 302, 303, 307 and 308");
                fault(site, Code::OutOfRange, &status.span, &message, "", findings)
            }
        },
    };
    if body.scheme.is_none() && body.host.is_none() && body.path.is_none() {
        if !findings.found_within(site.file, &written.span) {
            let hint = "write `scheme`, `host` or `path`";
            fault::<()>(
                site,
                Code::Missing,
                &written.span,
                "the redirect leads nowhere else",
                hint,
                findings,
            );
        }
        return None;
    }
    Some(MiddlewareKind::Redirect(Redirect {
        scheme: transposed(scheme)?,
        host: transposed(host)?,
        path: transposed(path)?,
        status: status?,
    }))
}

/// What isn't written is fine; what is written and faulty isn't.
fn transposed<T>(written: Option<Option<T>>) -> Option<Option<T>> {
    match written {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

pub fn strip(site: &Site<'_>, list: &List, findings: &mut Findings) -> Option<MiddlewareKind> {
    if list.items.is_empty() {
        return fault(site, Code::EmptyList, &list.span, "`strip_path` is an empty list", "", findings);
    }
    let prefixes: Vec<_> = list.items.iter().map(|one| prefix(site, "strip_path", one, findings)).collect();
    prefixes.into_iter().collect::<Option<_>>().map(MiddlewareKind::StripPath)
}

pub fn add(site: &Site<'_>, written: &At<String>, findings: &mut Findings) -> Option<MiddlewareKind> {
    prefix(site, "add_path", written, findings).map(MiddlewareKind::AddPath)
}

fn prefix(
    site: &Site<'_>,
    key: &str,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<std::sync::Arc<str>> {
    match value::path_prefix(&written.value) {
        Ok(path) if path != "/" => Some(path.into()),
        Ok(_) => {
            let message = format!("{key} `/` changes nothing");
            fault(site, Code::BadPath, &written.span, &message, "for instance `/api`", findings)
        }
        Err(refusal) => {
            let message = format!("{key} {} {}", quoted(&written.value), refusal.because);
            let hint = refusal.hint.unwrap_or_default();
            fault(site, Code::BadPath, &written.span, &message, &hint, findings)
        }
    }
}

pub fn replace(
    site: &Site<'_>,
    key: &str,
    written: &At<written::ReplacePath>,
    findings: &mut Findings,
) -> Option<ReplacePath> {
    let body = &written.value;
    let example = "for instance `{ regex = \"/old/(.*)\", to = \"/new/$1\" }`";
    let regex =
        required(site, &written.span, &format!("{key}.regex"), example, body.regex.as_ref(), findings)
            .and_then(|regex| conditions::pattern(site.file, site.by, regex, findings));
    let to = required(site, &written.span, &format!("{key}.to"), example, body.to.as_ref(), findings);
    let (regex, to) = regex.zip(to)?;
    let sound = to.value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if !sound || !to.value.starts_with(['/', '$']) {
        let message = format!("{} is not a path", quoted(&to.value));
        let hint = "it begins with `/` or a group, and holds no query, for instance `/new/$1`";
        return fault(site, Code::BadPath, &to.span, &message, hint, findings);
    }
    if let Some(unknown) = unknown_group(&regex, &to.value) {
        let message =
            format!("{} names the group `{unknown}`, which `{}` has not", quoted(&to.value), regex.as_str());
        let hint = "`$1a` is the group `1a`: write `${1}a` for group 1 and an `a`";
        return fault(site, Code::BadPattern, &to.span, &message, hint, findings);
    }
    Some(ReplacePath { regex, to: to.value.as_str().into() })
}

/// A group in a replacement that the expression doesn't have; the library would put nothing in its place.
fn unknown_group(regex: &crate::config::model::Pattern, to: &str) -> Option<String> {
    let names: Vec<_> = regex.regex().capture_names().collect();
    let mut rest = to;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let group = match rest.strip_prefix('{') {
            Some(braced) => braced.split('}').next().unwrap_or_default(),
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                &rest[..end]
            }
        };
        let known = match group.parse::<usize>() {
            Ok(number) => number < names.len(),
            Err(_) => names.contains(&Some(group)),
        };
        if !known && !group.is_empty() {
            return Some(group.to_owned());
        }
    }
    None
}
