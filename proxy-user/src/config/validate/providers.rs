//! `[provider.NAME]`. Nothing is asked for here.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::{
    acme, discovery,
    fetch::checked_url,
    fleet, kubernetes,
    merge::{Item, Merged},
    scalar::{self, HOUR, MILLISECOND, MINUTE, SECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Consul, Directory, HttpSource, Provider, ProviderSource, Secret},
    source::FileId,
    value::quoted,
    written::{self, At, ProviderKind},
};

/// What a header's value may have.
const LONGEST_SECRET: u64 = 16 << 10;

/// All that are written, in the order in which their documents come.
pub fn all(written: &Merged<'_>, findings: &mut Findings) -> Vec<Provider> {
    let mut all: Vec<_> =
        written.providers.items.iter().filter_map(|item| one(item, written, findings)).collect();
    all.sort_by(|one, other| (one.order, &one.name).cmp(&(other.order, &other.name)));
    all
}

fn one(
    item: &Item<'_, written::Provider>,
    written: &Merged<'_>,
    findings: &mut Findings,
) -> Option<Provider> {
    let Item { file, name, body } = *item;
    let what = |key: &str| format!("provider `{}`: {key}", name.value);
    let order =
        scalar::count(file, &what("order"), body.order.as_ref(), default::PROVIDER_ORDER, 1..=1000, findings);
    let Some(kind) = &body.kind else {
        if !findings.lost(&format!("provider.{}.kind", name.value)) {
            let message = format!("provider `{}` has no `kind`", name.value);
            findings
                .error(Code::Missing, file, &name.span, message)
                .hint("write what its source is: `kind = \"directory\"`");
        }
        return None;
    };
    foreign_keys(item, kind.value, findings);
    let source = match kind.value {
        ProviderKind::Directory => directory(item, findings).map(ProviderSource::Directory),
        ProviderKind::Http => http(item, findings).map(|http| ProviderSource::Http(Box::new(http))),
        ProviderKind::Consul => consul(item, findings).map(|consul| ProviderSource::Consul(Box::new(consul))),
        ProviderKind::ConsulCatalog => {
            discovery::catalog(item, findings).map(|catalog| ProviderSource::ConsulCatalog(Box::new(catalog)))
        }
        ProviderKind::Docker => {
            discovery::docker(item, findings).map(|docker| ProviderSource::Docker(Box::new(docker)))
        }
        ProviderKind::Etcd => {
            fleet::etcd(item, written, findings).map(|etcd| ProviderSource::Etcd(Box::new(etcd)))
        }
        ProviderKind::Kubernetes => kubernetes::kubernetes(item, written, findings)
            .map(|kubernetes| ProviderSource::Kubernetes(Box::new(kubernetes))),
    };
    Some(Provider { name: name.value.as_str().into(), order, source: source? })
}

