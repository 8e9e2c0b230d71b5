//! `health` of a service: how its servers are probed.

mod drain_on;

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use super::{
    breaking,
    merge::Item,
    scalar::{self, HOUR, MILLISECOND},
};
use crate::config::{
    code::Code,
    default,
    findings::Findings,
    model::{Ask, BodyMatch, HealthCheck, HttpCheck, Step},
    source::FileId,
    value::{self, quoted},
    written::{self, At, List},
};

/// The longest regular expression for a body, and how large it may get.
const LONGEST_REGEX: usize = 1000;
const LARGEST_REGEX: usize = 1 << 20;

const MOST_STEPS: usize = 16;

pub fn health(
    item: &Item<'_, written::Service>,
    health: &At<written::Health>,
    findings: &mut Findings,
) -> HealthCheck {
    let file = item.file;
    let what = format!("service `{}`: health", item.name.value);
    let body = &health.value;
    let (every, timeout) = times(file, &what, body, findings);
    let ask = ask(item, health, findings);
    let count = |key: &str, written: Option<&At<i64>>, default, findings: &mut Findings| {
        scalar::count(file, &format!("{what}.{key}"), written, default, 1..=100, findings)
    };
    let port = |written: &At<i64>, findings: &mut Findings| {
        let port = scalar::count(file, &format!("{what}.port"), Some(written), 1, 1..=65_535, findings);
        u16::try_from(port).ok()
    };
    HealthCheck {
        ask,
        host: body.host.as_ref().and_then(|host| probe_host(item, host, findings)),
        port: body.port.as_ref().and_then(|written| port(written, findings)),
        every,
        fast: fast(file, &what, body, (every, timeout), findings),
        timeout,
        fall: count("fall", body.fall.as_ref(), default::HEALTH_FALL, findings),
        rise: count("rise", body.rise.as_ref(), default::HEALTH_RISE, findings),
        least: breaking::share(file, &format!("{what}.least"), body.least.as_ref(), 1..=100, findings),
    }
}

fn times(file: FileId, what: &str, body: &written::Health, findings: &mut Findings) -> (Duration, Duration) {
    let faults_before = findings.count();
    let range = 10 * MILLISECOND..=HOUR;
    let setting = format!("{what}.every");
    let every = scalar::duration(file, &setting, body.every.as_ref(), default::HEALTH_EVERY, range, findings);
    let every_is_known = findings.count() == faults_before;
    let setting = format!("{what}.timeout");
    let range = MILLISECOND..=HOUR;
    let mut timeout =
        scalar::duration(file, &setting, body.timeout.as_ref(), default::HEALTH_TIMEOUT, range, findings);
    match &body.timeout {
        None => timeout = timeout.min(every),
        Some(written) if timeout > every && every_is_known => {
            let (timeout, every) = (value::show(timeout), value::show(every));
            let message = format!("{what}: a probe may take {timeout}, but the next one comes after {every}");
            findings
                .error(Code::Contradiction, file, &written.span, message)
                .hint("`timeout` can't be longer than `every`");
        }
        Some(_) => {}
    }
    (every, timeout)
}

fn fast(
    file: FileId,
    what: &str,
    body: &written::Health,
    (every, timeout): (Duration, Duration),
    findings: &mut Findings,
) -> Duration {
    let by_itself = (every / 4).max(timeout).min(every);
    let Some(written) = &body.fast else { return by_itself };
    let faults_before = findings.count();
    let range = 10 * MILLISECOND..=HOUR;
    let fast = scalar::duration(file, &format!("{what}.fast"), Some(written), "250ms", range, findings);
    if findings.count() == faults_before && fast > every {
        let message = format!(
            "{what}: between two verdicts probes come every {}, but in transition only every {}",
            value::show(every),
            value::show(fast)
        );
        findings
            .error(Code::Contradiction, file, &written.span, message)
            .hint("`fast` can't be longer than `every`");
    }
    fast.min(every)
}

