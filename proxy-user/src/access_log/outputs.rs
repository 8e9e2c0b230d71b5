//! The access logs of a configuration: what each is about, and how it is written.

use std::{io, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    access_log::{
        Exchange,
        connections::{self, Connection},
        ending::Ended,
        format::{self, Stamp},
        redact::Redaction,
        sink::Sink,
    },
    config::model::{AccessLog, AccessLogFormat, Filter, Log, LogPiece},
};

/// All of them. Immutable, as the snapshot that it is part of; sinks go on from one to the next.
#[derive(Debug, Default)]
pub struct AccessLogs {
    pub outputs: Vec<Output>,
    pub redact: Redaction,
    wanted: Wanted,
}

/// One of them.
#[derive(Debug)]
pub struct Output {
    config: AccessLog,
    filtered: bool,
    pub sink: Arc<Sink>,
}

/// The header fields that any of them wants.
#[derive(Debug, Default)]
struct Wanted {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

/// Those that a request had, and its answer.
#[derive(Debug, Default)]
pub struct Noted {
    request: Vec<(HeaderName, HeaderValue)>,
    response: Vec<(HeaderName, HeaderValue)>,
}

// === impl AccessLogs ===

impl AccessLogs {
    /// # Errors
    /// With what can't be opened, and why.
    pub fn open(log: &Log, before: Option<&Self>) -> Result<Self, (String, io::Error)> {
        let known = |wanted: &AccessLog| {
            let known = before?.outputs.iter().find(|known| known.config.name == wanted.name)?;
            (known.config.to == wanted.to).then(|| known.sink.clone())
        };
        let mut logs = Self { redact: Redaction::new(&log.redact), ..Self::default() };
        for config in &log.access {
            let sink = match known(config) {
                Some(sink) => sink,
                None => Sink::open(config).map(Arc::new).map_err(|error| (config.to.to_string(), error))?,
            };
            logs.wanted.extend(config);
            let filtered = !config.filter.takes_all();
            logs.outputs.push(Output { config: config.clone(), filtered, sink });
        }
        Ok(logs)
    }

    /// Keeps what some log wants of a request's head.
    pub fn note(&self, headers: &HeaderMap) -> Option<Box<Noted>> {
        if self.wanted.request.is_empty() && self.wanted.response.is_empty() {
            return None;
        }
        Some(Box::new(Noted { request: among(headers, &self.wanted.request), response: Vec::new() }))
    }

    /// Likewise of its answer's.
    pub fn note_answer(&self, noted: &mut Option<Box<Noted>>, headers: &HeaderMap) {
        if let Some(noted) = noted {
            noted.response = among(headers, &self.wanted.response);
        }
    }

    /// Has all files opened anew.
    pub fn reopen(&self) {
        self.outputs.iter().for_each(|output| output.sink.reopen());
    }

    /// Waits until everything handed over so far is written, but not for long.
    pub fn settle(&self) {
        self.outputs.iter().for_each(|output| output.sink.settle());
    }
}

fn among(headers: &HeaderMap, wanted: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    wanted.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

// === impl Wanted ===

impl Wanted {
    fn extend(&mut self, config: &AccessLog) {
        let pieces = match &config.format {
            AccessLogFormat::Template(template) => &template.pieces[..],
            AccessLogFormat::Json | AccessLogFormat::Combined => &[],
        };
        let of_request = pieces.iter().filter_map(|piece| match piece {
            LogPiece::RequestHeader(name) => Some(name),
            _ => None,
        });
        let of_response = pieces.iter().filter_map(|piece| match piece {
            LogPiece::ResponseHeader(name) => Some(name),
            _ => None,
        });
        for (wanted, names) in [
            (&mut self.request, config.request_headers.iter().chain(of_request).collect::<Vec<_>>()),
            (&mut self.response, config.response_headers.iter().chain(of_response).collect()),
        ] {
            for name in names {
                if !wanted.contains(name) {
                    wanted.push(name.clone());
                }
            }
        }
    }
}

// === impl Noted ===

impl Noted {
    pub fn of_request(&self, name: &HeaderName) -> Option<&HeaderValue> {
        find(&self.request, name)
    }

    pub fn of_response(&self, name: &HeaderName) -> Option<&HeaderValue> {
        find(&self.response, name)
    }

    #[cfg(test)]
    pub fn fill(
        &mut self,
        request: &[(&'static str, &'static str)],
        response: &[(&'static str, &'static str)],
    ) {
        let fields = |fields: &[(&'static str, &'static str)]| {
            let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            fields.iter().map(field).collect::<Vec<_>>()
        };
        (self.request, self.response) = (fields(request), fields(response));
    }
}

fn find<'a>(noted: &'a [(HeaderName, HeaderValue)], name: &HeaderName) -> Option<&'a HeaderValue> {
    noted.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

// === impl Output ===

impl Output {
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Where it goes, as it is written.
    pub fn place(&self) -> String {
        self.config.to.to_string()
    }

    /// Whether it is about this request.
    pub fn wants(&self, exchange: &Exchange, ended: &Ended) -> bool {
        !self.filtered || passes(&self.config.filter, exchange, ended, || fastrand::u32(..Filter::ALL))
    }

    /// Likewise about a connection that was carried untouched. It has a route and took its time, but neither status nor path.
    pub fn wants_connection(&self, connection: &Connection<'_>) -> bool {
        let Filter { status, routes, paths, slower_than, sample } = &self.config.filter;
        let route = |known: &Arc<str>| connection.route == Some(known);
        status.is_empty()
            && paths.is_empty()
            && (routes.is_empty() || routes.iter().any(route))
            && slower_than.is_none_or(|limit| u128::from(connection.duration_us) >= limit.as_micros())
            && (!connection.is_well() || *sample == Filter::ALL || fastrand::u32(..Filter::ALL) < *sample)
    }