/// Which kinds take a key.
fn foreign_keys(item: &Item<'_, written::Provider>, kind: ProviderKind, findings: &mut Findings) {
    use ProviderKind::{Consul, ConsulCatalog, Directory, Docker, Etcd, Http, Kubernetes};
    let body = item.body;
    let of = |key: &'static str, at: Option<&At<String>>, kinds: &'static [ProviderKind]| {
        (key, at.map(|at| at.span.clone()), kinds)
    };
    let tables = |at: &Option<At<std::collections::BTreeMap<_, _>>>| at.as_ref().map(|at| at.span.clone());
    let keys = [
        of("path", body.path.as_ref(), &[Directory]),
        of("url", body.url.as_ref(), &[Http]),
        of("address", body.address.as_ref(), &[Consul, ConsulCatalog, Kubernetes]),
        of("prefix", body.prefix.as_ref(), &[Consul, Etcd]),
        ("endpoints", body.endpoints.as_ref().map(|list| list.span.clone()), &[Etcd]),
        of("endpoint", body.endpoint.as_ref(), &[Docker]),
        of("network", body.network.as_ref(), &[Docker]),
        (
            "exposed_by_default",
            body.exposed_by_default.as_ref().map(|at| at.span.clone()),
            &[ConsulCatalog, Docker],
        ),
        ("tls", body.tls.as_ref().map(|at| at.span.clone()), &[Docker, Etcd]),
        of("user", body.user.as_ref(), &[Etcd]),
        of("password_file", body.password_file.as_ref(), &[Etcd]),
        of("datacenter", body.datacenter.as_ref(), &[Consul]),
        ("datacenters", body.datacenters.as_ref().map(|list| list.span.clone()), &[ConsulCatalog]),
        of("token_file", body.token_file.as_ref(), &[Consul, ConsulCatalog, Kubernetes]),
        of("every", body.every.as_ref(), &[Directory, Http]),
        of("timeout", body.timeout.as_ref(), &[Http]),
        ("headers", tables(&body.headers), &[Http]),
        ("header_files", tables(&body.header_files), &[Http]),
        of("ca", body.ca.as_ref(), &[Http, Consul, ConsulCatalog, Kubernetes]),
        of("kubeconfig", body.kubeconfig.as_ref(), &[Kubernetes]),
        ("namespaces", body.namespaces.as_ref().map(|list| list.span.clone()), &[Kubernetes]),
        of("ingress_class", body.ingress_class.as_ref(), &[Kubernetes]),
        of("gateway_class", body.gateway_class.as_ref(), &[Kubernetes]),
        ("http", body.http.as_ref().map(|list| list.span.clone()), &[Kubernetes]),
        ("https", body.https.as_ref().map(|list| list.span.clone()), &[Kubernetes]),
        ("passthrough", body.passthrough.as_ref().map(|list| list.span.clone()), &[Kubernetes]),
        ("external_names", body.external_names.as_ref().map(|at| at.span.clone()), &[Kubernetes]),
        ("secrets", body.secrets.as_ref().map(|at| at.span.clone()), &[Kubernetes]),
    ];
    for (key, span, kinds) in keys {
        let Some(span) = span.filter(|_| !kinds.contains(&kind)) else { continue };
        let message = format!(
            "provider `{}`: `{key}` says nothing to a provider of kind `{}`",
            item.name.value,
            word(kind)
        );
        let takers: Vec<_> = kinds.iter().map(|kind| format!("`{}`", word(*kind))).collect();
        findings
            .error(Code::Contradiction, item.file, &span, message)
            .hint(format!("it is for {}: take it out, or change `kind`", takers.join(" and ")));
    }
}

fn word(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Directory => "directory",
        ProviderKind::Http => "http",
        ProviderKind::Consul => "consul",
        ProviderKind::ConsulCatalog => "consul-catalog",
        ProviderKind::Docker => "docker",
        ProviderKind::Etcd => "etcd",
        ProviderKind::Kubernetes => "kubernetes",
    }
}