/// Exactly one way to ask.
fn ask(item: &Item<'_, written::Service>, health: &At<written::Health>, findings: &mut Findings) -> Ask {
    let body = &health.value;
    let (file, name) = (item.file, &item.name.value);
    let on = |flag: &Option<At<bool>>| flag.as_ref().filter(|flag| flag.value).map(|flag| flag.span.clone());
    let spoken = body.send.as_ref().or(body.expect.as_ref()).map(|text| text.span.clone());
    let script =
        body.script.as_ref().map(|steps| steps.first().map_or(health.span.clone(), |s| s.span.clone()));
    let scripted = spoken.is_some() || script.is_some();
    let tls = on(&body.tls);
    let mut ways = vec![
        ("path", body.path.as_ref().map(|path| path.span.clone())),
        ("tcp", on(&body.tcp)),
        ("send", spoken),
        ("script", script),
        ("grpc", body.grpc.as_ref().map(|service| service.span.clone())),
    ];
    if !scripted {
        ways.push(("tls", tls.clone()));
    }
    let mut ways = ways.into_iter().filter_map(|(key, span)| Some((key, span?)));
    let Some((way, first)) = ways.next() else {
        if !findings.lost(&format!("service.{name}.health.path")) {
            let message = format!("service `{name}`: `health` has no `path`");
            findings.error(Code::Missing, file, &health.span, message).hint(
                "write what to ask for: `path = \"/ping\"`; or `tcp`, `tls`, `send`, `script` or `grpc`",
            );
        }
        return Ask::Tcp;
    };
    if let Some((other, span)) = ways.next() {
        let message = format!("service `{name}`: health asks by `{way}` and by `{other}`");
        findings
            .error(Code::Contradiction, file, &span, message)
            .related(file, &first, "the other way is here")
            .hint("keep one of the two");
    }
    if way != "path" {
        without_path(item, body, way, findings);
    }
    match way {
        "path" => Ask::Http(Box::new(http(item, health, findings))),
        "tcp" => Ask::Tcp,
        "tls" => {
            if item.body.tls.is_none() && body.host.is_none() {
                let message = format!("service `{name}`: `health` doesn't say for which name to shake hands");
                findings
                    .error(Code::Missing, file, &health.span, message)
                    .hint("add the name that clients ask for: `host = \"app.example.com\"`");
            }
            Ask::Tls
        }
        "grpc" => Ask::Grpc(body.grpc.as_ref().map(|service| service.value.clone()).unwrap_or_default()),
        _ => Ask::Script { steps: steps(item, health, findings), tls: tls.is_some() },
    }
}

/// What only an HTTP probe can look at does nothing elsewhere.
fn without_path(
    item: &Item<'_, written::Service>,
    body: &written::Health,
    way: &str,
    findings: &mut Findings,
) {
    let header = body.expect_header.keys().next();
    for (key, span) in [
        ("method", body.method.as_ref().map(|written| &written.span)),
        ("status", body.status.as_ref().map(|written| &written.span)),
        ("expect_header", header.map(|written| &written.span)),
        ("expect_body", body.expect_body.as_ref().map(|written| &written.span)),
        ("expect_body_regex", body.expect_body_regex.as_ref().map(|written| &written.span)),
        ("drain_on", body.drain_on.as_ref().map(|written| &written.span)),
        ("drain_header", body.drain_header.as_ref().map(|written| &written.span)),
    ] {
        let Some(span) = span else { continue };
        let message = format!("service `{}`: health.{key} does nothing where `{way}` asks", item.name.value);
        findings
            .error(Code::Contradiction, item.file, span, message)
            .hint("it belongs to probes over HTTP: `path = \"/ping\"`");
    }
}

