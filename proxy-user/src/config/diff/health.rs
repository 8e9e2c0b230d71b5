//! The keys of a service that have to do with its servers' health.

use std::ops::RangeInclusive;

use super::{Keys, joined, show};
use crate::config::model::{Ask, BodyMatch, Breaker, Eject, HealthCheck, HttpCheck, Slow, Step};

pub fn health(check: &HealthCheck, keys: &mut Keys) {
    let HealthCheck { ask, host, port, every, fast, timeout, fall, rise, least } = check;
    match ask {
        Ask::Http(http) => self::http(http, keys),
        Ask::Tcp => drop(keys.insert("health.tcp", "true".to_owned())),
        Ask::Tls => drop(keys.insert("health.tls", "true".to_owned())),
        Ask::Script { steps, tls } => {
            keys.insert("health.script", joined(steps.iter().map(step)));
            if *tls {
                keys.insert("health.tls", "true".to_owned());
            }
        }
        Ask::Grpc(service) => drop(keys.insert("health.grpc", format!("\"{service}\""))),
    }
    let host = host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    keys.extend(host.map(|host| ("health.host", host)));
    keys.extend(port.map(|port| ("health.port", port.to_string())));
    keys.insert("health.every", show(*every));
    keys.insert("health.fast", show(*fast));
    keys.insert("health.timeout", show(*timeout));
    keys.insert("health.fall", fall.to_string());
    keys.insert("health.rise", rise.to_string());
    keys.extend(least.map(|least| ("health.least", format!("{least}%"))));
}

fn http(check: &HttpCheck, keys: &mut Keys) {
    let HttpCheck { method, path, status, headers, body, drain } = check;
    keys.insert("health.path", path.to_string());
    if *method != http::Method::GET {
        keys.insert("health.method", method.to_string());
    }
    keys.insert("health.status", self::statuses(status));
    if !headers.is_empty() {
        let shown = headers.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())),
            None => name.to_string(),
        });
        keys.insert("health.expect_header", joined(shown));
    }
    let statuses: Vec<_> = drain.statuses.iter().map(http::StatusCode::as_str).collect();
    keys.extend((!statuses.is_empty()).then(|| ("health.drain_on", statuses.join(", "))));
    keys.extend(drain.header.as_ref().map(|header| ("health.drain_header", header.to_string())));
    match body {
        None => {}
        Some(BodyMatch::Contains(text)) => {
            keys.insert("health.expect_body", String::from_utf8_lossy(text).into_owned());
        }
        Some(BodyMatch::Regex(regex)) => {
            keys.insert("health.expect_body_regex", regex.as_str().to_owned());
        }
    }
}

fn step(step: &Step) -> String {
    match step {
        Step::Send(bytes) => format!("send {}", bytes.escape_ascii()),
        Step::Expect(bytes) => format!("expect {}", bytes.escape_ascii()),
    }
}

fn statuses(ranges: &[RangeInclusive<u16>]) -> String {
    joined(ranges.iter().map(|range| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    }))
}

pub fn eject(eject: &Eject, keys: &mut Keys) {
    let Eject { after, first, longest, most, status } = eject;
    keys.insert("eject.after", after.to_string());
    keys.insert("eject.for", show(*first));
    keys.insert("eject.longest", show(*longest));
    keys.insert("eject.most", format!("{most}%"));
    if !status.is_empty() {
        keys.insert("eject.status", statuses(status));
    }
}

pub fn breaker(breaker: &Breaker, keys: &mut Keys) {
    let Breaker { network, errors, latency, over, at_least, open, recover } = breaker;
    keys.extend(network.map(|share| ("breaker.network", format!("{share}%"))));
    keys.extend(errors.map(|share| ("breaker.errors", format!("{share}%"))));
    if let Some(Slow { limit, quantile }) = latency {
        keys.insert("breaker.latency", show(*limit));
        keys.insert("breaker.quantile", format!("{quantile}%"));
    }
    keys.insert("breaker.over", show(*over));
    keys.insert("breaker.at_least", at_least.to_string());
    keys.insert("breaker.open", show(*open));
    keys.insert("breaker.recover", show(*recover));
}
