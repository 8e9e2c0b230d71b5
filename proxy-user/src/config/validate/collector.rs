//! Where something is sent by OTLP: the keys that `[tracing]` and `[metrics]` have in common.

use std::{collections::BTreeMap, ops::Range};

use http::{HeaderName, HeaderValue, Uri};
use rustls::pki_types::ServerName;

use super::{
    acme::authorities,
    scalar::{self, MILLISECOND, MINUTE},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Collector, OtlpProtocol, ServiceTls},
    source::FileId,
    value::quoted,
    written::{At, Name},
};

/// As they are written in a section.
pub(super) struct Keys<'a> {
    pub section: &'static str,
    pub file: FileId,
    /// The section's own place.
    pub span: &'a Range<usize>,
    pub endpoint: Option<&'a At<String>>,
    pub protocol: Option<&'a At<OtlpProtocol>>,
    pub service: Option<&'a At<String>>,
    pub attributes: &'a BTreeMap<Name, At<String>>,
    pub headers: &'a BTreeMap<Name, At<String>>,
    pub timeout: Option<&'a At<String>>,
    pub ca: Option<&'a At<String>>,
}

/// What is asked for, unless the endpoint has a path.
pub(super) struct Paths {
    pub grpc: &'static str,
    pub http: &'static str,
}

/// `None`: there is none, which the findings say.
pub(super) fn collector(keys: &Keys<'_>, paths: &Paths, findings: &mut Findings) -> Option<Collector> {
    let Keys { section, file, .. } = *keys;
    let protocol = keys.protocol.map_or(OtlpProtocol::Grpc, |protocol| protocol.value);
    let timeout = scalar::duration(
        file,
        &format!("{section}.timeout"),
        keys.timeout,
        default::OTLP_TIMEOUT,
        100 * MILLISECOND..=MINUTE,
        findings,
    );
    let service = keys.service.map_or(default::OTLP_SERVICE, |service| &service.value).to_owned();
    let attributes =
        keys.attributes.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
    let headers = keys
        .headers
        .iter()
        .filter_map(|(name, value)| header(section, file, name, value, findings))
        .collect();
    let Some(endpoint) = keys.endpoint else {
        if !findings.lost(&format!("{section}.endpoint")) {
            let message = format!("`[{section}]` has no `endpoint`: there is no collector");
            findings
                .error(Code::Missing, file, keys.span, message)
                .hint("write `endpoint = \"http://127.0.0.1:4317\"`, or take the section out");
        }
        return None;
    };
    let (endpoint, host) = match checked(&endpoint.value, protocol, paths) {
        Ok(known) => known,
        Err((because, hint)) => {
            let message = format!("{section}.endpoint: {} {because}", quoted(&endpoint.value));
            findings.error(Code::BadUrl, file, &endpoint.span, message).hint(hint);
            return None;
        }
    };
    let encrypted = endpoint.scheme_str() == Some("https");
    if let (Some(ca), false) = (keys.ca, encrypted) {
        let message = format!("`{section}.ca` without `https` does nothing");
        findings
            .error(Code::Contradiction, file, &ca.span, message)
            .hint("write `https://` in `endpoint`, or take `ca` out");
    }
    let tls = encrypted.then(|| ServiceTls {
        server_name: host,
        authorities: authorities(&format!("{section}.ca"), file, keys.ca, findings),
        certificate: None,
    });
    Some(Collector { endpoint, tls, protocol, service, attributes, headers, timeout })
}

fn checked(
    text: &str,
    protocol: OtlpProtocol,
    paths: &Paths,
) -> Result<(Uri, ServerName<'static>), (&'static str, &'static str)> {
    let example = "write `http://127.0.0.1:4317`";
    let url: Uri = text.parse().map_err(|_| ("is not a URL", example))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(("is neither http nor https", example));
    }
    let authority = url.authority().ok_or(("has no host", example))?;
    if authority.as_str().contains('@') {
        return Err(("carries a user name", "secrets belong in `headers`"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = ServerName::try_from(host).map_err(|_| ("has no usable host", example))?;
    let path = match (protocol, url.path()) {
        (OtlpProtocol::Grpc, "/") => paths.grpc,
        (OtlpProtocol::Grpc, _) => return Err(("has a path, and gRPC has its own", "take the path out")),
        (OtlpProtocol::Http, "/") => paths.http,
        (OtlpProtocol::Http, path) => path,
    };
    let mut parts = url.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).map(|url| (url, host)).map_err(|_| ("is not a URL", example))
}

fn header(
    section: &str,
    file: FileId,
    name: &At<String>,
    value: &At<String>,
    findings: &mut Findings,
) -> Option<(HeaderName, HeaderValue)> {
    let known = name.value.parse::<HeaderName>().ok();
    let sound = HeaderValue::from_str(&value.value).ok();
    if known.is_none() || sound.is_none() {
        // The value is most likely a secret: it isn't shown.
        let (span, what) = if known.is_none() { (&name.span, "name") } else { (&value.span, "value") };
        let message = format!("{section}.headers: {} has no usable {what}", quoted(&name.value));
        findings
            .error(Code::BadHeader, file, span, message)
            .hint("names are tokens such as `x-api-key`, values hold visible characters only");
    }
    let mut value = sound?;
    value.set_sensitive(true);
    Some((known?, value))
}
