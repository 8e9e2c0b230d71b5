//! A line of an access log: as JSON, in the "combined" format of Apache and nginx, or after a [`template`].
//!
//! Written by hand into the worker's buffer: this runs once per request, and a serializer costs several times as much.

mod template;

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, HeaderValue, Version};

use crate::{
    access_log::{
        Exchange, attempts,
        ending::Ended,
        redact::{REDACTED, Redaction},
    },
    config::model::{AccessLog, AccessLogFormat},
    hygiene::Fault,
    middleware::reason::Reason,
};

/// The text of the current second, since the calendar is costly and seconds are long.
#[derive(Debug, Default)]
pub struct Stamp {
    second: u64,
    /// `2026-11-21T05:48:54`
    rfc3339: String,
    /// `21/Nov/2026:05:48:54 +0000`
    common: String,
    /// Of the request that is written.
    millis: u32,
}

/// Appends the line of `exchange`, with its line end.
pub fn line(
    log: &AccessLog,
    exchange: &Exchange,
    ended: &Ended,
    redact: &Redaction,
    stamp: &mut Stamp,
    out: &mut Vec<u8>,
) {
    let since_epoch = exchange.began_at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    stamp.renew(since_epoch.as_secs());
    stamp.millis = since_epoch.subsec_millis();
    match &log.format {
        AccessLogFormat::Json => json(log, exchange, ended, redact, stamp, out),
        AccessLogFormat::Combined => combined(exchange, redact, stamp, out),
        AccessLogFormat::Template(template) => {
            template::filled(&template.pieces, exchange, ended, redact, stamp, out);
        }
    }
    out.push(b'\n');
}

/// `,"name":`
macro_rules! key {
    ($out:expr, $name:literal) => {
        $out.extend_from_slice(concat!(",\"", $name, "\":").as_bytes())
    };
}

macro_rules! text {
    ($out:expr, $name:literal, $value:expr) => {{
        key!($out, $name);
        string($out, $value);
    }};
}

macro_rules! number {
    ($out:expr, $name:literal, $value:expr) => {{
        key!($out, $name);
        $out.extend_from_slice(itoa::Buffer::new().format($value).as_bytes());
    }};
}

fn json(
    log: &AccessLog,
    exchange: &Exchange,
    ended: &Ended,
    redact: &Redaction,
    stamp: &Stamp,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"ts\":\"");
    stamp.rfc3339(out);
    out.push(b'"');
    text!(out, "client_ip", exchange.client.as_bytes());
    text!(out, "entrypoint", exchange.entrypoint.as_bytes());
    text!(out, "method", exchange.method.as_str().as_bytes());
    if let Some(host) = &exchange.host {
        text!(out, "host", host.as_bytes());
    }
    key!(out, "path");
    out.push(b'"');
    redact.of_query(path(exchange), |piece| escaped(out, piece));
    out.push(b'"');
    text!(out, "protocol", protocol(exchange.version).as_bytes());
    number!(out, "status", exchange.status.as_u16());
    number!(out, "bytes_in", exchange.received.bytes.get());
    number!(out, "bytes_out", exchange.bytes_out);
    number!(out, "duration_us", micros(ended.took));
    if let Some(body) = ended.split.body {
        number!(out, "body_us", micros(body));
    }
    if let Some(wait) = ended.split.wait {
        number!(out, "wait_us", micros(wait));
    }
    if let Some(connect) = ended.split.connect {
        number!(out, "connect_us", micros(connect));
    }
    if let Some(first_byte) = ended.split.first_byte {
        number!(out, "first_byte_us", micros(first_byte));
    }
    if let Some(answer) = ended.split.answer {
        number!(out, "answer_us", micros(answer));
    }
    if let Some(server) = &exchange.server {
        text!(out, "upstream", server.as_bytes());
    }
    if let Some(took) = exchange.server_took {
        number!(out, "upstream_us", micros(took));
    }
    attempts::written(out, &exchange.attempts);
    if let Some(route) = &exchange.route {
        text!(out, "route", route.as_bytes());
    }
    if let Some(variant) = &exchange.variant {
        text!(out, "variant", variant.as_bytes());
    }
    if let Some(user_agent) = &exchange.user_agent {
        text!(out, "user_agent", user_agent.as_bytes());
    }
    if let Some(noted) = &exchange.noted {
        if !log.request_headers.is_empty() {
            key!(out, "request_headers");
            headers(&log.request_headers, |name| noted.of_request(name), redact, out);
        }
        if !log.response_headers.is_empty() {
            key!(out, "response_headers");
            headers(&log.response_headers, |name| noted.of_response(name), redact, out);
        }
    }
    text!(out, "request_id", exchange.request_id.as_bytes());
    if let Some(trace) = &exchange.trace {
        text!(out, "trace_id", &trace.id_text());
    }
    if exchange.flags.none() && ended.blame.is_none() {
        out.extend_from_slice(b",\"flags\":[]}");
        return;
    }
    flags(exchange, ended, out);
    out.push(b'}');
}

