//! Requests as OTLP spans: a `SERVER` span for the request, a `CLIENT` span for each attempt, `INTERNAL` ones for what lies
//! within. Names and attributes are those of OpenTelemetry's conventions for HTTP; what is Weir's own begins with `weir.`.
//!
//! The numbers are those of `opentelemetry/proto/trace/v1/trace.proto`.

use http::{Method, Version};

use super::span::{Attempt, Record};
use crate::{
    access_log::{attempts::Outcome, ending::Blame},
    config::model::Collector,
    otlp::{flag, number, proto::Message, resource, scope, text},
};

const INTERNAL: i64 = 1;
const SERVER: i64 = 2;
const CLIENT: i64 = 3;

/// `STATUS_CODE_ERROR`
const ERROR: i64 = 2;

/// The span's context says whether its parent is elsewhere: bit 8 that it is known, bit 9 that it is so.
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;
const SAMPLED: u32 = 1;

/// An `ExportTraceServiceRequest` with the spans of all `records`.
pub fn request(collector: &Collector, records: &[Record]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |of| resource(of, collector));
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, scope);
            for record in records {
                spans(scope_spans, record);
            }
        });
    });
    request.into_bytes()
}

/// One span's ids, name and times.
struct Span<'a> {
    record: &'a Record,
    id: u64,
    parent: Option<u64>,
    name: &'a str,
    kind: i64,
    begun: u64,
    ended: u64,
    remote: bool,
}

impl Span<'_> {
    /// `error`: what it ended with, if that is one.
    fn write(self, into: &mut Message, error: Option<&str>, attributes: impl FnOnce(&mut Message)) {
        let Self { record, id, parent, name, kind, begun, ended, remote } = self;
        into.message(2, |span| {
            span.bytes(1, &record.trace.to_be_bytes());
            span.bytes(2, &id.to_be_bytes());
            if let Some(parent) = parent {
                span.bytes(4, &parent.to_be_bytes());
            }
            span.text(5, name);
            span.number(6, kind);
            span.fixed_64(7, begun);
            span.fixed_64(8, ended.max(begun));
            attributes(span);
            if error.is_some() {
                span.message(15, |status| status.number(3, ERROR));
            }
            let remote = if remote { REMOTE } else { 0 };
            span.fixed_32(16, SAMPLED | REMOTE_KNOWN | remote);
        });
    }
}

fn spans(into: &mut Message, record: &Record) {
    let inner = |nth: u64, parent, name, begun, ended| Span {
        record,
        id: beside(record.span, nth),
        parent: Some(parent),
        name,
        kind: INTERNAL,
        begun: record.nanos(begun),
        ended: record.nanos(ended),
        remote: false,
    };
    of_request(into, record);
    if let Some((begun, took)) = record.handshake {
        inner(1, record.span, "tls handshake", begun, begun + took).write(into, None, |_| {});
    }
    for (nth, attempt) in (0_u64..).zip(&record.attempts) {
        let id = super::attempt_span(record.span, nth);
        of_attempt(into, record, attempt, id);
        if let Some(took) = attempt.connect {
            let span = inner(3 + nth, id, "connect", attempt.begun, attempt.begun + took);
            span.write(into, None, |span| flag(span, 9, "weir.tls", attempt.encrypted));
        }
    }
    if let Some(page) = &record.page {
        inner(2, record.span, "page", page.begun, page.ended)
            .write(into, None, |span| text(span, 9, "weir.page", page.why.name()));
    }
}

