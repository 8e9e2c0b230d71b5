//! How an allowlist is fetched: `url`, and the keys that go with it. Nothing is fetched here.

use std::time::Duration;

use http::Uri;
use ipnet::IpNet;

use super::{
    merge::Item,
    scalar::{self, HOUR, MILLISECOND, MINUTE, SECOND},
};
use crate::{
    config::{
        code::Code,
        default,
        findings::Findings,
        model::{Fetch, ListSource},
        source::FileId,
        value::{self, quoted},
        written::{self, At, List},
    },
    tls::certificates::{self, ServerAuthorities},
};

/// The built-in list's source and floor.
pub fn cloudflare() -> Fetch {
    Fetch {
        source: cloudflare_source(),
        refresh: value::duration(default::LIST_REFRESH).ok(),
        timeout: value::duration(default::LIST_TIMEOUT).unwrap_or(15 * SECOND),
        shrink_limit: default::LIST_SHRINK_LIMIT,
        authorities: ServerAuthorities::System,
        floor: floor(),
    }
}

fn cloudflare_source() -> ListSource {
    ListSource {
        urls: vec![Uri::from_static(default::CLOUDFLARE_URL)],
        json: default::CLOUDFLARE_JSON.iter().map(|&pointer| pointer.to_owned()).collect(),
    }
}

fn floor() -> Vec<IpNet> {
    default::CLOUDFLARE_PREFIXES.iter().filter_map(|text| value::prefix(text).ok()).collect()
}

/// How a written list is fetched, if it is. `[allowlist.cloudflare]` without members of its own is still the built-in
/// one: its floor stays, and its URL unless another is written.
pub fn of(item: &Item<'_, written::Allowlist>, findings: &mut Findings) -> Option<Fetch> {
    let Item { file, name, body } = *item;
    let built_in = name.value == default::CLOUDFLARE && body.prefixes.is_none() && body.file.is_none();
    let lost = findings.lost(&format!("allowlist.{}", name.value));
    let source = match &body.url {
        Some(urls) => source(item, urls, findings),
        None if built_in && body.json.is_none() => cloudflare_source(),
        None => {
            if !lost && !findings.lost(&format!("allowlist.{}.url", name.value)) {
                without_url(item, findings);
            }
            return None;
        }
    };
    let what = |key: &str| format!("allowlist `{}`: {key}", name.value);
    Some(Fetch {
        source,
        refresh: refresh(file, &what("refresh"), body.refresh.as_ref(), findings),
        timeout: scalar::duration(
            file,
            &what("timeout"),
            body.timeout.as_ref(),
            default::LIST_TIMEOUT,
            100 * MILLISECOND..=MINUTE,
            findings,
        ),
        shrink_limit: scalar::count(
            file,
            &what("shrink_limit"),
            body.shrink_limit.as_ref(),
            default::LIST_SHRINK_LIMIT,
            0..=100,
            findings,
        ),
        authorities: authorities(item, findings),
        floor: if built_in { floor() } else { Vec::new() },
    })
}

/// Keys that say how to fetch, where nothing is fetched.
fn without_url(item: &Item<'_, written::Allowlist>, findings: &mut Findings) {
    let body = item.body;
    let spans = [
        ("json", body.json.as_ref().map(|list| &list.span)),
        ("refresh", body.refresh.as_ref().map(|at| &at.span)),
        ("timeout", body.timeout.as_ref().map(|at| &at.span)),
        ("shrink_limit", body.shrink_limit.as_ref().map(|at| &at.span)),
        ("ca", body.ca.as_ref().map(|at| &at.span)),
    ];
    for (key, span) in spans {
        let Some(span) = span else { continue };
        let message = format!("allowlist `{}`: `{key}` without `url` does nothing", item.name.value);
        findings
            .error(Code::Contradiction, item.file, span, message)
            .hint(format!("add `url = \"https://…\"`, or take `{key}` out"));
    }
}

