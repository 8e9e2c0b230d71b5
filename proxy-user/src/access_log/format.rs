//! A line of the access log: as JSON, or in the "combined" format of Apache and nginx.
//!
//! Written by hand into the worker's buffer: this runs once per request, and a serializer costs several times as much.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, Version};

use crate::{
    access_log::{Exchange, attempts},
    config::model::AccessLogFormat,
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
}

/// Appends the line of `exchange`, with its line end.
pub fn line(format: AccessLogFormat, exchange: &Exchange, stamp: &mut Stamp, out: &mut Vec<u8>) {
    let since_epoch = exchange.began_at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    stamp.renew(since_epoch.as_secs());
    match format {
        AccessLogFormat::Json => json(exchange, stamp, since_epoch.subsec_millis(), out),
        AccessLogFormat::Combined => combined(exchange, stamp, out),
    }
}

fn json(exchange: &Exchange, stamp: &Stamp, millis: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"ts\":\"");
    out.extend_from_slice(stamp.rfc3339.as_bytes());
    out.push(b'.');
    // Three digits: a thousand more, and its first digit left out.
    out.extend_from_slice(&itoa::Buffer::new().format(1000 + millis).as_bytes()[1..]);
    out.extend_from_slice(b"Z\"");
    field(out, "client_ip", exchange.client.as_bytes());
    field(out, "entrypoint", exchange.entrypoint.as_bytes());
    field(out, "method", exchange.method.as_str().as_bytes());
    optional(out, "host", exchange.host.as_ref());
    field(out, "path", path(exchange));
    field(out, "protocol", protocol(exchange.version).as_bytes());
    number(out, "status", exchange.status.as_u16());
    number(out, "bytes_in", exchange.received.bytes.get());
    number(out, "bytes_out", exchange.bytes_out);
    number(out, "duration_us", exchange.began.elapsed().as_micros());
    if let Some(server) = &exchange.server {
        field(out, "upstream", server.as_bytes());
    }
    if let Some(took) = exchange.server_took {
        number(out, "upstream_us", took.as_micros());
    }
    attempts::written(out, &exchange.attempts);
    if let Some(route) = &exchange.route {
        field(out, "route", route.as_bytes());
    }
    if let Some(variant) = &exchange.variant {
        field(out, "variant", variant.as_bytes());
    }
    optional(out, "user_agent", exchange.user_agent.as_ref());
    field(out, "request_id", exchange.request_id.as_bytes());
    flags(exchange, out);
    out.extend_from_slice(b"}\n");
}

fn flags(exchange: &Exchange, out: &mut Vec<u8>) {
    let flags = exchange.flags;
    out.extend_from_slice(br#","flags":["#);
    let start = out.len();
    for (set, name) in [
        (flags.retries > 0, "retried"),
        (flags.page.is_some(), "page"),
        (flags.server_broke_off, "server_broke_off"),
        (flags.client_left, "client_left"),
        (flags.refused.is_some() || flags.halted.is_some(), "refused"),
    ] {
        if set {
            if out.len() > start {
                out.push(b',');
            }
            string(out, name.as_bytes());
        }
    }
    out.push(b']');
    if flags.retries > 0 {
        number(out, "retries", flags.retries);
    }
    if let Some(why) = flags.page {
        field(out, "page", why.name().as_bytes());
    }
    if let Some(why) = flags.refused.map(Fault::name).or(flags.halted.map(Reason::name)) {
        field(out, "refused", why.as_bytes());
    }
}

fn combined(exchange: &Exchange, stamp: &Stamp, out: &mut Vec<u8>) {
    escaped(out, exchange.client.as_bytes());
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp.common.as_bytes());
    out.extend_from_slice(b"] \"");
    escaped(out, exchange.method.as_str().as_bytes());
    out.push(b' ');
    escaped(out, path(exchange));
    out.push(b' ');
    out.extend_from_slice(protocol(exchange.version).as_bytes());
    out.extend_from_slice(b"\" ");
    out.extend_from_slice(exchange.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(exchange.bytes_out).as_bytes());
    out.extend_from_slice(b" \"");
    escaped(out, exchange.referer.as_ref().map_or(&b"-"[..], HeaderValue::as_bytes));
    out.extend_from_slice(b"\" \"");
    escaped(out, exchange.user_agent.as_ref().map_or(&b"-"[..], HeaderValue::as_bytes));
    out.extend_from_slice(b"\"\n");
}

fn path(exchange: &Exchange) -> &[u8] {
    exchange.path.as_ref().map_or(&b""[..], |path| path.as_str().as_bytes())
}

fn number(out: &mut Vec<u8>, name: &str, value: impl itoa::Integer) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn optional(out: &mut Vec<u8>, name: &str, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        field(out, name, value.as_bytes());
    }
}

/// `name` must need no escaping.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    string(out, value);
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
mod tests {
    use super::*;
    use crate::{
        access_log::{Flags, WorkerLog},
        page::why::Why,
    };
    use http::{Method, StatusCode};
    use std::{rc::Rc, time::Instant};

    fn exchange() -> Exchange {
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
            flags: Flags {
                retries: 2,
                page: Some(Why::Status),
                refused: Some(Fault::Chunk),
                ..Flags::default()
            },
        }
    }

    fn written(format: AccessLogFormat) -> String {
        let mut out = Vec::new();
        line(format, &exchange(), &mut Stamp::default(), &mut out);
        String::from_utf8(out).unwrap()
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