/// The id of the nth span within a request that is no attempt. As distinct from others as chance makes it.
fn beside(span: u64, nth: u64) -> u64 {
    (span.rotate_left(32) ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
}

fn of_request(into: &mut Message, record: &Record) {
    let method = known(&record.method);
    let mut name = method.unwrap_or("HTTP").to_owned();
    if let Some(route) = &record.route {
        name.push(' ');
        name.push_str(route);
    }
    let status = record.status;
    let is_error = status.is_server_error() || matches!(record.blame, Some(Blame::Server | Blame::Weir));
    // The conventions ask for the status where nothing says more.
    let error = is_error.then(|| record.why.unwrap_or(status.as_str()));
    let span = Span {
        record,
        id: record.span,
        parent: record.parent,
        name: &name,
        kind: SERVER,
        begun: record.nanos(record.began),
        ended: record.nanos(record.ended),
        remote: record.parent.is_some(),
    };
    span.write(into, error, |span| {
        text(span, 9, "http.request.method", method.unwrap_or("_OTHER"));
        if method.is_none() {
            text(span, 9, "http.request.method_original", record.method.as_str());
        }
        let target = String::from_utf8_lossy(&record.target);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        text(span, 9, "url.path", path);
        if !query.is_empty() {
            text(span, 9, "url.query", query);
        }
        text(span, 9, "url.scheme", scheme(record.encrypted));
        if let Some(host) = &record.host {
            let host = String::from_utf8_lossy(host.as_bytes());
            let (name, port) = host_and_port(&host);
            text(span, 9, "server.address", name);
            number(span, 9, "server.port", i64::from(port.unwrap_or(record.port)));
        }
        text(span, 9, "client.address", &String::from_utf8_lossy(record.client.as_bytes()));
        text(span, 9, "network.protocol.name", "http");
        text(span, 9, "network.protocol.version", version(record.version));
        if let Some(user_agent) = &record.user_agent {
            text(span, 9, "user_agent.original", &String::from_utf8_lossy(user_agent.as_bytes()));
        }
        number(span, 9, "http.response.status_code", i64::from(status.as_u16()));
        number(span, 9, "http.request.body.size", count(record.bytes_in));
        number(span, 9, "http.response.body.size", count(record.bytes_out));
        if let Some(route) = &record.route {
            text(span, 9, "http.route", route);
        }
        if let Some(error) = error {
            text(span, 9, "error.type", error);
        }
        text(span, 9, "weir.entrypoint", &record.entrypoint);
        text(span, 9, "weir.request_id", &String::from_utf8_lossy(record.request_id.as_bytes()));
        if let Some(variant) = &record.variant {
            text(span, 9, "weir.variant", variant);
        }
        if let Some(blame) = record.blame {
            text(span, 9, "weir.fault", blame.name());
        }
        if let Some(why) = record.why {
            text(span, 9, "weir.why", why);
        }
    });
}

fn of_attempt(into: &mut Message, record: &Record, attempt: &Attempt, id: u64) {
    let method = known(&attempt.method);
    let status = match attempt.outcome {
        Some(Outcome::Answered(status)) => Some(status),
        Some(Outcome::Failed(_)) | None => None,
    };
    let error = match &attempt.outcome {
        Some(Outcome::Answered(status)) if status.as_u16() < 400 => None,
        Some(Outcome::Answered(status)) => Some(status.as_str()),
        Some(Outcome::Failed(why)) => Some(*why),
        // Another answered first, or nobody waited any longer.
        None => Some("given_up"),
    };
    let span = Span {
        record,
        id,
        parent: Some(record.span),
        name: method.unwrap_or("HTTP"),
        kind: CLIENT,
        begun: record.nanos(attempt.begun),
        ended: record.nanos(attempt.ended.unwrap_or(record.ended)),
        remote: false,
    };
    span.write(into, error, |span| {
        text(span, 9, "http.request.method", method.unwrap_or("_OTHER"));
        let address = attempt.server.0;
        text(span, 9, "server.address", &address.ip().to_string());
        number(span, 9, "server.port", i64::from(address.port()));
        text(span, 9, "url.full", &url(record, attempt));
        if let Some(status) = status {
            number(span, 9, "http.response.status_code", i64::from(status.as_u16()));
        }
        if attempt.resends > 0 {
            number(span, 9, "http.request.resend_count", i64::from(attempt.resends));
        }
        if let Some(error) = error {
            text(span, 9, "error.type", error);
        }
        text(span, 9, "weir.service", &attempt.service);
    });
}

fn url(record: &Record, attempt: &Attempt) -> String {
    let host = match &attempt.host {
        Some(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        None => attempt.server.0.to_string(),
    };
    let mut target = Vec::new();
    let path = attempt.target.as_ref().map_or("/", |target| target.as_str());
    record.redact.of_query(path.as_bytes(), |piece| target.extend_from_slice(piece));
    format!("{}://{host}{}", scheme(attempt.encrypted), String::from_utf8_lossy(&target))
}

/// The conventions' list: a span's name must not be a client's invention.
fn known(method: &Method) -> Option<&str> {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ];
    KNOWN.contains(method).then(|| method.as_str())
}

fn scheme(encrypted: bool) -> &'static str {
    if encrypted { "https" } else { "http" }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn host_and_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_their_ports() {
        for (host, expected) in [
            ("a.example", ("a.example", None)),
            ("a.example:8443", ("a.example", Some(8443))),
            ("[::1]", ("[::1]", None)),
            ("[::1]:80", ("[::1]", Some(80))),
        ] {
            assert_eq!(host_and_port(host), expected);
        }
    }

    #[test]
    fn the_spans_within_a_request_are_distinct() {
        let span = 0x00f0_67aa_0ba9_02b7;
        let mut ids: Vec<_> = (1..10).map(|nth| beside(span, nth)).collect();
        ids.extend((0..9).map(|nth| super::super::attempt_span(span, nth)));
        ids.push(span);
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