fn headers<'a>(
    wanted: &'a [HeaderName],
    value: impl Fn(&HeaderName) -> Option<&'a HeaderValue>,
    redact: &Redaction,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    let start = out.len();
    for name in wanted {
        let Some(value) = value(name) else { continue };
        if out.len() > start {
            out.push(b',');
        }
        string(out, name.as_str().as_bytes());
        out.push(b':');
        string(out, if redact.hides(name) { REDACTED.as_bytes() } else { value.as_bytes() });
    }
    out.push(b'}');
}

fn flags(exchange: &Exchange, ended: &Ended, out: &mut Vec<u8>) {
    let flags = exchange.flags;
    key!(out, "flags");
    out.push(b'[');
    let start = out.len();
    for name in flags.names() {
        if out.len() > start {
            out.push(b',');
        }
        string(out, name.as_bytes());
    }
    out.push(b']');
    if let Some(blame) = ended.blame {
        text!(out, "fault", blame.name().as_bytes());
    }
    if flags.retries > 0 {
        number!(out, "retries", flags.retries);
    }
    if let Some(why) = flags.undelivered {
        text!(out, "undelivered", why.as_bytes());
    }
    if let Some(why) = flags.page {
        text!(out, "page", why.name().as_bytes());
    }
    if let Some(why) = flags.refused.map(Fault::name).or(flags.halted.map(Reason::name)) {
        text!(out, "refused", why.as_bytes());
    }
}

fn combined(exchange: &Exchange, redact: &Redaction, stamp: &Stamp, out: &mut Vec<u8>) {
    escaped(out, exchange.client.as_bytes());
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp.common.as_bytes());
    out.extend_from_slice(b"] \"");
    escaped(out, exchange.method.as_str().as_bytes());
    out.push(b' ');
    redact.of_query(path(exchange), |piece| escaped(out, piece));
    out.push(b' ');
    out.extend_from_slice(protocol(exchange.version).as_bytes());
    out.extend_from_slice(b"\" ");
    out.extend_from_slice(exchange.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(exchange.bytes_out).as_bytes());
    out.extend_from_slice(b" \"");
    let referer = exchange.referer.as_ref().map_or(&b"-"[..], HeaderValue::as_bytes);
    redact.of_query(referer, |piece| escaped(out, piece));
    out.extend_from_slice(b"\" \"");
    escaped(out, exchange.user_agent.as_ref().map_or(&b"-"[..], HeaderValue::as_bytes));
    out.push(b'"');
}

fn path(exchange: &Exchange) -> &[u8] {
    exchange.path.as_ref().map_or(&b""[..], |path| path.as_str().as_bytes())
}

/// What fits in 64 bits is written faster.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn string(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    escaped(out, value);
    out.push(b'"');
}

/// What a client sent must neither end a line nor a string. Bytes that are not UTF-8 become U+FFFD, so that the
/// line stays JSON.
fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    // Nearly always all of them are plain: without a way out in the middle, sixteen and more are looked at in one go.
    if value.iter().fold(true, |all, &byte| all & plain(byte)) {
        out.extend_from_slice(value);
        return;
    }
    for character in String::from_utf8_lossy(value).chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/?",
    }
}

// === impl Stamp ===

impl Stamp {
    fn rfc3339(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rfc3339.as_bytes());
        out.push(b'.');
        // Three digits: a thousand more, and its first digit left out.
        out.extend_from_slice(&itoa::Buffer::new().format(1000 + self.millis).as_bytes()[1..]);
        out.push(b'Z');
    }

    fn renew(&mut self, second: u64) {
        if self.second == second && !self.rfc3339.is_empty() {
            return;
        }
        self.second = second;
        let seconds = i64::try_from(second).unwrap_or(0);
        let now = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        self.rfc3339 = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        self.common = now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
    }
}