fn http(
    item: &Item<'_, written::Service>,
    health: &At<written::Health>,
    findings: &mut Findings,
) -> HttpCheck {
    let body = &health.value;
    let what = format!("service `{}`: health", item.name.value);
    let status = match &body.status {
        Some(list) => statuses(item.file, &format!("{what}.status"), list, findings),
        None => vec![200..=399],
    };
    let method = match &body.method {
        None => Method::GET,
        Some(written) => {
            let upper = written.value.chars().all(|c| c.is_ascii_uppercase() || c == '-');
            let method = Method::from_bytes(written.value.as_bytes()).ok();
            method.filter(|method| upper && *method != Method::CONNECT).unwrap_or_else(|| {
                let message = format!("{what}.method {} is not a method for a probe", quoted(&written.value));
                findings
                    .error(Code::BadMethod, item.file, &written.span, message)
                    .hint("mostly it is `GET` or `HEAD`");
                Method::GET
            })
        }
    };
    HttpCheck {
        method,
        path: probe_path(item, body.path.as_ref(), findings),
        status,
        headers: headers(item.file, &what, body, findings),
        body: body_match(item.file, &what, body, findings),
        drain: drain_on::of(item, body, findings),
    }
}

fn headers(
    file: FileId,
    what: &str,
    body: &written::Health,
    findings: &mut Findings,
) -> Vec<(HeaderName, Option<HeaderValue>)> {
    let mut headers = Vec::new();
    for (name, written) in &body.expect_header {
        let Ok(parsed) = name.value.parse::<HeaderName>() else {
            let message = format!("{what}.expect_header: {} is not a header's name", quoted(&name.value));
            findings
                .error(Code::BadHeader, file, &name.span, message)
                .hint("for instance `expect_header = { X-Ready = \"yes\" }`");
            continue;
        };
        match HeaderValue::from_str(&written.value) {
            Ok(value) => headers.push((parsed, Some(value).filter(|value| !value.is_empty()))),
            Err(_) => {
                let message =
                    format!("{what}.expect_header: {} is not a header's value", quoted(&written.value));
                findings
                    .error(Code::BadHeader, file, &written.span, message)
                    .hint("it consists of visible ASCII characters");
            }
        }
    }
    headers
}

fn body_match(
    file: FileId,
    what: &str,
    body: &written::Health,
    findings: &mut Findings,
) -> Option<BodyMatch> {
    if let (Some(text), Some(regex)) = (&body.expect_body, &body.expect_body_regex) {
        let message = format!("{what}: `expect_body` and `expect_body_regex` are both written");
        findings
            .error(Code::Contradiction, file, &regex.span, message)
            .related(file, &text.span, "the other one is here")
            .hint("keep one of the two");
    }
    if let Some(text) = &body.expect_body {
        if text.value.is_empty() {
            let message = format!("{what}.expect_body is empty: every body would do");
            findings.error(Code::Missing, file, &text.span, message).hint("write a text, or leave it out");
        }
        return Some(BodyMatch::Contains(Bytes::from(text.value.clone())));
    }
    let written = body.expect_body_regex.as_ref()?;
    let built = if written.value.chars().count() > LONGEST_REGEX {
        Err(format!("is longer than {LONGEST_REGEX} characters"))
    } else {
        regex::bytes::RegexBuilder::new(&written.value)
            .size_limit(LARGEST_REGEX)
            .dfa_size_limit(LARGEST_REGEX)
            .nest_limit(50)
            .build()
            .map_err(|error| {
                // Drawn with a caret over several lines; the last one says what is wrong.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                format!("is not a regular expression: {}", last.trim_start_matches("error: "))
            })
    };
    match built {
        Ok(regex) => Some(BodyMatch::Regex(regex)),
        Err(because) => {
            let message = format!("{what}.expect_body_regex {} {because}", quoted(&written.value));
            findings
                .error(Code::BadPattern, file, &written.span, message)
                .hint("`expect_body` looks for a plain text");
            None
        }
    }
}

