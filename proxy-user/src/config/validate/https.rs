//! What an entrypoint does for HTTPS beside TLS: `redirect`, `hsts` and `http3`.

use http::{HeaderValue, StatusCode};

use super::{
    merge::Item,
    scalar::{self, DAY},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::RedirectToHttps,
    value::{self, quoted},
    written::{self, At},
};

/// The least that browsers' preload lists take.
const PRELOAD_LEAST: std::time::Duration = DAY.saturating_mul(365);

/// The value of `Strict-Transport-Security`.
pub fn hsts(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> Option<HeaderValue> {
    let written = item.body.hsts.as_ref()?;
    let (name, body) = (&item.name.value, &written.value);
    if item.body.tls.is_none() && !findings.lost(&format!("entrypoint.{name}.tls")) {
        let message =
            format!("entrypoint `{name}`: `hsts` without `tls` does nothing: browsers ignore it there");
        findings
            .error(Code::Contradiction, item.file, &written.span, message)
            .hint("move it to the entrypoint with `tls`; here, `redirect = \"https\"` sends visitors there");
    }
    let age = scalar::duration(
        item.file,
        &format!("entrypoint `{name}`: hsts.max_age"),
        body.max_age.as_ref(),
        default::HSTS_MAX_AGE,
        std::time::Duration::ZERO..=3650 * DAY,
        findings,
    );
    let below = is_on(body.include_subdomains.as_ref());
    if let Some(preload) = body.preload.as_ref().filter(|preload| preload.value)
        && (!below || age < PRELOAD_LEAST)
    {
        let message = format!("entrypoint `{name}`: browsers don't take such an `hsts` for preloading");
        findings
            .error(Code::Contradiction, item.file, &preload.span, message)
            .hint("they want `include_subdomains = true` and a `max_age` of at least `1y`");
    }
    let mut value = format!("max-age={}", age.as_secs());
    if below {
        value.push_str("; includeSubDomains");
    }
    if is_on(body.preload.as_ref()) {
        value.push_str("; preload");
    }
    HeaderValue::try_from(value).ok()
}

/// Whether the entrypoint is there over UDP too.
pub fn http3(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> bool {
    let Some(written) = item.body.http3.as_ref().filter(|written| written.value) else { return false };
    let name = &item.name.value;
    if item.body.tls.is_none() && !findings.lost(&format!("entrypoint.{name}.tls")) {
        let message =
            format!("entrypoint `{name}`: `http3 = true` without `tls`: HTTP/3 is always encrypted");
        findings
            .error(Code::Contradiction, item.file, &written.span, message)
            .hint("give the entrypoint a certificate, `tls = { certificates = \"/etc/weir/certs\" }`, or take `http3` out");
    }
    if let Some(proxies) = &item.body.proxy_protocol {
        let message = format!(
            "entrypoint `{name}`: `http3 = true` and `proxy_protocol`: behind a proxy of TCP nobody comes over UDP"
        );
        findings
            .error(Code::Contradiction, item.file, &written.span, message)
            .related(item.file, &proxies.span, "because of this")
            .hint("take one of the two out, or give HTTP/3 an entrypoint of its own");
    }
    true
}

fn is_on(written: Option<&At<bool>>) -> bool {
    written.is_some_and(|written| written.value)
}

pub fn redirect(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> Option<RedirectToHttps> {
    let (file, name, body) = (item.file, &item.name.value, item.body);
    let Some(written) = &body.redirect else {
        let spans = [
            ("redirect_status", body.redirect_status.as_ref().map(|at| &at.span)),
            ("redirect_except", body.redirect_except.as_ref().map(|list| &list.span)),
        ];
        for (key, span) in spans {
            let Some(span) = span.filter(|_| !findings.lost(&format!("entrypoint.{name}.redirect"))) else {
                continue;
            };
            let message = format!("entrypoint `{name}`: `{key}` without `redirect` does nothing");
            findings
                .error(Code::Contradiction, file, span, message)
                .hint(format!("add `redirect = \"https\"`, or take `{key}` out"));
        }
        return None;
    };
    if let Some(tls) = &body.tls {
        let message =
            format!("entrypoint `{name}` speaks HTTPS already: `redirect` would go round in circles");
        findings
            .error(Code::Contradiction, file, &written.span, message)
            .related(file, &tls.span, "because of this")
            .hint("`redirect` belongs to the entrypoint without `tls`");
    }
    Some(RedirectToHttps {
        port: port(item, written, findings)?,
        status: status(item, findings),
        except: except(item, findings),
    })
}

/// The outer `None`: it was refused. The inner one: the port that goes without saying.
fn port(
    item: &Item<'_, written::Entrypoint>,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<Option<u16>> {
    let port = match written.value.strip_prefix("https") {
        Some("") => return Some(None),
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        None => None,
    };
    if port.is_none() {
        let message = format!(
            "entrypoint `{}`: redirect {} is neither `https` nor `https:PORT`",
            item.name.value,
            quoted(&written.value)
        );
        findings
            .error(Code::WrongValue, item.file, &written.span, message)
            .hint("write `redirect = \"https\"`");
    }
    port.map(|port| Some(port).filter(|port| *port != 443))
}

fn status(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> StatusCode {
    let Some(written) = &item.body.redirect_status else { return StatusCode::PERMANENT_REDIRECT };
    match written.value {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            let message = format!(
                "entrypoint `{}`: redirect_status is `{other}`, which is no redirect",
                item.name.value
            );
            findings
                .error(Code::OutOfRange, item.file, &written.span, message)
                .hint("308 and 307 keep the method, 301 and 302 are older; 308 and 301 are for good");
            StatusCode::PERMANENT_REDIRECT
        }
    }
}

fn except(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> Vec<std::sync::Arc<str>> {
    let mut paths = Vec::new();
    for written in item.body.redirect_except.iter().flat_map(|list| &list.items) {
        match value::path_prefix(&written.value) {
            Ok(path) => paths.push(path.into()),
            Err(refusal) => {
                let before = format!("entrypoint `{}`: redirect_except", item.name.value);
                scalar::refused(item.file, Code::BadPath, &before, written, refusal, findings);
            }
        }
    }
    paths
}