    /// Appends the connection's line: as JSON, where the log is of requests' JSON, else in the "combined" format.
    pub fn connection(&self, connection: &Connection<'_>, out: &mut Vec<u8>) {
        if self.sink.takes_severities {
            out.extend_from_slice(if connection.is_well() { b"<6>" } else { b"<4>" });
        }
        connections::line(self.config.format == AccessLogFormat::Json, connection, out);
    }

    /// Appends the request's line.
    pub fn line(
        &self,
        exchange: &Exchange,
        ended: &Ended,
        redact: &Redaction,
        stamp: &mut Stamp,
        out: &mut Vec<u8>,
    ) {
        if self.sink.takes_severities {
            out.extend_from_slice(if ended.well(exchange) { b"<6>" } else { b"<4>" });
        }
        format::line(&self.config, exchange, ended, redact, stamp, out);
    }
}

/// `lot`: a number below [`Filter::ALL`].
fn passes(filter: &Filter, exchange: &Exchange, ended: &Ended, lot: impl FnOnce() -> u32) -> bool {
    let Filter { status, routes, paths, slower_than, sample } = filter;
    let code = exchange.status.as_u16();
    let path = || exchange.path.as_ref().map_or("", |path| path.path());
    (status.is_empty() || status.iter().any(|range| range.contains(&code)))
        && (routes.is_empty() || exchange.route.as_ref().is_some_and(|route| routes.contains(route)))
        && (paths.is_empty() || paths.iter().any(|prefix| path().starts_with(&**prefix)))
        && slower_than.is_none_or(|limit| ended.took >= limit)
        && (*sample >= Filter::ALL || !ended.well(exchange) || lot() < *sample)
}

// === impl AccessLogTarget ===

impl std::fmt::Display for crate::config::model::AccessLogTarget {
    /// As it would be written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::config::model::{AccessLogTarget as To, Syslog, Transport};
        let at = |f: &mut std::fmt::Formatter<'_>, kind, host: &str, port| match host.contains(':') {
            true => write!(f, "syslog+{kind}://[{host}]:{port}"),
            false => write!(f, "syslog+{kind}://{host}:{port}"),
        };
        match self {
            To::Stdout => f.write_str("stdout"),
            To::File { path, .. } => write!(f, "{}", path.display()),
            To::Journald(path) => write!(f, "journald:{}", path.display()),
            To::Syslog(Syslog { transport, .. }) => match transport {
                Transport::Unix(path) => write!(f, "syslog+unix:{}", path.display()),
                Transport::Udp { host, port } => at(f, "udp", host, *port),
                Transport::Tcp { host, port } => at(f, "tcp", host, *port),
                Transport::Tls { host, port, .. } => at(f, "tls", host, *port),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::{ending::Flags, format::tests::exchange};
    use http::StatusCode;
    use std::time::Duration;

    fn ended(change: impl FnOnce(&mut Exchange)) -> (Exchange, Ended) {
        let mut exchange = exchange();
        (exchange.status, exchange.flags) = (StatusCode::OK, Flags::default());
        change(&mut exchange);
        let ended = Ended::of(&exchange);
        (exchange, ended)
    }

    #[test]
    fn all_that_a_filter_asks_for_must_hold() {
        let filter = Filter {
            status: vec![200..=299, 404..=404],
            routes: vec!["app".into()],
            paths: vec!["/x".into(), "/y/".into()],
            slower_than: None,
            ..Filter::default()
        };
        let wanted = |change: fn(&mut Exchange)| {
            let (exchange, ended) = ended(change);
            passes(&filter, &exchange, &ended, || 0)
        };
        assert!(wanted(|_| {}));
        assert!(wanted(|one| one.status = StatusCode::NOT_FOUND));
        assert!(!wanted(|one| one.status = StatusCode::FOUND));
        assert!(!wanted(|one| one.route = Some("shop".into())));
        assert!(!wanted(|one| one.route = None));
        assert!(!wanted(|one| one.path = Some("/z?/x".parse().unwrap())));
    }

    #[test]
    fn only_slow_ones_are_written_where_that_is_asked() {
        let (exchange, mut ended) = ended(|_| {});
        let filter = Filter { slower_than: Some(Duration::from_secs(1)), ..Filter::default() };
        for (took, wanted) in [(999, false), (1000, true)] {
            ended.took = Duration::from_millis(took);
            assert_eq!(passes(&filter, &exchange, &ended, || 0), wanted, "{took} ms");
        }
    }

    #[test]
    fn of_good_requests_a_share_is_written_and_of_bad_ones_all() {
        let filter = Filter { sample: 100, ..Filter::default() };
        let passes = |change: fn(&mut Exchange), lot| {
            let (exchange, ended) = ended(change);
            super::passes(&filter, &exchange, &ended, || lot)
        };
        assert!(passes(|_| {}, 99));
        assert!(!passes(|_| {}, 100));
        assert!(
            !passes(|one| one.status = StatusCode::NOT_FOUND, 100),
            "a client's error is nobody's concern"
        );
        assert!(passes(|one| one.status = StatusCode::BAD_GATEWAY, 9_999));
        assert!(passes(|one| one.flags.cut = true, 9_999));
        assert!(passes(|one| one.flags.server_broke_off = true, 9_999));
    }
}