/// `"200-299"`, `"401"`
pub fn statuses(file: FileId, what: &str, list: &List, findings: &mut Findings) -> Vec<RangeInclusive<u16>> {
    let mut ranges = Vec::new();
    if list.items.is_empty() {
        findings
            .error(Code::EmptyList, file, &list.span, format!("{what} is an empty list"))
            .hint("leave it out, or write for instance `\"200-299\"`");
    }
    for written in &list.items {
        match value::statuses(&written.value) {
            Ok(range) => ranges.push(range),
            Err(refusal) => {
                scalar::refused(file, Code::BadStatus, &format!("{what}:"), written, refusal, findings);
            }
        }
    }
    ranges
}

fn steps(
    item: &Item<'_, written::Service>,
    health: &At<written::Health>,
    findings: &mut Findings,
) -> Vec<Step> {
    let (file, body) = (item.file, &health.value);
    let what = format!("service `{}`: health", item.name.value);
    let mut steps = Vec::new();
    let mut add = |send: Option<&At<String>>, expect: Option<&At<String>>, findings: &mut Findings| {
        for (key, written) in [("send", send), ("expect", expect)] {
            let Some(written) = written else { continue };
            let bytes = value::bytes(&written.value).unwrap_or_else(|refusal| {
                scalar::refused(file, Code::BadText, &format!("{what}.{key}:"), written, refusal, findings);
                vec![b'?']
            });
            if bytes.is_empty() {
                let message = format!("{what}.{key} is empty");
                findings.error(Code::Missing, file, &written.span, message).hint("write it, or leave it out");
            }
            steps.push(if key == "send" { Step::Send(bytes.into()) } else { Step::Expect(bytes.into()) });
        }
    };
    add(body.send.as_ref(), body.expect.as_ref(), findings);
    for step in body.script.iter().flatten() {
        if step.value.send.is_none() && step.value.expect.is_none() {
            let message = format!("{what}.script: a step neither sends nor expects anything");
            findings
                .error(Code::Missing, file, &step.span, message)
                .hint("write `{ send = \"PING\\\\r\\\\n\" }` or `{ expect = \"+PONG\" }`");
        }
        add(step.value.send.as_ref(), step.value.expect.as_ref(), findings);
    }
    if !steps.iter().any(|step| matches!(step, Step::Expect(_))) {
        let message = format!("{what} sends something and expects nothing: every server would be well");
        findings
            .error(Code::Missing, file, &health.span, message)
            .hint("add what must come back: `expect = \"+PONG\"`");
    }
    if steps.len() > MOST_STEPS {
        let message = format!("{what}.script has {} steps, out of range", steps.len());
        findings
            .error(Code::OutOfRange, file, &health.span, message)
            .hint(format!("at most {MOST_STEPS}, each `send` and each `expect` counted"));
    }
    steps
}

fn probe_path(
    item: &Item<'_, written::Service>,
    written: Option<&At<String>>,
    findings: &mut Findings,
) -> PathAndQuery {
    let root = PathAndQuery::from_static("/");
    let Some(written) = written else { return root };
    let name = &item.name.value;
    let visible = written.value.chars().all(|c| c.is_ascii_graphic() && c != '#');
    match written.value.parse() {
        Ok(path) if visible && written.value.starts_with('/') => path,
        _ => {
            let message = format!("service `{name}`: health.path {} is not a path", quoted(&written.value));
            findings
                .error(Code::BadPath, item.file, &written.span, message)
                .hint("it begins with `/`, for instance `/ping` or `/health?deep=1`");
            root
        }
    }
}

fn probe_host(
    item: &Item<'_, written::Service>,
    host: &At<String>,
    findings: &mut Findings,
) -> Option<HeaderValue> {
    let authority =
        host.value.parse::<http::uri::Authority>().ok().filter(|host| !host.as_str().contains('@'));
    let header = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if header.is_none() {
        let message =
            format!("service `{}`: health.host {} is not a host", item.name.value, quoted(&host.value));
        findings
            .error(Code::BadHeader, item.file, &host.span, message)
            .hint("it is a name, with a port if need be: `app.example.com`");
    }
    header
}