fn source(item: &Item<'_, written::Allowlist>, urls: &List, findings: &mut Findings) -> ListSource {
    let (file, name) = (item.file, &item.name.value);
    let mut source = ListSource { urls: Vec::new(), json: Vec::new() };
    if urls.items.is_empty() && !findings.lost(&format!("allowlist.{name}.url")) {
        let message = format!("allowlist `{name}`: url is an empty list");
        findings.error(Code::EmptyList, file, &urls.span, message).hint("leave the key out");
    }
    for written in &urls.items {
        let Some(url) = url(file, name, written, findings) else { continue };
        if source.urls.contains(&url) {
            let message = format!("allowlist `{name}`: url {} is written twice", quoted(&written.value));
            findings.error(Code::DefinedTwice, file, &written.span, message).hint("keep one of the two");
        }
        source.urls.push(url);
    }
    for pointer in item.body.json.iter().flat_map(|list| &list.items) {
        if !pointer.value.starts_with('/') || !pointer.value.is_ascii() {
            let message =
                format!("allowlist `{name}`: json {} is not a JSON pointer", quoted(&pointer.value));
            findings
                .error(Code::BadPointer, file, &pointer.span, message)
                .hint("it begins with `/`: `/result/ipv4_cidrs`");
        }
        source.json.push(pointer.value.clone());
    }
    if let Some(json) = item.body.json.as_ref().filter(|json| json.items.is_empty())
        && !findings.lost(&format!("allowlist.{name}.json"))
    {
        let message = format!("allowlist `{name}`: json is an empty list");
        findings
            .error(Code::EmptyList, file, &json.span, message)
            .hint("leave the key out for text with one prefix a line");
    }
    source
}

fn url(file: FileId, name: &str, written: &At<String>, findings: &mut Findings) -> Option<Uri> {
    let (because, hint) = match checked_url(&written.value) {
        Ok(url) => {
            if url.scheme_str() == Some("http") {
                let message =
                    format!("allowlist `{name}`: {} is fetched without TLS", quoted(&written.value));
                findings
                    .warning(Code::PlainList, file, &written.span, message)
                    .hint("`https://`, with `ca` for a server of your own, keeps strangers off the list");
            }
            return Some(url);
        }
        Err(refusal) => refusal,
    };
    let message = format!("allowlist `{name}`: url {} {because}", quoted(&written.value));
    findings.error(Code::BadUrl, file, &written.span, message).hint(hint);
    None
}

/// What a URL may be that something is fetched from; else why not, and what to do.
pub fn checked_url(text: &str) -> Result<Uri, (&'static str, &'static str)> {
    let example = "write `https://lists.example.com/v4.txt`";
    let url: Uri = text.parse().map_err(|_| ("is not a URL", example))?;
    match url.scheme_str() {
        Some("https" | "http") => {}
        Some(_) => return Err(("is neither https nor http", example)),
        None => return Err(("is not a URL", example)),
    }
    let authority = url.authority().ok_or(("has no host", example))?;
    if authority.as_str().contains('@') {
        return Err(("carries a user name", "secrets in a URL end up in logs: take it out"));
    }
    if text.contains('#') {
        return Err(("has a fragment", "take out what follows the `#`"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if rustls::pki_types::ServerName::try_from(host).is_err() {
        return Err(("has no usable host", example));
    }
    Ok(url)
}

fn refresh(
    file: FileId,
    what: &str,
    written: Option<&At<String>>,
    findings: &mut Findings,
) -> Option<Duration> {
    if written.is_some_and(|written| written.value == "off") {
        return None;
    }
    Some(scalar::duration(file, what, written, default::LIST_REFRESH, SECOND..=720 * HOUR, findings))
}

fn authorities(item: &Item<'_, written::Allowlist>, findings: &mut Findings) -> ServerAuthorities {
    let Some(ca) = &item.body.ca else { return ServerAuthorities::System };
    let path = findings.sources.resolve(item.file, &ca.value);
    findings.watch(&path);
    match certificates::read_authorities(&path) {
        Ok(roots) => ServerAuthorities::Own(roots),
        Err(fault) => {
            let message = format!("allowlist `{}`: {}", item.name.value, fault.sentence);
            findings.error(Code::BadAuthority, item.file, &ca.span, message).maybe_hint(fault.hint);
            ServerAuthorities::System
        }
    }
}
