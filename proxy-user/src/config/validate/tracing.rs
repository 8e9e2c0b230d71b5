//! `[tracing]`

use http::{HeaderName, HeaderValue, Uri};
use rustls::pki_types::ServerName;

use super::{
    acme::authorities,
    merge::Merged,
    scalar::{self, MILLISECOND, MINUTE},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Filter, ParentTrust, ServiceTls, TraceProtocol, Tracing},
    source::FileId,
    value::quoted,
    written::{self, At},
};

pub fn tracing(written: &Merged<'_>, findings: &mut Findings) -> Option<Tracing> {
    let (file, section) = written.tracing?;
    let body = &section.value;
    let protocol = body.protocol.as_ref().map_or(TraceProtocol::Grpc, |protocol| protocol.value);
    let sample = scalar::share(
        file,
        "tracing.sample",
        body.sample.as_ref(),
        default::TRACE_SAMPLE,
        0..=Filter::ALL,
        findings,
    );
    let timeout = scalar::duration(
        file,
        "tracing.timeout",
        body.timeout.as_ref(),
        default::TRACE_TIMEOUT,
        100 * MILLISECOND..=MINUTE,
        findings,
    );
    let parent = match body.parent.as_ref().map(|parent| parent.value) {
        None | Some(written::Parent::Trusted) => ParentTrust::Trusted,
        Some(written::Parent::Always) => ParentTrust::Always,
        Some(written::Parent::Never) => ParentTrust::Never,
    };
    let service = body.service.as_ref().map_or(default::TRACE_SERVICE, |service| &service.value).to_owned();
    let attributes =
        body.attributes.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
    let headers =
        body.headers.iter().filter_map(|(name, value)| header(file, name, value, findings)).collect();
    let Some(endpoint) = &body.endpoint else {
        if !findings.lost("tracing.endpoint") {
            findings
                .error(
                    Code::Missing,
                    file,
                    &section.span,
                    "`[tracing]` has no `endpoint`: there is no collector",
                )
                .hint("write `endpoint = \"http://127.0.0.1:4317\"`, or take the section out");
        }
        return None;
    };
    let (endpoint, host) = match checked(&endpoint.value, protocol) {
        Ok(known) => known,
        Err((because, hint)) => {
            let message = format!("tracing.endpoint: {} {because}", quoted(&endpoint.value));
            findings.error(Code::BadUrl, file, &endpoint.span, message).hint(hint);
            return None;
        }
    };
    let encrypted = endpoint.scheme_str() == Some("https");
    if let (Some(ca), false) = (&body.ca, encrypted) {
        findings
            .error(Code::Contradiction, file, &ca.span, "`tracing.ca` without `https` does nothing")
            .hint("write `https://` in `endpoint`, or take `ca` out");
    }
    let tls = encrypted.then(|| ServiceTls {
        server_name: host,
        authorities: authorities("tracing.ca", file, body.ca.as_ref(), findings),
        certificate: None,
    });
    Some(Tracing { endpoint, tls, protocol, sample, parent, service, attributes, headers, timeout })
}

fn checked(
    text: &str,
    protocol: TraceProtocol,
) -> Result<(Uri, ServerName<'static>), (&'static str, &'static str)> {
    let example = "write `http://127.0.0.1:4317`";
    let url: Uri = text.parse().map_err(|_| ("is not a URL", example))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(("is neither http nor https", example));
    }
    let authority = url.authority().ok_or(("has no host", example))?;
    if authority.as_str().contains('@') {
        return Err(("carries a user name", "secrets belong in `tracing.headers`"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = ServerName::try_from(host).map_err(|_| ("has no usable host", example))?;
    let path = match (protocol, url.path()) {
        (TraceProtocol::Grpc, "/") => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        (TraceProtocol::Grpc, _) => return Err(("has a path, and gRPC has its own", "take the path out")),
        (TraceProtocol::Http, "/") => "/v1/traces",
        (TraceProtocol::Http, path) => path,
    };
    let mut parts = url.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).map(|url| (url, host)).map_err(|_| ("is not a URL", example))
}

fn header(
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
        let message = format!("tracing.headers: {} has no usable {what}", quoted(&name.value));
        findings
            .error(Code::BadHeader, file, span, message)
            .hint("names are tokens such as `x-api-key`, values hold visible characters only");
    }
    let mut value = sound?;
    value.set_sensitive(true);
    Some((known?, value))
}