/// The moment of `at` in milliseconds since 1970, for request ids.
pub fn unix_millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{
        access_log::{
            WorkerLog,
            ending::{Flags, Timings},
            outputs::Noted,
        },
        config::model::{AccessLogTarget, Filter, Redact},
        page::why::Why,
    };
    use http::{Method, StatusCode};
    use std::{rc::Rc, time::Instant};

    pub fn exchange() -> Exchange {
        Exchange {
            log: Rc::new(WorkerLog::default()),
            began: Instant::now(),
            began_at: UNIX_EPOCH + Duration::from_millis(1_795_240_134_007),
            client: HeaderValue::from_static("198.51.100.7"),
            method: Method::GET,
            host: Some(HeaderValue::from_static("app.example.com")),
            path: Some("/x?y=\\1".parse().unwrap()),
            version: Version::HTTP_11,
            user_agent: Some(HeaderValue::from_bytes(b"evil\\\"agent\xff").unwrap()),
            referer: None,
            request_id: HeaderValue::from_static("id-1"),
            entrypoint: "https".into(),
            route: Some("app".into()),
            server: None,
            variant: None,
            server_took: None,
            attempts: Vec::new(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            received: Rc::default(),
            bytes_out: 12,
            link: Rc::default(),
            held: Vec::new(),
            finished: true,
            timings: Timings::default(),
            noted: None,
            trace: None,
            flags: Flags {
                retries: 2,
                page: Some(Why::Status),
                refused: Some(Fault::Chunk),
                ..Flags::default()
            },
        }
    }

    pub fn log(format: AccessLogFormat) -> AccessLog {
        AccessLog {
            name: "access".into(),
            to: AccessLogTarget::Stdout,
            format,
            filter: Filter::default(),
            request_headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("cookie")],
            response_headers: vec![HeaderName::from_static("x-b")],
        }
    }

    pub fn line_of(format: AccessLogFormat, exchange: &Exchange) -> String {
        let redact = Redaction::new(&Redact {
            query: vec!["token".into()],
            headers: vec![HeaderName::from_static("cookie")],
        });
        let mut out = Vec::new();
        line(&log(format), exchange, &Ended::of(exchange), &redact, &mut Stamp::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn written(format: AccessLogFormat) -> String {
        line_of(format, &exchange())
    }

    #[test]
    fn json_tells_where_the_time_went_and_who_is_to_blame() {
        let mut exchange = exchange();
        let after = |ms| exchange.began + Duration::from_millis(ms);
        exchange.timings = Timings {
            asked: Some(after(10)),
            connect: Some(Duration::from_millis(5)),
            answered: Some(after(40)),
        };
        exchange.received.ended.set(Some(after(7)));
        exchange.flags = Flags { undelivered: Some("silent"), breaker: true, ..Flags::default() };
        let value: serde_json::Value =
            serde_json::from_str(&line_of(AccessLogFormat::Json, &exchange)).unwrap();
        for (field, expected) in
            [("body_us", 7_000), ("wait_us", 10_000), ("connect_us", 5_000), ("first_byte_us", 25_000)]
        {
            assert_eq!(value[field], expected, "{field}");
        }
        assert!(value["answer_us"].is_u64());
        assert_eq!(value["flags"], serde_json::json!(["undelivered", "breaker", "timeout"]));
        assert_eq!((&value["fault"], &value["undelivered"]), (&"server".into(), &"silent".into()));
    }

    #[test]
    fn header_fields_are_written_where_they_are_wanted_and_not_hidden() {
        let mut exchange = exchange();
        exchange.path = Some("/x?token=abc".parse().unwrap());
        let mut noted = Noted::default();
        noted.fill(&[("x-a", "1"), ("cookie", "secret"), ("x-other", "2")], &[]);
        exchange.noted = Some(Box::new(noted));
        let line = line_of(AccessLogFormat::Json, &exchange);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["request_headers"], serde_json::json!({ "x-a": "1", "cookie": "[redacted]" }));
        assert_eq!(value["response_headers"], serde_json::json!({}));
        assert_eq!(value["path"], "/x?token=[redacted]");
    }

    #[test]
    fn a_json_line_is_json_whatever_the_client_sent() {
        let line = written(AccessLogFormat::Json);
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["ts"], "2026-11-21T05:48:54.007Z");
        assert_eq!(value["path"], "/x?y=\\1");
        assert_eq!(value["user_agent"], "evil\\\"agent\u{fffd}");
        assert_eq!(value["flags"], serde_json::json!(["retried", "page", "refused"]));
        assert_eq!(value["refused"], "chunk");
        assert_eq!(value["page"], "status");
        assert_eq!(value["retries"], 2);
        assert_eq!(value["status"], 503);
    }

    #[test]
    fn a_combined_line_is_what_log_readers_know() {
        assert_eq!(
            written(AccessLogFormat::Combined),
            "198.51.100.7 - - [21/Nov/2026:05:48:54 +0000] \"GET /x?y=\\\\1 HTTP/1.1\" 503 12 \"-\" \
             \"evil\\\\\\\"agent\u{fffd}\"\n"
        );
    }
}