fn directory(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Directory> {
    let path = required(item, "path", item.body.path.as_ref(), "/srv/weir-sites", findings)?;
    Some(Directory {
        path: findings.sources.resolve(item.file, &path.value),
        every: every(item, default::PROVIDER_REREAD, findings),
    })
}

fn http(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<HttpSource> {
    let example = "https://config.example.com/edge.json";
    let url = required(item, "url", item.body.url.as_ref(), example, findings)?;
    let mut headers = HeaderMap::new();
    for (name, value) in item.body.headers.iter().flat_map(|at| &at.value) {
        header(item, name, value, &value.value, false, &mut headers, findings);
    }
    for (name, path) in item.body.header_files.iter().flat_map(|at| &at.value) {
        if let Some(secret) = secret(item.file, &what(item, "header_files"), path, findings) {
            let text = String::from_utf8_lossy(&secret.0).into_owned();
            header(item, name, path, &text, true, &mut headers, findings);
        }
    }
    Some(HttpSource {
        url: self::url(item, "url", url, findings)?,
        every: every(item, default::PROVIDER_EVERY, findings),
        timeout: scalar::duration(
            item.file,
            &what(item, "timeout"),
            item.body.timeout.as_ref(),
            default::PROVIDER_TIMEOUT,
            100 * MILLISECOND..=MINUTE,
            findings,
        ),
        headers,
        authorities: authorities(item, findings),
    })
}

fn consul(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Consul> {
    let url = consul_address(item, "`prefix` says below which key the documents are", findings)?;
    let prefix = item.body.prefix.as_ref().map_or(default::PROVIDER_PREFIX, |prefix| &prefix.value);
    let prefix = prefix.trim_matches('/').to_owned();
    let odd =
        |letter: char| letter.is_control() || letter.is_whitespace() || matches!(letter, '?' | '#' | '%');
    if let Some(written) = item.body.prefix.as_ref().filter(|_| prefix.is_empty() || prefix.contains(odd)) {
        let message = format!("{} {} is not a key's beginning", what(item, "prefix"), quoted(&written.value));
        findings
            .error(Code::WrongValue, item.file, &written.span, message)
            .hint("for instance `/weir/`: one or more names with slashes between them");
    }
    let datacenter = item.body.datacenter.as_ref().map(|name| datacenter(item, "datacenter", name, findings));
    Some(Consul {
        address: url,
        prefix,
        datacenter,
        token: token(item, findings),
        authorities: authorities(item, findings),
    })
}

/// Where a Consul answers: without a path.
pub(super) fn consul_address(
    item: &Item<'_, written::Provider>,
    hint: &str,
    findings: &mut Findings,
) -> Option<Uri> {
    let address = required(item, "address", item.body.address.as_ref(), "http://127.0.0.1:8500", findings)?;
    self::address(item, address, hint, findings)
}

pub(super) fn datacenter(
    item: &Item<'_, written::Provider>,
    key: &str,
    name: &At<String>,
    findings: &mut Findings,
) -> String {
    if crate::config::value::name(&name.value).is_err() {
        let message = format!("{} {} is not a datacenter's name", what(item, key), quoted(&name.value));
        findings.error(Code::BadName, item.file, &name.span, message);
    }
    name.value.clone()
}

pub(super) fn token(item: &Item<'_, written::Provider>, findings: &mut Findings) -> Option<Secret> {
    let path = item.body.token_file.as_ref()?;
    secret(item.file, &what(item, "token_file"), path, findings)
}

fn required<'a>(
    item: &Item<'_, written::Provider>,
    key: &str,
    written: Option<&'a At<String>>,
    example: &str,
    findings: &mut Findings,
) -> Option<&'a At<String>> {
    let lost = || format!("provider.{}.{key}", item.name.value);
    match written {
        Some(written) if !written.value.is_empty() => return written.into(),
        Some(_) => {}
        None if findings.lost(&lost()) => return None,
        None => {}
    }
    let span = written.map_or(&item.name.span, |written| &written.span);
    let message = format!("provider `{}` has no `{key}`", item.name.value);
    findings
        .error(Code::Missing, item.file, span, message)
        .hint(format!("for instance `{key} = \"{example}\"`"));
    None
}

fn every(item: &Item<'_, written::Provider>, default: &str, findings: &mut Findings) -> Duration {
    let written = item.body.every.as_ref();
    scalar::duration(item.file, &what(item, "every"), written, default, SECOND..=24 * HOUR, findings)
}

/// An address of a server's API: a URL without a path.
pub(super) fn address(
    item: &Item<'_, written::Provider>,
    written: &At<String>,
    hint: &str,
    findings: &mut Findings,
) -> Option<Uri> {
    let url = url(item, "address", written, findings)?;
    if url.path_and_query().is_some_and(|path| path.as_str() != "/") {
        let message = format!("{} {} has a path", what(item, "address"), quoted(&written.value));
        findings.error(Code::BadUrl, item.file, &written.span, message).hint(hint);
    }
    Some(url)
}

/// An address that something is fetched from. Without TLS only on this host it goes without a warning.
fn url(
    item: &Item<'_, written::Provider>,
    key: &str,
    written: &At<String>,
    findings: &mut Findings,
) -> Option<Uri> {
    let what = what(item, key);
    match checked_url(&written.value) {
        Ok(url) => {
            let local = url.host().is_some_and(|host| matches!(host, "127.0.0.1" | "[::1]" | "localhost"));
            if url.scheme_str() == Some("http") && !local {
                let message = format!("{what} {} is asked without TLS", quoted(&written.value));
                findings
                    .warning(Code::PlainProvider, item.file, &written.span, message)
                    .hint("`https://`, with `ca` for a server of your own, keeps strangers out");
            }
            Some(url)
        }
        Err((because, hint)) => {
            let hint =
                hint.replace("https://lists.example.com/v4.txt", "https://config.example.com/edge.json");
            let message = format!("{what} {} {because}", quoted(&written.value));
            findings.error(Code::BadUrl, item.file, &written.span, message).hint(hint);
            None
        }
    }
}

fn header(
    item: &Item<'_, written::Provider>,
    name: &written::Name,
    at: &At<String>,
    value: &str,
    secret: bool,
    headers: &mut HeaderMap,
    findings: &mut Findings,
) {
    let key = if secret { "header_files" } else { "headers" };
    let Ok(field) = name.value.parse::<HeaderName>() else {
        let message = format!("{}: {} is not a header's name", what(item, key), quoted(&name.value));
        findings.error(Code::BadHeader, item.file, &name.span, message);
        return;
    };
    let ours = [
        http::header::HOST,
        http::header::CONNECTION,
        http::header::CONTENT_LENGTH,
        http::header::TRANSFER_ENCODING,
        http::header::ACCEPT_ENCODING,
        http::header::IF_NONE_MATCH,
    ];
    if ours.contains(&field) {
        let message = format!("{}: `{field}` is Weir's own to write", what(item, key));
        findings.error(Code::BadHeader, item.file, &name.span, message).hint("take it out");
        return;
    }
    let Ok(mut value) = HeaderValue::from_str(value) else {
        let message = format!("{}: what stands there is not a header's value", what(item, key));
        findings
            .error(Code::BadHeader, item.file, &at.span, message)
            .hint("one line of visible ASCII characters");
        return;
    };
    value.set_sensitive(secret);
    if headers.insert(field.clone(), value).is_some() {
        let message = format!("{}: `{field}` is written twice", what(item, key));
        findings.error(Code::DefinedTwice, item.file, &name.span, message).hint("keep one of the two");
    }
}

/// A secret that somebody else has made: it may be short.
fn secret(file: FileId, what: &str, written: &At<String>, findings: &mut Findings) -> Option<Secret> {
    let path = findings.sources.resolve(file, &written.value);
    findings.watch(&path);
    let fault = match crate::config::gather::text(&path, LONGEST_SECRET) {
        Ok(text) if text.trim().is_empty() => "it is empty".to_owned(),
        Ok(text) if text.trim().contains(|letter: char| letter.is_control()) => {
            "it has more than one line".to_owned()
        }
        Ok(text) => return Some(Secret(text.trim().as_bytes().into())),
        Err(error) => crate::config::gather::reason(&error),
    };
    let message = format!("{what}: {} can't be used: {fault}", quoted(&path.to_string_lossy()));
    findings
        .error(Code::BadSecret, file, &written.span, message)
        .hint("it holds the secret and nothing else, and Weir must be allowed to read it");
    None
}

pub(super) fn authorities(
    item: &Item<'_, written::Provider>,
    findings: &mut Findings,
) -> crate::tls::certificates::ServerAuthorities {
    acme::authorities(&format!("provider `{}`", item.name.value), item.file, item.body.ca.as_ref(), findings)
}

pub(super) fn what(item: &Item<'_, written::Provider>, key: &str) -> String {
    format!("provider `{}`: {key}", item.name.value)
}
