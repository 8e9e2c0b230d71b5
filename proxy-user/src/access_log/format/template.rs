//! A line after a template of the operator's.
//!
//! What a client sent is escaped as in JSON, so that it can neither end the line nor a pair of quotes around it; what
//! isn't known is `-`.

use std::time::Duration;

use http::HeaderValue;

use super::{Stamp, escaped, micros, path, protocol};
use crate::{
    access_log::{
        Exchange,
        ending::{Blame, Ended},
        redact::{REDACTED, Redaction},
    },
    config::model::{LogPiece, Variable},
};

pub fn filled(
    pieces: &[LogPiece],
    exchange: &Exchange,
    ended: &Ended,
    redact: &Redaction,
    stamp: &Stamp,
    out: &mut Vec<u8>,
) {
    let header = |out: &mut Vec<u8>, hidden: bool, value: Option<&HeaderValue>| match value {
        Some(_) if hidden => out.extend_from_slice(REDACTED.as_bytes()),
        value => text(out, value.map(HeaderValue::as_bytes)),
    };
    let noted = exchange.noted.as_ref();
    for piece in pieces {
        match piece {
            LogPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
            LogPiece::Variable(variable) => fill(*variable, exchange, ended, redact, stamp, out),
            LogPiece::RequestHeader(name) => {
                header(out, redact.hides(name), noted.and_then(|noted| noted.of_request(name)));
            }
            LogPiece::ResponseHeader(name) => {
                header(out, redact.hides(name), noted.and_then(|noted| noted.of_response(name)));
            }
        }
    }
}

fn fill(
    variable: Variable,
    exchange: &Exchange,
    ended: &Ended,
    redact: &Redaction,
    stamp: &Stamp,
    out: &mut Vec<u8>,
) {
    let split = ended.split;
    match variable {
        Variable::Ts => stamp.rfc3339(out),
        Variable::Time => out.extend_from_slice(stamp.common.as_bytes()),
        Variable::ClientIp => text(out, Some(exchange.client.as_bytes())),
        Variable::Entrypoint => text(out, Some(exchange.entrypoint.as_bytes())),
        Variable::Method => text(out, Some(exchange.method.as_str().as_bytes())),
        Variable::Host => text(out, exchange.host.as_ref().map(HeaderValue::as_bytes)),
        Variable::Path => redact.of_query(path(exchange), |piece| escaped(out, piece)),
        Variable::Protocol => text(out, Some(protocol(exchange.version).as_bytes())),
        Variable::Status => number(out, u64::from(exchange.status.as_u16())),
        Variable::BytesIn => number(out, exchange.received.bytes.get()),
        Variable::BytesOut => number(out, exchange.bytes_out),
        Variable::DurationUs => time(out, Some(ended.took)),
        Variable::BodyUs => time(out, split.body),
        Variable::WaitUs => time(out, split.wait),
        Variable::ConnectUs => time(out, split.connect),
        Variable::FirstByteUs => time(out, split.first_byte),
        Variable::AnswerUs => time(out, split.answer),
        Variable::Upstream => text(out, exchange.server.as_deref().map(str::as_bytes)),
        Variable::UpstreamUs => time(out, exchange.server_took),
        Variable::Retries => number(out, u64::from(exchange.flags.retries)),
        Variable::Route => text(out, exchange.route.as_deref().map(str::as_bytes)),
        Variable::Variant => text(out, exchange.variant.as_deref().map(str::as_bytes)),
        Variable::UserAgent => text(out, exchange.user_agent.as_ref().map(HeaderValue::as_bytes)),
        Variable::Referer => match &exchange.referer {
            Some(referer) => redact.of_query(referer.as_bytes(), |piece| escaped(out, piece)),
            None => out.push(b'-'),
        },
        Variable::RequestId => text(out, Some(exchange.request_id.as_bytes())),
        Variable::TraceId => match &exchange.trace {
            Some(trace) => out.extend_from_slice(&trace.id_text()),
            None => out.push(b'-'),
        },
        Variable::Flags => {
            let names: Vec<_> = exchange.flags.names().collect();
            text(out, Some(names.join(",").as_bytes()).filter(|names| !names.is_empty()));
        }
        Variable::Fault => text(out, ended.blame.map(Blame::name).map(str::as_bytes)),
        Variable::Why => text(out, exchange.flags.why().map(str::as_bytes)),
    }
}

fn text(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => escaped(out, value),
        None => out.push(b'-'),
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn time(out: &mut Vec<u8>, value: Option<Duration>) {
    match value {
        Some(value) => number(out, micros(value)),
        None => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{exchange, line_of};
    use crate::{
        access_log::outputs::Noted,
        config::model::{AccessLogFormat, LogPiece, LogTemplate, Variable},
    };
    use http::HeaderName;

    #[test]
    fn every_variable_is_filled_or_a_dash() {
        let pieces = Variable::ALL.iter().flat_map(|(name, variable)| {
            [LogPiece::Text(format!(" {name}=")), LogPiece::Variable(*variable)]
        });
        let template = LogTemplate { text: String::new(), pieces: pieces.collect() };
        let mut exchange = exchange();
        exchange.referer = Some("https://a.example/?token=1".parse().unwrap());
        let line = line_of(AccessLogFormat::Template(template), &exchange);
        let (before, rest) = line.split_once(" duration_us=").unwrap();
        assert_eq!(
            before,
            " ts=2026-11-21T05:48:54.007Z time=21/Nov/2026:05:48:54 +0000 client_ip=198.51.100.7 \
             entrypoint=https method=GET host=app.example.com path=/x?y=\\\\1 protocol=HTTP/1.1 status=503 \
             bytes_in=0 bytes_out=12"
        );
        let (took, rest) = rest.split_once(' ').unwrap();
        assert!(took.parse::<u64>().is_ok());
        assert_eq!(
            rest,
            "body_us=- wait_us=- connect_us=- first_byte_us=- answer_us=- upstream=- upstream_us=- retries=2 \
             route=app variant=- user_agent=evil\\\\\\\"agent\u{fffd} \
             referer=https://a.example/?token=[redacted] request_id=id-1 trace_id=- \
             flags=retried,page,refused fault=client why=chunk\n"
        );
    }

    #[test]
    fn header_fields_are_filled_unless_they_are_hidden() {
        let name = HeaderName::from_static;
        let text = |text: &str| LogPiece::Text(text.to_owned());
        let pieces = vec![
            LogPiece::RequestHeader(name("x-a")),
            text(" "),
            LogPiece::RequestHeader(name("cookie")),
            text(" "),
            LogPiece::ResponseHeader(name("x-b")),
            text(" "),
            LogPiece::ResponseHeader(name("x-none")),
        ];
        let mut exchange = exchange();
        let mut noted = Noted::default();
        noted.fill(&[("x-a", "a\"b"), ("cookie", "secret")], &[("x-b", "2")]);
        exchange.noted = Some(Box::new(noted));
        let template = LogTemplate { text: String::new(), pieces };
        assert_eq!(line_of(AccessLogFormat::Template(template), &exchange), "a\\\"b [redacted] 2 -\n");
    }
}
